from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from torchloom.models import ImageClassifier, _layers, build_network, network_names

ACTIVATIONS = sorted(set(nn.modules.activation.__all__) - _layers._NOT_ELEMENTWISE)
SMALL: list[tuple[str, dict[str, Any]]] = [
    ("mlp", {"hidden": [32, 16]}),
    ("mlp", {"hidden": [32], "batch_norm": True, "initialization": "he"}),
    ("resnet", {"depth": 18, "width": 4}),
    ("resnet", {"depth": 34, "width": 4}),
    ("resnet", {"depth": 50, "width": 4}),
]


def seeded_network(name: str, shape: list[int], classes: int, **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, shape, classes, arguments)


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def test_networks_are_the_public_modules() -> None:
    assert {"mlp", "resnet"} <= set(network_names())
    assert not any(name.startswith("_") for name in network_names())


@pytest.mark.parametrize(
    ("name", "shape", "arguments", "parameters"),
    [
        ("resnet", [3, 32, 32], {"depth": 18}, 11_173_962),
        ("resnet", [3, 32, 32], {"depth": 34}, 21_282_122),
        ("resnet", [3, 32, 32], {"depth": 50}, 23_520_842),
        ("mlp", [1, 28, 28], {}, 407_050),
        ("mlp", [1, 28, 28], {"hidden": []}, 7_850),
        ("mlp", [1, 28, 28], {"hidden": [512], "batch_norm": True}, 407_562),  # a scale for each of 512, biases shift
    ],
)
def test_parameter_counts(name: str, shape: list[int], arguments: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        network = build_network(name, shape, 10, arguments)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_computes_what_torchvision_does(depth: int) -> None:
    network = seeded_network("resnet", [3, 8, 8], 10, depth=depth, initialization="default")
    with torch.device("meta"):
        reference = getattr(torchvision.models, f"resnet{depth}")(num_classes=10)
        reference.conv1, reference.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    weights = zip(reference.state_dict(), network.state_dict().values(), strict=True)  # the same order of layers
    reference.load_state_dict(dict(weights), assign=True)
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images), reference.eval()(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "arguments"), SMALL)
@pytest.mark.parametrize(("shape", "classes"), [([1, 28, 28], 10), ([3, 9, 13], 2)])
def test_logits_have_a_row_per_image_and_a_column_per_class(
    name: str, arguments: dict[str, Any], shape: list[int], classes: int
) -> None:
    network = seeded_network(name, shape, classes, **arguments).eval()
    assert network(torch.randn(3, *shape)).shape == (3, classes)
    assert network(torch.randn(1, *shape)).shape == (1, classes)


@pytest.mark.parametrize(("depth", "channels"), [(18, 32), (50, 128)])
def test_resnet_halves_the_image_three_times(depth: int, channels: int) -> None:
    network: Any = seeded_network("resnet", [3, 32, 32], 10, depth=depth, width=4)
    features = network.stem(torch.randn(2, 3, 32, 32))
    assert features.shape == (2, 4, 32, 32)
    assert network.stages(features).shape == (2, channels, 4, 4)


@pytest.mark.parametrize(("name", "arguments"), SMALL)
def test_every_network_learns_one_batch_by_heart(name: str, arguments: dict[str, Any]) -> None:
    network = seeded_network(name, [3, 8, 8], 4, **arguments)
    images, labels = torch.randn(8, 3, 8, 8), torch.arange(8) % 4
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > 0.5
    assert losses[-1] < 0.02


@pytest.mark.parametrize(
    ("name", "variances"),
    [
        ("he", (2 / 400, 2 / 300)),
        ("xavier", (2 / (500 + 400), 2 / (400 + 300))),
        ("normal", (0.01**2, 0.01**2)),
    ],
)
def test_initial_variances_by_name(name: str, variances: tuple[float, float]) -> None:
    network = seeded_network("mlp", [5, 10, 10], 300, hidden=[400], initialization=name)
    for layer, variance in zip(linear_layers(network), variances, strict=True):
        assert layer.weight.var().item() == pytest.approx(variance, rel=0.02)
        assert layer.weight.mean().item() == pytest.approx(0, abs=0.02 * variance**0.5)
        assert not layer.bias.any()
        extreme = layer.weight.abs().max().item() / variance**0.5
        assert extreme <= 3**0.5 + 1e-6 if name == "xavier" else extreme > 4  # uniform or normal


def test_he_initialisation_counts_the_kernel() -> None:
    network: Any = seeded_network("resnet", [3, 8, 8], 10, width=32)
    kernel = network.stages[-1].body[3].weight
    assert kernel.shape == (256, 256, 3, 3)
    assert kernel.var().item() == pytest.approx(2 / (256 * 9), rel=0.02)
    assert not network.head.bias.any()


def test_default_initialisation_is_what_the_layers_draw() -> None:
    network = seeded_network("mlp", [1, 4, 4], 3, hidden=[8], initialization="default")
    torch.manual_seed(0)
    for layer, plain in zip(linear_layers(network), [nn.Linear(16, 8), nn.Linear(8, 3)], strict=True):
        assert torch.equal(layer.weight, plain.weight)
        assert torch.equal(layer.bias, plain.bias)
    assert plain.bias.all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_named_activation_is_used(name: str) -> None:
    network = seeded_network("mlp", [1, 4, 4], 3, hidden=[8], activation=name).eval()
    first, last = linear_layers(network)
    images = 3 * torch.randn(5, 1, 4, 4)
    expected = last(getattr(nn, name)().eval()(first(images.flatten(1))))
    assert torch.equal(network(images), expected)
    assert not torch.allclose(expected, last(first(images.flatten(1))))


def test_layers_of_an_mlp_in_order() -> None:
    network = seeded_network("mlp", [1, 4, 4], 3, hidden=[8, 6], batch_norm=True, dropout=0.3, activation="GELU")
    kinds = [type(layer).__name__ for layer in network.children()]
    block = ["Linear", "BatchNorm1d", "GELU", "Dropout"]
    assert kinds == ["Flatten", *block, *block, "Linear"]
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.3, 0.3]
    assert [layer.bias is None for layer in linear_layers(network)] == [True, True, False]
    plain = seeded_network("mlp", [1, 4, 4], 3, hidden=[8])
    assert [type(layer).__name__ for layer in plain.children()] == ["Flatten", "Linear", "ReLU", "Linear"]


def test_image_classifier_normalises_each_channel() -> None:
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 0.4]
    images = torch.randint(256, (4, 3, 5, 6), dtype=torch.uint8)
    expected = torch.stack([(images[:, c] / 255 - mean[c]) / std[c] for c in range(3)], dim=1)
    model = ImageClassifier(nn.Identity(), mean, std)
    torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
    assert model.state_dict().keys() == {"mean", "std"}  # they travel with the weights
    assert list(model.parameters()) == []  # and are not learned
