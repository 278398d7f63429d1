"""The rows of a user's own tables, by splits.

Rows are dicts by the names of the columns. Cells of CSV files are texts, and those of other tables what they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from torchloom.config import RowsPreprocessConfig
from torchloom.data.class_folders import split_of
from torchloom.data.columns import is_flag, is_gap, is_number
from torchloom.data.row_targets import named_targets, separator_in
from torchloom.data.tables import SUFFIXES, as_rows, opened_table
from torchloom.datasets.listing import Listing
from torchloom.errors import InputError
from torchloom.system.words import listed

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


def text_column(rows: Sequence[Row], targets: Sequence[str] = ()) -> str | None:
    """The column with the longest texts, where there are such and few other columns but for those of yes and no."""
    lengths: dict[str, float] = {}
    names = [name for name in rows[0] if name not in targets] if rows else []
    for name in names:
        cells = [row[name] for row in rows if isinstance(row.get(name), str) and row[name].strip()]
        different = len(set(cells)) > len(cells) / 2 and not all(map(is_number, cells))
        if different and sum(map(len, cells)) > LONG * len(cells):
            lengths[name] = sum(map(len, cells)) / len(cells)
    flags = [name for name in names if all(is_flag(row.get(name)) for row in rows)]
    few = bool(rows) and len(names) - len(lengths) - len(flags) <= MOST_OTHERS
    return max(lengths, key=lambda name: lengths[name]) if lengths and few else None


def check_target(path: Path, rows: Sequence[Row], target: str | None) -> list[str]:
    """The columns of the target; InputError, as `kedro task new` says it, unless they are there."""
    names = named_targets(rows, target) if target else []
    if not names or set(names) - set(rows[0]):
        lacking = next((name for name in names if name not in rows[0]), None)
        wrong = f"there is no column {lacking!r}" if names else "it must be said which column is to be told"
        raise InputError(f"{path}: {wrong}. Say --target with one of {listed(list(map(repr, rows[0])))}")
    return names


def asked_here(rows: Sequence[Row], names: Sequence[str], gaps: frozenset[str]) -> dict[str, Any]:
    """The keys of a block `preprocess` that say what is to be told of rows of which nothing else is known."""
    if len(names) > 1:
        return {"target": list(names)}
    mark = separator_in([row[names[0]] for row in rows if not is_gap(row[names[0]], gaps)])
    return {"target": names[0], **({"separator": mark} if mark else {})}
