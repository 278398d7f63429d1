"""A user's own table: CSV, Parquet or JSON lines, with words and gaps in it, and one column that is to be told.

What a column is, which categories it has and how its numbers lie is found out on the training rows; `predict` and
`serve` then take rows as they are in such files.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from torchloom.config import TableFilesPreprocessConfig
from torchloom.data.columns import Column, Encoder, Kind, is_gap, kind_of, written
from torchloom.data.readers import Proposal
from torchloom.data.rows import (
    Row,
    are_classes,
    check_target,
    first_rows,
    groups_of,
    is_table,
    place_of,
    read_entry,
    read_files,
    say_duplicates,
    split_rows,
    target_lines,
    targets_of,
    text_column,
    with_target,
)
from torchloom.data.tables import SUFFIXES
from torchloom.datasets.listing import Listing, scan
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.system.words import counted, listed

logger = logging.getLogger(__name__)

LEAST_SEEN = 2  # rows that have a category, for it to be known
MOST_BINS, QUANTILES = 256, 128  # bins of a number: between its values, or where it has too many of them
ROWS_OF_A_BIN = 20  # at least, on average


def find(config: TableFilesPreprocessConfig) -> Listing:
    """List the file, or the tables in the folder."""
    assert config.files is not None
    listing = scan(Path(config.files), "preprocess.files", SUFFIXES)
    listing.say_links()
    return listing


def preprocess(
    listing: Listing,
    config: TableFilesPreprocessConfig,
    scratch: Path,  # noqa: ARG001  (tables need none)
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Tables -> training, validation and test tensors and what is known about them.

    Each of the tensors holds `features` (N, F) float32, as TableInfo has them, and `labels` (N,) int64 or `target` (N,)
    float32. Raises InputError for what is wrong with a file, a column or a cell.
    """
    return _prepare(read_files(listing), config)


def preprocess_entry(
    table: Any, config: TableFilesPreprocessConfig
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """The same of a table that the catalog holds."""
    return _prepare(read_entry(table, config), config)


def _prepare(
    read: dict[str, list[Row]], config: TableFilesPreprocessConfig
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    gaps = Encoder([], config.missing).gaps
    rows = {split: with_target(split, part, config, gaps) for split, part in read.items()}
    cells = [row[config.target] for part in rows.values() for row in part]
    _check_columns(rows["train"] or rows["test"], config)
    as_classes = are_classes(cells, config)
    parts = split_rows(rows, config, as_classes)
    columns = _columns(parts["train"], config, gaps)
    say_duplicates(parts, [column.name for column in columns])
    target, learnt = targets_of(parts, config, as_classes)
    groups = groups_of(parts, config)
    encode = Encoder(columns, config.missing)
    features = {split: _encoded(split, part, encode, len(_features(columns))) for split, part in parts.items()}
    info = {
        "kind": "table",
        "features": _features(columns),
        "encoding": [column.model_dump() for column in columns],
        "missing": config.missing,
        **statistics(columns, features["train"]),
        "target": target.model_dump(),
        "rows": {split: len(part) for split, part in parts.items()},
    }
    train, validation, test = (
        Tensors({"features": features[split], target.array: learnt[split], **groups[split]})
        for split in ("train", "validation", "test")
    )
    return train, validation, test, info


# ---- what there is -------------------------------------------------------------------------------------------------

STEPS, MOST_EPOCHS, LEAST_EPOCHS = 1700, 60, 16  # of a training that is proposed
PURE = 0.999  # of the rows have the class that most rows with the same value of a column have: it gives that away


def takes(path: Path) -> bool:
    """Whether it is a table, or a folder of nothing but tables, and not one of texts."""
    return is_table(path) and text_column(first_rows(path, 1000)) is None


def propose(path: Path, target: str | None) -> Proposal:
    """A task on the table, and what is doubtful about it. InputError without a target that is one of its columns."""
    listing = scan(path, "--data", SUFFIXES)
    rows = [row for part in read_files(listing).values() for row in part]
    check_target(path, rows, target)
    assert target is not None
    config = TableFilesPreprocessConfig(files=str(path), target=target)
    gaps = Encoder([], ()).gaps
    rows = with_target("all", rows, config, gaps)
    cells = [row[target] for row in rows]
    as_classes = are_classes(cells, config)
    columns, seen = {}, [f"{len(rows):,} rows, {len(rows[0])} columns"]
    for name in rows[0]:
        if name != target:
            given = [row[name] for row in rows if not is_gap(row[name], gaps)]
            kind, why = kind_of(name, given)
            columns[name] = kind or "out"
            missing = f", {1 - len(given) / len(rows):.1%} missing" if len(given) < len(rows) else ""
            away = ", GIVES THE TARGET AWAY" if kind and as_classes and _gives_away(rows, name, target) else ""
            kinds = f" ({len(set(map(written, given)))})" if kind == "category" else ""
            seen.append(f"{name}: {why or kind}{kinds}{missing}{away}{'' if kind else ', left out'}")
    seen += target_lines(target, cells, as_classes)
    if again := len(rows) - len({tuple(map(str, row.values())) for row in rows}):
        seen.append(f"{counted(again, 'row')} are there more than once")
    batch = 256 if len(rows) >= 5000 else 32
    train = {
        "epochs": int(np.clip(round(STEPS * batch / len(rows)), LEAST_EPOCHS, MOST_EPOCHS)),
        "batch_size": batch,
        "optimizer": {"name": "AdamW", "lr": 0.002, "weight_decay": 0.02},
        "scheduler": {"name": "CosineAnnealingLR"},
        "monitor": "loss",
    }
    preprocess = {"reader": "table", "files": str(path), "target": target, "columns": columns}
    blocks = {"data": {}, "model": {"name": "tabm"}, "train": train, "evaluate": {}, "export": {}}
    return Proposal(preprocess, "classification" if as_classes else "regression", blocks, seen)


def _gives_away(rows: Sequence[Row], name: str, target: str) -> bool:
    """Whether rows with the same value of the column, of which there are several, nearly all have the same class."""
    classes: dict[str, Counter[str]] = {}
    for row in rows:
        classes.setdefault(written(row[name]), Counter())[written(row[target])] += 1
    likeliest = sum(max(counts.values()) for counts in classes.values())
    return len(classes) <= len(rows) / 10 and likeliest >= PURE * len(rows)


def _check_columns(rows: Sequence[Row], config: TableFilesPreprocessConfig) -> None:
    names = [name for name in rows[0] if name != config.target] if rows else []
    if unknown := config.columns.keys() - set(names):
        raise InputError(f"preprocess.columns.{sorted(unknown)[0]}: there is no such column; there are {listed(names)}")


# ---- columns -------------------------------------------------------------------------------------------------------


def _columns(rows: Sequence[Row], config: TableFilesPreprocessConfig, gaps: frozenset[str]) -> list[Column]:
    """What each column is but for the target, by the training rows; those of no use are left out, with a warning."""
    names = [name for name in rows[0] if name not in {config.target, config.groups}]
    found, seen = [], {}
    for name in names:
        cells = [row[name] for row in rows if not is_gap(row.get(name), gaps)]
        given = config.columns.get(name)
        kind, why = (given, "") if given and (cells or given == "out") else kind_of(name, cells)
        if kind in {None, "out"}:
            logger.warning("the column %r %s: it is left out", name, why) if why else None
            continue
        assert kind is not None
        values = _values(cells, config.most_categories) if kind == "category" else []
        found.append(Column(name=name, kind=cast(Kind, kind), values=values))
        seen[name] = f"{kind} ({len(values)})" if values else kind
    if not found:
        raise InputError(
            f"{place_of(config)}: no column is of use to tell {config.target!r} from. See the warnings above"
        )
    logger.info("columns: %s", ", ".join(f"{name}: {kind}" for name, kind in seen.items()))
    return found


def _values(cells: Sequence[Any], most: int) -> list[str]:
    """The categories, the most frequent first, equally frequent ones in order."""
    counts = Counter(map(written, cells))
    known = sorted((-count, value) for value, count in counts.items() if count >= LEAST_SEEN)
    return [value for _, value in known[:most]]


def _features(columns: Sequence[Column]) -> list[str]:
    return [feature for column in columns for feature in column.features]


def _encoded(split: str, rows: Sequence[Row], encode: Encoder, width: int) -> np.ndarray:
    """(N, F) float32; InputError names the row, counted from 1, the column and the cell."""
    found = np.empty((len(rows), width), dtype=np.float32)
    for place, row in enumerate(rows):
        try:
            found[place] = encode(row)
        except InputError as error:
            raise InputError(f"the {split} rows, number {place + 1} of those with a target: {error.message}") from error
    return found


def statistics(columns: Sequence[Column], features: np.ndarray) -> dict[str, Any]:
    """Of each feature its mean and deviation, and where its bins begin and end; of categories none of it."""
    numbers = [column.kind != "category" for column in columns for _ in column.features]
    names, values = _features(columns), features.T.astype(np.float64)
    known = [value[~np.isnan(value)] if number else np.zeros(1) for value, number in zip(values, numbers, strict=True)]
    gaps = [name for name, part, value in zip(names, known, values, strict=True) if 1 < len(part) < len(value)]
    return {
        "mean": [float(part.mean()) for part in known],
        "std": [float(part.std()) or 1.0 for part in known],
        "gaps": [name for name, number in zip(names, numbers, strict=True) if number and name in gaps],
        "bins": [_edges(part) if number else [] for part, number in zip(known, numbers, strict=True)],
    }


def _edges(values: np.ndarray) -> list[float]:
    """Where bins begin and end: at each value where there are not too many, else as many values lie in each."""
    most = int(np.clip(len(values) // ROWS_OF_A_BIN, 2, MOST_BINS))
    different = np.unique(values)
    if len(different) > most + 1:
        different = np.unique(np.quantile(values, np.linspace(0, 1, min(most, QUANTILES) + 1)))
    edges = np.unique(different.astype(np.float32))
    return edges.tolist() if len(edges) > 1 else [float(edges[0]), float(edges[0]) + 1.0]
