"""A user's own series with what is to be told of each: a series in each row of a table, or a step in each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import LabelledSeriesPreprocessConfig
from torchloom.data.columns import gaps_of, is_gap, is_number, written
from torchloom.data.row_splits import split_rows
from torchloom.data.row_targets import asked_of
from torchloom.data.rows import Row, find_tables, read_entry, read_files
from torchloom.data.series import in_order, of_length, values_of
from torchloom.datasets.listing import Listing
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.system.words import listed, meant

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
    return _prepare(read_files(listing), config)


def preprocess_entry(
    table: Any, config: LabelledSeriesPreprocessConfig
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """The same of a table that the catalog holds."""
    return _prepare(read_entry(table, config), config)


def _prepare(
    read: Mapping[str, list[Row]], config: LabelledSeriesPreprocessConfig
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    gaps = gaps_of(config.missing)
    columns = _columns([row for part in read.values() for row in part], config, gaps)
    series = {split: _series(split, part, columns, config) for split, part in read.items()}
    asked = asked_of(series, config)
    parts = split_rows({split: asked.known(split, part) for split, part in series.items()}, config, asked.held)
    target, learnt = asked.targets(parts)
    channels = columns if config.series else [CHANNEL]
    length = config.length or max(len(of_length(row[STEPS], None, channels)) for row in parts["train"])
    arrays = {
        split: np.array([of_length(row[STEPS], length, channels) for row in part], np.float32).reshape(
            len(part), length, len(channels)
        )
        for split, part in parts.items()
    }
    values = arrays["train"].reshape(-1, len(channels)).astype(np.float64)
    std = values.std(0)
    info = {
        "kind": "labelled_series",
        "channels": channels,
        "steps": [] if config.series else columns,
        "series": config.series,
        "time": config.time,
        "length": length,
        "missing": config.missing,
        "mean": values.mean(0).tolist(),
        "std": np.where(std == 0, 1.0, std).tolist(),
        "target": target.model_dump(),
        "counts": {split: len(part) for split, part in parts.items()},
    }
    train, validation, test = (
        Tensors({"series": arrays[split], target.array: learnt[split]}) for split in ("train", "validation", "test")
    )
    return train, validation, test, info


def _columns(rows: Sequence[Row], config: LabelledSeriesPreprocessConfig, gaps: frozenset[str]) -> list[str]:
    """Those that are named, or else all of numbers that have no other part."""
    splitting = config.split_by.names if config.split_by else []
    others = [*config.targets, *splitting, *filter(None, [config.series, config.time])]
    if unknown := [name for name in [*config.columns, *others] if name not in rows[0]]:
        near = meant(unknown[0], rows[0])
        raise InputError(f"{config.place}: there is no column {unknown[0]!r}{near}; there are {listed(list(rows[0]))}")
    if config.columns:
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
    for number, row in enumerate(rows):
        parts.setdefault(written(row.get(config.series, "")) if config.series else str(number), []).append(row)
    found = []
    for name, part in parts.items():
        where = f"{config.place}: {f'series {name}' if config.series else f'the {split} row {int(name) + 1}'}"
        for target in config.targets:
            if len(told := {written(row.get(target)) for row in part}) > 1:
                raise InputError(f"{where} has several of {target!r}: {listed(sorted(told), 3)}")
        try:
            values = values_of(in_order(part, config.time), columns, config.missing)
            steps = values if config.series else values.T
            of_length(steps, None, columns if config.series else [CHANNEL])
        except InputError as error:
            raise InputError(f"{where}: {error.message}") from error
        found.append({**part[0], STEPS: steps})
    return found
