"""A training that is interrupted and goes on ends with the very bits of one that was not."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import DataLoader

from torchloom.config import AugmentConfig
from torchloom.config.checks import differences
from torchloom.data.batches import Batches, ImageBatches, StreamedBatches
from torchloom.errors import InputError
from torchloom.modalities.modules import NormalizedImages
from torchloom.problems.classification import classification_objective
from torchloom.problems.classification.config import ClassificationTrainConfig
from torchloom.system.devices import seed_everything
from torchloom.training.loop import TIMES, Outcome, fit
from torchloom.training.optimizers import optimizer_names, scheduler_names
from torchloom.training.state import TrainingStates

IMAGES = torch.randint(0, 256, (60, 8, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(60) % 3
IMAGES[torch.arange(60), LABELS] //= 4  # a dark row tells the class
STEPS = 5  # an epoch
SELDOM = {"save_minutes": 60.0}  # instead of after each step, where nothing will be cut any more


class PowerCut(Exception):  # noqa: N818
    """Nothing is asked any more."""


def convolutional() -> nn.Module:
    """A model with dropout, batch norm and kernels, which are laid out with the channels last."""
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(6, 4, 3), nn.Flatten()]
    return NormalizedImages(nn.Sequential(*layers, nn.Linear(64, 3)), [0.5] * 3, [0.25] * 3)


def train(
    states: TrainingStates | None,
    at_step: Callable[[int], None] = lambda step: None,
    change: dict[str, Any] | None = None,
    streamed: bool = False,
    validation: int = 20,
    **settings: Any,
) -> Outcome:
    """Train a fresh model; `at_step` is called with the number of each forward pass of the training."""
    defaults = {"epochs": 4, "batch_size": 12, "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9}}
    defaults |= {"device": "cpu", "precision": "fp32", "seed": 3, "save_minutes": 1e-6}
    config = ClassificationTrainConfig.model_validate({**defaults, **settings})
    plain = classification_objective("CrossEntropyLoss", {})
    seen = 0

    def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal seen
        if model.training:
            at_step(seen)
            seen += 1
        return plain(model, batch)

    def open_loader(split: str, device: torch.device) -> DataLoader[Any]:
        if split == "validation":
            data = ImageBatches(IMAGES[:validation], LABELS[:validation])
            return DataLoader(data, sampler=Batches(validation, 7), batch_size=None, generator=torch.Generator())
        augment = AugmentConfig.model_validate({"crop_padding": 1, "flip": True, "cutout": 2, **(change or {})})
        data = ImageBatches(IMAGES, LABELS, augment, config.seed, 3)
        kind = StreamedBatches if streamed else DataLoader
        return kind(data, sampler=Batches(60, 12, config.seed), batch_size=None, generator=torch.Generator())

    seed_everything(config.seed)
    return fit(convolutional(), open_loader, config, objective, states, {"train": config.recipe()})


def cut(step: int) -> Callable[[int], None]:
    def at_step(number: int) -> None:
        if number == step:
            raise PowerCut

    return at_step


def assert_equal(one: Outcome, other: Outcome) -> None:
    assert one.best_epoch == other.best_epoch
    for mine, theirs in ((one.best, other.best), (one.last, other.last)):
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert torch.equal(mine[name], theirs[name]), name
    timeless = [[{k: v for k, v in row.items() if k not in TIMES} for row in fit.history] for fit in (one, other)]
    assert timeless[0] == timeless[1]


def uninterrupted(**settings: Any) -> Outcome:
    """What each kind of training ends with, trained once."""
    return _uninterrupted(json.dumps(settings))


@cache
def _uninterrupted(settings: str) -> Outcome:
    return train(None, **json.loads(settings))


def assert_resumes_exactly(states: TrainingStates, *steps: int, **settings: Any) -> None:
    """Cut at the first of `steps`, and again when it has gone on for each of the others."""
    left = len(uninterrupted(**settings).history) * STEPS
    lost = settings.get("accumulate", 1) - 1  # batches of a step that was not done
    for step in steps:
        with pytest.raises(PowerCut):
            train(states, cut(step), **settings)
        left -= step - lost
    taken: list[int] = []
    assert_equal(train(states, taken.append, **settings, **SELDOM), uninterrupted(**settings))
    assert 0 < len(taken) <= left  # it never began anew


@pytest.fixture
def states(tmp_path: Path) -> TrainingStates:
    return TrainingStates(tmp_path / "states", "lenet")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The states after each step but the last."""
    states = TrainingStates(tmp_path_factory.mktemp("kept"))
    with pytest.raises(PowerCut):
        train(states, cut(4 * STEPS - 1), keep_states=100)
    return states.files()


@pytest.mark.parametrize("step", range(1, 4 * STEPS))
def test_at_every_step(states: TrainingStates, kept: list[Path], step: int) -> None:
    assert len(kept) == 4 * STEPS - 1
    states.folder.mkdir()
    shutil.copy(kept[step - 1], states.folder)
    taken: list[int] = []
    assert_equal(train(states, taken.append, **SELDOM), uninterrupted())
    assert len(taken) == 4 * STEPS - step


@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimizer(states: TrainingStates, name: str) -> None:
    assert_resumes_exactly(states, 8, optimizer={"name": name, "lr": 0.01})


LENGTHS = {
    "ConstantLR": {"factor": 0.5, "total_iters": 2},
    "StepLR": {"step_size": 1},
    "MultiStepLR": {"milestones": [1, 2]},
    "ExponentialLR": {"gamma": 0.7},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 2, "interval": "step"},
    "PolynomialLR": {"power": 2.0},
    "ReduceLROnPlateau": {"patience": 0, "factor": 0.5},
}


@pytest.mark.parametrize("name", scheduler_names())
def test_every_scheduler(states: TrainingStates, name: str) -> None:
    assert_resumes_exactly(states, 13, scheduler={"name": name, **LENGTHS.get(name, {})})


@pytest.mark.parametrize(
    "settings",
    [
        {"ema": 0.9},
        {"lookahead": {"every": 2, "ramp": 3.0}},
        {"warmup_epochs": 1.5, "scheduler": {"name": "CosineAnnealingLR"}},
        {"accumulate": 2, "gradient_clip": 0.5},
        {"optimizer": {"name": "Adam", "lr": 0.01, "groups": [{"parameters": ["*bias"], "epochs": 1, "lr": 0.1}]}},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"early_stopping": {"patience": 1}, "monitor": "loss"},
        {"validation": 0},
        {"change": {"mixup": 0.5, "cutmix": 0.5}},
        {"change": {"flip": "alternating", "policy": {"name": "RandAugment", "groups": 3}}},
        {"streamed": True},
        {"freeze": [{"parameters": ["network.0.*", "network.1.*"], "epochs": 2}]},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_every_option(states: TrainingStates, settings: dict[str, Any]) -> None:
    assert_resumes_exactly(states, 4, 3, 5, 4, **settings)


def test_again_and_again(states: TrainingStates) -> None:
    left = 4 * STEPS
    while left > 3:
        taken: list[int] = []
        with pytest.raises(PowerCut):
            train(states, lambda number, taken=taken: (cut(3)(number), taken.append(number)), ema=0.9)
        left -= len(taken)
    assert_equal(train(states, ema=0.9), uninterrupted(ema=0.9))


def test_a_state_is_saved_when_an_epoch_ends(states: TrainingStates) -> None:
    with pytest.raises(PowerCut):
        train(states, cut(2 * STEPS + 3), save_minutes=60.0)
    assert states.files()[0].name == "epoch-00001-step-000000000.safetensors"
    assert_equal(train(states, save_minutes=60.0), uninterrupted())


def test_the_newest_are_kept(states: TrainingStates) -> None:
    with pytest.raises(PowerCut):
        train(states, cut(STEPS + 3), keep_states=3)
    names = [path.name for path in states.files()]
    assert names == [f"epoch-00001-step-{step:09d}.safetensors" for step in (1, 2, 3)]
    assert {path.name for path in states.folder.iterdir()} == set(names)


@pytest.mark.parametrize("damage", ["cut off", "a bit flipped", "empty", "foreign"])
def test_a_damaged_state_falls_back_to_the_one_before(
    states: TrainingStates, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(PowerCut):
        train(states, cut(8))
    newest = states.files()[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) * 3 // 4] ^= 8
    contents = {"cut off": data[:-100], "a bit flipped": data, "empty": b"", "foreign": b"\x89PNG\r\n" * 100}
    newest.write_bytes(contents[damage])
    taken: list[int] = []
    assert_equal(train(states, taken.append), uninterrupted())
    assert len(taken) == 4 * STEPS - 7
    assert f"{newest}: damaged or not a file of ours" in caplog.text


def test_nothing_whole_is_left(states: TrainingStates, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(PowerCut):
        train(states, cut(8))
    for path in states.files():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"no state to go on from, but lenet\.train\.resume is must"):
        train(states, resume="must")
    assert_equal(train(states), uninterrupted())


# ---- a training that is over ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ema": 0.9},
        {"scheduler": {"name": "StepLR", "step_size": 2}, "warmup_epochs": 1.0},
        {"optimizer": {"name": "ScheduleFreeAdamW", "lr": 0.01}},
        {"swa": {"start": 2, "lr": 0.01}},
        {"freeze": [{"parameters": ["network.4.*"], "epochs": 4}]},
        {"validation": 0, "optimizer": {"name": "Lion", "lr": 0.001}},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_more_epochs_end_as_if_they_had_been_asked_for_at_first(
    states: TrainingStates, settings: dict[str, Any]
) -> None:
    train(states, keep_state=True, **SELDOM, **{**settings, "epochs": 3})
    assert states.files()[-1].name == "epoch-00003-step-000000000.safetensors"
    taken: list[int] = []
    longer = train(states, taken.append, **SELDOM, **{**settings, "epochs": 5})
    assert_equal(longer, uninterrupted(**{**settings, "epochs": 5}))
    assert len(taken) == 2 * STEPS
    assert longer.changes == ["from epoch 4 on, train.epochs: 3, now 5"]


def test_as_many_epochs_leave_nothing_to_do(states: TrainingStates) -> None:
    settings: dict[str, Any] = {"swa": {"start": 2}, "keep_state": True}
    train(states, **settings)
    taken: list[int] = []
    assert_equal(train(states, taken.append, **settings), uninterrupted(swa={"start": 2}))
    assert taken == []


@pytest.mark.parametrize(
    "settings",
    [{"scheduler": {"name": "CosineAnnealingLR"}}, {"lookahead": {}}, {"swa": {"start": 0.5}}],
    ids=lambda settings: "-".join(settings),
)
def test_what_hangs_on_the_length_needs_to_be_told(states: TrainingStates, settings: dict[str, Any]) -> None:
    train(states, keep_state=True, **settings)
    with pytest.raises(InputError, match=r"train\.epochs: 4, now 5"):
        train(states, **{**settings, "epochs": 5})
    assert len(train(states, resume="must", **{**settings, "epochs": 5}).history) == 5


def test_fewer_epochs_are_not_gone_on_with(states: TrainingStates) -> None:
    train(states, keep_state=True)
    with pytest.raises(InputError, match=r"^train\.epochs 3: the saved state is of epoch 4"):
        train(states, epochs=3)


# ---- another recipe ------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(states: TrainingStates) -> TrainingStates:
    with pytest.raises(PowerCut):
        train(states, cut(8))
    return states


def test_another_recipe_is_refused_and_the_state_stays(interrupted: TrainingStates) -> None:
    files = {path: path.read_bytes() for path in interrupted.files()}
    with pytest.raises(InputError) as caught:
        train(interrupted, epochs=5, optimizer={"name": "SGD", "lr": 0.1, "momentum": 0.9})
    lines = caught.value.message.splitlines()
    assert lines[0].startswith(f"{interrupted.files()[-1]}: ")
    assert lines[1:3] == ["  train.epochs: 4, now 5", "  train.optimizer.lr: 0.05, now 0.1"]
    for word in ("--params lenet.train.resume=never;", "=must", "undo"):
        assert word in lines[3]
    assert {path: path.read_bytes() for path in interrupted.files()} == files


def test_the_catalog_knows_whose_state_it_is(project: Path) -> None:
    bootstrap_project(project)
    with KedroSession.create(project, env="sample") as session:
        states = session.load_context().catalog.load("mnist_mlp.training_states")
    assert states.resume == "mnist_mlp.train.resume"


def test_never_starts_anew(interrupted: TrainingStates) -> None:
    taken: list[int] = []
    assert_equal(train(interrupted, taken.append, resume="never"), uninterrupted())
    assert len(taken) == 4 * STEPS


def test_must_goes_on_under_the_new_recipe(interrupted: TrainingStates, caplog: pytest.LogCaptureFixture) -> None:
    taken: list[int] = []
    longer = train(interrupted, taken.append, resume="must", epochs=6)
    assert len(longer.history) == 6
    assert len(taken) == 6 * STEPS - 8
    assert "although it differs: train.epochs: 4, now 6" in caplog.text
    assert longer.history[0]["train_loss"] == uninterrupted().history[0]["train_loss"]


RATES = {
    "cosine": {"scheduler": {"name": "CosineAnnealingLR"}},
    "one cycle": {"scheduler": {"name": "OneCycleLR", "max_lr": 0.2}},
    "warm-up": {"scheduler": {"name": "StepLR", "step_size": 2}, "warmup_epochs": 3.0},
    "none": {},
}


@pytest.mark.parametrize("before", RATES)
def test_must_takes_the_new_schedule_at_the_old_place(states: TrainingStates, tmp_path: Path, before: str) -> None:
    with pytest.raises(PowerCut):
        train(states, cut(8), **RATES[before])
    for now in RATES:
        new: dict[str, Any] = {"epochs": 5, "optimizer": {"name": "SGD", "lr": 0.01, "momentum": 0.9}, **RATES[now]}
        shutil.copytree(states.folder, tmp_path / now)
        gone_on = train(TrainingStates(tmp_path / now), resume="must", save_minutes=60.0, **new)
        rates = [[row["learning_rate"] for row in fit.history[2:]] for fit in (gone_on, uninterrupted(**new))]
        assert len(rates[0]) == 3
        assert rates[0] == rates[1], now


def test_the_outcome_tells_what_was_changed_on_the_way(states: TrainingStates) -> None:
    with pytest.raises(PowerCut):
        train(states, cut(13))  # in the third of 4 epochs, of 5 steps each
    with pytest.raises(PowerCut):
        train(states, cut(4), resume="must", l2=0.5)
    changes = train(states, resume="must", l2=0.5, l1=0.25).changes
    assert changes == ["from epoch 3 on, train.l2: 0.0, now 0.5", "from epoch 4 on, train.l1: 0.0, now 0.25"]
    assert train(None).changes == []


def test_must_takes_new_arguments_and_old_moments(states: TrainingStates) -> None:
    old = {"name": "AdamW", "lr": 0.01, "groups": [{"parameters": ["*bias"], "lr": 0.02}]}
    with pytest.raises(PowerCut):
        train(states, cut(8), optimizer=old)
    new = {"name": "AdamW", "lr": 0.003, "betas": [0.8, 0.9], "weight_decay": 0.5, "eps": 1e-6}
    new["groups"] = [{"parameters": ["*bias"], "lr": 0.004}]
    seen: list[tuple[list[Any], float, float]] = []

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        groups = optimizer.param_groups
        moments = next(iter(optimizer.state.values()))
        found = [(group["lr"], group["betas"], group["weight_decay"], group["eps"]) for group in groups]
        seen.append((found, float(moments["step"]), float(moments["exp_avg_sq"].sum())))

    hook = register_optimizer_step_pre_hook(look)
    try:
        with pytest.raises(PowerCut):
            train(states, cut(1), resume="must", optimizer=new)
    finally:
        hook.remove()
    arguments, steps, squares = seen[-1]  # the first is a step on trial
    assert arguments == [(0.003, (0.8, 0.9), 0.5, 1e-6), (0.004, (0.8, 0.9), 0.5, 1e-6)]
    assert steps == 8
    assert squares > 0


@pytest.mark.parametrize(
    ("before", "now", "key"),
    [
        ({}, {"optimizer": {"name": "AdamW"}}, "train.optimizer.name: 'SGD', now 'AdamW'"),
        ({}, {"optimizer": {"name": "SGD", "groups": [{"parameters": ["*bias"]}]}}, "train.optimizer.groups: [], now"),
        (
            {"optimizer": {"name": "SGD", "groups": [{"parameters": ["*bias"]}]}},
            {"optimizer": {"name": "SGD", "groups": [{"parameters": ["*weight"]}]}},
            "train.optimizer.groups.0.parameters: ['*bias'], now ['*weight']",
        ),
        (
            {"optimizer": {"name": "AdamW"}},
            {"optimizer": {"name": "AdamW", "amsgrad": True}},
            "train.optimizer.amsgrad: None, now True",
        ),
        ({}, {"ema": 0.9}, "train.ema: None, now 0.9"),
        ({}, {"lookahead": {}}, "train.lookahead: None, now {"),
        ({}, {"loss": {"name": "CrossEntropyLoss", "label_smoothing": 0.1}}, "train.loss.label_smoothing: None, now"),
        ({}, {"monitor": "loss"}, "train.monitor: 'accuracy', now 'loss'"),
        ({}, {"freeze": ["network.0.*"]}, "train.freeze: [], now ['network.0.*']"),
        ({}, {"batch_size": 6}, "train.batch_size: 12, now 6"),
        ({}, {"epochs": 1}, "train.epochs 1: the saved state is of epoch 2"),
    ],
    ids=lambda value: value.partition(":")[0] if isinstance(value, str) else "",
)
def test_must_names_what_no_training_goes_on_with(
    states: TrainingStates, before: dict[str, Any], now: dict[str, Any], key: str
) -> None:
    with pytest.raises(PowerCut):
        train(states, cut(8), **before)
    files = states.files()
    with pytest.raises(InputError) as caught:
        train(states, cut(0), **{**before, "resume": "must", **now})
    assert key in caught.value.message
    assert "--params lenet.train.resume=never" in caught.value.message
    assert states.files() == files


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"precision": "fp32"}, {"precision": "fp16"}),
        ({"ema": 0.5}, {"ema": None}),
        ({"lookahead": {"every": 2}}, {"lookahead": {"every": 3, "decay": 0.9}}),
        ({}, {"optimizer": {"name": "SGD", "lr": 0.01}}),  # without the momentum that was kept
        ({"optimizer": {"name": "SGD", "lr": 0.01}}, {}),  # with momentum that begins now
    ],
)
def test_must_goes_on_where_it_can(states: TrainingStates, before: dict[str, Any], now: dict[str, Any]) -> None:
    with pytest.raises(PowerCut):
        train(states, cut(8), **before)
    taken: list[int] = []
    assert len(train(states, taken.append, **{**before, "resume": "must", **now}).history) == 4
    assert len(taken) == 4 * STEPS - 8


@pytest.mark.parametrize("settings", [{"keep_states": 5}, {"save_minutes": 1.0}, {"keep_memory": False}])
def test_what_does_not_change_the_result_may_change(interrupted: TrainingStates, settings: dict[str, Any]) -> None:
    assert_equal(train(interrupted, **settings), uninterrupted())


def test_differences_name_the_key() -> None:
    before = {"a": {"b": 1, "c": [1, 2]}, "gone": {"x": 1}}
    assert list(differences(before, {"a": {"b": 1, "c": [1, 3]}, "new": None, "d": 0})) == [
        "a.c: [1, 2], now [1, 3]",
        "gone: {'x': 1}, now None",
        "d: None, now 0",
    ]
    assert list(differences({"a": [{"b": 1}, {"c": 2}]}, {"a": [{"b": 1}, {"c": 3}]})) == ["a.1.c: 2, now 3"]


# ---- a signal ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_state_after_the_step(
    states: TrainingStates, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    handler = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        train(states, lambda step: os.kill(os.getpid(), number) if step == 7 else None, save_minutes=60.0)
    assert signal.getsignal(number) is handler
    assert states.files()[-1].name == "epoch-00001-step-000000003.safetensors"
    assert f"stopped; the state is saved in {states.files()[-1]}" in caplog.text
    assert_equal(train(states), uninterrupted())


def test_a_second_signal_stops_at_once(states: TrainingStates) -> None:
    def twice(step: int) -> None:
        if step == 7:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(states, twice, save_minutes=60.0)
    assert states.files()[-1].name == "epoch-00001-step-000000000.safetensors"
    assert_equal(train(states), uninterrupted())


def test_a_signal_in_the_last_step_is_not_lost(states: TrainingStates) -> None:
    last = 4 * STEPS - 1
    with pytest.raises(KeyboardInterrupt):
        train(states, lambda step: os.kill(os.getpid(), signal.SIGINT) if step == last else None)
    taken: list[int] = []
    assert_equal(train(states, taken.append), uninterrupted())
    assert taken == []


def test_saving_takes_its_share_only(states: TrainingStates, monkeypatch: pytest.MonkeyPatch) -> None:
    """With steps of a second and savings of two, one in two hundred seconds is worth it, which is the 42nd epoch."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("torchloom.training.state.time", SimpleNamespace(perf_counter=lambda: clock.now))
    save = TrainingStates.save

    def in_two_seconds(*given: Any) -> Path:
        clock.now += 2
        return save(*given)

    def in_one_second(_: int) -> None:
        clock.now += 1

    monkeypatch.setattr(TrainingStates, "save", in_two_seconds)
    train(states, in_one_second, epochs=60, save_minutes=60.0)
    assert [int(path.name.split("-")[1]) for path in states.files()] == [1, 1 + 200 // STEPS + 1]


def test_a_training_that_diverged_leaves_no_state(states: TrainingStates) -> None:
    """Going on from one would only lead there again, and the next try has another recipe."""
    with pytest.raises(InputError, match="the loss became"):
        train(states, optimizer={"name": "SGD", "lr": 1e20})
    assert states.files() == []
    assert_equal(train(states), uninterrupted())
