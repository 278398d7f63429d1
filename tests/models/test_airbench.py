from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.stages import CLASSIFICATION
from torchloom.data.targets import Classes
from torchloom.export.onnx import onnx_parity, signature, to_onnx
from torchloom.modalities import ImageInfo
from torchloom.models import airbench, build_model
from torchloom.training.checkpoint import Checkpoint


def build(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return airbench.build(shape, classes, **arguments)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("arguments", "convolutions", "scales", "parameters"),
    [
        ({}, 24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256, 2 * (64 + 256 + 256), 1_972_792),
        (
            {"widths": [128, 384, 512], "depth": 3},
            24 * 128 + 2 * 128 * 128 + 128 * 384 + 2 * 384 * 384 + 384 * 512 + 2 * 512 * 512,
            3 * (128 + 384 + 512),
            None,
        ),
    ],
)
def test_parameter_counts(arguments: dict[str, Any], convolutions: int, scales: int, parameters: int | None) -> None:
    with torch.device("meta"):
        network = build(**arguments)
    last = arguments.get("widths", [256])[-1]
    by_hand = 24 * (3 * 2 * 2 + 1) + 9 * convolutions + 2 * scales + 10 * last  # factors and biases of batch norm
    assert count(network) == by_hand == (parameters or by_hand)


@pytest.mark.parametrize(("shape", "side"), [((1, 28, 28), 3), ((3, 32, 32), 3), ((3, 25, 25), 3), ((2, 31, 40), 3)])
@pytest.mark.parametrize("depth", [2, 3])
def test_three_groups_halve_the_image(shape: tuple[int, int, int], side: int, depth: int) -> None:
    network = build(shape, 7, widths=[4, 6, 8], depth=depth)
    images = torch.randn(2, *shape)
    white = network.whiten(images)
    assert white.shape == (2, 8 * shape[0], shape[1] - 1, shape[2] - 1)
    features = network.groups(white)
    assert features.shape[:3] == (2, 8, side)
    assert network(images).shape == (2, 7)


@pytest.mark.parametrize("shape", [(1, 24, 24), (3, 24, 32), (3, 32, 24), (3, 8, 8)])
def test_images_too_small_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"shape \(.*\): airbench .* must be 25x25 pixels or more; take larger images"):
        build(shape)


def test_the_smallest_images_leave_pixels() -> None:
    assert build((1, 25, 25), widths=[2, 2, 2])(torch.randn(2, 1, 25, 25)).isfinite().all()


@pytest.mark.parametrize("depth", [2, 3])
def test_logits_are_those_of_the_layers_by_hand(depth: int) -> None:
    """Batch norm with factor 1, the maximum over all places, and the scale."""
    network = build(widths=[4, 6, 8], depth=depth, activation="ReLU", scale=0.3).eval()
    for layer in norms(network):
        nn.init.normal_(layer.bias)
        layer.running_mean, layer.running_var = torch.randn(layer.num_features), torch.rand(layer.num_features) + 0.5
    x = images = torch.randn(3, 3, 32, 32)

    def convolve(x: Tensor, weight: Tensor) -> Tensor:
        return nn.functional.conv2d(x, weight, padding=1)

    def normalised(x: Tensor, layer: Any) -> Tensor:
        mean, deviation = layer.running_mean[:, None, None], layer.running_var.sqrt()[:, None, None]
        shifted: Tensor = (x - mean) / deviation + layer.bias[:, None, None]
        return shifted

    x = nn.functional.conv2d(x, network.whiten.weight, network.whiten.bias).relu()
    for group in network.groups:
        kernels = [layer.weight for layer in group.modules() if isinstance(layer, nn.Conv2d)]
        scales = norms(group)
        assert len(kernels) == len(scales) == depth
        x = normalised(nn.functional.max_pool2d(convolve(x, kernels[0]), 2), scales[0]).relu()
        y = normalised(convolve(x, kernels[1]), scales[1])
        if depth == 3:
            y = normalised(convolve(y.relu(), kernels[2]), scales[2]) + x
        x = y.relu()
    expected = 0.3 * x.flatten(2).max(2).values @ network.head.weight.T
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("widths", [[4, 4, 8], [4, 4, 16]])
def test_logits_are_scaled_as_for_the_full_width_unless_told_otherwise(widths: list[int]) -> None:
    plain, scaled = build(widths=widths).eval(), build(widths=widths, scale=1.0).eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(256 * plain(images), scaled(images))


def test_convolutions_begin_as_identities() -> None:
    network = build(widths=[4, 30, 6])
    first = network.groups[1].first[0]  # from 4 to 30 channels
    x = torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(first(x)[:, :4], x)
    assert first.weight[4:].std() > 0.05  # the others as they were drawn
    shrinking = network.groups[2].first[0]  # from 30 to 6 channels
    wide = torch.randn(2, 30, 9, 9)
    torch.testing.assert_close(shrinking(wide), wide[:, :6])


def test_the_head_begins_with_weights_of_variance_one() -> None:
    network = build()
    assert network.head.weight.std().item() == pytest.approx(1.0, abs=1e-5)
    assert network.head.bias is None
    assert network.head.weight.requires_grad
    assert network.head.weight.is_leaf


def test_factors_of_batch_norm_do_not_learn() -> None:
    network = build(widths=[4, 4, 4], depth=3, norm_momentum=0.15)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        network(torch.randn(8, 3, 32, 32)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert len(norms(network)) == 9
    for layer in norms(network):
        assert torch.equal(layer.weight, torch.ones(4))
        assert layer.bias.any()
        assert layer.momentum == 0.15


@pytest.mark.usefixtures("exporter")
@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ((1, 28, 28), {"widths": [4, 6, 8], "scale": 0.5}),
        ((3, 32, 32), {"widths": [4, 6, 8], "depth": 3, "scale": 0.5}),
    ],
)
def test_the_exported_graph_answers_alike_in_any_batch(shape: tuple[int, int, int], arguments: dict[str, Any]) -> None:
    channels = shape[0]
    info = ImageInfo(
        target=Classes(classes=list("abcd")), shape=list(shape), mean=[0.4] * channels, std=[0.2] * channels
    )
    images = torch.randint(256, (16, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = build_model("airbench", arguments, info, CLASSIFICATION)
    for _ in range(3):
        model(images)  # for batch norm
    model.eval()
    weights = model.state_dict()
    trained = Checkpoint(
        network="airbench", arguments=arguments, problem="classification", info=info, training={}, weights=weights
    )
    form = signature(model, {"images": images}, trained)
    serialised = to_onnx(model, form, trained, 20)
    report = onnx_parity(model, serialised, form, [1, 3, 16])
    assert report["greatest_difference"] < 1e-4
    assert report["agreement"] == 1.0
    with torch.no_grad():
        assert model(images).std(0).mean() > 0.01  # the images differ in it
