from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode, functional

from torchloom.config import AffineConfig, AugmentConfig, ColorConfig
from torchloom.data import augment as module
from torchloom.data.augment import (
    adjust_color,
    affine,
    augment,
    mirror,
    random_affine,
    random_color,
    random_crop,
    random_cutout,
    random_flip,
    reflect,
)
from torchloom.errors import InputError

HEIGHT, WIDTH = 3, 5
IMAGE = torch.arange(1, HEIGHT * WIDTH * 2 + 1, dtype=torch.uint8).view(HEIGHT, WIDTH, 2)  # no two pixels alike
# The 1 in 1000 quantiles of chi-square for 8 and 24 degrees of freedom, by padding: (2p + 1)^2 - 1.
QUANTILE = {1: 26.1, 2: 51.2}
EVERY: dict[str, dict[str, Any]] = {  # what `augment` can do to images, one at a time
    "crop_padding": {"crop_padding": 2},
    "affine": {"affine": {"degrees": 30, "translate": 0.2, "scale": [0.8, 1.2], "shear": 10}},
    "flip": {"flip": True},
    "policy": {"policy": {"name": "TrivialAugmentWide"}},
    "color": {"color": {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5}},
    "cutout": {"cutout": 4},
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def copies(count: int) -> Tensor:
    return IMAGE.repeat(count, 1, 1, 1)


def windows(image: Tensor, padding: int, mode: str = "constant") -> Tensor:
    """What torchvision cuts out of the padded image, for each of the (2p + 1)^2 shifts."""
    padded = functional.pad(image.permute(2, 0, 1), [padding], padding_mode=mode)
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


@pytest.mark.parametrize("padding", [1, 2])
def test_crops_from_a_reflected_border_are_torchvisions_and_equally_likely(padding: int) -> None:
    image = torch.arange(1, 71, dtype=torch.uint8).view(5, 7, 2)  # large enough for no two windows to be alike
    candidates = windows(image, padding, "reflect")
    crops = random_crop(image.repeat(5000, 1, 1, 1), padding, generator(), "reflect")
    assert crops.is_contiguous()
    assert crops.dtype == torch.uint8
    assert chi_square(which(crops, candidates), len(candidates)) < QUANTILE[padding]
    assert torch.equal(crops == 0, torch.zeros_like(crops, dtype=torch.bool))


def test_each_image_is_cut_from_its_own_reflection() -> None:
    images = noise(50)
    for image, crop in zip(images, random_crop(images, 2, generator(), "reflect"), strict=True):
        which(crop[None], windows(image, 2, "reflect"))


@pytest.mark.parametrize("padding", [1, 2, 3, 13])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_reflection_is_pytorchs(padding: int, channels: int) -> None:
    images = noise(4, channels)
    expected = F.pad(images.permute(0, 3, 1, 2).float(), (padding,) * 4, mode="reflect").permute(0, 2, 3, 1)
    assert torch.equal(reflect(images, padding), expected.to(torch.uint8))
    assert torch.equal(images, noise(4, channels))


@pytest.mark.parametrize("padding", [3, 4, 100])
def test_a_border_wider_than_the_image_cannot_be_reflected(padding: int) -> None:
    with pytest.raises(InputError) as caught:
        augment(copies(2), AugmentConfig(crop_padding=padding, crop_border="reflect"), generator())
    expected = f"data.augment.crop_padding {padding}: images of (3, 5) cannot be reflected so far"
    assert caught.value.message == expected


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH, 2), (4, 6, 1), (32, 32, 3), (1, 1, 1)])
def test_those_images_are_mirrored_that_are_to_be(shape: tuple[int, int, int]) -> None:
    images = noise(40, shape[2], *shape[:2])
    chosen = torch.rand(40, generator=generator()) < 0.3
    flipped = mirror(images, chosen)
    for image, result, turned in zip(images, flipped, chosen, strict=True):
        expected = functional.horizontal_flip(image.permute(2, 0, 1)).permute(1, 2, 0) if turned else image
        assert torch.equal(result, expected)
    assert flipped.is_contiguous()
    assert flipped.dtype == torch.uint8
    assert torch.equal(images, noise(40, shape[2], *shape[:2]))


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


def test_alternating_flips_are_given_and_what_comes_after_still_happens() -> None:
    images, chosen = noise(40, height=8, width=8), torch.arange(40) % 3 == 0
    only = augment(images, configured({"flip": "alternating"}), generator(), mirrored=chosen)
    assert torch.equal(only, mirror(images, chosen))
    for name in ("policy", "color", "cutout"):
        both = augment(images, configured({"flip": "alternating", **EVERY[name]}), generator(), mirrored=chosen)
        assert torch.equal(both, augment(only, configured(EVERY[name]), generator()))
        assert not torch.equal(both, only)
    cropped = configured({"flip": "alternating", "crop_padding": 2, "crop_border": "reflect"})
    expected = mirror(random_crop(images, 2, generator(), "reflect"), chosen)
    assert torch.equal(augment(images, cropped, generator(), mirrored=chosen), expected)


def test_the_generator_decides() -> None:
    config = AugmentConfig(crop_padding=2, flip=True)
    first, same, other = (augment(copies(50), config, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def noise(count: int, channels: int = 3, height: int = 14, width: int = 19) -> Tensor:
    return torch.randint(0, 256, (count, height, width, channels), dtype=torch.uint8, generator=generator(99))


def configured(settings: dict[str, Any]) -> AugmentConfig:
    return AugmentConfig.model_validate(settings)


def distance(first: Tensor, second: Tensor) -> float:
    """The Kolmogorov-Smirnov statistic: the greatest distance of the two empirical distribution functions."""
    first, second = first.sort().values, second.sort().values
    points = torch.cat([first, second])
    below = [torch.searchsorted(sample, points, right=True) / len(sample) for sample in (first, second)]
    return float((below[0] - below[1]).abs().max())


def likely(first: Tensor, second: Tensor) -> bool:
    """Whether two samples may have one distribution: false for 1 in 10000 pairs that have."""
    return distance(first.float(), second.float()) < 2.23 * (1 / len(first) + 1 / len(second)) ** 0.5


# ---- affine --------------------------------------------------------------------------------------------------------

AFFINE = {"angle": 0.0, "across": 0.0, "down": 0.0, "scale": 1.0, "shear": 0.0}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"angle": 33.0},
        {"angle": -170.0},
        {"across": 3.0, "down": -2.0},
        {"scale": 1.4},
        {"scale": 0.6},
        {"shear": 20.0},
        {"angle": 25.0, "across": -2.0, "down": 4.0, "scale": 0.8, "shear": -15.0},
    ],
)
def test_affine_is_torchvisions(changed: dict[str, float], channels: int) -> None:
    given, images = AFFINE | changed, noise(3, channels)
    ours = affine(images, *(torch.full((3,), value) for value in given.values()))
    theirs = functional.affine(
        images.permute(0, 3, 1, 2),
        given["angle"],
        [int(given["across"]), int(given["down"])],
        given["scale"],
        [given["shear"], 0.0],
        InterpolationMode.BILINEAR,
    ).permute(0, 2, 3, 1)
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert (ours != theirs).float().mean() < 0.02  # where a level is half way between two
    assert torch.equal(ours, images) == (not changed)


def test_each_image_has_its_own_affine_map() -> None:
    images, draws = noise(5), torch.rand((5, 5), generator=generator())
    together = affine(images, *(draws + 0.5))
    for index in range(5):
        alone = affine(images[index : index + 1], *(draws[:, index : index + 1] + 0.5))
        assert torch.equal(together[index], alone[0])


def test_affine_maps_are_drawn_like_random_affines(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Tensor] = []
    monkeypatch.setattr(module, "affine", lambda images, *parameters: drawn.extend(parameters))
    config = AffineConfig(degrees=20, translate=0.3, scale=[0.5, 1.1], shear=10)
    random_affine(noise(3000), config, generator())
    reference = v2.RandomAffine(20, (0.3, 0.3), (0.5, 1.1), 10)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = [reference.make_params([torch.zeros(3, 14, 19)]) for _ in range(3000)]
    expected = torch.tensor([[p["angle"], *p["translate"], p["scale"], p["shear"][0]] for p in theirs]).T
    for ours, parameter in zip(drawn, expected, strict=True):
        assert likely(ours, parameter)
    assert torch.corrcoef(torch.stack(drawn)).fill_diagonal_(0).abs().max() < 0.08  # 4 standard deviations
    assert {float(value) for value in drawn[1]} == set(range(-6, 7))
    assert {float(value) for value in drawn[2]} == set(range(-4, 5))


# ---- colour --------------------------------------------------------------------------------------------------------

ADJUST = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.0, 0.4142, 1.6917])
def test_colors_are_changed_as_by_torchvision(kind: int, factor: float, channels: int) -> None:
    images, factors = noise(4, channels), torch.ones((3, 4))
    factors[kind] = factor
    ours = adjust_color(images, factors, torch.tensor([[0], [1], [2]]).expand(3, 4))
    theirs = ADJUST[kind](images.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert (ours != theirs).float().mean() < 0.01
    assert torch.equal(ours, images) == (kind == 2 and channels == 1)


def test_each_image_has_its_own_factors_and_order() -> None:
    images, factors = noise(12), 0.5 + torch.rand((3, 12), generator=generator())
    order = torch.rand((3, 12), generator=generator(1)).argsort(0)
    assert len(order.T.unique(dim=0)) > 3
    ours = adjust_color(images, factors, order)
    for index in range(12):
        theirs = images[index].permute(2, 0, 1)
        for kind in order[:, index]:
            theirs = ADJUST[kind](theirs, float(factors[kind, index]))
        difference = (ours[index].int() - theirs.permute(1, 2, 0).int()).abs()
        assert difference.max() <= 3  # a level at one step can become more at the next
        assert (difference > 0).float().mean() < 0.02


def test_nothing_to_adjust_leaves_all_colors() -> None:
    assert torch.equal(random_color(noise(20), ColorConfig(), generator()), noise(20))


def test_factors_are_drawn_like_color_jitters(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Tensor] = []
    monkeypatch.setattr(module, "adjust_color", lambda images, *parameters: drawn.extend(parameters))
    random_color(noise(4000), ColorConfig(brightness=0.3, contrast=1.5, saturation=0.0), generator())
    factors, order = drawn
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = [v2.ColorJitter(0.3, 1.5).make_params([]) for _ in range(3000)]
    assert likely(factors[0], torch.tensor([p["brightness_factor"] for p in theirs]))
    assert likely(factors[1], torch.tensor([p["contrast_factor"] for p in theirs]))
    assert (factors[2] == 1).all()
    assert torch.corrcoef(factors[:2])[0, 1].abs() < 0.07
    orders, which_order = order.unique(dim=1, return_inverse=True)
    assert orders.shape == (3, 6)
    assert chi_square(which_order, 6) < 20.6  # 1 in 1000, 5 degrees of freedom
    assert chi_square(which_order[factors[1] < factors[1].median()], 6) < 20.6  # whatever the factors are


# ---- cutout --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 2, 3])
def test_cutouts_are_squares_around_any_pixel(side: int) -> None:
    """The expected squares are written down slowly, pixel by pixel."""
    centres = HEIGHT * WIDTH
    candidates = torch.full((centres, HEIGHT, WIDTH, 2), 9, dtype=torch.uint8)
    for centre in range(centres):
        top, left = centre // WIDTH - side // 2, centre % WIDTH - side // 2
        for row in range(max(0, top), min(HEIGHT, top + side)):
            for column in range(max(0, left), min(WIDTH, left + side)):
                candidates[centre, row, column] = torch.tensor([3, 200])
    images = torch.full((6000, HEIGHT, WIDTH, 2), 9, dtype=torch.uint8)
    cut = random_cutout(images, side, generator(), torch.tensor([3, 200], dtype=torch.uint8))
    assert cut.dtype == torch.uint8
    assert chi_square(which(cut, candidates), centres) < 36.2  # 1 in 1000, 14 degrees of freedom


def test_cutouts_are_black_unless_told_otherwise() -> None:
    cut = augment(torch.full((50, 8, 8, 3), 255, dtype=torch.uint8), AugmentConfig(cutout=4), generator())
    covered = (cut == 0).all(3).sum((1, 2))
    assert covered.min() >= 4  # a quarter of the square, when its centre is in a corner
    assert covered.max() == 16
    assert torch.equal((cut == 255).all(3), ~(cut == 0).all(3))


def test_a_cutout_may_cover_everything() -> None:
    assert (augment(noise(5, height=4, width=4), AugmentConfig(cutout=9), generator()) == 0).all()


# ---- all of them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", EVERY)
def test_images_keep_shape_type_and_layout(name: str, channels: int) -> None:
    images = noise(20, channels)
    changed = augment(images, configured(EVERY[name]), generator())
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    assert changed.is_contiguous()
    assert torch.equal(images, noise(20, channels))  # which stay as they were
    assert not torch.equal(changed, images)


@pytest.mark.parametrize("name", EVERY)
def test_images_are_changed_each_in_its_own_way(name: str) -> None:
    images = noise(1).repeat(64, 1, 1, 1)
    kinds = len(augment(images, configured(EVERY[name]), generator()).flatten(1).unique(dim=0))
    least = {"flip": 2, "policy": 8, "crop_padding": 20}
    assert kinds >= least.get(name, 50)


@pytest.mark.parametrize("name", EVERY)
def test_the_generator_alone_decides(name: str) -> None:
    config, images = configured(EVERY[name]), noise(30)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state, source = torch.get_rng_state(), generator()
        first, second = augment(images, config, source), augment(images, config, source)
        assert torch.equal(torch.get_rng_state(), state)  # others' random numbers are not disturbed
        torch.manual_seed(2)
        assert torch.equal(augment(images, config, generator()), first)
    assert not torch.equal(second, first)
    assert not torch.equal(augment(images, config, generator(1)), first)


def test_policies_leave_the_generator_on_the_device_alone() -> None:
    """Its numbers would have to be waited for; theirs come from the one on the host."""
    config = configured({"policy": {"name": "TrivialAugmentWide", "groups": 30}})
    orders = [augment(noise(30), config, generator(), generator(seed)) for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_the_order_is_the_one_in_the_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def record(name: str) -> Any:
        return lambda images, *_: called.append(name) or images

    for name in ("crop", "affine", "flip", "color", "cutout"):
        monkeypatch.setattr(module, f"random_{name}", record(name))
    monkeypatch.setattr("torchloom.data.transforms.apply_policy", record("policy"))
    everything = {key: value for settings in EVERY.values() for key, value in settings.items()}
    augment(noise(4), configured(everything), generator())
    assert called == ["crop", "affine", "flip", "policy", "color", "cutout"]
    how = {"crop_border", "per_sample"}
    changes = [name for name in AugmentConfig.model_fields if name not in how]
    assert changes == [*EVERY, "mixup", "cutmix"]


@pytest.mark.parametrize("name", EVERY)
def test_an_empty_batch_stays_one(name: str) -> None:
    assert augment(noise(0), configured(EVERY[name]), generator()).shape == noise(0).shape
