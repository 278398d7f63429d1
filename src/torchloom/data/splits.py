"""Which labelled samples, images or documents, are kept from training to validate."""

import logging
from collections.abc import Mapping

import numpy as np

from torchloom.config import PreprocessConfig
from torchloom.errors import InputError, printable

logger = logging.getLogger(__name__)

SHOWN = 20  # classes in a line of the log


def missing_classes(labels: np.ndarray, classes: list[str]) -> str:
    """The names of the classes that (N,) `labels` have nothing of, in a row; empty when all are there."""
    counts = np.bincount(labels, minlength=len(classes))
    return ", ".join(repr(name) for name, count in zip(classes, counts, strict=True) if not count)


def choose_validation(labels: np.ndarray, config: PreprocessConfig) -> np.ndarray:
    """The mask (N,) of the training samples that become the validation split, by `validation_fraction` and `seed`."""
    return stratified_choice(labels, config.validation_fraction, config.seed)


def stratified_choice(labels: np.ndarray, fraction: float, seed: int, least: int = 0) -> np.ndarray:
    """A boolean mask (N,) that is true for `fraction` of each class, drawn by `seed`.

    Each class gives its share rounded to the nearest whole number, but at `least` so many unless `fraction` is 0, and
    never its last sample: a class of few asks for no other fraction than the rest.
    """
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        share = max(round(fraction * len(members)), least if fraction else 0)
        chosen[generator.permutation(members)[: min(share, len(members) - 1)]] = True
    return chosen


def choice_of_labels(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """A boolean mask (N,) that is true for `fraction` of the rows with each of the (N, K) labels, and of those without.

    From the rarest label on, its rows that are not decided yet are drawn until it has its share, and never the last
    row of any label (after Sechidis, Tsoumakas, Vlahavas, "On the stratification of multi-label data", ECML 2011).
    """
    generator = np.random.default_rng(seed)
    marks = np.column_stack([labels, ~labels.any(1)]).astype(bool)
    chosen, decided, left = np.zeros(len(marks), bool), np.zeros(len(marks), bool), marks.sum(0)
    for place in np.argsort(left, kind="stable"):
        members = marks[:, place]
        wanted = round(fraction * int(members.sum())) - int(chosen[members].sum())
        for row in generator.permutation(np.flatnonzero(members & ~decided)):
            if wanted > 0 and (left[marks[row]] > 1).all():
                chosen[row], wanted, left = True, wanted - 1, left - marks[row]
        decided |= members
    return chosen


def log_labels(names: list[str], marks: Mapping[str, np.ndarray]) -> None:
    """A line for each split with of how many rows each label holds, by (N, K) marks."""
    for split, part in marks.items():
        counts = part.sum(0, dtype=np.int64).tolist()
        shown = [f"{printable(name)} {count}" for name, count in zip(names, counts, strict=True)][:SHOWN]
        more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
        none = int((~part.any(1)).sum())
        logger.info("%s: %d with labels: %s, none of them %d", split, len(part), ", ".join([*shown, *more]), none)


def grouped_choice(labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """A boolean mask (N,) that is true for about `fraction` of each class in (N,) labels, and of whole (N,) groups.

    Of few groups it is one, which may be more.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if not fraction or not len(labels):
        return np.zeros(len(labels), dtype=bool)
    found = len(np.unique(groups))
    if found < 2:
        raise InputError(
            "preprocess.split_by.group: there is one group only in what is to be split; give another column, or files "
            "of their own to test and to validate"
        )
    count = min(max(round(1 / fraction), 2), found)
    parts = StratifiedGroupKFold(count, shuffle=True, random_state=seed % 2**32)
    return np.isin(np.arange(len(labels)), next(parts.split(labels, labels, groups))[1])


def log_classes(classes: list[str], labels: Mapping[str, np.ndarray]) -> None:
    """A line for each split, by its name, with its classes and how many of the (N,) labels each has."""
    for split, part in labels.items():
        counts = np.bincount(part, minlength=len(classes)).tolist()
        shown = [f"{printable(name)} {count}" for name, count in zip(classes, counts, strict=True)]
        rest = counts[SHOWN:]
        more = [f"{len(rest)} more of {min(rest)} to {max(rest)}"] if rest else []
        logger.info("%s: %d in %d classes: %s", split, len(part), len(classes), ", ".join([*shown[:SHOWN], *more]))
