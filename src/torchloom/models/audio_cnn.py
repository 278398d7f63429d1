"""Sounds told apart by a convolutional network over their log-mel spectrograms.

After Kong et al., "PANNs: large-scale pretrained audio neural networks for audio pattern recognition", IEEE/ACM TASLP
2020 (arXiv:1912.10211), with one convolution in a block instead of two.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from torchloom.config import Count, Fraction

Widths = Annotated[list[Count], Field(min_length=1, max_length=8)]


def build(
    mels: int,
    outputs: int,
    *,
    widths: Widths = [32, 64, 128],  # noqa: B006  (never changed)
    dropout: Fraction = 0.3,
    loudness: bool = False,
) -> nn.Module:
    """For each of the `widths` a 3x3 convolution of so many channels, batch norm, ReLU and 2x2 max pooling; of all that
    is there at a time as many channels; mean and maximum over time -> linear to `outputs`.

    Unless it is to hear the `loudness`, the mean over a whole spectrogram is taken from it first: how loud somebody
    speaks, or how far away, is then the same."""
    if mels < 2 ** len(widths):
        raise ValueError(f"{len(widths)} widths halve the {mels} bands too often; leave some out")
    return AudioCNN(mels, outputs, widths, dropout, loudness)


class AudioCNN(nn.Module):
    """log-mel spectrograms (B, mels, F), 0 where a sound has ended, and their frames (B,) -> logits (B, outputs).

    What comes after the end stays 0 in every block, as it is around a sound that stands alone.
    """

    def __init__(self, mels: int, outputs: int, widths: list[int], dropout: float, loudness: bool) -> None:
        super().__init__()
        self.loudness = loudness
        ins = [1, *widths[:-1]]
        self.blocks = nn.ModuleList(
            _layers(nn.Conv2d(*sizes, 3, padding=1, bias=False)) for sizes in zip(ins, widths, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.joint = _layers(nn.Conv1d(widths[-1] * (mels >> len(widths)), widths[-1], 1, bias=False))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * widths[-1], outputs)

    def forward(self, spectrograms: Tensor, frames: Tensor) -> Tensor:
        x = nn.functional.pad(spectrograms, (0, 2 ** len(self.blocks) - 1)).unsqueeze(1)  # (B, 1, mels, F)
        if not self.loudness:
            level = x.sum((2, 3), keepdim=True) / (x.shape[2] * frames[:, None, None, None])
            x = (x - level) * _inside(x, frames)
        for block in self.blocks:
            x = self.pool(block(x) * _inside(x, frames))
            frames = (frames + 1) // 2
        x = self.joint(x.flatten(1, 2))  # (B, C, F)
        inside = _inside(x, frames)
        mean = (x * inside).sum(2) / frames.unsqueeze(1)
        greatest = (x * inside).max(2).values  # of what is never negative
        logits: Tensor = self.head(self.dropout(torch.cat([mean, greatest], 1)))
        return logits


def _layers(convolution: nn.Conv1d | nn.Conv2d) -> nn.Sequential:
    norm = nn.BatchNorm2d if isinstance(convolution, nn.Conv2d) else nn.BatchNorm1d
    return nn.Sequential(convolution, norm(convolution.out_channels), nn.ReLU())


def _inside(x: Tensor, frames: Tensor) -> Tensor:
    """(B, 1, 1, F) for (B, C, H, F), and (B, 1, F) for (B, C, F): 1 up to the end of each sound, then 0."""
    inside = (torch.arange(x.shape[-1], device=x.device) < frames.unsqueeze(1)).to(x.dtype)
    return inside[:, None, None] if x.ndim == 4 else inside[:, None]
