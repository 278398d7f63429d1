"""How far forecasts are from what came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchloom.modalities import SeriesInfo
from torchloom.system.words import significant


@dataclass(frozen=True)
class Errors:
    """Mean squared and absolute errors (horizon, columns), where each column has deviation 1 on the training rows.

    They are of what was measured: NaN in the truth is left out, and where nothing else is, the error is NaN.
    """

    squared: Tensor
    absolute: Tensor

    @classmethod
    def of(cls, forecast: Tensor, truth: Tensor, std: list[float]) -> Errors:
        """Of forecasts and truths (N, horizon, columns) in the columns' own units."""
        off = (forecast - truth) / torch.tensor(std)
        return cls(off.square().nanmean(0, dtype=torch.float64), off.abs().nanmean(0, dtype=torch.float64))

    def metrics(self, before: str = "") -> dict[str, float]:
        return {f"{before}mse": self.squared.nanmean().item(), f"{before}mae": self.absolute.nanmean().item()}


def by_column(errors: Mapping[str, Errors], info: SeriesInfo) -> list[dict[str, Any]]:
    """A row for each column: RMSE and MAE in its own unit, of each of several forecasts by what it is called."""
    rows: list[dict[str, Any]] = []
    for place, (name, std) in enumerate(zip(info.channels, info.std, strict=True)):
        row: dict[str, Any] = {"column": name}
        for who, found in errors.items():
            row[f"{who} rmse"] = significant(found.squared[:, place].nanmean().sqrt().item() * std)
            row[f"{who} mae"] = significant(found.absolute[:, place].nanmean().item() * std)
        rows.append(row)
    return rows
