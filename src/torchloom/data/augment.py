"""Augmentation of whole batches on their device, each image with random numbers of its own.

All functions take and return images (B, H, W, C) uint8, contiguous in that order. What torchvision has for whole
batches, policies and the mixing of images, is in transforms.py.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from torchloom.config import AffineConfig, AugmentConfig, ColorConfig


def augment(
    images: Tensor,
    config: AugmentConfig,
    generator: Generator,
    host_generator: Generator | None = None,
    fill: Tensor | int = 0,
) -> Tensor:
    """Change each image at random, as configured.

    `generator` is on the images' device. Policies draw on the CPU: with `generator` on another device, a
    `host_generator` on the CPU spares a wait for that device. `fill` (C,) uint8 is the colour of cutouts.
    """
    if config.crop_padding:
        images = random_crop(images, config.crop_padding, generator)
    if config.affine:
        images = random_affine(images, config.affine, generator)
    if config.flip:
        images = random_flip(images, generator)
    if config.policy:
        from torchloom.data.transforms import apply_policy  # torchvision takes a second or two to import

        images = apply_policy(images, config.policy, generator, host_generator or generator)
    if config.color:
        images = random_color(images, config.color, generator)
    if config.cutout:
        images = random_cutout(images, config.cutout, generator, fill)
    return images


def random_crop(images: Tensor, padding: int, generator: Generator) -> Tensor:
    """Surround each image with `padding` black pixels and cut it out again at a random place.

    The same distribution as torchvision's RandomCrop(size, padding). A window's rows are contiguous in memory, so one
    gather of rows does the whole batch.
    """
    count, height, width, channels = images.shape
    padded = F.pad(images, (0, 0, padding, padding, padding, padding))
    row = padded.stride(1)
    windows = padded.as_strided(  # [image, row, shift to the right, the row's bytes]
        (count, height + 2 * padding, 2 * padding + 1, width * channels), (padded.stride(0), row, channels, 1)
    )
    shift = torch.randint(2 * padding + 1, (2, count), generator=generator, device=images.device)
    rows = shift[0][:, None] + torch.arange(height, device=images.device)
    image = torch.arange(count, device=images.device)[:, None]
    return windows[image, rows, shift[1][:, None]].reshape(count, height, width, channels)


def random_flip(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each image left and right with probability 1/2."""
    mirrored = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(2), images)


def random_affine(images: Tensor, config: AffineConfig, generator: Generator) -> Tensor:
    """Turn, move, scale and shear each image at random: the distribution of torchvision's RandomAffine."""
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
    )


def affine(images: Tensor, angle: Tensor, across: Tensor, down: Tensor, scale: Tensor, shear: Tensor) -> Tensor:
    """Each image sheared, scaled, turned about its centre and then moved, bilinearly resampled, with black around it.

    All (B,): `angle` in degrees clockwise, `across` and `down` in pixels, `shear` in degrees along the rows.
    """
    _, height, width, _ = images.shape
    tangent, sine, cosine = shear.deg2rad().tan(), angle.deg2rad().sin(), angle.deg2rad().cos()
    # For each pixel of the result its place in the image, in pixels from the centre: moved, turned, … back again.
    column = (torch.arange(width, device=images.device) - (width - 1) / 2 - across[:, None]) / scale[:, None]
    row = (torch.arange(height, device=images.device) - (height - 1) / 2 - down[:, None]) / scale[:, None]
    grid = column.new_empty((*images.shape[:3], 2))  # x and y on a scale where the image reaches from -1 to 1
    grid[..., 0] = _plane(column * 2 / width, cosine - tangent * sine, row * 2 / width, sine + tangent * cosine)
    grid[..., 1] = _plane(column * 2 / height, -sine, row * 2 / height, cosine)
    moved = F.grid_sample(images.permute(0, 3, 1, 2).float(), grid, padding_mode="zeros", align_corners=False)
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


def random_cutout(images: Tensor, side: int, generator: Generator, fill: Tensor | int = 0) -> Tensor:
    """Cover a square of `side` pixels in each image with the colour `fill` (C,) uint8.

    Its centre is anywhere in the image with equal probability, so that the square may stick out (DeVries & Taylor
    2017, who cover with the mean colour).
    """
    rows, columns = (_stretches(len(images), length, side, generator) for length in images.shape[1:3])
    covered = rows[:, :, None, None] & columns[:, None, :, None]
    return torch.where(covered, fill, images)


def _stretches(count: int, length: int, size: int, generator: Generator) -> Tensor:
    """`size` pixels of a line of `length`, around one drawn anew for each of `count` lines: (count, length) bool."""
    centre = torch.randint(length, (count, 1), generator=generator, device=generator.device)
    offset = torch.arange(length, device=generator.device) - centre + size // 2
    return (offset >= 0) & (offset < size)
