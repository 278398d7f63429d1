import logging
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
from torch import nn

from torchloom.config.checks import ArgumentError
from torchloom.modalities.modules import NormalizedImages
from torchloom.models import _layers, build_network, check_arguments, network_names
from torchloom.models.resnet import Projection

ACTIVATIONS = sorted(set(nn.modules.activation.__all__) - _layers._NOT_ELEMENTWISE)
# Every classifier of images, small, with a shape that it takes though it is odd.
SMALL: list[tuple[str, list[int], dict[str, Any]]] = [
    ("mlp", [3, 9, 13], {"hidden": [32, 16]}),
    ("mlp", [3, 9, 13], {"hidden": [32], "norm": "batch", "initialization": "he"}),
    ("lenet", [3, 9, 13], {"form": "classic"}),
    ("lenet", [3, 9, 13], {}),
    ("lenet", [3, 33, 37], {"norm": "batch"}),
    ("cnn", [3, 9, 13], {"width": 8, "hidden": 16}),
    ("cnn", [3, 9, 13], {"form": "lenet", "activation": "Tanh"}),
    ("cnn", [3, 9, 13], {"form": "six_conv", "width": 4, "hidden": 16}),
    ("alexnet", [3, 15, 21], {"width": 2, "dropout": 0.0}),
    ("airbench", [3, 25, 29], {"widths": [4, 8, 8], "scale": 1.0}),
    ("airbench", [3, 27, 26], {"widths": [8, 4, 8], "depth": 3, "activation": "ReLU", "scale": 1.0}),
    ("vgg", [3, 33, 37], {"depth": 11, "width": 4}),
    ("vgg", [3, 32, 32], {"depth": 13, "width": 4, "norm": "none", "initialization": "he"}),
    ("resnet", [3, 9, 13], {"depth": 18, "width": 4}),
    ("resnet", [3, 9, 13], {"depth": 34, "width": 4}),
    ("resnet", [3, 9, 13], {"depth": 50, "width": 4}),
    ("densenet", [3, 9, 13], {"depth": 22, "growth": 4}),
    ("vit", [3, 9, 13], {"patch": 4, "width": 16, "layers": 2, "heads": 2}),
    (
        "vit",
        [3, 9, 13],
        {"patch": 3, "width": 16, "layers": 1, "heads": 2, "stem": "patches", "pooling": "token"},
    ),
    ("row_rnn", [3, 9, 13], {"width": 16}),
    ("row_rnn", [3, 9, 13], {"cell": "rnn", "width": 16}),
    ("row_rnn", [3, 9, 13], {"cell": "relu_rnn", "width": 16, "bidirectional": True}),
    ("row_rnn", [3, 9, 13], {"cell": "gru", "width": 16, "layers": 2, "bidirectional": True}),
]
# A network of each kind for what takes seconds; recurrent ones are exported in tests/test_export.py.
EXPORTED: list[tuple[str, list[int], dict[str, Any]]] = [
    ("lenet", [1, 28, 28], {"form": "classic"}),
    ("lenet", [1, 28, 28], {"norm": "batch", "dropout": 0.5}),
    ("cnn", [3, 32, 32], {"form": "six_conv", "width": 4, "hidden": 16, "dropout": 0.5, "activation": "GELU"}),
    ("airbench", [3, 32, 32], {"widths": [8, 16, 16], "scale": 10.0}),
    ("airbench", [1, 28, 28], {"widths": [8, 16, 16], "depth": 3, "scale": 1.0}),
    ("alexnet", [3, 32, 32], {"width": 2}),
    ("vgg", [3, 32, 32], {"depth": 11, "width": 4}),
    ("densenet", [3, 32, 32], {"depth": 10, "growth": 4, "dropout": 0.5}),
]


def seeded_network(name: str, shape: list[int], classes: int, **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, {"shape": shape, "outputs": classes}, arguments)


def weights_of(network: nn.Module) -> list[torch.Tensor]:
    """Matrices and kernels of layers, without biases, batch norm's scales and places."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d | nn.RNNBase)]
    return [parameter for layer in layers for parameter in layer.parameters(recurse=False) if parameter.ndim > 1]


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def test_networks_are_the_public_modules() -> None:
    assert {name for name, _, _ in SMALL} <= set(network_names({"outputs"}, {"shape"}))
    assert not any(name.startswith("_") for name in network_names())


@pytest.mark.parametrize(
    ("name", "shape", "arguments", "parameters"),
    [
        ("resnet", [3, 32, 32], {"depth": 18}, 11_173_962),
        ("resnet", [3, 32, 32], {"depth": 34}, 21_282_122),
        ("resnet", [3, 32, 32], {"depth": 50}, 23_520_842),
        ("mlp", [1, 28, 28], {}, 407_050),
        ("mlp", [1, 28, 28], {"hidden": []}, 7_850),
        ("mlp", [1, 28, 28], {"hidden": [512], "norm": "batch"}, 407_562),  # a scale for each of 512, biases shift
    ],
)
def test_parameter_counts(name: str, shape: list[int], arguments: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        network = seeded_network(name, shape, 10, **arguments)
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


@pytest.mark.parametrize(("name", "odd", "arguments"), SMALL)
def test_logits_have_a_row_per_image_and_a_column_per_class(
    name: str, odd: list[int], arguments: dict[str, Any]
) -> None:
    for shape, classes in [(odd, 2), ([3, 32, 32], 10), ([1, 28, 28], 10)]:
        if name == "vgg" and shape[1] < 32:
            continue
        network = seeded_network(name, shape, classes, **arguments).eval()
        images = torch.randn(3, *shape)
        logits = network(images)
        assert logits.shape == (3, classes)
        torch.testing.assert_close(network(images[1:2]), logits[1:2], rtol=1e-4, atol=1e-5)  # each image for itself
        assert not torch.allclose(logits[0], logits[1], atol=1e-6)


@pytest.mark.parametrize(("name", "shape", "arguments"), SMALL)
def test_the_memory_format_changes_nothing(name: str, shape: list[int], arguments: dict[str, Any]) -> None:
    images = torch.randn(4, *shape)
    gradients = []
    for memory in (torch.contiguous_format, torch.channels_last):
        network = seeded_network(name, shape, 3, **arguments).double().to(memory_format=memory)
        logits = network(images.double().to(memory_format=memory))
        logits.square().sum().backward()
        learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
        gradients.append([logits, *(parameter.grad for parameter in learning)])
    for gradient, other in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, other)
    assert all(gradient.any() for gradient in gradients[0])  # every parameter takes part


@pytest.mark.parametrize("channels", [1, 3, 4, 8, 15, 16])
def test_the_gradient_of_a_narrow_projection(channels: int) -> None:
    """Which oneDNN gets wrong, or crashes on, with channels last on CPUs with AVX2."""
    torch.manual_seed(0)
    projection = Projection(channels, 8, 1, 2, bias=False)
    exact = nn.Conv2d(channels, 8, 1, 2, bias=False).double()
    exact.load_state_dict(projection.state_dict())
    images = torch.randn(5, channels, 7, 9)
    projection.to(memory_format=torch.channels_last)
    answers, expected = projection(images.to(memory_format=torch.channels_last)), exact(images.double())
    answers.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(answers, expected.float())
    assert projection.weight.grad is not None
    assert exact.weight.grad is not None
    torch.testing.assert_close(projection.weight.grad, exact.weight.grad.float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(projection.eval()(images), expected.float())


@pytest.mark.parametrize(("depth", "channels"), [(18, 32), (50, 128)])
def test_resnet_halves_the_image_three_times(depth: int, channels: int) -> None:
    network: Any = seeded_network("resnet", [3, 32, 32], 10, depth=depth, width=4)
    features = network.stem(torch.randn(2, 3, 32, 32))
    assert features.shape == (2, 4, 32, 32)
    assert network.stages(features).shape == (2, channels, 4, 4)


@pytest.mark.parametrize(("name", "shape", "arguments"), SMALL)
def test_every_network_learns_one_batch_by_heart(name: str, shape: list[int], arguments: dict[str, Any]) -> None:
    network = seeded_network(name, shape, 4, **arguments)
    images, labels = torch.randn(8, *shape), torch.arange(8) % 4
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003 if arguments.get("norm") == "none" else 0.01)
    losses = []
    while len(losses) < 100 and (not losses or losses[-1] >= 0.02):
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > 0.5
    assert losses[-1] < 0.02


@pytest.mark.parametrize(("name", "shape", "arguments"), [case for case in SMALL if case[0] != "airbench"])
def test_the_named_initialization_is_used_in_all_layers(name: str, shape: list[int], arguments: dict[str, Any]) -> None:
    network = seeded_network(name, shape, 4, **{**arguments, "initialization": "normal"})
    for weight in weights_of(network):
        assert 0 < weight.abs().max() < 0.06
    everything = torch.cat([weight.flatten() for weight in weights_of(network)])
    assert everything.std().item() == pytest.approx(0.01, rel=0.05)
    default = seeded_network(name, shape, 4, **{**arguments, "initialization": "default"})
    assert max(weight.std().item() for weight in weights_of(default)) > 0.03


@pytest.mark.usefixtures("exporter")
@pytest.mark.parametrize(("name", "shape", "arguments"), EXPORTED)
def test_onnx_runtime_gives_the_networks_logits(name: str, shape: list[int], arguments: dict[str, Any]) -> None:
    network = seeded_network(name, shape, 10, **arguments)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = None  # the running averages become those of the next batch
    network(torch.randn(16, *shape) * 2 + 1)
    network.eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        network,
        (torch.zeros(2, *shape),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["images"],
        opset_version=20,
        verbose=False,
    )
    assert program is not None
    assert [opset.version for opset in program.model_proto.opset_import if opset.domain == ""] == [20]
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        images = torch.randn(batch, *shape)
        with torch.no_grad():
            expected = network(images).numpy()
        (logits,) = session.run(None, {"images": images.numpy()})
        assert logits.shape == (batch, 10)
        assert np.abs(logits - expected).max() < 1e-4
    assert expected.std(axis=0).mean() > 5e-3  # the images differ in it


@pytest.mark.parametrize(
    ("name", "shape", "arguments"),
    [
        ("lenet", [1, 28, 28], {}),
        ("cnn", [3, 32, 32], {"form": "two_conv", "width": 4, "hidden": 16}),
        ("cnn", [3, 32, 32], {"form": "lenet"}),
        ("cnn", [3, 32, 32], {"form": "six_conv", "width": 4, "hidden": 16}),
        ("alexnet", [3, 32, 32], {"width": 1}),
        ("densenet", [3, 32, 32], {"depth": 10, "growth": 4}),
        ("row_rnn", [1, 28, 28], {"width": 8}),
        ("row_rnn", [1, 28, 28], {"width": 8, "layers": 2}),
    ],
)
def test_dropout_is_random_in_training_only(name: str, shape: list[int], arguments: dict[str, Any]) -> None:
    images = torch.randn(4, *shape)
    network = seeded_network(name, shape, 10, **arguments, dropout=0.5)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))
    without = seeded_network(name, shape, 10, **arguments, dropout=0.0)
    assert torch.equal(without(images), without(images))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("lenet", {"form": "new"}),
        ("lenet", {"width": 0}),
        ("lenet", {"activation": "Relu"}),
        ("cnn", {"form": "three_conv"}),
        ("cnn", {"norm": True}),
        ("cnn", {"hidden": 0}),
        ("airbench", {"widths": [4, 4]}),
        ("airbench", {"depth": 1}),
        ("airbench", {"norm_momentum": 1.0}),
        ("airbench", {"scale": 0.0}),
        ("airbench", {"initialization": "he"}),
        ("alexnet", {"dropout": 1.0}),
        ("vgg", {"depth": 12}),
        ("densenet", {"reduction": 0.0}),
        ("densenet", {"reduction": 1.5}),
        ("row_rnn", {"cell": "elman"}),
        ("row_rnn", {"layers": 0}),
        ("row_rnn", {"initialization": "zeros"}),
    ],
)
def test_unsuitable_arguments_are_refused_before_anything_runs(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        check_arguments(name, arguments)
    assert [error["loc"] for error in caught.value.errors] == [tuple(arguments)]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_named_activation_is_used(name: str) -> None:
    network = seeded_network("mlp", [1, 4, 4], 3, hidden=[8], activation=name).eval()
    first, last = linear_layers(network)
    images = 3 * torch.randn(5, 1, 4, 4)
    expected = last(getattr(nn, name)().eval()(first(images.flatten(1))))
    assert torch.equal(network(images), expected)
    assert not torch.allclose(expected, last(first(images.flatten(1))))


def test_layers_of_an_mlp_in_order() -> None:
    network = seeded_network("mlp", [1, 4, 4], 3, hidden=[8, 6], norm="batch", dropout=0.3, activation="GELU")
    kinds = [type(layer).__name__ for layer in network.children()]
    block = ["Linear", "BatchNorm1d", "GELU", "Dropout"]
    assert kinds == ["Flatten", *block, *block, "Linear"]
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.3, 0.3]
    assert [layer.bias is None for layer in linear_layers(network)] == [True, True, False]
    plain = seeded_network("mlp", [1, 4, 4], 3, hidden=[8])
    assert [type(layer).__name__ for layer in plain.children()] == ["Flatten", "Linear", "ReLU", "Linear"]


def test_images_are_normalised_in_each_channel() -> None:
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 0.4]
    images = torch.randint(256, (4, 3, 5, 6), dtype=torch.uint8)
    expected = torch.stack([(images[:, c] / 255 - mean[c]) / std[c] for c in range(3)], dim=1)
    model = NormalizedImages(nn.Identity(), mean, std)
    torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
    assert model.state_dict().keys() == {"mean", "std"}  # they travel with the weights
    assert list(model.parameters()) == []  # and are not learned
