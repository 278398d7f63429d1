"""The batched augmentations against the slow reference, which takes torchvision's transforms image by image."""

from typing import Any

import pytest
import torch
from torch import Tensor

from torchloom.config import AugmentConfig
from torchloom.data.augment import augment
from torchloom.data.batches import ImageBatches

IMAGE = torch.randint(0, 256, (1, 8, 10, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
COUNT = 1500


def augmented(images: Tensor, config: dict[str, Any], per_sample: bool, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    settings = AugmentConfig.model_validate({**config, "per_sample": per_sample})
    return augment(images, settings, generator, mirrored=torch.arange(len(images)) % 2 == 0)


SETTINGS: list[dict[str, Any]] = [
    {"crop_padding": 2},
    {"crop_padding": 3, "crop_border": "reflect"},
    {"flip": True},
    {"flip": "alternating", "crop_padding": 1},
    {"affine": {"degrees": 25.0, "translate": 0.3, "scale": [0.7, 1.2], "shear": 10.0}},
    {"color": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}},
    {"policy": {"name": "RandAugment", "groups": 1000}},
    {"cutout": 3, "flip": True},
]


@pytest.mark.parametrize("config", SETTINGS, ids=lambda config: "-".join(config))
def test_a_pixel_has_the_same_distribution_both_ways(config: dict[str, Any]) -> None:
    images = IMAGE.expand(COUNT, -1, -1, -1).contiguous()
    fast, slow = (augmented(images, config, each, seed).flatten(1).double() for each, seed in ((False, 1), (True, 2)))
    for power in (1, 2):  # the mean of each pixel, and of its square; 6 standard errors
        of_fast, of_slow = (fast / 255) ** power, (slow / 255) ** power
        error = ((of_fast.var(0) + of_slow.var(0)) / COUNT).sqrt()
        groups = 3 if "policy" in config else 1  # so many images share a draw of the policy
        assert ((of_fast.mean(0) - of_slow.mean(0)).abs() <= 6 * error * groups**0.5 + 1e-9).all()


@pytest.mark.parametrize("config", SETTINGS, ids=lambda config: "-".join(config))
def test_the_reference_is_not_the_fast_path_nor_the_image_itself(config: dict[str, Any]) -> None:
    images = IMAGE.expand(50, -1, -1, -1).contiguous()
    slow = augmented(images, config, True, 3)
    assert not torch.equal(slow, images)
    assert slow.dtype == torch.uint8
    assert torch.equal(slow, augmented(images, config, True, 3))
    assert not torch.equal(slow, augmented(images, config, True, 4))
    assert not torch.equal(slow, augmented(images, config, False, 3))


def test_loaders_take_the_reference_by_its_key() -> None:
    images = torch.randint(0, 256, (40, 8, 8, 3), dtype=torch.uint8)
    settings = {"crop_padding": 2, "flip": "alternating"}
    configs = [AugmentConfig.model_validate({**settings, "per_sample": each}) for each in (True, False)]
    slow, fast = (ImageBatches(images, torch.arange(40), config) for config in configs)
    generator = torch.Generator()
    generator.set_state(slow.generator.get_state())
    expected = augment(images, configs[0], generator, mirrored=slow.mirrored)
    everything = torch.arange(40)
    seen = slow[everything][0]
    assert torch.equal(seen, expected.permute(0, 3, 1, 2))
    assert not torch.equal(seen, fast[everything][0])
