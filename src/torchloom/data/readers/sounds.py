"""A user's own sounds: in a folder for each class, in files whose names say it, or in those that a table names.

All three become rows, which are split as those of tables are. The sounds of a split lie in one memory-mapped file, so
that they may be more than the memory holds.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from torchloom.config import SoundFilesPreprocessConfig, parts_of
from torchloom.data.class_folders import check_none_empty, class_roots, place_pictures, split_of
from torchloom.data.copies import say_copies
from torchloom.data.file_names import parts_in
from torchloom.data.paths import LOOKED_AT, path_column, places, say_twice
from torchloom.data.readers import Proposal
from torchloom.data.row_splits import groups_of, split_rows
from torchloom.data.row_targets import asked_here, asked_of, check_split, check_target
from torchloom.data.rows import Row, first_rows, read_entry, read_files, some, writing_of
from torchloom.data.sound_files import SUFFIXES, UNREADABLE, library
from torchloom.data.sounds import Place, Reading, Stored, measured, rates_in_words
from torchloom.data.tables import SUFFIXES as TABLES
from torchloom.datasets.listing import Listing, first_of, scan
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.system.words import counted, listed, meant

logger = logging.getLogger(__name__)

HIGHEST = 16_000  # samples a second, unless the parameters say more
ADVICE = ". ffmpeg makes WAV files of others: ffmpeg -i one.m4a one.wav"
FOLDER, FILE = "class", "file"  # the columns of what lies in folders


class Found(NamedTuple):
    """The rows of each split, where their sounds are, and whether they are a table's, whose cells may be gaps.

    `told` is what the target must know to tell it of other files.
    """

    rows: dict[str, list[Row]]
    place: Place
    of_table: bool
    config: SoundFilesPreprocessConfig  # with the target
    told: dict[str, Any]


def find(config: SoundFilesPreprocessConfig) -> Listing:
    """List the sounds below the folder, or where the paths of a table begin, and that table."""
    library()
    assert config.files
    files = Path(config.files).expanduser()
    if not _is_of_table(config, files):
        listing = scan(files, "preprocess.files", SUFFIXES)
    else:
        folder = Path(config.folder or (files.parent if files.is_file() else files))
        listing = scan(folder, "preprocess.folder" if config.folder else "preprocess.files", SUFFIXES)
        listing = replace(listing, lists=[str(files.resolve())])
    listing.say_links()
    if unknown := {ending: count for ending, count in listing.others.items() if ending in UNREADABLE}:
        said = ", ".join(f"{count:,} {ending}" for ending, count in unknown.items())
        logger.warning("%s: sounds that are left out, as they cannot be read here: %s%s", listing.folder, said, ADVICE)
    return listing


def _is_of_table(config: SoundFilesPreprocessConfig, files: Path) -> bool:
    """Whether a table says what the sounds are, and neither folders nor their names."""
    asked = bool(config.target or config.path) and not config.names
    return _is_table_file(files) or (asked and has_tables(files))


def _is_table_file(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in TABLES


def has_tables(path: Path) -> bool:
    """Whether it is a table, or a folder with one in it."""
    return _is_table_file(path) or (path.is_dir() and any(map(_is_table_file, path.iterdir())))


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
    table: Any, config: SoundFilesPreprocessConfig, scratch: Path
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """The same of a table that the catalog holds."""
    library()
    if not config.folder:
        raise InputError(f"preprocess.entry {config.entry}: say where its paths begin, preprocess.folder")
    listing = scan(Path(config.folder), "preprocess.folder", SUFFIXES)
    return _prepare(_rows_of_table(read_entry(table, config), listing, config), scratch)


# ---- which there are -----------------------------------------------------------------------------------------------


def _rows_of(listing: Listing, config: SoundFilesPreprocessConfig) -> Found:
    if listing.lists:
        read = read_files(scan(Path(listing.lists[0]), "preprocess.files", TABLES), writing_of(config))
        return _rows_of_table(read, listing, config)
    if listing.single:
        raise InputError(f"{config.files}: is one sound, not a folder of them or a table with their paths")
    if config.path or config.folder:
        raise InputError(
            f"{config.files}: there is no table whose paths these are; leave preprocess.path and folder out"
        )
    return _rows_by_name(listing, config) if config.target else _rows_of_folders(listing, config)


def _rows_of_table(read: dict[str, list[Row]], listing: Listing, config: SoundFilesPreprocessConfig) -> Found:
    """The rows whose sounds are there, with the paths as the listing has them."""
    if config.names:
        raise InputError(
            f"{config.place}: is a table, and its columns say what names would; leave preprocess.names out"
        )
    place = places(listing)
    rows = [row for part in read.values() for row in part]
    column = config.path or path_column(rows, place, config.targets)
    if column is None or any(column not in row for row in rows):
        wrong = (
            f"preprocess.path {column!r}: not all rows have it{meant(column, rows[0])}"
            if column
            else "no column names sounds that are there"
        )
        raise InputError(
            f"{config.place}: {wrong}. Name the one that does, preprocess.path, and where its paths begin, "
            f"preprocess.folder. There are {listed(list(map(repr, rows[0])))}"
        )
    missing = [str(row[column]) for row in rows if place(row[column]) is None]
    if missing:
        said = f"{config.place}: {counted(len(missing), 'sound')} not in {listing.folder}: {first_of(missing)}"
        if not config.skip_unreadable:
            raise InputError(
                f"{said}. Say where the paths begin, preprocess.folder, or leave such rows out, "
                "preprocess.skip_unreadable: true"
            )
        logger.warning("%s. They are left out", said)
    found = {
        split: [{**row, column: listing.names[number]} for row in part if (number := place(row[column])) is not None]
        for split, part in read.items()
    }
    return Found(found, Place(listing.folder, column), True, config, {})


def _rows_by_name(listing: Listing, config: SoundFilesPreprocessConfig) -> Found:
    """A row for each file, of the split that a folder's name says, with the parts of its own name."""
    if not config.names:
        raise InputError(
            f"{config.files}: of sounds in folders the folders are the classes, so leave target out; or say what the "
            "names of the files mean, as preprocess.names: '{digit}_{speaker}_{take}'"
        )
    if not set(config.targets) <= set(parts_of(config.names)):
        known = parts_of(config.names)
        raise InputError(
            f"preprocess.target {config.target!r}: is no part of preprocess.names{meant(config.targets[0], known)}, "
            f"which has {listed(known)}"
        )
    found: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for name, parts in zip(listing.names, _parts(listing, config.names), strict=True):
        found[split_of(listing, name)].append({FILE: name, **parts})
    told = config.model_copy(update={"target_type": config.target_type or "classes"})  # digits are names here
    return Found(found, Place(listing.folder, FILE), False, told, {"names": config.names})


def _rows_of_folders(listing: Listing, config: SoundFilesPreprocessConfig) -> Found:
    """A row for each file, of the split whose folder it lies in, with the class whose folder that is."""
    roots = class_roots(listing, config.splits)
    found: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    parts = _parts(listing, config.names) if config.names else [{}] * len(listing.names)
    placed = place_pictures(listing.names, roots)
    strays = [name for name, place in zip(listing.names, placed, strict=True) if place is None]
    if strays and not (config.splits and config.splits.train):
        raise InputError(
            f"{listing.folder}: in no folder of a class: {first_of(strays)}. Move them there; or say what the names of "
            "the files mean, as preprocess.names: '{digit}_{speaker}_{take}', and which part to tell, as target"
        )
    check_none_empty(listing, roots, placed, bool(config.splits and config.splits.train), "sound", ADVICE)
    for name, place, more in zip(listing.names, placed, parts, strict=True):
        if place:
            found[roots[place[0]]].append({FILE: name, FOLDER: place[1], **more})
    told = config.model_copy(update={"target": FOLDER, "target_type": "classes"})
    return Found(found, Place(listing.folder, FILE), False, told, {"folders": True})


def _parts(listing: Listing, names: str) -> list[dict[str, str]]:
    """What the name of each file says, by the parts of preprocess.names."""
    found = [parts_in(name, names) for name in listing.names]
    if odd := [name for name, parts in zip(listing.names, found, strict=True) if parts is None]:
        raise InputError(
            f"preprocess.names {names!r}: does not fit, or in two ways, {counted(len(odd), 'file')}: "
            f"{first_of(odd)}. Rename or move them, or write a table with their paths"
        )
    return [parts for parts in found if parts is not None]


# ---- what they are -------------------------------------------------------------------------------------------------


def _prepare(found: Found, scratch: Path) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    config = found.config
    if not config.targets:
        raise InputError(f"{config.place}: preprocess.target must name the column that is to be told from the sounds")
    asked = asked_of(found.rows, config)
    rows = {split: asked.known(split, part) for split, part in found.rows.items()}
    parts = split_rows(rows, config, asked.held)
    say_twice(parts, found.place.column, lambda cell: os.path.normpath(str(cell)), "sound")
    rate = config.rate or _usual_rate(found.place, parts["train"])
    reading = Reading(found.place, rate, scratch)
    stored = reading.splits(parts)
    reading.report(sum(map(len, parts.values())), config.skip_unreadable)
    say_copies({split: part.seen(found.place.column) for split, part in stored.items()}, "sound")
    parts = {split: part.rows for split, part in stored.items()}
    for split in ("train", "test"):
        if not parts[split]:
            raise InputError(f"{config.place}: no {split} sound can be read")
    target, learnt = asked.targets(parts)
    target = target.model_copy(update=found.told)
    groups = groups_of(parts, config)
    tensors = {
        split: part.tensors({target.array: learnt[split], **groups[split]}, found.place.column)
        for split, part in stored.items()
    }
    mean, std = measured(stored["train"].sounds(), rate, config.mels)
    info = {
        "kind": "audio",
        "target": target.model_dump(),
        "rate": rate,
        "mean": mean,
        "std": std,
        "column": found.place.column if found.of_table else None,
        **({"writing": writing_of(config).model_dump()} if found.of_table else {}),
        "folder": config.folder,
        "sounds": {split: len(part) for split, part in parts.items()},
        "training_seconds": _seconds(stored["train"], rate),
    }
    return tensors["train"], tensors["validation"], tensors["test"], info


def _seconds(stored: Stored, rate: int) -> dict[str, float]:
    lengths = sorted(length / rate for length in stored.lengths)
    return {"shortest": lengths[0], "median": lengths[len(lengths) // 2], "longest": lengths[-1], "all": sum(lengths)}


def _usual_rate(place: Place, rows: Sequence[Row]) -> int:
    """What most of the files have, as far as they can be read, at most HIGHEST."""
    heads = place.heads(rows)
    rates = Counter(rate for _, rate in heads)
    rate = min(rates.most_common(1)[0][0], HIGHEST) if rates else HIGHEST
    said = rates_in_words(heads)
    logger.info("training sounds by samples a second: %s; all become %s (preprocess.rate)", said, f"{rate:,}")
    return rate


# ---- what there is, for a task that is proposed ----------------------------------------------------------------------

STEPS, MOST_EPOCHS, LEAST_EPOCHS = 1500, 60, 5  # of a training that is proposed
LONG = 4.0  # seconds of a sound, of which fewer are in a batch
SEPARATORS = ("_", "-", " ", ".")  # of the parts of names


def takes(path: Path, target: str | None) -> bool:  # noqa: ARG001  (a column is asked for later)
    """Whether it is a folder with sounds in or below it, or a table that names such."""
    folder = path.parent if path.is_file() else path
    if not any(file.suffix.lower() in SUFFIXES for file in folder.rglob("*.*")):
        return False
    return path.is_dir() or (_is_table_file(path) and _names_sounds(path, scan(folder, "--data", SUFFIXES)))


def _names_sounds(path: Path, listing: Listing) -> bool:
    return path_column(first_rows(path, LOOKED_AT), places(listing), []) is not None


def propose(path: Path, target: str | None) -> Proposal:
    """A task on the sounds, and what is doubtful about them."""
    listing, config = _looked_at(path, target)
    found = _rows_of(listing, config)
    own = {key: getattr(config, key) for key in ("names", "target", "separator") if getattr(config, key)}
    told, rows = found.config, [row for part in found.rows.values() for row in part]
    asked = asked_of(found.rows, told)
    known = {split: asked.known(split, part) for split, part in found.rows.items()}
    check_split(known, told, asked)
    seconds, seen = _lengths(found.place, rows)
    seen += asked.lines([row for part in known.values() for row in part])
    if config.names:
        seen.append(f"parts of the names: {_shown_parts(listing, config.names)}")
    preprocess = {"reader": "sounds", "files": str(path), **own}
    return Proposal(preprocess, asked.problem, _recipe(len(rows), seconds), seen)


def _recipe(count: int, seconds: float) -> dict[str, Any]:
    """The blocks of a task on so many sounds of that length."""
    batch = 32 if seconds < LONG else 16
    train = {
        "epochs": int(np.clip(round(STEPS * batch / count), LEAST_EPOCHS, MOST_EPOCHS)),
        "batch_size": batch,
        "optimizer": {"name": "AdamW", "lr": 0.002, "weight_decay": 0.01},
        "scheduler": {"name": "OneCycleLR"},
        "monitor": "loss",
    }
    augment = {"speed": 0.1, "time_masks": 1, "frequency_masks": 1}
    return {
        "data": {"augment_sound": augment},
        "model": {"name": "audio_cnn"},
        "train": train,
        "evaluate": {},
        "export": {},
    }


def _looked_at(path: Path, target: str | None) -> tuple[Listing, SoundFilesPreprocessConfig]:
    """What there is, and the block `preprocess` that goes with it."""
    listing = scan(path.parent if path.is_file() else path, "--data", SUFFIXES)
    if has_tables(path) and _names_sounds(path, listing):
        read = read_files(scan(path, "--data", TABLES))
        told = asked_here(some(read), check_target(path, some(read), target))
        return replace(listing, lists=[str(path)]), SoundFilesPreprocessConfig(files=str(path), **told)
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
