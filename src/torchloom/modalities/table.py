"""Tables: rows of numbers (B, F) float32 in their own units, which the model itself scales.

Columns of words are the numbers of their categories there, and gaps are NaN; the model makes vectors of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from torchloom.config import AnswerConfig
from torchloom.data.columns import NEW, Column, Encoder, number
from torchloom.data.tables import check_columns
from torchloom.errors import InputError
from torchloom.modalities.base import Axes, Info, Use
from torchloom.modalities.files import Sample, rows_of
from torchloom.system.words import significant

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor, nn

    from torchloom.data.batches import Gathered
    from torchloom.datasets.listing import Listing
    from torchloom.training.loaders import LoaderPlan


class TableInfo(Info):
    """Rows of features, with mean and standard deviation of each over the training rows.

    Without `encoding` all features are numbers that must be there, and are standardised. It says how the columns of a
    user's table become features: categories, dates, and numbers that may be missing, of which those in `gaps` were so
    in training. `bins` are then of each number where its bins begin and end, in order; of categories there are none.
    """

    kind: Literal["table"] = "table"
    features: list[str]
    mean: list[float]
    std: list[float]
    encoding: list[Column] = Field([])
    missing: list[str] = Field([])  # spellings of gaps, beside the usual ones
    gaps: list[str] = Field([])
    bins: list[list[float]] = Field([])

    inputs: ClassVar = ("features",)
    axes: ClassVar[Axes] = {"features": {0: "batch"}}
    size_names: ClassVar = ("features", "columns")
    content: ClassVar = "features"
    tag: ClassVar = "tabular"
    unit: ClassVar = "row"
    pictured: ClassVar = False
    field: ClassVar = "rows"
    item: ClassVar = dict
    card: ClassVar = "templates/table.md"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        listed = [feature for column in self.encoding for feature in column.features]
        whole = {len(self.mean), len(self.std)} == {len(self.features)} and not set(self.gaps) - set(listed)
        if self.encoding:
            whole &= listed == self.features and len(self.bins) == len(listed)
            whole &= [len(bins) > 1 for bins in self.bins] == [not count for count in self.categories]
            whole &= all(low < high for bins in self.bins for low, high in pairwise(bins))
        if not whole:
            raise ValueError("features, and what is said of them, do not belong together")
        return self

    @property
    def categories(self) -> list[int]:
        """Of each feature how many categories it has, a new one among them; 0 of numbers."""
        if not self.encoding:
            return [0] * len(self.features)
        counts = {column.name: len(column.values) + 1 for column in self.encoding if column.kind == "category"}
        return [counts.get(feature, 0) for feature in self.features]

    def sizes(self) -> dict[str, Any]:
        """`features` is how many numbers a network gets of each row, `columns` of which feature here each is."""
        places = list(range(len(self.features)))
        if self.encoding:
            bins = [place for place, edges in enumerate(self.bins) for _ in edges[1:]]
            places = [*bins, *self._gaps, *(place for place, count in enumerate(self.categories) for _ in range(count))]
        return {"features": len(places), "columns": places}

    @property
    def _gaps(self) -> list[int]:
        """The places of the features that may be missing."""
        return [place for place, feature in enumerate(self.features) if feature in self.gaps]

    def meanings(self) -> dict[str, Any]:
        features = [column.model_dump() for column in self.encoding] or self.features
        return {"features": features, "columns": features}

    def measured(self, loaders: LoaderPlan) -> Self:
        from torchloom.data.readers.table import statistics

        features = loaders.trained()[0].numpy()
        found = super().measured(loaders)
        if np.isnan(features).all(0).any():  # of which there is nothing to measure
            return found
        if self.encoding:
            return found.model_copy(update=statistics(self.encoding, features))
        numbers = features.astype(np.float64)
        mean, std = numbers.mean(0).tolist(), [value or 1.0 for value in numbers.std(0).tolist()]
        return found.model_copy(update={"mean": mean, "std": std})

    def batches(self, arrays: Mapping[str, Any], use: Use) -> Gathered:
        from torchloom.data.sequences import TableBatches

        hidden = [place for place, count in enumerate(self.categories) if count] if use.training else []
        return TableBatches(arrays["features"], arrays[self.counted], use.device, hidden, use.seed, use.share)

    def scaled(self, network: nn.Module) -> nn.Module:
        from torchloom.modalities.modules import EncodedTable, StandardizedTable

        if not self.encoding:
            return StandardizedTable(network, self.mean, self.std)
        return EncodedTable(network, self.bins, self.categories, self._gaps)

    def as_numbers(self) -> tuple[TableInfo, Callable[[Tensor], Tensor]]:
        """A table of numbers alone that says the same, and what makes its features of those here."""
        if not self.encoding:
            return self, lambda features: features
        import torch

        width = self.sizes()["features"]
        names = [str(number) for number in range(width)]
        numeric = TableInfo(features=names, mean=[0.0] * width, std=[1.0] * width, target=self.target)
        return numeric, self.scaled(torch.nn.Identity())

    def example(self, batch: int, time: int) -> dict[str, Tensor]:
        import torch

        return {"features": torch.tensor([self.mean] * batch)}

    def columns(self, loaders: LoaderPlan, numbers: Sequence[int]) -> list[dict[str, Any]]:
        rows = loaders.chosen("test", numbers)[0].tolist()
        return [dict(zip(self.features, map(self._shown, self.features, row), strict=True)) for row in rows]

    def _shown(self, feature: str, value: float) -> Any:
        """A number of the prepared array as a person reads it."""
        if math.isnan(value):
            return ""
        known = next((column.values for column in self.encoding if column.name == feature and column.values), None)
        if known is None:
            return significant(value)
        return "(new)" if value == NEW else known[int(value) - 1]

    def drawn_names(self) -> Iterator[tuple[str, Sequence[str]]]:
        yield from super().drawn_names()
        yield "feature", self.features

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "features", ", ".join(self.features)

    def described(self) -> dict[str, Any]:
        inside = {"input": "the features in their own units", "inside_the_graph": "(x - mean) / std"}
        if self.encoding:
            inside = {
                "input": "the features of `encoding`, by column: a number as it is; of a category its place in "
                "`values`, counted from 1, and 0 if it is none of them; of a date year, month, day, weekday from "
                "Monday, 0, and hour; NaN for a gap",
                "inside_the_graph": "of each of the `bins` of a number how far it has come, (x - start) / width "
                "between 0 and 1, in the first one from -1, in the last one to 2, and 0 for a gap; 1 for a gap of "
                "`gaps`; of each category 1 where it is that one, the first being any other",
            }
        said = super().described()
        left_out = set() if self.encoding else {"encoding", "missing", "gaps", "bins"}
        return {**{name: value for name, value in said.items() if name not in left_out}, "preprocessing": inside}

    def shapes(self) -> dict[str, list[int]]:
        return {"features": [len(self.features)]}

    def reader(self, config: AnswerConfig) -> Callable[[dict[str, Any]], np.ndarray]:
        if not self.encoding:
            return partial(numbers, features=self.features)
        encode = Encoder(self.encoding, self.missing)
        return lambda row: np.array(encode(self.plain(row)), dtype=np.float32)

    def samples_in(self, files: Listing, read: Callable[[Any], Any]) -> Iterator[Sample]:
        return rows_of(files, read)

    def remarks(self, samples: list[np.ndarray]) -> list[str] | None:
        """Cells that are missing, new, or outside of what the training rows have."""
        return ["; ".join(self._odd(sample)) for sample in samples] if self.encoding else None

    def _odd(self, sample: np.ndarray) -> Iterator[str]:
        for feature, bins, value in zip(self.features, self.bins, sample.tolist(), strict=True):
            if math.isnan(value):
                yield f"{feature} is missing"
            elif not bins and value == NEW:
                yield f"{feature} is new"
            elif bins and not bins[0] <= value <= bins[-1]:
                below = value < bins[0]
                edge = bins[0] if below else bins[-1]
                yield f"{feature} {value:.7g} is {'below' if below else 'above'} {edge:.7g}"

    def batch(self, samples: list[np.ndarray]) -> dict[str, np.ndarray]:
        return {"features": np.stack(samples)}

    def said(self) -> dict[str, Any]:
        return {"features": [column.name for column in self.encoding] or self.features}


def numbers(row: dict[str, Any], features: list[str]) -> np.ndarray:
    """The (features,) float32 of a row, by name; InputError names what is missing or no finite number.

    What else the row holds is left out.
    """
    check_columns(features, {name: value for name, value in row.items() if value is not None})
    return np.array([_number(name, row[name]) for name in features], dtype=np.float32)


def _number(name: str, given: Any) -> float:
    try:
        return number(given)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None
