"""A recurrent network over a window, whose last state says all that comes.

Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997.
"""

from __future__ import annotations

from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._recurrent import Cell, make_rnn
from torchloom.models._windows import Normalization, normalized


def build(
    channels: int,
    horizon: int,
    *,
    cell: Cell = "lstm",
    width: Count = 64,
    layers: Count = 1,
    dropout: Fraction = 0.2,
    normalization: Normalization = "instance",
) -> nn.Module:
    """Windows (B, window, channels) -> `layers` of LSTM or GRU -> linear to (B, horizon, channels).

    `normalization` is one of _windows.normalized.
    """
    rnn = make_rnn(cell, channels, width, layers, bidirectional=False, dropout=dropout)
    return normalized(SeriesLSTM(rnn, horizon, dropout), channels, normalization)


class SeriesLSTM(nn.Module):
    def __init__(self, rnn: nn.RNNBase, horizon: int, dropout: float) -> None:
        super().__init__()
        self.rnn, self.dropout = rnn, nn.Dropout(dropout)
        self.head = nn.Linear(rnn.hidden_size, horizon * rnn.input_size)

    def forward(self, windows: Tensor) -> Tensor:
        last = self.rnn(windows)[0][:, -1]  # (B, width)
        ahead: Tensor = self.head(self.dropout(last)).unflatten(1, (-1, windows.shape[2]))
        return ahead
