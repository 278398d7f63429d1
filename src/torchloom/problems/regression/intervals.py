"""Intervals around numbers. They are as wide for each answer on the number's scale, and so, where that is `log`, wider
for larger numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from torchloom.data.targets import Interval, Number
from torchloom.problems.conformal import ends, half_width
from torchloom.problems.regression.scales import from_scale, to_scale


def with_interval(number: Number, truth: np.ndarray, found: np.ndarray, share: float) -> Number:
    """The number with an interval that holds the `share` of truths, by truths and answers (N,) of other samples than
    the model has learnt from."""
    within = half_width(np.abs(_scaled(number, truth) - _scaled(number, found)), share)
    return number.model_copy(update={"interval": Interval(share=share, within=float(within))})


def bounds(number: Number, found: np.ndarray) -> dict[str, np.ndarray]:
    """The ends of the interval around each of (N,) answers, float32, by the names of their columns; without: none."""
    if number.interval is None:
        return {}
    middle, within = _scaled(number, found), number.interval.within
    both = (from_scale(np, number, end).astype(np.float32) for end in (middle - within, middle + within))
    return dict(zip(ends(number.name), both, strict=True))


def names_of(number: Number) -> Sequence[str]:
    """The columns with the ends of its interval."""
    return ends(number.name) if number.interval else ()


def interval_scores(
    numbers: Sequence[Number], truth: np.ndarray, answers: Mapping[str, Sequence[Any]]
) -> dict[str, float]:
    """The share of truths (N, K) in their intervals, and how wide these are on average, in the number's unit.

    Of several numbers they are named after these, and before them is the mean share. Beside it is what was asked for.
    """
    if not all(each.interval for each in numbers):
        return {}
    scores = {each.name: _score(each, column, answers) for each, column in zip(numbers, truth.T, strict=True)}
    if len(numbers) == 1:
        return scores[numbers[0].name]
    mean = float(np.mean([each["interval_coverage"] for each in scores.values()]))
    own = {
        f"{key}_{name}": each[key] for name, each in scores.items() for key in ("interval_coverage", "interval_width")
    }
    return {"interval_coverage": mean, "interval_asked": scores[numbers[0].name]["interval_asked"], **own}


def _score(number: Number, truth: np.ndarray, answers: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    assert number.interval
    low, high = (np.asarray(answers[name], dtype=np.float64) for name in names_of(number))
    inside = (low <= truth) & (truth <= high)
    return {
        "interval_coverage": float(inside.mean()),
        "interval_asked": number.interval.share,
        "interval_width": float((high - low).mean()),
    }


def _scaled(number: Number, values: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = to_scale(np, number, values.astype(np.float64))
    return scaled
