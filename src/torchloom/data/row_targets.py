"""What is to be told of the rows of a user's tables: a class, labels of which several may hold, or numbers.

`asked_of` finds out which; what follows from it the object that it gives answers.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from torchloom.config import AnewConfig, RowsPreprocessConfig
from torchloom.data.columns import (
    GAPS,
    MOSTLY,
    are_few,
    flag,
    gaps_in,
    given_cells,
    is_flag,
    is_gap,
    is_list,
    is_number,
    labels_in,
    number,
    written,
)
from torchloom.data.row_splits import split_rows
from torchloom.data.rows import check_cells, say_left_out
from torchloom.data.splits import log_classes, log_labels
from torchloom.data.spread import far_beyond, measured
from torchloom.data.stored import Cells, Row, array_of, coded, counted_in, layouts, of_each, of_rows, together, where
from torchloom.data.targets import Classes, Labels, Number, Numbers, Target
from torchloom.errors import InputError
from torchloom.system.words import counted, listed, meant

logger = logging.getLogger(__name__)

FEW = 2  # different numbers of a target that are classes
RARE = 0.05  # share of the rows
RARELY = "rare: {}. Where these matter, train.loss.weight: balanced{} more of them"
MOST_NUMBERS, ROWS_OF_A_NUMBER = 20, 10  # whole numbers that could be classes, and of how many rows each

Parts = Mapping[str, Sequence[Row]]
Columns = Mapping[str, Sequence[Any]]  # the cells of each column


class Asked:
    """What is to be told of rows, by the columns of the target; `gaps` are the spellings of a gap, in lower case."""

    problem: ClassVar[str]  # that solves it
    words: ClassVar[bool] = False  # whether it may be called as a gap is

    def __init__(self, config: RowsPreprocessConfig, gaps: Collection[str]) -> None:
        self.config, self.gaps = config, gaps
        self.columns = config.targets
        self.called = f"preprocess.target {listed(list(map(repr, self.columns)))}"

    def known(self, split: str, rows: Sequence[Row]) -> Any:
        """The rows that say it, of a list a list; how many do not is in the log."""
        known = rows
        for name in self.columns:
            known = where(known, ~gaps_in(known, name, self.gaps))
        say_left_out(split, len(rows) - len(known), f"without {listed(list(map(repr, self.columns)))}")
        return known

    def held(self, row: Row) -> list[str]:
        """The class, or the labels, of which each split is to have the same share, by the columns of the target;
        nothing of numbers."""
        raise NotImplementedError

    def targets(self, parts: Parts, *, quiet: bool = False) -> tuple[Target, dict[str, np.ndarray]]:
        """What the target is by the training rows, and its array for each split; `quiet` logs no counts."""
        raise NotImplementedError

    def beside(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:  # noqa: ARG002
        """Further arrays of what it is in these rows, where its array does not hold all of that."""
        return {}

    def lines(self, rows: Sequence[Row]) -> list[str]:
        """What there is to know of it."""
        raise NotImplementedError

    def _asks(self, parts: Iterable[str]) -> Iterable[str]:
        """The splits whose classes or labels are asked for: of folds all, so that each is asked for the same."""
        return parts if isinstance(self.config, AnewConfig) and self.config.fold else ["train"]


def asked_of(read: Parts, config: RowsPreprocessConfig) -> Asked:
    """What is to be told of these rows; InputError where it cannot be that.

    An empty cell or ? says nothing, nor does what config.missing names; among numbers and labels, none, NA and their
    kin do not either. Among words these may be classes, and are taken for such.
    """
    for split, rows in read.items():
        for there in layouts(rows):
            if lacking := [name for name in config.targets if name not in there]:
                raise InputError(
                    f"preprocess.target {lacking[0]!r}: there is no such column in the {split} rows"
                    f"{meant(lacking[0], there)}, which have {listed(list(map(repr, there)))}"
                )
        for name in config.targets:
            check_cells(split, where(rows, ~array_of(is_list, Cells(rows, name), bool)), name)
    named = {"", "?", *(spelling.strip().lower() for spelling in config.missing)}
    rows = together(read.values())
    given = {name: given_cells(rows, name, named | GAPS) for name in config.targets}
    kind = KINDS[config.target_type or _kind(given, config)]
    if not kind.words or (not config.target_type and _are_numbers(given)):
        return kind(config, named | GAPS)
    odd = looking_like_gaps(*(given_cells(rows, name, named) for name in config.targets))
    if odd and not config.target_type:
        logger.warning("%s. Where they are gaps, name them in preprocess.missing", odd)
    return kind(config, named)


def _are_numbers(given: Columns) -> bool:
    return any(map(len, given.values())) and all(all(of_each(is_number, cells)) for cells in given.values())


def _kind(cells: Columns, config: RowsPreprocessConfig) -> str:
    (name, first), *others = cells.items()
    if config.separator or any(of_each(is_list, first)):
        return "labels"
    if not others:
        return "classes" if are_classes(first, name) else "number"
    if all(all(of_each(is_flag, part)) for part in cells.values()):
        return "labels"
    wrong = next(((name, cell) for name, part in cells.items() for cell in _no_numbers(part)), None)
    if wrong:
        raise InputError(
            f"preprocess.target {wrong[0]!r}: holds {wrong[1]!r}. Several columns can be told at once where each is a "
            "number, or each is yes or no"
        )
    return "number"


def _no_numbers(cells: Sequence[Any]) -> Iterator[Any]:
    return (cell for cell, right in zip(cells, of_each(is_number, cells), strict=True) if not right)


def are_classes(cells: Sequence[Any], name: str) -> bool:
    """Whether the cells of a column are classes, and not numbers."""
    if are_few(of_each(written, cells), FEW):
        return True
    wrong = sum(not right for right in of_each(is_number, cells))
    if 0 < wrong < (1 - MOSTLY) * len(cells):
        names = listed(sorted({repr(written(cell)) for cell in _no_numbers(cells)}))
        raise InputError(
            f"preprocess.target {name!r}: holds numbers, but also {names}. If these are gaps, name them in "
            "preprocess.missing; if its numbers are names, say target_type: classes"
        )
    return wrong > 0


def _in_order(name: str) -> tuple[bool, float, str]:
    """Numbers by their size, before words."""
    try:
        return False, number(name), name
    except ValueError:
        return True, 0.0, name


def looking_like_gaps(*columns: Sequence[Any]) -> str:
    """Which classes could be gaps as well, and how many rows have each; nothing where there are none."""
    counts: Counter[str] = Counter()
    for cells in columns:
        like = of_each(lambda cell: is_gap(cell, GAPS), cells)
        counts.update(written(cell) for cell, gap in zip(cells, like, strict=True) if gap)
    named = [f"{name!r} ({counted(count, 'row')})" for name, count in counts.most_common()]
    return f"taken for classes: {listed(named)}" if named else ""


class AskedClass(Asked):
    """One of several classes, as the column writes them."""

    problem = "classification"

    words = True

    def held(self, row: Row) -> list[str]:
        return [written(row[self.columns[0]])]

    def targets(self, parts: Parts, *, quiet: bool = False) -> tuple[Target, dict[str, np.ndarray]]:
        found = {split: self._coded(part) for split, part in parts.items()}
        classes = sorted({name for split in self._asks(found) for name in found[split][1]}, key=_in_order)
        if len(classes) < 2:
            raise InputError(f"{self.called}: is {classes[0]!r} in every training row")
        places = {name: place for place, name in enumerate(classes)}
        for split, (_, names) in found.items():
            if unknown := set(names) - places.keys():
                raise InputError(
                    f"{self.called}: the {split} rows have {sorted(unknown)[0]!r}, which no training row has"
                )
        labels = {
            split: np.array([places[name] for name in names], dtype=np.int64)[codes]
            for split, (codes, names) in found.items()
        }
        if not quiet:
            log_classes(classes, labels)
        return Classes(classes=classes, name=self.columns[0], missing=self.config.missing), labels

    def _coded(self, rows: Sequence[Row]) -> tuple[np.ndarray, list[str]]:
        return coded(of_each(written, Cells(rows, self.columns[0])), len(rows))

    def lines(self, rows: Sequence[Row]) -> list[str]:
        counts = Counter(counted_in(*self._coded(rows))).most_common()
        shown = ", ".join(f"{name} {count / len(rows):.1%}" for name, count in counts[:10])
        rare = [name for name, count in counts if count < RARE * len(rows)]
        how = " and train.threshold: f1 find" if len(counts) == 2 else " finds"
        odd = looking_like_gaps(Cells(rows, self.columns[0]))
        return [
            f"{self.columns[0]}: one of {len(counts)} classes: {shown}{', …' if len(counts) > 10 else ''}",
            *([f"{self.columns[0]}: {odd}"] if odd else []),
            *([RARELY.format(listed(rare), how)] if rare else []),
        ]


class AskedLabels(Asked):
    """Any of several labels: each a column of yes and no, or in the cells of one column."""

    problem = "multilabel"

    def known(self, split: str, rows: Sequence[Row]) -> Any:
        """Where labels stand apart by a separator, an empty cell says that none holds."""
        return rows if self.config.separator else super().known(split, rows)

    def held(self, row: Row) -> list[str]:
        cells = {name: None if is_gap(row[name], self.gaps) else row[name] for name in self.columns}
        cell, *others = cells.values()
        apart = not others and (self.config.separator or is_list(cell))
        try:
            if apart:
                return labels_in(cell, self.config.separator)
            return [name for name, cell in cells.items() if flag(cell)]
        except ValueError as error:
            advice = "" if others or apart else ". Where labels stand in one column, say preprocess.separator"
            raise InputError(f"{self.called}: {error}{advice}") from None

    def targets(self, parts: Parts, *, quiet: bool = False) -> tuple[Target, dict[str, np.ndarray]]:
        held = {split: self._coded(part) for split, part in parts.items()}
        apart = self.config.separator is not None or any(
            any(of_each(is_list, Cells(part, self.columns[0]))) for part in parts.values()
        )
        seen = {name for split in self._asks(held) for names in held[split][1] for name in names}
        labels = sorted(seen, key=_in_order) if apart else self.columns
        self._check(labels, seen, held)
        places = {name: place for place, name in enumerate(labels)}
        arrays = {split: _marked(names, places)[codes] for split, (codes, names) in held.items()}
        if not quiet:
            log_labels(labels, arrays)
        column = self.columns[0] if apart else None
        own = {"column": column, "separator": self.config.separator, "missing": self.config.missing}
        return Labels(labels=labels, **own), arrays

    def _coded(self, rows: Sequence[Row]) -> tuple[np.ndarray, list[tuple[str, ...]]]:
        return coded(map(tuple, of_rows(self.held, rows, self.columns)), len(rows))

    def _check(self, labels: Sequence[str], seen: set[str], held: Mapping[str, tuple[np.ndarray, list[Any]]]) -> None:
        if not seen:
            raise InputError(f"{self.called}: no training row has a label")
        if never := [name for name in labels if name not in seen]:
            raise InputError(
                f"preprocess.target: {listed(list(map(repr, never)))} holds of no training row, and cannot be learnt. "
                "Leave it out"
            )
        for split, (codes, found) in held.items():
            lost = [set(names) - seen for names in found]
            if any(lost):
                names = listed(sorted(map(repr, set().union(*lost))))
                count = counted(int(np.array(list(map(bool, lost)))[codes].sum()), "row")
                logger.warning(
                    "%s: %s have labels that no training row has, and are judged without: %s", split, count, names
                )

    def lines(self, rows: Sequence[Row]) -> list[str]:
        every: Counter[str] = Counter()
        for names, count in counted_in(*self._coded(rows)).items():
            every.update(dict.fromkeys(names, count))
        counts = every.most_common()
        shown = ", ".join(f"{name} {count / len(rows):.1%}" for name, count in counts[:10])
        mean = sum(every.values()) / len(rows)
        return [
            f"{listed(self.columns)}: any of {len(counts)} labels, {mean:.2g} of a row on average: "
            f"{shown}{', …' if len(counts) > 10 else ''}"
        ]


def _marked(held: Sequence[Sequence[str]], places: Mapping[str, int]) -> np.ndarray:
    """(N, K) uint8, 1 where a row has the label."""
    marks = np.zeros((len(held), len(places)), dtype=np.uint8)
    for row, names in zip(marks, held, strict=True):
        row[[places[name] for name in names if name in places]] = 1
    return marks


class AskedNumbers(Asked):
    """A number, or several."""

    problem = "regression"

    def held(self, row: Row) -> list[str]:  # noqa: ARG002
        return []

    def targets(
        self,
        parts: Parts,
        *,
        quiet: bool = False,  # noqa: ARG002
    ) -> tuple[Target, dict[str, np.ndarray]]:
        numbers = {split: self._numbers(part) for split, part in parts.items()}
        found = [self._number(name, numbers["train"][:, place]) for place, name in enumerate(self.columns)]
        least = np.min([part.astype(np.float32).min(0) for part in numbers.values() if len(part)], 0).tolist()
        for each, value in zip(found, least, strict=True):
            if each.scale == "log" and value <= -1:
                raise InputError(
                    f"preprocess.target_scale: {each.name!r} holds {value:.7g}, and log takes numbers above -1"
                )
        arrays = {split: part.astype(np.float32) for split, part in numbers.items()}
        if len(found) == 1:
            return found[0], {split: part[:, 0] for split, part in arrays.items()}
        return Numbers(numbers=found, missing=self.config.missing), arrays

    def _numbers(self, rows: Sequence[Row]) -> np.ndarray:
        """(N, K) float64."""
        found = np.empty((len(rows), len(self.columns)))
        for place, name in enumerate(self.columns):
            found[:, place] = numbers_of(Cells(rows, name), name)
        return found

    def _number(self, name: str, values: np.ndarray) -> Number:
        """Of the (N,) values of the training rows."""
        scale = self.config.target_scale or ("robust" if far_beyond(values).any() else "linear")
        if not self.config.target_scale and scale == "robust":
            logger.warning(
                "%r: a few numbers lie far beyond all others, and are learnt on a scale that is logarithmic there. "
                "preprocess.target_scale: linear does without",
                name,
            )
        return Number(name=name, scale=scale, missing=self.config.missing, **measured(values, scale))

    def lines(self, rows: Sequence[Row]) -> list[str]:
        return [
            f"{name}: a number from {part.min():.7g} to {part.max():.7g}, {part.mean():.7g} on average{_few(part)}"
            for name, part in zip(self.columns, self._numbers(rows).T, strict=True)
        ]


def _few(values: np.ndarray) -> str:
    different = np.unique(values)
    if len(different) > MOST_NUMBERS or len(values) < ROWS_OF_A_NUMBER * len(different) or (different % 1).any():
        return ""
    return (
        f". There are only {len(different)} different ones: if these are classes, say preprocess.target_type: classes"
    )


def numbers_of(cells: Sequence[Any], target: str) -> np.ndarray:
    """The cells of the target as (N,) float64; InputError names the one that is no number."""
    try:
        return array_of(number, cells, np.float64)
    except ValueError as error:
        raise InputError(
            f"preprocess.target {target!r}: {error}. If these are classes, say target_type: classes"
        ) from None


KINDS: dict[str, type[Asked]] = {"classes": AskedClass, "number": AskedNumbers, "labels": AskedLabels}


# ---- what there is, for a task that is proposed ---------------------------------------------------------------------

APART = (";", "|", ",")  # what stands between labels
MOST_LABELS, ROWS_OF_A_LABEL = 100, 5
LONGEST_LABEL = 40  # characters


def named_targets(rows: Sequence[Row], given: str | None) -> list[str]:
    """The columns that `--target` names: none, one, or several with commas between."""
    if not given or not rows:
        return []
    return [given] if given in rows[0] else [name.strip() for name in given.split(",")]


def separator_in(cells: Sequence[Any]) -> str | None:
    """What stands between labels in the cells of a column, where these look like a few labels that come up often."""
    texts = [cell for cell in cells if isinstance(cell, str)]
    if not texts or len(texts) < len(cells) or any(map(is_number, texts)):
        return None
    return next(_separators(texts), None)


def _separators(texts: Sequence[str]) -> Iterator[str]:
    for mark in APART:
        held = [labels_in(text, mark) for text in texts]
        counts = Counter(name for each in held for name in each)
        often = 2 <= len(counts) <= MOST_LABELS and sum(counts.values()) >= ROWS_OF_A_LABEL * len(counts)
        words = max(map(len, counts), default=0) <= LONGEST_LABEL and not all(map(is_number, counts))  # as 1,5 is
        if often and words and any(len(each) > 1 for each in held):
            yield mark


def check_target(path: Path, rows: Sequence[Row], target: str | None) -> list[str]:
    """The columns of the target; InputError, as `kedro task new` says it, unless they are there."""
    names = named_targets(rows, target)
    lacking = next((name for name in names if name not in rows[0]), None)
    if not names or lacking is not None:
        wrong = (
            f"there is no column {lacking!r}{meant(str(lacking), rows[0])}"
            if names
            else "it must be said which column is to be told"
        )
        raise InputError(f"{path}: {wrong}. Say --target with one of {listed(list(map(repr, rows[0])))}")
    return names


def asked_here(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    """The keys of a block `preprocess` that say what is to be told of rows of which nothing else is known."""
    if len(names) > 1:
        return {"target": list(names)}
    mark = separator_in(list(given_cells(rows, names[0], GAPS)))
    return {"target": names[0], **({"separator": mark} if mark else {})}


def check_split(rows: dict[str, Any], config: RowsPreprocessConfig, asked: Asked) -> None:
    """InputError where a run would not take these rows either."""
    asked.targets(split_rows(rows, config, asked.held), quiet=True)
