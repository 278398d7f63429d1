"""Whole batches by index: no per-image Python, images uint8 until they are on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from torchloom.config import AugmentConfig
from torchloom.data.augment import augment


def join(files: Sequence[dict[str, Tensor]], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """The images (N, H, W, C) and labels (N,) of several files on `device`; one file on the CPU stays memory-mapped."""
    if not files:
        return torch.empty((0, 1, 1, 1), dtype=torch.uint8, device=device), torch.empty(
            0, dtype=torch.int64, device=device
        )
    images = [file["images"] for file in files]
    labels = [file["labels"] for file in files]
    if len(files) == 1:
        return images[0].to(device), labels[0].to(device)
    return torch.cat(images).to(device), torch.cat(labels).to(device)


class Batches(Sampler[Tensor]):
    """Index tensors (B,) of each batch; shuffled anew in each epoch when a seed is given.

    Shuffled batches are all full, except that data smaller than one batch make one batch. Those in order end with
    the remainder.
    """

    def __init__(self, length: int, batch_size: int, shuffle_seed: int | None = None) -> None:
        self.length, self.batch_size, self.shuffle_seed = length, batch_size, shuffle_seed
        self.epoch = 0

    def __len__(self) -> int:
        if self.shuffle_seed is not None and self.length >= self.batch_size:
            return self.length // self.batch_size
        return -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.arange(self.length)
        if self.shuffle_seed is not None:
            order = torch.randperm(self.length, generator=seeded(self.shuffle_seed, self.epoch))
        for batch in range(len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size]


class ImageBatches(Dataset[tuple[Tensor, Tensor]]):
    """`self[indices]` is a batch: images (B, C, H, W) uint8, channels last in memory, and labels (B,) int64."""

    def __init__(self, images: Tensor, labels: Tensor, change: AugmentConfig | None = None, seed: int = 0) -> None:
        self.images, self.labels, self.change, self.seed = images, labels, change, seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Start the epoch's own random numbers for augmentation."""
        self.generator = seeded(self.seed + 1, epoch, self.images.device)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        indices = indices.to(self.images.device)
        images = self.images[indices]
        if self.change is not None:
            images = augment(images, self.change, self.generator)
        return images.permute(0, 3, 1, 2), self.labels[indices]


def start_epoch(loader: Any, epoch: int) -> None:
    """Give the loader's order and augmentation the random numbers of this epoch (counted from 0)."""
    loader.sampler.epoch = epoch
    loader.dataset.set_epoch(epoch)


def seeded(seed: int, epoch: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for this seed and epoch, unrelated to those of other seeds and epochs."""
    state = torch.Generator().manual_seed(seed)
    jump = torch.randint(2**62, (epoch + 1,), generator=state)[-1]
    return torch.Generator(device).manual_seed(int(jump))
