"""A user's own pictures in arrays of NumPy, with a class for each: x_train, y_train, x_test, y_test and their kin."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import ArraysPreprocessConfig
from torchloom.data.arrays import (
    ENDINGS,
    are_pictures,
    is_stack,
    labels_beside,
    of_numpy,
    read_all,
    read_placed,
    shown,
    stacked,
)
from torchloom.data.columns import written
from torchloom.data.images import LabelledImages, channel_counts, check_labels, describe_classes, describe_pixels
from torchloom.data.readers import Proposal
from torchloom.data.readers.folder import recipe
from torchloom.data.splits import choose_validation, log_classes, stratified_choice
from torchloom.datasets.listing import Listing, scan
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError, telling
from torchloom.system.words import listed

logger = logging.getLogger(__name__)

Arrays = Mapping[str, Mapping[str, np.ndarray]]  # by split, and by what the rest of the name says


def find(config: ArraysPreprocessConfig) -> Listing:
    """List the file, or those of NumPy in the folder."""
    listing = scan(Path(config.files), "preprocess.files", ENDINGS)
    listing.say_links()
    return listing


def preprocess(
    listing: Listing,
    config: ArraysPreprocessConfig,
    scratch: Path,  # noqa: ARG001  (arrays need none)
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Arrays -> training, validation and test tensors and what is known about them, as `images.prepare` has them.

    Raises InputError for what is wrong with a file or an array.
    """
    arrays, places = read_placed(listing)
    pictures, labels = _names(arrays, config)
    classes, found = _labelled(arrays, pictures, labels, config)
    found = {split: _called(part, places[id(arrays[split][pictures])]) for split, part in found.items()}
    splits = _split(found, config)
    shapes = {name: part.images.shape[1:] for name, part in splits.items()}
    for name in ("train", "test"):
        check_labels(name, splits[name], classes)
    if len(set(shapes.values())) > 1:
        raise InputError(f"{config.files}: pictures (H, W, C) of several shapes: {shapes}. Make them alike")
    told = {name: part.labels for name, part in splits.items()}
    log_classes(classes, told)
    height, width, channels = shapes["train"]
    info = describe_pixels([channels, height, width], channel_counts(splits["train"].images), config)
    info |= describe_classes(classes, told, labels)
    return splits["train"].tensors(), splits["validation"].tensors(), splits["test"].tensors(), info


def _names(arrays: Arrays, config: ArraysPreprocessConfig) -> tuple[str, str]:
    """What the arrays of pictures and those of labels are called."""
    train = arrays.get("train")
    if not train:
        raise InputError(f"{config.files}: has no arrays to train on, only to {listed(list(arrays)) or 'nothing'}")
    stacks = [name for name, array in train.items() if is_stack(array)]
    pictures = _one(config.pictures, stacks, "pictures", "of pictures, (N, H, W) or (N, H, W, C),", train, config)
    beside = [name for name in labels_beside(train, len(train[pictures])) if name != pictures]
    return pictures, _one(config.target, beside, "target", "with a class for each picture", train, config)


def _one(
    given: str | None,
    found: list[str],
    key: str,
    what: str,
    train: Mapping[str, np.ndarray],
    config: ArraysPreprocessConfig,
) -> str:
    there = shown(train)
    if given:
        if given not in found:
            raise InputError(f"preprocess.{key} {given}: is no array {what} in {config.files}; there are {there}")
        return given
    if len(found) != 1:
        wrong = "more than one array" if found else "no array"
        raise InputError(f"{config.files}: has {wrong} {what} to train on. Say which is, preprocess.{key}: {there}")
    return found[0]


def _labelled(
    arrays: Arrays, pictures: str, labels: str, config: ArraysPreprocessConfig
) -> tuple[list[str], dict[str, LabelledImages]]:
    """The classes, those that are numbers by number, and the pictures of each split with theirs."""
    known = {split: part for split, part in arrays.items() if pictures in part}
    told: dict[str, np.ndarray] = {}
    for split, part in known.items():
        beside = labels_beside(part, len(part[pictures]))
        if labels not in beside:
            raise InputError(f"{config.files}: the {split} pictures have no {labels} with a class for each")
        if beside[labels].dtype.kind not in "biuUS":
            raise InputError(
                f"{config.files}: {labels} holds {beside[labels].dtype}, and no classes: whole numbers, or words"
            )
        told[split] = np.char.decode(beside[labels], "utf-8") if beside[labels].dtype.kind == "S" else beside[labels]
    names = {value: written(value) for part in told.values() for value in np.unique(part).tolist()}
    classes = [names[value] for value in sorted(names)]
    numbers = {value: classes.index(name) for value, name in names.items()}
    with telling(config.files):
        found = {split: stacked(pictures, part[pictures]) for split, part in known.items()}
    return classes, {
        split: LabelledImages(found[split], np.array([numbers[value] for value in part.tolist()], dtype=np.int64))
        for split, part in told.items()
    }


def _called(part: LabelledImages, place: tuple[str, str]) -> LabelledImages:
    """With what each picture is called, the entry of an array in a file."""
    names = [":".join([*place, str(number)]) for number in range(len(part.labels))]
    return replace(part, names=np.array(names))


def _split(found: Mapping[str, LabelledImages], config: ArraysPreprocessConfig) -> dict[str, LabelledImages]:
    """All three splits; what has no arrays is cut from the training data."""
    train, test, validation = found["train"], found.get("test"), found.get("validation")
    if test is None:
        chosen = stratified_choice(train.labels, config.test_fraction, config.seed, least=1)
        train, test = train[~chosen], train[chosen]
    if validation is None:
        chosen = choose_validation(train.labels, config)
        train, validation = train[~chosen], train[chosen]
    return {"train": train, "validation": validation, "test": test}


# ---- what there is -------------------------------------------------------------------------------------------------


def takes(path: Path, target: str | None) -> bool:  # noqa: ARG001  (an array is asked for later)
    """Whether it is a file of NumPy with pictures, or a folder of such files and no others."""
    if not of_numpy(path):
        return False
    return any(
        are_pictures(each) for part in read_all(scan(path, "--data", ENDINGS)).values() for each in part.values()
    )


def propose(path: Path, target: str | None) -> Proposal:
    """A task that tells the classes apart."""
    config = ArraysPreprocessConfig(files=str(path), target=target)
    arrays = read_all(scan(path, "--data", ENDINGS))
    pictures, labels = _names(arrays, config)
    otherwise = "f series, (N, steps, channels), say --reader labelled_series"
    flat = arrays["train"][pictures].ndim == 3
    try:
        classes, found = _labelled(arrays, pictures, labels, config)
    except InputError as error:
        raise InputError(f"{error.message}. O{otherwise}") if flat else error from None
    each = np.bincount(np.concatenate([part.labels for part in found.values()]), minlength=len(classes))
    shape = " x ".join(map(str, found["train"].images.shape[1:]))
    seen = [
        ", ".join(f"{split}: {len(part.labels):,} pictures of {shape}" for split, part in found.items()),
        *([f"{pictures}: taken for pictures; o{otherwise}"] if flat else []),
        f"{labels}: one of {len(classes)} classes:",
        *(f"  {name}: {count:,}" for name, count in zip(classes, each.tolist(), strict=True)),
    ]
    own = {"target": target} if target else {}
    blocks = {**recipe(sum(len(part.labels) for part in found.values())), "data": {}}
    return Proposal({"reader": "arrays", "files": str(path), **own}, "classification", blocks, seen)
