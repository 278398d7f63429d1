"""A recurrent network over a window, whose last state says what comes, or what the whole of it is.

Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import Initialization, initialize
from torchloom.models._recurrent import Cell, make_rnn
from torchloom.models._windows import Normalization, answers, normalized


def build(
    channels: int,
    horizon: int | None = None,
    outputs: int | None = None,
    *,
    cell: Cell = "lstm",
    width: Count = 64,
    layers: Count = 1,
    dropout: Fraction = 0.2,
    normalization: Normalization | None = None,
    initialization: Initialization = "default",
) -> nn.Module:
    """Windows (B, window, channels) -> `layers` of recurrent cells -> linear to (B, horizon, channels) or (B, outputs).

    `normalization` is one of _windows.normalized.
    """
    rnn = make_rnn(cell, channels, width, layers, bidirectional=False, dropout=dropout)
    network = initialize(SeriesLSTM(rnn, answers(channels, horizon, outputs), dropout), initialization)
    return normalized(network, channels, normalization, ahead=outputs is None)


class SeriesLSTM(nn.Module):
    def __init__(self, rnn: nn.RNNBase, shape: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.rnn, self.dropout, self.shape = rnn, nn.Dropout(dropout), shape
        self.head = nn.Linear(rnn.hidden_size, math.prod(shape))

    def forward(self, windows: Tensor) -> Tensor:
        last = self.rnn(windows)[0][:, -1]  # (B, width)
        found: Tensor = self.head(self.dropout(last)).unflatten(1, self.shape)
        return found
