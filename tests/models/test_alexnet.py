from typing import Any

import pytest
import torch
from torch import nn

from torchloom.models import alexnet


def build(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return alexnet.build(shape, classes, **arguments)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("width", "batch_norm"), [(32, True), (32, False), (8, True)])
def test_parameter_counts(width: int, batch_norm: bool) -> None:
    c = [3, *(factor * width for factor in (3, 8, 12, 12, 8))]
    weights = sum(k * k * c[i] * c[i + 1] for i, k in enumerate([3, 5, 3, 3, 3]))
    shifts = (1 + batch_norm) * sum(c[1:])  # biases, or batch norm's shifts and scales
    units = [3 * 3 * c[-1], 128 * width, 128 * width, 10]  # 3x3 pixels are left of 32x32
    dense = sum((units[i] + 1) * units[i + 1] for i in range(3))
    with torch.device("meta"):
        assert count(build(width=width, norm="batch" if batch_norm else "none")) == weights + shifts + dense


def test_the_papers_widths_are_the_default() -> None:
    with torch.device("meta"):
        network = build()
    assert [layer.out_channels for layer in network if isinstance(layer, nn.Conv2d)] == [96, 256, 384, 384, 256]
    assert [layer.out_features for layer in network if isinstance(layer, nn.Linear)] == [4096, 4096, 10]


def test_layers_in_order() -> None:
    network = build(width=1, activation="ELU", dropout=0.2)
    kinds = [type(layer).__name__ for layer in network]
    convolution, pooled = ["Conv2d", "BatchNorm2d", "ELU"], ["Conv2d", "BatchNorm2d", "ELU", "MaxPool2d"]
    head = ["Flatten", "Dropout", "Linear", "ELU", "Dropout", "Linear", "ELU", "Linear"]
    assert kinds == [*pooled, *pooled, *convolution, *convolution, *pooled, *head]
    assert [layer.p for layer in network if isinstance(layer, nn.Dropout)] == [0.2, 0.2]
    assert [layer.p for layer in build(width=1) if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    plain = [type(layer).__name__ for layer in build(width=1, norm="none")]
    assert plain == [kind.replace("ELU", "ReLU") for kind in kinds if kind != "BatchNorm2d"]


def test_sizes_on_the_way() -> None:
    x, sides = torch.randn(1, 3, 32, 32), []
    for layer in build(width=1).eval():
        x = layer(x)
        if isinstance(layer, nn.MaxPool2d):
            sides.append(x.shape[2])
    assert sides == [15, 7, 3]


def test_images_too_small_are_refused() -> None:
    assert build((1, 15, 15), width=1).eval()(torch.randn(1, 1, 15, 15)).shape == (1, 10)
    with pytest.raises(ValueError, match=r"shape \(1, 14, 40\): alexnet .* must be 15x15 pixels or more"):
        build((1, 14, 40))
