from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from torchloom.config import AugmentConfig, DataConfig, PolicyConfig
from torchloom.config.checks import check_parameters
from torchloom.data.transforms import POLICIES, apply_policy, mix
from torchloom.errors import InputError

CLASSES = 40


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, channels: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, 11, 14, channels), dtype=torch.uint8, generator=generator(99))


def changed(images: Tensor, seed: int = 0, **settings: Any) -> Tensor:
    return apply_policy(images, PolicyConfig.model_validate(settings), generator(seed), generator(seed))


class Halved(torch.nn.Module):
    """No policy: what it makes are fractions, of fewer images or smaller ones."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def forward(self, images: Tensor) -> Tensor:
        return {"type": images / 2, "count": images[::2], "size": images[..., ::2]}[self.what]


@pytest.mark.parametrize(
    ("what", "made"),
    [("type", r"\(4, 3, 11, 14\) float32"), ("count", r"\(2, 3, 11, 14\)"), ("size", r"\(4, 3, 11, 7\)")],
)
def test_a_policy_that_makes_other_images_is_refused(monkeypatch: pytest.MonkeyPatch, what: str, made: str) -> None:
    monkeypatch.setattr("torchloom.data.transforms.create_policy", lambda *_: Halved(what))
    with pytest.raises(
        InputError, match=rf"RandAugment: makes {made}.* of images \(4, 3, 11, 14\) uint8; it must give"
    ):
        changed(noise(4), name="RandAugment", groups=1)


def distance(first: Tensor, second: Tensor) -> float:
    """The Kolmogorov-Smirnov statistic: the greatest distance of the two empirical distribution functions."""
    first, second = first.sort().values, second.sort().values
    points = torch.cat([first, second])
    below = [torch.searchsorted(sample, points, right=True) / len(sample) for sample in (first, second)]
    return float((below[0] - below[1]).abs().max())


# ---- policies ------------------------------------------------------------------------------------------------------

ARGUMENTS: list[dict[str, Any]] = [
    {"name": "TrivialAugmentWide"},
    {"name": "RandAugment"},
    {"name": "RandAugment", "num_ops": 1, "magnitude": 25, "interpolation": "bilinear", "fill": [9, 99, 199]},
    {"name": "AutoAugment"},
    {"name": "AutoAugment", "policy": "svhn"},
    {"name": "AugMix", "severity": 1, "alpha": 0.3},
]


@pytest.mark.parametrize("settings", ARGUMENTS, ids=lambda settings: "-".join(str(v) for v in settings.values()))
def test_images_are_changed_as_by_the_class(settings: dict[str, Any]) -> None:
    """Each of 500 copies has a draw of its own, as in 500 calls; two figures of them have the same distribution."""
    count, image = 500, noise(1)
    ours = changed(image.repeat(count, 1, 1, 1), groups=count, **settings).float()
    arguments = {key: value for key, value in settings.items() if key != "name"}
    if "policy" in arguments:
        arguments["policy"] = v2.AutoAugmentPolicy(arguments["policy"])
    policy = getattr(v2, settings["name"])(**arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        calls = [policy(image.permute(0, 3, 1, 2)) for _ in range(count)]
    theirs = torch.cat(calls).permute(0, 2, 3, 1).float()
    for figure in (lambda x: x.mean((1, 2, 3)), lambda x: (x - image.float()).square().mean((1, 2, 3))):
        assert distance(figure(ours), figure(theirs)) < 2.23 * (2 / count) ** 0.5  # 1 in 10000


def test_every_policy_is_compared() -> None:
    assert {settings["name"] for settings in ARGUMENTS} == POLICIES


def test_the_batch_is_dealt_into_groups_at_random() -> None:
    settings = {"name": "RandAugment", "num_ops": 4, "magnitude": 20, "groups": 4}
    partners = set()
    for seed in range(5):
        images = changed(noise(1).repeat(62, 1, 1, 1), seed, **settings)
        kinds, group, sizes = images.flatten(1).unique(dim=0, return_inverse=True, return_counts=True)
        assert 2 <= len(kinds) <= 4
        assert set(sizes.tolist()) <= {15, 16, 30, 31, 32}  # two of the draws may be alike
        partners.add(tuple((group == group[0]).tolist()))
    assert len(partners) == 5


def test_each_image_stays_in_its_place() -> None:
    assert torch.equal(changed(noise(50), name="RandAugment", num_ops=0, groups=7), noise(50))


@pytest.mark.parametrize(("count", "groups"), [(3, 16), (16, 16), (17, 16), (1, 1), (0, 16)])
def test_batches_may_be_smaller_than_the_number_of_groups(count: int, groups: int) -> None:
    images = changed(noise(count), name="TrivialAugmentWide", groups=groups)
    assert images.shape == (count, 11, 14, 3)


@pytest.mark.parametrize("name", sorted(POLICIES))
@pytest.mark.parametrize("channels", [1, 3])
def test_policies_keep_shape_type_and_layout(name: str, channels: int) -> None:
    images = changed(noise(40, channels), name=name)
    assert images.shape == (40, 11, 14, channels)
    assert images.dtype == torch.uint8
    assert images.is_contiguous()


# ---- mixing --------------------------------------------------------------------------------------------------------


def mixed(seed: int = 0, count: int = 12, **alphas: float) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, C, H, W), what mixing makes of them, and of the labels 0, 1, 2 …"""
    images = noise(count).permute(0, 3, 1, 2)
    return images, *mix(images, torch.arange(count), CLASSES, AugmentConfig(**alphas), generator(seed))


def shares_and_partners(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Each image's own share, and the image that has the rest; the batch has the one share."""
    count = len(labels)
    own = labels[torch.arange(count), torch.arange(count)]
    rest = labels.clone().fill_diagonal_(0)
    assert (rest > 0).sum(1).max() <= 1
    assert torch.allclose(own + rest.sum(1), torch.ones(count))
    assert torch.allclose(own, own[:1].expand(count))
    return own, rest.argmax(1)


@pytest.mark.parametrize("seed", range(5))
def test_mixup_blends_images_like_their_labels(seed: int) -> None:
    images, blended, labels = mixed(seed, mixup=1.0)
    own, partner = shares_and_partners(labels)
    assert 0 < own[0] < 1
    assert (partner != torch.arange(12)).all()
    share = own[:, None, None, None]
    assert torch.allclose(blended, share * images + (1 - share) * images[partner], atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_pastes_a_rectangle_of_the_size_that_the_labels_say(seed: int) -> None:
    images, pasted, labels = mixed(seed, cutmix=1.0)
    own, partner = shares_and_partners(labels)
    foreign = (pasted != images).any(1)
    assert torch.equal(pasted, torch.where(foreign[:, None], images[partner], images).float())
    box = foreign.any(0)  # all of it: a pixel of noise equals its partner's only by chance
    rows, columns = box.any(1), box.any(0)
    assert torch.equal(box, rows[:, None] & columns)
    assert rows.diff().sum() <= 2  # one stretch
    assert columns.diff().sum() <= 2
    assert own[0] == pytest.approx(1 - float(box.float().mean()), abs=1e-6)


@pytest.mark.parametrize("alphas", [{"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}])
def test_mixed_batches_are_soft_and_float(alphas: dict[str, float]) -> None:
    _, images, labels = mixed(**alphas)
    assert images.dtype == labels.dtype == torch.float32
    assert images.shape == (12, 3, 11, 14)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.max() > 200  # the scale is the old one
    assert labels.shape == (12, CLASSES)
    assert torch.allclose(labels.sum(1), torch.ones(12))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_beta_distributed(alpha: float) -> None:
    shares = torch.stack([mixed(seed, 2, mixup=alpha)[2][0, 0] for seed in range(800)])
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(float(shares.mean()) - 0.5) < 4 * (variance / 800) ** 0.5
    assert float(shares.var()) == pytest.approx(variance, rel=0.2)


def test_one_of_both_is_chosen_for_each_batch() -> None:
    pasted = 0
    for seed in range(400):
        images, result, _ = mixed(seed, 2, mixup=1.0, cutmix=1.0)
        pasted += int(((result == images) | (result == images.flip(0))).all())
    assert abs(pasted / 400 - 0.5) < 0.0825  # 3.3 standard deviations


@pytest.mark.parametrize("alphas", [{"mixup": 0.5}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 1.0}])
def test_the_generator_alone_decides_on_the_mixture(alphas: dict[str, float]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state = torch.get_rng_state()
        _, images, labels = mixed(**alphas)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        assert torch.equal(mixed(**alphas)[1], images)
        assert torch.equal(mixed(**alphas)[2], labels)
    assert not torch.equal(mixed(7, **alphas)[1], images)


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_and_one_image_can_be_mixed(count: int) -> None:
    for alphas in ({"mixup": 1.0}, {"cutmix": 1.0}):
        images, result, labels = mixed(0, count, **alphas)
        assert torch.allclose(result, images.float(), atol=1e-3)
        assert torch.allclose(labels, torch.eye(CLASSES)[:count])


# ---- parameters ----------------------------------------------------------------------------------------------------


def mistakes(settings: dict[str, Any]) -> list[str]:
    try:
        check_parameters({"task": {"data": {"augment": settings}}}, {"task.data": DataConfig}, set())
    except InputError as error:
        return [line.removeprefix("  task.data.augment.") for line in error.message.split("\n")[1:]]
    return []


@pytest.mark.parametrize(
    "settings",
    [
        {"affine": {}},
        {"affine": {"degrees": 180, "translate": 1, "scale": [0.5, 0.5], "shear": 45.5}},
        {"color": {"brightness": 2, "contrast": 0.5}},
        {"cutout": 16, "mixup": 0.2, "cutmix": 1},
        {"policy": {"name": "RandAugment", "magnitude": None, "groups": 128}},
        *({"policy": settings} for settings in ARGUMENTS),
    ],
)
def test_valid_parameters(settings: dict[str, Any]) -> None:
    assert mistakes(settings) == []
    config = AugmentConfig.model_validate(settings)
    assert AugmentConfig.model_validate_json(config.model_dump_json()) == config  # as in the loader plan


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"affine": {"degrees": 181}}, "affine.degrees: given 181; must be less than or equal to 180"),
        ({"affine": {"translate": -0.1}}, "affine.translate: given -0.1; must be greater than or equal to 0"),
        ({"affine": {"translate": 1.5}}, "affine.translate: given 1.5; must be less than or equal to 1"),
        ({"affine": {"shear": 90}}, "affine.shear: given 90; must be less than 90"),
        ({"affine": {"scale": [1.2, 1.0]}}, "affine.scale: given [1.2, 1.0]; must be two factors, [least, greatest]"),
        ({"affine": {"scale": [1.0]}}, "affine.scale: given [1.0]; must be two factors, [least, greatest]"),
        ({"affine": {"scale": [0, 1]}}, "affine.scale.0: given 0; must be greater than 0"),
        ({"affine": {"scale": 1.2}}, "affine.scale: given 1.2; must be a valid list"),
        ({"color": {"contrast": -1}}, "color.contrast: given -1; must be greater than or equal to 0"),
        ({"color": {"hue": 0.1}}, "color.hue: unknown key; allowed are brightness, contrast, saturation"),
        ({"cutout": -1}, "cutout: given -1; must be greater than or equal to 0"),
        ({"cutout": 0.5}, "cutout: given 0.5; must be a valid integer"),
        ({"mixup": -0.2}, "mixup: given -0.2; must be greater than or equal to 0"),
        ({"cutmix": float("inf")}, "cutmix: given inf; must be a finite number"),
        ({"policy": "RandAugment"}, "policy: given 'RandAugment'; must be a block such as {name: …"),
        (
            {"policy": {"name": "RandAug"}},
            "policy.name: given 'RandAug'; must be a policy of torchvision.transforms.v2 or the dotted path of one "
            "of yours (did you mean RandAugment?); there are AugMix, AutoAugment, RandAugment, TrivialAugmentWide",
        ),
        ({"policy": {"name": "ColorJitter"}}, "policy.name: given 'ColorJitter'; must be a policy of"),
        (
            {"policy": {"name": "RandAugment", "magnitde": 3}},
            "policy.magnitde: unknown key (did you mean magnitude?); allowed are fill, interpolation, magnitude, num_",
        ),
        ({"policy": {"name": "RandAugment", "magnitude": 9.5}}, "policy.magnitude: given 9.5; must be a valid integer"),
        ({"policy": {"name": "AugMix", "groups": 0}}, "policy.groups: given 0; must be greater than or equal to 1"),
    ],
)
def test_one_mistake_gives_one_line(settings: dict[str, Any], message: str) -> None:
    (line,) = mistakes(settings)
    assert line.startswith(message)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "RandAugment", "magnitude": 31}, "torchvision.transforms.v2.RandAugment says: index 31 is out of"),
        ({"name": "RandAugment", "magnitude": -1}, "magnitude must be at least 0"),
        ({"name": "RandAugment", "num_ops": -1}, "num_ops must be at least 0"),
        ({"name": "TrivialAugmentWide", "num_magnitude_bins": 1}, "num_magnitude_bins must be at least 2"),
        ({"name": "AugMix", "severity": 11}, "torchvision.transforms.v2.AugMix says: The severity must be between"),
        ({"name": "AugMix", "alpha": 0}, "alpha must be greater than 0"),
        ({"name": "AutoAugment", "policy": "cifar"}, "policy must be one of cifar10, imagenet, svhn"),
        ({"name": "RandAugment", "interpolation": "lanczos"}, "torchvision.transforms.v2.RandAugment says: "),
    ],
)
def test_what_a_policy_cannot_work_with(settings: dict[str, Any], says: str) -> None:
    (line,) = mistakes({"policy": settings})
    assert line.startswith(f"policy: given {settings}; {says}")
