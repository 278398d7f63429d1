"""A user's own table: CSV, Parquet or JSON lines, with words and gaps in it, and one column that is to be told.

What a column is, which categories it has and how its numbers lie is found out on the training rows; `predict` and
`serve` then take rows as they are in such files.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from heapq import nsmallest
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, cast

import numpy as np

from torchloom.config import TableFilesPreprocessConfig
from torchloom.data.columns import (
    Column,
    Encoder,
    Kind,
    count_different,
    gaps_of,
    given_cells,
    kind_of,
    written,
)
from torchloom.data.readers import Proposal
from torchloom.data.row_splits import groups_of, split_rows
from torchloom.data.row_targets import Asked, asked_here, asked_of, check_split, check_target, named_targets
from torchloom.data.rows import (
    LOOKED_AT,
    check_cells,
    find_tables,
    first_rows,
    hashes,
    is_table,
    names_of,
    say_duplicates,
    some,
    store_entry,
    store_files,
    text_column,
    writing_of,
)
from torchloom.data.spread import far_beyond
from torchloom.data.stored import Cells, Row, coded, layouts, of_each, of_rows, parts_of, together
from torchloom.data.tables import SUFFIXES
from torchloom.data.writing import as_said, writing_in
from torchloom.datasets.listing import Listing, scan
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError, telling
from torchloom.system.words import are, listed, meant

logger = logging.getLogger(__name__)

LEAST_SEEN = 2  # rows that have a category, for it to be known
MOST_BINS, QUANTILES = 256, 128  # bins of a number: between its values, or where it has too many of them
ROWS_OF_A_BIN = 20  # at least, on average


def find(config: TableFilesPreprocessConfig) -> Listing:
    """List the file, or the tables in the folder."""
    return find_tables(config)


def preprocess(
    listing: Listing, config: TableFilesPreprocessConfig, scratch: Path
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Tables -> training, validation and test tensors and what is known about them.

    Each of the tensors holds `features` (N, F) float32, as TableInfo has them, and the array of a data.targets.Target.
    Rows and features lie in temporary files in the folder `scratch`, and may be more than memory holds. Raises
    InputError for what is wrong with a file, a column or a cell.
    """
    return _prepare(store_files(listing, scratch, writing=writing_of(config)), config, scratch)


def preprocess_entry(
    table: Any, config: TableFilesPreprocessConfig, scratch: Path | None = None
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """The same of a table that the catalog holds; without `scratch` files lie in the system's folder for such."""
    return _prepare(store_entry(table, config), config, scratch)


def _prepare(
    read: Mapping[str, Sequence[Row]], config: TableFilesPreprocessConfig, scratch: Path | None
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    asked = asked_of(read, config)
    rows = {split: asked.known(split, part) for split, part in read.items()}
    _check_columns(some(rows), config)
    parts = split_rows(rows, config, asked.held)
    _say_partial(parts)
    columns = _columns(parts["train"], config, gaps_of(config.missing), in_all(together(parts.values())))
    say_duplicates(parts, [column.name for column in columns])
    target, learnt = asked.targets(parts)
    groups, names = groups_of(parts, config), names_of(parts)
    encode = Encoder(columns, config.missing)
    features = {split: _encoded(split, part, encode, scratch) for split, part in parts.items()}
    info = {
        "kind": "table",
        "features": _features(columns),
        "encoding": [column.model_dump() for column in columns],
        "missing": config.missing,
        "writing": writing_of(config).model_dump(),
        **statistics(columns, features["train"]),
        "target": target.model_dump(),
        "rows": {split: len(part) for split, part in parts.items()},
    }
    train, validation, test = (
        Tensors({"features": features[split], target.array: learnt[split], **groups[split], **names[split]})
        for split in ("train", "validation", "test")
    )
    return train, validation, test, info


# ---- what there is -------------------------------------------------------------------------------------------------

MEMBERS, STEPS = 32, 1700  # of a training that is proposed
OF_PROBLEMS = {"regression": (16, 2420)}  # where others do better
MOST_EPOCHS = 60
RECIPES = ((5_000, 32, 16), (100_000, 256, 16), (1_000_000, 1024, 6))  # below so many rows: batch, epochs at least
OF_MANY = 4096, 2
LOOKED_THROUGH = 1_000_000  # rows of each split, to propose a task
OF_THE_FIRST = f"of the first {LOOKED_THROUGH:,} rows"
PURE = 0.999  # of the rows have the class that most rows with the same value of a column have: it gives that away


def takes(path: Path, target: str | None) -> bool:
    """Whether it is a table, or a folder of tables, and not one of texts."""
    rows = first_rows(path, LOOKED_AT) if is_table(path) else []
    return bool(rows) and text_column(rows, named_targets(rows, target)) is None


def propose(path: Path, target: str | None) -> Proposal:
    """A task on the table, and what is doubtful about it. InputError without a target that is one of its columns."""
    writing = writing_in(first_rows(path, LOOKED_AT), gaps_of(()))
    read = store_files(scan(path, "--data", SUFFIXES), None, LOOKED_THROUGH, writing)
    told = as_said(writing) | asked_here(together(read.values()), check_target(path, some(read), target))
    config = TableFilesPreprocessConfig(files=str(path), **told)
    asked, gaps = asked_of(read, config), gaps_of(())
    known = {split: asked.known(split, part) for split, part in read.items()}
    check_split(known, config, asked)
    rows = together(known.values())
    cut = any(len(part) == LOOKED_THROUGH for part in read.values())
    columns, seen = {}, [f"{len(rows):,} rows, {len(rows[0])} columns{f', {OF_THE_FIRST}' if cut else ''}"]
    seen += [f"{name}: not in all rows, left out" for name in rows[0] if name not in in_all(rows)]
    for name in in_all(rows):
        if name not in config.targets:
            given = given_cells(rows, name, gaps)
            kind, why = _kind_seen(name, given)
            columns[name] = kind or "out"
            missing = f", {1 - len(given) / len(rows):.1%} missing" if len(given) < len(rows) else ""
            away = ", GIVES THE TARGET AWAY" if kind and _gives_away(rows, name, asked) else ""
            kinds = f" ({count_different(of_each(written, given), len(given))})" if kind == "category" else ""
            seen.append(f"{name}: {why or kind}{kinds}{missing}{away}{'' if kind else ', left out'}")
    seen += asked.lines(rows)
    if again := len(rows) - len(np.unique(hashes(rows, list(rows[0]), lambda cell: hash(str(cell))))):
        seen.append(f"{are(again, 'row')} there more than once")
    preprocess = {"reader": "table", "files": str(path), **told, "columns": columns}
    members, steps = OF_PROBLEMS.get(asked.problem, (MEMBERS, STEPS))
    model = {"name": "tabm", "members": members}
    blocks = {"data": {}, "model": model, "train": _training(len(rows), steps), "evaluate": {}, "export": {}}
    return Proposal(preprocess, asked.problem, blocks, seen, letters="".join(columns))


def _kind_seen(name: str, cells: Cells) -> tuple[Kind | None, str]:
    """As `kind_of`; what a run would refuse is left out, and why."""
    try:
        return kind_of(name, cells)
    except InputError as error:
        return None, error.message


def _training(count: int, steps: int) -> dict[str, Any]:
    """The block `train` for so many rows."""
    batch, least = next(((batch, least) for below, batch, least in RECIPES if count < below), OF_MANY)
    return {
        "epochs": int(np.clip(round(steps * batch / count), least, MOST_EPOCHS)),
        "batch_size": batch,
        "optimizer": {"name": "AdamW", "lr": 0.002, "weight_decay": 0.02},
        "scheduler": {"name": "CosineAnnealingLR"},
        "monitor": "loss",
    }


def _gives_away(rows: Sequence[Row], name: str, asked: Asked) -> bool:
    """Whether rows with the same value of the column, of which there are several, nearly all have the same class, or
    labels."""
    codes, values = coded(of_each(written, Cells(rows, name)), len(rows))
    held, classes = coded(map(tuple, of_rows(asked.held, rows, asked.columns)), len(rows))
    if len(classes) < 2 or len(values) > len(rows) / 10:  # of a number there is one class, of nothing
        return False
    pairs, counts = np.unique(codes * np.int64(len(classes)) + held, return_counts=True)
    likeliest = np.zeros(len(values), dtype=np.int64)
    np.maximum.at(likeliest, pairs // len(classes), counts)
    return bool(likeliest.sum() >= PURE * len(rows))


def _check_columns(rows: Sequence[Row], config: TableFilesPreprocessConfig) -> None:
    names = [name for name in rows[0] if name not in config.targets] if rows else []
    if unknown := config.columns.keys() - set(names):
        name = sorted(unknown)[0]
        near = meant(name, names)
        raise InputError(f"preprocess.columns.{name}: there is no such column{near}; there are {listed(names)}")


# ---- columns -------------------------------------------------------------------------------------------------------


def in_all(rows: Sequence[Row]) -> list[str]:
    """The columns that all rows have, in the order of the first."""
    first, *others = layouts(rows)
    return [name for name in first if all(name in names for names in others)]


def _say_partial(parts: Mapping[str, Sequence[Row]]) -> None:
    every = {name: None for part in parts.values() for names in layouts(part) for name in names}
    if partial := [name for name in every if name not in in_all(together(parts.values()))]:
        logger.warning("some rows, of a file or split, have no %s: left out", listed(list(map(repr, partial))))


def _columns(
    rows: Sequence[Row], config: TableFilesPreprocessConfig, gaps: frozenset[str], known: Sequence[str]
) -> list[Column]:
    """What each of the `known` columns is but for the target, by the training rows; those of no use are left out, with
    a warning."""
    apart = {*config.targets} | (config.split_by.apart if config.split_by else set())
    names = [name for name in known if name not in apart]
    found, seen = [], {}
    for name in names:
        cells = given_cells(rows, name, gaps)
        given = config.columns.get(name)
        kind, why = (given, "") if given and (len(cells) or given == "out") else kind_of(name, cells)
        if kind in {None, "out"}:
            logger.warning("the column %r %s: it is left out", name, why) if why else None
            continue
        assert kind is not None
        check_cells("train", cells.rows, name)
        values = _values(cells, config.most_categories) if kind == "category" else []
        found.append(Column(name=name, kind=cast(Kind, kind), values=values))
        seen[name] = f"{kind} ({len(values)})" if values else kind
    if not found:
        told = listed(list(map(repr, config.targets)))
        raise InputError(f"{config.place}: no column is of use to tell {told} from. See the warnings above")
    logger.info("columns: %s", ", ".join(f"{name}: {kind}" for name, kind in seen.items()))
    return found


def _values(cells: Sequence[Any], most: int) -> list[str]:
    """The categories, the most frequent first, equally frequent ones in order."""
    counts = Counter(of_each(written, cells))
    known = ((-count, value) for value, count in counts.items() if count >= LEAST_SEEN)
    return [value for _, value in nsmallest(most, known)]


def _features(columns: Sequence[Column]) -> list[str]:
    return [feature for column in columns for feature in column.features]


def _encoded(split: str, rows: Sequence[Row], encode: Encoder, scratch: Path | None) -> np.ndarray:
    """(N, F) float32, memory-mapped; InputError names the row, counted from 1, the column and the cell."""
    width = len(_features(encode.columns))
    try:
        with TemporaryFile(dir=scratch) as file:
            for part in parts_of(rows):
                place = file.tell() // (4 * width)
                file.write(_encoded_part(f"the {split} rows", part, encode, place).data)
            file.flush()
            return np.memmap(file, np.float32, "r+", shape=(len(rows), width)) if rows else np.empty((0, width), "f4")
    except OSError as error:
        raise InputError(f"{scratch}: the features cannot be written ({error.strerror}). Make room there") from error


def _encoded_part(called: str, rows: Sequence[Row], encode: Encoder, before: int) -> np.ndarray:
    try:
        return encode.table(rows)
    except InputError:
        for place, row in enumerate(rows, before + 1):
            with telling(f"{called}, number {place} of those with a target"):
                encode(row)
        raise


def statistics(columns: Sequence[Column], features: np.ndarray) -> dict[str, Any]:
    """Of each feature its mean and deviation, and where its bins begin and end; of categories none of it.

    Of the (N, F) features one is in memory at once.
    """
    numbers = [column.kind != "category" for column in columns for _ in column.features]
    names = _features(columns)
    found: dict[str, Any] = {"mean": [], "std": [], "gaps": [], "bins": []}
    for place, (name, number) in enumerate(zip(names, numbers, strict=True)):
        values = features[:, place].astype(np.float64) if number else np.zeros(1)
        known = values[~np.isnan(values)]
        found["mean"].append(float(known.mean()))
        found["std"].append(float(known.std()) or 1.0)
        found["gaps"] += [name] if 1 < len(known) < len(values) else []
        del values
        found["bins"].append(_edges(known) if number else [])
    return found


def _edges(values: np.ndarray) -> list[float]:
    """Where bins begin and end: at each value where there are not too many, else as many values lie in each.

    A few values far beyond all others are in bins of their own, for the sake of those in the first and last one.
    """
    most = int(np.clip(len(values) // ROWS_OF_A_BIN, 2, MOST_BINS))
    different = np.unique(values)
    if len(different) > most + 1:
        kept = values[~far_beyond(values)]
        sides = [side for side in (values[values < kept.min()], values[values > kept.max()]) if len(side)]
        quantiles = np.quantile(kept, np.linspace(0, 1, min(most, QUANTILES) + 1))
        different = np.unique([*quantiles, *(end for side in sides for end in (side.min(), side.max()))])
    edges = np.unique(different.astype(np.float32))
    return edges.tolist() if len(edges) > 1 else [float(edges[0]), float(edges[0]) + 1.0]
