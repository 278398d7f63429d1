"""A user's own pictures: a folder with a subfolder for each class, with or without folders for the splits.

The decoded pixels are kept in one memory-mapped file for each split (`cache`), or the pictures stay where they are and
are decoded for each batch. One function decodes for both, and for `predict`: a model sees the same pixels everywhere.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np

from torchloom.config import FolderPreprocessConfig
from torchloom.data.boxes import check_no_boxes
from torchloom.data.class_folders import check_none_empty, class_roots, place_pictures
from torchloom.data.decoding import Part, decode
from torchloom.data.images import describe_classes
from torchloom.data.mask_folders import has_pairs
from torchloom.data.picture_formats import SUFFIXES
from torchloom.data.readers import Proposal
from torchloom.data.splits import choose_validation, log_classes, missing_classes, stratified_choice
from torchloom.data.tables import SUFFIXES as TABLES
from torchloom.datasets.listing import Listing, first_of, scan
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError, printable
from torchloom.system.words import counted

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
CLASS = "class"  # what folders say of the pictures in them


# ---- what there is -------------------------------------------------------------------------------------------------


def takes(path: Path, target: str | None) -> bool:  # noqa: ARG001  (pictures have none)
    """Whether it is a folder of pictures that no table beside them and no masks say anything of."""
    if not path.is_dir() or has_pairs(path):
        return False
    beside = any(file.suffix.lower() in TABLES for file in path.iterdir())  # a table may say what those on top are
    return any(file.suffix.lower() in SUFFIXES for file in path.glob("*/**/*" if beside else "**/*"))


def propose(path: Path, target: str | None) -> Proposal:
    """A task that tells the classes apart which the folders are. InputError where they are none."""
    if target:
        raise InputError(f"--target {target}: of pictures in folders the classes are the folders; leave it out")
    config = FolderPreprocessConfig(folder=str(path))
    listing = find(config)
    classes, parts = split_pictures(listing, config)
    counts = {split: counted(len(part), "picture") for split, part in parts.items()}
    labels = np.concatenate([part.arrays["labels"] for part in parts.values()])
    each = np.bincount(labels, minlength=len(classes)).tolist()
    seen = [", ".join(f"{split}: {count}" for split, count in counts.items()), f"{len(classes)} classes:"]
    seen += [f"  {name}: {count}" for name, count in zip(classes, each, strict=True)]
    preprocess = {"reader": "folder", "folder": str(path), "size": [64, 64]}
    return Proposal(preprocess, "classification", recipe(len(labels)), seen)


def recipe(count: int) -> dict[str, Any]:
    """A training on so many pictures of 64 x 64 pixels."""
    train = {
        "epochs": 20,
        "batch_size": 128 if count >= 5000 else 16,
        "optimizer": {"name": "AdamW", "lr": 0.002},
        "scheduler": {"name": "CosineAnnealingLR"},
    }
    augment = {"augment": {"crop_padding": 8, "flip": True}}
    return {"data": augment, "model": {"name": "resnet", "width": 16}, "train": train, "evaluate": {}, "export": {}}


# ---- which pictures there are --------------------------------------------------------------------------------------


def check_class_folders(listing: Listing, config: FolderPreprocessConfig) -> None:
    """InputError unless each picture lies in a class folder, see `class_roots`, and each of those has a picture."""
    if listing.single:
        raise InputError(f"{next(listing.paths)}: is a file, not a folder with class subfolders")
    odd = [name for name in listing.names if name.encode(errors="ignore").decode() != name]
    if odd:
        raise InputError(f"{listing.folder}: names that are not in UTF-8: {first_of(odd)}. Rename them")
    roots = class_roots(listing, config.splits)
    placed = place_pictures(listing.names, roots)
    if len(roots) == 1 and not any(placed):
        raise InputError(f"{listing.folder}: has no subfolders with pictures. Make one for each class, by its name")
    given = config.splits is not None and config.splits.train is not None
    strays = [name for name, place in zip(listing.names, placed, strict=True) if not place]
    if strays and given:
        logger.info("%s: %d pictures outside of preprocess.splits are left out", listing.folder, len(strays))
    elif strays:
        raise InputError(_in_no_class(listing.folder, strays, roots))
    check_none_empty(listing, roots, placed, given, "picture")


def _has_classes(listing: Listing, config: FolderPreprocessConfig) -> bool:
    """Whether each picture clearly lies in one of several class folders."""
    try:
        placed = place_pictures(listing.names, class_roots(listing, config.splits))
    except InputError:
        return False
    return all(placed) and len({place[1] for place in placed if place}) > 1


def _in_no_class(folder: str, strays: list[str], roots: Mapping[str, str]) -> str:
    kind = f"class folder inside {' or '.join(roots)}" if min(roots) else "class folder"
    return (
        f"{folder}: in no {kind}: {first_of(strays)}. Move them there, or out of this folder; or say which folders to "
        "use, preprocess.splits: {train: …, test: …}, or {} when every folder is a class"
    )


def split_pictures(listing: Listing, config: FolderPreprocessConfig) -> tuple[list[str], dict[str, Part]]:
    """The class names, sorted, and the training, validation and test split.

    What has no folder is cut from the training data, the test split first. One name is one class, whichever of
    Unicode's ways a system writes its accents in. Raises InputError when there are not two classes, or one that cannot
    be learnt or judged.
    """
    roots = class_roots(listing, config.splits)
    placed = place_pictures(listing.names, roots)
    places = np.array([place for place, found in enumerate(placed) if found], dtype=np.int64)
    found = [(roots[root], normalize("NFC", folder)) for root, folder in filter(None, placed)]
    classes = sorted({name for _, name in found})
    if len(classes) < 2:
        raise InputError(f"{listing.folder}: has one class only, {classes[0]!r}; to classify takes two folders or more")
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[name] for _, name in found], dtype=np.int64)
    split_of = np.array([split for split, _ in found])
    everything = Part(places, {"labels": labels})
    parts = {name: everything[split_of == name] for name in SPLITS}
    _check(listing, parts["train"].arrays["labels"], classes, "train")
    if not len(parts["test"]):
        chosen = stratified_choice(parts["train"].arrays["labels"], config.test_fraction, config.seed, least=1)
        parts |= {"train": parts["train"][~chosen], "test": parts["train"][chosen]}
    if not len(parts["validation"]):
        chosen = choose_validation(parts["train"].arrays["labels"], config)
        parts |= {"train": parts["train"][~chosen], "validation": parts["train"][chosen]}
    _check(listing, parts["test"].arrays["labels"], classes, "test")
    return classes, parts


def _check(listing: Listing, labels: np.ndarray, classes: list[str], split: str) -> None:
    """InputError unless every class is among the (N,) labels of the split."""
    missing = missing_classes(labels, classes)
    if missing:
        without = "; without such a folder it takes two pictures, and preprocess.test_fraction above 0"
        advice = "" if split == "train" else without
        raise InputError(
            f"{listing.folder}: the {split} data hold no picture of {missing}{_alike(missing, classes)}; every class "
            f"needs at least one. Put some into a folder {split}{advice}"
        )


def _alike(missing: str, classes: list[str]) -> str:
    """Which of the classes that have no picture may be meant by another name, which differs in case or spaces only."""
    groups = defaultdict(list)
    for name in classes:
        groups["".join(name.split()).casefold()].append(repr(name))
    doubtful = [names for names in groups.values() if len(names) > 1 and any(name in missing for name in names)]
    return "".join(f" ({' and '.join(names)} are two classes)" for names in doubtful)


# ---- preprocessing ---------------------------------------------------------------------------------------------------


def find(config: FolderPreprocessConfig) -> Listing:
    """List the pictures of a folder that has a subfolder for each class."""
    listing = scan(Path(config.folder), "preprocess.folder", SUFFIXES)
    listing.say_links()
    check_no_boxes(listing, by_content=not _has_classes(listing, config))
    check_class_folders(listing, config)
    found, others = counted(len(listing.names), "picture"), counted(sum(listing.others.values()), "other file")
    kinds = ", ".join(f"{count} {suffix or 'without an ending'}" for suffix, count in listing.others.items())
    said = f": {printable(kinds)}" if kinds else ""
    logger.info("%s: %s; %s ignored%s", listing.folder, found, others, said)
    return listing


def preprocess(
    listing: Listing, config: FolderPreprocessConfig, scratch: Path
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Decode every picture once: to keep its pixels, to measure them, and to know that it can be read.

    Returns the tensors of the training, validation and test split and what is known about them, as `images.prepare`
    does; where the pixels are not kept, the tensors are what `ImageFiles` takes. Raises InputError for what is wrong
    with the folder or with a picture.
    """
    classes, parts = split_pictures(listing, config)
    log_classes(classes, {name: part.arrays["labels"] for name, part in parts.items()})
    splits, known = decode(listing, config, parts, scratch)
    labels = {name: np.asarray(tensors.arrays["labels"]) for name, tensors in splits.items()}
    for name in ("train", "test"):
        _check(listing, labels[name], classes, name)
    info = known | describe_classes(classes, labels, CLASS)
    info["target"]["folders"] = True
    return splits["train"], splits["validation"], splits["test"], info
