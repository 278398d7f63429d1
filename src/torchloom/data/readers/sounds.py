"""A user's own sounds: in a folder for each class, in files whose names say it, or in those that a table names.

All three become rows, which are split as those of tables are. The sounds of a split lie in one memory-mapped file, so
that they may be more than the memory holds.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from torchloom.config import SoundFilesPreprocessConfig, parts_of
from torchloom.data.class_folders import class_roots, place_pictures, split_of
from torchloom.data.columns import Encoder
from torchloom.data.readers import Proposal
from torchloom.data.rows import (
    Row,
    are_classes,
    check_target,
    first_rows,
    is_table,
    place_of,
    read_entry,
    read_rows,
    split_rows,
    target_lines,
    targets_of,
    with_target,
)
from torchloom.data.sound_files import SUFFIXES, library
from torchloom.data.sounds import Place, Reading, measured, rates_in_words
from torchloom.data.tables import SUFFIXES as TABLES
from torchloom.datasets.listing import Listing, first_of, scan
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.system.words import counted, listed

logger = logging.getLogger(__name__)

HIGHEST = 16_000  # samples a second, unless the parameters say more
FOLDER, FILE = "class", "file"  # the columns of what lies in folders


class Found(NamedTuple):
    """The rows of each split, where their sounds are, and whether they are a table's, whose cells may be gaps."""

    rows: dict[str, list[Row]]
    place: Place
    of_table: bool
    config: SoundFilesPreprocessConfig  # with the target


def find(config: SoundFilesPreprocessConfig) -> Listing:
    """List the table or tables, or the sounds below the folder."""
    library()
    assert config.files is not None
    path = Path(config.files).expanduser()
    tables = config.path is not None or (path.is_file() and path.suffix.lower() in TABLES)
    listing = scan(path, "preprocess.files", TABLES if tables else SUFFIXES)
    listing.say_links()
    return listing


def preprocess(
    listing: Listing, config: SoundFilesPreprocessConfig, scratch: Path
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Sounds -> training, validation and test tensors and what is known about them.

    Each of the tensors holds `waveforms` (float32), those of all sounds in a row, of which sound i has
    waveforms[starts[i]:starts[i + 1]], `starts` being (N + 1,) int64; `labels` (N,) int64 or `target` (N,) float32; and
    in the same way `text` (uint8) with `text_starts` are the names of the files. Raises InputError for what is wrong
    with a file, a column or a cell.
    """
    return _prepare(_rows_of(listing, config), scratch)


def preprocess_entry(
    table: Any, config: SoundFilesPreprocessConfig
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """The same of a table that the catalog holds; its paths are seen from the project's folder."""
    library()
    rows = read_entry(table, config)
    column = _path_column(rows["train"], config)
    place = Place(str(Path(config.folder or "").expanduser()), column)
    return _prepare(Found(rows, place, True, config), None)


# ---- which there are -----------------------------------------------------------------------------------------------


def _rows_of(listing: Listing, config: SoundFilesPreprocessConfig) -> Found:
    if Path(listing.names[0]).suffix.lower() in TABLES:
        return _rows_of_tables(listing, config)
    if listing.single:
        raise InputError(f"{config.files}: is one sound, not a folder of them or a table with their paths")
    if config.path or config.folder:
        raise InputError(f"{config.files}: holds sounds and no table; leave preprocess.path and folder out")
    if config.target:
        return _rows_by_name(listing, config)
    return _rows_of_folders(listing, config)


def _rows_of_tables(listing: Listing, config: SoundFilesPreprocessConfig) -> Found:
    """The rows of all tables; the paths in them become such as are seen from the listing's folder."""
    if config.names:
        raise InputError(
            f"{config.files}: is a table, whose columns say what the names would; leave preprocess.names out"
        )
    found: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    column = ""
    for path, name in zip(listing.paths, listing.names, strict=True):
        try:
            rows = read_rows(path)
        except InputError as error:
            raise InputError(f"{path}: {error.message}") from error
        column = column or _path_column(rows, config)
        if column not in rows[0]:
            raise InputError(f"{path}: has no column {column!r}, in which others have the paths of sounds")
        start = os.path.join(os.path.dirname(name), os.path.expanduser(config.folder or ""))
        found[split_of(listing, name)] += [
            {**row, column: os.path.normpath(os.path.join(start, str(row[column])))} for row in rows
        ]
    return Found(found, Place(listing.folder, column), True, config)


def _path_column(rows: Sequence[Row], config: SoundFilesPreprocessConfig) -> str:
    if config.path:
        if config.path not in rows[0]:
            raise InputError(f"preprocess.path {config.path!r}: there is no such column; there are {_columns(rows)}")
        return config.path
    column = path_column(rows)
    if column is None:
        raise InputError(
            f"{place_of(config)}: no column has paths of sounds in it. Name the one that has, as preprocess.path: "
            f"there are {_columns(rows)}"
        )
    return column


def _columns(rows: Sequence[Row]) -> str:
    return listed(list(map(repr, rows[0])))


def path_column(rows: Sequence[Row]) -> str | None:
    """The first column whose cells all end as files of sounds do."""
    names = rows[0] if rows else ()
    return next((name for name in names if all(_is_sound(row.get(name)) for row in rows)), None)


def _is_sound(cell: Any) -> bool:
    return isinstance(cell, str) and os.path.splitext(cell)[1].lower() in SUFFIXES


def _rows_by_name(listing: Listing, config: SoundFilesPreprocessConfig) -> Found:
    """A row for each file, of the split that a folder's name says, with the parts of its own name."""
    if not config.names:
        raise InputError(
            f"{config.files}: of sounds in folders the folders are the classes, so leave target out; or say what the "
            "names of the files mean, as preprocess.names: '{digit}_{speaker}_{take}'"
        )
    if config.target not in parts_of(config.names):
        raise InputError(
            f"preprocess.target {config.target!r}: is no part of preprocess.names, which has "
            f"{listed(parts_of(config.names))}"
        )
    found: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for name, parts in zip(listing.names, _parts(listing, config.names), strict=True):
        found[split_of(listing, name)].append({FILE: name, **parts})
    told = config.model_copy(update={"target_type": config.target_type or "classes"})  # digits are names here
    return Found(found, Place(listing.folder, FILE), False, told)


def _rows_of_folders(listing: Listing, config: SoundFilesPreprocessConfig) -> Found:
    """A row for each file, of the split whose folder it lies in, with the class whose folder that is."""
    roots = class_roots(listing, config.splits)
    found: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    parts = _parts(listing, config.names) if config.names else [{}] * len(listing.names)
    places = place_pictures(listing.names, roots)
    strays = [name for name, place in zip(listing.names, places, strict=True) if place is None]
    if strays and not (config.splits and config.splits.train):
        raise InputError(
            f"{listing.folder}: in no folder of a class: {first_of(strays)}. Move them there; or say what the names of "
            "the files mean, as preprocess.names: '{digit}_{speaker}_{take}', and which part to tell, as target"
        )
    for name, place, more in zip(listing.names, places, parts, strict=True):
        if place:
            found[roots[place[0]]].append({FILE: name, FOLDER: place[1], **more})
    told = config.model_copy(update={"target": FOLDER, "target_type": "classes"})
    return Found(found, Place(listing.folder, FILE), False, told)


def _parts(listing: Listing, names: str) -> list[dict[str, str]]:
    """What the name of each file says, by the parts of preprocess.names."""
    pieces = re.split(r"{.*?}", names)
    pattern = re.compile("(.+?)".join(map(re.escape, pieces)), re.DOTALL)
    matches = [pattern.fullmatch(Path(name).stem) for name in listing.names]
    odd = [name for name, match in zip(listing.names, matches, strict=True) if match is None]
    if odd:
        raise InputError(
            f"preprocess.names {names!r}: does not fit {first_of(odd)}. Rename them, or put them elsewhere"
        )
    return [dict(zip(parts_of(names), match.groups(), strict=True)) for match in matches if match]


# ---- what they are -------------------------------------------------------------------------------------------------


def _prepare(found: Found, scratch: Path | None) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    config = found.config
    if not config.target:
        raise InputError(
            f"{place_of(config)}: preprocess.target must name the column that is to be told from the sounds"
        )
    gaps = Encoder([], config.missing).gaps if found.of_table else frozenset()
    rows = {split: with_target(split, part, config, gaps) for split, part in found.rows.items()}
    as_classes = are_classes([row[config.target] for part in rows.values() for row in part], config)
    parts = split_rows(rows, config, as_classes)
    rate = config.rate or _usual_rate(found.place, parts["train"])
    reading = Reading(found.place, rate, scratch)
    stored = reading.splits(parts)
    reading.report(sum(map(len, parts.values())), config.skip_unreadable)
    parts = {split: part.rows for split, part in stored.items()}
    for split in ("train", "test"):
        if not parts[split]:
            raise InputError(f"{place_of(config)}: no {split} sound can be read")
    target, learnt = targets_of(parts, config, as_classes)
    tensors = {split: part.tensors({target.array: learnt[split]}, found.place.column) for split, part in stored.items()}
    mean, std = measured(stored["train"], rate, config.mels)
    lengths: np.ndarray = np.array(stored["train"].lengths) / rate
    info = {
        "kind": "audio",
        "target": target.model_dump(),
        "rate": rate,
        "mean": mean,
        "std": std,
        **({"column": found.place.column, "folder": config.folder or ""} if found.of_table else {}),
        "sounds": {split: len(part) for split, part in parts.items()},
        "seconds_of_training": {
            "shortest": float(lengths.min()),
            "median": float(np.median(lengths)),
            "longest": float(lengths.max()),
            "all": float(lengths.sum()),
        },
    }
    return tensors["train"], tensors["validation"], tensors["test"], info


def _usual_rate(place: Place, rows: Sequence[Row]) -> int:
    """What most of the files have, as far as they can be read, at most HIGHEST."""
    heads = place.heads(rows)
    rates = Counter(rate for _, rate in heads)
    rate = min(rates.most_common(1)[0][0], HIGHEST) if rates else HIGHEST
    said = rates_in_words(heads)
    logger.info("training sounds by samples a second: %s; all become %s (preprocess.rate)", said, f"{rate:,}")
    return rate


# ---- what there is, for a task that is proposed ----------------------------------------------------------------------

STEPS, MOST_EPOCHS, LEAST_EPOCHS = 2500, 60, 5  # of a training that is proposed
SEPARATORS = ("_", "-", " ", ".")  # of the parts of names
LOOKED_AT = 1000  # rows of a table, to find the column of paths


def takes(path: Path) -> bool:
    """Whether it is a folder with sounds in or below it, or a table with a column of their paths."""
    if path.is_dir() and any(file.suffix.lower() in SUFFIXES for file in path.rglob("*.*")):
        return True
    return is_table(path) and path_column(first_rows(path, LOOKED_AT)) is not None


def propose(path: Path, target: str | None) -> Proposal:
    """A task on the sounds, and what is doubtful about them."""
    listing, config = _looked_at(path, target)
    found = _rows_of(listing, config)
    own = {key: getattr(config, key) for key in ("names", "target") if getattr(config, key)}
    told, rows = found.config, [row for part in found.rows.values() for row in part]
    gaps = Encoder([], ()).gaps if found.of_table else frozenset()
    assert told.target
    cells = [row[told.target] for row in with_target("all", rows, told, gaps)]
    as_classes = are_classes(cells, told)
    seconds, seen = _lengths(found.place, rows)
    seen += target_lines(told.target, cells, as_classes)
    batch = 32 if seconds < 4 else 16
    train = {
        "epochs": int(np.clip(round(STEPS * batch / len(rows)), LEAST_EPOCHS, MOST_EPOCHS)),
        "batch_size": batch,
        "optimizer": {"name": "AdamW", "lr": 0.002, "weight_decay": 0.01},
        "scheduler": {"name": "OneCycleLR"},
        "monitor": "loss",
    }
    augment = {"speed": 0.1, "gain": 6.0, "time_masks": 1, "frequency_masks": 1}
    blocks = {
        "data": {"augment_sound": augment},
        "model": {"name": "audio_cnn"},
        "train": train,
        "evaluate": {},
        "export": {},
    }
    preprocess = {"reader": "sounds", "files": str(path), **own}
    return Proposal(preprocess, "classification" if as_classes else "regression", blocks, seen)


def _looked_at(path: Path, target: str | None) -> tuple[Listing, SoundFilesPreprocessConfig]:
    """What there is, and the block `preprocess` that goes with it."""
    if is_table(path):
        listing = scan(path, "--data", TABLES)
        check_target(path, read_rows(next(listing.paths)), target)
        return listing, SoundFilesPreprocessConfig(files=str(path), target=target)
    listing = scan(path, "--data", SUFFIXES)
    if any(place_pictures(listing.names, class_roots(listing))):
        if target:
            raise InputError(f"--target {target}: of sounds in folders the classes are the folders; leave it out")
        return listing, SoundFilesPreprocessConfig(files=str(path))
    names = usual_names(listing.names)
    if names is None:
        raise InputError(
            f"{path}: neither folders of classes nor names of equally many parts. Move the sounds into a folder for "
            "each class, or write a table with their paths"
        )
    if target not in parts_of(names):
        wrong = f"there is no part {target!r}" if target else "it must be said which part of the names is to be told"
        raise InputError(f"{path}: {wrong}. Say --target with one of {_shown_parts(listing, names)}")
    return listing, SoundFilesPreprocessConfig(files=str(path), names=names, target=target)


def usual_names(names: Sequence[str]) -> str | None:
    """The names of files as preprocess.names has it, where all have as many parts; None where they have not."""
    for separator in SEPARATORS:
        counts = {len(Path(name).stem.split(separator)) for name in names}
        if len(counts) == 1 and (count := counts.pop()) > 1:
            return separator.join(f"{{part{number}}}" for number in range(1, count + 1))
    return None


def _shown_parts(listing: Listing, names: str) -> str:
    rows = _parts(listing, names)
    different = {part: sorted({row[part] for row in rows}) for part in parts_of(names)}
    return "; ".join(f"{part} ({len(values):,} different: {listed(values, 4)})" for part, values in different.items())


def _lengths(place: Place, rows: Sequence[Row]) -> tuple[float, list[str]]:
    """The median length in seconds, and what there is to know of lengths and rates."""
    library()
    heads = place.heads(rows)
    if not heads:
        raise InputError(f"{place.folder}: of {counted(len(rows), 'sound')} none can be read")
    seconds = np.array([seconds for seconds, _ in heads])
    median = float(np.median(seconds))
    seen = [
        f"{counted(len(rows), 'sound')} of {seconds.min():.2f} to {seconds.max():.2f} seconds, {median:.2f} in the "
        f"middle, {seconds.sum() / 60:.1f} minutes in all",
        f"by samples a second: {rates_in_words(heads)}",
    ]
    if len(heads) < len(rows):
        seen.append(f"{counted(len(rows) - len(heads), 'file')} cannot be read; skip_unreadable: true leaves them out")
    return median, seen
