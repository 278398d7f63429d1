"""Series as tables have them, put on the regular steps of their clock: values (T, columns) float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from torchloom.data.columns import LARGEST_NUMBER, Column, Encoder, is_gap, is_number, number
from torchloom.data.moments import Clock, read_moment
from torchloom.errors import InputError


@dataclass(frozen=True)
class Piece:
    """Steps one after the other: moments (T,) int64, and values (T, columns) float32, NaN where there is none.

    `filled` (T, columns) says for which of them the last one before stands in.
    """

    moments: np.ndarray
    values: np.ndarray
    filled: np.ndarray

    def __len__(self) -> int:
        return len(self.moments)

    def part(self, start: int, end: int) -> Piece:
        return Piece(self.moments[start:end], self.values[start:end], self.filled[start:end])

    def whole(self) -> Iterator[Piece]:
        """Its stretches in which no value is missing."""
        inside = np.concatenate([[False], ~np.isnan(self.values).any(1), [False]])
        edges = np.flatnonzero(np.diff(inside))
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            yield self.part(start, end)


def read_rows_in_order(
    rows: Sequence[Mapping[str, Any]], time: str, names: Sequence[str], read: Callable[[Any], int], gaps: frozenset[str]
) -> tuple[np.ndarray, np.ndarray, bool]:
    """The moments (T,) int64 of the rows and their values (T, names) float32 by time; whether they were in that order.

    Cells that are not there are NaN. InputError names the row, counted from 1, and the cell that cannot be read.
    """
    encode = Encoder([])
    encode.gaps = gaps
    columns = [Column(name=name) for name in names]
    moments, values = np.empty(len(rows), np.int64), np.empty((len(rows), len(names)), np.float32)
    for place, row in enumerate(rows):
        try:
            moments[place] = _moment(row.get(time), time, read, gaps)
            values[place] = [encode.cell(column, row.get(column.name))[0] for column in columns]
        except InputError as error:
            raise InputError(f"row {place + 1}: {error.message}") from error
    order = np.argsort(moments, kind="stable")
    return moments[order], values[order], bool((order == np.arange(len(order))).all())


def _moment(cell: Any, time: str, read: Callable[[Any], int], gaps: frozenset[str]) -> int:
    if is_gap(cell, gaps):
        raise InputError(f"{time}: is missing")
    try:
        return read(cell)
    except ValueError as error:
        raise InputError(f"{time}: {error}") from None


def there_again(moments: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the rows in order have the moment of the one before (T,): with its values, and with others."""
    again = np.diff(moments, prepend=moments[0] - 1) == 0
    same = again & np.concatenate([[False], np.isclose(values[1:], values[:-1], 0, 0, equal_nan=True).all(1)])
    return same, again & ~same


def pieces(moments: np.ndarray, values: np.ndarray, clock: Clock, longest_gap: int) -> list[Piece]:
    """Rows in order as pieces without a missing step.

    Up to `longest_gap` missing values in a row of a column are filled with the last one before, never with what comes
    later; where more steps are missing a new piece begins. ValueError for moments that are not regular.
    """
    places = clock.places(moments)
    cuts = np.flatnonzero(np.diff(places) > longest_gap + 1) + 1
    parts = zip(np.split(places, cuts), np.split(moments, cuts), np.split(values, cuts), strict=True)
    return [_piece(*part, clock, longest_gap) for part in parts if len(part[0])]


def _piece(places: np.ndarray, moments: np.ndarray, values: np.ndarray, clock: Clock, longest_gap: int) -> Piece:
    length = int(places[-1] - places[0]) + 1
    known = np.full((length, values.shape[1]), np.nan, np.float32)
    known[places - places[0]] = values
    there = ~np.isnan(known)
    steps = np.arange(length)[:, None]
    last = np.maximum.accumulate(np.where(there, steps, -1), axis=0)
    near = (last >= 0) & (steps - last <= longest_gap)
    filled = np.where(near, np.take_along_axis(known, np.maximum(last, 0), axis=0), np.float32(np.nan))
    return Piece(clock.after(int(moments[0]), range(length)), filled, near & ~there)


def values_of(rows: Sequence[Mapping[str, Any]], names: Sequence[str], missing: Iterable[str]) -> np.ndarray:
    """The cells of these columns (T, names) float32, NaN for a gap; InputError names one that is no number."""
    encode = Encoder([Column(name=name) for name in names], missing)
    cells = [[encode.cell(column, row.get(column.name))[0] for column in encode.columns] for row in rows]
    return np.array(cells, dtype=np.float32).reshape(len(rows), len(names))


def values_in(cell: Any, name: str, channels_first: bool) -> np.ndarray:
    """A series that stands in one cell, an array or a list, as (T, channels) float32, NaN for a gap."""
    try:
        values = np.asarray(cell, np.float64) if getattr(cell, "dtype", np.dtype(float)).kind in "biuf" else np.empty(0)
    except (TypeError, ValueError, OverflowError):  # words, or lists that are not equally long
        values = np.empty(0)
    if values.ndim not in {1, 2} or not values.size:
        raise InputError(f"{name}: holds no series: a number for each step, or for each as many as there are channels")
    if (np.abs(values) > LARGEST_NUMBER).any():
        raise InputError(f"{name}: holds {values[np.abs(values) > LARGEST_NUMBER][0]}, which is no number of 32 bits")
    values = values[:, None] if values.ndim == 1 else values.T if channels_first else values
    return values.astype(np.float32)


def in_order(rows: Sequence[Mapping[str, Any]], time: str | None) -> Sequence[Mapping[str, Any]]:
    """The rows by time, which is dates or numbers; InputError for what is neither."""
    return rows if time is None else sorted(rows, key=lambda row: _place(row.get(time), time))


def _place(cell: Any, time: str) -> float:
    try:
        return number(cell) if is_number(cell) else float(read_moment(cell, None)[0])
    except ValueError as error:
        raise InputError(f"{time}: {error}") from None


def of_length(values: np.ndarray, length: int | None, names: Sequence[str]) -> np.ndarray:
    """A series (T, channels) with so many steps: the last ones, or the first again and again before them.

    Steps without any value at the end are none. A missing value is the one before, or the first one; InputError for a
    channel that has none at all.
    """
    there = ~np.isnan(values)
    if not there.any(0).all():
        raise InputError(f"has no value in {names[int(np.argmin(there.any(0)))]}")
    end = int(np.flatnonzero(there.any(1))[-1]) + 1
    values, there = values[:end], there[:end]
    last = np.maximum.accumulate(np.where(there, np.arange(end)[:, None], -1), axis=0)
    filled = np.take_along_axis(values, np.where(last < 0, there.argmax(0), last), axis=0)
    length = length or end
    before = np.repeat(filled[:1], max(length - end, 0), axis=0)
    return np.concatenate([before, filled[max(end - length, 0) :]])
