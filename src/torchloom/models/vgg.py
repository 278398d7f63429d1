"""VGG networks, by default with batch norm and, as usual on small images, a single linear layer for a head.

Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015 (arXiv:1409.1556).
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import (
    Activation,
    Initialization,
    Norm,
    Pooling,
    check_side,
    dense,
    initialize,
    make_activation,
    make_norm,
    make_pooling,
)

# 3x3 convolutions in each of the five stages (the paper's table 1, columns A, B, D and E)
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
Widths = Annotated[list[Count], Field(min_length=0)]


def build(
    shape: tuple[int, int, int],
    outputs: int,
    *,
    depth: Literal[11, 13, 16, 19] = 16,
    width: Count = 64,
    hidden: Widths = [],  # noqa: B006  (never changed)
    activation: Activation = "ReLU",
    norm: Norm = "batch",
    pooling: Pooling = "max",
    dropout: Fraction = 0.5,
    initialization: Initialization = "default",
) -> nn.Module:
    """A VGG whose five stages have `width` times 1, 2, 4, 8 and 8 channels, with a pooling after each.

    `depth` counts layers as the paper does, with three dense ones: `hidden: [4096, 4096]` and that of the outputs. They
    see all pixels that are left, 7x7 of 224x224, and `dropout` follows each hidden one. Without hidden layers the
    outputs see the mean of each map. Without a norm, take `initialization: he`: with the layers' own, signals fade on
    their way through.
    """
    check_side(shape, 32, "vgg")
    layers: list[nn.Module] = []
    channels, rows, columns = shape
    for factor, count in zip((1, 2, 4, 8, 8), CONVOLUTIONS[depth], strict=True):
        for _ in range(count):
            # torchvision's have a bias even before batch norm; its weights fit
            layers.append(nn.Conv2d(channels, factor * width, 3, padding=1))
            layers += [*make_norm(norm, factor * width), make_activation(activation)]
            channels = factor * width
        layers.append(make_pooling(pooling, 2))
        rows, columns = rows // 2, columns // 2
    layers += [nn.Flatten()] if hidden else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]  # 32x32 is one pixel by now
    units = channels * rows * columns if hidden else channels
    for next_units in hidden:
        layers += dense(units, next_units, activation=activation, dropout=dropout)
        units = next_units
    return initialize(nn.Sequential(*layers, nn.Linear(units, outputs)), initialization)


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state_dict of torchvision's VGGs as one of those here with `hidden: [4096, 4096]`, for images of 224x224."""
    last = max(int(name.split(".")[1]) for name in state if name.startswith("features."))
    dense = last + 4  # an activation, a pooling and what makes a row of it are between
    places = {f"classifier.{place}": str(dense + place) for place in (0, 3, 6)}
    parts = ((*name.rpartition("."), weight) for name, weight in state.items())
    return {f"{places.get(part, part.removeprefix('features.'))}.{what}": weight for part, _, what, weight in parts}
