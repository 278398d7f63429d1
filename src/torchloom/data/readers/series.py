"""A user's own series: a table whose rows are regular steps of time, and columns of which the next ones are forecast.

Rows are put in order and split by time. What is missing is filled with what was there before, never with what came
later; means and deviations are those of the training rows.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import SeriesPreprocessConfig
from torchloom.data.class_folders import split_of
from torchloom.data.columns import MOSTLY, Encoder, is_gap, is_number, kind_of, written
from torchloom.data.moments import Clock, calendar_of, clock_of, ends_of_summer_time, read_date, read_moment
from torchloom.data.readers import Proposal
from torchloom.data.rows import Row, find_tables, first_rows, is_table, read_each, read_entry
from torchloom.data.series import Piece, pieces, read_rows_in_order, there_again
from torchloom.data.tables import SUFFIXES
from torchloom.data.targets import Horizon
from torchloom.data.writing import Writing, as_said, writing_in
from torchloom.datasets.listing import Listing, scan
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.system.words import are, counted, listed, meant

logger = logging.getLogger(__name__)

ONLY_FOR = frozenset({"forecasting"})  # problems; for others such a table is looked at by other readers
LOOKED_AT = 1000  # rows, to find the column of dates
SPLITS = ("train", "validation", "test")


def find(config: SeriesPreprocessConfig) -> Listing:
    """List the file, or the tables in the folder."""
    return find_tables(config)


def preprocess(
    listing: Listing,
    config: SeriesPreprocessConfig,
    scratch: Path,  # noqa: ARG001  (tables need none)
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Tables -> training, validation and test tensors and what is known about them.

    Each of the tensors holds `series` (T, channels) float32, its pieces one after the other, `starts` (N + 1,) int64,
    the row at which each window begins, with the end of all, and `times` (N,) int64, the moment of the first step after
    it; where something is known ahead also `known` (T, K) float32, and where values are filled `filled` (T, channels)
    uint8, 1 for these. Raises InputError for what is wrong with a file, a row or a cell.
    """
    return _prepare(_in_files(listing, config), config)


def preprocess_entry(table: Any, config: SeriesPreprocessConfig) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """The same of a table that the catalog holds."""
    return _prepare(_by_series(read_entry(table, config, _writing(config))["train"], config.series), config)


def _writing(config: SeriesPreprocessConfig) -> Writing:
    """How numbers are written; dates are read by the clock, in their column alone: elsewhere 2024 is a number."""
    return Writing(decimal=config.decimal)


def _in_files(listing: Listing, config: SeriesPreprocessConfig) -> dict[str, list[Row]]:
    return _by_name(listing, read_each(listing, _writing(config)), config)


def _by_name(listing: Listing, files: dict[str, list[Row]], config: SeriesPreprocessConfig) -> dict[str, list[Row]]:
    """The rows of each series; its name is that of its file, or what the column holds."""
    if config.each_file:
        return files
    if any(split_of(listing, name) != "train" for name in files):
        raise InputError(
            f"{config.place}: has files with the names of splits, but series are split by time. Rename them, and "
            "say preprocess.train and validation, or the fractions"
        )
    return _by_series(_together(files), config.series)


def _by_series(rows: list[Row], column: str | None) -> dict[str, list[Row]]:
    if column is None:
        return {"": rows}
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(written(row.get(column, "")), []).append(row)
    return found


def _together(read: Mapping[str, list[Row]]) -> list[Row]:
    return [row for part in read.values() for row in part]


def _prepare(
    read: Mapping[str, list[Row]], config: SeriesPreprocessConfig
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    rows = _together(read)
    gaps = Encoder([], config.missing).gaps
    time = config.time or _time_column(rows[:LOOKED_AT], config, gaps)
    _check_columns(rows[0], config, time)
    columns = config.columns or _columns(rows, config, time, gaps)
    found = read_series(read, config, time, columns, gaps)
    _say(found, len(columns) + len(config.past))
    parts = _parts(found, config)
    if lacking := _without_windows(parts, config):
        raise InputError(
            f"{config.place}: the {lacking} rows have no window of {config.window} + {config.horizon} rows without a "
            "longer gap. Change preprocess.window or horizon, or which rows are which split"
        )
    values = parts["train"].values.astype(np.float64)
    mean, std = values.mean(0), values.std(0)
    targets, width = len(columns), len(columns) + len(config.past)
    for name, deviation in zip([*columns, *config.past, *config.known], std, strict=True):
        if not deviation:
            logger.warning("the column %r has one value in all training rows", name)
    std[std == 0] = 1.0
    calendar = found.clock.calendar() if config.calendar else []
    filled = bool(_filled(found)[:width].any())
    info = {
        "kind": "series",
        "time": time,
        "clock": found.clock.model_dump(),
        "channels": columns,
        "past": config.past,
        "known": config.known,
        "calendar": calendar,
        "series": config.series,
        "window": config.window,
        "longest_gap": config.longest_gap,
        "missing": config.missing,
        "writing": _writing(config).model_dump(),
        "mean": mean[:targets].tolist(),
        "std": std[:targets].tolist(),
        "past_mean": mean[targets:width].tolist(),
        "past_std": std[targets:width].tolist(),
        "known_mean": mean[width:].tolist(),
        "known_std": std[width:].tolist(),
        "target": Horizon(steps=config.horizon).model_dump(),
        "windows": {split: len(part.times) for split, part in parts.items()},
    }
    for split, part in parts.items():
        logger.info("%s: %s, %s", split, _rows(part.rows), counted(len(part.times), "window"))
    train, validation, test = (parts[split].tensors(width, calendar, filled) for split in SPLITS)
    return train, validation, test, info


# ---- what the table holds ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """All series of a table, each in whole pieces of all its columns, and their clock.

    Of `rows`, each once, so many are `missing` between the first and the last one of each series.
    """

    clock: Clock
    pieces: Sequence[Piece]
    first: int  # moments
    last: int
    series: int  # how many
    rows: int
    missing: int


def read_series(
    read: Mapping[str, list[Row]], config: SeriesPreprocessConfig, time: str, columns: list[str], gaps: frozenset[str]
) -> Found:
    """InputError for what is not regular, or there twice."""
    place = config.place
    zones: set[bool] = set()

    def moment_of(cell: Any) -> int:
        moment, utc = read_moment(cell, config.date_format)
        zones.add(utc)
        return moment

    names, runs = [*columns, *config.past, *config.known], {}
    for name, part in read.items():
        try:
            moments, values, sorted_ = read_rows_in_order(part, time, names, moment_of, gaps)
            runs[name] = _once(name, *_with_values(moments, values, len(columns)), config)
        except InputError as error:
            raise InputError(f"{place}: {name and f'series {name}, '}{error.message}") from error
        if not sorted_:
            logger.warning("%srows were not in the order of time", name and f"{name}: ")
    if len(zones) > 1:
        raise InputError(f"{place}: some cells of {time!r} name a time zone, and others do not")
    try:
        clock = clock_of([moments for moments, _ in runs.values()], config.date_format, zones.pop())
        found = [piece for run in runs.values() for piece in pieces(*run, clock, config.longest_gap)]
        steps = sum(int(clock.places(moments)[-1]) + 1 for moments, _ in runs.values())
    except ValueError as error:
        advice = ". Resample it, as pandas' resample does" if any(len(run) > 1 for run, _ in runs.values()) else ""
        raise InputError(f"{place}: {error}{advice}") from error
    whole = [part for piece in found for part in piece.whole()]
    ends = [moment for moments, _ in runs.values() for moment in moments[[0, -1]].tolist()]
    rows_once = sum(len(moments) for moments, _ in runs.values())
    return Found(clock, whole, min(ends), max(ends), len(runs), rows_once, steps - rows_once)


def _with_values(moments: np.ndarray, values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Up to the last row with something of what is forecast: what follows may only say what is known ahead."""
    there = np.flatnonzero(~np.isnan(values[:, :width]).all(1))
    if not len(there):
        raise InputError("has no value in what is to be forecast")
    end = there[-1] + 1
    return moments[:end], values[:end]


def _once(
    name: str, moments: np.ndarray, values: np.ndarray, config: SeriesPreprocessConfig
) -> tuple[np.ndarray, np.ndarray]:
    again, other = there_again(moments, values)
    written = Clock(form=config.date_format).written
    if other.any():
        raise InputError(
            f"{written(int(moments[other][0]))} is there more than once{_why(moments[again | other], config)}"
        )
    if again.any():
        which = listed([written(int(moment)) for moment in np.unique(moments[again])], 3)
        each = f"{name and f'{name}: '}{_rows(int(again.sum()))}"
        logger.warning("%s are there more than once, with the same values: %s; one of each is kept", each, which)
    return moments[~again], values[~again]


def _why(again: np.ndarray, config: SeriesPreprocessConfig) -> str:
    """What may be the reason for the moments (T,) that are there again with other values, and what to do."""
    if ends_of_summer_time(again):
        return (
            ", with other values, as an hour is at the end of summer time. Write times in UTC, or with their distance "
            "from it, such as 2024-10-27 02:00+02:00"
        )
    tells = (
        "If there are several series, say what tells them apart: preprocess.series, a column, or preprocess.each_file: "
        "true"
    )
    return ", with other values" if config.series or config.each_file else f". {tells}"


def _rows(count: int) -> str:
    return counted(int(count), "row")


def _say(found: Found, width: int) -> None:
    """In the log what there is, and what is missing: of the first `width` columns, and of those known ahead."""
    clock, whole = found.clock, found.pieces
    many = f" of {found.series} series" if found.series > 1 else ""
    ends = clock.written(found.first), clock.written(found.last)
    logger.info("%s%s, %s apart, from %s to %s", _rows(sum(map(len, whole))), many, clock.step, *ends)
    filled = _filled(found)
    if filled[:width].any():
        values = counted(int(filled[:width].sum()), "value")
        logger.warning("%s are missing and filled with the last ones before, to forecast from, not to judge by", values)
    if filled[width:].any():
        values = counted(int(filled[width:].sum()), "value")
        logger.warning("%s of what is known ahead are missing and filled with the last ones before", values)
    if len(whole) > found.series:
        logger.warning("longer gaps cut it into %s, and no window reaches across", counted(len(whole), "piece"))


def _filled(found: Found) -> np.ndarray:
    """How many values of each column (columns,) are so."""
    return np.sum([piece.filled.sum(0) for piece in found.pieces], axis=0)


def _time_column(rows: Sequence[Row], config: SeriesPreprocessConfig, gaps: frozenset[str]) -> str:
    found = _date_columns(rows, config.date_format, gaps)
    if len(found) != 1:
        what = f"{listed(found)} hold dates" if found else "no column holds dates such as 2024-01-31 18:30"
        form = "" if found else " If they are written otherwise, say preprocess.date_format, too."
        raise InputError(f"{config.place}: {what}. Say which column is preprocess.time.{form}")
    return found[0]


def _date_columns(rows: Sequence[Row], form: str | None, gaps: frozenset[str]) -> list[str]:
    found = []
    for name in rows[0] if rows else ():
        cells = [row[name] for row in rows if not is_gap(row.get(name), gaps)]
        try:
            dates = [read_date(cell, form) for cell in cells if not isinstance(cell, int | float)]
        except ValueError:
            continue
        if len(dates) == len(cells) > 0:
            found.append(name)
    return found


def _check_columns(row: Row, config: SeriesPreprocessConfig, time: str) -> None:
    keys = {"time": [time], "columns": config.columns, "past": config.past, "known": config.known}
    for key, names in {**keys, "series": [config.series] if config.series else []}.items():
        if unknown := [name for name in names if name not in row]:
            raise InputError(
                f"{config.place}: preprocess.{key} {unknown[0]!r}: there is no such column{meant(unknown[0], row)}; "
                f"there are {listed(list(row))}"
            )


def _columns(rows: list[Row], config: SeriesPreprocessConfig, time: str, gaps: frozenset[str]) -> list[str]:
    """All columns of numbers but those that have another part."""
    found = []
    for name in rows[0]:
        if name in {time, config.series, *config.past, *config.known}:
            continue
        kind, why = kind_of(name, _numbers(name, [row[name] for row in rows if not is_gap(row.get(name), gaps)]))
        if kind == "number":
            found.append(name)
        else:
            logger.warning("the column %r %s: it is left out", name, why or "holds no numbers")
    if not found:
        raise InputError(f"{config.place}: no column holds numbers that could be forecast")
    return found


def _numbers(name: str, cells: list[Any]) -> list[Any]:
    """The cells; InputError where nearly all of them are numbers, and some are not."""
    wrong = [written(cell) for cell in cells if not is_number(cell)]
    if 0 < len(wrong) < (1 - MOSTLY) * len(cells):
        words = listed(sorted(set(wrong)), 3)
        raise InputError(
            f"the column {name!r} holds numbers, but also {words}. If these are gaps, name them in "
            "preprocess.missing; if it is not to be forecast, name in preprocess.columns those that are"
        )
    return cells


# ---- splits --------------------------------------------------------------------------------------------------------


def _ends(found: Found, config: SeriesPreprocessConfig) -> dict[str, tuple[int, int]]:
    """Of each split the moment at which it begins, and that at which it is over."""
    clock = found.clock
    count = int(clock.places(np.array([found.first, found.last]))[1]) + 1
    if config.train is None or config.validation is None:
        test = round(config.test_fraction * count)
        validation = round(config.validation_fraction * (count - test))
        steps: list[int | str] = [count - test - validation, validation, test]
    else:
        steps = [config.train, config.validation, count if config.test is None else config.test]
    cuts = [found.first]
    for split, given in zip(SPLITS, steps, strict=True):
        if isinstance(given, int):
            cuts.append(int(clock.after(cuts[-1], [given])[0]))
            continue
        try:
            cuts.append(read_moment(given, None)[0])
        except ValueError as error:
            raise InputError(f"preprocess.{split}: {error}") from None
    if any(later < earlier for earlier, later in pairwise(cuts)):
        raise InputError("preprocess.train, validation and test must end one after the other")
    return dict(zip(SPLITS, pairwise(cuts), strict=True))


def _parts(found: Found, config: SeriesPreprocessConfig) -> dict[str, _Part]:
    return {split: _Part.of(found, config, *ends) for split, ends in _ends(found, config).items()}


def _without_windows(parts: Mapping[str, _Part], config: SeriesPreprocessConfig) -> str | None:
    """A split that has no window, and should have some."""
    needed = [split for split in parts if split != "validation" or not _without_validation(config)]
    return next((split for split in needed if not len(parts[split].times)), None)


def _without_validation(config: SeriesPreprocessConfig) -> bool:
    return config.validation == 0 if config.train is not None else config.validation_fraction == 0


@dataclass(frozen=True)
class _Part:
    """A split: the rows of its pieces (T,), one after the other, and where windows begin in them (N + 1,).

    So many `rows` are its own; others, before these, are in its windows.
    """

    moments: np.ndarray
    values: np.ndarray
    filled: np.ndarray
    starts: np.ndarray
    times: np.ndarray
    rows: int

    @classmethod
    def of(cls, found: Found, config: SeriesPreprocessConfig, begin: int, end: int) -> _Part:
        """What is forecast lies from `begin` on and before `end`; windows may begin before."""
        rows, starts, place, own = [], [], 0, 0
        for piece in found.pieces:
            first, last = np.searchsorted(piece.moments, [begin, end]).tolist()
            own += last - first
            part = piece.part(max(first - config.window, 0), last)
            windows = len(part) - config.window - config.horizon + 1
            if windows > 0:
                rows.append(part)
                starts.append(place + np.arange(windows))
                place += len(part)
        columns = len(found.pieces[0].values[0]) if found.pieces else 0
        nothing = Piece(np.zeros(0, np.int64), np.zeros((0, columns), np.float32), np.zeros((0, columns), bool))
        moments, values, filled = (
            np.concatenate([getattr(row, name) for row in rows or [nothing]])
            for name in ("moments", "values", "filled")
        )
        begins = np.concatenate([np.zeros(0, np.int64), *starts]).astype(np.int64)
        return cls(moments, values, filled, np.append(begins, place), moments[begins + config.window], own)

    def tensors(self, width: int, calendar: list[str], filled: bool) -> Tensors:
        """The first `width` columns are what forecasts are made from; `filled` says whether any value of them is so."""
        arrays = {"series": self.values[:, :width], "starts": self.starts, "times": self.times}
        if filled:
            arrays["filled"] = self.filled[:, :width].astype(np.uint8)
        known = np.concatenate([self.values[:, width:], calendar_of(self.moments, calendar)], axis=1)
        return Tensors({**arrays, "known": known} if known.shape[1] else arrays)


# ---- what there is -------------------------------------------------------------------------------------------------


STEPS, MOST_EPOCHS, LEAST_EPOCHS = 3850, 100, 5  # of a training that is proposed
LEAST_ROWS = 3  # of one of several series, on average
SEASONS, SEASONS_AHEAD = 14, 4  # in a window, and in what is forecast from it


def takes(path: Path, target: str | None) -> bool:  # noqa: ARG001  (a column is asked for later)
    """Whether it is a table with one column of dates."""
    if not is_table(path):
        return False
    rows, gaps = first_rows(path, LOOKED_AT), Encoder([]).gaps
    return len(_date_columns(rows, writing_in(rows, gaps).date_format, gaps)) == 1


def propose(path: Path, target: str | None) -> Proposal:
    """A forecast of the column `target`, or of all columns of numbers."""
    gaps = Encoder([]).gaps
    columns = [] if target is None else [target]
    how: dict[str, Any] = as_said(writing_in(first_rows(path, LOOKED_AT), gaps))
    config = SeriesPreprocessConfig(files=str(path), columns=columns, window=1, horizon=1, **how)
    listing = scan(path, "--data", SUFFIXES)
    files = read_each(listing, _writing(config))
    rows = _together(files)
    time = _time_column(rows[:LOOKED_AT], config, gaps)
    if target not in {None, *rows[0]} - {time}:
        near = meant(str(target), rows[0])
        raise InputError(f"{path}: there is no column {target!r} to forecast{near}. There are {listed(list(rows[0]))}")
    how = {"time": time, **how, **_apart(path, files, time, columns)}
    config = config.model_copy(update=how)
    columns = columns or _columns(rows, config, time, gaps)
    found = read_series(_by_name(listing, files, config), config, time, columns, gaps)
    config = _with_lengths(found, config)
    said = {**how, "columns": columns, "window": config.window, "horizon": config.horizon}
    batch = 32
    train = {
        "epochs": int(np.clip(round(STEPS * batch / (0.7 * sum(map(len, found.pieces)))), LEAST_EPOCHS, MOST_EPOCHS)),
        "batch_size": batch,
        "optimizer": {"name": "AdamW", "lr": 0.0005, "weight_decay": 0.0},
        "scheduler": {"name": "CosineAnnealingLR"},
        "precision": "fp32",
    }
    model = {"name": "dlinear", "normalization": "instance"}
    blocks = {"data": {}, "model": model, "train": train, "evaluate": {}, "export": {}}
    preprocess = {"reader": "series", "files": str(path), **said}
    return Proposal(preprocess, "forecasting", blocks, _seen(rows, found, config, columns))


def _apart(path: Path, files: Mapping[str, list[Row]], time: str, columns: Sequence[str]) -> dict[str, Any]:
    """The key of the block that says what tells several series apart, where no moment may be there twice in one."""
    rows = _together(files)
    if _once_each(rows, [time]):
        return {}
    others = [name for name in rows[0] if name not in {time, *columns}]
    few = [name for name in others if len({_cell(row, name) for row in rows}) <= len(rows) / LEAST_ROWS]
    if found := [name for name in few if _once_each(rows, [time, name])]:
        return {"series": min(found, key=lambda name: len({_cell(row, name) for row in rows}))}
    if len(files) > 1 and all(_once_each(part, [time]) for part in files.values()):
        return {"each_file": True}
    raise InputError(
        f"{path}: dates in {time} are there more than once, with other values, and no column tells several series apart"
        ". Add one with the name of the series, write each series to a file of its own, or leave one row for each date"
    )


def _once_each(rows: Sequence[Row], names: Sequence[str]) -> bool:
    """Whether these cells are never the same in two rows, but for rows that are the same as a whole."""
    found: dict[Any, Row] = {}
    return all(found.setdefault(tuple(_cell(row, name) for name in names), row) == row for row in rows)


def _cell(row: Row, name: str) -> Any:
    cell = row.get(name)
    return cell if isinstance(cell, Hashable) else repr(cell)


def _with_lengths(found: Found, config: SeriesPreprocessConfig) -> SeriesPreprocessConfig:
    """With a window and a horizon for which each split has rows; of short series they are short."""
    window, horizon = _lengths(found.clock.season, max(map(len, found.pieces)))
    while True:
        config = config.model_copy(update={"window": window, "horizon": horizon})
        lacking = _without_windows(_parts(found, config), config)
        if not lacking:
            return config
        if window == horizon == 1:
            raise InputError(f"{config.place}: too short, the {lacking} rows have not two steps on end. Add rows")
        window, horizon = max(window // 2, 1), max(horizon // 2, 1)


def _lengths(season: int, longest: int) -> tuple[int, int]:
    """The rows of a window and of a forecast: so many seasons, or as far as there are rows for them."""

    def some(seasons: int, most: int) -> int:
        length = min(seasons * max(season, 7), most)
        return max(length - length % season if length > season else length, 1)

    return some(SEASONS, longest // 5), some(SEASONS_AHEAD, longest // 12)


def _seen(rows: Sequence[Row], found: Found, config: SeriesPreprocessConfig, columns: Sequence[str]) -> list[str]:
    clock, values = found.clock, np.concatenate([piece.values for piece in found.pieces]).astype(np.float64)
    again = len(rows) - found.rows
    seen = [
        f"{len(rows):,} rows by {config.time}, {clock.step} apart, from {clock.written(found.first)} to "
        f"{clock.written(found.last)}",
        f"{counted(found.missing, 'row')} missing, {counted(int(_filled(found).sum()), 'value')} filled with the last "
        f"before, {counted(len(found.pieces), 'piece')} without a longer gap",
        *([f"{found.series:,} series, by {config.series or 'file'}"] if config.series or config.each_file else []),
        *([f"{are(again, 'row')} there more than once, or without a value"] if again else []),
    ]
    for name, column in zip(columns, values.T, strict=True):
        seen.append(f"{name}: from {column.min():.7g} to {column.max():.7g}, {column.mean():.7g} on average")
    others = [name for name in rows[0] if name not in {config.time, config.series, *columns}]
    return [*seen, *([f"not forecast: {listed(others)}"] if others else [])]
