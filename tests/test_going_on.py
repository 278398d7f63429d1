"""A finished training that goes on: with its state, exactly; without it, from the weights that it has left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kedro.io import DataCatalog

from conftest import kedro_run
from torchloom.errors import InputError
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loop import TIMES

TASK = "linear_regression"
PLAIN = {"scheduler": None, "threads": 1, "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.95}}
Run = Callable[..., DataCatalog]


def trained(project: Path, epochs: int, **settings: Any) -> tuple[Checkpoint, list[dict[str, float]]]:
    """The last checkpoint and the history, without times, of a run of the task's stages up to `train`."""
    params = {TASK: {"train": {**PLAIN, "epochs": epochs, **settings}, "data": {"include_validation": False}}}
    catalog = kedro_run(project, TASK, params=params, to_nodes=[f"{TASK}.train"])
    rows = catalog.load(f"{TASK}.history")
    return catalog.load(f"{TASK}.last_checkpoint"), [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def states(project: Path) -> list[str]:
    return sorted(path.name for path in (project / f"data/sample/06_models/{TASK}").glob("training_states/*"))


def test_with_its_state_it_ends_as_one_that_was_as_long_from_the_start(project: Path) -> None:
    whole, rows = trained(project, 6)
    assert states(project) == []
    trained(project, 4, keep_state=True)
    assert states(project) == ["epoch-00004-step-000000000.safetensors"]
    longer, history = trained(project, 6, keep_state=True)
    assert states(project) == ["epoch-00006-step-000000000.safetensors"]
    assert history == rows
    assert all(torch.equal(weight, longer.weights[name]) for name, weight in whole.weights.items())
    assert longer.training["changes"] == ["from epoch 5 on, train.epochs: 4, now 6"]
    again, same = trained(project, 6)  # there is nothing left to do
    assert same == rows
    assert all(torch.equal(weight, again.weights[name]) for name, weight in whole.weights.items())
    assert states(project) == []


def test_a_schedule_that_hangs_on_the_length_is_for_the_user_to_change(project: Path) -> None:
    cosine = {"scheduler": {"name": "CosineAnnealingLR"}}
    trained(project, 4, keep_state=True, **cosine)
    with pytest.raises(
        InputError, match=r"kept its state could go on from here(?s:.*)train\.epochs: 4, now 6(?s:.*)=must"
    ):
        trained(project, 6, **cosine)
    _, history = trained(project, 6, resume="must", **cosine)
    _, whole = trained(project, 6, resume="never", **cosine)
    assert len(history) == 6
    assert [row["learning_rate"] for row in history[4:]] == [row["learning_rate"] for row in whole[4:]]
    assert history[5]["train_loss"] != whole[5]["train_loss"]


def test_without_its_state_it_goes_on_from_the_weights(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, rows = trained(project, 4)
    second, history = trained(project, 6, resume="warm", optimizer={"name": "Adam", "lr": 0.001, "momentum": None})
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert history[:4] == rows
    assert abs(history[4]["train_loss"] - rows[3]["train_loss"]) < 0.5 * rows[0]["train_loss"]
    assert "going on from the weights of epoch 4 with a new optimiser" in caplog.text
    changes = second.training["changes"]
    assert changes[0] == "from epoch 5 on, a new optimiser and the weights of epoch 4"
    assert "from epoch 5 on, train.optimizer.name: 'SGD', now 'Adam'" in changes
    assert second.training["epoch"] == 6
    moved = max(float((weight - first.weights[name]).abs().max()) for name, weight in second.weights.items())
    assert 0 < moved < 0.01
    third, longer = trained(project, 7, resume="warm")
    assert longer[:6] == history
    assert third.training["changes"][: len(changes)] == changes


def test_it_says_why_it_cannot_go_on_from_weights(project: Path) -> None:
    with pytest.raises(
        InputError, match=rf"^{TASK}\.train\.resume: warm goes on from .* there is no checkpoint \(.*task"
    ):
        trained(project, 6, resume="warm")
    trained(project, 4)
    with pytest.raises(
        InputError, match=rf"^{TASK}\.train\.epochs 4: the last checkpoint is of epoch 4, .* Give more epochs"
    ):
        trained(project, 4, resume="warm")
    with pytest.raises(InputError, match=r"train\.loss\.name: 'MSELoss', now 'L1Loss'"):
        trained(project, 6, resume="warm", loss={"name": "L1Loss"})
