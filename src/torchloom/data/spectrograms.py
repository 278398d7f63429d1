"""Log-mel spectrograms: how loud each band of frequencies is, frame by frame, in numpy; and what they are made with.

Bands are even on the mel scale of O'Shaughnessy ("Speech communication", 1987), on which steps sound alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

WINDOW, HOP = 0.025, 0.010  # seconds that a frame has at least, and from one to the next: as speech is looked at
FLOOR = 1e-6  # of the power in a band, about what 16 bits can still tell from nothing
BLOCK = 4096  # frames at once


def window_of(rate: int) -> int:
    """Samples of a frame, a power of two."""
    return int(2 ** math.ceil(math.log2(WINDOW * rate)))


def hop_of(rate: int) -> int:
    """Samples from a frame to the next."""
    return max(1, round(HOP * rate))


def hann(window: int) -> np.ndarray:
    """The periodic window (window,) float64."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)


def fourier_kernels(window: int) -> np.ndarray:
    """What a frame is multiplied with for its windowed discrete Fourier transform: (2 bins, window) float32, the real
    parts of all bins and then the imaginary ones."""
    angles = 2 * np.pi * np.outer(np.arange(window // 2 + 1), np.arange(window)) / window
    kernels: np.ndarray = np.concatenate([np.cos(angles), -np.sin(angles)]) * hann(window)
    return kernels.astype(np.float32)


def mel_filters(rate: int, window: int, mels: int) -> np.ndarray:
    """The share of each bin in each band, (mels, bins) float32: triangles from the middle of the band before to that of
    the one behind, but never narrower than the bins are apart, so that none is empty."""
    bins = np.arange(window // 2 + 1) * rate / window
    edges = 700 * (10 ** (np.linspace(0, _mel(rate / 2), mels + 2) / 2595) - 1)
    middle = edges[1:-1, None]
    apart = np.maximum(np.diff(edges), rate / window)[:, None]
    shares = 1 - np.maximum((middle - bins) / apart[:-1], (bins - middle) / apart[1:])
    filters: np.ndarray = np.maximum(shares, 0).astype(np.float32)
    return filters


def band_at(frequency: float, rate: int, mels: int) -> float:
    """The place of a frequency in Hz among the bands: i + 0.5 is the middle of band i."""
    return (mels + 1) * _mel(frequency) / _mel(rate / 2) - 0.5


def _mel(frequency: float) -> float:
    return 2595 * math.log10(1 + frequency / 700)


def log_mel(waveform: np.ndarray, rate: int, mels: int) -> np.ndarray:
    """(T,) float32 at `rate` -> (F, mels) float32, the logarithm of the power; silence fills up the last frame."""
    return np.concatenate(list(log_mel_blocks(waveform, rate, mels)))


def log_mel_blocks(waveform: np.ndarray, rate: int, mels: int) -> Iterator[np.ndarray]:
    """The same in pieces of so many frames, for what is long."""
    window, hop = window_of(rate), hop_of(rate)
    count = frame_count(len(waveform), window, hop)
    padded = np.pad(waveform, (0, max(0, window + (count - 1) * hop - len(waveform))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][:count]
    shape, filters = hann(window).astype(np.float32), mel_filters(rate, window, mels).T
    for start in range(0, count, BLOCK):
        spectrum = np.fft.rfft(frames[start : start + BLOCK] * shape)
        power = spectrum.real**2 + spectrum.imag**2
        yield np.log(power.astype(np.float32) @ filters + FLOOR)


def frame_count(samples: int, window: int, hop: int) -> int:
    """How many frames it takes until each sample is in one."""
    return 1 + max(0, -(-(samples - window) // hop))
