"""A reader of a user's own: files with a sequence in each line, and after a semicolon how many pulses it has."""

from pathlib import Path
from typing import Any

import numpy as np

from guests.sequences import SequenceInfo
from torchloom.config import PreprocessConfig
from torchloom.data.targets import Number
from torchloom.datasets.listing import Listing, scan
from torchloom.datasets.tensors import Tensors


class PulsesConfig(PreprocessConfig):
    folder: str


def find(config: PulsesConfig) -> Listing:
    return scan(Path(config.folder), "preprocess.folder", {".txt"})


def preprocess(
    listing: Listing, config: PulsesConfig, scratch: Path
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    lines = [line for path in sorted(listing.paths) for line in path.read_text().splitlines()]
    sequences = np.array([line.partition(";")[0].split() for line in lines], dtype=np.float32)
    counts = np.array([line.partition(";")[2] for line in lines], dtype=np.float32)
    order = np.random.default_rng(config.seed).permutation(len(lines))
    test, validation, train = np.split(order, [len(lines) // 5, len(lines) // 3])
    target = Number(name="pulses", mean=float(counts[train].mean()), std=float(counts[train].std()))
    info = SequenceInfo(length=sequences.shape[1], highest=float(sequences[train].max()), target=target)
    parts = [Tensors({"sequences": sequences[rows], "target": counts[rows]}) for rows in (train, validation, test)]
    return parts[0], parts[1], parts[2], info.model_dump(mode="json")
