from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from torchloom.models import densenet


def build(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return densenet.build(shape, classes, **arguments)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("arguments", "millions", "parameters"),  # millions: the paper's table 2
    [({"growth": 12}, 0.8, 769_162), ({"growth": 24, "depth": 250}, 15.3, 15_324_406)],
)
def test_parameter_counts(arguments: dict[str, Any], millions: float, parameters: int) -> None:
    with torch.device("meta"):
        network = build(**arguments)
    assert round(count(network) / 1e6, 1) == millions
    assert count(network) == parameters


def reference(growth: int, count: int) -> Any:
    """torchvision's network with this one's stem: no batch norm, ReLU and pooling after a 3x3 convolution."""
    with torch.device("meta"):
        network = torchvision.models.DenseNet(growth, (count,) * 3, 2 * growth, num_classes=10)
        network.features.conv0 = nn.Conv2d(3, 2 * growth, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        setattr(network.features, name, nn.Identity())
    return network


def test_it_computes_what_torchvision_does() -> None:
    network, other = build(depth=22, growth=7), reference(7, 3)
    network(torch.randn(8, 3, 32, 32))  # for running averages of their own
    other.load_state_dict(dict(zip(other.state_dict(), network.state_dict().values(), strict=True)), assign=True)
    images = torch.randn(4, 3, 16, 24)
    with torch.no_grad():
        expected = other.eval()(images)
        torch.testing.assert_close(network.eval()(images), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0.01


def test_every_layer_sees_all_before_it_unchanged() -> None:
    torch.manual_seed(0)
    layer = densenet.DenseLayer(5, 3, 0.0, partial(densenet._normalised, "ReLU", "batch"))
    x = torch.randn(2, 5, 4, 4)
    y = layer(x)
    assert y.shape == (2, 8, 4, 4)
    assert torch.equal(y[:, :5], x)
    assert y[:, 5:].std() > 0


@pytest.mark.parametrize(("reduction", "channels"), [(0.5, [20, 20]), (1.0, [40, 60]), (0.33, [13, 10])])
def test_reduction_is_the_share_that_transitions_keep(reduction: float, channels: list[int]) -> None:
    network = build(depth=16, growth=10, reduction=reduction)  # 2 layers per block: 20, +20, ...
    transitions = [layer[2].out_channels for layer in network if isinstance(layer, nn.Sequential)]
    assert transitions == channels


def test_sizes_on_the_way() -> None:
    x, sides = torch.randn(1, 3, 32, 32), []
    for layer in build(depth=10, growth=4).eval():
        x = layer(x)
        if isinstance(layer, densenet.DenseLayer):
            sides.append(x.shape[2])
    assert sides == [32, 16, 8]


def test_dropout_follows_the_3x3_convolution_of_each_layer() -> None:
    network = build(depth=16, growth=4, dropout=0.2)
    layers = [layer for layer in network if isinstance(layer, densenet.DenseLayer)]
    assert len(layers) == 6
    assert all(layer.body[-1].p == 0.2 and layer.body[-2].kernel_size == (3, 3) for layer in layers)


@pytest.mark.parametrize("depth", [4, 3, 12, 101])
def test_a_depth_that_does_not_divide_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"depth {depth}: must be 4 \+ 6 n"):
        build(depth=depth)


def test_images_too_small_are_refused() -> None:
    assert build((1, 4, 5), depth=10, growth=2).eval()(torch.randn(1, 1, 4, 5)).shape == (1, 10)
    with pytest.raises(ValueError, match=r"shape \(1, 9, 3\): densenet .* must be 4x4 pixels or more"):
        build((1, 9, 3))
