"""The network of the fastest known trainings on CIFAR-10: three groups of wide convolutions behind a whitening layer.

Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024 (arXiv:2404.00498), after Page, "How to train your
ResNet", myrtle.ai 2018, and tysam-code/hlb-CIFAR10. It is made for `train.whitening`, label smoothing and Muon.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from torchloom.config import Count, Fraction, Positive
from torchloom.models._layers import Activation, check_side, make_activation

Widths = Annotated[list[Count], Field(min_length=3, max_length=3)]


def build(
    shape: tuple[int, int, int],
    outputs: int,
    *,
    widths: Widths = [64, 256, 256],  # noqa: B006 (read only)
    depth: Literal[2, 3] = 2,
    activation: Activation = "GELU",
    norm_momentum: Fraction = 0.4,
    scale: Positive = 1 / 256,
) -> nn.Module:
    """A 2x2 convolution of 8 C channels, three groups of `widths` channels with `depth` convolutions, a linear head.

    `norm_momentum` is the share of each batch in the running statistics of batch norm, whose factors are fixed at 1.
    Logits are multiplied by `scale`. With depth 3 a shortcut goes around the last two convolutions of each group.
    """
    check_side(shape, 25, "airbench")
    return Airbench(shape[0], outputs, widths, depth, activation, norm_momentum, scale)


class Airbench(nn.Module):
    """Images (B, C, H, W), H and W of 25 to 40, -> logits (B, outputs)."""

    def __init__(
        self,
        channels: int,
        outputs: int,
        widths: list[int],
        depth: int,
        activation: Activation,
        norm_momentum: float,
        scale: float,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.whiten = nn.Conv2d(channels, 8 * channels, 2)
        self.activation = make_activation(activation)
        inputs = [8 * channels, *widths]
        self.groups = nn.Sequential(
            *(Group(inputs[i], inputs[i + 1], depth, activation, norm_momentum) for i in range(3))
        )
        self.head = nn.Linear(widths[-1], outputs, bias=False)
        with torch.no_grad():
            self.head.weight /= self.head.weight.std()

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.whiten(x))  # (B, 8 C, H - 1, W - 1)
        x = self.groups(x)  # (B, widths[2], 3, 3) for 32x32 pixels
        # a pooling remembers its places; amax looks for them again, and finds none in what compiled bf16 did not round
        x = F.max_pool2d(x, x.shape[2:]).flatten(1)  # (B, widths[2]); torch 2.11 does not export the adaptive one
        logits: Tensor = self.head(x) * self.scale  # (B, outputs)
        return logits


class Group(nn.Module):
    """Convolution, pooling to half the side, batch norm, activation; then 3x3 convolutions of the same size."""

    def __init__(self, inputs: int, width: int, depth: int, activation: Activation, norm_momentum: float) -> None:
        super().__init__()
        self.first = nn.Sequential(
            conv(inputs, width), nn.MaxPool2d(2), norm(width, norm_momentum), make_activation(activation)
        )
        self.second = nn.Sequential(conv(width, width), norm(width, norm_momentum))
        self.third = (
            nn.Sequential(make_activation(activation), conv(width, width), norm(width, norm_momentum))
            if depth == 3
            else None
        )
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y: Tensor = self.second(x)
        if self.third is not None:
            y = self.third(y) + x
        out: Tensor = self.activation(y)
        return out


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution that starts by handing its inputs on unchanged, as its first outputs."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.data[:inputs])
    return layer


def norm(width: int, momentum: float) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(width, eps=1e-12, momentum=momentum)
    layer.weight.requires_grad_(False)
    return layer
