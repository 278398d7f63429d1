"""A user's own series with what is to be told of each: one in each row of a table, a step in each, or one in a cell.

Cells that hold whole series are those of lists, and the entries of NumPy's arrays.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import LabelledSeriesPreprocessConfig
from torchloom.data import arrays
from torchloom.data.columns import gaps_of, is_gap, is_number, number, written
from torchloom.data.moments import read_moment
from torchloom.data.readers import Proposal
from torchloom.data.row_splits import groups_of, split_rows
from torchloom.data.row_targets import asked_here, asked_of, check_split, check_target, named_targets
from torchloom.data.rows import (
    Row,
    find_tables,
    first_rows,
    is_table,
    names_of,
    plain,
    read_entry,
    read_files,
    some,
    writing_of,
)
from torchloom.data.series import in_order, of_length, values_in, values_of
from torchloom.data.stored import Line
from torchloom.data.tables import SUFFIXES
from torchloom.datasets.listing import Listing, scan
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError, telling
from torchloom.system.words import counted, listed, meant

logger = logging.getLogger(__name__)

STEPS = "\0steps"  # of a series among its cells, by a name that no column has
CHANNEL = "value"  # what a series in a row is called


def find(config: LabelledSeriesPreprocessConfig) -> Listing:
    """List the file, or the tables in the folder."""
    return find_tables(config)


def preprocess(
    listing: Listing,
    config: LabelledSeriesPreprocessConfig,
    scratch: Path,  # noqa: ARG001  (tables need none)
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Tables -> training, validation and test tensors and what is known about them.

    Each of the tensors holds `series` (N, length, channels) float32, and `labels` (N,) int64 or `target` (N,) float32.
    Raises InputError for what is wrong with a file, a column or a cell.
    """
    return _prepare(_read(listing, config), config)


def preprocess_entry(
    table: Any, config: LabelledSeriesPreprocessConfig
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """The same of a table that the catalog holds."""
    return _prepare(read_entry(table, config), config)


def _read(listing: Listing, config: LabelledSeriesPreprocessConfig) -> dict[str, list[Row]]:
    if config.array and all(Path(name).suffix.lower() in arrays.ENDINGS for name in listing.names):
        with telling(config.place):
            found = arrays.rows_by_split(listing, config.array)
        return {split: plain(rows, writing_of(config)) for split, rows in found.items()}
    return read_files(listing, writing_of(config))


def _prepare(
    read: Mapping[str, list[Row]], config: LabelledSeriesPreprocessConfig
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    gaps = gaps_of(config.missing)
    columns = _columns([row for part in read.values() for row in part], config, gaps)
    series = {split: _series(split, part, columns, config) for split, part in read.items()}
    asked = asked_of(series, config)
    parts = split_rows({split: asked.known(split, part) for split, part in series.items()}, config, asked.held)
    target, learnt = asked.targets(parts)
    groups, names = groups_of(parts, config), names_of(parts)
    channels = _channels(series, columns, config)
    length = config.length or max(len(of_length(row[STEPS], None, channels)) for row in parts["train"])
    values = {
        split: np.array([of_length(row[STEPS], length, channels) for row in part], np.float32).reshape(
            len(part), length, len(channels)
        )
        for split, part in parts.items()
    }
    trained = values["train"].reshape(-1, len(channels)).astype(np.float64)
    std = trained.std(0)
    info = {
        "kind": "labelled_series",
        "channels": channels,
        "steps": [] if config.series or config.array else columns,
        "array": config.array,
        "channels_first": config.channels_first,
        "series": config.series,
        "time": config.time,
        "length": length,
        "missing": config.missing,
        "writing": writing_of(config).model_dump(),
        "mean": trained.mean(0).tolist(),
        "std": np.where(std == 0, 1.0, std).tolist(),
        "target": target.model_dump(),
        "counts": {split: len(part) for split, part in parts.items()},
    }
    train, validation, test = (
        Tensors({"series": values[split], target.array: learnt[split], **groups[split], **names[split]})
        for split in ("train", "validation", "test")
    )
    return train, validation, test, info


def _columns(rows: Sequence[Row], config: LabelledSeriesPreprocessConfig, gaps: frozenset[str]) -> list[str]:
    """Those that are named, or else all of numbers that have no other part."""
    splitting = config.split_by.names if config.split_by else []
    others = [*config.targets, *splitting, *filter(None, [config.series, config.time, config.array])]
    if unknown := [name for name in [*config.columns, *others] if name not in rows[0]]:
        near = meant(unknown[0], rows[0])
        raise InputError(f"{config.place}: there is no column {unknown[0]!r}{near}; there are {listed(list(rows[0]))}")
    if config.columns or config.array:
        return config.columns
    left = [name for name in rows[0] if name not in others]
    found = [name for name in left if all(is_number(row[name]) for row in rows if not is_gap(row.get(name), gaps))]
    if left_out := [name for name in left if name not in found]:
        logger.warning("columns that do not hold numbers alone are left out: %s", listed(left_out))
    if not found:
        raise InputError(f"{config.place}: no column holds numbers alone. Say which are preprocess.columns")
    return found


def _series(split: str, rows: list[Row], columns: list[str], config: LabelledSeriesPreprocessConfig) -> list[Row]:
    """Each series with its target, as one row."""
    parts: dict[str, list[Row]] = {}
    for place, row in enumerate(rows):
        parts.setdefault(written(row.get(config.series, "")) if config.series else str(place), []).append(row)
    found = []
    for name, part in parts.items():
        where = f"{config.place}: {f'series {name}' if config.series else f'the {split} row {int(name) + 1}'}"
        for target in config.targets:
            if len(told := {written(row.get(target)) for row in part}) > 1:
                raise InputError(f"{where} has several of {target!r}: {listed(sorted(told), 3)}")
        try:
            steps = _steps(part, columns, config)
            of_length(steps, None, _called(steps, columns, config))
        except InputError as error:
            raise InputError(f"{where}: {error.message}") from error
        found.append(_with_steps(part[0], steps, name if config.series else None))
    return found


def _with_steps(first: Row, steps: np.ndarray, name: str | None) -> Row:
    """The first row of a series with its steps; where it has a name it is called so, in the file of that row."""
    row = {**first, STEPS: steps}
    if not isinstance(first, Line):
        return row
    return Line(row, first.file, first.part if name is None else name)


def _steps(rows: list[Row], columns: list[str], config: LabelledSeriesPreprocessConfig) -> np.ndarray:
    """(T, channels) of the rows of one series."""
    if config.array:
        return values_in(rows[0][config.array], config.array, config.channels_first)
    values = values_of(in_order(rows, config.time), columns, config.missing)
    return values if config.series else values.T


def _called(steps: np.ndarray, columns: list[str], config: LabelledSeriesPreprocessConfig) -> list[str]:
    """What its channels are called."""
    if config.array:
        width = steps.shape[1]
        return [config.array] if width == 1 else [f"{config.array}{number}" for number in range(width)]
    return columns if config.series else [CHANNEL]


def _channels(series: Mapping[str, list[Row]], columns: list[str], config: LabelledSeriesPreprocessConfig) -> list[str]:
    """The same of all series, which have as many."""
    found = {
        len(names): names for part in series.values() for row in part if (names := _called(row[STEPS], columns, config))
    }
    if len(found) > 1:
        counts = listed(list(map(str, sorted(found))))
        raise InputError(f"{config.place}: series of different numbers of channels: {counts}. Make them alike")
    return next(iter(found.values()))


# ---- what there is -------------------------------------------------------------------------------------------------

LOOKED_AT = 20_000  # rows
LEAST_SERIES, LEAST_STEPS = 10, 5  # in a table of series, and of each of them on average
LEAST_COLUMNS, MOST_OTHERS = 10, 3  # that are steps of a series in a row, and besides
ALIKE = 0.3  # how much steps that are neighbours have to do with each other, at least: a correlation
MOST_CLASSES, ROWS_OF_A_CLASS = 100, 5  # of numbers in an array, and of how many series each on average
REGULAR = 0.9  # of the steps from one row of a series to the next are as long as most
UPDATES, MOST_EPOCHS, LEAST_EPOCHS = 1500, 100, 10  # of a training that is proposed


def takes(path: Path, target: str | None) -> bool:
    """Whether there are series: in arrays, or as rows of a table, or steps in these, of which each has one target."""
    if arrays.of_numpy(path) and any(_looks_like_series(each) for each in _trained(path).values()):
        return True
    rows = first_rows(path, LOOKED_AT) if target and is_table(path) else []
    return _form(rows, named_targets(rows, target)) is not None


def propose(path: Path, target: str | None) -> Proposal:
    """A task on the series."""
    listing = scan(path, "--data", SUFFIXES)
    form: dict[str, Any] = _array_form(path)
    read = arrays.rows_by_split(listing, form["array"]) if form else read_files(listing)
    rows = [row for part in read.values() for row in part]
    others = [name for name in rows[0] if name != form.get("array")]
    alone = others[0] if form and len(others) == 1 else None
    names = check_target(path, some(read), target or alone)
    told = {**asked_here(rows, names), **(_classes(rows, names) if form else {})}
    form = form or _form(rows[:LOOKED_AT], names) or {}
    config = LabelledSeriesPreprocessConfig.model_validate({"files": str(path), **told, **form})
    columns = _columns(rows, config, gaps_of(()))
    series = {split: _series(split, part, columns, config) for split, part in read.items()}
    asked = asked_of(series, config)
    known = {split: asked.known(split, part) for split, part in series.items()}
    check_split(known, config, asked)
    found = [row for part in known.values() for row in part]
    batch = 32 if len(found) < 5000 else 128
    train = {
        "epochs": int(np.clip(round(UPDATES * batch / len(found)), LEAST_EPOCHS, MOST_EPOCHS)),
        "batch_size": batch,
        "optimizer": {"name": "AdamW", "lr": 0.002},
        "scheduler": {"name": "CosineAnnealingLR"},
        "monitor": "loss",
    }
    blocks = {"data": {}, "model": {"name": "series_cnn"}, "train": train, "evaluate": {}, "export": {}}
    preprocess = {"reader": "labelled_series", "files": str(path), **told, **form}
    preprocess |= {} if config.array else {"columns": columns}
    own = {*columns, *config.targets, config.series, config.time, config.array}
    left = [name for name in rows[0] if name not in own]
    seen = [
        _seen(found, columns, config),
        *_guessed(found[0], config),
        *asked.lines(found),
        *([f"left out: {listed(left)}"] if left else []),
    ]
    return Proposal(preprocess, asked.problem, blocks, seen)


def _seen(found: Sequence[Row], columns: Sequence[str], config: LabelledSeriesPreprocessConfig) -> str:
    names = _called(found[0][STEPS], list(columns), config)
    lengths = [len(of_length(row[STEPS], None, names)) for row in found]
    many = f"{min(lengths):,} to {max(lengths):,}" if min(lengths) < max(lengths) else f"{max(lengths):,}"
    if config.series:
        where = f"a row for each step, by {config.series} and {config.time}: {listed(columns)}"
    elif config.array:
        where = f"{counted(len(names), 'channel')}, in the array {config.array}"
    else:
        where = f"a row for each series: {columns[0]} to {columns[-1]}"
    return f"{len(found):,} series of {many} steps, {where}"


def _guessed(row: Row, config: LabelledSeriesPreprocessConfig) -> list[str]:
    """What could be otherwise, and how to say so."""
    if config.series:
        return []
    if not config.array:
        return [
            "each row is taken for a series, as columns beside each other go together; of a table say reader: table"
        ]
    axes, otherwise = "steps", "of a table say --reader table"
    if np.ndim(row[config.array]) > 1:
        axes = "channels, steps" if config.channels_first else "steps, channels"
        otherwise = f"else say channels_first: {str(not config.channels_first).lower()}, of pictures --reader arrays"
    numbers = f"{config.target} is taken for classes; of numbers say target_type: number"
    return [f"{config.array} is taken for series (N, {axes}); {otherwise}", *([numbers] if config.target_type else [])]


def _trained(path: Path) -> dict[str, np.ndarray]:
    """Those of the arrays to train that could be series."""
    found = arrays.read_all(scan(path, "--data", arrays.ENDINGS)).get("train", {})
    return {
        name: each for name, each in found.items() if each.ndim in {2, 3} and each.dtype.kind in "biuf" and each.size
    }


def _looks_like_series(array: np.ndarray) -> bool:
    if array.ndim == 3:
        return not arrays.are_pictures(array)
    return array.shape[1] >= LEAST_COLUMNS and _are_alike(array[:1000])


def _array_form(path: Path) -> dict[str, Any]:
    """The keys that say which array has the series, the largest; what is longer, steps or channels, are the steps."""
    found = _trained(path) if arrays.of_numpy(path) else {}
    if not found:
        return {}
    name = max(found, key=lambda name: found[name].size)
    first = found[name].ndim == 3 and found[name].shape[1] < found[name].shape[2]
    return {"array": name, **({"channels_first": True} if first else {})}


def _classes(rows: Sequence[Row], targets: Sequence[str]) -> dict[str, Any]:
    """That numbers are classes, as those of the archives of series are, where there are few whole ones."""
    cells = [row.get(targets[0]) for row in rows]
    whole = all(is_number(cell) and number(cell).is_integer() for cell in cells)
    few = len(set(cells)) <= min(MOST_CLASSES, len(cells) / ROWS_OF_A_CLASS) if whole else False
    return {"target_type": "classes"} if few and len(targets) == 1 else {}


def _form(rows: Sequence[Row], targets: Sequence[str]) -> dict[str, Any] | None:
    """The keys of the block `preprocess` that say where in such rows the series are, if they look like series."""
    if not rows or not targets or any(name not in rows[0] for name in targets):
        return None
    return _in_many_rows(rows, targets) or _in_columns(rows, targets)


def _in_many_rows(rows: Sequence[Row], targets: Sequence[str]) -> dict[str, Any] | None:
    """The column that says which series a row is of, the finest of them, and that which says when it is."""
    others = [name for name in rows[0] if name not in targets]
    words = {name: [_word(row.get(name)) for row in rows] for name in rows[0]}
    answers = list(zip(*(words[name] for name in targets), strict=True))
    found: dict[int, dict[str, Any]] = {}
    for name in others if len(set(answers)) > 1 else []:
        parts: dict[str, list[int]] = {}
        for place, word in enumerate(words[name]):
            parts.setdefault(word, []).append(place)
        few = LEAST_SERIES <= len(parts) <= len(rows) / LEAST_STEPS
        if few and all(len({answers[place] for place in part}) == 1 for part in parts.values()):
            times = [other for other in others if other != name and _orders(rows, other, list(parts.values()))]
            found |= {len(parts): {"series": name, "time": times[0]}} if times else {}
    return found[max(found)] if found else None


def _word(cell: Any) -> str:
    try:
        return written(cell)
    except ValueError:  # no single value
        return repr(cell)


def _orders(rows: Sequence[Row], name: str, parts: Sequence[Sequence[int]]) -> bool:
    """Whether the cells of the column are regular steps in each part of the rows, and no numbers of rows."""
    try:
        whole = all(is_number(row.get(name)) for row in rows)
        times = np.array([number(row[name]) if whole else float(read_moment(row[name], None)[0]) for row in rows])
    except (KeyError, ValueError):
        return False
    apart = np.concatenate([np.diff(np.sort(times[list(part)])) for part in parts])
    if not len(apart) or not (apart > 0).all() or (whole and len(np.unique(times)) == len(times)):
        return False
    most: int = max(np.unique(apart, return_counts=True)[1].tolist())
    return most >= REGULAR * len(apart)


def _in_columns(rows: Sequence[Row], targets: Sequence[str]) -> dict[str, Any] | None:
    """The columns that are the steps: their names count on, and neighbours have to do with each other."""
    others = [name for name in rows[0] if name not in targets]
    ends = {name: re.fullmatch(r"(.*?)(\d+)", name) for name in others}
    first = next((match[1] for match in ends.values() if match), "")
    columns = [name for name, match in ends.items() if match and match[1] == first]
    counted_on = all(int(two[len(first) :]) == int(one[len(first) :]) + 1 for one, two in pairwise(columns))
    if len(columns) < LEAST_COLUMNS or len(others) - len(columns) > MOST_OTHERS or not counted_on:
        return None
    gaps = gaps_of(())
    cells = [[np.nan if is_gap(row[name], gaps) else row[name] for name in columns] for row in rows[:1000]]
    try:
        values = np.array([[float(cell) for cell in row] for row in cells])
    except (TypeError, ValueError):
        return None
    return {"columns": columns} if _are_alike(values) else None


def _are_alike(values: np.ndarray) -> bool:
    """Whether neighbours among the columns of (N, steps) numbers have to do with each other."""
    known = np.ma.masked_invalid(values)
    together = [np.ma.corrcoef(known[:, place], known[:, place + 1])[0, 1] for place in range(known.shape[1] - 1)]
    return bool(np.ma.mean(together) >= ALIKE)
