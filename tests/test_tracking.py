"""What MLflow and TensorBoard are shown; MLflow's part runs where the extra is installed."""

import json
import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kedro.io import DataCatalog

from conftest import kedro_run, make_project
from processes import answer, free_port
from torchloom.config import TrackingConfig
from torchloom.errors import InputError
from torchloom.records import tracking
from torchloom.training.callbacks import calling_back, epoch_callbacks

TASK = "linear_regression"
EPOCHS = 6

pytestmark = pytest.mark.xdist_group("tracking")  # in one process, for the sake of the project that the tests share
needs_tensorboard = pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs the extra tensorboard")
needs_mlflow = pytest.mark.skipif(find_spec("kedro_mlflow") is None, reason="needs the extra mlflow")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("tracking") / "project")


def tracked(project: Path, name: str, seed: int, **options: Any) -> DataCatalog:
    train = {"epochs": EPOCHS, "seed": seed, "save_minutes": 1e-9}
    return kedro_run(project, TASK, params={TASK: {"train": train}, "tracking": {"name": name}}, **options)


def interrupted_and_continued(project: Path, name: str, seed: int) -> DataCatalog:
    """A run that is interrupted after its third epoch and goes on from the state after that or the one before."""

    def interrupt(row: dict[str, float]) -> None:
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    with calling_back(interrupt), pytest.raises(KeyboardInterrupt):
        tracked(project, name, seed)
    catalog = tracked(project, name, seed)
    assert [row["epoch"] for row in catalog.load(f"{TASK}.history")] == [*range(1, EPOCHS + 1)]
    assert epoch_callbacks.get() == ()
    return catalog


# ---- TensorBoard ---------------------------------------------------------------------------------------------------


def events(project: Path) -> list[Any]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folders = sorted((project / f"data/sample/tracking/tensorboard/{TASK}").iterdir())
    return [EventAccumulator(str(folder)).Reload() for folder in folders]


@pytest.mark.long
@needs_tensorboard
def test_tensorboard_has_each_epoch_once_and_the_results(project: Path) -> None:
    catalog = interrupted_and_continued(project, "tensorboard", 1)
    (run,) = events(project)  # of both
    history, metrics = catalog.load(f"{TASK}.history"), catalog.load(f"{TASK}.metrics")
    losses = run.Scalars("loss/train")
    assert [event.step for event in losses] == [*range(1, EPOCHS + 1)]
    assert [event.value for event in losses] == pytest.approx([row["train_loss"] for row in history])
    assert {event.step for event in run.Scalars("training/samples_per_second")} == {*range(1, EPOCHS + 1)}
    assert [event.value for event in run.Scalars("r2/test")] == pytest.approx([metrics["r2"]])
    assert {"learning_curves", "residuals", "coefficient_plot"} <= set(run.Tags()["images"])
    (parameters,) = run.Tensors("parameters/text_summary")
    text = parameters.tensor_proto.string_val[0].decode()
    assert "| train.seed | 1 |" in text
    assert "| train.optimizer.name | SGD |" in text
    tracked(project, "tensorboard", 1, to_nodes=[f"{TASK}.train"])
    assert len(events(project)) == 2  # a training from the beginning is another run


# ---- MLflow --------------------------------------------------------------------------------------------------------


def runs(project: Path) -> tuple[Any, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/data/sample/tracking/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("torchloom")
    return client, client.search_runs([experiment.experiment_id], order_by=["start_time"])


@needs_mlflow
def test_mlflow_has_each_epoch_once_and_all_that_comes_of_a_task(project: Path) -> None:
    catalog = interrupted_and_continued(project, "mlflow", 2)
    client, (run,) = runs(project)
    history, metrics = catalog.load(f"{TASK}.history"), catalog.load(f"{TASK}.metrics")
    losses = client.get_metric_history(run.info.run_id, "train_loss")
    assert {metric.step: metric.value for metric in losses} == {row["epoch"]: row["train_loss"] for row in history}
    assert len(losses) == EPOCHS
    assert run.info.run_name == TASK
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_r2"] == metrics["r2"]
    assert run.data.params["train.epochs"] == str(EPOCHS)
    assert run.data.params["diabetes.preprocess.seed"] == "0"
    assert run.data.tags["environment"] == "sample"
    assert run.data.tags["data.diabetes_train"].startswith("sha256:")
    kept = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"checkpoint.safetensors", "metrics.json", "learning_curves.png", "export_report.json"} <= kept


@needs_mlflow
def test_mlflow_loads_the_model(project: Path) -> None:
    import mlflow

    _, (run, *_) = runs(project)
    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    features = np.zeros((3, 10), dtype=np.float32)
    (answers,) = model.predict({"features": features}).values()
    assert answers.shape == (3,)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


@needs_mlflow
def test_mlflow_has_a_later_stage_in_the_run_that_trained_and_knows_which_run_failed(project: Path) -> None:
    tracked(project, "mlflow", 2, node_names=[f"{TASK}.evaluate"])
    assert len(runs(project)[1]) == 1
    settings = {TASK: {"train": {"optimizer": {"lr": 1e30}}}, "tracking": {"name": "mlflow"}}
    with pytest.raises(InputError, match="the loss became"):
        kedro_run(project, TASK, params=settings)
    assert [run.info.status for run in runs(project)[1]] == ["FINISHED", "FAILED"]


@needs_mlflow
def test_mlflow_shows_the_runs(project: Path) -> None:
    """`kedro mlflow ui`, on the store of the environment."""
    port = free_port()
    command = [sys.executable, "-m", "kedro", "mlflow", "ui", "--env", "sample", "--port", str(port)]
    experiments = answer(
        command,
        project,
        f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=torchloom",
    )
    assert json.loads(experiments)["experiment"]["lifecycle_stage"] == "active"


# ---- without, and with what goes wrong ------------------------------------------------------------------------------


def test_nothing_breaks_without_them(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("mlflow", "kedro_mlflow", "tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, package, None)
    assert tracked(project, "none", 3, to_nodes=[f"{TASK}.evaluate"]).load(f"{TASK}.metrics")["r2"] < 1


@pytest.mark.parametrize(("name", "package"), [("mlflow", "kedro-mlflow"), ("tensorboard", "tensorboard")])
def test_one_that_is_not_installed_is_refused_before_anything_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, package: str
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    with caplog.at_level(logging.INFO), pytest.raises(InputError) as caught:
        tracked(project, name, 1)
    assert caught.value.message == (
        f"tracking.name {name} needs {package}, which is not installed. Install the extra: uv sync --extra {name}, or "
        f"where torchloom is installed: pip install 'torchloom[{name}]'"
    )
    assert "Running node" not in caplog.text


@needs_tensorboard
def test_what_goes_wrong_there_does_not_end_the_run(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(tracking.TensorBoard, "log", full)
    catalog = tracked(project, "tensorboard", 4, to_nodes=[f"{TASK}.train"])
    assert len(catalog.load(f"{TASK}.history")) == EPOCHS
    warnings = [record.message for record in caplog.records if "tracking ends" in record.message]
    assert warnings == ["tracking ends here, and the run goes on: no space left on device"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"tracking\.name tensorboard: cannot be used \(.*Not a directory"):
        tracking.Tracking(TrackingConfig(name="tensorboard"), tmp_path / "file", None)
