"""The environments for people who debug, on drawn data."""

import gzip
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from kedro.io import DataCatalog
from torch import Tensor, nn

from conftest import ROOT, kedro_run, make_project
from torchloom.config import DebuggingConfig
from torchloom.errors import InputError
from torchloom.problems.classification.config import ClassificationTrainConfig
from torchloom.runner import SkipUnchanged
from torchloom.training.debugging import TABLE, TRACE, adjusted, debugged, without_dropout
from torchloom.training.loop import DivergedError

REGRESSION = "linear_regression"

pytestmark = pytest.mark.xdist_group("debugging")  # in one process, for the sake of the data that the tests share


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the environments debug, overfit and profile on the data of `sample`."""
    folder = make_project(tmp_path_factory.mktemp("debugging") / "project")
    for name in ("debug", "overfit", "profile"):
        shutil.copytree(ROOT / "conf/sample", folder / "conf" / name, dirs_exist_ok=True)
        (folder / f"conf/{name}/globals.yml").write_text(f"data: data/sample\nresults: data/{name}\n")
    return folder


def trained(project: Path, env: str, task: str, **options: Any) -> DataCatalog:
    return kedro_run(project, task, env, to_nodes=[f"{task}.train"], **options)


LONG = [pytest.param(task, marks=pytest.mark.long) for task in ("mnist_mlp", "mnist_lenet", "mnist_lstm")]


@pytest.mark.parametrize("task", [*LONG, REGRESSION])
def test_a_few_samples_are_learnt_by_heart(project: Path, task: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        history = trained(project, "overfit", task).load(f"{task}.history")
    assert "learnt by heart: the loss of 8 samples went from" in caplog.text
    assert history[-1]["val_loss"] <= 0.01 * history[0]["train_loss"]
    assert all(row["val_loss"] > 0.01 * history[0]["train_loss"] for row in history[:-1])
    assert len(history) < 1000


def test_it_is_said_when_they_are_not(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {REGRESSION: {"train": {"optimizer": {"lr": 1e-9}}}, "debugging": {"overfit": {"epochs": 20}}}
    history = trained(project, "overfit", REGRESSION, params=settings).load(f"{REGRESSION}.history")
    assert len(history) == 20
    (message,) = [record.message for record in caplog.records if "by heart" in record.message]
    assert message.startswith("NOT learnt by heart: the loss of 8 samples went from 1.9")
    assert "in 20 epochs, not to 0.01 of it" in message


def test_nothing_is_in_the_way_of_learning_by_heart() -> None:
    config = ClassificationTrainConfig.model_validate(
        {
            "epochs": 3,
            "optimizer": {"name": "AdamW", "groups": [{"parameters": ["*.bias"], "weight_decay": 0.1}]},
            "loss": {"name": "CrossEntropyLoss", "label_smoothing": 0.1},
            "l1": 0.1,
            "ema": 0.9,
            "early_stopping": {"patience": 1},
        }
    )
    free = adjusted(config, DebuggingConfig.model_validate({"overfit": {"epochs": 50}}))
    assert (free.epochs, free.l1, free.ema, free.early_stopping, free.warmup_epochs) == (50, 0.0, None, None, 5.0)
    assert free.loss.arguments == {}
    assert free.optimizer.arguments["weight_decay"] == free.optimizer.groups[0].arguments["weight_decay"] == 0.0
    assert adjusted(config, DebuggingConfig()) is config
    network = nn.Sequential(nn.Dropout(0.5), nn.LSTM(2, 2, 2, dropout=0.5))
    without_dropout(network)
    assert (network[0].p, network[1].dropout) == (0.0, 0.0)


@pytest.mark.long
def test_one_batch_goes_through_all_stages_and_leaves_what_is_trained_alone(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {REGRESSION: {"train": {"epochs": 5}}}
    kedro_run(project, REGRESSION, params=settings)
    results = {path: path.read_bytes() for path in (project / "data/sample").rglob("*") if path.is_file()}
    catalog = kedro_run(project, REGRESSION, "debug")
    assert len(catalog.load(f"{REGRESSION}.history")) == 1
    assert catalog.load(f"{REGRESSION}.metrics")["test_samples"] > 0
    assert (project / f"data/debug/06_models/{REGRESSION}/checkpoint.safetensors").is_file()
    assert len(list((project / "data/debug/records/runs").glob("*.json"))) == 1
    written = ("records/locks", "01_raw", "03_primary", "diabetes.")  # of the data set, which has been prepared again
    after = {path: path.read_bytes() for path in (project / "data/sample").rglob("*") if path.is_file()}
    assert after.keys() >= results.keys()
    changed = [path for path, content in results.items() if after[path] != content]
    assert all(any(part in str(path) for part in written) for path in changed)
    with caplog.at_level(logging.INFO):
        caplog.clear()
        kedro_run(project, REGRESSION, params=settings, runner=SkipUnchanged())
    assert "Running node" not in caplog.text


def test_a_batch_is_all_there_is_of_each_split(project: Path) -> None:
    plan = trained(project, "debug", "mnist_mlp").load("mnist_mlp.dataloaders")
    assert {split: len(plan.loader(split)) for split in plan.splits} == {"train": 1, "validation": 1, "test": 1}


def test_debugging_does_not_overwrite_what_is_trained(project: Path) -> None:
    with pytest.raises(InputError, match=r"overwrite the results in .*data/sample\. Take --env debug"):
        kedro_run(project, REGRESSION, params={"debugging": {"batches": 1}})
    with pytest.raises(InputError, match="a sweep compares whole trainings"):
        kedro_run(project, "sweep", "debug")


class Root(nn.Module):
    """Its gradient at 0 is not finite, and below 0 neither is what it gives."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 1.0).sqrt()


def anomaly(number: float) -> str:
    network = nn.Sequential(nn.Identity(), Root(), nn.Identity())
    numbers = torch.tensor([1.0, number], requires_grad=True)
    with (
        pytest.raises(DivergedError) as caught,
        debugged(network, DebuggingConfig(detect_anomaly=True), first=True),
    ):
        (network(numbers) * torch.tensor([1.0, 0.0])).sum().backward()
    network(torch.tensor([-1.0]))  # without complaint
    return caught.value.message


def test_the_first_layer_and_the_gradient_that_are_not_finite_are_named() -> None:
    expected = "1 (Root) gives 1 numbers that are not finite; its inputs and its weights are finite"
    assert anomaly(-1.0) == expected
    message = anomaly(0.0)
    assert message.startswith("a gradient is not finite: Function 'SqrtBackward0' returned nan values")
    assert "It belongs to `return (x * 1.0).sqrt()` (" in message
    assert Path(__file__).name in message


def test_a_layer_with_a_broken_weight_is_named(project: Path) -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    nn.init.constant_(network[0].bias, float("inf"))
    with (
        pytest.raises(DivergedError, match=r"^0 \(Linear\) gives 6 numbers that are not finite; so are already bias"),
        debugged(network, DebuggingConfig(detect_anomaly=True), first=True),
    ):
        network(torch.zeros(3, 2))


@pytest.mark.long
def test_a_profile_has_a_trace_and_the_hot_spots(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        catalog = trained(project, "profile", "mnist_mlp", params={"mnist_mlp": {"train": {"accumulate": 4}}})
    files = catalog.load("mnist_mlp.profile")
    events = json.loads(gzip.decompress(files[TRACE].read_bytes()))["traceEvents"]
    steps = {event["name"] for event in events if event["name"].startswith("ProfilerStep#")}
    assert steps == {f"ProfilerStep#{number}" for number in range(3, 8)}
    table = files[TABLE].read_text()
    assert "aten::addmm" in table
    assert table in caplog.text
    assert len(catalog.load("mnist_mlp.history")) == 4  # of two steps each, until the profiler has seen its eight
