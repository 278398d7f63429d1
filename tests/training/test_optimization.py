import math
from typing import Any

import pytest
import torch
from torch import nn

from torchloom.config import SchedulerConfig
from torchloom.errors import InputError
from torchloom.training.optimization import Schedule, create_optimizer, optimizer_names


def rates(
    scheduler: dict[str, Any] | None,
    *,
    epochs: int,
    steps: int,
    warmup: float = 0.0,
    losses: list[float] | None = None,
) -> list[float]:
    """The learning rates of a run with base rate 1: that of each step, and the one after the last."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0, momentum=0.9)
    config = SchedulerConfig.model_validate(scheduler) if scheduler else None
    schedule = Schedule(optimizer, config, epochs, steps, warmup)
    seen = []
    for epoch in range(epochs):
        for _ in range(steps):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        schedule.end_epoch(losses[epoch] if losses else 1.0)
    return [*seen, optimizer.param_groups[0]["lr"]]


def cosine(steps: int) -> list[float]:
    return [(1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps + 1)]


def by_epoch(values: list[float], steps: int) -> list[float]:
    """One value for each epoch, then the one after the last epoch."""
    return [value for value in values[:-1] for _ in range(steps)] + values[-1:]


@pytest.mark.parametrize(("warmup", "warmup_steps"), [(2.0, 10), (0.5, 2), (1.3, 6)])
def test_linear_warm_up_then_cosine_to_zero(warmup: float, warmup_steps: int) -> None:
    rise = [(step + 1) / (warmup_steps + 1) for step in range(warmup_steps)]
    seen = rates({"name": "CosineAnnealingLR"}, epochs=10, steps=5, warmup=warmup)
    assert seen == pytest.approx(rise + cosine(50 - warmup_steps), abs=1e-6)
    assert seen[-1] == pytest.approx(0, abs=1e-9)


def test_warm_up_alone_ends_at_the_base_rate() -> None:
    assert rates(None, epochs=3, steps=3, warmup=1.0) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1])


def test_no_scheduler_keeps_the_rate() -> None:
    assert rates(None, epochs=3, steps=4) == [1.0] * 13


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ({"name": "CosineAnnealingLR"}, cosine(12)),
        ({"name": "CosineAnnealingLR", "eta_min": 0.5}, [0.5 + rate / 2 for rate in cosine(12)]),
        ({"name": "PolynomialLR"}, [1 - step / 12 for step in range(13)]),
        ({"name": "LinearLR", "start_factor": 0.4}, [0.4 + 0.6 * step / 12 for step in range(13)]),
        ({"name": "ConstantLR", "factor": 0.5}, [0.5] * 12 + [1.0]),
    ],
)
def test_a_length_left_out_is_the_whole_run_in_steps(scheduler: dict[str, Any], expected: list[float]) -> None:
    assert rates(scheduler, epochs=4, steps=3) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ({"name": "StepLR", "step_size": 2, "gamma": 0.1}, [1, 1, 0.1, 0.1, 0.01]),
        ({"name": "MultiStepLR", "milestones": [1, 3], "gamma": 0.5}, [1, 0.5, 0.5, 0.25, 0.25]),
        ({"name": "ExponentialLR", "gamma": 0.5}, [1, 0.5, 0.25, 0.125, 0.0625]),
        ({"name": "CosineAnnealingLR", "T_max": 4}, cosine(4)),
        ({"name": "PolynomialLR", "total_iters": 2}, [1, 0.5, 0, 0, 0]),
        ({"name": "CosineAnnealingWarmRestarts", "T_0": 2}, [1, 0.5, 1, 0.5, 1]),
        ({"name": "CyclicLR", "base_lr": 0.2, "step_size_up": 2}, [0.2, 0.6, 1.0, 0.6, 0.2]),
    ],
)
def test_arguments_count_epochs(scheduler: dict[str, Any], expected: list[float]) -> None:
    assert rates(scheduler, epochs=4, steps=3) == pytest.approx(by_epoch(expected, 3), abs=1e-6)


def test_arguments_count_epochs_after_warm_up() -> None:
    seen = rates({"name": "StepLR", "step_size": 1, "gamma": 0.5}, epochs=4, steps=1, warmup=1.0)
    assert seen == pytest.approx([0.5, 1, 0.5, 0.25, 0.125])


def test_interval_step_lets_arguments_count_steps() -> None:
    seen = rates({"name": "StepLR", "step_size": 4, "gamma": 0.1, "interval": "step"}, epochs=3, steps=3)
    assert seen == pytest.approx([1] * 4 + [0.1] * 4 + [0.01] * 2)


@pytest.mark.parametrize(("warmup", "start"), [(0.0, []), (1.0, [0.5])])
def test_interval_epoch_fills_the_length_in_epochs(warmup: float, start: list[float]) -> None:
    seen = rates({"name": "CosineAnnealingLR", "interval": "epoch"}, epochs=4 + len(start), steps=1, warmup=warmup)
    assert seen == pytest.approx(start + cosine(4), abs=1e-6)


def test_plateaus_of_the_loss_lower_the_rate() -> None:
    scheduler = {"name": "ReduceLROnPlateau", "patience": 1, "factor": 0.5}
    seen = rates(scheduler, epochs=5, steps=2, losses=[1.0, 0.8, 0.8, 0.8, 0.5])
    assert seen == by_epoch([1, 1, 1, 1, 0.5, 0.5], 2)
    assert rates(scheduler, epochs=5, steps=2, losses=[1.0, 0.9, 0.8, 0.7, 0.6]) == [1.0] * 11


def test_one_cycle_spans_the_run() -> None:
    seen = rates({"name": "OneCycleLR"}, epochs=4, steps=5)[:-1]
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0, momentum=0.9)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=20)
    expected = []
    for _ in range(20):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert seen == pytest.approx(expected)
    assert seen[0] == pytest.approx(1 / 25)
    assert max(seen) == pytest.approx(1.0, abs=1e-9)
    assert seen[-1] == pytest.approx(1 / 25 / 1e4)


def test_one_cycle_takes_its_highest_rate_and_a_length_in_epochs() -> None:
    seen = rates({"name": "OneCycleLR", "max_lr": 2.0, "total_steps": 10}, epochs=10, steps=2)
    assert max(seen) == pytest.approx(2.0)
    assert seen[0:20:2] == seen[1:20:2]


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ({"name": "OneCycleLR", "total_steps": 3}, "over after 3 epochs, the run after 4"),
        ({"name": "OneCycleLR", "total_steps": 19, "interval": "step"}, "over after 19 steps, the run after 20"),
    ],
)
def test_one_cycle_shorter_than_the_run_is_said_before_it(scheduler: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rates(scheduler, epochs=4, steps=5)


@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimiser_lowers_the_loss_of_a_regression(name: str) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(32, 4)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [3.0], [0.5]]) + 1
    model = nn.Linear(4, 1)
    optimizer = create_optimizer(model, name, {"lr": 1.0 if name == "Adadelta" else 0.05})  # its steps start tiny
    losses = []
    for _ in range(60):
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_arguments_reach_the_optimiser() -> None:
    optimizer = create_optimizer(nn.Linear(1, 1), "AdamW", {"lr": 0.5, "betas": [0.7, 0.8], "weight_decay": 0.3})
    assert isinstance(optimizer, torch.optim.AdamW)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.5, (0.7, 0.8), 0.3)
    assert len(group["params"]) == 2


@pytest.mark.parametrize(("arguments", "fused"), [({}, True), ({"foreach": True}, None), ({"fused": False}, False)])
def test_kernels_are_fused_unless_told_otherwise(arguments: dict[str, Any], fused: bool | None) -> None:
    assert create_optimizer(nn.Linear(1, 1), "Adam", arguments).defaults["fused"] is fused
