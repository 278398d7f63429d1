"""Rows of tables that may be larger than the memory: they stay where they are, and are looked at a block at a time.

What is found out of rows is found out of their columns, by the functions here, which take plain lists of rows as well.
A row is a dict by the names of the columns.
"""

from __future__ import annotations

import datetime
import mmap
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, chain, compress, pairwise
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, TYPE_CHECKING, Any, overload

import numpy as np

from torchloom.errors import InputError

if TYPE_CHECKING:
    import pyarrow

Row = dict[str, Any]
LINE = "\0line"  # the numbers of rows that are lines of a text, by a name that no column has
BLOCK = 1 << 16  # rows that are looked at at once
ONCE = {str, int, datetime.date, type(None)}  # types whose equal cells, of whichever of them, are the same

Opened = AbstractContextManager[Iterator["pyarrow.RecordBatch"]]


@dataclass(frozen=True)
class Block:
    """Some rows of a table: the names of their columns, how many they are, and the cells of a column, all or those that
    a mask (`count`,) chooses; likewise what they are called, where that is known."""

    names: list[str]
    count: int
    cells: Callable[[str, np.ndarray | None], list[Any]]
    lined: bool = False  # whether it has cells of LINE
    called: Callable[[np.ndarray | None], list[str]] | None = None


class Line(Row):
    """A row that knows in which `file`, or entry of the catalog, it stands, and which `part` of that it is."""

    __slots__ = ("file", "part")

    def __init__(self, row: Iterable[Any], file: str, part: int | str) -> None:
        super().__init__(row)
        self.file, self.part = file, part

    @property
    def called(self) -> str:
        return f"{self.file}:{self.part}" if self.part != "" else self.file


class Rows(Sequence[Row]):
    """The rows of several blocks, or those that a mask for each block chooses, in order."""

    def __init__(self, blocks: Sequence[Block], masks: Sequence[np.ndarray | None] | None = None) -> None:
        self.blocks, self.masks = list(blocks), list(masks or [None] * len(blocks))
        self.counts = [
            block.count if mask is None else int(mask.sum())
            for block, mask in zip(self.blocks, self.masks, strict=True)
        ]
        self.ends = list(accumulate(self.counts))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        place += len(self) if place < 0 else 0
        if not 0 <= place < len(self):
            raise IndexError(place)
        number = bisect_right(self.ends, place)
        block, mask = self.blocks[number], np.zeros(self.blocks[number].count, dtype=bool)
        mask[self._chosen(number)[place - self.ends[number] + self.counts[number]]] = True
        return {name: block.cells(name, mask)[0] for name in block.names}

    def __iter__(self) -> Iterator[Row]:
        return self.records()

    def records(self, names: Sequence[str] | None = None) -> Iterator[Row]:
        """The rows, with these columns or all."""
        for part in self.parts():
            (block,), (mask,) = part.blocks, part.masks
            kept = [name for name in block.names if names is None or name in names]
            columns = [block.cells(name, mask) for name in kept]
            yield from (dict(zip(kept, cells, strict=True)) for cells in zip(*columns, strict=True))

    def parts(self) -> Iterator[Rows]:
        """Those of each block that has any."""
        for block, mask, count in zip(self.blocks, self.masks, self.counts, strict=True):
            if count:
                yield Rows([block], [mask])

    def where(self, mask: np.ndarray) -> Rows:
        """Those for which the mask (N,) is true."""
        masks: list[np.ndarray | None] = []
        for number, (block, end, count) in enumerate(zip(self.blocks, self.ends, self.counts, strict=True)):
            chosen = np.zeros(block.count, dtype=bool)
            chosen[self._chosen(number)] = mask[end - count : end]
            masks.append(chosen)
        return Rows(self.blocks, masks)

    def read_by(self, read: Callable[[Any], Any]) -> Rows:
        """The same with what `read` makes of each cell."""
        return Rows([replace(each, cells=partial(_read_cells, each, read)) for each in self.blocks], self.masks)

    def of_file(self, file: str) -> Rows:
        """The same, which are all rows of that file, or entry of the catalog, in order."""
        starts = accumulate((block.count for block in self.blocks), initial=1)
        blocks = [
            replace(block, called=partial(_called, block, file, start))
            for block, start in zip(self.blocks, starts, strict=False)
        ]
        return Rows(blocks, self.masks)

    def _chosen(self, number: int) -> np.ndarray:
        """The places in the block of the rows that it has."""
        mask = self.masks[number]
        return np.arange(self.blocks[number].count) if mask is None else np.flatnonzero(mask)


def _called(block: Block, file: str, start: int, mask: np.ndarray | None) -> list[str]:
    if block.lined:
        numbers = block.cells(LINE, mask)
    else:
        every = np.arange(start, start + block.count)
        numbers = (every if mask is None else every[mask]).tolist()
    return [f"{file}:{number}" for number in numbers]


def _read_cells(block: Block, read: Callable[[Any], Any], name: str, mask: np.ndarray | None) -> list[Any]:
    return list(of_each(read, block.cells(name, mask)))


class Cells(Sequence[Any]):
    """The cells of a column, None where a row lacks it; they are read each time that they are gone through."""

    def __init__(self, rows: Sequence[Row], name: str) -> None:
        self.rows, self.name = rows, name

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> list[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        rows = self.rows[place]
        return rows.get(self.name) if isinstance(rows, dict) else [row.get(self.name) for row in rows]

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self.parts())

    def parts(self) -> Iterator[list[Any]]:
        """Those of each block."""
        for part in parts_of(self.rows):
            if isinstance(part, Rows):
                (block,), (mask,) = part.blocks, part.masks
                yield block.cells(self.name, mask) if self.name in block.names else [None] * len(part)
            else:
                yield [row.get(self.name) for row in part]


# ---- what is asked of rows, stored or in a list ---------------------------------------------------------------------


def parts_of(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The rows, as many at once as are to be held in memory."""
    if isinstance(rows, Rows):
        yield from rows.parts()
    else:
        yield from (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))


def where(rows: Sequence[Row], mask: np.ndarray) -> Any:
    """The rows for which the mask (N,) is true: of a list a list."""
    return rows.where(mask) if isinstance(rows, Rows) else list(compress(rows, mask.tolist()))


def together(parts: Iterable[Sequence[Row]]) -> Sequence[Row]:
    """The rows of all parts, one after the other."""
    given = list(parts)
    if any(isinstance(part, Rows) for part in given):
        stored = [part for part in given if isinstance(part, Rows)]
        return Rows([each for part in stored for each in part.blocks], [each for part in stored for each in part.masks])
    return [row for part in given for row in part]


def called_in(rows: Sequence[Row]) -> Iterator[list[str]] | None:
    """What the rows are called, as `predict` calls them, as many at once as are held in memory; None where not all
    know."""
    if isinstance(rows, Rows):
        if not all(block.called for block in rows.blocks):
            return None
        return (_names(part) for part in rows.parts())
    return iter([[row.called for row in rows]]) if all(isinstance(row, Line) for row in rows) else None  # type: ignore[attr-defined]


def _names(part: Rows) -> list[str]:
    (block,), (mask,) = part.blocks, part.masks
    assert block.called
    return block.called(mask)


def layouts(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The names of the columns that rows have, each once, in order."""
    if isinstance(rows, Rows):
        return list(dict.fromkeys(tuple(part.blocks[0].names) for part in rows.parts()))
    return list(dict.fromkeys(map(tuple, rows)))


def of_each(read: Callable[[Any], Any], cells: Sequence[Any]) -> Iterator[Any]:
    """What `read` makes of each cell, one after the other; of words that come again and again it is asked once."""
    once = _Once(read)
    return chain.from_iterable(map(once.all, cells.parts() if isinstance(cells, Cells) else [cells]))


class _Once(dict[Any, Any]):
    """What a function makes of cells, kept while few are different."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self.read = read

    def __missing__(self, cell: Any) -> Any:
        self[cell] = found = self.read(cell)
        return found

    def all(self, cells: Sequence[Any]) -> Iterator[Any]:
        if len(self) > BLOCK:
            self.clear()
        often = set(map(type, cells)) <= ONCE and 2 * len(set(cells)) < len(cells)
        return map(self.__getitem__ if often else self.read, cells)


def of_rows(read: Callable[[Row], Any], rows: Sequence[Row], names: Sequence[str]) -> Iterator[Any]:
    """What `read` makes of each row by these columns; in a list rows have all others, too."""
    if not isinstance(rows, Rows):
        return map(read, rows)
    if len(names) == 1:
        return of_each(lambda cell: read({names[0]: cell}), Cells(rows, names[0]))
    return map(read, rows.records(names))


def array_of(read: Callable[[Any], Any], cells: Sequence[Any], dtype: Any) -> np.ndarray:
    """What `read` makes of each cell, (N,)."""
    return np.fromiter(of_each(read, cells), dtype, count=len(cells))


def coded(values: Iterable[Hashable], count: int) -> tuple[np.ndarray, list[Any]]:
    """So many values as places (N,) int32 in the list of the different ones, which are in the order of the first."""
    places: dict[Hashable, int] = {}
    return np.fromiter((places.setdefault(value, len(places)) for value in values), np.int32, count), list(places)


def counted_in(codes: np.ndarray, names: Sequence[Any]) -> dict[Any, int]:
    """How often each of what is `coded` is there."""
    return dict(zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True))


# ---- where rows are kept --------------------------------------------------------------------------------------------


def stored(tables: Iterable[Opened], scratch: Path | None) -> list[Rows]:
    """The rows of each table, kept column by column in a temporary file in the folder `scratch`, memory-mapped.

    Without it, the file lies in the system's folder for such.
    """
    ends = [0]
    with told_of_room(scratch), TemporaryFile(dir=scratch) as file:
        for opened in tables:
            with opened as batches:
                _write(batches, file)
            ends.append(file.tell())
        file.flush()
        kept = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if ends[-1] else b""
    return [Rows(list(_read(kept, start, end))) for start, end in pairwise(ends)]


@contextmanager
def told_of_room(scratch: Path | None) -> Iterator[None]:
    """That a temporary file cannot be written, also when it is closed, is an InputError."""
    try:
        yield
    except OSError as error:
        place = scratch or gettempdir()
        raise InputError(f"{place}: rows cannot be written ({error.strerror or error}). Make room there") from error


def _write(batches: Iterator[pyarrow.RecordBatch], file: IO[bytes]) -> None:
    import pyarrow

    writer = None
    for batch in batches:
        writer = writer or pyarrow.ipc.new_stream(pyarrow.PythonFile(file, "w"), batch.schema)
        writer.write_batch(batch)
    if writer:
        writer.close()
        file.write(bytes(-file.tell() % 64))  # what follows is to lie as Arrow wants it


def _read(kept: Any, start: int, end: int) -> Iterator[Block]:
    import pyarrow

    with pyarrow.ipc.open_stream(pyarrow.py_buffer(kept).slice(start, end - start)) as batches:
        for batch in batches:
            yield arrow_block(batch)


def arrow_block(batch: pyarrow.RecordBatch) -> Block:
    names = [name for name in batch.schema.names if name != LINE]
    return Block(names, len(batch), partial(_arrow_cells, batch), lined=len(names) < len(batch.schema.names))


def _arrow_cells(batch: pyarrow.RecordBatch, name: str, mask: np.ndarray | None) -> list[Any]:
    import pyarrow

    column = batch.column(name)
    try:
        try:
            chosen = column if mask is None else column.filter(pyarrow.array(mask))
        except pyarrow.ArrowException:  # of views and the like, which cannot be filtered
            return list(compress(column.to_pylist(), mask.tolist() if mask is not None else []))
        return list(chosen.to_pylist())
    except (ValueError, OverflowError, pyarrow.ArrowException) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(f"the column {name!r} has a cell that cannot be read ({reason})") from error


def listed_block(rows: list[Row]) -> Block:
    """Rows of a list, which may have different columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))

    def cells(name: str, mask: np.ndarray | None) -> list[Any]:
        column = [row.get(name) for row in rows]
        return column if mask is None else list(compress(column, mask.tolist()))

    return Block(names, len(rows), cells)
