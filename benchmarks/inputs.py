"""Data and parameters: what the project prepared, else what it draws itself, else random pixels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from torchloom.data.images import LabelledImages
from torchloom.data.targets import Classes
from torchloom.datasets.tensors import TensorsDataset

CLASSES = 10


def environment(data: str, quick: bool) -> str:
    """Kedro's environment with the data set: base, if it was prepared there, else sample, which is drawn if need be."""
    if not quick and (prepared("base", data) / "info.json").is_file():
        return "base"
    if not (prepared("sample", data) / "info.json").is_file():
        kedro("run", "--env", "sample", "--namespaces", data)
    return "sample"


def prepared(env: str, data: str) -> Path:
    """The folder of the prepared tensors."""
    return data_folder(env) / "03_primary" / data


def describe(env: str, data: str) -> str:
    return f"{data}, {'drawn by the project' if env == 'sample' else 'the real data'}, {prepared(env, data)}"


def data_folder(env: str) -> Path:
    """Where an environment keeps all layers of its data, as its globals.yml says."""
    files = [Path("conf") / name / "globals.yml" for name in ("base", env)]
    merged = OmegaConf.merge(*(OmegaConf.load(file) for file in files if file.is_file()))
    return Path(merged.data)


def parameters(name: str, env: str = "base") -> dict[str, Any]:
    """The parameters of a task or data set in an environment."""
    files = [Path("conf") / folder / "parameters" / f"{name}.yml" for folder in ("base", env)]
    merged = OmegaConf.merge(*(OmegaConf.load(file) for file in files if file.is_file()))
    blocks: dict[str, Any] = OmegaConf.to_container(merged)[name]  # type: ignore[call-overload, index, assignment]
    return blocks


def random_images(folder: Path, count: int, shape: tuple[int, int, int] = (32, 32, 3)) -> Path:
    """Fill `folder` as preprocessing would: `count` random images (H, W, C) to train on and a few to test."""
    generator = np.random.default_rng(0)
    for split, size in {"train": count, "validation": 0, "test": CLASSES}.items():
        images = generator.integers(256, size=(size, *shape), dtype=np.uint8)
        labels = generator.integers(CLASSES, size=size)
        TensorsDataset(filepath=str(folder / f"{split}.safetensors")).save(LabelledImages(images, labels).tensors())
    target = Classes(classes=[str(number) for number in range(CLASSES)])
    height, width, channels = shape
    scale = {"mean": [0.5] * channels, "std": [0.29] * channels}
    info = {"kind": "images", "target": target.model_dump(), "shape": [channels, height, width], **scale}
    (folder / "info.json").write_text(json.dumps(info), encoding="utf-8")
    return folder


def kedro(*arguments: str) -> None:
    """`kedro …` as a user types it, in a new process."""
    run_python("-m", "kedro", *arguments)


def run_python(*arguments: str) -> str:
    """A new Python process with these arguments; returns what it printed."""
    environ = {**os.environ, "COLUMNS": "120"}
    done = subprocess.run([sys.executable, *arguments], env=environ, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"python {' '.join(arguments)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout
