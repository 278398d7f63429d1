"""Tables in a user's files, row by row: CSV, whatever separates its cells, also packed, Parquet and JSON lines."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from torchloom.errors import InputError
from torchloom.system.words import counted

SEPARATORS = (",", ";", "\t", "|")
BINARY = {".parquet", ".jsonl", ".ndjson"}  # what pyarrow reads, and has types
TEXT = {".csv", ".tsv"}
PACKED = {".zip", ".gz"}  # of one CSV file
SUFFIXES = TEXT | BINARY | PACKED

Rows = Iterator[tuple[int, list[Any]]]  # of each row the number of its line, or of the row, and its cells


class MissingColumnError(InputError):
    """A row lacks columns; `check_columns` raises it."""


def check_columns(needed: Iterable[str], row: Mapping[str, Any]) -> None:
    """MissingColumnError unless the row has a value, which may be a gap, by each of these names."""
    if lacking := [name for name in needed if name not in row]:
        raise MissingColumnError(f"lacks {', '.join(map(repr, lacking))}")


@contextmanager
def opened_table(path: Path) -> Iterator[tuple[list[str], Rows]]:
    """The names of the columns, and the rows; InputError, here or when it comes to that row, when it is no such table.

    Cells of a CSV file are texts without spaces around them; a row may have more or less of them than there are names.
    """
    if path.suffix.lower() in BINARY:
        batches = _batches(path)
        yield batches.schema.names, _typed_rows(batches)
        return
    with opened_text(path, newline="") as file:
        first = file.readline(1 << 20)
        file.seek(0)
        lines = csv.reader(file, delimiter=separator_of(first), skipinitialspace=True)
        try:
            names = [name.strip() for name in next(lines, [])]
        except csv.Error as error:
            raise _no_csv(lines.line_num, error) from error
        yield names, _cells(lines)


def separator_of(line: str) -> str:
    """What separates the cells of a line of names: the most frequent of the usual marks, else a comma."""
    return max(SEPARATORS, key=line.count)


def as_rows(table: Any) -> list[dict[str, Any]]:
    """The rows of a table of Arrow, Polars or pandas, or those of a list, by the names of their columns."""
    if isinstance(table, list):
        return table
    if hasattr(table, "to_pylist"):
        return table.to_pylist()  # type: ignore[no-any-return]
    if hasattr(table, "to_dicts"):
        return table.to_dicts()  # type: ignore[no-any-return]
    if hasattr(table, "to_dict"):
        return table.to_dict("records")  # type: ignore[no-any-return]
    raise InputError(
        f"is of the type {type(table).__name__}, and no table of pandas, Polars or Arrow, nor a list of rows"
    )


def _cells(lines: Any) -> Rows:
    try:
        for row in lines:
            if row:
                yield lines.line_num, [cell.rstrip() for cell in row]
    except csv.Error as error:
        raise _no_csv(lines.line_num, error) from error


def _no_csv(line: int, error: csv.Error) -> InputError:
    return InputError(f"line {line} is not CSV ({error})")


def _batches(path: Path) -> Any:
    import pyarrow
    from pyarrow import json, parquet

    read: Any = parquet.read_table if path.suffix.lower() == ".parquet" else json.read_json
    try:
        return read(path)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"cannot be read as a table ({reason})") from error


def _typed_rows(table: Any) -> Rows:
    number = 0
    for batch in table.to_batches(max_chunksize=10_000):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            number += 1
            yield number, list(row)


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of the file, or those of the one CSV file that it packs."""
    suffix = path.suffix.lower()
    if suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            files = [entry for entry in archive.namelist() if not entry.endswith("/")]
            tables = [entry for entry in files if Path(entry).suffix.lower() in TEXT and "__MACOSX" not in entry]
            if len(tables) != 1:
                raise InputError(f"packs {counted(len(tables), 'CSV file')}, and must pack one; unpack it")
            with archive.open(tables[0]) as file:
                yield file
    else:
        with gzip.open(path) if suffix == ".gz" else path.open("rb") as file:
            yield file  # type: ignore[misc]


@contextmanager
def opened_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """A file as text; what is wrong with it is an InputError."""
    try:
        with _unpacked(path) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline=newline) as file:
            yield file
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(f"cannot be unpacked ({error})") from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"is not a text in UTF-8 ({error.reason}). Save it as such") from error
