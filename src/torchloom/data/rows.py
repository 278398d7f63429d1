"""The rows of a user's own tables, by splits.

Rows are dicts by the names of the columns. Cells of CSV files are texts, and those of other tables what they are.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from torchloom.config import TablePlace
from torchloom.data.class_folders import split_of
from torchloom.data.columns import is_flag, written
from torchloom.data.tables import SUFFIXES, as_rows, opened_table
from torchloom.data.text import spoken_words
from torchloom.datasets.listing import Listing, is_users, scan
from torchloom.errors import InputError, printable, telling
from torchloom.system.words import counted, listed

logger = logging.getLogger(__name__)

Row = dict[str, Any]


def find_tables(config: TablePlace) -> Listing:
    """List the file, or the tables in the folder."""
    assert config.files is not None
    listing = scan(Path(config.files), "preprocess.files", SUFFIXES)
    listing.say_links()
    return listing


def read_entry(table: Any, config: TablePlace) -> dict[str, list[Row]]:
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


def say_duplicates(
    parts: Mapping[str, Sequence[Row]],
    names: Sequence[str],
    plain: Callable[[str], str] = str,
    called: str | None = None,
) -> None:
    """Warn of rows to validate and to test that training has too, in the columns of these names.

    What `plain` makes equal counts as such. Rows are named by the column `called`, or else by their numbers.
    """

    def key(row: Row) -> int:
        return hash(tuple(plain(written(row.get(name))) for name in names))

    known = set(map(key, parts["train"]))
    for split in ("validation", "test"):
        again = [
            str(row[called] if called else place) for place, row in enumerate(parts[split], 1) if key(row) in known
        ]
        if again:
            logger.warning(
                "%s: %d of %s are among the training rows too, with this or another target, and what is measured on "
                "them says little: %s%s",
                *(split, len(again), counted(len(parts[split]), "row")),
                *("" if called else "the numbers ", printable(listed(again))),
            )


# ---- what there is, for a task that is proposed ---------------------------------------------------------------------

LOOKED_AT = 1000  # rows of a table, to find the column of texts
WORDS, ALONE = 5, 2  # of a text, on average, at least: fewer are names, but for the only column that there is
DIFFERENT = 100  # texts, or half of them where there are few: fewer are categories, and so are dates in words
MOST_OTHERS = 3  # columns of numbers and categories beside it, or it is a table with texts in it
BESIDE = {"", ".md"}  # files that may lie beside tables, as README and LICENSE
ABOUT = {"dataset_info.json", "state.json", "dataset_dict.json"}  # what Hugging Face's datasets says of its tables


def is_table(path: Path) -> bool:
    """Whether it is a table, or a folder of tables and of what says something of them."""
    if path.is_file():
        return path.suffix.lower() in SUFFIXES
    inner = (file for file in path.rglob("*") if file.is_file() and all(map(is_users, file.relative_to(path).parts)))
    suffixes = {file.suffix.lower() for file in inner if file.name not in ABOUT} - BESIDE
    return bool(suffixes) and suffixes <= SUFFIXES


def first_rows(path: Path, count: int) -> list[Row]:
    """Of the table, or the first one of the folder."""
    if path.is_dir():
        path = min(file for file in path.rglob("*.*") if file.suffix.lower() in SUFFIXES and is_users(file.name))
    with telling(path), opened_table(path) as (names, lines):
        return [dict(zip(names, cells, strict=False)) for _, cells in islice(lines, count)]


def text_column(rows: Sequence[Row], targets: Sequence[str] = ()) -> str | None:
    """The column with the longest texts, where there are such and few other columns but for those of yes and no."""
    names = [name for name in (rows[0] if rows else ()) if name not in targets]
    least = ALONE if targets and len(names) == 1 else WORDS
    lengths = {name: _text_length([row.get(name) for row in rows], least) for name in names}
    lengths = {name: length for name, length in lengths.items() if length}
    flags = [name for name in names if all(is_flag(row.get(name)) for row in rows)]
    few = bool(rows) and len(names) - len(lengths) - len(flags) <= MOST_OTHERS
    return max(lengths, key=lambda name: lengths[name]) if lengths and few else None


def _text_length(cells: Sequence[Any], least: int) -> float:
    """How many characters a cell has on average; 0 where they are no texts: names, dates, identifiers, addresses."""
    texts = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
    words = [spoken_words(text) for text in texts]
    different = len(set(map(tuple, words))) > min(len(texts) / 2, DIFFERENT)
    if not different or sum(map(len, words)) < least * len(texts):
        return 0.0
    return sum(map(len, texts)) / len(texts)
