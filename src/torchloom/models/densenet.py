"""DenseNet-BC in its form for small images: a 3x3 stem of stride 1, three dense blocks, no max pooling.

Huang, Liu, van der Maaten, Weinberger, "Densely connected convolutional networks", CVPR 2017 (arXiv:1608.06993).
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import (
    Activation,
    Initialization,
    Norm,
    check_side,
    initialize,
    make_activation,
    make_norm,
)

Normalised = Callable[[int], list[nn.Module]]


def build(
    shape: tuple[int, int, int],
    outputs: int,
    *,
    depth: Count = 100,
    growth: Count = 24,
    reduction: Annotated[float, Field(gt=0, le=1)] = 0.5,
    dropout: Fraction = 0.0,
    activation: Activation = "ReLU",
    norm: Norm = "batch",
    initialization: Initialization = "he",
) -> nn.Module:
    """Three dense blocks of (`depth` - 4) / 6 layers, each of which adds `growth` channels to all before it.

    `reduction` is the share of the channels that the transition between two blocks keeps (the paper's theta);
    `dropout` follows each 3x3 convolution of the blocks (the paper: 0.2 without augmentation, else none).
    """
    count, rest = divmod(depth - 4, 6)
    if rest or count < 1:
        raise ValueError(f"depth {depth}: must be 4 + 6 n with n of 1 or more, such as 22, 40 or 100")
    check_side(shape, 4, "densenet")
    channels, normalised = 2 * growth, partial(_normalised, activation, norm)
    layers: list[nn.Module] = [nn.Conv2d(shape[0], channels, 3, padding=1, bias=False)]
    for block in range(3):
        if block:
            layers.append(transition(channels, int(channels * reduction), normalised))
            channels = int(channels * reduction)
        for _ in range(count):
            layers.append(DenseLayer(channels, growth, dropout, normalised))
            channels += growth
    layers += [*normalised(channels), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs)]
    return initialize(nn.Sequential(*layers), initialization)


def _normalised(activation: Activation, norm: Norm, channels: int) -> list[nn.Module]:
    """Norm and activation, which here come before a convolution."""
    in_place = activation == "ReLU" and norm != "none"  # and not on what others see too
    return [*make_norm(norm, channels), nn.ReLU(inplace=True) if in_place else make_activation(activation)]


def transition(inputs: int, outputs: int, normalised: Normalised) -> nn.Module:
    return nn.Sequential(*normalised(inputs), nn.Conv2d(inputs, outputs, 1, bias=False), nn.AvgPool2d(2))


class DenseLayer(nn.Module):
    """(B, C, H, W) -> (B, C + growth, H, W): the input and, behind it, what a bottleneck makes of it."""

    def __init__(self, inputs: int, growth: int, dropout: float, normalised: Normalised) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *normalised(inputs),
            nn.Conv2d(inputs, 4 * growth, 1, bias=False),
            *normalised(4 * growth),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.body(x)), dim=1)
