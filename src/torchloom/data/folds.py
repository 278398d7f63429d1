"""Which samples are trained on, and which are kept to test, in each training of a cross-validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from torchloom.config import AnewConfig, Count, Fraction, Seed
from torchloom.data.splits import grouped_choice, stratified_choice
from torchloom.data.stored import together, where
from torchloom.errors import InputError


class Fold(BaseModel):
    """The fold with this number, counted from 0, of so many; `validation` is a fraction of the samples outside it."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    number: int
    count: Count
    validation: Fraction
    seed: Seed

    def numbers(
        self, targets: np.ndarray, classes: bool, groups: np.ndarray | None = None, order: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """The numbers of the samples of each split, from the targets (N, …) of all of them.

        Of classes, which are numbers (N,), each fold has the same shares; of `groups` (N,) it has all samples or none.
        Where the samples have an `order` (N,), each fold is tested on what follows all that it is trained on.
        InputError when there are fewer than folds.
        """
        if order is not None:
            return self._following(order)
        from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

        labels = targets if classes else np.zeros(len(targets), dtype=np.int64)
        fewest = min(np.unique(labels, return_counts=True)[1].tolist(), default=0)
        if fewest < self.count:
            what = "samples of a class" if classes else "samples"
            raise InputError(f"folds.count {self.count}: there are only {fewest} {what}; take at most so many folds")
        if groups is not None and len(np.unique(groups)) < self.count:
            raise InputError(f"folds.count {self.count}: there are only {len(np.unique(groups))} groups")
        kind: Any = (StratifiedKFold if classes else KFold) if groups is None else StratifiedGroupKFold
        folds = kind(self.count, shuffle=True, random_state=self.seed % 2**32)
        rest, test = list(folds.split(labels, labels, groups))[self.number]
        if groups is None:
            chosen = stratified_choice(labels[rest], self.validation, self.seed)
        else:
            chosen = grouped_choice(labels[rest], groups[rest], self.validation, self.seed)
        return {"train": rest[~chosen], "validation": rest[chosen], "test": test}

    def _following(self, order: np.ndarray) -> dict[str, np.ndarray]:
        """With a rolling origin (Tashman, International Journal of Forecasting 16(4), 2000): what comes first is only
        trained on, and each fold follows on the one before. Samples with one place in the order stay together."""
        places = np.sort(order)[np.arange(self.count + 2) * (len(order) - 1) // (self.count + 1)]
        if len(np.unique(places)) < len(places):
            raise InputError(
                f"folds.count {self.count}: there are only {len(np.unique(order))} times in split_by.time, or most "
                "rows are of few of them; take fewer folds"
            )
        begin, end = places[self.number + 1], places[self.number + 2]
        test = (order > begin) & (order <= end)
        rest = np.flatnonzero(order <= begin)
        latest = np.sort(order[rest])[len(rest) - 1 - round(self.validation * len(rest))]
        chosen = order[rest] > min(latest, begin - bool(self.validation))  # the last ones at least
        return {"train": rest[~chosen], "validation": rest[chosen], "test": np.flatnonzero(test)}


def dealt(parts: Mapping[str, Any], config: AnewConfig) -> dict[str, Any]:
    """The samples as a fold has them, in their order, if the block is that of one."""
    if config.fold is None:
        return dict(parts)
    every = together([parts["train"], parts["validation"]])
    return {split: where(every, np.isin(np.arange(len(every)), numbers)) for split, numbers in config.fold.items()}
