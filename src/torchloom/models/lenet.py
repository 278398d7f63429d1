"""LeNet-5: as it was published, and as it is built today.

LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86(11), 1998.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import (
    Activation,
    Initialization,
    Norm,
    Pooling,
    check_unused,
    convolution,
    dense,
    initialize,
    make_pooling,
)

# Table I: which of the six maps of S2 each of the 16 maps of C3 sees. Maps with as many inputs share a group.
CONNECTIONS = (
    ((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    (
        *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
        *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    ),
    ((0, 1, 2, 3, 4, 5),),
)


def build(
    shape: tuple[int, int, int],
    outputs: int,
    *,
    form: Literal["classic", "modern"] = "modern",
    width: Count = 1,
    activation: Activation = "ReLU",
    norm: Norm = "none",
    pooling: Pooling = "max",
    dropout: Fraction = 0.0,
    initialization: Initialization = "default",
) -> nn.Module:
    """LeNet-5 for images of any size; those smaller than 32x32 are framed up to it, as the paper does with MNIST's.

    - classic: layers C1 to F6 of the paper with its trainable subsampling, its sparse connections in C3 and its scaled
      tanh. The output is a linear layer: the paper's fixed codes of RBF units are drawings of ASCII characters and give
      distances, not logits. All arguments but `initialization` are fixed.
    - modern: full connections, `pooling`, `activation`; `width` multiplies all of 6-16-120-84. A `norm` comes
      before each activation, `dropout` after the two hidden dense layers.
    """
    if form == "classic":
        check_unused(
            form,
            width=(width, 1),
            activation=(activation, "ReLU"),
            norm=(norm, "none"),
            pooling=(pooling, "max"),
            dropout=(dropout, 0.0),
        )
        return initialize(classic(shape, outputs), initialization)
    return initialize(modern(shape, outputs, width, activation, norm, pooling, dropout), initialization)


def modern(
    shape: tuple[int, int, int],
    outputs: int,
    width: int,
    activation: Activation,
    norm: Norm,
    pooling: Pooling,
    dropout: float,
) -> nn.Module:
    return nn.Sequential(
        Frame(),
        *pooled_convolution(shape[0], 6 * width, activation, norm, pooling),
        *pooled_convolution(6 * width, 16 * width, activation, norm, pooling),
        nn.Flatten(),
        *dense(16 * width * pixels(shape), 120 * width, activation=activation, norm=norm, dropout=dropout),
        *dense(120 * width, 84 * width, activation=activation, norm=norm, dropout=dropout),
        nn.Linear(84 * width, outputs),
    )


def pooled_convolution(
    inputs: int, outputs: int, activation: Activation, norm: Norm, pooling: Pooling
) -> list[nn.Module]:
    """5x5 convolution, pooling, [norm], activation: what follows the pooling has a quarter of the work."""
    convolved, *rest = convolution(inputs, outputs, 5, 0, activation=activation, norm=norm)
    return [convolved, make_pooling(pooling, 2), *rest]


def classic(shape: tuple[int, int, int], outputs: int) -> nn.Module:
    # as in the paper, every layer ends in the squashing function, subsampling too
    return nn.Sequential(
        Frame(),
        *(nn.Conv2d(shape[0], 6, 5), ScaledTanh()),  # C1
        *(Subsampling(6), ScaledTanh()),  # S2
        *(SparseConvolution(), ScaledTanh()),  # C3
        *(Subsampling(16), ScaledTanh()),  # S4
        nn.Flatten(),
        *(nn.Linear(16 * pixels(shape), 120), ScaledTanh()),  # C5: on 5x5 pixels a 5x5 convolution is this
        *(nn.Linear(120, 84), ScaledTanh()),  # F6
        nn.Linear(84, outputs),
    )


def pixels(shape: tuple[int, int, int]) -> int:
    """Pixels per map after two 5x5 convolutions and two poolings: 5x5 from 32x32."""
    height, width = [((max(side, 32) - 4) // 2 - 4) // 2 for side in shape[1:]]
    return height * width


class Frame(nn.Module):
    """Repeats the outermost pixels until a side has at least 32: on MNIST, background, which zeros are not.

    (Zero is the mean of normalised pixels.) A 5x5 kernel then finds strokes near the edge in its middle, too.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = [max(0, 32 - side) for side in x.shape[2:]]
        if rows or columns:
            x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2), mode="replicate")
        return x


class ScaledTanh(nn.Module):
    """1.7159 tanh(2x/3), which maps 1 to 1 and -1 to -1 (appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """The sum of each 2x2 pixels, times a coefficient plus a bias, both of which each map learns; first the mean."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.full((maps,), 0.25))
        self.bias = nn.Parameter(torch.zeros(maps))

    def forward(self, x: Tensor) -> Tensor:
        total = 4 * F.avg_pool2d(x, 2)  # (B, maps, H/2, W/2)
        return total * self.coefficient[:, None, None] + self.bias[:, None, None]


class SparseConvolution(nn.Module):
    """C3: 16 maps of 5x5 kernels over the maps of S2 that table I gives each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = nn.ModuleList(
            nn.Conv2d(len(maps) * len(maps[0]), len(maps), 5, groups=len(maps)) for maps in CONNECTIONS
        )

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for group, maps in zip(self.groups, CONNECTIONS, strict=True):
            inputs = x[:, [number for connected in maps for number in connected]]  # each map's inputs side by side
            outputs.append(group(inputs))
        return torch.cat(outputs, dim=1)  # (B, 16, H-4, W-4)
