"""Tables in a user's files, row by row: CSV, whatever separates its cells, Parquet, Arrow, JSON lines, and packed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, TextIO, cast

from torchloom.data import arrays
from torchloom.errors import InputError
from torchloom.system.words import counted

SEPARATORS = (",", ";", "\t", "|")
BINARY = {".parquet", ".arrow", ".jsonl", ".ndjson"} | arrays.ENDINGS  # what has types
TEXT = {".csv", ".tsv"}
EXCEL = {".xlsx", ".xls", ".xlsm", ".ods"}
PACKED = {".zip", ".gz"}  # of one CSV file, or in the latter of one of the others
SUFFIXES = TEXT | BINARY | PACKED
LARGEST_UNPACKED = 1 << 30  # bytes: a few kilobytes may unpack to more than any memory holds
LIKELY_UNPACKED = 50_000_000, 200  # bytes that any file may unpack to, and times its size: of tables it is 5 to 20
LARGEST_TEXT = 10_000_000  # characters of a file that is one text
LONGEST_LINE = 100_000_000  # characters of a CSV file
LARGEST_BLOCK = (1 << 31) - 1  # bytes of JSON lines that Arrow reads as one
AT_ONCE = 1 << 16  # rows of a file that are in memory at once

csv.field_size_limit(1 << 24)  # characters of a cell, as in datasets/reports.py; Python's own limit is 131,072

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
    Quotation marks stand around cells there, but where cells are separated by tabs and the marks do not fit.
    """
    if path.suffix.lower() in EXCEL:
        raise InputError("is a file of Excel. Save it as CSV, or name an entry of the catalog, a pandas.ExcelDataset")
    if is_typed(path):
        with opened_batches(path) as (schema, batches):
            yield schema.names, _typed_rows(batches)
        return
    with opened_text(path, newline="") as file:
        separator = separator_of(file.readline(1 << 20))
    plain = separator == "\t" and _has_odd_quotes(path)
    with opened_text(path, newline="") as file:
        rows = _cells(file, separator, csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL)
        _, names = next(rows, (0, []))
        yield [name.strip() for name in names], rows


def _kind(path: Path) -> str:
    """The suffix of a file, or of what a .gz packs."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def is_typed(path: Path) -> bool:
    """Whether cells of the file are more than texts."""
    return _kind(path) in BINARY


def separator_of(line: str) -> str:
    """What separates the cells of a line of names: the most frequent of the usual marks, else a comma."""
    return max(SEPARATORS, key=line.count)


def _cells(file: TextIO, separator: str, quoting: int = csv.QUOTE_MINIMAL, strict: bool = False) -> Rows:
    """The rows of a CSV file that are not empty."""
    seen: list[str] = []  # the lines of a row
    form: Any = {"delimiter": separator, "skipinitialspace": True, "quoting": quoting}
    lines = csv.reader(_lines(file, seen), strict=strict, **form)
    try:
        for row in lines:
            if len(seen) > 1:  # which a lone quotation mark takes for one
                list(csv.reader(seen, strict=True, **form))
            if row:
                yield lines.line_num, [cell.rstrip() for cell in row]
            seen.clear()
    except csv.Error as error:
        advice = ". A quotation mark within a quoted cell must be doubled" if len(seen) > 1 else ""
        raise InputError(f"line {lines.line_num - len(seen) + 1} is not CSV ({error}){advice}") from error


def _lines(file: TextIO, seen: list[str]) -> Iterator[str]:
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), 1):
        if len(line) == LONGEST_LINE:
            raise InputError(f"line {number} has {LONGEST_LINE:,} characters or more: this is no CSV file")
        seen.append(line)
        yield line


def _has_odd_quotes(path: Path) -> bool:
    """Whether cells that begin with a quotation mark do not end with one, or only in another row, among tabs."""
    with opened_text(path, newline="") as file:
        try:
            return any("\n" in cell and "\t" in cell for _, row in _cells(file, "\t", strict=True) for cell in row)
        except InputError:
            return True


def _arrow_batches(source: Any) -> Iterator[Any]:
    """Those of either of Arrow's formats: of files, or of streams, as Hugging Face's datasets saves them."""
    import pyarrow

    with pyarrow.memory_map(str(source)) if isinstance(source, Path) else source as file:
        start = file.read(6)
        file.seek(0)
        if start != b"ARROW1":
            with pyarrow.ipc.open_stream(file) as stream:
                yield stream.schema
                yield from stream
            return
        whole = pyarrow.ipc.open_file(file)
        yield whole.schema
        yield from map(whole.get_batch, range(whole.num_record_batches))


def _parquet_batches(source: Any) -> Iterator[Any]:
    from pyarrow import parquet

    with parquet.ParquetFile(source, memory_map=True) as file:
        yield file.schema_arrow
        yield from file.iter_batches(AT_ONCE)


def _json_batches(source: Any) -> Iterator[Any]:
    import pyarrow

    table = _read_json(source)
    texts = [field.name for field in table.schema if pyarrow.types.is_temporal(field.type)]
    if texts:  # which are to stay as they are written
        kinds = [field.with_type(pyarrow.string()) if field.name in texts else field for field in table.schema]
        table = _read_json(source, pyarrow.schema(kinds))
    yield table.schema
    yield from table.to_batches()


def _read_json(source: Any, schema: Any = None) -> Any:
    """A table of JSON lines, in Arrow's blocks, or as one where a line is longer than such.

    InputError names the line that is wrong: Arrow counts rows from where a block begins.
    """
    import pyarrow
    from pyarrow import json as json_lines

    given = source.read_bytes if isinstance(source, Path) else lambda: source.seek(0) or source.read()
    parsed = json_lines.ParseOptions(explicit_schema=schema)
    try:
        return json_lines.read_json(source if isinstance(source, Path) else io.BytesIO(given()), parse_options=parsed)
    except pyarrow.ArrowInvalid:
        data = given()
    try:
        one = json_lines.ReadOptions(block_size=min(len(data) + 1, LARGEST_BLOCK))
        return json_lines.read_json(io.BytesIO(data), read_options=one, parse_options=parsed)
    except pyarrow.ArrowInvalid as error:
        match = re.fullmatch(r"(?:JSON parse error: )?(.*?) in row (\d+)", str(error).splitlines()[0])
        if match is None or len(data) >= LARGEST_BLOCK:
            raise
        lines = (number for number, line in enumerate(io.BytesIO(data), 1) if line.strip())
        line = next(islice(lines, int(match[2]), None), "?")
        raise InputError(f"line {line} cannot be read as a row ({match[1]})") from error


def _array_batches(source: Any) -> Iterator[Any]:
    table = arrays.read_table(source)
    yield table.schema
    yield from table.to_batches(max_chunksize=AT_ONCE)


def with_names(table: Any) -> Any:
    """The table with the names of classes in place of their numbers, where Hugging Face's datasets has said these.

    A number below 0 is a gap there.
    """
    import pyarrow

    said = (table.schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(said)["info"]["features"] if said else {}
        named = {name: each["names"] for name, each in features.items() if each.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return table  # as another version has it
    for name, names in named.items():
        place = table.column_names.index(name)
        cells = [names[number] if number is not None and number >= 0 else None for number in table[name].to_pylist()]
        table = table.set_column(place, name, pyarrow.array(cells, pyarrow.string()))
    return table


@contextmanager
def opened_batches(path: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    """The schema of a table that `is_typed`, and its rows in record batches of Arrow; InputError as `opened_table`."""
    import pyarrow

    readers = {".parquet": _parquet_batches, ".arrow": _arrow_batches}
    read = (readers | dict.fromkeys(arrays.ENDINGS, _array_batches)).get(_kind(path), _json_batches)
    with _explained(), ExitStack() as stack:
        source: Any = path
        if path.suffix.lower() == ".gz":
            source = pyarrow.BufferReader(stack.enter_context(_unpacked(path)).read())
        batches = stack.enter_context(closing(_readable(read(source))))
        schema = next(batches)
        named = with_names(schema.empty_table()).schema
        yield named, (part for batch in batches for part in _named(batch))


def _readable(batches: Iterator[Any]) -> Generator[Any]:
    """The same, and what Arrow finds wrong as an InputError."""
    import pyarrow

    try:
        yield from batches
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"cannot be read as a table ({reason})") from error


def _named(batch: Any) -> list[Any]:
    import pyarrow

    return with_names(pyarrow.Table.from_batches([batch])).to_batches(max_chunksize=AT_ONCE)  # type: ignore[no-any-return]


def _typed_rows(batches: Iterator[Any]) -> Rows:
    number = 0
    for batch in batches:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            number += 1
            yield number, list(row)


class _Bounded(io.RawIOBase):
    """What a file of so many bytes packs; InputError when that is more than tables do."""

    def __init__(self, file: IO[bytes], packed: int) -> None:
        least, times = LIKELY_UNPACKED
        self.file, self.most = file, min(LARGEST_UNPACKED, max(least, times * packed))
        self.left = self.most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self.file.read(len(buffer))
        self.left -= len(read)
        if self.left < 0:
            raise InputError(f"unpacks to more than {self.most:,} bytes. If that is right, unpack it before")
        buffer[: len(read)] = read
        return len(read)


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
                yield io.BufferedReader(_Bounded(file, path.stat().st_size))
    elif suffix == ".gz":
        with gzip.open(path) as packed:
            yield io.BufferedReader(_Bounded(cast(IO[bytes], packed), path.stat().st_size))
    else:
        with path.open("rb") as file:
            yield file


@contextmanager
def _explained() -> Iterator[None]:
    """What is wrong with a file, as an InputError."""
    try:
        yield
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(f"cannot be unpacked ({error})") from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"is not a text in UTF-8 ({error.reason}). Save it as such") from error


@contextmanager
def opened_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """A file as text; what is wrong with it is an InputError."""
    with (
        _explained(),
        _unpacked(path) as binary,
        io.TextIOWrapper(binary, encoding="utf-8-sig", newline=newline) as file,
    ):
        yield file


def read_text(path: Path) -> str:
    """A file that is one text; InputError when it is none, or a very long one."""
    with opened_text(path) as file:
        text = file.read(LARGEST_TEXT + 1)
    if len(text) > LARGEST_TEXT:
        raise InputError(f"holds more than {LARGEST_TEXT:,} characters")
    return text
