"""A user's own pictures that a table names, with a class, a number or a mask for each; or a folder of pictures and one
of their masks.

Pictures in a folder for each class are those of the reader folder.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import PicturesPreprocessConfig
from torchloom.data.decoding import Part, decode
from torchloom.data.images import describe_classes
from torchloom.data.mask_files import learn, read_mask
from torchloom.data.mask_folders import MASK, PICTURE, has_pairs, pairs, two_folders
from torchloom.data.masks import Coding, upright_size
from torchloom.data.paths import LOOKED_AT, Placed, path_column, places, say_twice
from torchloom.data.picture_formats import SUFFIXES
from torchloom.data.readers import Proposal
from torchloom.data.readers.folder import recipe
from torchloom.data.row_splits import groups_of, split_rows
from torchloom.data.row_targets import asked_here, asked_of, check_target
from torchloom.data.rows import Row, first_rows, is_table, read_entry, read_files, writing_of
from torchloom.data.splits import missing_classes
from torchloom.data.tables import SUFFIXES as TABLES
from torchloom.data.targets import Classes, MaskCoding, Target
from torchloom.datasets.listing import Listing, first_of, scan
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.system.words import counted, listed, meant

logger = logging.getLogger(__name__)


# ---- which pictures there are --------------------------------------------------------------------------------------


def find(config: PicturesPreprocessConfig) -> Listing:
    """List the pictures in the folder where the paths begin, and the table that names them, if there is one."""
    assert config.files
    files = Path(config.files).expanduser()
    tables = _has_tables(files)
    folder = Path(config.folder or (files.parent if tables and files.is_file() else files))
    listing = scan(folder, "preprocess.folder" if config.folder else "preprocess.files", SUFFIXES)
    listing.say_links()
    return replace(listing, lists=[str(files.resolve())]) if tables else listing


def _has_tables(path: Path) -> bool:
    if path.is_dir() and has_pairs(path):  # beside which a table may name the classes
        return False
    return is_table(path) or (path.is_dir() and any(file.suffix.lower() in TABLES for file in path.iterdir()))


def preprocess(
    listing: Listing, config: PicturesPreprocessConfig, scratch: Path
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Pictures -> training, validation and test tensors and what is known about them.

    Each of the tensors holds images, see `decoding.decode`, with `labels` (N,) int64, `target` (N,) float32 or `masks`
    (N, H, W) uint8. Raises InputError for what is wrong with the table or a picture.
    """
    if listing.lists:
        return _prepare(
            read_files(scan(Path(listing.lists[0]), "preprocess.files", TABLES), writing_of(config)),
            listing,
            config,
            scratch,
        )
    if config.targets:
        raise InputError(f"preprocess.target {listed(config.targets)}: {config.files} holds no table with that")
    names = two_folders(listing, config)
    *splits, info = _prepare(pairs(listing, *names), listing, _of_folders(config), scratch)
    train, validation, test = splits
    return train, validation, test, info | {"beside": names}


def preprocess_entry(
    table: Any, config: PicturesPreprocessConfig, scratch: Path
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """The same of a table that the catalog holds."""
    if not config.folder:
        raise InputError(f"preprocess.entry {config.entry}: say where its paths begin, preprocess.folder")
    listing = scan(Path(config.folder), "preprocess.folder", SUFFIXES)
    return _prepare(read_entry(table, config), listing, config, scratch)


# ---- what is in the table ------------------------------------------------------------------------------------------


def _prepare(
    read: dict[str, list[Row]], listing: Listing, config: PicturesPreprocessConfig, scratch: Path
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    place = places(listing)
    everything = [row for part in read.values() for row in part]
    config = _columns(everything, place, config)
    assert config.picture
    rows = {split: _with_pictures(split, part, place, config, listing) for split, part in read.items()}
    asked = asked_of(rows, config) if config.targets else None
    if asked:
        rows = {name: asked.known(name, part) for name, part in rows.items()}
    split = split_rows(rows, config, asked.held if asked else _nothing)
    say_twice(split, config.picture, place, "picture")
    target, learnt = asked.targets(split) if asked else (None, {})
    parts = {name: _part(part, place, config) for name, part in split.items()}
    groups = groups_of(split, config)
    told = {name: {target.array: learnt[name]} if target else {} for name in parts}
    parts = {name: replace(part, arrays=told[name] | groups[name]) for name, part in parts.items()}
    coding = _coding(listing, config, parts["train"])
    reading = partial(read_mask, listing, config, coding) if coding else None
    splits, known = decode(listing, config, parts, scratch, reading)
    _check_read(listing, splits, target)
    of_table = {"column": config.picture, "writing": writing_of(config).model_dump()}
    own = of_table if listing.lists or config.entry else {"column": None}
    info = known | own | {"folder": config.folder}
    info |= _described(coding, target, splits, config.mask)
    return splits["train"], splits["validation"], splits["test"], info


def _check_read(listing: Listing, splits: Mapping[str, Tensors], target: Target | None) -> None:
    """InputError unless of what could be read there is something to test, and to train of each class."""
    if not len(splits["test"].arrays.get("images", splits["test"].arrays.get("stamps", ()))):
        raise InputError(f"{listing.folder}: no test picture can be read")
    if isinstance(target, Classes):
        labels = np.asarray(splits["train"].arrays[target.array])
        if missing := missing_classes(labels, target.classes):
            raise InputError(f"{listing.folder}: no training picture of {missing} can be read")


def _nothing(row: Row) -> list[str]:  # noqa: ARG001
    return []


def _part(rows: Sequence[Row], place: Placed, config: PicturesPreprocessConfig) -> Part:
    pictures, masks = (
        np.array([place(row[column]) for row in rows], dtype=np.int64) if column else None
        for column in (config.picture, config.mask)
    )
    assert pictures is not None
    return Part(pictures, {}, masks)


def _coding(listing: Listing, config: PicturesPreprocessConfig, train: Part) -> Coding | None:
    return None if train.masks is None else learn(listing, config, train.masks.tolist())


def _of_folders(config: PicturesPreprocessConfig) -> PicturesPreprocessConfig:
    return config.model_copy(update={"picture": PICTURE, "mask": MASK})


def _described(
    coding: Coding | None, target: Target | None, splits: Mapping[str, Tensors], mask: str | None
) -> dict[str, Any]:
    if isinstance(target, Classes):
        labels = {name: np.asarray(tensors.arrays["labels"]) for name, tensors in splits.items()}
        return {**describe_classes(target.classes, labels), "target": target.model_dump()}
    if coding:
        read = MaskCoding(numbers=dict(coding.numbers), nearest=coding.nearest, palette=dict(coding.palette))
        target = Classes(array="masks", classes=list(coding.classes), values=coding.greys, name=mask, coding=read)
    assert target
    counts = {name: len(tensors.arrays[target.array]) for name, tensors in splits.items()}
    return {"target": target.model_dump(), "images": counts}


def _columns(rows: Sequence[Row], place: Placed, config: PicturesPreprocessConfig) -> PicturesPreprocessConfig:
    """With the names of the columns of pictures and masks. InputError when they, or the target, are not there."""
    names = list(rows[0])
    for key in ("picture", "mask"):
        if (name := getattr(config, key)) and name not in names:
            raise InputError(
                f"preprocess.{key} {name}: there is no such column{meant(name, names)}; there are {listed(names)}"
            )
    picture = config.picture or path_column(rows, place, [config.mask, *config.targets])
    if not picture:
        raise InputError(
            f"{config.place}: no column names pictures that are there. Name the one that does, preprocess.picture, and "
            f"where its paths begin, preprocess.folder. There are {listed(names)}"
        )
    mask = config.mask or (None if config.target else path_column(rows, place, [picture]))
    if not mask and not config.target:
        raise InputError(
            f"{config.place}: say which column is to be told from the pictures, preprocess.target, or names their "
            f"masks, preprocess.mask. There are {listed(names)}"
        )
    if mask and config.target:
        raise InputError(
            f"preprocess.target {listed(config.targets)}: a mask is learnt alone. Leave one of the two out"
        )
    return config.model_copy(update={"picture": picture, "mask": mask})


def _with_pictures(
    split: str, rows: list[Row], place: Placed, config: PicturesPreprocessConfig, listing: Listing
) -> list[Row]:
    """The rows whose pictures, and masks, are there; InputError when others are not to be left out."""
    columns = [name for name in (config.picture, config.mask) if name]
    missing = [str(row.get(name)) for row in rows for name in columns if place(row.get(name)) is None]
    if not missing:
        return rows
    empty = [str(number) for number, row in enumerate(rows, 1) for name in columns if row.get(name) in {"", None}]
    found = (
        f"{config.place}: {len(missing):,} of the {split} rows name pictures that are not in {listing.folder}: "
        f"{first_of(missing)}"
    )
    if len(empty) == len(missing):
        found = f"{config.place}: {split} rows without a path in {' or '.join(columns)}: the numbers {first_of(empty)}"
    if not config.skip_unreadable:
        raise InputError(
            f"{found}. Say where the paths begin, preprocess.folder, or leave such rows out, "
            "preprocess.skip_unreadable: true"
        )
    logger.warning("%s. They are left out", found)
    return [row for row in rows if all(place(row.get(name)) is not None for name in columns)]


# ---- what there is, for a task that is proposed ---------------------------------------------------------------------


def takes(path: Path, target: str | None) -> bool:  # noqa: ARG001  (a column is asked for later)
    """Whether it is a table that names pictures, or a folder of pictures with one of their masks."""
    if _has_tables(path):
        folder = path.parent if path.is_file() else path
        if not any(file.suffix.lower() in SUFFIXES for file in folder.glob("**/*")):
            return False
        return path_column(first_rows(path, LOOKED_AT), places(scan(folder, "--data", SUFFIXES)), []) is not None
    return path.is_dir() and has_pairs(path)


def propose(path: Path, target: str | None) -> Proposal:
    """A task on the pictures: what the target column says of them, or their masks."""
    config = PicturesPreprocessConfig(files=str(path))
    listing = find(config)
    told: dict[str, Any] = {}
    if listing.lists:
        read = read_files(scan(path, "--data", TABLES))
        rows = [row for part in read.values() for row in part]
        place = places(listing)
        if target or not path_column(rows, place, [path_column(rows, place, [])]):
            told = asked_here(rows, check_target(path, rows, target))
        config = _columns(rows, place, PicturesPreprocessConfig(files=str(path), **told))
        own: dict[str, Any] = {"picture": config.picture, **(told or {"mask": config.mask})}
    else:
        if target:
            raise InputError(f"--target {target}: there is no table with such a column in {path}; leave it out")
        names = two_folders(listing, config)
        read, config = pairs(listing, *names), _of_folders(config)
        rows, own = [row for part in read.values() for row in part], dict(zip((PICTURE, MASK), names, strict=True))
        place = places(listing)
    there = _with_pictures("all", rows, place, config.model_copy(update={"skip_unreadable": True}), listing)
    seen = [counted(len(there), "picture")]
    if len(there) < len(rows):
        seen.append(f"{counted(len(rows) - len(there), 'row')} of pictures that are not there: they end a run")
    preprocess = {"reader": "pictures", "files": str(path), **own}
    if told:
        asked = asked_of({"all": there}, config)
        there = asked.known("all", there)
        seen += asked.lines(there)
        blocks = recipe(len(there))
        blocks["train"] |= {} if asked.problem == "classification" else {"monitor": "loss"}
        return Proposal({**preprocess, "size": [64, 64]}, asked.problem, blocks, seen)
    return _propose_masks(listing, config, there, preprocess, seen)


STEPS = 400  # of a training on masks that is proposed
LARGEST = 256  # pixels of a side


def _propose_masks(
    listing: Listing,
    config: PicturesPreprocessConfig,
    rows: Sequence[Row],
    preprocess: Mapping[str, Any],
    seen: list[str],
) -> Proposal:
    part = _part(rows, places(listing), config)
    coding = _coding(listing, config, part)
    assert coding
    width, height = Counter(_size(listing, number) for number in part.places[:100].tolist()).most_common(1)[0][0]
    seen += [f"most are {width} x {height} pixels", f"classes of pixels: {listed(list(coding.classes))}"]
    scale = min(1, LARGEST / max(width, height))
    size = [max(16, 16 * round(side * scale / 16)) for side in (height, width)]
    if size != [height, width]:
        seen.append(f"brought to {size[1]} x {size[0]} pixels, which is quicker: preprocess.size changes that")
    batch = 4
    train = {
        "epochs": int(np.clip(round(STEPS * batch / len(rows)), 10, 100)),
        "batch_size": batch,
        "optimizer": {"name": "AdamW", "lr": 0.002},
        "scheduler": {"name": "CosineAnnealingLR"},
    }
    augment = {"augment": {"crop_padding": 16, "crop_border": "reflect", "flip": True}}
    blocks = {"data": augment, "model": {"name": "unet"}, "train": train, "evaluate": {}, "export": {}}
    return Proposal({**preprocess, "size": size, "fit": "squash"}, "segmentation", blocks, seen)


def _size(listing: Listing, place: int) -> tuple[int, int]:
    try:
        with open(os.path.join(listing.folder, listing.names[place]), "rb") as file:
            return upright_size(file)[0]
    except (OSError, InputError):
        return 0, 0
