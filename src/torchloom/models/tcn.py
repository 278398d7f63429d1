"""A temporal convolutional network: causal convolutions over a window, each with twice the reach of the one before.

Bai, Kolter, Koltun, "An empirical evaluation of generic convolutional and recurrent networks for sequence modeling",
2018 (arXiv:1803.01271).
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from torchloom.config import Count, Fraction
from torchloom.models._windows import Normalization, answers, normalized


def build(
    window: int,
    channels: int,
    horizon: int | None = None,
    outputs: int | None = None,
    *,
    width: Count = 64,
    kernel: Count = 3,
    blocks: Count | None = None,
    dropout: Fraction = 0.2,
    normalization: Normalization | None = None,
) -> nn.Module:
    """Windows (B, window, channels) -> (B, horizon, channels), or whole series -> (B, outputs).

    Without `blocks` there are as many as it takes for the last step to see the whole window. `normalization` is one of
    _windows.normalized.
    """
    if kernel < 2:
        raise ValueError(f"kernel {kernel}: must be 2 or more steps, or no step sees another one")
    needed = math.ceil(math.log2((window - 1) / (2 * (kernel - 1)) + 1))  # of two convolutions each
    shape = answers(channels, horizon, outputs)
    network = TCN(channels, shape, width, kernel, blocks or max(needed, 1), dropout)
    return normalized(network, channels, normalization, ahead=outputs is None)


class TCN(nn.Module):
    def __init__(
        self, channels: int, shape: tuple[int, ...], width: int, kernel: int, blocks: int, dropout: float
    ) -> None:
        super().__init__()
        self.shape = shape
        inputs = [channels, *[width] * (blocks - 1)]
        self.blocks = nn.Sequential(
            *(Block(inputs[number], width, kernel, 2**number, dropout) for number in range(blocks))
        )
        self.head = nn.Linear(width, math.prod(shape))

    def forward(self, windows: Tensor) -> Tensor:
        last = self.blocks(windows.transpose(1, 2))[:, :, -1]  # (B, width)
        found: Tensor = self.head(last).unflatten(1, self.shape)
        return found


class Block(nn.Module):
    """Two causal convolutions (B, inputs, T) -> (B, width, T), and the way around them."""

    def __init__(self, inputs: int, width: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.reach = (kernel - 1) * dilation
        self.first = weight_norm(nn.Conv1d(inputs, width, kernel, dilation=dilation))
        self.second = weight_norm(nn.Conv1d(width, width, kernel, dilation=dilation))
        self.around = nn.Conv1d(inputs, width, 1) if inputs != width else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for convolution in (self.first, self.second):
            y = self.dropout(F.relu(convolution(F.pad(y, (self.reach, 0)))))
        return F.relu(self.around(x) + y)
