"""How the columns of a table become numbers, and what kind each is."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from reprlib import repr as short
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from torchloom.data.moments import read_date
from torchloom.data.stored import Cells, Row, array_of, layouts, of_each, where
from torchloom.data.tables import check_columns
from torchloom.data.text import check_text, read_number
from torchloom.errors import InputError

Kind = Literal["number", "category", "date"]

LARGEST_NUMBER = (2 - 2**-23) * 2.0**127  # of float32
GAPS = frozenset({"", "?", "-", ".", "na", "n/a", "#n/a", "nan", "null", "none", "nil", "<na>", "missing"})
CALENDAR = ("year", "month", "day", "weekday", "hour")  # the numbers that a date becomes; a weekday from 0, Monday
FLAGS = {"yes": True, "no": False, "true": True, "false": False, "1": True, "0": False, "y": True, "n": False}
FLAGS |= {"1.0": True, "0.0": False}  # where a file keeps gaps among them
COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+|[+-]?\d{1,3}(,\d{3})+(\.\d+)?")  # numbers with one
WHOLE = re.compile(r"-?(0|[1-9]\d*)(\.0)?")  # numbers that are written with a point or without
NEW = 0.0  # the number of a category that the training rows do not have; those that they have count from 1
MOSTLY = 0.9  # of the cells of a column are numbers where the others are taken for mistakes


class Column(BaseModel):
    """A column of a user's table; `values` are the categories that are known, whose numbers count from 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    name: str
    kind: Kind = "number"
    values: list[str] = Field([])

    @property
    def features(self) -> list[str]:
        """What its numbers are called."""
        return [f"{self.name} {part}" for part in CALENDAR] if self.kind == "date" else [self.name]


class Encoder:
    """Rows of a user's table, by the names of their columns -> numbers (F,), NaN where there is none."""

    def __init__(self, columns: Sequence[Column], missing: Iterable[str] = ()) -> None:
        self.columns = columns
        self.gaps = gaps_of(missing)
        self.numbers = {column.name: number_of(column.values) for column in columns}

    def __call__(self, row: Mapping[str, Any]) -> list[float]:
        """InputError names the columns that the row lacks, or the cell that cannot be what its column holds."""
        check_columns((column.name for column in self.columns), row)
        return [number for column in self.columns for number in self.cell(column, row[column.name])]

    def table(self, rows: Sequence[Row]) -> np.ndarray:
        """The same of many rows at once, (N, F) float32; InputError of one of those that cannot be."""
        for there in layouts(rows):
            check_columns((column.name for column in self.columns), dict.fromkeys(there))
        return np.concatenate([self._column(column, rows) for column in self.columns], axis=1)

    def _column(self, column: Column, rows: Sequence[Row]) -> np.ndarray:
        width = len(column.features)
        numbers = chain.from_iterable(of_each(partial(self.cell, column), Cells(rows, column.name)))
        return np.fromiter(numbers, np.float64, len(rows) * width).astype(np.float32).reshape(-1, width)

    def cell(self, column: Column, value: Any) -> list[float]:
        if is_gap(value, self.gaps):
            return [math.nan] * len(column.features)
        try:
            if column.kind == "category":
                return [self.numbers[column.name].get(written(value), NEW)]
            return date_parts(value) if column.kind == "date" else [number(value)]
        except ValueError as error:
            raise InputError(f"{column.name}: {error}") from None


def gaps_of(missing: Iterable[str]) -> frozenset[str]:
    """The usual spellings of a gap and those that are `missing` from them, in lower case."""
    return GAPS | {spelling.strip().lower() for spelling in missing}


def number_of(values: Sequence[str]) -> dict[str, float]:
    """The place of each value, counted from 1, by all its `spellings`."""
    places = {value: place for place, value in enumerate(values, 1)}
    return {text: float(places[value]) for text, value in spellings(values).items()}


def spellings(values: Iterable[str]) -> dict[str, str]:
    """Each of the values by how files write it: what is true in one format is True in another, and 1.0 is 1."""
    found = {value: value for value in values}
    for value in list(found):
        others = [value.capitalize(), value.lower(), value.upper()] if value.lower() in {"true", "false"} else []
        if WHOLE.fullmatch(value):
            others = [value.partition(".")[0], f"{value}.0"]
        for other in others:
            found.setdefault(other, value)
    return found


def is_gap(value: Any, gaps: Collection[str]) -> bool:
    """Whether a cell is empty, in any of the usual spellings."""
    if isinstance(value, str):
        return value.strip().lower() in gaps
    return (
        value is None or type(value).__name__ in {"NAType", "NaTType"} or (isinstance(value, float) and value != value)
    )


def gaps_in(rows: Sequence[Row], name: str, gaps: Collection[str]) -> np.ndarray:
    """Which rows, a mask (N,), have no value in the column."""
    return array_of(lambda cell: is_gap(cell, gaps), Cells(rows, name), bool)


def given_cells(rows: Sequence[Row], name: str, gaps: Collection[str]) -> Cells:
    """The cells of the column that are no gaps."""
    return Cells(where(rows, ~gaps_in(rows, name, gaps)), name)


def written(value: Any) -> str:
    """A category as a text: a whole number that a file keeps as 1.0 is 1.

    ValueError of what is no single value, as bytes or a list, or no valid text.
    """
    if not isinstance(value, str):
        if hasattr(value, "__len__"):
            raise ValueError(f"{short(value)} is of the type {type(value).__name__}, and no word, number or date")
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
    check_text(text := str(value).strip())
    return text


def number(value: Any) -> float:
    """ValueError of what is no finite number of 32 bits."""
    if isinstance(value, bool):  # a file may have it in words
        raise ValueError(f"{value!r} is not a number")
    try:
        found = read_number(value) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        advice = ". It takes no comma: decimals follow a point" if isinstance(value, str) and "," in value else ""
        raise ValueError(f"{value!r} is not a number{advice}") from None
    if not abs(found) <= LARGEST_NUMBER:
        raise ValueError(f"{value!r} is not a finite number of 32 bits")
    return found


def flag(value: Any) -> bool:
    """Yes or no; ValueError of what is neither."""
    said = written(value).lower()
    if said not in FLAGS:
        raise ValueError(f"{value!r} is neither yes nor no, as {', '.join(FLAGS)} are")
    return FLAGS[said]


def is_list(cell: Any) -> bool:
    """Whether a cell holds several values, as Parquet and JSON have them."""
    return isinstance(cell, list | tuple | set) or type(cell).__name__ == "ndarray"


def labels_in(cell: Any, separator: str | None) -> list[str]:
    """Those of a cell, each once; none of an empty one."""
    if cell is None:
        return []
    parts = cell if is_list(cell) else written(cell).split(separator) if separator else [cell]
    return list(dict.fromkeys(part for part in map(written, filter(lambda each: each is not None, parts)) if part))


def date_parts(value: Any) -> list[float]:
    """The numbers of CALENDAR; ValueError of what is no date as ISO 8601 writes it, with or without a time."""
    date = read_date(value)
    return [float(part) for part in (date.year, date.month, date.day, date.weekday(), date.hour + date.minute / 60)]


# ---- which kind it is ----------------------------------------------------------------------------------------------


def kind_of(name: str, cells: Sequence[Any]) -> tuple[Kind | None, str]:
    """The kind of a column by its cells without gaps, or None where it is of no use, and why.

    InputError where nearly all of them are numbers, and some are not: these may be mistakes, or gaps; and where numbers
    have a comma.
    """
    if not len(cells):
        return None, "is empty"
    try:
        different = count_different(of_each(written, cells), len(cells))
    except ValueError as error:
        return None, f"holds what is of no use: {error}"
    if different == 1:
        return None, f"is {written(cells[0])!r} in every row"
    wrong = sum(not right for right in of_each(is_number, cells))
    if not wrong:
        if _counts_rows(cells):
            return None, "only counts the rows"
        return "number", ""
    if wrong < (1 - MOSTLY) * len(cells):
        words = (cell for cell, right in zip(cells, of_each(is_number, cells), strict=True) if not right)
        odd = ", ".join(repr(value) for value, _ in Counter(map(written, words)).most_common(3))
        raise InputError(
            f"the column {name!r} holds numbers, but also {odd}. If these are gaps, name them in preprocess.missing; "
            f"if its numbers are names, say preprocess.columns: {{{name}: category}}"
        )
    if all(of_each(is_date, cells)):
        return "date", ""
    if all(of_each(_has_comma, cells)):
        raise InputError(
            f"the column {name!r} holds numbers with a comma, such as {written(cells[0])!r}. Where it stands before "
            f"decimals, say preprocess.decimal: ','; if these are no numbers, preprocess.columns: {{{name}: category}}"
        )
    if different > max(50, len(cells) / 3):
        return None, f"has {different:,} different texts in {len(cells):,} rows"
    return "category", ""


def count_different(texts: Iterable[str], count: int) -> int:
    """How many of so many texts are different, by 64 bits of each: they themselves may be more than memory holds."""
    return len(np.unique(np.fromiter(map(hash, texts), np.int64, count)))


def are_few(texts: Iterable[str], most: int) -> bool:
    """Whether no more than so many of them are different."""
    seen: set[str] = set()
    for text in texts:
        seen.add(text)
        if len(seen) > most:
            return False
    return True


def is_number(cell: Any) -> bool:
    return _is(number, cell)


def is_date(cell: Any) -> bool:
    return _is(date_parts, cell)


def is_flag(cell: Any) -> bool:
    return _is(flag, cell)


def _has_comma(cell: Any) -> bool:
    """Whether it is a number such as 1,5 or 1.234,5, or 1,234."""
    return isinstance(cell, str) and COMMA.fullmatch(cell.strip()) is not None


def _is(read: Any, cell: Any) -> bool:
    try:
        read(cell)
    except ValueError:
        return False
    return True


def _counts_rows(cells: Sequence[Any]) -> bool:
    """Whether they are whole numbers that grow from row to row, with few left out: others may be in other splits."""
    first = last = number(cells[0])
    for value in islice(of_each(number, cells), 1, None):
        if not (last < value and value.is_integer()):
            return False
        last = value
    return last - first < 2 * len(cells)
