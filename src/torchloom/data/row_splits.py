"""Which rows of a user's tables are to train, to validate and to test."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from torchloom.config import RowsPreprocessConfig, SplitByConfig
from torchloom.data.class_folders import split_named
from torchloom.data.columns import is_number, number, written
from torchloom.data.moments import read_date
from torchloom.data.splits import choice_of_labels, grouped_choice, stratified_choice
from torchloom.errors import InputError
from torchloom.system.words import listed

Row = dict[str, Any]
Parts = dict[str, list[Row]]
Held = Callable[[Row], Sequence[str]]  # the classes or labels of a row; nothing where it has numbers
Choice = Callable[[list[Row], float], np.ndarray]  # a mask (N,) of so great a share of the rows


def split_rows(rows: Parts, config: RowsPreprocessConfig, held: Held) -> Parts:
    """The splits that have no files are cut from the rows to train, as `split_by` says, or else at random.

    Of rows of which the same is `held` the same share is drawn. Raises InputError when a split has no rows, or a column
    is not what `split_by` takes it for.
    """
    by = config.split_by or SplitByConfig()
    if not rows["train"] and not by.column:
        others = " and ".join(split for split, part in rows.items() if part)
        why = f"only for {others}" if others else f"none has {config.target!r} and what to tell it from"
        raise InputError(f"{config.place}: there are no rows to train on, {why}")
    _check_columns(rows, by.names)
    parts = _by_column(rows, by) if by.column else dict(rows)
    for split, fraction in {"test": config.test_fraction, "validation": config.validation_fraction}.items():
        if not parts[split]:
            parts["train"], parts[split] = _cut(parts["train"], _choice(config, by, held)(parts["train"], fraction))
    for split in ("train", "test"):
        if not parts[split]:
            raise InputError(f"{config.place}: there are no {split} rows. Change preprocess.test_fraction, or add rows")
    groups_of(parts, config)  # none is in two splits
    return parts


def _check_columns(rows: Parts, names: Iterable[str]) -> None:
    for name in names:
        for row in (row for part in rows.values() for row in part):
            if name not in row:
                raise InputError(
                    f"preprocess.split_by: there is no column {name!r}; there are {listed(list(map(repr, row)))}"
                )
            if row[name] is None or not written(row[name]):
                raise InputError(f"preprocess.split_by: the column {name!r} is empty in a row. Fill it in")


def _cut(rows: list[Row], chosen: np.ndarray) -> tuple[list[Row], list[Row]]:
    parts: tuple[list[Row], list[Row]] = [], []
    for row, taken in zip(rows, chosen.tolist(), strict=True):
        parts[taken].append(row)
    return parts


def _choice(config: RowsPreprocessConfig, by: SplitByConfig, held: Held) -> Choice:
    if by.group:
        return partial(_whole_groups, by, config.seed, held)
    if by.time:
        return partial(_latest, by.time)
    return partial(_at_random, config.seed, held)


def _at_random(seed: int, held: Held, rows: list[Row], fraction: float) -> np.ndarray:
    names = [held(row) for row in rows]
    if len(set(map(len, names))) > 1 or (names and len(names[0]) > 1):
        places = {name: place for place, name in enumerate(sorted({name for each in names for name in each}))}
        marks = np.array([[name in each for name in places] for each in map(set, names)])
        return choice_of_labels(marks, fraction, seed)
    return stratified_choice(np.unique(["".join(each) for each in names], return_inverse=True)[1], fraction, seed)


def _whole_groups(by: SplitByConfig, seed: int, held: Held, rows: list[Row], fraction: float) -> np.ndarray:
    labels = _numbered(["\n".join(held(row)) for row in rows])
    return grouped_choice(labels, _numbered(_groups(rows, by)), fraction, seed)


def _numbered(values: Sequence[str]) -> np.ndarray:
    """The number (N,) of each value among those that there are."""
    numbers: np.ndarray = np.unique(values, return_inverse=True)[1]
    return numbers.astype(np.int64)


def _groups(rows: Sequence[Row], by: SplitByConfig) -> list[str]:
    assert by.group
    return [written(row[by.group]) for row in rows]


def _latest(column: str, rows: list[Row], fraction: float) -> np.ndarray:
    """The rows after a time; those of one time stay together."""
    times = np.array([_time(column, row[column]) for row in rows])
    if len({isinstance(row[column], datetime.date) or not is_number(row[column]) for row in rows}) > 1:
        raise InputError(f"preprocess.split_by.time {column}: holds dates, but also numbers. Write all in one form")
    wanted = round(fraction * len(rows))
    return times > np.sort(times)[len(rows) - wanted - 1] if 0 < wanted < len(rows) else np.zeros(len(rows), bool)


def _time(column: str, cell: Any) -> float:
    """Seconds since 1970, or the number that it is: rows are only compared."""
    if not isinstance(cell, datetime.date) and is_number(cell):
        return number(cell)
    try:
        date = read_date(cell)
    except ValueError as error:
        raise InputError(f"preprocess.split_by.time {column}: {error}") from None
    return (date if date.tzinfo else date.replace(tzinfo=datetime.UTC)).timestamp()


def _by_column(rows: Parts, by: SplitByConfig) -> Parts:
    """By the values that are named, or else by those that are names of splits."""
    assert by.column
    if len([part for part in rows.values() if part]) > 1:
        raise InputError(f"preprocess.split_by.column {by.column}: the files are named as splits already. Leave it out")
    parts: Parts = {"train": [], "validation": [], "test": []}
    named = {written(value): split for split in ("validation", "test") for value in getattr(by, split)}
    all_rows = [row for part in rows.values() for row in part]
    values = {written(row[by.column]) for row in all_rows}
    if lacking := sorted(named.keys() - values):
        raise InputError(
            f"preprocess.split_by: no row has {lacking[0]!r} in {by.column!r}; it has "
            f"{listed(sorted(map(repr, values)))}"
        )
    for row in all_rows:
        value = written(row[by.column])
        parts[named.get(value, "train") if named else _named(value, by.column)].append(row)
    return parts


def _named(value: str, column: str) -> str:
    split = split_named(value)
    if split is None:
        raise InputError(
            f"preprocess.split_by.column {column}: {value!r} is no name of a split, such as train, val or test. Say "
            "which of its values are to test, preprocess.split_by.test: […]"
        )
    return split


def groups_of(parts: Mapping[str, Sequence[Row]], config: RowsPreprocessConfig) -> dict[str, dict[str, np.ndarray]]:
    """What folds must know of the rows of each split: `groups` (N,) int64 if some belong together; if they are split by
    time `order` (N,) int64, whose numbers grow with it. InputError when splits share a group."""
    by = config.split_by
    if by and by.time:
        return _order(parts, by.time)
    if not by or not by.group:
        return {split: {} for split in parts}
    values = {split: _groups(part, by) for split, part in parts.items()}
    for one, other in combinations(values, 2):
        if both := sorted(set(values[one]) & set(values[other])):
            raise InputError(f"preprocess.split_by.group {by.group}: {both[0]!r} has {one} rows and {other} rows")
    return _by_split("groups", values, _numbered([value for part in values.values() for value in part]))


def _order(parts: Mapping[str, Sequence[Row]], column: str) -> dict[str, dict[str, np.ndarray]]:
    times = [_time(column, row[column]) for part in parts.values() for row in part]
    return _by_split("order", parts, np.unique(times, return_inverse=True)[1].astype(np.int64))


def _by_split(name: str, parts: Mapping[str, Sequence[Any]], numbers: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    ends = np.cumsum([len(part) for part in parts.values()])[:-1]
    return {split: {name: part} for split, part in zip(parts, np.split(numbers, ends), strict=True)}
