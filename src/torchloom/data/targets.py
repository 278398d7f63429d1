"""What there is to learn of each sample, beside what goes into the network: a prepared array, and what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

from torchloom.system.words import listed


class Target(BaseModel):
    """`array` is the name of the prepared array, with an entry for each sample."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    array: str

    def facts(self) -> Iterator[tuple[str, Any]]:
        """What a report says of it, by what it is."""
        yield from ()


class Classes(Target):
    """One of several classes, by their numbers (N,) int64."""

    array: str = "labels"
    classes: list[str]

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "classes", f"{len(self.classes):,}: {listed(self.classes)}"


class Number(Target):
    """A number (N,) float32 in its own unit; mean and standard deviation over the training samples."""

    array: str = "target"
    name: str
    mean: float
    std: float

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "target", self.name


class Horizon(Target):
    """So many `steps` of a series after each window; the array has the moment of the first of them, (N,) int64."""

    array: str = "times"
    steps: int

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "steps ahead", self.steps


AnyTarget = Classes | Number | Horizon
