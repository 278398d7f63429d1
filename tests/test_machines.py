"""Two machines that train one model: network namespaces with addresses of their own, and `kedro run` on each of them.

Needs the right to make namespaces. `pytest -m long tests/test_machines.py`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import make_project
from torchloom.datasets.tensors import read_tensors
from torchloom.training.loop import TIMES

TASK = "mnist_lenet"
SETTINGS = {"model": {"width": 1}, "train": {"epochs": 5, "batch_size": 64, "threads": 1, "device": "cpu"}}
ADDRESS = "10.213.77.1"
MEETING = f"distributed.machines=2,distributed.address={ADDRESS}:29400,distributed.timeout=60"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """The names of two namespaces that reach each other under 10.213.77.1 and .2, and nothing else."""
    names = [f"loom{os.getpid()}{letter}" for letter in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "loom0", "netns", names[0], "type", "veth", "peer", "name", "loom0", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.213.77.{number}/24", "dev", "loom0")
            ip("-n", name, "link", "set", "loom0", "up")
            ip("-n", name, "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    try:
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class Machine:
    """A namespace with a clone of the project on a disk of its own; `run` is what its user types."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.project = name, make_project(folder)
        (self.project / f"conf/sample/parameters/{TASK}.yml").write_text(yaml.safe_dump({TASK: SETTINGS}))
        self.log = folder / "log.txt"

    def run(self, parameters: str = MEETING) -> "subprocess.Popen[bytes]":
        kedro = [sys.executable, "-m", "kedro", "run", "--env", "sample", "--pipelines", TASK, "--params", parameters]
        kedro += ["--to-nodes", f"{TASK}.train"]
        environment = {**os.environ, "KEDRO_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
        place = ["ip", "netns", "exec", self.name] if self.name else []
        with self.log.open("ab") as log:
            streams: dict[str, Any] = {"stdout": log, "stderr": subprocess.STDOUT}
            return subprocess.Popen(
                [*place, *kedro], cwd=self.project, env=environment, start_new_session=True, **streams
            )

    def wait_for(self, text: str, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + 120
        while text not in self.log.read_text():
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    @property
    def history(self) -> list[dict[str, float]]:
        rows = json.loads((self.project / f"data/sample/07_model_output/{TASK}/history.json").read_text())
        return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]

    @property
    def weights(self) -> dict[str, list[Any]]:
        tensors, _ = read_tensors(self.project / f"data/sample/06_models/{TASK}/checkpoint.safetensors", "")
        return {name: tensor.tolist() for name, tensor in tensors.items()}


def finish(*processes: "subprocess.Popen[bytes]") -> list[int]:
    return [process.wait(240) for process in processes]


def left_by(machine: Machine) -> list[str]:
    """What runs in the project's folder and goes on doing so."""
    end = time.monotonic() + 60
    while (running := processes_of(machine)) and time.monotonic() < end:
        time.sleep(0.1)
    return running


def processes_of(machine: Machine) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == machine.project:
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [command for command in found if command]  # "": it is ending


@pytest.mark.long
def test_two_machines_one_model(tmp_path: Path, machines: list[str]) -> None:
    """The second one dies and comes back; it ends as if both processes had been on one machine all the time."""
    first, second = (Machine(name, tmp_path / name) for name in machines)
    running = first.run(), second.run()
    second.wait_for("epoch 2/5", running[1])  # the state after the first one is saved by then
    os.killpg(running[1].pid, signal.SIGKILL)
    running[1].wait()
    again = second.run()
    assert finish(running[0], again) == [0, 0], first.log.read_text() + second.log.read_text()
    assert "going on from" in first.log.read_text()
    assert first.history == second.history
    assert first.weights == second.weights
    assert left_by(first) == left_by(second) == []
    alone = Machine("", tmp_path / "alone")
    assert finish(alone.run("distributed.processes=2")) == [0], alone.log.read_text()
    assert alone.history == first.history
    assert alone.weights == first.weights


@pytest.mark.long
def test_ctrl_c_on_one_machine_stops_both(tmp_path: Path, machines: list[str]) -> None:
    first, second = (Machine(name, tmp_path / name) for name in machines)
    running = [machine.run() for machine in (first, second)]
    second.wait_for("epoch 2/5", running[1])
    os.killpg(running[1].pid, signal.SIGINT)
    assert 0 not in finish(*running)
    assert "stopped; the state is saved" in first.log.read_text()  # where the first process is
    for machine in (first, second):
        assert "training goes on from its last state with" in machine.log.read_text()
        assert left_by(machine) == []


@pytest.mark.long
def test_told_to_end_all_of_its_processes_save_and_go(tmp_path: Path) -> None:
    """As schedulers tell a job, by SIGTERM to each of its processes."""
    machine = Machine("", tmp_path / "project")
    running = machine.run(f"distributed.processes=2,distributed.restarts=0,{TASK}.train.epochs=500")
    machine.wait_for("epoch 5/500", running)
    os.killpg(running.pid, signal.SIGTERM)
    assert running.wait(60) != 0
    log = machine.log.read_text()
    assert "stopped; the state is saved" in log
    assert "lost one of its processes" not in log
    assert left_by(machine) == []


SCRIPT = """
from pathlib import Path
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

bootstrap_project(Path.cwd())
parameters = {"distributed": {"processes": 2, "restarts": 0}}
with KedroSession.create(Path.cwd(), env="sample", runtime_params=parameters) as session:
    session.run(pipeline_names=["mnist_lenet"], to_nodes=["mnist_lenet.train"])
"""


@pytest.mark.long
def test_a_script_that_its_processes_would_run_again_is_told_so(tmp_path: Path) -> None:
    """It does not wait for itself."""
    machine = Machine("", tmp_path / "project")
    script = machine.project / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "KEDRO_DISABLE_TELEMETRY": "1"}
    options: dict[str, Any] = {"cwd": machine.project, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "script.py"], timeout=240, **options)
    assert done.returncode != 0
    assert 'below if __name__ == "__main__"' in done.stderr.splitlines()[-1]
    assert "a new process runs the script that has started it from its beginning" in done.stderr


@pytest.mark.long
def test_no_process_is_left_behind(tmp_path: Path) -> None:
    """When the run alone is killed, not those that it has started."""
    machine = Machine("", tmp_path / "project")
    running = machine.run(f"distributed.processes=2,{TASK}.train.epochs=500")
    try:
        machine.wait_for("epoch 5/500", running)
    finally:
        os.kill(running.pid, signal.SIGKILL)
    assert running.wait(60) != 0
    assert left_by(machine) == []
