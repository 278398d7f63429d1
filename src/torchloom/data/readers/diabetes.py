"""Diabetes: 442 patients, ten measurements of each, and how far the disease had gone a year later.

Efron, Hastie, Johnstone, Tibshirani, "Least angle regression", Annals of Statistics 32(2), 2004. The table comes with
scikit-learn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import TablePreprocessConfig
from torchloom.data.columns import LARGEST_NUMBER
from torchloom.data.targets import Number
from torchloom.data.text import read_number
from torchloom.datasets.raw import AGAIN, RawFiles
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError

FEATURES = [
    "age",
    "sex",
    "body mass index",
    "average blood pressure",
    "s1 total serum cholesterol",
    "s2 low-density lipoproteins",
    "s3 high-density lipoproteins",
    "s4 total cholesterol / HDL",
    "s5 log of serum triglycerides",
    "s6 blood sugar",
]
TARGET = "disease progression"


def preprocess(raw: RawFiles, config: TablePreprocessConfig) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Raw tables -> training, validation and test tensors, and what is known about them.

    Each of the tensors holds `features` (N, 10) and `target` (N,) as float32 in their own units, the rows in their old
    order. The mean and standard deviation of each column are those of the training rows.
    """
    path, target_path = raw.path("diabetes_data_raw.csv"), raw.path("diabetes_target.csv")
    features = read_numbers(path, len(FEATURES))
    target = read_numbers(target_path, 1)[:, 0]
    if len(features) != len(target):
        raise InputError(f"{path}: has {len(features)} rows, but {target_path.name} has {len(target)}. {AGAIN}")
    splits = choose_rows(len(target), config)
    if not splits["train"].any():
        raise InputError(
            f"{path}: test_fraction {config.test_fraction} and validation_fraction {config.validation_fraction} leave "
            f"nothing of its {len(target)} rows to train on"
        )
    mean, std = _statistics(features[splits["train"]])
    target_mean, target_std = _statistics(target[splits["train"]])
    info = {
        "kind": "table",
        "features": FEATURES,
        "target": Number(name=TARGET, mean=float(target_mean), std=float(target_std)).model_dump(),
        "mean": mean.tolist(),
        "std": std.tolist(),
        "rows": {name: int(rows.sum()) for name, rows in splits.items()},
    }
    train, validation, test = (
        Tensors({"features": features[rows].astype(np.float32), "target": target[rows].astype(np.float32)})
        for rows in splits.values()
    )
    return train, validation, test, info


def choose_rows(count: int, config: TablePreprocessConfig) -> dict[str, np.ndarray]:
    """A boolean mask (count,) for each split, drawn by the seed."""
    order = np.random.default_rng(config.seed).permutation(count)
    tested = round(config.test_fraction * count)
    validated = round(config.validation_fraction * (count - tested))
    test, validation, train = np.split(order, [tested, tested + validated])
    chosen = {"train": train, "validation": validation, "test": test}
    return {name: np.isin(np.arange(count), rows) for name, rows in chosen.items()}


def read_numbers(path: Path, columns: int) -> np.ndarray:
    """The (N, columns) float64 numbers of a table, which are separated by spaces; finite in 32 bits too."""
    rows: list[list[float]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            rows.append([read_number(value) for value in line.split()])
        except ValueError as error:
            raise InputError(f"{path}, line {number}: holds something else than numbers ({error}). {AGAIN}") from None
        if len(rows[-1]) != columns:
            raise InputError(f"{path}, line {number}: has {len(rows[-1])} columns, but should have {columns}. {AGAIN}")
        if not all(abs(value) <= LARGEST_NUMBER for value in rows[-1]):
            raise InputError(f"{path}, line {number}: holds a number that is not finite in 32 bits. {AGAIN}")
    if not rows:
        raise InputError(f"{path}: holds no rows. {AGAIN}")
    return np.array(rows)


def _statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, 1 for a column of one value."""
    std = values.std(axis=0)
    return values.mean(axis=0), np.where(np.ptp(values, axis=0) > 0, std, 1.0)
