"""Whole batches by index: no per-image Python, images uint8 until they are on the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, repeat
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from torchloom.config import AugmentConfig
from torchloom.data.augment import augment, augment_with_masks
from torchloom.data.mapped import read_ahead, take
from torchloom.errors import InputError


class Batches(Sampler[Tensor]):
    """Index tensors (B,) of each batch, on `device`; shuffled anew in each epoch when a seed is given.

    Shuffled batches are all full, except that data smaller than one batch make one batch. Those in order end with
    the remainder. `subset` is the number of samples, drawn by the seed, that take part at all. `share` (number, count)
    leaves of each batch the part with this number, counted from 0, of so many. With `classes` (N,) of the samples,
    shuffled ones are drawn with replacement, such that each class comes up as often as any other.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        shuffle_seed: int | None = None,
        subset: int | None = None,
        device: torch.device | str = "cpu",
        share: tuple[int, int] = (0, 1),
        classes: Tensor | None = None,
    ) -> None:
        self.batch_size, self.shuffle_seed, self.device, self.share = batch_size, shuffle_seed, device, share
        self.classes = classes
        self.samples = torch.arange(length)
        if shuffle_seed is not None:
            self.samples = drawn_subset(length, subset, shuffle_seed)
        self.epoch = self.first = 0  # first: the batch to begin with

    def __len__(self) -> int:
        length = len(self.samples)
        if self.shuffle_seed is not None and length >= self.batch_size:
            return length // self.batch_size
        return -(-length // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = self.samples
        if self.shuffle_seed is not None:
            order = self.shuffled(seeded(self.shuffle_seed, self.epoch))
        order = order.to(self.device)  # once an epoch: a copy for each batch would wait for the device each time
        number, count = self.share
        for batch in range(self.first, len(self)):
            part = order[batch * self.batch_size + number : (batch + 1) * self.batch_size : count]
            if len(part):
                yield part

    def shuffled(self, generator: torch.Generator) -> Tensor:
        if self.classes is not None:
            return self.samples[drawn_evenly(self.classes[self.samples], generator)]
        return self.samples[torch.randperm(len(self.samples), generator=generator)]


def drawn_evenly(classes: Tensor, generator: torch.Generator) -> Tensor:
    """Places (N,) in `classes` (N,), drawn with replacement: first one of the classes, then one of its samples."""
    _, counts = torch.unique(classes, return_counts=True)
    by_class = classes.argsort(stable=True)
    chosen = torch.randint(len(counts), classes.shape, generator=generator)
    within = (torch.rand(len(classes), dtype=torch.float64, generator=generator) * counts[chosen]).long()
    return by_class[(counts.cumsum(0) - counts)[chosen] + within]


def drawn_subset(length: int, subset: int | None, seed: int) -> Tensor:
    """The numbers of the samples that take part: all, or so many, drawn by the seed."""
    if subset is None or subset >= length:
        return torch.arange(length)
    return torch.randperm(length, generator=seeded(seed + 2, 0))[:subset]


class BucketedBatches(Batches):
    """Shuffled batches of samples of nearly the same length, for little padding.

    The shuffled samples are sorted by length within stretches of 50 batches; then whole batches are shuffled.
    """

    def __init__(
        self,
        lengths: Tensor,
        batch_size: int,
        shuffle_seed: int,
        subset: int | None = None,
        device: torch.device | str = "cpu",
        share: tuple[int, int] = (0, 1),
        classes: Tensor | None = None,
    ) -> None:
        super().__init__(len(lengths), batch_size, shuffle_seed, subset, device, share, classes)
        self.lengths = lengths.cpu()

    def shuffled(self, generator: torch.Generator) -> Tensor:
        order = super().shuffled(generator)
        if len(order) < self.batch_size:
            return order
        order = order[: len(self) * self.batch_size]
        stretches = order.split(50 * self.batch_size)  # type: ignore[no-untyped-call]
        order = torch.cat([part[self.lengths[part].argsort()] for part in stretches])
        return order.reshape(-1, self.batch_size)[torch.randperm(len(self), generator=generator)].flatten()


class Gathered(Dataset[tuple[Tensor, ...]]):
    """`self[indices]` is a batch on `device`: gathered where the data lie, there or on the CPU, and finished on it."""

    streamed = False  # whether StreamedBatches should load it
    indexed_on_host = False  # whether the indices of a batch are needed on the CPU
    most = 5000  # samples of a batch that is not trained on, where its size is not given
    stays: frozenset[int] = frozenset()  # which parts of what is gathered stay on the CPU
    generators: Sequence[torch.Generator] = ()

    def __init__(self, place: torch.device, device: torch.device | str | None) -> None:
        """`place` is where the data lie, and `device` the same unless it is given."""
        self.device = place if device is None else torch.device(device)

    def set_epoch(self, epoch: int) -> None:
        """Start the epoch's own random numbers."""

    def __len__(self) -> int:
        raise NotImplementedError

    def gather(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Where the data lie, a batch as it is there."""
        raise NotImplementedError

    def change_batch(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """On the device, the batch to train on."""
        return parts

    def rows(self, array: Any, indices: Tensor) -> Tensor:
        """The rows (B, …) of an array; when they are streamed, asked for all at once and by this thread alone."""
        if self.streamed:
            read_ahead(array, indices)
            return take(array, indices)
        rows: Tensor = array.index_select(0, indices)  # six times as fast as array[indices]
        return rows

    def stretches(self, array: Any, starts: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) of what lies in an array (N,) from each of `starts` (B,) on; zeros beyond the `lengths` (B,)."""
        if self.streamed:
            read_ahead(array, starts, lengths)
        place = torch.arange(int(lengths.max()))  # (T,)
        inside = place < lengths[:, None]  # (B, T)
        chosen = torch.where(inside, starts[:, None] + place, 0).to(array.device)
        return torch.where(inside.to(array.device), array[chosen], 0)

    def moved(self, parts: tuple[Tensor, ...], move: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        return tuple(part if number in self.stays else move(part) for number, part in enumerate(parts))

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, ...]:
        return self.change_batch(*self.moved(self.gather(indices), lambda part: part.to(self.device)))


class Part(Gathered):
    """Some of the samples of others, by their numbers (N,), as if there were no more."""

    def __init__(self, whole: Gathered, numbers: Tensor) -> None:
        super().__init__(whole.device, None)
        self.whole, self.streamed, self.stays = whole, whole.streamed, whole.stays
        self.indexed_on_host = whole.indexed_on_host
        self.numbers = numbers if whole.streamed or whole.indexed_on_host else numbers.to(whole.device)
        if hasattr(whole, "lengths"):
            self.lengths = whole.lengths[numbers]

    @property
    def generators(self) -> Sequence[torch.Generator]:  # type: ignore[override]
        return self.whole.generators

    def set_epoch(self, epoch: int) -> None:
        self.whole.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.numbers)

    def gather(self, indices: Tensor) -> tuple[Tensor, ...]:
        return self.whole.gather(self.numbers[indices.to(self.numbers.device)])

    def change_batch(self, *parts: Tensor) -> tuple[Tensor, ...]:
        return self.whole.change_batch(*parts)


class ImageBatches(Gathered):
    """`self[indices]` is a batch on `device`: images (B, C, H, W) uint8, channels last, and labels (B,) int64.

    `images` (N, H, W, C) uint8 and `labels` (N,) int64 may lie on that device or on the CPU. Masks (N, H, W) uint8 are
    labels that move with their images.

    MixUp and CutMix make of them images float32, still on the scale [0, 255], and labels (B, classes) float32.
    `mean` (on the scale [0, 1], per channel) is the colour of cutouts, which are black without it. Each `share`
    (number, count) has random changes of its own.
    """

    def __init__(
        self,
        images: Any,
        labels: Tensor,
        change: AugmentConfig | None = None,
        seed: int = 0,
        classes: int | None = None,
        mean: Sequence[float] = (),
        device: torch.device | str | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        super().__init__(labels.device, device)
        self.share = share
        if change is not None and change.mixes and (classes is None or labels.ndim > 1):
            raise InputError("data.augment.mixup and cutmix mix labels of classes, which this task has none of")
        self.images, self.labels, self.change, self.seed, self.classes = images, labels, change, seed, classes
        colour = torch.tensor(mean or [0.0]) * 255
        self.fill = colour.round().to(dtype=torch.uint8, device=self.device)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Start the epoch's own random numbers for augmentation."""
        number, count = self.share
        stream = epoch * count + number
        self.generator = seeded(self.seed + 1, stream, self.device)
        on_host = self.device.type == "cpu"
        self.host_generator = self.generator if on_host else seeded(self.seed + 1, stream)
        self.generators = [self.generator] if on_host else [self.generator, self.host_generator]
        self.mirrored: Tensor | None = None
        if self.change is not None and self.change.flip == "alternating":
            first = torch.rand(len(self.labels), generator=seeded(self.seed + 3, 0)) < 0.5
            self.mirrored = (first ^ bool(epoch % 2)).to(self.labels.device)

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Where the data lie, a batch as it is there: images (B, H, W, C), labels and which images to mirror (B,)."""
        indices = indices.to(self.labels.device)
        batch = self.rows(self.images, indices), self.labels[indices]
        return batch if self.mirrored is None else (*batch, self.mirrored[indices])

    def change_batch(self, *parts: Tensor) -> tuple[Tensor, ...]:
        images, labels, *mirrored = parts
        if self.change is not None:
            generators = (self.generator, self.host_generator)
            if labels.ndim == 3:
                images, labels = augment_with_masks(images, labels, self.change, *generators, self.fill, *mirrored)
            else:
                images = augment(images, self.change, *generators, self.fill, *mirrored)
        images = images.permute(0, 3, 1, 2)
        if self.change is not None and self.change.mixes:
            from torchloom.data.transforms import mix  # torchvision takes a second or two to import

            assert self.classes is not None
            images, labels = mix(images, labels, self.classes, self.change, self.host_generator)
        return images, labels


class StreamedBatches(DataLoader[tuple[Tensor, ...]]):
    """A DataLoader over `Gathered` data that lie on the CPU: the next batches are gathered while this one is used.

    A thread reads them (from memory-mapped files, say); for CUDA into page-locked memory, from where a stream of its
    own copies them to the device while the device computes.
    """

    ahead = 2  # batches

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:  # type: ignore[override]
        dataset: Any = self.dataset
        stream = torch.cuda.Stream(dataset.device) if dataset.device.type == "cuda" else None  # type: ignore[no-untyped-call]
        with ThreadPoolExecutor(1, "batches") as reader:
            coming: deque[Future[tuple[Tensor, ...]]] = deque()
            for indices in chain(self.sampler, repeat(None, self.ahead)):
                if indices is not None:
                    coming.append(reader.submit(_fetch, dataset, indices, stream))
                if coming and (indices is None or len(coming) > self.ahead):
                    parts = coming.popleft().result()
                    if stream is not None:
                        _hand_over(parts, stream)
                    yield dataset.change_batch(*parts)


def _fetch(dataset: Gathered, indices: Tensor, stream: torch.cuda.Stream | None) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = dataset.gather(indices)
    if stream is None:
        return dataset.moved(parts, lambda part: part.to(dataset.device))
    with torch.cuda.stream(stream):
        return dataset.moved(parts, lambda part: part.pin_memory().to(dataset.device, non_blocking=True))


def _hand_over(parts: tuple[Tensor, ...], stream: torch.cuda.Stream) -> None:
    """Let the stream that computes wait for the one that copied, and keep the memory until it has computed."""
    current = torch.cuda.current_stream(stream.device)
    current.wait_stream(stream)
    for part in parts:
        if part.is_cuda:
            part.record_stream(current)


def start_epoch(loader: Any, epoch: int) -> None:
    """Give the loader's order and augmentation the random numbers of this epoch (counted from 0)."""
    loader.sampler.epoch, loader.sampler.first = epoch, 0
    loader.dataset.set_epoch(epoch)


def drawn(loader: Any) -> list[Tensor]:
    """How far the augmentation's generators are, after the batches so far."""
    return [generator.get_state() for generator in getattr(loader.dataset, "generators", ())]


def continue_epoch(loader: Any, first: int, drawn: Sequence[Tensor]) -> None:
    """After `start_epoch`: begin with the batch `first`, counted from 0, as if those before it had been drawn."""
    loader.sampler.first = first
    for generator, state in zip(getattr(loader.dataset, "generators", ()), drawn, strict=True):
        generator.set_state(state)


def seeded(seed: int, epoch: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for this seed and epoch, unrelated to those of other seeds and epochs."""
    state = torch.Generator().manual_seed(seed)
    jump = torch.randint(2**62, (epoch + 1,), generator=state)[-1]
    return torch.Generator(device).manual_seed(int(jump))
