"""What there is to learn of each sample, beside what goes into the network: a prepared array, and what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from unicodedata import normalize

from pydantic import BaseModel, ConfigDict, Field

from torchloom.config import Count
from torchloom.data.columns import flag, gaps_of, is_gap, labels_in, number, spellings, written
from torchloom.data.file_names import parts_in
from torchloom.data.text import UNKNOWN, Tokenizer
from torchloom.system.words import listed

if TYPE_CHECKING:
    from typing import Self

    import numpy as np
Scale = Literal["linear", "robust", "log"]
IGNORED = 255  # in masks: of no class, neither learnt nor judged


class Target(BaseModel):
    """`array` is the name of the prepared array, with an entry for each sample.

    A user's tables may have spellings of a gap that are `missing` from the usual ones. Where `names` are given, the
    names of a user's files say it, too, as preprocess.names has it.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    array: str
    missing: list[str] = Field([])
    names: str | None = None

    @property
    def one_class(self) -> bool:
        """Whether each sample is of one class, whose number the array has."""
        return False

    @property
    def in_order(self) -> bool:
        """Whether samples follow each other, and so cannot be divided by chance."""
        return False

    @property
    def masks_in(self) -> str | None:
        """The column of a row that names a mask, if that is the target."""
        return None

    @property
    def columns(self) -> list[str]:
        """Those of a user's table that say it."""
        return []

    def asked(self, config: Any) -> Self:  # noqa: ARG002
        """With what the block `evaluate`, or how an exported model is asked, says of the answers."""
        return self

    def measured(self, values: np.ndarray) -> Self:  # noqa: ARG002
        """The same with what is measured of the training samples, (N, …), measured of these."""
        return self

    def drawn_names(self) -> Iterator[tuple[str, Sequence[str]]]:
        """The names that figures show, with what each is the name of."""
        yield from ()

    def facts(self) -> Iterator[tuple[str, Any]]:
        """What a report says of it, by what it is."""
        yield from ()

    def told(self, row: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """What a row of a user's table says of it, or None where it does not; ValueError of what it cannot be."""
        return None

    def said(self, values: np.ndarray) -> list[Any] | None:  # noqa: ARG002
        """What `told` says of samples with these entries of the array, (N, …); None where that is of no use."""
        return None

    def at(self, name: str) -> Mapping[str, Any] | None:
        """What the name of a user's file, as below the folder that is looked through, says of it: as a row does."""
        return parts_in(name, self.names) if self.names else None

    def _cell(self, row: Mapping[str, Any], column: str | None) -> Any:
        cell = row.get(column) if column is not None else None
        return None if is_gap(cell, gaps_of(self.missing)) else cell


class MaskCoding(BaseModel):
    """What the values of a user's masks stand for, as masks.Coding has it: greys, places in a `palette`, or colours."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    numbers: dict[int, int]
    nearest: bool
    palette: dict[int, int]


class Classes(Target):
    """One of several classes, by their numbers (N,) int64; of masks (N, H, W) uint8, where IGNORED is of none.

    In a user's tables it stands in the column `name`; or files of a class lie in `folders` of its name. Of masks that
    are files with a `coding`, a row has there what finds the picture and the mask.
    """

    array: str = "labels"
    classes: list[str]
    name: str | None = None
    folders: bool = False
    values: list[int] = Field([])  # of masks the grey level of each class, where all have one

    coding: MaskCoding | None = None

    @property
    def one_class(self) -> bool:
        return self.array == "labels"  # and not masks

    @property
    def masks_in(self) -> str | None:
        return self.name if self.coding else None

    @property
    def columns(self) -> list[str]:
        return [] if self.name is None else [self.name]

    @cached_property
    def _spelled(self) -> dict[str, str]:
        return spellings(self.classes)

    def drawn_names(self) -> Iterator[tuple[str, Sequence[str]]]:
        yield "class", self.classes

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "classes", f"{len(self.classes):,}: {listed(self.classes)}"

    def told(self, row: Mapping[str, Any]) -> Any:
        """A class, which may be one that training did not have; of masks what finds the paths of picture and mask."""
        if self.coding:
            return found if callable(found := row.get(str(self.name))) else None
        cell = row.get(self.name) if self.name is not None else None
        if cell is not None and written(cell) in self._spelled:  # whatever it looks like
            return self._spelled[written(cell)]
        cell = self._cell(row, self.name)
        return None if cell is None else written(cell)

    def said(self, values: np.ndarray) -> list[Any] | None:
        return [self.classes[number] for number in values.tolist()] if self.one_class else None

    def at(self, name: str) -> Mapping[str, Any] | None:
        """Only a class that training had: other names, and other folders, may mean anything, and so may one folder in
        another where both are called like classes."""
        around = [{str(self.name): normalize("NFC", folder)} for folder in Path(name).parts[:-1]]
        rows = around if self.folders else [super().at(name) or {}]
        known = {told: row for row in rows if (told := self.told(row)) in self.classes}
        return next(iter(known.values())) if len(known) == 1 else None


class Labels(Target):
    """Any of several labels, or none: (N, K) uint8, 1 where one holds.

    In a user's tables each is a column of yes and no, or they stand in one `column`, as a list or apart by a
    `separator`. A label holds from a probability of `thresholds` on, without them of a half.
    """

    array: str = "labels"
    labels: list[str]
    column: str | None = None
    separator: str | None = None
    thresholds: list[float] | None = None

    @property
    def columns(self) -> list[str]:
        return self.labels if self.column is None else [self.column]

    @property
    def least(self) -> list[float]:
        """The probability of each from which on it holds."""
        return self.thresholds or [0.5] * len(self.labels)

    def drawn_names(self) -> Iterator[tuple[str, Sequence[str]]]:
        yield "label", self.labels

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "labels", f"{len(self.labels):,}: {listed(self.labels)}"

    def told(self, row: Mapping[str, Any]) -> set[str] | None:
        """The labels that hold, some of which training may not have had."""
        if self.column is not None:
            cell = self._cell(row, self.column)
            known = self.column in row and (cell is not None or self.separator is not None)
            return set(labels_in(cell, self.separator)) if known else None
        cells = {name: self._cell(row, name) for name in self.labels}
        known = all(cell is not None for cell in cells.values())
        return {name for name, cell in cells.items() if flag(cell)} if known else None

    def said(self, values: np.ndarray) -> list[Any] | None:
        return [{name for name, held in zip(self.labels, row, strict=True) if held} for row in values.tolist()]


class Interval(BaseModel):
    """Around each answer, `within` on the number's scale to both sides, the truth is in at least this `share`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    share: float
    within: float


class Number(Target):
    """A number (N,) float32 in its own unit; mean and standard deviation over the training samples.

    With the `scale` log they are those of log(1 + number); with robust, where some are far beyond all others, median
    and deviation by the quartiles.
    """

    array: str = "target"
    name: str
    mean: float
    std: float
    scale: Scale = "linear"
    interval: Interval | None = None

    @property
    def columns(self) -> list[str]:
        return [self.name]

    @property
    def numbers(self) -> list[Number]:
        return [self]

    def measured(self, values: np.ndarray) -> Self:
        from torchloom.data.spread import measured

        return self.model_copy(update=measured(values, self.scale))

    def drawn_names(self) -> Iterator[tuple[str, Sequence[str]]]:
        yield "number", [self.name]

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "target", self.name
        if self.scale != "linear":
            yield "scale of the target", self.scale

    def told(self, row: Mapping[str, Any]) -> list[float] | None:
        cell = self._cell(row, self.name)
        return None if cell is None else [number(cell)]

    def said(self, values: np.ndarray) -> list[Any] | None:
        return [[value] for value in values.tolist()]


class Numbers(Target):
    """Several numbers (N, K) float32, each in its own unit."""

    array: str = "target"
    numbers: list[Number]

    @property
    def columns(self) -> list[str]:
        return [each.name for each in self.numbers]

    def measured(self, values: np.ndarray) -> Self:
        numbers = [each.measured(column) for each, column in zip(self.numbers, values.T, strict=True)]
        return self.model_copy(update={"numbers": numbers})

    def drawn_names(self) -> Iterator[tuple[str, Sequence[str]]]:
        yield "number", self.columns

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "targets", listed(self.columns)

    def told(self, row: Mapping[str, Any]) -> list[float] | None:
        told = [each.told(row) for each in self.numbers]
        return [value for one in told for value in one or []] if all(told) else None

    def said(self, values: np.ndarray) -> list[Any] | None:
        rows: list[Any] = values.tolist()
        return rows


class Horizon(Target):
    """So many `steps` of a series after each window; the array has the moment of the first of them, (N,) int64.

    The truth of each step and column is in at least the `share`, and `within` so much of the forecast to both sides.
    """

    array: str = "times"
    steps: int
    share: float | None = None
    within: list[list[float]] = Field([])

    @property
    def in_order(self) -> bool:
        return True

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "steps ahead", self.steps


class Texts(Target):
    """A text of at most `longest` tokens, (N, longest + 1) integers, 0 where it has ended; of longer ones so many.

    In a user's tables it stands in the column `name`. Answers are searched for with a `beam` of so many at a time.
    """

    array: str = "written"
    name: str
    tokenizer: Tokenizer
    longest: Count
    beam: Count = 1

    @property
    def columns(self) -> list[str]:
        return [self.name]

    @property
    def never(self) -> list[int]:
        """The tokens that no answer has: <unk>, which says nothing."""
        return [token for token, piece in enumerate(self.tokenizer.vocabulary[:2]) if piece == UNKNOWN]

    def asked(self, config: Any) -> Self:
        beam = getattr(config, "beam", None)
        return self.model_copy(update={"beam": beam}) if beam else self

    def encoded(self, tokens: Sequence[np.ndarray]) -> np.ndarray:
        """The array of the tokens (T,) of N texts, in as few bytes as it takes."""
        import numpy as np

        size = len(self.tokenizer.vocabulary)
        kind = np.uint8 if size <= 1 << 8 else np.int16 if size <= 1 << 15 else np.int32
        array = np.zeros((len(tokens), self.longest + 1), dtype=kind)
        for row, each in zip(array, tokens, strict=True):
            row[: len(each)] = each[: len(row)]
        return array

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "answers", f"{self.name}, in {self.tokenizer.kind} of which there are {len(self.tokenizer.vocabulary):,}"

    def told(self, row: Mapping[str, Any]) -> str | None:
        cell = row.get(self.name)
        return None if is_gap(cell, empty_of(self.missing)) else written(cell)


def empty_of(missing: Iterable[str]) -> set[str]:
    """The spellings of a gap among texts, where NA and ? may be some: an empty cell, and those that are `missing`."""
    return {"", *(spelling.strip().lower() for spelling in missing)}


AnyTarget = Classes | Number | Labels | Numbers | Horizon | Texts
