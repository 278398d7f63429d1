from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from torchloom.models import vgg


def build(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return vgg.build(shape, classes, **arguments)


def reference(depth: int, suffix: str = "_bn") -> Any:
    with torch.device("meta"):
        return getattr(torchvision.models, f"vgg{depth}{suffix}")().features


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_parameters_are_torchvisions_and_a_linear_layers(depth: int, batch_norm: bool) -> None:
    with torch.device("meta"):
        network = build(depth=depth, norm="batch" if batch_norm else "none")
    assert count(network) == count(reference(depth, "_bn" if batch_norm else "")) + 512 * 10 + 10
    if (depth, batch_norm) == (16, True):
        assert count(network) == 14_728_266


@pytest.mark.parametrize(("depth", "batch_norm"), [(11, True), (16, True), (13, False)])
def test_features_are_what_torchvision_computes(depth: int, batch_norm: bool) -> None:
    network = build(depth=depth, norm="batch" if batch_norm else "none", initialization="he").eval()
    features = reference(depth, "_bn" if batch_norm else "").eval()
    features.load_state_dict(dict(zip(features.state_dict(), network.state_dict().values(), strict=False)), assign=True)
    images = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        expected = network[-1](features(images).mean(dim=(2, 3)))
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 1e-3


def test_width_scales_all_stages() -> None:
    widths = [layer.out_channels for layer in build(depth=13, width=4) if isinstance(layer, nn.Conv2d)]
    assert widths == [4, 4, 8, 8, 16, 16, 32, 32, 32, 32]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 31, 64), (3, 64, 31)])
def test_images_too_small_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"shape \(.*\): vgg .* must be 32x32 pixels or more; take larger images or"):
        build(shape)
