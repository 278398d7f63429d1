"""The rows of a user's own tables with what is to be told of each, by splits.

Rows are dicts by the names of the columns. Cells of CSV files are texts, and those of other tables what they are.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import RowsPreprocessConfig
from torchloom.data.class_folders import split_of
from torchloom.data.columns import GAPS, MOSTLY, is_gap, is_number, number, written
from torchloom.data.row_splits import split_rows
from torchloom.data.splits import log_classes
from torchloom.data.tables import SUFFIXES, as_rows, opened_table
from torchloom.data.targets import Classes, Number, Target
from torchloom.data.text import spoken_words
from torchloom.datasets.listing import Listing, is_users
from torchloom.errors import InputError, telling
from torchloom.system.words import counted, listed

logger = logging.getLogger(__name__)

FEW = 2  # different numbers of a target that are classes

Row = dict[str, Any]


def read_entry(table: Any, config: RowsPreprocessConfig) -> dict[str, list[Row]]:
    """The rows of a table that the catalog holds, all of them to train."""
    with telling(f"preprocess.entry {config.entry}"):
        rows = as_rows(table)
    if not rows:
        raise InputError(f"preprocess.entry {config.entry}: holds no rows")
    return {"train": rows, "validation": [], "test": []}


def read_files(listing: Listing) -> dict[str, list[Row]]:
    """The rows of all files, by the split that the file's name or a folder's says: those of no other are to train."""
    found: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for path, name in zip(listing.paths, listing.names, strict=True):
        with telling(path):
            found[split_of(listing, name)] += read_rows(path)
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


def with_target(rows: Mapping[str, Sequence[Row]], config: RowsPreprocessConfig) -> dict[str, list[Row]]:
    """The rows of each split that say what the target is.

    An empty cell or ? says nothing, nor does what config.missing names; among numbers, none, NA and their kin do not
    either. Among words these may be classes, and are taken for such.
    """
    for split, part in rows.items():
        if (lacking := next((row for row in part if config.target not in row), None)) is not None:
            raise InputError(
                f"preprocess.target {config.target!r}: there is no such column in the {split} rows, which have "
                f"{listed(list(map(repr, lacking)))}"
            )
        check_cells(split, part, config.target)
    gaps = {"", "?", *(spelling.strip().lower() for spelling in config.missing)}
    cells = [row[config.target] for part in rows.values() for row in part]
    given = [cell for cell in cells if not is_gap(cell, gaps | GAPS)]
    if config.target_type == "number" or (not config.target_type and given and all(map(is_number, given))):
        gaps |= GAPS
    elif not config.target_type and (odd := looking_like_gaps(cell for cell in cells if not is_gap(cell, gaps))):
        logger.warning("%s. Where they are gaps, name them in preprocess.missing", odd)
    return {split: _known(split, part, config.target, gaps) for split, part in rows.items()}


def looking_like_gaps(cells: Iterable[Any]) -> str:
    """Which classes could be gaps as well, and how many rows have each; nothing where there are none."""
    counts = Counter(written(cell) for cell in cells if is_gap(cell, GAPS))
    named = [f"{name!r} ({counted(count, 'row')})" for name, count in counts.most_common()]
    return f"taken for classes: {listed(named)}" if named else ""


def _known(split: str, rows: Sequence[Row], target: str, gaps: Collection[str]) -> list[Row]:
    known = [row for row in rows if not is_gap(row[target], gaps)]
    say_left_out(split, len(rows) - len(known), f"without {target!r}")
    return known


def say_left_out(split: str, count: int, why: str) -> None:
    if count:
        verb = "is" if count == 1 else "are"
        logger.warning("%s: %s %s %s left out", split, counted(count, "row"), why, verb)


def check_cells(split: str, rows: Sequence[Row], name: str) -> None:
    """InputError where a cell of the column is no single value, such as a list, or no valid text."""
    for place, row in enumerate(rows, 1):
        try:
            written(row[name])
        except ValueError as error:
            raise InputError(f"the {split} rows, number {place}, column {name!r}: {error}") from None


def some(rows: Mapping[str, Sequence[Row]]) -> Sequence[Row]:
    """Those of the first split that has any."""
    return next(filter(None, rows.values()), ())


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
    parts: Mapping[str, Sequence[Row]], config: RowsPreprocessConfig, as_classes: bool, *, quiet: bool = False
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
    if not quiet:
        log_classes(classes, labels)
    return Classes(classes=classes), labels


def _in_order(name: str) -> tuple[bool, float, str]:
    """Numbers by their size, before words."""
    try:
        return False, number(name), name
    except ValueError:
        return True, 0.0, name


# ---- what there is, for a task that is proposed ---------------------------------------------------------------------

LOOKED_AT = 1000  # rows of a table, to find the column of texts
WORDS, ALONE = 5, 2  # of a text, on average, at least: fewer are names, but for the only column that there is
DIFFERENT = 100  # texts, or half of them where there are few: fewer are categories, and so are dates in words
MOST_OTHERS = 3  # columns of numbers and categories beside it, or it is a table with texts in it
BESIDE = {"", ".md"}  # files that may lie beside tables, as README and LICENSE


def is_table(path: Path) -> bool:
    """Whether it is a table, or a folder of tables and of what says something of them."""
    if path.is_file():
        return path.suffix.lower() in SUFFIXES
    inner = (file for file in path.rglob("*") if file.is_file() and all(map(is_users, file.relative_to(path).parts)))
    suffixes = {file.suffix.lower() for file in inner} - BESIDE
    return bool(suffixes) and suffixes <= SUFFIXES


def first_rows(path: Path, count: int) -> list[Row]:
    """Of the table, or the first one of the folder."""
    if path.is_dir():
        path = min(file for file in path.rglob("*.*") if file.suffix.lower() in SUFFIXES and is_users(file.name))
    with telling(path), opened_table(path) as (names, lines):
        return [dict(zip(names, cells, strict=False)) for _, cells in islice(lines, count)]


def text_column(rows: Sequence[Row], target: str | None = None) -> str | None:
    """The column with the longest texts, where there are such and few other columns."""
    names = [name for name in (rows[0] if rows else ()) if name != target]
    least = ALONE if target and len(names) == 1 else WORDS
    lengths = {name: _text_length([row.get(name) for row in rows], least) for name in names}
    lengths = {name: length for name, length in lengths.items() if length}
    few = bool(rows) and len(rows[0]) - len(lengths) <= MOST_OTHERS
    return max(lengths, key=lambda name: lengths[name]) if lengths and few else None


def _text_length(cells: Sequence[Any], least: int) -> float:
    """How many characters a cell has on average; 0 where they are no texts: names, dates, identifiers, addresses."""
    texts = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
    words = [spoken_words(text) for text in texts]
    different = len(set(map(tuple, words))) > min(len(texts) / 2, DIFFERENT)
    if not different or sum(map(len, words)) < least * len(texts):
        return 0.0
    return sum(map(len, texts)) / len(texts)


def check_target(path: Path, rows: Sequence[Row], target: str | None) -> None:
    """InputError, as `kedro task new` says it, unless the target is one of the columns."""
    if target not in rows[0]:
        wrong = f"there is no column {target!r}" if target else "it must be said which column is to be told"
        raise InputError(f"{path}: {wrong}. Say --target with one of {listed(list(map(repr, rows[0])))}")


def check_split(rows: dict[str, list[Row]], config: RowsPreprocessConfig) -> bool:
    """Whether the target is classes; InputError where a run would not take these rows either."""
    as_classes = are_classes([row[config.target] for part in rows.values() for row in part], config)
    targets_of(split_rows(rows, config, [config.target] if as_classes else []), config, as_classes, quiet=True)
    return as_classes


def target_lines(target: str, cells: Sequence[Any], as_classes: bool) -> list[str]:
    """What there is to know of the target."""
    if not as_classes:
        numbers = numbers_of(cells, target)
        return [f"{target}: a number from {numbers.min():.7g} to {numbers.max():.7g}, {numbers.mean():.7g} on average"]
    counts = Counter(map(written, cells)).most_common()
    shown = ", ".join(f"{name} {count / len(cells):.1%}" for name, count in counts[:10])
    odd = looking_like_gaps(cells)
    return [
        f"{target}: one of {len(counts)} classes: {shown}{', …' if len(counts) > 10 else ''}",
        *([f"{target}: {odd}"] if odd else []),
    ]


def numbers_of(cells: Sequence[Any], target: str) -> np.ndarray:
    """The cells of the target as (N,) float64; InputError names the one that is no number."""
    try:
        return np.array([number(cell) for cell in cells], dtype=np.float64)
    except ValueError as error:
        raise InputError(
            f"preprocess.target {target!r}: {error}. If these are classes, say target_type: classes"
        ) from None
