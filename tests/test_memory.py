"""Data larger than the memory: a run within a control group that allows less than its training data take.

Needs Linux and the right to make control groups. `pytest -m long tests/test_memory.py`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks.streaming import memory_group
from conftest import make_project
from torchloom.datasets.tensors import read_tensors
from torchloom.training.loop import TIMES

LIMIT = 960 << 20  # bytes; the libraries take most of them
SIZE, COUNT = 128, 26_000
DRAWN = 20  # files in each class; the others are links to them
SETTINGS = {
    "data": {"include_validation": True, "augment": {"flip": True}},
    "model": {"name": "mlp", "hidden": [16]},
    "train": {"epochs": 1, "batch_size": 64, "optimizer": {"name": "SGD", "lr": 0.001}, "threads": 1, "device": "cpu"},
    "evaluate": {"batch_size": 64},
    "export": {},
}


@pytest.fixture
def tasks() -> Iterator[Path]:
    """The file that takes the processes whose memory is limited."""
    try:
        with memory_group(LIMIT) as group:
            yield group
    except OSError as error:
        pytest.skip(f"no control groups here: {error}")


def make_pictures(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for name, brightness in (("dark", 90), ("light", 160)):
        (folder / name).mkdir(parents=True)
        for number in range(COUNT // 2):
            path = folder / name / f"{number:05d}.bmp"
            if number < DRAWN:
                colours = generator.integers(brightness - 90, brightness + 90, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(colours).resize((SIZE, SIZE)).save(path)
            else:
                path.hardlink_to(folder / name / f"{number % DRAWN:05d}.bmp")


@pytest.mark.long
def test_data_larger_than_the_memory(tmp_path: Path, tasks: Path) -> None:
    """It ends as it does without a limit, to the bit."""
    make_pictures(tmp_path / "pictures")
    project = make_project(tmp_path / "project")
    folder = {"folder": str(tmp_path / "pictures"), "size": [SIZE, SIZE], "cache": "always"}
    blocks = {
        "large": {"preprocess": folder},
        "large_mlp": {"task": {"problem": "classification", "data": "large"}, **SETTINGS},
    }
    (project / "conf/base/parameters/large_mlp.yml").write_text(yaml.safe_dump(blocks))

    def run(*more: str, group: Path | None = None) -> None:
        command = [sys.executable, "-m", "kedro", "run", "--pipelines", "large_mlp", *more]
        place = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group)] if group else []
        environment = {**os.environ, "KEDRO_DISABLE_TELEMETRY": "1"}
        done = subprocess.run([*place, *command], cwd=project, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def outcome() -> tuple[object, object]:
        history = json.loads((project / "data/07_model_output/large_mlp/history.json").read_text())
        tensors, _ = read_tensors(project / "data/06_models/large_mlp/checkpoint.safetensors", "")
        rows = [{name: value for name, value in row.items() if name not in TIMES} for row in history]
        return rows, {name: tensor.tolist() for name, tensor in tensors.items()}

    run(group=tasks)
    assert (project / "data/03_primary/large/train.safetensors").stat().st_size > LIMIT
    limited = outcome()
    (project / "data/06_models/large_mlp/checkpoint.safetensors").unlink()
    run("--nodes", "large_mlp.train")
    assert outcome() == limited
