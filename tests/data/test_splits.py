import logging

import numpy as np
import pytest

from torchloom.data.splits import log_classes, missing_classes, stratified_choice

COUNTS = [40, 25, 7]  # samples of each class
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(len(COUNTS)), COUNTS))


def test_classes_without_samples_are_named() -> None:
    assert missing_classes(np.array([1, 1, 3]), ["a", "b", "it's", "d", "e"]) == """'a', "it's", 'e'"""
    assert missing_classes(np.array([0, 1]), ["a", "b"]) == ""


@pytest.mark.parametrize("fraction", [0, 0.1, 0.25, 1 / 3, 0.5, 0.99])
def test_each_class_gives_its_rounded_share(fraction: float) -> None:
    chosen = stratified_choice(LABELS, fraction, seed=0)
    expected = [min(round(fraction * count), count - 1) for count in COUNTS]  # something is left of each
    assert np.bincount(LABELS[chosen], minlength=3).tolist() == expected


@pytest.mark.parametrize("fraction", [0, 0.01, 0.1, 0.9])
def test_a_class_of_few_asks_for_no_other_fraction(fraction: float) -> None:
    labels = np.repeat([0, 1, 2, 3], [1, 2, 3, 100])
    taken = np.bincount(labels[stratified_choice(labels, fraction, seed=0, least=1)], minlength=4)
    few = {0: [0, 0, 0], 0.01: [0, 1, 1], 0.1: [0, 1, 1], 0.9: [0, 1, 2]}[fraction]
    assert taken.tolist() == [*few, 100 * fraction]


def test_the_split_depends_on_the_seed_alone() -> None:
    choices = [tuple(stratified_choice(LABELS, 0.25, seed)) for seed in (0, 0, 1, 2)]
    assert choices[0] == choices[1]
    assert len(set(choices)) == 3


def test_every_sample_can_be_chosen() -> None:
    often = sum(stratified_choice(np.zeros(8, int), 0.25, seed).astype(int) for seed in range(200))
    assert often.sum() == 400
    assert often.min() > 25  # 50 expected, standard deviation 6


def test_the_log_is_shortened_when_there_are_many_classes(caplog: pytest.LogCaptureFixture) -> None:
    counts = [*range(1, 24), 2]
    with caplog.at_level(logging.INFO, logger="torchloom"):
        log_classes(["a\x1b[2J", *"bcdefghijklmnopqrstuvwx"], {"train": np.repeat(np.arange(24), counts)})
    first = ", ".join(f"{name} {count}" for name, count in zip("bcdefghijklmnopqrst", counts[1:], strict=False))
    assert caplog.messages == [f"train: 278 in 24 classes: a\\x1b[2J 1, {first}, 4 more of 2 to 23"]
