"""The rows of a user's own tables, by splits.

Rows are dicts by the names of the columns. Cells of CSV files are texts, and those of other tables what they are.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np

from torchloom.config import TablePlace
from torchloom.data.class_folders import split_of
from torchloom.data.columns import is_flag, is_number, written
from torchloom.data.documents import packed_names
from torchloom.data.entries import as_blocks, as_rows
from torchloom.data.stored import BLOCK, LINE, Cells, Line, Rows, array_of, called_in, of_each, stored, together
from torchloom.data.stored import Row as Row
from torchloom.data.tables import SUFFIXES, is_typed, opened_batches, opened_table
from torchloom.data.text import spoken_words
from torchloom.data.writing import USUAL, Writing
from torchloom.datasets.listing import Listing, is_users, readable, scan
from torchloom.errors import InputError, printable, telling
from torchloom.system.words import counted, listed

logger = logging.getLogger(__name__)

Lines = Iterator[tuple[int, list[Any]]]
MIXED = 0x9E3779B97F4A7C15  # an odd number whose bits are in no order: the golden ratio's


def find_tables(config: TablePlace) -> Listing:
    """List the file, or the tables in the folder."""
    assert config.files is not None
    listing = scan(Path(config.files), "preprocess.files", SUFFIXES)
    listing.say_links()
    return listing


def read_entry(table: Any, config: TablePlace, writing: Writing | None = None) -> dict[str, list[Row]]:
    """The rows of a table that the catalog holds, all of them to train; `writing` if not as the block says."""
    with telling(f"preprocess.entry {config.entry}"):
        read = [Line(row, str(config.entry), number) for number, row in enumerate(as_rows(table), 1)]
        rows: list[Row] = plain(read, writing or writing_of(config))
    if not rows:
        raise InputError(f"preprocess.entry {config.entry}: holds no rows")
    return {"train": rows, "validation": [], "test": []}


def writing_of(config: TablePlace) -> Writing:
    """How the texts in the table write numbers and dates."""
    return Writing(decimal=config.decimal, date_format=config.date_format)


def plain(rows: Any, writing: Writing) -> Any:
    """The same rows, in a list or stored, with numbers and dates as they are usually written."""
    if writing == USUAL:
        return rows
    if isinstance(rows, Rows):
        return rows.read_by(writing.plain)
    return [Line(writing.row(row), row.file, row.part) for row in rows]


def read_files(listing: Listing, writing: Writing = USUAL) -> dict[str, list[Row]]:
    """The rows of all files, by the split that the file's name or a folder's says: those of no other are to train."""
    found: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for name, rows in read_each(listing, writing).items():
        found[split_of(listing, name)] += rows
    return found


def read_each(listing: Listing, writing: Writing = USUAL) -> dict[str, list[Row]]:
    """The rows of each file, by its name."""
    found: dict[str, list[Row]] = {}
    for path, name in zip(listing.paths, listing.names, strict=True):
        with telling(path):
            found[name] = plain(read_rows(path, name), writing)
    return found


def read_rows(path: Path, name: str | None = None) -> list[Row]:
    """The rows of a table, which know that they stand in the file of that `name`."""
    file = readable(path.name if name is None else name)
    with opened_table(path) as (names, lines):
        rows: list[Row] = [Line(zip(names, cells, strict=True), file, line) for line, cells in _whole(names, lines)]
    if not rows:
        raise InputError("holds no rows below its line of names")
    return rows


def _whole(names: Sequence[str], lines: Lines) -> Lines:
    """The same lines; InputError where one has not as many cells as there are names, of which no two are the same."""
    _check_names(names)
    for line, cells in lines:
        if len(cells) != len(names):
            raise InputError(f"line {line} has {len(cells)} cells, but the first line names {len(names)} columns")
        yield line, cells


def _check_names(names: Sequence[str]) -> None:
    if names and all(map(is_number, names)) and any("." in name for name in names):
        raise InputError(
            "its first line has numbers alone, and no names of columns. Put a line of names above it, such as "
            "label,t0,t1,t2 …"
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"its first line names {listed(list(map(repr, twice)))} more than once. Rename one of them")


def store_files(
    listing: Listing, scratch: Path | None, most: int | None = None, writing: Writing = USUAL
) -> dict[str, Sequence[Row]]:
    """As `read_files`, but the rows lie in a temporary file in the folder `scratch`: memory may not hold them.

    Of each split they are `most` at most, the first ones.
    """
    left: dict[str, Any] = dict.fromkeys(("train", "validation", "test"), most)
    splits = [split_of(listing, name) for name in listing.names]
    tables = (_opened_batches(path, left, split) for path, split in zip(listing.paths, splits, strict=True))
    found = [rows.of_file(readable(name)) for name, rows in zip(listing.names, stored(tables, scratch), strict=True)]
    parts = {split: [rows for its, rows in zip(splits, found, strict=True) if its == split] for split in left}
    return {split: plain(together(part), writing) for split, part in parts.items()}


@contextmanager
def _opened_batches(path: Path, left: dict[str, Any], split: str) -> Iterator[Iterator[Any]]:
    """The rows of a table in record batches of Arrow, as many as there are `left` of the split."""
    with telling(path):
        if is_typed(path):
            with opened_batches(path) as (schema, batches):
                yield _first(_checked(schema.names, batches), left, split)
        else:
            with opened_table(path) as (names, lines):
                yield _first(_checked(names, _batches_of(names, lines)), left, split)


def _first(batches: Iterator[Any], left: dict[str, Any], split: str) -> Iterator[Any]:
    if left[split] is None:
        yield from batches
    while left[split]:
        if (batch := next(batches, None)) is None:
            return
        yield batch[: left[split]]
        left[split] -= min(len(batch), left[split])


def _checked(names: Sequence[str], batches: Iterator[Any]) -> Iterator[Any]:
    """The same; InputError unless they have rows, and a name for each column."""
    _check_names(names)
    count = 0
    for batch in batches:
        count += len(batch)
        yield batch
    if not count:
        raise InputError("holds no rows below its line of names")


def _batches_of(names: list[str], lines: Lines) -> Iterator[Any]:
    """Cells that are texts, so many rows at once, and the numbers of their lines."""
    import pyarrow

    whole = _whole(names, lines)
    while rows := list(islice(whole, BLOCK)):
        numbers, cells = zip(*rows, strict=True)
        columns = [pyarrow.array(column, pyarrow.string()) for column in zip(*cells, strict=True)]
        lines_of = pyarrow.array(numbers, pyarrow.int64())
        yield pyarrow.RecordBatch.from_arrays([*columns, lines_of], names=[*names, LINE])


def store_entry(table: Any, config: TablePlace) -> dict[str, Sequence[Row]]:
    """As `read_entry`, but the rows stay the table's own."""
    with telling(f"preprocess.entry {config.entry}"):
        rows = plain(Rows(as_blocks(table, BLOCK)).of_file(str(config.entry)), writing_of(config))
    if not rows:
        raise InputError(f"preprocess.entry {config.entry}: holds no rows")
    return {"train": rows, "validation": [], "test": []}


def names_of(parts: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, np.ndarray]]:
    """The arrays that say what the rows of each split are called; none where some do not know."""
    found = {split: called_in(rows) for split, rows in parts.items()}
    if any(each is None for each in found.values()):
        return {split: {} for split in parts}
    return {split: packed_names(each or ()) for split, each in found.items()}


def say_left_out(split: str, count: int, why: str) -> None:
    if count:
        verb = "is" if count == 1 else "are"
        logger.warning("%s: %s %s %s left out", split, counted(count, "row"), why, verb)


def check_cells(split: str, rows: Sequence[Row], name: str) -> None:
    """InputError where a cell of the column is no single value, such as a list, or no valid text."""
    read = 0
    try:
        for read, _ in enumerate(of_each(written, Cells(rows, name)), 1):  # noqa: B007
            pass
    except ValueError as error:
        raise InputError(f"the {split} rows, number {read + 1}, column {name!r}: {error}") from None


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

    def read(cell: Any) -> int:
        try:
            return hash(plain(written(cell)))
        except ValueError:  # of which there are none to train
            return hash(repr(cell))

    known = np.sort(hashes(parts["train"], names, read))
    for split in ("validation", "test"):
        keys = hashes(parts[split], names, read)
        places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        again = np.flatnonzero(known[places] == keys).tolist()
        if again:
            logger.warning(
                "%s: %d of %s are among the training rows too, with this or another target, and what is measured on "
                "them says little: %s",
                *(split, len(again), counted(len(parts[split]), "row")),
                printable(_named(split, parts[split], again, names, called)),
            )


def _named(split: str, rows: Sequence[Row], places: Sequence[int], names: Sequence[str], called: str | None) -> str:
    """The rows at these places as a person finds them again."""
    if called:
        return listed([str(rows[place][called]) for place in places])
    numbers = listed([str(place + 1) for place in places])
    first = listed([f"{name} {short(written(rows[places[0]].get(name)))}" for name in names], 5)
    where = f"of the {split} rows, in the order of the files and counted from 1, the numbers"
    return f"{where} {numbers}; the first is {first}"


def hashes(rows: Sequence[Row], names: Sequence[str], read: Callable[[Any], int]) -> np.ndarray:
    """A number (N,) uint64 for each row, the same where `read` makes the same of the cells in these columns."""
    found = np.zeros(len(rows), dtype=np.uint64)
    for name in names:
        found *= np.uint64(MIXED)
        found += array_of(read, Cells(rows, name), np.int64).view(np.uint64)
        found ^= found >> np.uint64(32)
    return found


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
        _check_names(names)
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
