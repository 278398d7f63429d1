"""What there is to learn of each sample, beside what goes into the network: a prepared array, and what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from torchloom.system.words import listed

if TYPE_CHECKING:
    from typing import Self

    import numpy as np
IGNORED = 255  # in masks: of no class, neither learnt nor judged


class Target(BaseModel):
    """`array` is the name of the prepared array, with an entry for each sample."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    array: str

    @property
    def one_class(self) -> bool:
        """Whether each sample is of one class, whose number the array has."""
        return False

    def measured(self, values: np.ndarray) -> Self:  # noqa: ARG002
        """The same with what is measured of the training samples, (N, …), measured of these."""
        return self

    def facts(self) -> Iterator[tuple[str, Any]]:
        """What a report says of it, by what it is."""
        yield from ()


class Classes(Target):
    """One of several classes, by their numbers (N,) int64; of masks (N, H, W) uint8, where IGNORED is of none."""

    array: str = "labels"
    classes: list[str]

    @property
    def one_class(self) -> bool:
        return self.array == "labels"  # and not masks

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "classes", f"{len(self.classes):,}: {listed(self.classes)}"


class Number(Target):
    """A number (N,) float32 in its own unit; mean and standard deviation over the training samples."""

    array: str = "target"
    name: str
    mean: float
    std: float

    def measured(self, values: np.ndarray) -> Self:
        numbers = values.astype("float64")
        return self.model_copy(update={"mean": float(numbers.mean()), "std": float(numbers.std()) or 1.0})

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "target", self.name


AnyTarget = Classes | Number
