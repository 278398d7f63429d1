"""The learning-rate range test on problems whose answer is known."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.training.test_distribution import settings
from torchloom.data.batches import Batches, Gathered
from torchloom.errors import InputError
from torchloom.training.optimizers import rates_of, scaled_rate, with_rate
from torchloom.training.range_test import Growing, RangeTest, range_test, rates_between, smoothed

CPU = torch.device("cpu")
SCALES = torch.tensor([1.0, 0.7, 0.4])  # deviations of the features


class Rows(Gathered):
    """A target that is linear in features of known deviations."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__(CPU, None)
        generator = torch.Generator().manual_seed(0)
        self.features = torch.randn(512, 3, generator=generator) * SCALES
        self.targets = self.features @ torch.tensor([1.0, -2.0, 3.0])
        self.targets += noise * torch.randn(512, generator=generator)

    def __len__(self) -> int:
        return len(self.targets)

    def gather(self, indices: Tensor) -> tuple[Tensor, ...]:
        return self.features[indices], self.targets[indices]


def squares(model: nn.Module, batch: Any) -> Any:
    features, targets = batch
    return (model(features).squeeze(1) - targets).square().mean(), {}


def swept(batch_size: int = 512, noise: float = 0.0, start: float = 1e-7, steps: int = 100, **changes: Any) -> Any:
    loader = DataLoader(Rows(noise), sampler=Batches(512, batch_size, 0), batch_size=None)
    config = settings(**{"optimizer": {"name": "SGD", "lr": 0.1}, "batch_size": batch_size, **changes})
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    rates = rates_between(start, 10.0, steps)
    return model, range_test(model, loader, config, squares, CPU, torch.float32, rates)


def stable_rate() -> float:
    """2 / λ: above it gradient descent on the mean of squares grows."""
    features = torch.cat([Rows().features, torch.ones(512, 1)], 1)
    return float(2 / torch.linalg.eigvalsh(2 * features.T @ features / 512)[-1])


@pytest.mark.parametrize("start", [1e-7, 1e-4])
@pytest.mark.parametrize("steps", [60, 100, 300])
@pytest.mark.parametrize(("batch_size", "noise"), [(512, 0.0), (32, 0.5)])
def test_the_suggestion_is_a_few_times_below_the_largest_stable_rate(
    batch_size: int, noise: float, steps: int, start: float
) -> None:
    _, found = swept(batch_size, noise, start, steps)
    limit = stable_rate()
    assert found.diverged
    assert limit < found.rates[-1]
    assert limit / 20 < found.suggestion() < limit / 1.2


def test_steps_are_those_of_the_training() -> None:
    """Gradient descent by hand, with penalty, clipping and two batches for each step."""
    model, found = swept(256, steps=10, start=1e-3, accumulate=2, l2=0.3, gradient_clip=0.5)
    torch.manual_seed(0)
    other, rows = nn.Linear(3, 1), Rows()
    for rate, loss in zip(found.rates, found.losses, strict=True):
        value = squares(other, (rows.features, rows.targets))[0]
        assert value.item() == pytest.approx(loss, rel=1e-4)
        other.zero_grad()
        (value + 0.15 * other.weight.square().sum()).backward()
        nn.utils.clip_grad_norm_(other.parameters(), 0.5)
        with torch.no_grad():
            for parameter in other.parameters():
                assert parameter.grad is not None
                parameter -= float(rate) * parameter.grad
    torch.testing.assert_close(model.weight, other.weight, rtol=1e-4, atol=1e-5)


def test_groups_keep_their_distance() -> None:
    groups = [{"parameters": ["bias"], "lr": 0.0}]
    model, _ = swept(steps=10, optimizer={"name": "SGD", "lr": 0.1, "groups": groups})
    torch.manual_seed(0)
    start = nn.Linear(3, 1)
    assert torch.equal(model.bias, start.bias)
    assert not torch.equal(model.weight, start.weight)


def test_what_cannot_rise_is_refused() -> None:
    with pytest.raises(InputError, match=r"train\.optimizer: SGD has no learning rate above 0"):
        swept(optimizer={"name": "SGD", "lr": 0.0})


GROUPS = [{"parameters": ["*.bias"], "lr": 0.05, "momentum": 0.5}, {"parameters": ["*.norm.*"], "momentum": 0.1}]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, {"optimizer": {"lr": 0.4}}),
        ({"optimizer": {"name": "SGD"}}, {"optimizer": {"lr": 0.4}}),
        ({"scheduler": {"name": "OneCycleLR"}}, {"optimizer": {"lr": 0.4}}),
        ({"scheduler": {"name": "OneCycleLR", "max_lr": 1}}, {"scheduler": {"max_lr": 0.4}}),
        (
            {"optimizer": {"name": "SGD", "lr": 0.1, "groups": GROUPS}},
            {"optimizer": {"lr": 0.4, "groups": [{**GROUPS[0], "lr": 0.2}, GROUPS[1]]}},
        ),
        (
            {"optimizer": {"name": "SGD", "groups": GROUPS[:1]}},  # its rate is 0.001
            {"optimizer": {"lr": 0.4, "groups": [{**GROUPS[0], "lr": 20.0}]}},
        ),
        (
            {
                "optimizer": {"name": "SGD", "lr": 0.1, "groups": GROUPS},
                "scheduler": {"name": "OneCycleLR", "max_lr": [0.2, 0.3, 0.1]},
            },
            {"scheduler": {"max_lr": [0.4, 0.6, 0.2]}},
        ),
    ],
)
def test_another_rate_is_one_of_all_groups(changes: dict[str, Any], found: dict[str, Any]) -> None:
    config = settings(**{"optimizer": {"name": "SGD", "lr": 0.1}, **changes})
    assert with_rate(config, 0.4) == found
    plain = config.model_dump(mode="json", exclude_none=True)
    rated = settings(**{**plain, **{key: {**plain[key], **value} for key, value in found.items()}})
    shares = [rate / rates_of(rated)[0] for rate in rates_of(rated)]
    assert shares == pytest.approx([rate / rates_of(config)[0] for rate in rates_of(config)])


def test_distances_are_those_that_the_scheduler_goes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[list[float]] = []

    def step(steps: Any, _: Any) -> float:
        rates.append([group["lr"] for group in steps.optimizer.param_groups])
        return 1.0

    monkeypatch.setattr("torchloom.training.range_test._step", step)
    scheduler = {"name": "OneCycleLR", "max_lr": [0.2, 0.5]}
    swept(optimizer={"name": "SGD", "lr": 0.1, "groups": [{"parameters": ["bias"]}]}, scheduler=scheduler)
    assert rates[0] == pytest.approx([1e-7, 2.5e-7])
    assert rates[-1] == pytest.approx([10, 25])


def test_without_a_fall_there_is_no_suggestion() -> None:
    noise = np.random.default_rng(0).normal(1, 0.1, 100)
    assert RangeTest(rates_between(1e-7, 1, 100), noise, False).suggestion() is None
    growing = np.linspace(1, 2, 100)
    assert RangeTest(rates_between(1e-7, 1, 100), growing, False).suggestion() is None
    assert RangeTest(rates_between(1e-7, 1, 100)[:1], np.array([np.nan]), True).suggestion() is None


def test_a_last_loss_that_is_not_finite_is_left_out() -> None:
    losses = np.array([3.0, 2.9, 2.0, 1.0, 0.9, np.nan])
    found = RangeTest(rates_between(1e-3, 1e2, 6), losses, True)
    assert len(found.rows()) == 5
    assert 1e-3 < found.suggestion() < 10  # type: ignore[operator]


@pytest.mark.parametrize(("losses", "steps"), [([2.0] * 5 + [200.0] * 5, 6), ([1.0, float("inf")], 2)])
def test_a_loss_that_grows_for_good_ends_it(losses: list[float], steps: int) -> None:
    growing = Growing()
    ends = [growing.over(loss) for loss in losses]
    assert ends.index(True) + 1 == steps


def test_a_loss_below_zero_is_none_that_grows() -> None:
    growing = Growing()
    assert not any(growing.over(-1 - step / 10) for step in range(50))


def test_smoothing_has_no_lag_and_keeps_a_level() -> None:
    assert smoothed(np.full(20, 3.0), 2.0) == pytest.approx(np.full(20, 3.0))
    peak = np.zeros(21)
    peak[10] = 1
    assert smoothed(peak, 2.0).argmax() == 10


@pytest.mark.parametrize(("name", "rate"), [("SGD", 0.8), ("AdamW", 0.4), ("RMSprop", 0.4), ("Muon", None)])
def test_the_rate_of_larger_batches(name: str, rate: float | None) -> None:
    assert scaled_rate(name, 0.2, 4) == rate
