"""Which rows of a user's tables are to train, to validate and to test."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from torchloom.config import AnewConfig, RowsPreprocessConfig, SplitByConfig
from torchloom.data.class_folders import split_named
from torchloom.data.columns import is_number, number, written
from torchloom.data.folds import dealt
from torchloom.data.moments import read_date
from torchloom.data.splits import choice_of_labels, grouped_choice, stratified_choice
from torchloom.data.stored import Cells, Row, array_of, coded, layouts, of_each, of_rows, together, where
from torchloom.errors import InputError
from torchloom.system.words import counted, listed, meant

Parts = dict[str, Any]  # of each split the rows, all in lists or all stored
Held = Callable[[Row], Sequence[str]]  # the classes or labels of a row by its target; nothing where it has numbers
Classes = Callable[[Sequence[Row]], tuple[np.ndarray, list[Any]]]  # the different ones that are held, `coded`
Choice = Callable[[Sequence[Row], float], np.ndarray]  # a mask (N,) of so great a share of the rows


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
            chosen = _choice(config, by, held)(parts["train"], fraction)
            parts["train"], parts[split] = where(parts["train"], ~chosen), where(parts["train"], chosen)
    for split in ("train", "test"):
        if not parts[split]:
            raise InputError(f"{config.place}: there are no {split} rows. {_why_none(parts['train'], config, held)}")
    groups_of(parts, config)  # none is in two splits
    return dealt(parts, config) if isinstance(config, AnewConfig) else parts


def _why_none(rows: list[Row], config: RowsPreprocessConfig, held: Held) -> str:
    """What keeps rows from being drawn to test, and what to do."""
    counts = Counter(name for row in rows for name in held(row))
    alone = [row for row in rows if any(counts[name] == 1 for name in held(row))]
    if config.test_fraction and 2 * len(alone) > len(rows):
        return (
            f"{len(alone):,} of {counted(len(rows), 'row')} hold a class or a label that no other row has, and must "
            "train. Leave rare ones out, or say by preprocess.split_by which rows are to test. Of texts to be "
            "written, kedro task new --problem translation makes a task"
        )
    return "Change preprocess.test_fraction, or add rows"


def _check_columns(rows: Parts, names: Iterable[str]) -> None:
    for name in names:
        for there in (there for part in rows.values() for there in layouts(part)):
            if name not in there:
                raise InputError(
                    f"preprocess.split_by: there is no column {name!r}{meant(name, there)}; there are "
                    f"{listed(list(map(repr, there)))}"
                )
        if any(any(of_each(_is_empty, Cells(part, name))) for part in rows.values()):
            raise InputError(f"preprocess.split_by: the column {name!r} is empty in a row. Fill it in")


def _is_empty(cell: Any) -> bool:
    return cell is None or not written(cell)


def _choice(config: RowsPreprocessConfig, by: SplitByConfig, held: Held) -> Choice:
    def classes(rows: Sequence[Row]) -> tuple[np.ndarray, list[Any]]:
        return coded(map(tuple, of_rows(held, rows, config.targets)), len(rows))

    if by.group:
        return partial(_whole_groups, by.group, config.seed, classes)
    if by.time:
        return partial(_latest, by.time)
    return partial(_at_random, config.seed, classes)


def _at_random(seed: int, classes: Classes, rows: Sequence[Row], fraction: float) -> np.ndarray:
    codes, held = classes(rows)
    if len(set(map(len, held))) > 1 or (held and len(held[0]) > 1):
        names = sorted({name for each in held for name in each})
        marks = np.array([[name in each for name in names] for each in map(set, held)])
        return choice_of_labels(marks[codes], fraction, seed)
    return stratified_choice(numbered(codes, ["".join(each) for each in held]), fraction, seed)


def _whole_groups(group: str, seed: int, classes: Classes, rows: Sequence[Row], fraction: float) -> np.ndarray:
    codes, held = classes(rows)
    labels = numbered(codes, ["\n".join(each) for each in held])
    return grouped_choice(labels, numbered(*_groups(rows, group)), fraction, seed)


def numbered(codes: np.ndarray, values: Sequence[str]) -> np.ndarray:
    """What is `coded` (N,) as the number, int64, of each value among the different ones in order."""
    numbers: np.ndarray = np.unique(np.array(values, dtype=object), return_inverse=True)[1].astype(np.int64)[codes]
    return numbers


def _groups(rows: Sequence[Row], group: str) -> tuple[np.ndarray, list[Any]]:
    return coded(of_each(written, Cells(rows, group)), len(rows))


def _latest(column: str, rows: Sequence[Row], fraction: float) -> np.ndarray:
    """The rows after a time; those of one time stay together."""
    cells = Cells(rows, column)
    times = array_of(partial(_time, column), cells, np.float64)
    if len(set(of_each(_is_date, cells))) > 1:
        raise InputError(f"preprocess.split_by.time {column}: holds dates, but also numbers. Write all in one form")
    wanted = round(fraction * len(rows))
    return times > np.sort(times)[len(rows) - wanted - 1] if 0 < wanted < len(rows) else np.zeros(len(rows), bool)


def _is_date(cell: Any) -> bool:
    return isinstance(cell, datetime.date) or not is_number(cell)


def _time(column: str, cell: Any) -> float:
    """Seconds since 1970, or the number that it is: rows are only compared."""
    if not _is_date(cell):
        return number(cell)
    try:
        date = read_date(cell)
    except ValueError as error:
        raise InputError(f"preprocess.split_by.time {column}: {error}") from None
    return (date if date.tzinfo else date.replace(tzinfo=datetime.UTC)).timestamp()


def _by_column(parts: Parts, by: SplitByConfig) -> Parts:
    """By the values that are named, or else by those that are names of splits."""
    assert by.column
    if len([part for part in parts.values() if part]) > 1:
        raise InputError(f"preprocess.split_by.column {by.column}: the files are named as splits already. Leave it out")
    named = {written(value): split for split in ("validation", "test") for value in getattr(by, split)}
    rows = together(parts.values())
    codes, values = coded(of_each(written, Cells(rows, by.column)), len(rows))
    if lacking := sorted(named.keys() - values):
        raise InputError(
            f"preprocess.split_by: no row has {lacking[0]!r} in {by.column!r}; it has "
            f"{listed(sorted(map(repr, values)))}"
        )
    splits = np.array([named.get(value, "train") if named else _named(value, by.column) for value in values])
    return {split: where(rows, (splits == split)[codes]) for split in ("train", "validation", "test")}


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
    found = {split: _groups(part, by.group) for split, part in parts.items()}
    for one, other in combinations(found, 2):
        if both := sorted(set(found[one][1]) & set(found[other][1])):
            raise InputError(f"preprocess.split_by.group {by.group}: {both[0]!r} has {one} rows and {other} rows")
    places = {name: place for place, name in enumerate(sorted(name for _, names in found.values() for name in names))}
    return {
        split: {"groups": np.array([places[name] for name in names], dtype=np.int64)[codes]}
        for split, (codes, names) in found.items()
    }


def _order(parts: Mapping[str, Sequence[Row]], column: str) -> dict[str, dict[str, np.ndarray]]:
    times = [array_of(partial(_time, column), Cells(part, column), np.float64) for part in parts.values()]
    numbers = np.unique(np.concatenate(times), return_inverse=True)[1].astype(np.int64)
    ends = np.cumsum([len(part) for part in times])[:-1]
    return {split: {"order": part} for split, part in zip(parts, np.split(numbers, ends), strict=True)}
