"""The record that each run leaves, and the table of them."""

import csv
import importlib.metadata
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog, MemoryDataset

from conftest import kedro, kedro_run, make_project
from reports import check_page
from torchloom.cli import runs
from torchloom.datasets.reports import CSVDataset
from torchloom.errors import InputError
from torchloom.records.running import _summary
from torchloom.records.runs import as_text, comparison, git_state, in_words, read_runs, shown_figures, training_rate

TASK = "linear_regression"
STAGES = ("build_dataloaders", "train", "evaluate")

pytestmark = pytest.mark.xdist_group("runs")  # in one process, for the sake of what the tests share


def records(project: Path) -> list[dict[str, Any]]:
    return read_runs(project / "data/sample/records/runs")


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which a task has run twice in the same way, and once with another seed."""
    project = make_project(tmp_path_factory.mktemp("runs") / "project")
    for seed in (1, 1, 2):
        kedro_run(project, TASK, params={TASK: {"train": {"epochs": 5, "seed": seed}}})
    return project


@pytest.mark.long
def test_a_run_leaves_its_record(twice: Path) -> None:
    record = records(twice)[0]
    assert record["ended"] == "finished"
    assert record["environment"] == "sample"
    assert record["pipelines"] == record["tasks"] == [TASK]
    assert record["parameters"][TASK]["train"]["epochs"] == 5
    assert record["parameters"][TASK]["train"]["optimizer"]["name"]
    assert record["parameters"][TASK]["train"]["gradient_clip"] is None  # defaults are there too
    assert record["seeds"] == {"diabetes.preprocess.seed": 0, f"{TASK}.train.seed": 1}
    assert record["packages"]["torch"] == importlib.metadata.version("torch")
    assert record["device"] == ("cpu" if not torch.accelerator.is_available() else record["device"])
    assert list(record["inputs"]) == ["diabetes_source", f"{TASK}.training_states"]
    assert record["start"] <= record["end"]
    assert set(record["nodes"]) == {
        "diabetes.download",
        "diabetes.preprocess",
        *(f"{TASK}.{stage}" for stage in (*STAGES, "export_onnx", "export_formats", "report")),
    }
    assert 0 < sum(record["nodes"].values()) <= record["seconds"]
    metrics = json.loads((twice / f"data/sample/08_reporting/{TASK}/metrics.json").read_text())
    assert record["results"][TASK].keys() == metrics.keys() | {"samples_per_second"}
    assert record["results"][TASK]["samples_per_second"] > 0
    assert record["curves"][TASK]["epoch"] == [1, 2, 3, 4, 5]
    losses = record["curves"][TASK]["train_loss"]
    assert losses[-1] < losses[0]
    assert 1e8 < record["peak_memory"]["memory"] < 1e11


@pytest.mark.long
def test_two_runs_of_the_same_record_give_equal_weights(twice: Path) -> None:
    one, same, other = records(twice)
    for key in ("parameters", "seeds", "packages", "inputs", "git", "machine", "environment"):
        assert one[key] == same[key]
    checkpoints = [record["outputs"][f"{TASK}.checkpoint"] for record in (one, same, other)]
    assert checkpoints[0] == checkpoints[1] != checkpoints[2]
    assert one["results"][TASK]["r2"] == same["results"][TASK]["r2"] != other["results"][TASK]["r2"]


@pytest.mark.long
def test_the_table_shows_the_runs_and_in_what_they_differ(twice: Path) -> None:
    assert "train.seed" not in comparison(records(twice), TASK, last=1)[0]
    rows = comparison(records(twice))
    assert [row["train.seed"] for row in rows] == ["1", "1", "2"]
    assert not {"train.epochs", "train.batch_size"} & rows[0].keys()  # these are alike
    assert rows[0]["r2"] == rows[1]["r2"] == f"{records(twice)[0]['results'][TASK]['r2']:.4f}"
    lines = as_text(rows).splitlines()
    assert len(lines) == 4
    place = lines[0].index("ended")
    assert [line[place : place + 8] for line in lines[1:]] == ["finished"] * 3


@pytest.mark.long
def test_the_command(twice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = kedro(twice, "runs", "--env", "sample", "--pipeline", TASK, "--last", "2", "--csv")
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["run"] for row in rows] == [record["run"] for record in records(twice)[1:]]
    monkeypatch.chdir(twice)
    bootstrap_project(twice)
    with pytest.raises(InputError, match=r"data/sample/records/runs: no run of mnist_mlp has left a record there yet"):
        runs.callback(env="sample", task="mnist_mlp", last=2, as_csv=False)


@pytest.mark.long
def test_the_runs_on_one_page(twice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(twice)
    bootstrap_project(twice)
    result = CliRunner().invoke(runs, ["--html", "--env", "sample"], catch_exceptions=False)
    assert "08_reporting/runs.html" in result.output
    page = check_page((twice / "data/sample/08_reporting/runs.html").read_text())
    for number, record in enumerate(records(twice), 1):
        figure = f"{record['results'][TASK]['r2']:.4f}"
        assert [str(number), record["run"], TASK, "sample"] == page.row(record["run"])[:4]
        assert figure in page.row(record["run"])
    assert [caption.partition(":")[0] for caption in page.pictures] == [TASK]
    assert "train.seed" in page.text
    elsewhere = twice / "elsewhere" / "two.html"
    CliRunner().invoke(runs, ["--env", "sample", "--last", "2", "--html", str(elsewhere)], catch_exceptions=False)
    assert "Runs so far: 2, the oldest first" in check_page(elsewhere.read_text()).text


def test_runs_of_one_stage_hide_no_difference_and_make_none() -> None:
    run = {"run": "1", "tasks": [TASK], "ended": "finished", "nodes": {}, "seconds": 1.0}
    whole = {**run, "parameters": {TASK: {"train": {"epochs": 5, "l1": 0.0}, "export": {"opset": 20}}}}
    other = {**run, "parameters": {TASK: {"train": {"epochs": 6, "l1": 0.0}, "export": {"opset": 20}}}}
    stage = {**run, "parameters": {TASK: {"export": {"opset": 20}}}}
    rows = comparison([whole, stage, other])
    assert [row["train.epochs"] for row in rows] == ["5", "", "6"]
    assert not {"train.l1", "export.opset"} & rows[0].keys()


def test_the_rate_of_a_training_is_all_samples_by_all_seconds() -> None:
    epochs = [
        {"samples_per_second": 100.0, "seconds": 12.0},  # 1000 samples in 10 s, and 2 s of validation
        {"samples_per_second": 1000.0, "seconds": 1.5},  # in 1 s
    ]
    assert training_rate(epochs) == pytest.approx(2000 / 11)
    rounds = [
        {"samples_per_second": 100.0, "seconds": 10.0, "clients": 4},  # 1000 samples
        {"samples_per_second": 50.0, "seconds": 2.0, "clients": 1},  # 100
    ]
    assert training_rate(rounds) == pytest.approx(1100 / 12)


def test_a_run_that_fails_says_so(run: Callable[..., DataCatalog], project: Path) -> None:
    settings = {TASK: {"train": {"optimizer": {"name": "SGD", "lr": 1e30}}}}
    with pytest.raises(InputError):
        run(TASK, params=settings)
    (record,) = records(project)
    assert record["ended"] == "failed"
    assert "the loss became" in record["error"]
    assert list(record["nodes"]) == ["diabetes.download", "diabetes.preprocess", f"{TASK}.build_dataloaders"]


@pytest.mark.long
def test_a_run_that_was_killed_is_told_from_one_that_runs(twice: Path, tmp_path: Path) -> None:
    record = {**records(twice)[0], "ended": "running"}
    (tmp_path / "a.json").write_text(json.dumps(record))
    assert read_runs(tmp_path)[0]["ended"] == "running"  # it is this process
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (tmp_path / "a.json").write_text(json.dumps({**record, "process": process.pid}))
    assert read_runs(tmp_path)[0]["ended"] == "killed"


def test_what_is_no_record_is_left_out(tmp_path: Path) -> None:
    for name, text in {"a": "", "b": "[]", "c": "{}", "d": "[" * 100_000}.items():
        (tmp_path / f"{name}.json").write_text(text)
    assert read_runs(tmp_path) == []


def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state() is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "init", "-q"], check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run(["git", "add", "file"], check=True)
    subprocess.run(["git", *identity, "commit", "-q", "-m", "one"], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert git_state() == {"commit": commit, "changed": False}
    (tmp_path / "file").write_text("2")
    assert git_state() == {"commit": commit, "changed": True}


def test_what_is_in_no_file_is_not_named(tmp_path: Path) -> None:
    """A user's catalog may keep it in memory, or elsewhere."""
    kept = CSVDataset(filepath=str(tmp_path / "08_reporting/shapes/per_class.csv"))
    catalog = DataCatalog({"shapes.per_class": kept, "shapes.notes": MemoryDataset()})
    assert _summary("shapes", {"shapes.per_class"}, catalog) == ["shapes"]  # it had nothing to say
    kept.save([{"class": "a"}])
    lines = _summary("shapes", {"shapes.per_class", "shapes.notes"}, catalog)
    assert [line.split()[0] for line in lines] == ["shapes", "reports:"]


def test_of_folds_the_mean_is_shown_with_its_deviation() -> None:
    folds = {"out_of_fold_accuracy": 0.75, "out_of_fold_accuracy_deviation": 0.01, "out_of_fold_threshold": 0.3}
    assert shown_figures(folds) == {"out_of_fold_accuracy": "0.7500 ± 0.0100"}
    assert list(in_words(folds)) == ["out-of-fold accuracy 0.7500 ± 0.0100"]
    assert list(in_words({"accuracy": 0.9, "loss": 1.0})) == ["test accuracy 0.9000", "test loss 1.0000"]
