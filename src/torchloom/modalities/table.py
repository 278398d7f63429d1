"""Tables: rows of numbers (B, F) float32, standardised within the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from torchloom.config import AnswerConfig
from torchloom.data.text import read_number
from torchloom.errors import InputError
from torchloom.modalities.base import Axes, Info, Use
from torchloom.modalities.files import Sample, rows_of
from torchloom.system.words import significant

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchloom.data.batches import Gathered
    from torchloom.datasets.listing import Listing
    from torchloom.training.loaders import LoaderPlan

LARGEST_NUMBER = float(np.finfo(np.float32).max)


class TableInfo(Info):
    """Rows of numbers; mean and standard deviation of each over the training rows."""

    kind: Literal["table"] = "table"
    features: list[str]
    mean: list[float]
    std: list[float]

    inputs: ClassVar = ("features",)
    axes: ClassVar[Axes] = {"features": {0: "batch"}}
    size_names: ClassVar = ("features",)
    content: ClassVar = "features"
    tag: ClassVar = "tabular"
    unit: ClassVar = "row"
    field: ClassVar = "rows"
    item: ClassVar = dict
    card: ClassVar = "templates/table.md"

    def sizes(self) -> dict[str, Any]:
        return {"features": len(self.features)}

    def batches(self, arrays: Mapping[str, Any], use: Use) -> Gathered:
        from torchloom.data.sequences import TableBatches

        return TableBatches(arrays["features"], arrays[self.counted], use.device)

    def scaled(self, network: nn.Module) -> nn.Module:
        from torchloom.modalities.modules import StandardizedTable

        return StandardizedTable(network, self.mean, self.std)

    def example(self, batch: int, time: int) -> dict[str, Tensor]:
        import torch

        return {"features": torch.tensor([self.mean] * batch)}

    def columns(self, loaders: LoaderPlan, numbers: Sequence[int]) -> list[dict[str, Any]]:
        rows = loaders.chosen("test", numbers)[0].tolist()
        return [dict(zip(self.features, map(significant, row), strict=True)) for row in rows]

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "features", ", ".join(self.features)

    def described(self) -> dict[str, Any]:
        inside = {"input": "the features in their own units", "inside_the_graph": "(x - mean) / std"}
        return {**super().described(), "preprocessing": inside}

    def shapes(self) -> dict[str, list[int]]:
        return {"features": [len(self.features)]}

    def reader(self, config: AnswerConfig) -> Callable[[dict[str, Any]], np.ndarray]:
        return partial(numbers, features=self.features)

    def samples_in(self, files: Listing, read: Callable[[Any], Any]) -> Iterator[Sample]:
        return rows_of(files, read)

    def batch(self, samples: list[np.ndarray]) -> dict[str, np.ndarray]:
        return {"features": np.stack(samples)}

    def said(self) -> dict[str, Any]:
        return {"features": self.features}


def numbers(row: dict[str, Any], features: list[str]) -> np.ndarray:
    """The (features,) float32 of a row, by name; InputError names what is missing or no finite number.

    What else the row holds is left out.
    """
    missing = [name for name in features if row.get(name) is None]
    if missing:
        raise InputError(f"lacks {', '.join(map(repr, missing))}")
    return np.array([_number(name, row[name]) for name in features], dtype=np.float32)


def _number(name: str, given: Any) -> float:
    try:
        value = read_number(given) if isinstance(given, str) else float(given)
    except (TypeError, ValueError, OverflowError):
        advice = ". It takes no comma: decimals follow a point" if isinstance(given, str) and "," in given else ""
        raise InputError(f"{name}: {given!r} is not a number{advice}") from None
    if isinstance(given, bool):
        raise InputError(f"{name}: {given!r} is not a number")
    if not abs(value) <= LARGEST_NUMBER:  # NaN is not either
        raise InputError(f"{name}: {given!r} is not a finite number of 32 bits")
    return value
