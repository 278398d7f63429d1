import numpy as np
import pytest

from torchloom.data.splits import stratified_choice

COUNTS = [40, 25, 7]  # samples of each class
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(len(COUNTS)), COUNTS))


@pytest.mark.parametrize("fraction", [0, 0.1, 0.25, 1 / 3, 0.5, 0.99])
def test_each_class_gives_its_rounded_share(fraction: float) -> None:
    chosen = stratified_choice(LABELS, fraction, seed=0)
    assert np.bincount(LABELS[chosen], minlength=3).tolist() == [round(fraction * count) for count in COUNTS]


def test_the_split_depends_on_the_seed_alone() -> None:
    choices = [tuple(stratified_choice(LABELS, 0.25, seed)) for seed in (0, 0, 1, 2)]
    assert choices[0] == choices[1]
    assert len(set(choices)) == 3


def test_every_sample_can_be_chosen() -> None:
    often = sum(stratified_choice(np.zeros(8, int), 0.25, seed).astype(int) for seed in range(200))
    assert often.sum() == 400
    assert often.min() > 25  # 50 expected, standard deviation 6
