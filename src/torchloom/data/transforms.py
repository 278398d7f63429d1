"""What torchvision.transforms.v2 does to whole batches: policies, MixUp and CutMix, reproducible from a generator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import BaseModel
from torch import Generator, Tensor
from torchvision.transforms import v2

from torchloom.config import AugmentConfig, PolicyConfig, own
from torchloom.config.checks import arguments_of, check_call
from torchloom.errors import InputError

POLICIES = {"AugMix", "AutoAugment", "RandAugment", "TrivialAugmentWide"}
# What torchvision does not check, but fails at or takes for something else.
_LEAST = {"num_ops": 0, "magnitude": 0, "num_magnitude_bins": 2, "mixture_width": 1}


def policy_arguments(name: str) -> type[BaseModel]:
    return arguments_of(own.resolve(name, v2))


def check_policy(name: str, arguments: dict[str, Any]) -> None:
    """Raise ValueError when torchvision.transforms.v2.<name> does not take `arguments`, or cannot work with them."""
    arguments = _with_members(arguments)
    check_call(policy_arguments(name), arguments)
    for key, least in _LEAST.items():
        if arguments.get(key, least) < least:
            raise ValueError(f"{key} must be at least {least}")
    if arguments.get("alpha", 1) <= 0:
        raise ValueError("alpha must be greater than 0")
    try:
        with _drawing_by(Generator().manual_seed(0), torch.device("cpu")):
            policy = create_policy(name, arguments)
            for _ in range(100):  # enough to meet with every operation
                policy(torch.zeros((1, 3, 4, 4), dtype=torch.uint8))
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise ValueError(f"{'' if own.is_path(name) else 'torchvision.transforms.v2.'}{name} says: {error}") from None


def create_policy(name: str, arguments: dict[str, Any]) -> v2.Transform:
    policy: v2.Transform = own.resolve(name, v2)(**_with_members(arguments))
    return policy


def _with_members(arguments: dict[str, Any]) -> dict[str, Any]:
    """AutoAugment's `policy`, which YAML can only give as a string, as the member of the enumeration."""
    if not isinstance(arguments.get("policy"), str):
        return arguments
    try:
        return {**arguments, "policy": v2.AutoAugmentPolicy(arguments["policy"])}
    except ValueError:
        known = ", ".join(sorted(member.value for member in v2.AutoAugmentPolicy))
        raise ValueError(f"policy must be one of {known}") from None


def apply_policy(images: Tensor, config: PolicyConfig, generator: Generator, host_generator: Generator) -> Tensor:
    """Change images (B, H, W, C) uint8, C = 1 or 3, by the policy; the result is of the same shape and type.

    The policies draw once for all images they are given. So the batch is dealt into `groups` at random, and each gets
    a draw of its own: what happens to one image has exactly the policy's distribution, and happens to some others too.
    `generator` is on the images' device and deals; `host_generator` seeds what torchvision draws.
    """
    if not len(images):
        return images
    policy = create_policy(config.name, config.arguments)
    order = torch.randperm(len(images), generator=generator, device=images.device)
    groups = images[order].permute(0, 3, 1, 2).tensor_split(min(config.groups, len(images)))
    with _drawing_by(host_generator, images.device):
        changed = torch.cat([policy(group) for group in groups])
    changed = changed.permute(0, 2, 3, 1)
    if changed.shape != images.shape or changed.dtype != images.dtype:
        raise InputError(
            f"data.augment.policy {config.name}: makes {_described(changed)} of images {_described(images)}; it must "
            "give as many, of the same size, as uint8"
        )
    return changed[order.argsort()].contiguous()


def _described(images: Tensor) -> str:
    count, height, width, channels = images.shape
    return f"{(count, channels, height, width)} {str(images.dtype).removeprefix('torch.')}"


def augment_each(
    images: Tensor, config: AugmentConfig, host_generator: Generator, mirrored: Tensor | None = None
) -> Tensor:
    """The slow reference for `augment`, up to cutout: image by image, by torchvision's transform for each setting."""
    chances = [0.5 if config.flip else 0.0] * len(images)
    if config.flip == "alternating":
        assert mirrored is not None
        chances = mirrored.float().tolist()
    changed = torch.empty_like(images)
    with _drawing_by(host_generator, images.device):
        for number, chance in enumerate(chances):
            changed[number] = _chain(config, images.shape[1:3], chance)(images[number].permute(2, 0, 1)).permute(
                1, 2, 0
            )
    return changed


def _chain(config: AugmentConfig, size: Sequence[int], flip: float) -> v2.Transform:
    steps: list[v2.Transform] = []
    if config.crop_padding:
        mode = "constant" if config.crop_border == "black" else "reflect"
        steps.append(v2.RandomCrop(list(size), config.crop_padding, padding_mode=mode))
    if config.affine:
        moved, slanted = [config.affine.translate] * 2, [-config.affine.shear, config.affine.shear]
        bilinear = v2.InterpolationMode.BILINEAR
        # with a fill of 0 torchvision weighs the outermost pixels twice and makes them darker than interpolation does
        steps.append(v2.RandomAffine(config.affine.degrees, moved, config.affine.scale, slanted, bilinear, fill=None))
    steps.append(v2.RandomHorizontalFlip(flip))
    if config.policy:
        steps.append(create_policy(config.policy.name, config.policy.arguments))
    if config.color:
        steps.append(v2.ColorJitter(config.color.brightness, config.color.contrast, config.color.saturation))
    return v2.Compose(steps)


def mix(
    images: Tensor, labels: Tensor, classes: int, config: AugmentConfig, host_generator: Generator
) -> tuple[Tensor, Tensor]:
    """Mix each image (B, C, H, W) and its label (B,) with another of the batch; one draw for the whole batch.

    MixUp (Zhang et al. 2018) blends the images, CutMix (Yun et al. 2019) pastes a rectangle; with both configured, one
    is chosen with probability 1/2. Returns images float32 on the old scale [0, 255], channels last in memory, and
    labels (B, classes) float32, the share of each class.
    """
    with _drawing_by(host_generator, images.device):
        kinds = [(v2.MixUp, config.mixup), (v2.CutMix, config.cutmix)]
        kinds = [(kind, alpha) for kind, alpha in kinds if alpha]
        kind, alpha = kinds[int(torch.randint(len(kinds), ()))]
        mixed, shares = kind(alpha=alpha, num_classes=classes)(images.float(), labels)
    return mixed.contiguous(memory_format=torch.channels_last), shares


@contextmanager
def _drawing_by(generator: Generator, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, which torchvision draws from, by `generator`; afterwards they are as before."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    accelerators = [device] if device.type in {"cuda", "xpu"} else []  # AugMix draws there too
    with torch.random.fork_rng(accelerators, device_type=device.type):
        torch.default_generator.manual_seed(seed)
        for accelerator in accelerators:
            with torch.accelerator.device_index(accelerator.index):
                torch.get_device_module(accelerator).manual_seed(seed)
        yield
