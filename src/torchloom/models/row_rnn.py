"""Recurrent network that reads an image row by row, from top to bottom.

Hochreiter, Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997; Cho et al., "Learning phrase
representations using RNN encoder-decoder for statistical machine translation", EMNLP 2014 (GRU).
"""

import math

import torch
from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import Initialization, initialize
from torchloom.models._recurrent import Cell, make_rnn


def build(
    shape: tuple[int, int, int],
    outputs: int,
    *,
    cell: Cell = "lstm",
    width: Count = 128,
    layers: Count = 1,
    bidirectional: bool = False,
    dropout: Fraction = 0.0,
    initialization: Initialization = "default",
) -> nn.Module:
    """`layers` recurrent layers with `width` units per direction; `dropout` between them and before the head."""
    row = math.prod(shape) // shape[1]  # all its channels
    rnn = make_rnn(cell, row, width, layers, bidirectional, dropout)
    return initialize(RowRNN(rnn, outputs, dropout), initialization)


class RowRNN(nn.Module):
    """Images (B, C, H, W) -> logits (B, outputs), from the state in which each direction ends."""

    def __init__(self, rnn: nn.RNNBase, outputs: int, dropout: float) -> None:
        super().__init__()
        self.rnn = rnn
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear((1 + rnn.bidirectional) * rnn.hidden_size, outputs)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.transpose(1, 2).flatten(2)  # (B, H, C W)
        outputs, _ = self.rnn(rows)  # (B, H, directions x width), which torch.export 2.11 gets right, unlike the state
        if self.rnn.bidirectional:
            down, up = outputs.chunk(2, dim=2)
            outputs = torch.cat([down[:, -1:], up[:, :1]], dim=2)  # the backward one ends at the top
        last = outputs[:, -1]
        logits: Tensor = self.head(self.dropout(last))  # (B, outputs)
        return logits
