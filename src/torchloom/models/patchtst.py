"""PatchTST: a transformer over patches of a window, each column by itself.

Nie, Nguyen, Sinthong, Kalagnanam, "A time series is worth 64 words: long-term forecasting with transformers", ICLR 2023
(arXiv:2211.14730).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import Attention
from torchloom.models._windows import Normalization, normalized


def build(
    window: int,
    channels: int,
    horizon: int,
    *,
    patch: Count = 16,
    stride: Count = 8,
    width: Count = 16,
    heads: Count = 4,
    layers: Count = 3,
    feedforward: Count = 128,
    dropout: Fraction = 0.3,
    head_dropout: Fraction = 0.0,
    normalization: Normalization = "instance",
) -> nn.Module:
    """Windows (B, window, channels) -> (B, horizon, channels).

    The defaults are those of the paper for small data; for large ones it has width 128, 16 heads, feedforward 256 and
    dropout 0.2. `normalization` is one of _windows.normalized.
    """
    if patch > window:
        raise ValueError(f"patch {patch}: is longer than the window of {window} steps")
    if width % heads:
        raise ValueError(f"heads {heads}: must divide the width {width}")
    body = [EncoderLayer(width, heads, feedforward, dropout) for _ in range(layers)]
    network = PatchTST(window, horizon, patch, stride, width, body, dropout, head_dropout)
    return normalized(network, channels, normalization)


class PatchTST(nn.Module):
    """`stride` copies of the last value are put at the end, so that no step is left out."""

    def __init__(
        self,
        window: int,
        horizon: int,
        patch: int,
        stride: int,
        width: int,
        layers: list[EncoderLayer],
        dropout: float,
        head_dropout: float,
    ) -> None:
        super().__init__()
        self.patch, self.stride = patch, stride
        count = (window + stride - patch) // stride + 1
        self.embedding = nn.Linear(patch, width)
        self.place = nn.Parameter(torch.empty(count, width).uniform_(-0.02, 0.02))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(layers)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(head_dropout), nn.Linear(count * width, horizon))

    def forward(self, windows: Tensor) -> Tensor:
        channels = windows.shape[2]
        x = F.pad(windows.transpose(1, 2), (0, self.stride), mode="replicate").flatten(0, 1)  # (B channels, steps)
        x = self.dropout(self.embedding(x.unfold(1, self.patch, self.stride)) + self.place)  # (…, patches, width)
        for layer in self.layers:
            x = layer(x)
        ahead: Tensor = self.head(x).unflatten(0, (-1, channels))  # (B, channels, horizon)
        return ahead.transpose(1, 2)


class EncoderLayer(nn.Module):
    """Attention and a dense layer (N, patches, width), batch norm after each, as the paper has it."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.dense = nn.Sequential(
            nn.Linear(width, feedforward), nn.GELU(), nn.Dropout(dropout), nn.Linear(feedforward, width)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(0, x + self.dropout(self.attention(x)))
        return self.norm(1, x + self.dropout(self.dense(x)))

    def norm(self, number: int, x: Tensor) -> Tensor:
        normed: Tensor = self.norms[number](x.transpose(1, 2)).transpose(1, 2)
        return normed
