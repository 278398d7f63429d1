"""Sounds in a user's files: decoded, mixed to one channel, and resampled, by one function for training and for answers.

libsndfile (by soundfile) reads the files, and soxr resamples; both come with the extra `sound`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import IO, Any

import numpy as np

from torchloom.errors import InputError
from torchloom.system.words import extra

SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"}
UNREADABLE = {".3gp", ".aac", ".amr", ".ape", ".m4a", ".m4b", ".mka", ".mp4", ".ra", ".webm", ".wma", ".wv"}  # sounds
LONGEST = 3600  # seconds of a file
LOUDEST = 2.0**20  # where 1 is what files of whole numbers can have
BLOCK = 1 << 16  # frames that are decoded at once
CANCELLED = 1e-4  # of the power of the channels, and no more, is left where they cancel out when they are mixed: -40 dB
SHORT = 2 * 1152  # frames of sound that an MP3 file may lack of those that it announces: two of its own frames
HEAD = 64  # bytes that a file may lack of those that it announces: some writers count its head, too
OF_A_STREAM = 0x7FFF_0000  # bytes: who writes as it comes announces so many or more, as the end is not known then
ANNOUNCED = re.compile(r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
NO_END = re.compile(r"lacks an end-of-stream bit|without an End-Of-Stream flag")  # and a part of a page is left over


def library() -> ModuleType:
    """The module soundfile; InputError names the extra that has it where it is missing."""
    try:
        import soundfile
        import soxr  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: of a system without libsndfile
        raise InputError(
            f"sounds need the packages soundfile and soxr ({error}). Install them: {extra('sound')}"
        ) from error
    return soundfile  # type: ignore[no-any-return]


def read_sound(file: IO[bytes], rate: int) -> np.ndarray:
    """The sound in a file as (T,) float32, mixed to one channel and then resampled to `rate`, in samples a second.

    Raises InputError when it cannot be read as sound, is cut short, or is empty, silent, too long, or no sound but NaN
    and the like.
    """
    import soxr

    with _opened(file) as sound:
        if sound.frames > LONGEST * sound.samplerate:
            raise InputError(f"is longer than {LONGEST:,} seconds. Cut it up")
        blocks = _checked(sound)
        if sound.samplerate != rate:
            blocks = _resampled(blocks, soxr.ResampleStream(sound.samplerate, rate, 1, dtype="float32"))
        waveform = np.concatenate(list(blocks))
    if not len(waveform):
        raise InputError(f"is too short to be sound of {rate:,} samples a second")
    return waveform


def _resampled(blocks: Iterator[np.ndarray], stream: Any) -> Iterator[np.ndarray]:
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def head_of(file: IO[bytes]) -> tuple[float, int]:
    """Seconds of the sound in a file, and samples in one; InputError when it cannot be read."""
    with _opened(file) as sound:
        return sound.frames / sound.samplerate, int(sound.samplerate)


@contextmanager
def _opened(file: IO[bytes]) -> Iterator[Any]:
    """A soundfile.SoundFile; what is wrong with it is an InputError."""
    found = library()
    try:
        with found.SoundFile(file) as sound:
            _check_whole(sound.extra_info)
            yield sound
    except (found.SoundFileError, TypeError, ValueError, RuntimeError) as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise InputError(f"cannot be read as sound ({reason})") from error


def _check_whole(said: str) -> None:
    """InputError when libsndfile says that a file ends before all of it has come, which is no error there."""
    for announced, there in (map(int, match) for match in ANNOUNCED.findall(said)):
        if there + HEAD < announced < OF_A_STREAM:
            raise InputError(f"is cut short: it announces {announced:,} bytes of sound, of which {there:,} are there")
    if NO_END.search(said) and "Junk after the last page" in said:
        raise InputError("is cut short: it ends within a page")


def _frames(sound: Any) -> Iterator[np.ndarray]:
    """All frames in blocks of (T, channels) float32, as many as there are: `blocks` fills the last one up at random."""
    count = 0
    while len(frames := sound.read(BLOCK, dtype="float32", always_2d=True)):
        count += len(frames)
        yield frames
    _check_whole(sound.extra_info)  # of some formats libsndfile knows only now
    if count + SHORT < sound.frames:
        raise InputError(f"is cut short: it announces {sound.frames:,} samples, of which {count:,} are there")


def _checked(sound: Any) -> Iterator[np.ndarray]:
    """The frames in blocks of (T,) float32, the mean of all channels."""
    least, greatest, count = np.inf, -np.inf, 0
    mixed, alone = 0.0, 0.0  # the power of the mean, and the mean power of the channels
    for frames in _frames(sound):
        block: np.ndarray = frames.mean(1, dtype=np.float32) if frames.shape[1] > 1 else frames[:, 0].copy()
        if not np.isfinite(block).all():
            raise InputError("has samples that are no numbers (NaN or infinite)")
        count += len(block)
        least, greatest = min(least, block.min(initial=np.inf)), max(greatest, block.max(initial=-np.inf))
        mixed, alone = mixed + _power(block), alone + _power(frames) / frames.shape[1]
        yield block
    if not count:
        raise InputError("holds no sound: it has 0 samples")
    if mixed < CANCELLED * alone:
        raise InputError(
            "has channels that cancel each other out when they are mixed to one: one is the other upside down. Save "
            "one of them alone"
        )
    if least == greatest:
        raise InputError("is silent: all of its samples are alike")
    if max(-least, greatest) > LOUDEST:
        raise InputError(f"has samples up to {max(-least, greatest):.3g}, where those of a sound lie around 1")


def _power(values: np.ndarray) -> float:
    return float(np.square(values, dtype=np.float64).sum())
