"""The rows of a user's own tables with what is to be told of each, by splits.

Rows are dicts by the names of the columns. Cells of CSV files are texts, and those of other tables what they are.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import RowsPreprocessConfig
from torchloom.data.class_folders import split_of
from torchloom.data.columns import MOSTLY, is_gap, is_number, number, written
from torchloom.data.splits import grouped_choice, log_classes, stratified_choice
from torchloom.data.tables import SUFFIXES, as_rows, opened_table
from torchloom.data.targets import Classes, Number, Target
from torchloom.datasets.listing import Listing
from torchloom.errors import InputError
from torchloom.system.words import counted, listed

logger = logging.getLogger(__name__)

FEW = 2  # different numbers of a target that are classes

Row = dict[str, Any]


def read_entry(table: Any, config: RowsPreprocessConfig) -> dict[str, list[Row]]:
    """The rows of a table that the catalog holds, all of them to train."""
    try:
        rows = as_rows(table)
    except InputError as error:
        raise InputError(f"preprocess.entry {config.entry}: {error.message}") from error
    if not rows:
        raise InputError(f"preprocess.entry {config.entry}: holds no rows")
    return {"train": rows, "validation": [], "test": []}


def read_files(listing: Listing) -> dict[str, list[Row]]:
    """The rows of all files, by the split that the file's name or a folder's says: those of no other are to train."""
    found: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for path, name in zip(listing.paths, listing.names, strict=True):
        split = split_of(listing, name)
        try:
            found[split] += read_rows(path)
        except InputError as error:
            raise InputError(f"{path}: {error.message}") from error
    return found


def read_rows(path: Path) -> list[Row]:
    with opened_table(path) as (names, lines):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise InputError(
                f"its first line names {listed(list(map(repr, twice)))} more than once. Rename one of them"
            )
        rows = []
        for line, cells in lines:
            if len(cells) != len(names):
                raise InputError(f"line {line} has {len(cells)} cells, but the first line names {len(names)} columns")
            rows.append(dict(zip(names, cells, strict=True)))
    if not rows:
        raise InputError("holds no rows below its line of names")
    return rows


def place_of(config: RowsPreprocessConfig) -> str:
    """Where the rows are, for messages."""
    return config.files or f"preprocess.entry {config.entry}"


def with_target(split: str, rows: list[Row], config: RowsPreprocessConfig, gaps: frozenset[str]) -> list[Row]:
    """The rows that say what the target is."""
    lacking = next((row for row in rows if config.target not in row), None)
    if lacking is not None:
        raise InputError(
            f"preprocess.target {config.target!r}: there is no such column in the {split} rows, which have "
            f"{listed(list(map(repr, lacking)))}"
        )
    known = [row for row in rows if not is_gap(row[config.target], gaps)]
    if len(known) < len(rows):
        left = counted(len(rows) - len(known), "row")
        logger.warning("%s: %s without %r are left out", split, left, config.target)
    return known


def split_rows(rows: dict[str, list[Row]], config: RowsPreprocessConfig, as_classes: bool) -> dict[str, list[Row]]:
    """The splits that have no files are drawn from the rows to train: of each class the same share."""
    fractions = {"test": config.test_fraction, "validation": config.validation_fraction}
    parts = dict(rows)
    for split, fraction in fractions.items():
        if not parts[split]:
            parts["train"], parts[split] = _cut(parts["train"], fraction, config, as_classes)
    for split in ("train", "test"):
        if not parts[split]:
            raise InputError(
                f"{place_of(config)}: there are no {split} rows. Change preprocess.test_fraction, or add rows"
            )
    return parts


def _cut(
    rows: list[Row], fraction: float, config: RowsPreprocessConfig, as_classes: bool
) -> tuple[list[Row], list[Row]]:
    labels = _numbered([written(row[config.target]) if as_classes else "" for row in rows])
    if config.groups:
        chosen = grouped_choice(labels, _numbered(_groups(rows, config.groups)), fraction, config.seed)
    else:
        chosen = stratified_choice(labels, fraction, config.seed)
    parts: tuple[list[Row], list[Row]] = [], []
    for row, taken in zip(rows, chosen.tolist(), strict=True):
        parts[taken].append(row)
    return parts


def _numbered(values: Sequence[str]) -> np.ndarray:
    """The number (N,) of each value among those that there are."""
    numbers: np.ndarray = np.unique(values, return_inverse=True)[1]
    return numbers.astype(np.int64)


def _groups(rows: Sequence[Row], name: str) -> list[str]:
    """What the column says of each row; InputError where there is none."""
    lacking = next((row for row in rows if name not in row), None)
    if lacking is not None:
        known = listed(list(map(repr, lacking)))
        raise InputError(f"preprocess.groups {name!r}: there is no such column; there are {known}")
    return [written(row[name]) for row in rows]


def groups_of(parts: Mapping[str, Sequence[Row]], config: RowsPreprocessConfig) -> dict[str, dict[str, np.ndarray]]:
    """For each split the array `groups` (N,) int64, if rows belong together; InputError when splits share a group."""
    if not config.groups:
        return {split: {} for split in parts}
    values = {split: _groups(part, config.groups) for split, part in parts.items()}
    for one, other in combinations(values, 2):
        if both := sorted(set(values[one]) & set(values[other])):
            raise InputError(f"preprocess.groups {config.groups!r}: {both[0]!r} has {one} rows and {other} rows")
    numbers = _numbered([value for part in values.values() for value in part])
    ends = np.cumsum([len(part) for part in values.values()])[:-1]
    return {split: {"groups": part} for split, part in zip(values, np.split(numbers, ends), strict=True)}


def say_duplicates(parts: Mapping[str, Sequence[Row]], names: Sequence[str]) -> None:
    """Warn of rows to validate and to test that training has too, in the columns of these names."""

    def key(row: Row) -> int:
        return hash(tuple(written(row.get(name)) for name in names))

    known = set(map(key, parts["train"]))
    for split in ("validation", "test"):
        again = [str(number) for number, row in enumerate(parts[split], 1) if key(row) in known]
        if again:
            logger.warning(
                "%s: %d of %s are among the training rows too, with this or another target, and what is measured on "
                "them says little: the numbers %s",
                *(split, len(again), counted(len(parts[split]), "row"), listed(again)),
            )


def are_classes(cells: Sequence[Any], config: RowsPreprocessConfig) -> bool:
    """Whether the cells of the target are classes, and not numbers."""
    if config.target_type:
        return config.target_type == "classes"
    if len(set(map(written, cells))) <= FEW:
        return True
    wrong = [written(cell) for cell in cells if not is_number(cell)]
    if 0 < len(wrong) < (1 - MOSTLY) * len(cells):
        raise InputError(
            f"preprocess.target {config.target!r}: holds numbers, but also {listed(sorted(set(map(repr, wrong))))}. If "
            "these are gaps, name them in preprocess.missing; if its numbers are names, say target_type: classes"
        )
    return bool(wrong)


def targets_of(
    parts: Mapping[str, Sequence[Row]], config: RowsPreprocessConfig, as_classes: bool
) -> tuple[Target, dict[str, np.ndarray]]:
    """What the target is, and its array for each split."""
    cells = {split: [row[config.target] for row in part] for split, part in parts.items()}
    if not as_classes:
        numbers = {split: numbers_of(part, config.target) for split, part in cells.items()}
        mean, std = (float(value) for value in (numbers["train"].mean(), numbers["train"].std()))
        target = Number(name=config.target, mean=mean, std=std or 1.0)
        return target, {split: part.astype(np.float32) for split, part in numbers.items()}
    texts = {split: list(map(written, part)) for split, part in cells.items()}
    classes = sorted(set(texts["train"]), key=_in_order)
    if len(classes) < 2:
        raise InputError(f"preprocess.target {config.target!r}: is {classes[0]!r} in every training row")
    places = {name: place for place, name in enumerate(classes)}
    for split, part in texts.items():
        if unknown := set(part) - places.keys():
            raise InputError(
                f"preprocess.target {config.target!r}: the {split} rows have {sorted(unknown)[0]!r}, which no training "
                "row has"
            )
    labels = {split: np.array([places[text] for text in part], dtype=np.int64) for split, part in texts.items()}
    log_classes(classes, labels)
    return Classes(classes=classes), labels


def _in_order(name: str) -> tuple[bool, float, str]:
    """Numbers by their size, before words."""
    try:
        return False, number(name), name
    except ValueError:
        return True, 0.0, name


# ---- what there is, for a task that is proposed ---------------------------------------------------------------------

LONG = 12  # letters of a text, on average: shorter ones are names
MOST_OTHERS = 3  # columns of numbers and categories beside it, or it is a table with texts in it


def is_table(path: Path) -> bool:
    """Whether it is a table, or a folder of nothing but tables."""
    if path.is_file():
        return path.suffix.lower() in SUFFIXES
    suffixes = {file.suffix.lower() for file in path.rglob("*.*") if file.is_file()}
    return bool(suffixes) and suffixes <= SUFFIXES


def first_rows(path: Path, count: int) -> list[Row]:
    """Of the table, or the first one of the folder."""
    file = path if path.is_file() else min(each for each in path.rglob("*.*") if each.suffix.lower() in SUFFIXES)
    with opened_table(file) as (names, lines):
        return [dict(zip(names, cells, strict=False)) for _, cells in islice(lines, count)]


def text_column(rows: Sequence[Row], target: str | None = None) -> str | None:
    """The column with the longest texts, where there are such and few other columns."""
    lengths: dict[str, float] = {}
    for name in rows[0] if rows else ():
        cells = [row[name] for row in rows if isinstance(row.get(name), str) and row[name].strip()]
        different = len(set(cells)) > len(cells) / 2 and not all(map(is_number, cells))
        if name != target and different and sum(map(len, cells)) > LONG * len(cells):
            lengths[name] = sum(map(len, cells)) / len(cells)
    few = bool(rows) and len(rows[0]) - len(lengths) <= MOST_OTHERS
    return max(lengths, key=lambda name: lengths[name]) if lengths and few else None


def check_target(path: Path, rows: Sequence[Row], target: str | None) -> None:
    """InputError, as `kedro task new` says it, unless the target is one of the columns."""
    if target not in rows[0]:
        wrong = f"there is no column {target!r}" if target else "it must be said which column is to be told"
        raise InputError(f"{path}: {wrong}. Say --target with one of {listed(list(map(repr, rows[0])))}")


def target_lines(target: str, cells: Sequence[Any], as_classes: bool) -> list[str]:
    """What there is to know of the target."""
    if not as_classes:
        numbers = numbers_of(cells, target)
        return [f"{target}: a number from {numbers.min():.7g} to {numbers.max():.7g}, {numbers.mean():.7g} on average"]
    counts = Counter(map(written, cells)).most_common()
    shown = ", ".join(f"{name} {count / len(cells):.1%}" for name, count in counts[:10])
    return [f"{target}: one of {len(counts)} classes: {shown}{', …' if len(counts) > 10 else ''}"]


def numbers_of(cells: Sequence[Any], target: str) -> np.ndarray:
    """The cells of the target as (N,) float64; InputError names the one that is no number."""
    try:
        return np.array([number(cell) for cell in cells], dtype=np.float64)
    except ValueError as error:
        raise InputError(
            f"preprocess.target {target!r}: {error}. If these are classes, say target_type: classes"
        ) from None
