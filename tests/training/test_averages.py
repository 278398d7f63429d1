"""The mean of the weights of some epochs, and the statistics of batch norm that go with weights not trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import CROSS_ENTROPY, classifier, run, timeless
from test_state import assert_resumes_exactly
from torch import Tensor, nn

from torchloom.config import SchedulerConfig, SwaConfig
from torchloom.training.averaging import StochasticAverage, take_statistics
from torchloom.training.optimizers import Schedule
from torchloom.training.state import TrainingStates
from torchloom.training.transfer import freeze


@pytest.mark.parametrize(
    ("given", "epochs", "first"),
    [
        ({}, 4, 4),
        ({}, 100, 76),
        ({"start": 0.0}, 9, 1),
        ({"start": 0.57}, 100, 58),
        ({"start": 7}, 10, 7),
        ({"start": 1}, 10, 1),
    ],
)
def test_the_first_epoch_that_counts(given: dict[str, Any], epochs: int, first: int) -> None:
    assert SwaConfig.model_validate(given).first(epochs) == first


@pytest.mark.parametrize(("start", "cycle", "taken"), [(3, 1, [3, 4, 5, 6, 7]), (2, 2, [2, 4, 6]), (4, 3, [4, 7])])
def test_the_mean_of_the_weights_at_the_ends_of_epochs(start: int, cycle: int, taken: list[int]) -> None:
    model = nn.Linear(3, 2)
    average = StochasticAverage(model, SwaConfig(start=start, cycle=cycle), epochs=7, steps=4)
    at_ends: dict[int, Tensor] = {}
    for step in range(1, 29):
        model.weight.data = torch.randn(2, 3, generator=torch.Generator().manual_seed(step))
        average.update_parameters(model)
        if step % 4 == 0:
            at_ends[step // 4] = model.weight.detach().clone()
            counted = [epoch for epoch in taken if epoch <= step // 4]
            expected = torch.stack([at_ends[epoch] for epoch in counted or [step // 4]]).mean(0)
            torch.testing.assert_close(average.module.weight, nn.Parameter(expected))
    assert average.refresh()


def test_it_is_the_model_that_is_validated_and_kept() -> None:
    """Against the weights of plain trainings of as many epochs; before the first, it is the trained one itself."""
    plain = [run(epochs=epochs)[1] for epochs in (1, 2, 3, 4)]
    _, result = run(epochs=4, swa={"start": 2})
    for name in result.last:
        mean = torch.stack([outcome.last[name] for outcome in plain[1:]]).float().mean(0)
        torch.testing.assert_close(result.last[name], mean.to(result.last[name].dtype))
    rows, others = timeless(result.history), timeless(plain[-1].history)
    assert rows[:2] == others[:2]
    assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in others]  # what is trained is the same
    assert rows[-1]["val_loss"] != others[-1]["val_loss"]


@pytest.mark.parametrize("settings", [{"swa": {"start": 2}}, {"optimizer": {"name": "ScheduleFreeAdamW", "lr": 0.01}}])
def test_batch_norm_has_the_statistics_of_the_averaged_weights(settings: dict[str, Any]) -> None:
    """Of the whole of the training data: the mean over batches of what goes into the layer, and of its variance."""
    batches: list[Any] = []

    def objective(model: nn.Module, batch: Any) -> Any:
        batches.append((model.training, batch))
        return CROSS_ENTROPY(model, batch)

    model, result = run(lambda: classifier(norm="batch"), epochs=3, objective=objective, **settings)
    model.load_state_dict(result.last)
    layers = list(model.network)  # type: ignore[arg-type]
    place = next(number for number, layer in enumerate(layers) if isinstance(layer, nn.BatchNorm1d))
    inputs: list[Tensor] = []
    hook = layers[place].register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    last_epoch = [batch for training, batch in batches if training][-6:]
    model.eval()
    for batch in last_epoch:
        model(batch[0])
    hook.remove()
    means = torch.stack([x.mean(0) for x in inputs]).mean(0)
    variances = torch.stack([x.var(0) for x in inputs]).mean(0)
    torch.testing.assert_close(layers[place].running_mean, means, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layers[place].running_var, variances, rtol=1e-4, atol=1e-5)


def test_statistics_alone_change_and_nothing_is_drawn() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 3))
    data = [(torch.randn(8, 3), torch.zeros(8).long()) for _ in range(4)]
    before, random = [parameter.clone() for parameter in model.parameters()], torch.get_rng_state()
    take_statistics([model[0]], model, data, CROSS_ENTROPY)  # type: ignore[list-item]
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before, strict=True))
    assert not any(module.training for module in model.modules())
    assert model[0].momentum == 0.1
    torch.testing.assert_close(model[0].running_mean, torch.stack([x.mean(0) for x, _ in data]).mean(0))


def test_a_layer_that_stays_keeps_its_statistics() -> None:
    def frozen() -> nn.Module:
        model = classifier(norm="batch")
        freeze(model, ["network.2.*"])
        return model

    _, result = run(frozen, epochs=4, swa={"start": 2})
    assert torch.equal(result.last["network.2.running_mean"], torch.zeros(16))


# ---- its learning rate ---------------------------------------------------------------------------------------------


def rates(
    scheduler: Any, swa: dict[str, Any], epochs: int = 6, steps: int = 2, warmup: float = 0.0
) -> list[list[float]]:
    """By epoch, the learning rates of two groups at its first step."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))]}, {"params": [nn.Parameter(torch.zeros(1))], "lr": 0.5}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    schedule = Schedule(optimizer, scheduler, epochs, steps, warmup, swa=SwaConfig.model_validate(swa))
    seen = []
    for _ in range(epochs):
        seen.append([group["lr"] for group in optimizer.param_groups])
        for _ in range(steps):
            optimizer.step()
            schedule.step()
        schedule.end_epoch(1.0)
    return [list(of_group) for of_group in zip(*seen, strict=True)]


def test_it_goes_to_a_constant_rate_and_groups_keep_their_shares() -> None:
    first, second = rates(None, {"start": 4, "lr": 0.2, "anneal_epochs": 2})
    assert first == pytest.approx([1.0, 1.0, 1.0, 0.6, 0.2, 0.2])
    assert second == pytest.approx([0.5 * rate for rate in first])


@pytest.mark.parametrize("anneal", [0, 1])
def test_it_leaves_the_scheduler_where_it_is(anneal: int) -> None:
    falling = SchedulerConfig.model_validate({"name": "LinearLR", "start_factor": 1.0, "end_factor": 0.0})
    first, _ = rates(falling, {"start": 4, "lr": 0.3, "anneal_epochs": anneal})
    assert first == pytest.approx([1.0, 5 / 6, 4 / 6, 0.3, 0.3, 0.3])


def test_without_a_rate_the_scheduler_goes_on() -> None:
    assert rates(None, {"start": 2})[0] == [1.0] * 6


# ---- going on ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"swa": {"start": 2, "lr": 0.01}, "scheduler": {"name": "CosineAnnealingLR"}},
        {"optimizer": {"name": "ScheduleFreeAdamW", "lr": 0.01}, "warmup_epochs": 1.0},
    ],
    ids=["swa", "schedule-free"],
)
def test_it_goes_on_to_the_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    assert_resumes_exactly(TrainingStates(tmp_path / "states"), 4, 3, 5, 4, **settings)
