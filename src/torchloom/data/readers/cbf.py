"""Cylinder, bell and funnel: series of 128 steps with a plateau, a rise or a fall somewhere in noise.

They are drawn by the project, as Saito, "Local feature extraction and its applications using a library of bases" (1994)
defines them, in tables with a series in each row.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import CBFPreprocessConfig, LabelledSeriesPreprocessConfig
from torchloom.data.download import write_sums
from torchloom.data.readers import labelled_series
from torchloom.datasets.raw import RawFiles
from torchloom.datasets.tensors import Tensors

LENGTH = 128
SHAPES = ["cylinder", "bell", "funnel"]
TARGET, STEPS = "shape", [f"t{step}" for step in range(LENGTH)]


def preprocess(raw: RawFiles, config: CBFPreprocessConfig) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Raw tables -> training, validation and test tensors and what is known about them: as of a user's own series."""
    folder = raw.path("train.csv").parent
    given: dict[str, Any] = {"files": str(folder), "target": TARGET, "columns": STEPS, "seed": config.seed}
    own = LabelledSeriesPreprocessConfig(validation_fraction=config.validation_fraction, **given)
    own = own if config.fold is None else own.of_fold(config.fold)
    return labelled_series.preprocess(labelled_series.find(own), own, folder)


def draw_sample(folder: Path, train: int = 600, test: int = 900, seed: int = 0) -> None:
    """Write series of our own as train.csv and test.csv, and a SHA256SUMS, into `folder`."""
    generator = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([TARGET, *STEPS])
            for number in range(count):
                shape = SHAPES[number % len(SHAPES)]
                writer.writerow([shape, *(f"{value:.5f}" for value in series(shape, generator))])
    write_sums(folder)


def series(shape: str, generator: np.random.Generator) -> np.ndarray:
    """(128,): from one place to another 6 on average, at once, rising or falling, in noise of deviation 1."""
    begins = int(generator.integers(16, 33))
    ends = begins + int(generator.integers(32, 97))
    steps = np.arange(1, LENGTH + 1)
    share = (steps - begins) / (ends - begins)
    height = {"cylinder": np.ones(LENGTH), "bell": share, "funnel": 1 - share}[shape]
    inside = (steps >= begins) & (steps <= ends)
    return (6 + generator.normal()) * height * inside + generator.normal(size=LENGTH)
