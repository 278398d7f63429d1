import math
from typing import Any

import pytest
import torch
from torch import nn

from conftest import imported_by
from torchloom.config import LookaheadConfig, OptimizerConfig, SchedulerConfig
from torchloom.errors import InputError
from torchloom.training.optimizers import (
    Lookahead,
    Schedule,
    create_optimizer,
    freeze_groups,
    optimizer_names,
    scheduler_names,
)


def optimizer_of(model: nn.Module, name: str, **settings: Any) -> torch.optim.Optimizer:
    return create_optimizer(model, OptimizerConfig.model_validate({"name": name, **settings}))


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
        ({"name": "CyclicLR", "base_lr": 0.2, "step_size_up": 2, "interval": "epoch"}, [0.2, 0.6, 1.0, 0.6, 0.2]),
    ],
)
def test_arguments_count_epochs(scheduler: dict[str, Any], expected: list[float]) -> None:
    assert rates(scheduler, epochs=4, steps=3) == pytest.approx(by_epoch(expected, 3), abs=1e-6)


AS_DOCUMENTED: dict[str, dict[str, Any]] = {
    "ConstantLR": {"factor": 0.5, "total_iters": 2},
    "CosineAnnealingLR": {"T_max": 3},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 2.0, "step_size_up": 5},
    "ExponentialLR": {"gamma": 0.7},
    "LinearLR": {"total_iters": 3},
    "MultiStepLR": {"milestones": [1, 3]},
    "OneCycleLR": {"max_lr": 2.0, "total_steps": 14},
    "PolynomialLR": {"total_iters": 3},
    "ReduceLROnPlateau": {"patience": 0},
    "StepLR": {"step_size": 2},
}


@pytest.mark.parametrize("name", scheduler_names())
def test_each_scheduler_is_stepped_as_its_documentation_says(name: str) -> None:
    """After each batch where that says so, else after each epoch; of a class that is new the arguments are missing."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0, momentum=0.9)
    scheduler: Any = getattr(torch.optim.lr_scheduler, name)(optimizer, **AS_DOCUMENTED[name])
    expected = []
    for _ in range(4):
        for _ in range(3):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if "step should be called after a batch" in " ".join((scheduler.__doc__ or "").replace("`", "").split()):
                scheduler.step()
        if name == "ReduceLROnPlateau":
            scheduler.step(1.0)
        elif name not in {"CyclicLR", "OneCycleLR"}:
            scheduler.step()
    assert rates({"name": name, **AS_DOCUMENTED[name]}, epochs=4, steps=3)[:-1] == pytest.approx(expected)


@pytest.mark.parametrize(("warmup", "drop"), [(0.0, 2), (2.0, 4), (1.5, 3)])
def test_milestones_count_from_the_end_of_warm_up(warmup: float, drop: int) -> None:
    """As configure.md says; the epoch in which the warm-up ends counts."""
    seen = rates({"name": "MultiStepLR", "milestones": [2], "gamma": 0.1}, epochs=6, steps=2, warmup=warmup)
    assert seen[4:] == pytest.approx([1.0] * (2 * drop - 4) + [0.1] * (13 - 2 * drop))


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
    scheduler = {"name": "OneCycleLR", "max_lr": 2.0, "total_steps": 10, "interval": "epoch"}
    seen = rates(scheduler, epochs=10, steps=2)
    assert max(seen) == pytest.approx(2.0)
    assert seen[0:20:2] == seen[1:20:2]


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ({"name": "OneCycleLR", "total_steps": 3, "interval": "epoch"}, "over after 3 epochs, the run after 4"),
        ({"name": "OneCycleLR", "total_steps": 19}, "over after 19 steps, the run after 20"),
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
    optimizer = optimizer_of(model, name, lr=1.0 if name == "Adadelta" else 0.05)  # its steps start tiny
    losses = []
    for _ in range(60):
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_arguments_reach_the_optimiser() -> None:
    optimizer = optimizer_of(nn.Linear(1, 1), "AdamW", lr=0.5, betas=[0.7, 0.8], weight_decay=0.3)
    assert isinstance(optimizer, torch.optim.AdamW)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.5, (0.7, 0.8), 0.3)
    assert len(group["params"]) == 2


@pytest.mark.parametrize(("arguments", "fused"), [({}, True), ({"foreach": True}, None), ({"fused": False}, False)])
def test_kernels_are_fused_unless_told_otherwise(arguments: dict[str, Any], fused: bool | None) -> None:
    assert optimizer_of(nn.Linear(1, 1), "Adam", **arguments).defaults["fused"] is fused


# ---- groups of parameters ------------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    """0.weight, 0.bias, 1.weight, 1.bias, 2.weight, 2.bias; those of batch norm in the middle."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def grouped(model: nn.Module, groups: list[dict[str, Any]], **settings: Any) -> list[list[str]]:
    """The names of the parameters in each group of the optimiser."""
    optimizer = optimizer_of(model, "SGD", **{"lr": 0.1, "groups": groups, **settings})
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [[names[parameter] for parameter in group["params"]] for group in optimizer.param_groups]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], [["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]]),
        ([["*.bias"]], [["0.weight", "1.weight", "2.weight"], ["0.bias", "1.bias", "2.bias"]]),
        ([["0.weight", "2.*"]], [["0.bias", "1.weight", "1.bias"], ["0.weight", "2.weight", "2.bias"]]),
        ([["0.bias"], ["*.bias"]], [["0.weight", "1.weight", "2.weight"], ["0.bias"], ["1.bias", "2.bias"]]),
        ([["[12].weight"], ["*"]], [[], ["1.weight", "2.weight"], ["0.weight", "0.bias", "1.bias", "2.bias"]]),
    ],
)
def test_the_first_group_that_fits_counts(patterns: list[list[str]], expected: list[list[str]]) -> None:
    assert grouped(network(), [{"parameters": parameters} for parameters in patterns]) == expected


def test_frozen_parameters_are_left_out() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    assert grouped(model, [{"parameters": ["*.weight"]}]) == [["0.bias", "1.bias"], ["1.weight", "2.weight"]]


@pytest.mark.parametrize(
    ("groups", "named"),
    [
        ([{"parameters": ["head.*"]}], r"head\.\* fits no parameter"),
        ([{"parameters": ["*.Weight"]}], "Weight fits no parameter"),
        ([{"parameters": ["*.bias"]}, {"parameters": ["0.bias", "1.bias"]}], r"0\.bias, 1\.bias fits no parameter"),
        ([{"parameters": ["1.weight"]}], r"1\.weight fits no parameter that is left of 0\.weight, 0\.bias, 1\.bias"),
    ],
)
def test_a_group_without_parameters_is_an_error(groups: list[dict[str, Any]], named: str) -> None:
    model = network()
    model[1].weight.requires_grad_(False)
    with pytest.raises(InputError, match=rf"^train\.optimizer\.groups: .*{named}") as caught:
        grouped(model, groups)
    assert "\n" not in caught.value.message


def test_arguments_of_groups_are_theirs_alone() -> None:
    groups = [{"parameters": ["*.bias"], "lr": 0.5, "betas": [0.5, 0.6]}, {"parameters": ["1.*"], "weight_decay": 0.0}]
    optimizer = optimizer_of(network(), "AdamW", lr=0.1, betas=[0.7, 0.8], weight_decay=0.3, groups=groups)
    found = [(group["lr"], group["betas"], group["weight_decay"]) for group in optimizer.param_groups]
    assert found == [(0.1, (0.7, 0.8), 0.3), (0.5, (0.5, 0.6), 0.3), (0.1, (0.7, 0.8), 0.0)]
    assert not any({"parameters", "epochs"} & group.keys() for group in optimizer.param_groups)


def test_each_group_learns_at_its_own_rate() -> None:
    model = network()
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = optimizer_of(model, "SGD", lr=0.1, groups=[{"parameters": ["2.*"], "lr": 3.0}])
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(start[name] - parameter, torch.full_like(start[name], 3.0 if "2." in name else 0.1))


def test_groups_stop_learning_after_their_epochs() -> None:
    """With momentum and weight decay, which would move weights that have no gradient any more."""
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    groups = [{"parameters": ["0.bias"], "epochs": 2}, {"parameters": ["2.*"], "epochs": 1}, {"parameters": ["1.bias"]}]
    config = OptimizerConfig.model_validate({"name": "SGD", **settings, "groups": groups})
    model = network()
    optimizer = create_optimizer(model, config)
    learnt: dict[int, set[str]] = {}
    for epoch in (1, 2, 3, 4):
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        freeze_groups(optimizer, config, epoch)
        for _ in range(2):
            model(torch.randn(8, 3)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        after = model.named_parameters()
        learnt[epoch] = {name for name, parameter in after if not torch.equal(parameter, before[name])}
    everything = {name for name, _ in model.named_parameters()}
    assert learnt[1] == everything
    assert learnt[2] == everything - {"2.weight", "2.bias"}
    assert learnt[3] == learnt[4] == {"0.weight", "1.weight", "1.bias"}


def test_a_gradient_left_over_moves_no_group_that_has_learnt_its_epochs() -> None:
    config = OptimizerConfig.model_validate({"name": "SGD", "groups": [{"parameters": ["0.*"], "epochs": 1}]})
    model = network()
    optimizer = create_optimizer(model, config)
    before = model[0].weight.detach().clone()
    model(torch.randn(8, 3)).square().sum().backward()
    freeze_groups(optimizer, config, 2)
    optimizer.step()
    assert torch.equal(model[0].weight, before)


def test_something_has_to_learn_until_the_end() -> None:
    config = OptimizerConfig.model_validate({"name": "SGD", "groups": [{"parameters": ["*"], "epochs": 2}]})
    optimizer = create_optimizer(network(), config)
    freeze_groups(optimizer, config, 2)
    with pytest.raises(InputError, match=r"^train\.optimizer\.groups: from epoch 3 on nothing would learn any more"):
        freeze_groups(optimizer, config, 3)


# ---- schedules of groups -------------------------------------------------------------------------------------------


def group_rates(scheduler: dict[str, Any], epochs: int, steps: int, warmup: float = 0.0) -> list[list[float]]:
    """The learning rates of three groups with base rates 1, 10 and 0.5 at each step of a run, and after the last."""
    groups = [{"parameters": ["*.bias"], "lr": 10.0}, {"parameters": ["1.weight"], "lr": 0.5}]
    optimizer = optimizer_of(network(), "SGD", lr=1.0, momentum=0.9, groups=groups)
    schedule = Schedule(optimizer, SchedulerConfig.model_validate(scheduler), epochs, steps, warmup)
    seen = []
    for _ in range(epochs):
        for _ in range(steps):
            seen.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            schedule.step()
        schedule.end_epoch(1.0)
    seen.append([group["lr"] for group in optimizer.param_groups])
    return [list(rates) for rates in zip(*seen, strict=True)]


def assert_scaled(seen: list[list[float]], base: list[float]) -> None:
    for rates_of_group, factor in zip(seen, (1.0, 10.0, 0.5), strict=True):
        assert rates_of_group == pytest.approx([factor * rate for rate in base], abs=1e-6)


def test_a_triangle_of_each_groups_own_height() -> None:
    scheduler = {"name": "LinearLR", "start_factor": 1.0, "end_factor": 0.0}
    seen = group_rates(scheduler, epochs=8, steps=5, warmup=2.0)
    rise, fall = [(step + 1) / 11 for step in range(10)], [1 - step / 30 for step in range(31)]
    assert_scaled(seen, rise + fall)
    assert seen[1][-1] == pytest.approx(0.0, abs=1e-9)


def test_a_straight_line_to_zero_in_each_group() -> None:
    scheduler = {"name": "LinearLR", "start_factor": 1.0, "end_factor": 0.0}
    assert_scaled(group_rates(scheduler, epochs=3, steps=4), [1 - step / 12 for step in range(13)])


def test_one_cycle_keeps_each_groups_highest_rate() -> None:
    seen = [rates_of_group[:-1] for rates_of_group in group_rates({"name": "OneCycleLR"}, epochs=4, steps=5)]
    assert [max(rates_of_group) for rates_of_group in seen] == pytest.approx([1.0, 10.0, 0.5])
    assert_scaled(seen, rates({"name": "OneCycleLR"}, epochs=4, steps=5)[:-1])


def test_epochs_that_are_counted_are_so_in_each_group() -> None:
    seen = group_rates({"name": "StepLR", "step_size": 2, "gamma": 0.1}, epochs=4, steps=2)
    assert_scaled(seen, by_epoch([1, 1, 0.1, 0.1, 0.01], 2))


# ---- lookahead -----------------------------------------------------------------------------------------------------


def followed(steps: int, config: LookaheadConfig, fast: bool = True) -> list[torch.Tensor]:
    """The weights of a run of SGD with drawn gradients after each step, with Lookahead (`fast`) or written by hand."""
    torch.manual_seed(0)
    gradients = torch.randn(steps, 3)
    layer = nn.Linear(3, 1, bias=False)
    nn.init.ones_(layer.weight)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    lookahead = Lookahead(layer, config, steps) if fast else None
    slow = layer.weight.detach().clone()
    seen = []
    for number, gradient in enumerate(gradients, 1):
        layer.weight.grad = gradient[None]
        optimizer.step()
        if lookahead:
            lookahead.step()
        else:
            if number % config.every == 0:
                decay = config.decay * (number / steps) ** config.ramp
                slow = decay * slow + (1 - decay) * layer.weight.detach()
                layer.weight.data.copy_(slow)
            if number == steps:
                layer.weight.data.copy_(slow)
        seen.append(layer.weight.detach().clone())
    return seen


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"every": 1, "decay": 0.9},
        {"every": 3, "decay": 0.774, "ramp": 3.0},
        {"every": 2, "decay": 0.5, "ramp": 0.5},
        {"every": 4, "decay": 0.0},
    ],
)
@pytest.mark.parametrize("steps", [12, 13])
def test_lookahead_is_what_is_written_down_by_hand(settings: dict[str, Any], steps: int) -> None:
    config = LookaheadConfig(**settings)
    ours, theirs = followed(steps, config), followed(steps, config, fast=False)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_a_ramp_lets_slow_weights_follow_freely_at_first() -> None:
    config = LookaheadConfig(every=1, decay=0.9, ramp=2.0)
    free = followed(10, LookaheadConfig(every=1, decay=0.0))
    ramped, steady = followed(10, config), followed(10, config.model_copy(update={"ramp": 0.0}))
    start = torch.ones(1, 3)
    torch.testing.assert_close(ramped[0] - start, (1 - 0.9 * 0.01) * (free[0] - start))
    torch.testing.assert_close(steady[0] - start, (1 - 0.9) * (free[0] - start))
    torch.testing.assert_close(ramped[9] - ramped[8], steady[9] - steady[8])  # 0.9 is reached at the end


def test_the_last_step_leaves_the_slow_weights() -> None:
    """Of 7 steps with a meeting every 5 those of step 5 remain, of 3 steps the first weights."""
    config = LookaheadConfig(every=5, decay=0.5)
    seen = followed(7, config)
    assert torch.equal(seen[6], seen[4])
    assert not torch.equal(seen[5], seen[4])
    never = followed(3, config)
    assert torch.equal(never[2], torch.ones(1, 3))


def test_lookahead_leaves_frozen_weights_alone() -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    lookahead = Lookahead(layer, LookaheadConfig(every=1, decay=0.5), steps=4)
    nn.init.ones_(layer.bias)
    layer.weight.data += 1
    lookahead.step()
    assert torch.equal(layer.bias, torch.ones(2))


def test_lookahead_leaves_groups_alone_that_have_learnt_their_epochs() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    first, second = model.parameters()
    lookahead = Lookahead(model, LookaheadConfig(every=2, decay=0.5), steps=5)
    first.data += 1
    lookahead.step()
    first.requires_grad_(False)
    frozen, learning = first.detach().clone(), second.detach().clone()
    for _ in range(4):
        second.data += 1
        lookahead.step()
        assert torch.equal(first, frozen)
    assert not torch.equal(second, learning)


def test_checking_imports_no_compiler() -> None:
    """Which takes seconds of each command, also of those that train nothing."""
    imported = imported_by(
        "from torchloom.training.optimizers import check_optimizer, check_scheduler;"
        "check_optimizer('AdamW', {'lr': 0.1}); check_scheduler('StepLR', {'step_size': 3})"
    )
    assert "torch.optim" in imported
    assert "torch._dynamo" not in imported
