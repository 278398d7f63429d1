"""Where the samples are in a user's files: one in each, in the lines of a text, or in the rows of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torchloom.data.columns import written
from torchloom.data.rows import read_rows
from torchloom.data.tables import SUFFIXES, MissingColumnError, check_columns, opened_table, opened_text
from torchloom.datasets.listing import Listing
from torchloom.errors import InputError

LARGEST_TEXT = 10_000_000  # characters of a file, before it is cut into tokens

Sample = tuple[str, Callable[[], Any]]  # what it is called in the tables, and how it is read


def _named(files: Listing) -> Iterator[tuple[Path, str]]:
    """The files, and what they are called; of each nothing is held when it has been handed on."""
    return zip(files.paths, map(_readable, files.names), strict=True)


def files_of(files: Listing, read: Callable[[Any], Any]) -> Iterator[Sample]:
    """Each file, opened in binary."""
    for path, name in _named(files):
        yield name, partial(_binary, path, read)


def texts_of(files: Listing, read: Callable[[Any], Any], column: str | None = None) -> Iterator[Sample]:
    """The text in each file of a folder, or in each line of one file, or in each row of tables, in that column."""
    for path, name in _named(files):
        if column is not None and path.suffix.lower() in SUFFIXES:
            yield from _each(name, _rows(path, partial(_cell, column, read)))
        elif files.single:
            yield from _each(name, _lines(path, read))
        else:
            yield name, partial(_text, path, read)


def _cell(column: str, read: Callable[[Any], Any], row: dict[str, Any]) -> Any:
    check_columns([column], row)
    if not isinstance(row[column], str):
        raise InputError(f"{column}: holds {row[column]!r}, and no text")
    return read(row[column])


def rows_of(files: Listing, read: Callable[[Any], Any]) -> Iterator[Sample]:
    """Each row of tables, by the names of their columns, which are at the top of a CSV file."""
    for path, name in _named(files):
        yield from _each(name, _rows(path, read))


def tables_of(files: Listing, read: Callable[[Any], Any], column: str | None = None) -> Iterator[Sample]:
    """Each table with all its rows; where it has that column, the rows for each of its values."""
    for path, name in _named(files):
        try:
            rows = read_rows(path)
        except InputError as error:
            yield name, partial(_fail, error)
            continue
        parts: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            parts.setdefault("" if column is None else written(row.get(column, "")), []).append(row)
        for part, its_rows in parts.items():
            yield f"{name}:{part}" if part else name, partial(read, its_rows)


def _readable(name: str) -> str:
    """A file's name as valid text: bytes that are not UTF-8 are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _each(name: str, parts: Iterator[tuple[int, Callable[[], Any]]]) -> Iterator[Sample]:
    """A sample for each line of the file `name`, and one that fails when the file cannot be read to its end."""
    try:
        for line, read in parts:
            yield f"{name}:{line}", read
    except InputError as error:
        yield name, partial(_fail, error)


def _fail(error: InputError) -> None:
    raise error


def _binary(path: Path, read: Callable[[Any], Any]) -> Any:
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError("is empty")
            file.seek(0)
            return read(file)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error


def _text(path: Path, read: Callable[[Any], Any]) -> Any:
    with opened_text(path) as file:
        text = file.read(LARGEST_TEXT + 1)
    if len(text) > LARGEST_TEXT:
        raise InputError(f"holds more than {LARGEST_TEXT:,} characters")
    return read(text.removesuffix("\n"))  # all else may belong to a prompt


def _lines(path: Path, read: Callable[[Any], Any]) -> Iterator[tuple[int, Callable[[], Any]]]:
    with opened_text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, partial(read, line.rstrip("\n"))


def _rows(path: Path, read: Callable[[Any], Any]) -> Iterator[tuple[int, Callable[[], Any]]]:
    with opened_table(path) as (names, rows):
        _check_names(names, read)
        for line, row in rows:
            yield line, partial(_row, names, row, read)


def _check_names(names: list[str], read: Callable[[Any], Any]) -> None:
    """InputError when no row below such a line of names can be read, or when it is unclear which of its cells are."""
    if lacking := _lacking(names, read):
        given = ", ".join(map(repr, names)) or "nothing"
        raise InputError(f"{lacking.message}; its first line must name the columns, and has {given}") from lacking
    counts = Counter(names)
    if lacking := _lacking([name for name, count in counts.items() if count == 1], read):
        twice = ", ".join(repr(name) for name, count in counts.items() if count > 1)
        raise InputError(
            f"its first line names {twice} more than once, and only one can be meant. Rename or remove the others"
        ) from lacking


def _lacking(names: list[str], read: Callable[[Any], Any]) -> MissingColumnError | None:
    try:
        read(dict.fromkeys(names, "0"))
    except MissingColumnError as error:
        return error
    except InputError:  # one of these cells: others will say so
        pass
    return None


def _row(names: list[str], row: list[str], read: Callable[[Any], Any]) -> Any:
    if len(row) != len(names):
        raise InputError(f"has {len(row)} cells, but the first line names {len(names)} columns")
    return read(dict(zip(names, row, strict=True)))
