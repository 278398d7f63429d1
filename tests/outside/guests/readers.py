"""Pictures in text files: eight lines of eight numbers, and the class in the file's name."""

from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import PreprocessConfig
from torchloom.data.images import LabelledImages, prepare
from torchloom.datasets.listing import Listing, scan

CLASSES = ["dark", "light"]


class PlainConfig(PreprocessConfig):
    folder: str


def find(config: PlainConfig) -> Listing:
    return scan(Path(config.folder), "preprocess.folder", {".txt"})


def preprocess(listing: Listing, config: PlainConfig, scratch: Path) -> Any:
    paths = sorted(listing.paths)
    images = np.stack([np.loadtxt(path, dtype=np.uint8) for path in paths])[..., np.newaxis]
    labels = np.array([CLASSES.index(path.stem.partition("_")[0]) for path in paths], dtype=np.int64)
    everything = LabelledImages(images, labels)
    return prepare(everything[::2], everything[1::2], CLASSES, config)
