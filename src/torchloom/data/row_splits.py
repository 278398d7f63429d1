"""Which rows of a user's tables are to train, to validate and to test."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from torchloom.config import RowsPreprocessConfig, SplitByConfig
from torchloom.data.class_folders import split_named
from torchloom.data.columns import is_number, number, written
from torchloom.data.moments import read_date
from torchloom.data.splits import choice_of_labels, stratified_choice
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
    if by.group:
        _check_groups(parts, by.group)
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
        return partial(_whole_groups, by.group, config.seed)
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


def _whole_groups(column: str, seed: int, rows: list[Row], fraction: float) -> np.ndarray:
    """Of the groups in an order drawn by the seed so many as come nearest to the share, but not all of them."""
    names, groups, counts = np.unique([written(row[column]) for row in rows], return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    taken = np.cumsum([0, *counts[order[:-1]]])
    return np.isin(groups, order[: int(np.argmin(np.abs(taken - fraction * len(rows))))])


def _latest(column: str, rows: list[Row], fraction: float) -> np.ndarray:
    """The rows after a time; those of one time stay together."""
    times = np.array([_time(column, row[column]) for row in rows])
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


def _check_groups(parts: Parts, column: str) -> None:
    seen: dict[str, str] = {}
    for split, rows in parts.items():
        for row in rows:
            if seen.setdefault(written(row[column]), split) != split:
                raise InputError(
                    f"preprocess.split_by.group {column}: {written(row[column])!r} is in the files of two splits, "
                    f"{seen[written(row[column])]} and {split}"
                )
