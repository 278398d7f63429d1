"""The loop on real networks and toy images: bright rows tell the classes, so a linear layer can learn them."""

import io
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import rich
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader

from torchloom.data.batches import Batches, ImageBatches
from torchloom.errors import InputError
from torchloom.modalities.modules import NormalizedImages
from torchloom.models import build_network
from torchloom.problems.classification import classification_objective
from torchloom.problems.classification.config import ClassificationTrainConfig
from torchloom.system.devices import seed_everything
from torchloom.training import loop, passes
from torchloom.training.averaging import average
from torchloom.training.loop import Objective, Outcome, Running, fit, improves, should_stop, snapshot

Split = tuple[Tensor, Tensor]  # images (N, H, W, C) uint8 and labels (N,)
CROSS_ENTROPY = classification_objective("CrossEntropyLoss", {})


def toy(count: int = 96, seed: int = 0, shift: int = 0) -> Split:
    """4x4 images of three classes, row `label` bright; `shift` makes all labels wrong."""
    labels = torch.arange(count) % 3
    images = torch.randint(0, 80, (count, 4, 4, 1), generator=torch.Generator().manual_seed(seed))
    images[torch.arange(count), labels] += 150
    return images.to(torch.uint8), (labels + shift) % 3


NOTHING = toy(0)
WRONG = toy(48, seed=1, shift=1)  # the better the network learns, the worse it does here


def classifier(**arguments: Any) -> nn.Module:
    network = build_network("mlp", {"shape": (1, 4, 4), "outputs": 3}, {"hidden": [16], **arguments})
    return NormalizedImages(network, [0.5], [0.25])


def linear_without_bias() -> nn.Module:
    return NormalizedImages(nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False)), [0.5], [0.25])


def run(
    make: Callable[[], nn.Module] = classifier,
    *,
    data: Split | None = None,
    validation: Split | None = None,
    objective: Objective = CROSS_ENTROPY,
    **settings: Any,
) -> tuple[nn.Module, Outcome]:
    """Train a fresh model and return it with the outcome; `settings` are those of the block `train`."""
    defaults = {"epochs": 2, "batch_size": 16, "optimizer": {"name": "SGD", "lr": 0.1}}
    config = ClassificationTrainConfig.model_validate({**defaults, "device": "cpu", "precision": "fp32", **settings})
    seed_everything(config.seed, config.deterministic)
    splits = {"train": data or toy(), "validation": validation or toy(48, seed=1)}

    def open_loader(split: str, device: torch.device) -> DataLoader[Any]:
        images, labels = splits[split]
        batches = (
            Batches(len(labels), config.batch_size, shuffle_seed=config.seed)
            if split == "train"
            else Batches(len(labels), 20)
        )
        return DataLoader(ImageBatches(images.to(device), labels.to(device)), sampler=batches, batch_size=None)

    model = make()
    return model, fit(model, open_loader, config, objective)


def fresh(make: Callable[[], nn.Module] = classifier, seed: int = 0) -> nn.Module:
    """The model as `run` starts with it."""
    seed_everything(seed)
    return make()


def parameters_of(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def timeless(history: list[dict[str, float]]) -> list[dict[str, float]]:
    measured = {"seconds", "seconds_waiting", "samples_per_second"}
    return [{k: v for k, v in row.items() if k not in measured} for row in history]


def assert_same_weights(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = 0.0) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


# ---- learning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"norm": "batch", "dropout": 0.1}])
@pytest.mark.parametrize("settings", [{}, {"optimizer": {"name": "Adam", "lr": 0.01}, "ema": 0.5, "accumulate": 2}])
def test_a_separable_set_is_learnt(arguments: dict[str, Any], settings: dict[str, Any]) -> None:
    _, result = run(lambda: classifier(**arguments), epochs=8, **settings)
    first, last = result.history[0], result.history[-1]
    assert first["train_loss"] > 0.3
    assert last["train_loss"] < 0.3 * first["train_loss"]
    assert last["val_loss"] < 0.15
    assert last["val_accuracy"] == 1.0


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_learns(precision: str) -> None:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if dtype is torch.float16:
        try:
            F.linear(torch.ones(2, 2, dtype=dtype), torch.ones(2, 2, dtype=dtype))
        except RuntimeError:
            pytest.skip("no fp16 products on this CPU")
    seen = set()

    def objective(model: nn.Module, batch: Any) -> Any:
        seen.add(model(batch[0]).dtype)
        return CROSS_ENTROPY(model, batch)

    model, result = run(objective=objective, precision=precision, epochs=8, gradient_clip=5.0)
    assert seen == {dtype}
    assert result.history[-1]["train_loss"] < 0.3 * result.history[0]["train_loss"]
    assert result.history[-1]["val_accuracy"] == 1.0
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_figures_are_means_over_all_images() -> None:
    """With a rate of 0 the model stays as it was, so that one pass over the whole split gives the same."""
    _, result = run(optimizer={"name": "SGD", "lr": 0.0}, epochs=1)
    model = fresh().eval()
    for split, (images, labels) in {"train": toy(), "val": toy(48, seed=1)}.items():  # 48 images: 20, 20 and 8
        logits = model(images.permute(0, 3, 1, 2))
        assert result.history[0][f"{split}_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), abs=1e-6)
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        assert result.history[0][f"{split}_accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_each_epoch_trains_in_a_new_order_and_validates_in_evaluation_mode() -> None:
    orders: dict[bool, list[list[float]]] = {True: [], False: []}

    def objective(model: nn.Module, batch: Any) -> Any:
        assert model.training is torch.is_grad_enabled()
        orders[model.training].append(batch[0].float().mean(dim=(1, 2, 3)).tolist())
        return CROSS_ENTROPY(model, batch)

    run(objective=objective, batch_size=96)
    first, second = orders[True]
    assert first != second
    assert sorted(first) == sorted(second)
    assert orders[False][:3] == orders[False][3:]


@pytest.mark.parametrize("validation", [None, NOTHING])
def test_history_has_a_row_per_epoch(validation: Split | None) -> None:
    scheduler = {"name": "StepLR", "step_size": 1, "gamma": 0.5}
    _, result = run(epochs=3, validation=validation, scheduler=scheduler)
    keys = {"epoch", "learning_rate", "train_loss", "train_accuracy"}
    keys |= {"samples_per_second", "seconds", "seconds_waiting"}
    if validation is None:
        keys |= {"val_loss", "val_accuracy"}
    assert [set(row) for row in result.history] == [keys] * 3
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    assert [row["learning_rate"] for row in result.history] == pytest.approx([0.1, 0.05, 0.025])
    assert all(row["samples_per_second"] > 0 for row in result.history)
    assert all(0 < row["seconds_waiting"] < row["seconds"] for row in result.history)


def test_the_validation_loss_lowers_the_rate_of_plateaus() -> None:
    scheduler = {"name": "ReduceLROnPlateau", "patience": 0, "factor": 0.5}
    _, result = run(epochs=4, validation=WRONG, scheduler=scheduler, monitor="loss")
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    assert [row["learning_rate"] for row in result.history] == pytest.approx([0.1, 0.1, 0.05, 0.025])


@pytest.mark.parametrize("mode", [{}, {"mode": "max"}])
def test_plateaus_are_those_of_what_is_monitored_in_its_direction(mode: dict[str, str]) -> None:
    """The accuracy, which rises each epoch; as a loss it would lower the rate each time, and so would the loss here."""
    calls = [0]

    def objective(model: nn.Module, batch: Any) -> Any:
        loss, _ = CROSS_ENTROPY(model, batch)
        calls[0] += not model.training
        return loss + calls[0] * (not model.training), {"accuracy": torch.tensor(calls[0] / 100)}

    scheduler = {"name": "ReduceLROnPlateau", "patience": 0, "factor": 0.5, **mode}
    _, rising = run(epochs=4, objective=objective, monitor="accuracy", scheduler=scheduler)
    assert [row["learning_rate"] for row in rising.history] == [0.1] * 4


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "said"),
    [
        ({"momentum": 0.5}, {"name": "OneCycleLR"}, True),
        ({"momentum": 0.5}, {"name": "OneCycleLR", "cycle_momentum": False}, False),
        ({}, {"name": "CyclicLR", "base_lr": 0.01}, False),
        ({"momentum": 0.5}, {"name": "CosineAnnealingLR"}, False),
    ],
)
def test_a_momentum_that_a_schedule_moves_is_said(
    optimizer: dict[str, Any], scheduler: dict[str, Any], said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    run(epochs=1, optimizer={"name": "SGD", "lr": 0.1, **optimizer}, scheduler=scheduler)
    assert ("moves the momentum, too, whatever train.optimizer.momentum says" in caplog.text) is said


# ---- repeatability -------------------------------------------------------------------------------------------------


def test_a_seed_repeats_a_run_to_the_bit() -> None:
    def make() -> nn.Module:
        return classifier(dropout=0.3, norm="batch")

    (_, first), (_, again), (_, other) = run(make, seed=3), run(make, seed=3), run(make, seed=4)
    assert_same_weights(first.last, again.last)
    assert_same_weights(first.best, again.best)
    assert timeless(first.history) == timeless(again.history)
    assert timeless(first.history) != timeless(other.history)
    assert not torch.equal(first.last["network.1.weight"], other.last["network.1.weight"])


def convolutional() -> nn.Module:
    network = build_network("cnn", {"shape": (1, 4, 4), "outputs": 3}, {"width": 4, "hidden": 8, "dropout": 0.2})
    return NormalizedImages(network, [0.5], [0.25])


@pytest.mark.parametrize("settings", [{}, {"optimizer": {"name": "Muon", "lr": 0.05}, "lookahead": {"every": 2}}])
def test_kept_memory_changes_no_bit(settings: dict[str, Any]) -> None:
    (_, kept), (_, free) = (run(convolutional, keep_memory=keep, **settings) for keep in (True, False))
    assert_same_weights(kept.last, free.last)
    assert timeless(kept.history) == timeless(free.history)


def test_threads_are_those_asked_for_while_it_trains() -> None:
    before, seen = torch.get_num_threads(), set()

    def objective(model: nn.Module, batch: Any) -> Any:
        seen.add(torch.get_num_threads())
        return CROSS_ENTROPY(model, batch)

    run(objective=objective, threads=before + 1)
    assert seen == {before + 1}
    with pytest.raises(InputError):
        run(objective=nan_at(1)[0], threads=before + 1)
    assert torch.get_num_threads() == before


@pytest.mark.long
@pytest.mark.usefixtures("inductor")
def test_a_compiled_network_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[nn.Module] = []
    compile_ = loop.compile_network
    monkeypatch.setattr(loop, "compile_network", lambda *given: calls.append(compile_(*given)) or calls[-1])
    settings: dict[str, Any] = {"epochs": 2, "ema": 0.5}
    (model, compiled), (_, eager) = (run(linear_without_bias, compile=choice, **settings) for choice in (True, False))
    assert len(calls) == 1
    assert compiled.last.keys() == eager.last.keys() == model.state_dict().keys()
    assert_same_weights(compiled.last, eager.last, tolerance=1e-5)
    for ours, theirs in zip(timeless(compiled.history), timeless(eager.history), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


# ---- groups and lookahead ------------------------------------------------------------------------------------------


def test_a_group_learns_for_its_epochs() -> None:
    """A run of 3 epochs that freezes a layer after 1: the layer is as after a run of 1 epoch."""
    optimizer: dict[str, Any] = {"name": "SGD", "lr": 0.1, "momentum": 0.9}
    grouped = {**optimizer, "groups": [{"parameters": ["network.1.*"], "epochs": 1, "lr": 0.2}]}
    _, short = run(epochs=1, optimizer=grouped)
    _, long = run(epochs=3, optimizer=grouped)
    _, free = run(epochs=3, optimizer=optimizer)
    for name in ("network.1.weight", "network.1.bias"):
        assert torch.equal(long.last[name], short.last[name])
        assert not torch.equal(long.last[name], free.last[name])
    assert not torch.equal(long.last["network.3.weight"], short.last["network.3.weight"])
    assert long.history[-1]["train_loss"] < long.history[0]["train_loss"]


def test_a_frozen_layer_moves_neither_by_lookahead_nor_by_decay() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def objective(model: nn.Module, batch: Any) -> Any:
        if torch.is_grad_enabled():
            network: Any = model.network
            seen.append((network[1].weight.detach().clone(), network[3].weight.detach().clone()))
        return CROSS_ENTROPY(model, batch)

    groups = [{"parameters": ["network.1.*"], "epochs": 1}]
    optimizer = {"name": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "groups": groups}
    _, result = run(epochs=3, objective=objective, optimizer=optimizer, lookahead={"every": 5})
    frozen = seen[6][0]  # at the first of the 6 steps of epoch 2
    assert not torch.equal(seen[5][0], frozen)
    assert all(torch.equal(first, frozen) for first, _ in seen[6:])
    assert torch.equal(result.last["network.1.weight"], frozen)
    assert not torch.equal(seen[6][1], seen[-1][1])


def test_a_group_that_no_parameter_fits_is_said_before_the_first_step() -> None:
    calls = nan_at(0)
    with pytest.raises(
        InputError, match=r"^train\.optimizer\.groups: nothing\.\* fits no parameter that is left of net"
    ):
        run(objective=calls[0], optimizer={"name": "SGD", "groups": [{"parameters": ["nothing.*"]}]})
    assert calls[1] == [0]


def test_lookahead_without_a_share_changes_nothing_but_the_last_steps() -> None:
    """With decay 0 slow weights are the fast ones; a run of 12 steps ends with a meeting every 4, but not every 5."""
    plain, followed = run()[1], run(lookahead={"every": 4, "decay": 0.0})[1]
    assert_same_weights(followed.last, plain.last)
    _, cut = run(lookahead={"every": 5, "decay": 0.0})
    assert not torch.equal(cut.last["network.1.weight"], plain.last["network.1.weight"])


def test_lookahead_counts_optimiser_steps_and_not_batches() -> None:
    settings: dict[str, Any] = {"lookahead": {"every": 3, "decay": 0.5, "ramp": 1.0}}
    _, halves = run(batch_size=8, accumulate=2, **settings)
    _, whole = run(batch_size=16, **settings)
    assert_same_weights(halves.last, whole.last, tolerance=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_muon_with_groups_and_lookahead_learns(precision: str) -> None:
    groups = [{"parameters": ["*.bias"], "lr": 0.1}, {"parameters": ["network.3.*"], "orthogonalize": False}]
    optimizer = {"name": "Muon", "lr": 0.1, "momentum": 0.6, "normalize": True, "ns_steps": 3, "groups": groups}
    scheduler = {"name": "LinearLR", "start_factor": 1.0, "end_factor": 0.0}
    settings: dict[str, Any] = {"optimizer": optimizer, "scheduler": scheduler, "gradient_clip": 5.0}
    _, result = run(epochs=8, precision=precision, warmup_epochs=1.0, lookahead={"every": 3, "ramp": 3.0}, **settings)
    assert result.history[-1]["train_loss"] < 0.3 * result.history[0]["train_loss"]
    assert result.history[-1]["val_accuracy"] == 1.0


# ---- gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalties", [{}, {"l1": 0.01, "l2": 0.1}])
def test_two_accumulated_batches_are_one_of_twice_the_size(penalties: dict[str, float]) -> None:
    _, halves = run(batch_size=8, accumulate=2, **penalties)
    _, whole = run(batch_size=16, **penalties)
    assert_same_weights(halves.last, whole.last, tolerance=1e-6)
    _, not_accumulated = run(batch_size=8, **penalties)
    assert (halves.last["network.1.weight"] - not_accumulated.last["network.1.weight"]).abs().max() > 1e-3


def test_a_last_group_that_is_not_full_is_a_step_of_its_own() -> None:
    _, grouped = run(data=toy(24), batch_size=8, accumulate=4, epochs=3)
    _, whole = run(data=toy(24), batch_size=24, epochs=3)
    assert_same_weights(grouped.last, whole.last, tolerance=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_clipping_bounds_the_step(precision: str) -> None:
    one_step = {"epochs": 1, "batch_size": 96, "optimizer": {"name": "SGD", "lr": 1.0}, "precision": precision}
    start = parameters_of(fresh())
    free = (parameters_of(run(**one_step)[0]) - start).norm().item()
    clipped = (parameters_of(run(**one_step, gradient_clip=0.01)[0]) - start).norm().item()
    loose = (parameters_of(run(**one_step, gradient_clip=1000.0)[0]) - start).norm().item()
    assert free > 0.1
    assert clipped == pytest.approx(0.01, rel=1e-3)
    assert loose == pytest.approx(free, rel=1e-6)


def test_penalties_pull_on_weights_and_leave_the_rest() -> None:
    model = fresh(lambda: classifier(norm="batch"))
    total = passes.penalty(model, l1=0.3, l2=0.2)
    assert isinstance(total, Tensor)
    weights = {name: value for name, value in model.named_parameters() if value.ndim > 1}
    assert weights.keys() == {"network.1.weight", "network.4.weight"}
    by_hand = sum(0.3 * w.abs().sum().item() + 0.1 * w.square().sum().item() for w in weights.values())
    assert total.item() == pytest.approx(by_hand, rel=1e-6)
    total.backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        if name in weights:
            torch.testing.assert_close(parameter.grad, 0.3 * parameter.detach().sign() + 0.2 * parameter.detach())
        else:
            assert parameter.grad is None
    assert passes.penalty(model, 0.0, 0.0) == 0.0


def test_l1_moves_a_step_by_rate_times_sign() -> None:
    one_step = {"epochs": 1, "batch_size": 96, "optimizer": {"name": "SGD", "lr": 0.1}}
    start = parameters_of(fresh(linear_without_bias))
    difference = parameters_of(run(linear_without_bias, **one_step, l1=0.5)[0]) - parameters_of(
        run(linear_without_bias, **one_step)[0]
    )
    torch.testing.assert_close(difference, -0.1 * 0.5 * start.sign(), rtol=0, atol=1e-6)


def test_l2_is_weight_decay_where_all_is_weights() -> None:
    sgd = {"name": "SGD", "lr": 0.1, "momentum": 0.9}
    _, penalised = run(linear_without_bias, optimizer=sgd, l2=0.2)
    _, decayed = run(linear_without_bias, optimizer={**sgd, "weight_decay": 0.2})
    _, free = run(linear_without_bias, optimizer=sgd)
    assert_same_weights(penalised.last, decayed.last, tolerance=1e-6)
    assert decayed.last["network.1.weight"].norm() < 0.8 * free.last["network.1.weight"].norm()


def test_penalties_are_not_part_of_the_reported_loss() -> None:
    still = {"optimizer": {"name": "SGD", "lr": 0.0}, "epochs": 1}
    assert timeless(run(**still, l1=1.0, l2=1.0)[1].history) == timeless(run(**still)[1].history)


# ---- averaging -----------------------------------------------------------------------------------------------------


def test_ema_is_the_average_made_by_hand() -> None:
    before_each_step: list[Tensor] = []

    def objective(model: nn.Module, batch: Any) -> Any:
        if torch.is_grad_enabled():
            before_each_step.append(parameters_of(model))
        return CROSS_ENTROPY(model, batch)

    model, result = run(objective=objective, ema=0.4, epochs=2)
    after_each_step = [*before_each_step[1:], parameters_of(model)]
    assert len(after_each_step) == 12
    average = after_each_step[0]
    for taken, weights in enumerate(after_each_step[1:], start=1):
        decay = min(0.4, (1 + taken) / (10 + taken))  # which warms up for five steps
        average = decay * average + (1 - decay) * weights
    averaged = fresh()
    averaged.load_state_dict(result.last)
    torch.testing.assert_close(parameters_of(averaged), average, rtol=0, atol=1e-6)
    assert (average - after_each_step[-1]).abs().max() > 1e-3

    images, labels = toy(48, seed=1)
    loss = F.cross_entropy(averaged.eval()(images.permute(0, 3, 1, 2)), labels)
    assert result.history[-1]["val_loss"] == pytest.approx(loss.item(), abs=1e-6)  # it is the average that is judged


def test_ema_averages_batch_norm_and_keeps_the_normalisation() -> None:
    model, result = run(lambda: classifier(norm="batch"), ema=0.9)
    raw = model.state_dict()
    assert result.last.keys() == raw.keys()
    assert torch.equal(result.last["mean"], raw["mean"])
    assert torch.equal(result.last["std"], raw["std"])
    assert not torch.equal(result.last["network.2.running_mean"], raw["network.2.running_mean"])


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("positions", torch.arange(64))


def test_ema_leaves_whole_numbers_as_they_are() -> None:
    model = Positions()
    averaged = average(model, 0.99)
    assert averaged is not None
    for step in range(50):
        model.positions[0] = step  # type: ignore[operator]
        averaged.update_parameters(model)
    assert averaged.module.positions.tolist() == [49, *range(1, 64)]


def test_a_slow_average_keeps_up_in_a_short_run(caplog: pytest.LogCaptureFixture) -> None:
    _, result = run(epochs=8, ema=0.9999)
    assert result.history[-1]["val_accuracy"] == 1.0
    assert "far worse" not in caplog.text


@pytest.mark.parametrize("validation", [None, NOTHING])
def test_kept_weights_that_have_lost_what_was_learnt_are_said(
    validation: Split | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Slow weights that hardly move; with validation data an epoch before they meet for the last time is the best."""
    _, result = run(epochs=8, validation=validation, lookahead={"every": 100, "decay": 0.99})
    assert result.history[-1]["train_accuracy"] > 0.9
    assert ("are far worse than the trained ones" in caplog.text) is (validation is NOTHING)


# ---- what a network cannot have ------------------------------------------------------------------------------------


def test_one_sample_at_a_time_is_too_few_for_batch_norm() -> None:
    with pytest.raises(InputError, match=r"^train\.batch_size: batch norm cannot train on one sample at a time"):
        run(lambda: classifier(norm="batch"), batch_size=1)


class Rows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.head = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Any:
        return self.head(self.recurrent(images[:, 0].float() / 255)[0][:, -1])


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_precision_that_the_cpu_has_no_kernel_for_is_said(precision: str) -> None:
    try:
        with torch.autocast("cpu", {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]):
            nn.LSTM(4, 8)(torch.ones(2, 2, 4))
    except RuntimeError:
        with pytest.raises(InputError, match=r"^train\.precision: a layer .* cannot .* Take train\.precision=fp32"):
            run(Rows, precision=precision)
    else:
        assert run(Rows, precision=precision)[1].history


# ---- the best epoch and early stopping -----------------------------------------------------------------------------


class Parabola(nn.Module):
    """One weight w from 0 and the loss (w - 1)². A step of rate 0.75 leads to 1.5 - w / 2: 1.5, 0.75, 1.125, 0.9375."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    @staticmethod
    def objective(model: nn.Module, batch: Any) -> Any:
        w: Any = model.w
        return (w - 1).square(), {"accuracy": w.detach() / 10}


PARABOLA: dict[str, Any] = {
    "make": Parabola,
    "objective": Parabola.objective,
    "batch_size": 96,
    "optimizer": {"name": "SGD", "lr": 0.75},
}


@pytest.mark.parametrize(
    ("settings", "best_epoch", "best", "last", "epochs"),
    [
        ({"monitor": "accuracy"}, 1, 1.5, 0.9375, 4),
        ({"monitor": "loss"}, 4, 0.9375, 0.9375, 4),
        ({"monitor": "accuracy", "early_stopping": {"patience": 1}}, 1, 1.5, 0.75, 2),
        ({"monitor": "accuracy", "early_stopping": {"patience": 2}}, 1, 1.5, 1.125, 3),
        ({"monitor": "accuracy", "early_stopping": {"patience": 4}}, 1, 1.5, 0.9375, 4),
        ({"monitor": "loss", "early_stopping": {"patience": 1}}, 4, 0.9375, 0.9375, 4),
        # losses 0.25, 0.0625, 0.0156: too small a gain stops, yet the best is the best
        ({"monitor": "loss", "early_stopping": {"patience": 1, "min_delta": 0.1}}, 3, 1.125, 1.125, 3),
    ],
)
def test_the_best_epoch_and_when_to_stop(
    settings: dict[str, Any], best_epoch: int, best: float, last: float, epochs: int
) -> None:
    _, result = run(**PARABOLA, epochs=4, **settings)
    assert result.best_epoch == best_epoch
    assert result.best["w"].item() == pytest.approx(best)
    assert result.last["w"].item() == pytest.approx(last)
    assert len(result.history) == epochs


def test_early_stopping_keeps_the_weights_of_the_best_epoch() -> None:
    _, result = run(epochs=20, validation=WRONG, monitor="loss", early_stopping={"patience": 3})
    _, one_epoch = run(epochs=1, validation=WRONG)
    assert len(result.history) == 4
    assert result.best_epoch == 1
    assert_same_weights(result.best, one_epoch.last)


def test_without_validation_the_last_epoch_is_the_best() -> None:
    model, result = run(validation=NOTHING, epochs=3)
    assert result.best_epoch == 3
    assert_same_weights(result.best, result.last)
    assert_same_weights(result.last, snapshot(model))


def test_early_stopping_needs_validation() -> None:
    with pytest.raises(InputError, match=r"train\.early_stopping needs a validation split"):
        run(validation=NOTHING, early_stopping={"patience": 1})


@pytest.mark.parametrize(
    ("figures", "patience", "min_delta", "stops"),
    [
        ([0.5], 1, 0.0, False),
        ([0.5, 0.5], 1, 0.0, True),
        ([0.5, 0.6], 1, 0.0, False),
        ([0.5, 0.6, 0.55], 2, 0.0, False),
        ([0.5, 0.6, 0.55, 0.6], 2, 0.0, True),
        ([0.5, 0.4, 0.6, 0.55], 2, 0.0, False),
        ([0.5, 0.55, 0.62], 2, 0.1, False),  # small gains add up
        ([0.5, 0.55, 0.59], 2, 0.1, True),
    ],
)
@pytest.mark.parametrize("monitor", ["accuracy", "loss"])
def test_patience(figures: list[float], patience: int, min_delta: float, stops: bool, monitor: str) -> None:
    config = ClassificationTrainConfig.model_validate(
        {
            "epochs": 9,
            "optimizer": {"name": "SGD"},
            "monitor": monitor,
            "early_stopping": {"patience": patience, "min_delta": min_delta},
        }
    )
    sign = 1 if monitor == "accuracy" else -1
    assert should_stop([{f"val_{monitor}": sign * figure} for figure in figures], config) is stops


def test_an_equal_figure_is_no_improvement() -> None:
    row = {"val_accuracy": 0.5, "val_loss": 0.5}
    assert improves(row, None, "loss")
    assert not improves(row, row, "loss")
    assert not improves(row, row, "accuracy")


def test_of_equal_figures_the_loss_decides() -> None:
    better, worse = ({"val_accuracy": 0.5, "val_loss": loss} for loss in (0.1, 0.4))
    assert improves(better, worse, "accuracy")
    assert not improves(worse, better, "accuracy")
    assert not improves({"val_accuracy": 0.4, "val_loss": 0.01}, worse, "accuracy")
    config = {"epochs": 9, "optimizer": {"name": "SGD"}, "early_stopping": {"patience": 1}}
    assert should_stop([worse, better], ClassificationTrainConfig.model_validate(config))  # the accuracy stays


# ---- diverging -----------------------------------------------------------------------------------------------------


def nan_at(call: int, training: bool = True) -> tuple[Objective, list[int]]:
    """The cross entropy, but NaN at this call (from 1) in training or validation; and the calls there so far."""
    calls = [0]

    def objective(model: nn.Module, batch: Any) -> Any:
        loss, figures = CROSS_ENTROPY(model, batch)
        if torch.is_grad_enabled() is training:
            calls[0] += 1
            if calls[0] == call:
                loss = loss * torch.nan
        return loss, figures

    return objective, calls


@pytest.mark.parametrize("objective", ["CrossEntropyLoss", "MSELoss"])
def test_a_rate_far_too_high_is_an_error_that_helps(objective: str) -> None:
    pattern = (
        r"the loss became (nan|inf) at step \d of 6 in epoch [1-5], lr 1\.00e\+30\. Try a lower train\.optimizer\.lr"
    )
    with pytest.raises(InputError, match=pattern):
        run(
            lambda: classifier(hidden=[16, 16]),
            objective=classification_objective(objective, {}),
            optimizer={"name": "SGD", "lr": 1e30},
            epochs=5,
        )


def test_the_first_step_without_a_finite_loss_is_named() -> None:
    with pytest.raises(InputError, match=r"became nan at step 3 of 6 in epoch 2, lr 1\.00e-01"):
        run(objective=nan_at(6 + 3)[0])


def test_a_run_that_is_looked_at_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "GLANCE", 0.0)
    objective, calls = nan_at(2)
    with pytest.raises(InputError, match="at step 2 of 6 in epoch 1"):
        run(objective=objective)
    assert calls == [2]


def test_a_validation_loss_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(InputError, match="became nan at step 2 of 3 of the validation data in epoch 2"):
        run(objective=nan_at(3 + 2, training=False)[0])


def test_weights_that_the_last_step_spoils_are_an_error() -> None:
    with pytest.raises(InputError, match="is no longer finite after epoch 1"):
        run(epochs=1, batch_size=96, validation=NOTHING, optimizer={"name": "SGD", "lr": 1e38, "weight_decay": 1e10})


def test_no_bar_is_left_running(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "torchloom")
    console = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr(rich, "_console", console)
    monkeypatch.setattr(loop, "GLANCE", 0.0)
    threads = set(threading.enumerate())
    run()
    with pytest.raises(InputError):
        run(objective=nan_at(9)[0])
    for thread in set(threading.enumerate()) - threads:  # rich tells its thread to stop without waiting for it
        thread.join(timeout=5)
        assert not thread.is_alive()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "epoch 1/2" in shown
    assert "samples/s" in shown
    assert "validation 1" in shown
    # the cursor is hidden and shown again by each of four epochs and of three validations
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 7


class Watch:
    """A clock that only what is timed moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def passes(self, seconds: float, things: Iterable[Any]) -> Iterator[Any]:
        for thing in things:
            self.now += seconds
            yield thing


def test_rates_and_waiting_are_those_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four batches of 10 samples, for each of which 2 s are waited and 3 s computed."""
    watch = Watch()
    monkeypatch.setattr(loop, "time", watch)

    class Slow(list[int]):
        def __iter__(self) -> Iterator[int]:
            return watch.passes(2.0, super().__iter__())

    running = Running(4, torch.device("cpu"))
    for _ in running.timed(Slow([0, 1, 2, 3])):  # type: ignore[arg-type]
        watch.now += 3.0
        running.add(10, torch.tensor(0.5), {})
    assert (running.waited, running.seconds(), running.rate()) == (8.0, 20.0, 2.0)


def test_the_history_has_what_the_clock_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that is a second further each time that it is looked at."""
    seconds = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))
    monkeypatch.setattr(loop, "GLANCE", float("inf"))
    _, result = run(epochs=1)
    (row,) = result.history
    assert row["seconds_waiting"] == 6.0  # a second for each of the batches
    # two looks for each of six batches, and one whether it is time for the figures; validation is not training
    assert 96 / row["seconds"] < row["samples_per_second"] < 96 / (3 * 6)


@pytest.mark.parametrize(
    ("history", "steps", "left"),
    [
        ([], 2, 50.0),  # 10 s for half of the first of three epochs: 20 s for each
        ([{"seconds": 8.0}], 2, 12.0),  # as long as the epoch before
        ([{"seconds": 80.0}, {"seconds": 8.0}], 4, 0.0),
    ],
)
def test_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, history: list[dict[str, float]], steps: int, left: float
) -> None:
    watch = Watch()
    monkeypatch.setattr(loop, "time", watch)
    running = Running(4, torch.device("cpu"))
    watch.now, running.steps = 10.0, steps
    assert loop.seconds_left(running, history, epochs=3) == left
    assert loop.describe(running, torch.optim.SGD([torch.zeros(1)], 0.1), torch.device("cpu"), left).endswith(
        f"all epochs 0:{left:02.0f}"
    )


def test_a_log_has_at_most_a_hundred_lines_of_epochs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "torchloom")
    run(epochs=201, data=toy(16))
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("epoch ")]
    assert [line.partition("/")[0] for line in lines] == [f"epoch {epoch}" for epoch in range(3, 202, 3)]


def test_after_a_minute_of_silence_an_epoch_has_a_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "torchloom")
    monkeypatch.setattr(loop.CLOCK, "line_is_due", lambda: True)
    run(epochs=101, data=toy(16))
    assert sum(record.getMessage().startswith("epoch ") for record in caplog.records) == 101


def test_one_plain_line_per_epoch(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "torchloom")
    run(epochs=2)
    start, *lines = [record.getMessage() for record in caplog.records]
    assert start == "training on cpu in torch.float32: 2 epochs of 6 steps"
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert "val_accuracy" in lines[0]
