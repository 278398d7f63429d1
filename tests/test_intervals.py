"""Intervals around the numbers that a regression answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.test_uneven import plan, trained
from torchloom.data.targets import Interval, Number, Numbers, Scale
from torchloom.errors import InputError
from torchloom.problems.conformal import check_samples
from torchloom.problems.regression.intervals import bounds, interval_scores, with_interval

PRICE = Number(name="price", mean=3.0, std=2.0)


def test_so_many_samples_does_it_take() -> None:
    for share, least in {0.5: 1, 0.8: 4, 0.9: 9, 0.95: 19, 0.99: 99}.items():
        check_samples(share, least, "validation sample")
        with pytest.raises(InputError, match=f"takes {least} validation sample"):
            check_samples(share, least - 1, "validation sample")


@pytest.mark.parametrize(("share", "place"), [(0.9, 90), (0.5, 50), (0.55, 55), (0.99, 99)])
def test_it_is_as_wide_as_the_right_one_of_the_errors(share: float, place: int) -> None:
    """Of 99 errors of 1, 2, …, to both sides, in the unit."""
    errors = np.random.default_rng(0).permutation(np.arange(1.0, 100.0)) * np.where(np.arange(99) % 2, 1, -1)
    found = np.linspace(0, 10, 99)
    number = with_interval(PRICE, found + errors, found, share)
    assert number.interval
    assert (number.interval.share, number.interval.within) == (share, pytest.approx(place / PRICE.std))
    ends = bounds(number, np.array([5.0, -1.0], dtype=np.float32))
    assert {name: values.tolist() for name, values in ends.items()} == {
        "price_low": pytest.approx([5 - place, -1 - place]),
        "price_high": pytest.approx([5 + place, -1 + place]),
    }


@pytest.mark.parametrize("scale", ["linear", "log", "robust"])
def test_further_truths_are_within(scale: Scale) -> None:
    generator = np.random.default_rng(1)
    found = generator.uniform(1, 9, 40_000)
    truth = found * generator.lognormal(0, 0.2, len(found))
    number = with_interval(PRICE.model_copy(update={"scale": scale}), truth[:2000], found[:2000], 0.8)
    answers = {"price": found[2000:], **bounds(number, found[2000:])}
    scores = interval_scores([number], truth[2000:, None], answers)
    assert scores["interval_coverage"] == pytest.approx(0.8, abs=0.03)
    wide = answers["price_high"] - answers["price_low"]
    assert scores["interval_width"] == pytest.approx(wide.mean(), rel=1e-4)
    far, near = wide[answers["price"] > 8].mean(), wide[answers["price"] < 2].mean()
    assert (far / near > 2) == (scale == "log")  # where it grows with the number


def test_of_several_numbers_each_has_its_own() -> None:
    numbers = [PRICE.model_copy(update={"interval": Interval(share=0.9, within=1.0)})]
    numbers += [Number(name="size", mean=0.0, std=1.0, interval=Interval(share=0.9, within=0.5))]
    answers = {name: values for each in numbers for name, values in bounds(each, np.zeros(4)).items()}
    truth = np.array([[0.0, 0.0], [1.9, 1.0], [2.1, 0.4], [-3.0, -2.0]])
    assert interval_scores(numbers, truth, answers) == {
        **{"interval_coverage": 0.5, "interval_asked": 0.9},
        **{"interval_coverage_price": 0.5, "interval_width_price": 4.0},
        **{"interval_coverage_size": 0.5, "interval_width_size": 1.0},
    }


def test_a_model_has_that_of_its_validation_split(tmp_path: Path) -> None:
    loaders = plan(tmp_path, "regression")
    checkpoint = trained(loaders, "regression", prediction_interval=0.8).best
    target = checkpoint.info.target
    assert isinstance(target, Number)
    assert target.interval
    features, truth = loaders.first("validation", 100)
    off = np.sort((checkpoint.build()(features).detach() - truth).abs().numpy()) / target.std
    assert target.interval.within == pytest.approx(off[80], rel=1e-4)  # of 100, the 81st
    assert trained(loaders, "regression").best.info.target.interval is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"prediction_interval": 0.995},
            r"^train\.prediction_interval: 0\.995 takes 199 validation samples or more, and there are 100\.",
        ),
        ({"names": ["price", "price_low"]}, r"the ends of the interval of 'price' would be called like another column"),
    ],
)
def test_what_can_have_none_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    loaders = plan(tmp_path, "regression")
    if names := change.get("names"):
        several = Numbers(numbers=[PRICE.model_copy(update={"name": name}) for name in names])
        loaders = loaders.model_copy(update={"info": loaders.info.model_copy(update={"target": several})})
    with pytest.raises(InputError, match=message):
        trained(loaders, "regression", prediction_interval=change.get("prediction_interval", 0.8))
