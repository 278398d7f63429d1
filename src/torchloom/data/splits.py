"""Which labelled samples, images or documents, are kept from training to validate."""

import numpy as np

from torchloom.config import PreprocessConfig
from torchloom.errors import InputError


def missing_classes(labels: np.ndarray, classes: list[str]) -> str:
    """The names of the classes that (N,) `labels` have nothing of, in a row; empty when all are there."""
    counts = np.bincount(labels, minlength=len(classes))
    return ", ".join(repr(name) for name, count in zip(classes, counts, strict=True) if not count)


def choose_validation(labels: np.ndarray, classes: list[str], config: PreprocessConfig) -> np.ndarray:
    """The mask (N,) of the training samples that become the validation split, by `validation_fraction` and `seed`.

    InputError when that leaves a class nothing to train on.
    """
    chosen = stratified_choice(labels, config.validation_fraction, config.seed)
    lost = missing_classes(labels[~chosen], classes)
    if lost:
        raise InputError(f"validation_fraction {config.validation_fraction} leaves nothing of {lost} to train on")
    return chosen


def stratified_choice(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """A boolean mask (N,) that is true for `fraction` of each class, drawn by `seed`.

    Each class gives its share rounded to the nearest whole number.
    """
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        chosen[generator.permutation(members)[: round(fraction * len(members))]] = True
    return chosen
