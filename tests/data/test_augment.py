import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from torchloom.config import AugmentConfig
from torchloom.data.augment import augment, random_crop, random_flip

HEIGHT, WIDTH = 3, 5
IMAGE = torch.arange(1, HEIGHT * WIDTH * 2 + 1, dtype=torch.uint8).view(HEIGHT, WIDTH, 2)  # no two pixels alike
# The 1 in 1000 quantiles of chi-square for 8 and 24 degrees of freedom, by padding: (2p + 1)^2 - 1.
QUANTILE = {1: 26.1, 2: 51.2}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def copies(count: int) -> Tensor:
    return IMAGE.repeat(count, 1, 1, 1)


def windows(image: Tensor, padding: int) -> Tensor:
    """What torchvision cuts out of the padded image, for each of the (2p + 1)^2 shifts."""
    padded = functional.pad(image.permute(2, 0, 1), [padding])
    shifts = range(2 * padding + 1)
    crops = [functional.crop(padded, top, left, *image.shape[:2]) for top in shifts for left in shifts]
    return torch.stack(crops).permute(0, 2, 3, 1)


def which(images: Tensor, candidates: Tensor) -> Tensor:
    """The index of the candidate that each image equals; every image must equal exactly one."""
    same = (images[:, None] == candidates).flatten(2).all(2)
    assert (same.sum(1) == 1).all()
    return same.int().argmax(1)


def chi_square(drawn: Tensor, kinds: int) -> float:
    expected = len(drawn) / kinds
    return float(((torch.bincount(drawn, minlength=kinds) - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("padding", [1, 2])
def test_crops_are_torchvisions_and_equally_likely(padding: int) -> None:
    candidates = windows(IMAGE, padding)
    crops = random_crop(copies(5000), padding, generator())
    assert crops.is_contiguous()
    assert crops.dtype == torch.uint8
    assert chi_square(which(crops, candidates), len(candidates)) < QUANTILE[padding]


def test_each_image_is_cut_from_itself() -> None:
    images = torch.randint(1, 256, (50, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=generator())
    for image, crop in zip(images, random_crop(images, 2, generator()), strict=True):
        which(crop[None], windows(image, 2))


def test_padding_may_exceed_the_image() -> None:
    crops = random_crop(copies(200), 7, generator())
    equal = (crops[:, None] == windows(IMAGE, 7)).flatten(2).all(2)
    assert equal.any(1).all()


def test_flips_are_torchvisions_and_every_second_one() -> None:
    candidates = torch.stack([IMAGE, functional.horizontal_flip(IMAGE.permute(2, 0, 1)).permute(1, 2, 0)])
    flipped = which(random_flip(copies(10_000), generator()), candidates)
    assert abs(float(flipped.float().mean()) - 0.5) < 0.0165  # 3.3 standard deviations
    changes = (flipped[1:] != flipped[:-1]).float().mean()
    assert abs(float(changes) - 0.5) < 0.0165  # neighbours are independent


def test_augment_does_what_is_configured() -> None:
    images, crops = copies(300), windows(IMAGE, 1)
    assert augment(images, AugmentConfig(), generator()) is images
    assert len(which(augment(images, AugmentConfig(crop_padding=1), generator()), crops).unique()) == 9
    both = augment(images, AugmentConfig(crop_padding=1, flip=True), generator())
    assert len(which(both, torch.cat([crops, crops.flip(2)])).unique()) == 18
    assert torch.equal(images, copies(300))  # which stay as they were


def test_the_generator_decides() -> None:
    config = AugmentConfig(crop_padding=2, flip=True)
    first, same, other = (augment(copies(50), config, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_an_empty_batch_stays_one() -> None:
    assert augment(copies(0), AugmentConfig(crop_padding=2, flip=True), generator()).shape == (0, HEIGHT, WIDTH, 2)
