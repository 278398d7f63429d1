"""Preprocessing of labelled images: check, split, measure."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from torchloom.config import Block, PixelsConfig, PreprocessConfig
from torchloom.data.documents import packed_names
from torchloom.data.splits import choose_validation, log_classes, missing_classes
from torchloom.data.targets import Classes
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.system.progress import track

logger = logging.getLogger(__name__)

PART = 100  # images counted at once: numpy counts bytes as 64-bit integers, which are to fit into the cache


@dataclass(frozen=True)
class LabelledImages:
    """`images` (N, H, W, C) uint8 with the channels last, as stored and gathered; `labels` (N,) int64; and where
    it is known what they are called, (N,)."""

    images: np.ndarray
    labels: np.ndarray
    names: np.ndarray | None = None

    def __getitem__(self, chosen: np.ndarray) -> LabelledImages:
        names = None if self.names is None else self.names[chosen]
        return LabelledImages(self.images[chosen], self.labels[chosen], names)

    def tensors(self) -> Tensors:
        names = {} if self.names is None else packed_names([self.names.tolist()])
        return Tensors({"images": self.images, "labels": self.labels, **names})


def join(parts: list[LabelledImages]) -> LabelledImages:
    """The images of several files, one file after the other."""
    return LabelledImages(
        np.concatenate([part.images for part in parts]), np.concatenate([part.labels for part in parts])
    )


def prepare(
    train: LabelledImages, test: LabelledImages, classes: list[str], config: PreprocessConfig
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Split off the validation images and measure what stays for training.

    Returns the tensors of the training, validation and test split (`images` and `labels`, as in LabelledImages) and a
    description: class names, image shape (C, H, W), per-channel mean and standard deviation of the training pixels
    scaled to [0, 1], and how many images of each class each split has.
    """
    for name, part in (("training", train), ("test", test)):
        check_labels(name, part, classes)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise InputError(f"training images are {train.images.shape[1:]} (H, W, C), test images {test.images.shape[1:]}")
    chosen = choose_validation(train.labels, config)
    splits = {"train": train[~chosen], "validation": train[chosen], "test": test}
    height, width, channels = train.images.shape[1:]
    labels = {name: part.labels for name, part in splits.items()}
    log_classes(classes, labels)
    counts = channel_counts(splits["train"].images)
    info = describe_pixels([channels, height, width], counts, config) | describe_classes(classes, labels)
    return splits["train"].tensors(), splits["validation"].tensors(), splits["test"].tensors(), info


def describe_classes(classes: list[str], labels: Mapping[str, np.ndarray], name: str | None = None) -> dict[str, Any]:
    """What is known of the classes of images, see `prepare`; `labels` (N,) are each split's, `name` what a user calls
    them."""
    return {
        "target": Classes(classes=classes, name=name).model_dump(),
        "images": {
            name: dict(zip(classes, np.bincount(part, minlength=len(classes)).tolist(), strict=True))
            for name, part in labels.items()
        },
    }


def describe_pixels(shape: list[int], counts: np.ndarray, config: Block | None = None) -> dict[str, Any]:
    """What is known of the pixels: see `prepare`; `counts` are the training split's.

    Mean and deviation are those that a `config` for images names. InputError where these are for other channels.
    """
    mean, std = channel_statistics(counts)
    _warn_of_few_greys(std)
    known = {"kind": "images", "shape": shape, "mean": mean.tolist(), "std": std.tolist()}
    if not isinstance(config, PixelsConfig):
        return known
    try:
        scale = config.channel_scale(shape[0])
    except ValueError as error:
        raise InputError(f"preprocess.normalize: {error}") from None
    return known | ({**scale.model_dump(), "chosen": True} if scale else {})


def _warn_of_few_greys(std: np.ndarray) -> None:
    """Say so when the pixels of a channel are alike, or nearly: `std` (C,) is that of `channel_statistics`."""
    greys = np.where(std == 1, 0, 255 * std)  # no channel of several values gets as far as 1
    alike = [f"{channel} by {value:.2g}" for channel, value in enumerate(greys, 1) if value < 1]
    if alike:
        logger.warning(
            "the training pixels are nearly alike: in channel %s of 255 greys, in standard deviation. Networks learn "
            "little from that. Of pictures with more than 8 bits a channel, preprocess.value_range says what becomes "
            "black and white",
            ", ".join(alike),
        )


def check_labels(name: str, part: LabelledImages, classes: list[str]) -> None:
    """InputError unless labels and images go together and every class is there, as no other can be learnt or judged."""
    if not len(part.labels):
        raise InputError(f"the {name} data hold no image")
    if len(part.images) != len(part.labels):
        raise InputError(f"the {name} data hold {len(part.images)} images but {len(part.labels)} labels")
    count = len(classes)
    wrong = part.labels[(part.labels < 0) | (part.labels >= count)]
    if len(wrong):
        raise InputError(
            f"the {name} data hold the label {wrong[0]}, but there are only {count} classes (0 to {count - 1})"
        )
    missing = missing_classes(part.labels, classes)
    if missing:
        raise InputError(f"the {name} data hold no image of {missing}; every class needs at least one")


def channel_counts(images: np.ndarray) -> np.ndarray:
    """How often each channel of (N, H, W, C) uint8 `images` has each value, (C, 256) int64."""
    counts = np.zeros((images.shape[-1], 256), dtype=np.int64)
    for start in track(range(0, len(images), PART), "measuring"):
        for channel, count in enumerate(counts):
            count += np.bincount(images[start : start + PART, ..., channel].ravel(), minlength=256)
    return counts


def channel_statistics(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, on the scale [0, 1], from `channel_counts`.

    Exact, in float64. A channel of one value gets the standard deviation 1.
    """
    values = np.arange(256) / 255
    shares = counts / counts.sum(1, keepdims=True)
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))
    return mean, np.where(std > 0, std, 1.0)
