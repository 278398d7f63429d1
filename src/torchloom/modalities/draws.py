"""Draws: latents (B, L) float32 of which a generator makes images, and the classes (B,) int64 where it is told them.

No data set is of them; what is asked for is, of a generator that has been exported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from torchloom.config import AnswerConfig
from torchloom.data.columns import number, spellings, written
from torchloom.data.tables import check_columns
from torchloom.errors import InputError
from torchloom.modalities.base import Axes, Info
from torchloom.modalities.files import Sample, rows_of
from torchloom.system.words import listed, meant

if TYPE_CHECKING:
    from torchloom.datasets.listing import Listing

SEEDS = 2**53  # of which float64, and so every table, has each


class DrawInfo(Info):
    """`latent` is how many numbers make an image, `classes` those of a generator that is told one of them."""

    kind: Literal["draws"] = "draws"
    latent: int
    classes: list[str] = Field([])

    inputs: ClassVar = ("latents",)
    axes: ClassVar[Axes] = {"latents": {0: "batch"}, "labels": {0: "batch"}}
    size_names: ClassVar = ()
    content: ClassVar = "latents"
    tag: ClassVar = "image"
    unit: ClassVar = "draw"
    field: ClassVar = "rows"
    item: ClassVar = dict
    card: ClassVar = "templates/draws.md"

    def shapes(self) -> dict[str, list[int]]:
        return {"latents": [self.latent]}

    def reader(self, config: AnswerConfig) -> Callable[[Mapping[str, Any]], tuple[np.ndarray, int]]:
        return partial(self._read, classes={name: place for place, name in enumerate(self.classes)})

    def _read(self, row: Mapping[str, Any], classes: Mapping[str, int]) -> tuple[np.ndarray, int]:
        """The latent that a row names by its `seed`, or has as a list `latent`, and the number of its `class`."""
        given = row.get("latent")
        check_columns([*(["seed"] if given is None else []), *(["class"] if classes else [])], row)
        latent = drawn(_seed(row["seed"]), self.latent) if given is None else self._whole(given)
        if not classes:
            if row.get("class") not in {None, ""}:
                raise InputError("class: this generator knows of no classes, as it is not conditional; leave it out")
            return latent, 0
        called = spellings(self.classes).get(written(row["class"]))
        if called is None:
            known = f"{listed(list(map(repr, self.classes)))}{meant(written(row['class']), self.classes)}"
            raise InputError(f"class: {row['class']!r} is none of {known}")
        return latent, classes[called]

    def _whole(self, given: Any) -> np.ndarray:
        """A latent as JSON has it."""
        if not isinstance(given, list) or len(given) != self.latent:
            raise InputError(f"latent: must be a list of {self.latent} numbers; or leave it out, and give a seed")
        try:
            return np.array(list(map(number, given)), dtype=np.float32)
        except ValueError as error:
            raise InputError(f"latent: {error}") from None

    def samples_in(self, files: Listing, read: Callable[[Any], Any]) -> Iterator[Sample]:
        return rows_of(files, read)

    def batch(self, samples: list[tuple[np.ndarray, int]]) -> dict[str, np.ndarray]:
        latents, labels = zip(*samples, strict=True)
        known = {"labels": np.array(labels, dtype=np.int64)} if self.classes else {}
        return {"latents": np.stack(latents), **known}

    def said(self) -> dict[str, Any]:
        asked = {"seed": f"a whole number from 0 on; or latent, {self.latent} numbers"}
        return {"row": {**asked, "class": self.classes} if self.classes else asked}


def drawn(seed: int, latent: int) -> np.ndarray:
    """The latent (L,) float32 that belongs to a seed, wherever it is drawn."""
    return np.random.default_rng(seed).standard_normal(latent, dtype=np.float32)


def _seed(given: Any) -> int:
    try:
        seed = int(given) if isinstance(given, str) and given.isdecimal() else number(given)
    except ValueError as error:
        raise InputError(f"seed: {error}") from None
    if seed != int(seed) or not 0 <= seed < SEEDS:
        raise InputError(f"seed: {given!r} is no whole number from 0 to 2**53")
    return int(seed)
