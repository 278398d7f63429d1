"""How far from answers the truth may be: split conformal prediction (Lei et al. 2018, arXiv:1604.04173)."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from pydantic import Field

from torchloom.errors import InputError
from torchloom.system.words import counted

INTERVAL = Field(
    None,
    description="share of the truths that an interval around each answer is to hold, as wide as the validation split "
    "says it takes (split conformal prediction); it belongs to the model. none: no interval",
)
Share = Annotated[float, Field(gt=0, lt=1)] | None


def check_samples(share: float, there: int, called: str, known: str = "") -> None:
    """InputError where these are too few for intervals that hold the `share` of the truths; `known` says of what."""
    needed = math.ceil(share / (1 - share) - 1e-9)
    if there < needed:
        raise InputError(
            f"train.prediction_interval: {share} takes {counted(needed, called)} or more{known}, and there are "
            f"{there}. Give preprocess.validation_fraction more, or leave the interval out"
        )


def half_width(off: np.ndarray, share: float) -> np.ndarray:
    """How far off a further answer is at most with a probability of `share` or more, (…), from how far N others are
    that the model has not learnt from, (N, …), of which some may be NaN: not known. See `check_samples`."""
    known = np.sum(~np.isnan(off), axis=0)
    places = np.minimum(np.ceil((known + 1) * share - 1e-9), known).astype(int) - 1
    return np.take_along_axis(np.sort(off, axis=0), places[None], axis=0)[0]  # type: ignore[no-any-return]


def ends(name: str) -> tuple[str, str]:
    """The columns of answers with the ends of the interval of what is called so."""
    return f"{name}_low", f"{name}_high"


def check_names(names: list[str]) -> None:
    """InputError where such a column would be called as another of the `names` is."""
    if double := [name for name in names if set(ends(name)) & set(names)]:
        raise InputError(
            f"train.prediction_interval: the ends of the interval of {double[0]!r} would be called like another "
            "column. Rename that, or leave the interval out"
        )
