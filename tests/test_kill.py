"""Runs that are killed at random moments, and started again: what they come to is what an undisturbed run comes to.

Everything here is a real process that SIGKILL ends, as a power cut would. `pytest -m long tests/test_kill.py`.
"""

import json
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import make_project
from processes import KedroProcess
from reports import check_page
from torchloom.datasets.tensors import read_tensors
from torchloom.training.loop import TIMES
from torchloom.training.state import TrainingStates

pytestmark = [pytest.mark.long, pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")]

NODE = re.compile(r"Running node: (\w+): ")

# One of each kind, small, and with randomness and memory of all sorts in the training.
TASKS: dict[str, dict[str, Any]] = {
    "cifar_speedrun": {
        "data": {"subset": 1200},
        "model": {"widths": [8, 16, 16], "norm_momentum": 0.3},
        "train": {"epochs": 3, "batch_size": 100, "accumulate": 2, "lookahead": {"every": 2}},
    },
    "mnist_autoencoder": {
        "model": {"hidden": [32], "latent": 8, "variational": True},
        "train": {"epochs": 12, "batch_size": 64},
    },
    "wonderland_lstm": {
        "model": {"embedding": 16, "width": 32, "dropout": 0.2},
        "train": {"epochs": 5, "batch_size": 32},
        "generate": {"length": 50, "samples": 1},
    },
    "linear_regression": {"train": {"epochs": 300}},
    "mnist_mlp": {
        "data": {"augment": {"crop_padding": 2, "cutout": 4}},
        "model": {"hidden": [32], "dropout": 0.2},
        "train": {"epochs": 12, "batch_size": 64, "ema": 0.9},
    },
}
ALWAYS = {"threads": 1, "device": "cpu", "save_minutes": 0.0005}


class Attempt:
    """A `kedro run` that goes on in a process of its own; `log` is what it says."""

    def __init__(self, project: Path, task: str, *options: str) -> None:
        self.output = project / f"output{len(list(project.glob('output*')))}.txt"
        command = ["run", "--env", "sample", "--pipelines", task, *options]
        self.process = KedroProcess(project, *command, output=self.output, errors=self.output)

    @property
    def log(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def wait_for(self, happened: Callable[[], Any]) -> None:
        """Return when it has happened, or the process has ended."""
        while not happened() and self.process.poll() is None:
            time.sleep(0.005)

    def wait_for_stage(self, stage: str) -> None:
        self.wait_for(lambda: f"Running node: {stage}: " in self.log)

    def wait_some(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        self.wait_for(lambda: time.perf_counter() >= end)

    def kill(self) -> str | None:
        """The stage that it died in; None when it had finished before."""
        self.process.kill()
        if self.process.wait() == 0:
            return None
        assert self.process.returncode == -signal.SIGKILL, self.log
        return NODE.findall(self.log)[-1]

    def finish(self) -> None:
        assert self.process.wait(120) == 0, self.log


def new_project(folder: Path, *tasks: str) -> Path:
    """A project in which these tasks are small."""
    project = make_project(folder)
    for task in tasks:
        settings = TASKS[task] | {"train": TASKS[task]["train"] | ALWAYS}
        (project / f"conf/sample/parameters/{task}.yml").write_text(yaml.safe_dump({task: settings}))
    return project


def states(project: Path, task: str) -> TrainingStates:
    return TrainingStates(project / f"data/sample/06_models/{task}/training_states")


def results(project: Path) -> dict[str, Any]:
    """All that runs have made under its final name: its bytes, and of what also tells times the rest."""
    data = project / "data"
    found: dict[str, Any] = {}
    for path in data.rglob("*"):
        hidden = path.name.startswith(".") and path.name.endswith(".tmp")
        if path.is_file() and not hidden and not {"records", "training_states"} & set(path.parts):
            found[str(path.relative_to(data))] = path.read_bytes()
    for name in [name for name in found if name.endswith("/report.html")]:
        found[name] = sorted(check_page(found[name].decode()).pictures.items())
    for name in [name for name in found if name.endswith("/history.json")]:
        found[name] = [{k: v for k, v in row.items() if k not in TIMES} for row in json.loads(found[name])]
    return found


def assert_nothing_is_half(project: Path, task: str, expected: dict[str, Any]) -> None:
    """What has its final name is as it will be in the end, and each state is whole."""
    for name, content in results(project).items():
        assert content == expected[name], name
    for path in states(project, task).files():
        read_tensors(path, "")


def abandoned(project: Path) -> list[Path]:
    return [path for path in (project / "data").rglob(".*.tmp") if "records" not in path.parts]


@pytest.fixture
def undisturbed(tmp_path: Path) -> Callable[[str], tuple[dict[str, float], dict[str, Any]]]:
    """The seconds that each stage of an undisturbed run takes, and what it makes."""

    def run(task: str) -> tuple[dict[str, float], dict[str, Any]]:
        project = new_project(tmp_path / "undisturbed", task)
        attempt = Attempt(project, task)
        began: dict[str, float] = {}
        while attempt.process.poll() is None:
            began |= {stage: time.perf_counter() for stage in NODE.findall(attempt.log) if stage not in began}
            time.sleep(0.01)
        attempt.finish()
        ended = [*list(began.values())[1:], time.perf_counter()]
        expected = results(project)
        shutil.rmtree(project)
        assert {Path(name).name for name in expected} >= {"checkpoint.safetensors", "metrics.json", "model.onnx"}
        return {stage: end - start for (stage, start), end in zip(began.items(), ended, strict=True)}, expected

    return run


@pytest.mark.parametrize("task", ["cifar_speedrun", "linear_regression"])
def test_killed_again_and_again(
    tmp_path: Path, undisturbed: Callable[[str], tuple[dict[str, float], dict[str, Any]]], task: str
) -> None:
    """In every third stage once, with the other task in others; and in the training twice more."""
    seconds, expected = undisturbed(task)
    project = new_project(tmp_path / "project", task)
    generator = random.Random(task)
    stages = list(seconds.items())[list(TASKS).index(task) // 3 :: 3]
    moments = [(stage, generator.uniform(0, length)) for stage, length in stages]
    moments += [("train", 0.0), ("train", generator.uniform(0, seconds["train"] / 2))]
    generator.shuffle(moments)
    killed: list[str] = []
    resumed = finished = 0
    while moments:
        stage, wait = moments[-1]
        attempt = Attempt(project, task)
        attempt.wait_for_stage(stage)
        if stage == "train":
            attempt.wait_for(states(project, task).files)
        attempt.wait_some(wait)
        died = attempt.kill()
        if died:
            killed.append(died)
            moments.pop()
        else:
            finished += 1
            moments[-1] = stage, wait / 2
        resumed += "going on from" in attempt.log
        assert_nothing_is_half(project, task, expected)
    last = Attempt(project, task)
    last.finish()
    assert results(project) == expected
    assert states(project, task).files() == []
    resumed += "going on from" in last.log
    assert resumed > 0
    left = [path.name for path in abandoned(project)]
    print(f"{task}: killed in {killed}; {resumed} resumed, {finished} had finished before; {len(left)} left: {left}")
    assert len(killed) >= 5
