"""Whole batches by index: no per-image Python, images uint8 until they are on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from torchloom.config import AugmentConfig
from torchloom.data.augment import augment
from torchloom.errors import InputError


def join(files: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The arrays of several files strung together; those of one file stay memory-mapped."""
    if len(files) == 1:
        return files[0]
    parts = {name: [file[name] for file in files] for name in files[0]}
    return {name: _join_starts(part) if name.endswith("starts") else torch.cat(part) for name, part in parts.items()}


def _join_starts(parts: list[Tensor]) -> Tensor:
    """Where each document starts, (N + 1,) with the end of the last, when the documents of several files follow."""
    joined = parts[0]
    for starts in parts[1:]:
        joined = torch.cat([joined, starts[1:] + joined[-1]])
    return joined


class Batches(Sampler[Tensor]):
    """Index tensors (B,) of each batch; shuffled anew in each epoch when a seed is given.

    Shuffled batches are all full, except that data smaller than one batch make one batch. Those in order end with
    the remainder. `subset` is the number of samples, drawn by the seed, that take part at all.
    """

    def __init__(
        self, length: int, batch_size: int, shuffle_seed: int | None = None, subset: int | None = None
    ) -> None:
        self.batch_size, self.shuffle_seed = batch_size, shuffle_seed
        self.samples = torch.arange(length)
        if shuffle_seed is not None and subset is not None and subset < length:
            self.samples = torch.randperm(length, generator=seeded(shuffle_seed + 2, 0))[:subset]
        self.epoch = 0

    def __len__(self) -> int:
        length = len(self.samples)
        if self.shuffle_seed is not None and length >= self.batch_size:
            return length // self.batch_size
        return -(-length // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = self.samples
        if self.shuffle_seed is not None:
            order = self.shuffled(seeded(self.shuffle_seed, self.epoch))
        for batch in range(len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def shuffled(self, generator: torch.Generator) -> Tensor:
        return self.samples[torch.randperm(len(self.samples), generator=generator)]


class BucketedBatches(Batches):
    """Shuffled batches of samples of nearly the same length, for little padding.

    The shuffled samples are sorted by length within stretches of 50 batches; then whole batches are shuffled.
    """

    def __init__(self, lengths: Tensor, batch_size: int, shuffle_seed: int, subset: int | None = None) -> None:
        super().__init__(len(lengths), batch_size, shuffle_seed, subset)
        self.lengths = lengths

    def shuffled(self, generator: torch.Generator) -> Tensor:
        order = super().shuffled(generator)
        if len(order) < self.batch_size:
            return order
        order = order[: len(self) * self.batch_size]
        stretches = order.split(50 * self.batch_size)  # type: ignore[no-untyped-call]
        order = torch.cat([part[self.lengths[part].argsort()] for part in stretches])
        return order.reshape(-1, self.batch_size)[torch.randperm(len(self), generator=generator)].flatten()


class ImageBatches(Dataset[tuple[Tensor, Tensor]]):
    """`self[indices]` is a batch: images (B, C, H, W) uint8, channels last in memory, and labels (B,) int64.

    MixUp and CutMix make of them images float32, still on the scale [0, 255], and labels (B, classes) float32.
    `mean` (on the scale [0, 1], per channel) is the colour of cutouts, which are black without it.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        change: AugmentConfig | None = None,
        seed: int = 0,
        classes: int | None = None,
        mean: Sequence[float] = (),
    ) -> None:
        if change is not None and change.mixes and classes is None:
            raise InputError("data.augment.mixup and cutmix mix labels of classes, which this task has none of")
        self.images, self.labels, self.change, self.seed, self.classes = images, labels, change, seed, classes
        colour = torch.tensor(mean or [0.0]) * 255
        self.fill = colour.round().to(dtype=torch.uint8, device=images.device)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Start the epoch's own random numbers for augmentation."""
        self.generator = seeded(self.seed + 1, epoch, self.images.device)
        on_host = self.images.device.type == "cpu"
        self.host_generator = self.generator if on_host else seeded(self.seed + 1, epoch)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        indices = indices.to(self.images.device)
        images, labels = self.images[indices], self.labels[indices]
        if self.change is not None:
            images = augment(images, self.change, self.generator, self.host_generator, self.fill)
        images = images.permute(0, 3, 1, 2)
        if self.change is not None and self.change.mixes:
            from torchloom.data.transforms import mix  # torchvision takes a second or two to import

            assert self.classes is not None
            images, labels = mix(images, labels, self.classes, self.change, self.host_generator)
        return images, labels


def start_epoch(loader: Any, epoch: int) -> None:
    """Give the loader's order and augmentation the random numbers of this epoch (counted from 0)."""
    loader.sampler.epoch = epoch
    loader.dataset.set_epoch(epoch)


def seeded(seed: int, epoch: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for this seed and epoch, unrelated to those of other seeds and epochs."""
    state = torch.Generator().manual_seed(seed)
    jump = torch.randint(2**62, (epoch + 1,), generator=state)[-1]
    return torch.Generator(device).manual_seed(int(jump))
