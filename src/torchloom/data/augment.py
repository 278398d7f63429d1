"""Augmentation of whole batches on their device, each image with random numbers of its own.

All functions take and return images (B, H, W, C) uint8, contiguous in that order.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from torchloom.config import AugmentConfig


def augment(images: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    if config.crop_padding:
        images = random_crop(images, config.crop_padding, generator)
    if config.flip:
        images = random_flip(images, generator)
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
