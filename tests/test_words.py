"""Numbers in sentences, and what is said of a model that was made of another."""

import pytest

from torchloom.records.running import _compared
from torchloom.reporting.report import changes
from torchloom.system.words import counted, times

WORSE = {
    "accuracy_points": -1.0,
    "times_smaller": 0.5,
    "times_smaller_compressed": 2.0,
    "times_fewer_multiply_adds": 0.25,
    "times_lower_latency": 0.62,
    "times_higher_throughput": 0.8,
}


@pytest.mark.parametrize(
    ("count", "noun", "expected"),
    [
        (0, "epoch", "0 epochs"),
        (1, "epoch", "1 epoch"),
        (2000, "batch", "2,000 batches"),
        (1, "batch", "1 batch"),
        (3, "class", "3 classes"),
        (2, "test image", "2 test images"),
        (2, "entry", "2 entries"),
        (2, "day", "2 days"),
    ],
)
def test_counted_nouns(count: int, noun: str, expected: str) -> None:
    assert counted(count, noun) == expected


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (2.0, "2.00 times smaller"),
        (1.0, "as large"),
        (1.004, "as large"),
        (0.9970, "as large"),
        (1.006, "1.01 times smaller"),
        (0.62, "1.61 times larger"),
    ],
)
def test_ratios_are_told_in_their_direction(ratio: float, expected: str) -> None:
    assert times(ratio, "smaller", "larger", "as large") == expected


def test_what_has_become_worse_is_told_so() -> None:
    report = {"before": {"accuracy": 0.9}, "after": {"accuracy": 0.89}, "change": WORSE}
    assert _compared(report) == (
        "test accuracy 0.9000 -> 0.8900, 2.00 times larger, 4.00 times more multiply-adds, latency 1.61 times higher, "
        "throughput 1.25 times lower"
    )


def test_what_is_as_before_is_told_so() -> None:
    same = dict.fromkeys(WORSE, 1.0) | {"times_lower_latency": 1.1}
    report = {"before": {"accuracy": 0.9}, "after": {"accuracy": 0.9}, "change": same}
    assert _compared(report) == (
        "test accuracy 0.9000 -> 0.9000, the same size, as many multiply-adds, latency 1.10 times lower, "
        "throughput as before"
    )


def test_the_gain_of_zeros_is_told() -> None:
    sides = {"before": {"accuracy": 0.9, "zeros": 1e-6}, "after": {"accuracy": 0.9, "zeros": 0.5}}
    told = _compared({**sides, "change": dict.fromkeys(WORSE, 1.0) | {"times_smaller_compressed": 1.66}})
    assert ", the same size, 50.0 % of the weights zero, compressed 1.66 times smaller, as many" in told
    sides["after"]["zeros"] = 2e-6
    assert "zero" not in _compared({**sides, "change": WORSE})


def test_ratios_of_a_report_are_in_their_direction() -> None:
    assert changes(WORSE) == pytest.approx(
        {
            "accuracy points": -1.0,
            "times larger": 2.0,
            "times smaller compressed": 2.0,
            "times more multiply adds": 4.0,
            "times higher latency": 1 / 0.62,
            "times lower throughput": 1.25,
        }
    )
