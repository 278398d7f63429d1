from typing import Any

import pytest
import torch
from torch import nn

from torchloom.models import cnn, lenet


def build(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return cnn.build(shape, classes, **arguments)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def kinds(network: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in network.children()]


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({}, 32 * 28 + 64 * (32 * 9 + 1) + 512 * (64 * 64 + 1) + 10 * 513),
        ({"hidden": 100, "width": 8}, 8 * 28 + 16 * (8 * 9 + 1) + 100 * (16 * 64 + 1) + 10 * 101),
        ({"norm": "batch"}, 2_122_186 + 32 + 64 + 512),  # a scale for each; the shifts are the biases
        ({"form": "lenet"}, 62_006),
        ({"form": "lenet", "norm": "batch"}, 62_006 + 6 + 16 + 120 + 84),
        (
            {"form": "six_conv"},
            9 * (3 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128)
            + 2 * 2 * (32 + 64 + 128)  # batch norm's scales and shifts
            + (2048 + 2) * 512
            + 10 * 513,
        ),
        ({"form": "six_conv", "norm": "none"}, 1_342_186 - 2 * (32 + 64 + 128) - 512),
    ],
)
def test_parameter_counts(arguments: dict[str, Any], parameters: int) -> None:
    assert count(build(**arguments)) == parameters


def test_layers_of_two_conv_in_order() -> None:
    stage, head = ["Conv2d", "ReLU", "MaxPool2d"], ["Flatten", "Linear", "ReLU", "Linear"]
    assert kinds(build()) == [*stage, *stage, *head]
    full = build(dropout=0.2, norm="batch", activation="SiLU")
    stage = ["Conv2d", "BatchNorm2d", "SiLU", "MaxPool2d", "Dropout"]
    assert kinds(full) == [*stage, *stage, "Flatten", "Linear", "BatchNorm1d", "SiLU", "Dropout", "Linear"]
    assert [layer.p for layer in full if isinstance(layer, nn.Dropout)] == [0.2] * 3


def test_layers_of_six_conv_in_order() -> None:
    network = build(form="six_conv", dropout=0.1)
    stage = [*["Conv2d", "BatchNorm2d", "ReLU"] * 2, "MaxPool2d", "Dropout"]
    assert kinds(network) == [*stage * 3, "Flatten", "Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear"]
    widths = [layer.out_channels for layer in network if isinstance(layer, nn.Conv2d)]
    assert widths == [32, 32, 64, 64, 128, 128]
    assert not any("BatchNorm" in kind for kind in kinds(build(form="six_conv", norm="none")))


def test_the_lenet_form_is_the_modern_lenet() -> None:
    network = build(form="lenet", activation="Tanh", dropout=0.4, initialization="orthogonal").eval()
    torch.manual_seed(0)
    other = lenet.build((3, 32, 32), 10, activation="Tanh", dropout=0.4, initialization="orthogonal").eval()
    images = torch.randn(2, 3, 32, 32)
    assert str(network) == str(other)
    assert torch.equal(network(images), other(images))


@pytest.mark.parametrize(("name", "value"), [("width", 16), ("hidden", 100)])
def test_the_lenet_form_has_fixed_widths(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{name} {value}: form lenet is fixed in this; leave {name} out"):
        build(form="lenet", **{name: value})


@pytest.mark.parametrize(("form", "side"), [("two_conv", 4), ("six_conv", 8)])
def test_images_too_small_are_refused(form: str, side: int) -> None:
    assert build((1, side, 2 * side), form=form, width=4).eval()(torch.randn(1, 1, side, 2 * side)).shape == (1, 10)
    with pytest.raises(ValueError, match=rf"shape \(1, 64, {side - 1}\): cnn in form {form} .* {side}x{side} pixels"):
        build((1, 64, side - 1), form=form)
