"""TabM: many fully connected networks for tables in one, which share nearly all of their weights.

Gorishniy, Kotelnikov, Babenko, "TabM: advancing tabular deep learning with parameter-efficient ensembling", ICLR 2025
(arXiv:2410.24210); the layers are those of Wen, Tran, Ba, "BatchEnsemble", ICLR 2020 (arXiv:2002.06715).
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import Activation, make_activation

Widths = Annotated[list[Count], Field(min_length=1)]


def build(
    features: int,
    outputs: int,
    *,
    members: Count = 32,
    hidden: Widths = [256, 256],  # noqa: B006  (never changed)
    activation: Activation = "ReLU",
    dropout: Fraction = 0.1,
) -> nn.Module:
    """Features (B, `features`) -> the mean of what `members` networks make of them (B, `outputs`)."""
    return TabM(features, outputs, members, hidden, activation, dropout)


class TabM(nn.Module):
    """In training the answers are those of each member (B, members, outputs), to be held to the target each."""

    def __init__(
        self, features: int, outputs: int, members: int, hidden: list[int], activation: Activation, dropout: float
    ) -> None:
        super().__init__()
        self.members = members
        widths = [features, *hidden]
        self.layers = nn.ModuleList(Shared(widths[i], widths[i + 1], members, i == 0) for i in range(len(hidden)))
        self.activation, self.dropout = make_activation(activation), nn.Dropout(dropout)
        bound = 1 / math.sqrt(hidden[-1])
        self.weight = nn.Parameter(torch.empty(members, hidden[-1], outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None].expand(-1, self.members, -1)  # (B, members, features)
        for layer in self.layers:
            x = self.dropout(self.activation(layer(x)))
        answers = torch.einsum("bmh,mho->bmo", x, self.weight) + self.bias
        return answers if self.training else answers.mean(1)


class Shared(nn.Module):
    """A dense layer (B, members, inputs) -> (B, members, outputs) with a scale of its own for each member's inputs and
    outputs, and a bias. In the first one the inputs' scales are -1 or 1 at random, which tells the members apart."""

    def __init__(self, inputs: int, outputs: int, members: int, first: bool) -> None:
        super().__init__()
        layer = nn.Linear(inputs, outputs)
        self.weight = layer.weight
        self.scale_in = nn.Parameter(torch.randn(members, inputs).sign() if first else torch.ones(members, inputs))
        self.scale_out = nn.Parameter(torch.ones(members, outputs))
        self.bias = nn.Parameter(layer.bias.detach().expand(members, outputs).clone())

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x * self.scale_in, self.weight) * self.scale_out + self.bias
