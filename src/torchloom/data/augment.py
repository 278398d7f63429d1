"""Augmentation of whole batches on their device, each image with random numbers of its own.

All functions take and return images (B, H, W, C) uint8, contiguous in that order. What torchvision has for whole
batches, policies and the mixing of images, is in transforms.py.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from torchloom.config import AffineConfig, AugmentConfig, ColorConfig
from torchloom.data.targets import IGNORED
from torchloom.errors import InputError


def augment(
    images: Tensor,
    config: AugmentConfig,
    generator: Generator,
    host_generator: Generator | None = None,
    fill: Tensor | int = 0,
    mirrored: Tensor | None = None,
) -> Tensor:
    """Change each image at random, as configured.

    `generator` is on the images' device. Policies draw on the CPU: with `generator` on another device, a
    `host_generator` on the CPU spares a wait for that device. `fill` (C,) uint8 is the colour of cutouts, `mirrored`
    (B,) bool which images an alternating flip turns.
    """
    if config.per_sample:
        from torchloom.data.transforms import augment_each  # torchvision takes a second or two to import

        images = augment_each(images, config, host_generator or generator, mirrored)
        return random_cutout(images, config.cutout, generator, fill) if config.cutout else images
    moved = _moved(images, config, generator, mirrored)
    return _recoloured(moved, config, generator, host_generator or generator, fill)


def augment_with_masks(
    images: Tensor,
    masks: Tensor,
    config: AugmentConfig,
    generator: Generator,
    host_generator: Generator | None = None,
    fill: Tensor | int = 0,
    mirrored: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The same, where the `masks` (B, H, W) uint8 move with their images; what is new in them is IGNORED."""
    together = torch.cat([images, (IGNORED - masks)[..., None]], dim=3)  # where black is IGNORED
    moved = _moved(together, config, generator, mirrored, nearest=True)
    images, masks = moved[..., :-1].contiguous(), IGNORED - moved[..., -1]
    return _recoloured(images, config, generator, host_generator or generator, fill), masks


def _moved(
    images: Tensor, config: AugmentConfig, generator: Generator, mirrored: Tensor | None, nearest: bool = False
) -> Tensor:
    if config.crop_padding:
        images = random_crop(images, config.crop_padding, generator, config.crop_border)
    if config.affine:
        images = random_affine(images, config.affine, generator, nearest)
    if config.flip == "alternating":
        assert mirrored is not None
        images = mirror(images, mirrored)
    elif config.flip:
        images = random_flip(images, generator)
    return images


def _recoloured(
    images: Tensor, config: AugmentConfig, generator: Generator, host_generator: Generator, fill: Tensor | int
) -> Tensor:
    if config.policy:
        from torchloom.data.transforms import apply_policy

        images = apply_policy(images, config.policy, generator, host_generator)
    if config.color:
        images = random_color(images, config.color, generator)
    if config.cutout:
        images = random_cutout(images, config.cutout, generator, fill)
    return images


def random_crop(
    images: Tensor, padding: int, generator: Generator, border: Literal["black", "reflect"] = "black"
) -> Tensor:
    """Surround each image with `padding` pixels, black or its reflection, and cut it out again at a random place.

    The same distribution as torchvision's RandomCrop(size, padding, padding_mode="constant" or "reflect"). A window's
    rows are contiguous in memory, so one gather of rows does the whole batch.
    """
    count, height, width, channels = images.shape
    if border == "black":
        padded = F.pad(images, (0, 0, padding, padding, padding, padding))
    else:
        padded = reflect(images, padding)
    length = width + 2 * padding
    pixels = padded.numel() // channels
    windows = padded.as_strided(
        (max(0, pixels - width + 1), width * channels), (channels, 1)
    )  # from each pixel on, one row
    down, right = torch.randint(2 * padding + 1, (2, count, 1), generator=generator, device=images.device)
    image = torch.arange(count, device=images.device)[:, None] * (height + 2 * padding)
    rows = (image + down + torch.arange(height, device=images.device)) * length + right
    return windows.index_select(0, rows.flatten()).reshape(images.shape)


def reflect(images: Tensor, padding: int) -> Tensor:
    """`images` (B, H, W, C) with a border of `padding` pixels in which they go on mirrored, the edge not repeated."""
    if padding >= min(images.shape[1:3]):
        raise InputError(
            f"data.augment.crop_padding {padding}: images of {tuple(images.shape[1:3])} cannot be reflected so far"
        )
    for dimension in (1, 2):
        before = images.narrow(dimension, 1, padding).flip(dimension)
        after = images.narrow(dimension, -padding - 1, padding).flip(dimension)
        images = torch.cat([before, images, after], dimension)
    return images


def random_flip(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each image left and right with probability 1/2."""
    return mirror(images, torch.rand(len(images), generator=generator, device=images.device) < 0.5)


def mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror the images for which `mirrored` (B,) bool holds left and right."""
    return torch.where(mirrored[:, None], _words(images.flip(2)), _words(images)).view(torch.uint8).view(images.shape)


def _words(images: Tensor) -> Tensor:
    """Each image's bytes in one row, eight in a number where that goes without a remainder: (B, N), quick to choose."""
    flat = images.flatten(1)
    return flat.view(torch.int64) if flat.shape[1] % 8 == 0 else flat


def random_affine(images: Tensor, config: AffineConfig, generator: Generator, nearest: bool = False) -> Tensor:
    """Turn, move, scale and shear each image at random: the distribution of torchvision's RandomAffine.

    `nearest` is whether the last channel takes the nearest pixel.
    """
    count, height, width, _ = images.shape
    draws = torch.rand((5, count), generator=generator, device=images.device)
    angle, across, down, shear = 2 * draws[:4] - 1
    low, high = config.scale
    return affine(
        images,
        config.degrees * angle,
        (config.translate * width * across).round(),
        (config.translate * height * down).round(),
        low + (high - low) * draws[4],
        config.shear * shear,
        **({"nearest": True} if nearest else {}),
    )


def affine(
    images: Tensor,
    angle: Tensor,
    across: Tensor,
    down: Tensor,
    scale: Tensor,
    shear: Tensor,
    nearest: bool = False,
) -> Tensor:
    """Each image sheared, scaled, turned about its centre and then moved, bilinearly resampled, with black around it.

    All (B,): `angle` in degrees clockwise, `across` and `down` in pixels, `shear` in degrees along the rows. Where
    `nearest`, the last channel is not resampled, but takes the nearest pixel.
    """
    _, height, width, _ = images.shape
    tangent, sine, cosine = shear.deg2rad().tan(), angle.deg2rad().sin(), angle.deg2rad().cos()
    # For each pixel of the result its place in the image, in pixels from the centre: moved, turned, … back again.
    column = (torch.arange(width, device=images.device) - (width - 1) / 2 - across[:, None]) / scale[:, None]
    row = (torch.arange(height, device=images.device) - (height - 1) / 2 - down[:, None]) / scale[:, None]
    grid = column.new_empty((*images.shape[:3], 2))  # x and y on a scale where the image reaches from -1 to 1
    grid[..., 0] = _plane(column * 2 / width, cosine - tangent * sine, row * 2 / width, sine + tangent * cosine)
    grid[..., 1] = _plane(column * 2 / height, -sine, row * 2 / height, cosine)
    planes = images.permute(0, 3, 1, 2).float()
    moved = F.grid_sample(planes, grid, padding_mode="zeros", align_corners=False)
    if nearest:
        moved[:, -1:] = F.grid_sample(planes[:, -1:], grid, "nearest", padding_mode="zeros", align_corners=False)
    return moved.round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _plane(column: Tensor, per_column: Tensor, row: Tensor, per_row: Tensor) -> Tensor:
    """(B, H, W) from coordinates (B, W) and (B, H), each multiplied by its coefficient (B,)."""
    return (column * per_column[:, None])[:, None, :] + (row * per_row[:, None])[:, :, None]


def random_color(images: Tensor, config: ColorConfig, generator: Generator) -> Tensor:
    """Change each image's brightness, contrast and saturation: the distribution of torchvision's ColorJitter."""
    draws = torch.rand((2, 3, len(images)), generator=generator, device=images.device)
    strengths = (config.brightness, config.contrast, config.saturation)
    factors = [max(0.0, 1 - s) + draw * (1 + s - max(0.0, 1 - s)) for s, draw in zip(strengths, draws[0], strict=True)]
    return adjust_color(images, torch.stack(factors), draws[1].argsort(0))


def adjust_color(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Move images (C = 1 or 3) away from black (0), their mean grey (1) and their own greys (2), each in its own order.

    `factors` and `order` are (3, B): by how much for 0, 1 and 2 (a factor of 1 changes nothing), and which of the
    three comes first, second and third. The levels are cut to integers after each, as torchvision's adjust_brightness,
    adjust_contrast and adjust_saturation do.
    """
    changed = images.float()
    if images.shape[3] == 1:  # grey images have no saturation
        factors = torch.cat([factors[:2], torch.ones_like(factors[2:])])
    for kind, factor in zip(order[..., None, None, None], factors.gather(0, order)[..., None, None, None], strict=True):
        grey, rest = _grey(changed), 1 - factor
        origin = grey.mean((1, 2), keepdim=True) * (rest * (kind == 1)) + grey * (rest * (kind == 2))
        changed.mul_(factor).add_(origin).clamp_(0, 255).floor_()
    return changed.to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """Luma (B, H, W, 1) of colour images after ITU-R BT.601, in whole levels; grey images as they are."""
    if images.shape[3] == 1:
        return images
    red, green, blue = images.unbind(3)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).floor_().unsqueeze(3)


def random_cutout(images: Tensor, side: int, generator: Generator, fill: Tensor | int) -> Tensor:
    """Cover a square of `side` pixels in each image with the colour `fill` (C,) uint8.

    Its centre is anywhere in the image with equal probability, so that the square may stick out (DeVries & Taylor
    2017, who cover with the mean colour).
    """
    count, height, width, channels = images.shape
    rows, columns = (_stretches(count, length, side, generator) for length in (height, width))
    image = torch.arange(count, device=images.device)[:, None, None] * height
    covered = ((image + rows[:, :, None]) * width + columns[:, None, :]).flatten()
    colour = torch.as_tensor(fill, dtype=torch.uint8, device=images.device).expand(len(covered), channels)
    changed = images.clone()
    changed.view(-1, channels).index_copy_(0, covered, colour)
    return changed


def _stretches(count: int, length: int, size: int, generator: Generator) -> Tensor:
    """The places (count, size) of `size` pixels around one drawn anew on each of `count` lines of `length`.

    Those beyond an end are replaced by that pixel itself.
    """
    centre = torch.randint(length, (count, 1), generator=generator, device=generator.device)
    place = centre + torch.arange(size, device=generator.device) - size // 2
    return torch.where((place >= 0) & (place < length), place, centre)
