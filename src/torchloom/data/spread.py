"""How numbers are spread, where a few lie far beyond all others."""

from __future__ import annotations

import numpy as np

FAR = 100  # deviations from the median
FEW = 1e-2  # greatest share of numbers that are few


def middle_of(values: np.ndarray) -> tuple[float, float]:
    """The median, and the deviation that numbers of a normal distribution have by their quartiles."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(middle), float(high - low) / 1.349


def far_beyond(values: np.ndarray) -> np.ndarray:
    """Which of (N,) numbers, a mask, lie more than FAR deviations from the median; none where these are not FEW."""
    middle, deviation = middle_of(values)
    far = np.abs(values - middle) > FAR * deviation
    return far & bool(deviation and far.mean() < FEW)


def measured(values: np.ndarray, scale: str) -> dict[str, float]:
    """`mean` and `std` of (N,) numbers on that scale, see targets.Number."""
    values = values.astype(np.float64)
    if scale == "robust":
        middle, deviation = middle_of(values)
        return {"mean": middle, "std": deviation or float(values.std()) or 1.0}
    if scale == "log":
        values = np.log1p(np.maximum(values, np.nextafter(-1.0, 0.0)))
    return {"mean": float(values.mean()), "std": float(values.std()) or 1.0}
