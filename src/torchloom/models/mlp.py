"""Fully connected network, by default the 784-512-10 one that introductory texts train on MNIST.

Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", Nature 323, 1986.
"""

import math
from typing import Annotated

from pydantic import Field
from torch import nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import Activation, Initialization, Norm, dense, initialize

Widths = Annotated[list[Count], Field(min_length=0)]


def build(
    shape: tuple[int, int, int],
    outputs: int,
    *,
    hidden: Widths = [512],  # noqa: B006  (never changed)
    activation: Activation = "ReLU",
    norm: Norm = "none",
    dropout: Fraction = 0.0,
    initialization: Initialization = "default",
) -> nn.Module:
    """Flatten -> for each width in `hidden`: linear, [norm], activation, [dropout] -> linear to `outputs`."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(shape)
    for next_width in hidden:
        layers += dense(width, next_width, activation=activation, norm=norm, dropout=dropout)
        width = next_width
    layers.append(nn.Linear(width, outputs))
    return initialize(nn.Sequential(*layers), initialization)
