"""How far from an answer the truth may be: intervals by split conformal prediction (Lei et al. 2018, arXiv:1604.04173).

That an interval is as wide as it is on the number's scale for each answer makes it wider for larger numbers where that
scale is `log`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from torchloom.data.targets import Interval, Number
from torchloom.problems.regression.scales import from_scale, to_scale


def least_samples(share: float) -> int:
    """How many samples it takes for an interval that holds the `share` of the truths."""
    return math.ceil(share / (1 - share) - 1e-9)


def with_interval(number: Number, truth: np.ndarray, found: np.ndarray, share: float) -> Number:
    """The number with the interval that the truth of a further sample is in with a probability of `share` or more,
    from truths and answers (N,), of N samples that the model has not learnt from, N at least `least_samples`."""
    off = np.abs(_scaled(number, truth) - _scaled(number, found))
    place = math.ceil((len(off) + 1) * share - 1e-9)
    within = float(np.sort(off)[place - 1])
    return number.model_copy(update={"interval": Interval(share=share, within=within)})


def bounds(number: Number, found: np.ndarray) -> dict[str, np.ndarray]:
    """The ends of the interval around each of (N,) answers, float32, by the names of their columns; without: none."""
    if number.interval is None:
        return {}
    middle, within = _scaled(number, found), number.interval.within
    low, high = (from_scale(np, number, end).astype(np.float32) for end in (middle - within, middle + within))
    return dict(zip(names_of(number), (low, high), strict=True))


def names_of(number: Number) -> list[str]:
    """The columns with the ends of its interval."""
    return [f"{number.name}_low", f"{number.name}_high"] if number.interval else []


def interval_scores(
    numbers: Sequence[Number], truth: np.ndarray, answers: Mapping[str, Sequence[Any]]
) -> dict[str, float]:
    """The share of truths (N, K) in their intervals, and how wide these are on average, in the number's unit.

    Of several numbers they are named after these, and before them is the mean share.
    """
    scores = {each.name: _score(each, column, answers) for each, column in zip(numbers, truth.T, strict=True)}
    if not all(each.interval for each in numbers):
        return {}
    if len(numbers) == 1:
        return scores[numbers[0].name]
    mean = float(np.mean([each["interval_coverage"] for each in scores.values()]))
    own = {f"{key}_{name}": value for name, each in scores.items() for key, value in each.items()}
    return {"interval_coverage": mean, **own}


def _score(number: Number, truth: np.ndarray, answers: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    if number.interval is None:
        return {}
    low, high = (np.asarray(answers[name], dtype=np.float64) for name in names_of(number))
    inside = (low <= truth) & (truth <= high)
    return {"interval_coverage": float(inside.mean()), "interval_width": float((high - low).mean())}


def _scaled(number: Number, values: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = to_scale(np, number, values.astype(np.float64))
    return scaled
