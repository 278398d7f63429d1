"""The benchmarks run and report; how fast anything is, no test asks."""

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kedro.io import DataCatalog
from onnxruntime import InferenceSession

from benchmarks import (
    inference,
    inputs,
    measure,
    ours,
    plain,
    plain_mnist,
    records,
    scaling,
    start,
    step,
    without_kedro,
)
from benchmarks.measure import Comparison, Options, Worker, interleave, report
from benchmarks.plain import NETWORKS
from benchmarks.step import CONTESTS, Contest
from benchmarks.trainings import trainings
from conftest import ROOT, TINY
from torchloom.config import ExportConfig
from torchloom.data.readers.mnist import draw_sample
from torchloom.models import build_network


@pytest.mark.long
def test_the_command_reports(project: Path) -> None:
    """As a user runs it, on data that the project draws."""
    command = [sys.executable, "-m", "benchmarks", "data", "--quick", "--repeats", "1", "--device", "cpu"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "drawn by the project" in done.stdout
    assert "too small to measure" in done.stdout
    assert (project / "benchmarks/results/data.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((project / "benchmarks/results/data.json").read_text())
    check(Comparison(**{k: v for k, v in found["comparisons"][0].items() if k != "summary"}))


def check(comparison: Comparison) -> None:
    ratios = [comparison.summary(side)["ratio"] for side in comparison.sides]
    assert len(ratios) > 1
    assert all(math.isfinite(ratio) and ratio > 0 for ratio in ratios)
    assert 1 in ratios


class InProcess:
    """Stands in for a worker."""

    def __init__(self, prepare: Callable[..., Callable[..., float]], *arguments: Any) -> None:
        self.measure = prepare(*arguments)

    def __call__(self, *request: Any) -> float:
        return self.measure(*request)

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(self, *_: object) -> None: ...


def test_the_start_is_held_to_that_of_an_empty_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    (comparison,) = start.run(Options(repeats=1))
    check(comparison)
    assert list(comparison.sides) == [start.EMPTY, start.OURS]
    assert min(value for values in comparison.sides.values() for value in values) > 0.1


@pytest.mark.long
@pytest.mark.parametrize("part", [step, scaling], ids=["step", "scaling"])
def test_parts_compare(part: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    inputs.random_images(tmp_path / "mnist", 100, (28, 28, 1))
    inputs.random_images(tmp_path / "cifar10", 100)
    monkeypatch.setattr(inputs, "environment", lambda data, quick: "sample")
    monkeypatch.setattr(inputs, "prepared", lambda env, data: tmp_path / data)
    monkeypatch.setattr(part, "Worker", InProcess)
    comparisons = part.run(Options(quick=True, repeats=1))
    assert len(comparisons) == {step: 4, scaling: 3}[part]
    for comparison in comparisons:
        check(comparison)


@pytest.mark.parametrize("contest", CONTESTS.values(), ids=lambda contest: contest.network["name"])
def test_both_sides_train_networks_of_the_same_size(contest: Contest) -> None:
    arguments = dict(contest.network)
    name = arguments.pop("name")
    shape = (1, 28, 28) if contest.data == "mnist" else (3, 32, 32)
    ours = build_network(name, {"shape": shape, "outputs": 10}, arguments)
    theirs = NETWORKS[name]()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_turns_are_taken() -> None:
    order: list[str] = []
    values = interleave({name: lambda name=name: order.append(name) for name in "AB"}, turns=2)
    assert order == ["A", "B"] * 3
    assert [len(taken) for taken in values.values()] == [2, 2]


@pytest.mark.long
def test_each_worker_is_a_process_and_says_when_it_fails() -> None:
    with Worker(partial, os.getpid) as one, Worker(partial, os.getpid) as other:
        assert len({one(), one(), other(), os.getpid()}) == 3
        with pytest.raises(SystemExit, match="its error is above"):
            one("os.getpid takes no argument")


def test_ratios_and_requirements(tmp_path: Path) -> None:
    rates = Comparison("a", "1/s", {"plain": [1.0, 2.0, 9.0], "ours": [4.0]}, "none", "plain", required=2.5)
    assert rates.summary("plain")["median"] == 2
    assert rates.summary("ours")["ratio"] == 2
    assert "NOT met" in rates.table()
    times = Comparison("b", "s", {"plain": [3.0], "ours": [1.0]}, "none", "plain", required=2.5, less_is_better=True)
    assert times.summary("ours")["ratio"] == 3
    assert "2.5: met" in times.table()
    assert "required" not in times.table(judged=False)
    report("part", [rates, times], Options(output=tmp_path))
    assert (tmp_path / "part.png").is_file()
    assert json.loads((tmp_path / "part.json").read_text())["comparisons"][1]["summary"]["ours"]["ratio"] == 3


def test_no_measurement_is_begun_that_would_not_be_done_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def measure(number: int) -> int:
        nonlocal now
        now += 10.0
        return number

    monkeypatch.setattr(records.time, "perf_counter", lambda: now)
    assert list(records.repeat(measure, 3, ends=31.0)) == [0, 1, 2]
    assert list(records.repeat(measure, 9, ends=now + 31.0)) == [0, 1, 2]
    assert list(records.repeat(measure, 9, ends=now)) == []


@pytest.mark.long
def test_seeds_are_trained_in_one_process(run: Callable[..., DataCatalog], project: Path) -> None:
    settings = {**TINY["cifar_speedrun"], "train": {**TINY["cifar_speedrun"]["train"], "epochs": 6}}
    (project / "conf/sample/parameters/cifar_speedrun.yml").write_text(json.dumps({"cifar_speedrun": settings}))
    run("cifar_speedrun", to_nodes=["cifar_speedrun.build_dataloaders"])
    with contextlib.chdir(project):
        train = trainings("cifar_speedrun", "sample")
        seconds, accuracy, rate = train(3)
        assert train(3)[1] == accuracy > 0.4  # nothing of the first training is left
    assert seconds > 0
    assert rate > 0


@pytest.mark.long
def test_inference_by_all_engines(tmp_path: Path) -> None:
    """But torch.compile, which takes long; and the quantised network answers nearly as the original."""
    folder = inputs.random_images(tmp_path, 256)
    by_torch = inference.by_torch(folder, 4, 0.0, "cpu")
    assert all(by_torch(kind, 2) > 0 for kind in inference.BY_TORCH[:2])
    plan, model = inference.prepare(folder, 4)
    exported = inference.export(plan, model)
    images = {"images": inference.pixels(plan, "test", 0, 8)}
    fp32, int8 = (InferenceSession(one).run(["logits"], images)[0] for one in exported.values())
    assert 0 < np.abs(fp32 - int8).max() < 0.2 * np.abs(fp32).max()


@pytest.mark.usefixtures("exporter")
def test_script_without_kedro_leaves_the_same_files(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    raw = project / "data/sample/01_raw/mnist"
    raw.mkdir(parents=True)
    draw_sample(raw, train=500, test=100)
    without_kedro.main("sample", tmp_path)
    names = {"checkpoint.safetensors", "last_checkpoint.safetensors", "history.json", "report_0.json", "model.onnx"}
    assert names < {path.name for path in tmp_path.iterdir()}
    report = json.loads((tmp_path / "export_report.json").read_text())
    assert report["greatest_difference"] <= ExportConfig().tolerance


def test_plain_script_stops_at_its_goal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    draw_sample(raw, train=500, test=100)
    for arguments, epochs in ((["--goal", "0.01"], 1), (["--goal", "1.1", "--epochs", "2"], 2)):
        monkeypatch.setattr(sys, "argv", ["plain_mnist", str(tmp_path), *arguments])
        plain_mnist.main()
        assert json.loads(capsys.readouterr().out)["epochs"] == epochs


def test_a_rate_is_samples_for_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def call() -> None:
        nonlocal now
        now += 0.25

    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: now))
    assert measure.rate(call, samples=5, seconds=0.9, device="cpu") == 4 * 5 / 1.0


@pytest.mark.usefixtures("exporter")
def test_rates_of_inference_are_of_the_samples_that_went_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "rate", lambda call, samples, *_: (len(np.asarray(call()).reshape(-1, 10)), samples))
    folder = inputs.random_images(tmp_path, 16)
    assert inference.by_torch(folder, 4, 0.0, "cpu")(inference.BY_TORCH[0], 6) == (6, 6)
    by_onnx = inference.by_onnx(folder, 4, 0.0)
    assert by_onnx(inference.BY_ONNX[0], 5) == (5, 5)


@pytest.mark.parametrize("count", [None, 24])
def test_rates_of_the_data_are_of_the_images_that_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int | None
) -> None:
    """Of 64 images in batches of 8, in two seconds by each side's clock."""
    folder = inputs.random_images(tmp_path, 64)
    for side in (ours, plain):
        monkeypatch.setattr(side, "time", SimpleNamespace(perf_counter=iter([10.0, 12.0]).__next__))
    assert ours.data_path("cpu")(folder, 8, count) == (count or 64) / 2
    assert plain.data_path("cpu")(folder, 8, count, 0) == (count or 64) / 2
