"""A fully connected network for tables.

Its first layer is an embedding of each column: of categories, and of numbers by their bins (Gorishniy, Rubachev,
Babenko, "On embeddings for numerical features in tabular deep learning", NeurIPS 2022, arXiv:2203.05556).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import Activation, Initialization, initialize, make_activation

Widths = Annotated[list[Count], Field(min_length=1)]


def build(
    features: int,
    outputs: int,
    *,
    hidden: Widths = [256, 256, 256],  # noqa: B006  (never changed)
    activation: Activation = "SiLU",
    dropout: Fraction = 0.2,
    initialization: Initialization = "default",
) -> nn.Module:
    """Features (B, `features`) -> for each width in `hidden`: linear, activation, [dropout] -> linear to `outputs`."""
    layers: list[nn.Module] = []
    width = features
    for next_width in hidden:
        layers += [nn.Linear(width, next_width), make_activation(activation)]
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = next_width
    return initialize(nn.Sequential(*layers, nn.Linear(width, outputs)), initialization)
