"""Small untrained models of each kind, exported once in a process."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from torchloom.data.moments import Clock
from torchloom.data.targets import Classes, Horizon, Number
from torchloom.data.text import Tokenizer
from torchloom.export.onnx import export_checkpoint
from torchloom.inference.model import Model
from torchloom.modalities import (
    AudioInfo,
    DocumentInfo,
    ImageInfo,
    Info,
    LabelledSeriesInfo,
    SeriesInfo,
    TableInfo,
    TextInfo,
)
from torchloom.models import build_model
from torchloom.problems import problem_of
from torchloom.training.checkpoint import Checkpoint

WORDS = Tokenizer.of_words(["a good film , a bad film"], size=20, min_count=1)
LETTERS = Tokenizer.of_characters("abcdefgh \n")
CLASSES = ["ä", "b$", "c"]
GREY = ImageInfo(target=Classes(classes=CLASSES), shape=[1, 6, 8], mean=[0.5], std=[0.2])
TABLE = TableInfo(
    features=["age", "bmi"], mean=[50.0, 25.0], std=[10.0, 5.0], target=Number(name="glucose", mean=100.0, std=20.0)
)
REVIEWS = DocumentInfo(target=Classes(classes=["bad", "good"]), tokenizer=WORDS)
SOUNDS = AudioInfo(target=Classes(classes=["high", "low"]), rate=1000, mean=[-5.0] * 8, std=[3.0] * 8)
SERIES = SeriesInfo(
    time="day",
    clock=Clock(microseconds=86_400_000_000),
    channels=["load", "heat"],
    window=4,
    longest_gap=1,
    mean=[50.0, 0.2],
    std=[10.0, 0.1],
    target=Horizon(steps=2),
)
KIND = Classes(classes=["slow", "quick"])
# Labelled series in the three forms that tables have them in: by columns, by rows and in a cell.
WAVES = {
    "in a row": LabelledSeriesInfo(
        channels=["value"], steps=["t0", "t1", "t2", "t3"], length=4, mean=[0.0], std=[1.0], target=KIND
    ),
    "in rows": LabelledSeriesInfo(
        channels=["x", "y"], series="name", time="step", length=4, mean=[0.0] * 2, std=[1.0] * 2, target=KIND
    ),
    "in a cell": LabelledSeriesInfo(channels=["wave"], array="wave", length=4, mean=[0.0], std=[1.0], target=KIND),
}
TEXT_RNN = {"cell": "gru", "embedding": 4, "width": 4, "bidirectional": False}
LANGUAGE_RNN = {"cell": "gru", "embedding": 4, "width": 8, "layers": 1}
KINDS: dict[str, tuple[str, str, dict[str, Any], Info]] = {
    "images": ("classification", "mlp", {"hidden": [8]}, GREY),
    "draws": ("generation", "dcgan", {"width": 2, "latent": 3}, GREY.model_copy(update={"shape": [1, 8, 9]})),
    "reconstruction": ("reconstruction", "autoencoder", {"hidden": [8], "latent": 3}, GREY),
    "documents": ("classification", "text_rnn", TEXT_RNN, REVIEWS),
    "text": ("language_model", "language_rnn", LANGUAGE_RNN, TextInfo(tokenizer=LETTERS)),
    "table": ("regression", "linear", {}, TABLE),
    "audio": ("classification", "audio_cnn", {"widths": [4, 8]}, SOUNDS),
    **{kind: ("classification", "series_cnn", {"widths": [4], "kernels": [3]}, info) for kind, info in WAVES.items()},
    "series": ("forecasting", "dlinear", {"kernel": 3, "normalization": "instance"}, SERIES),
}


@cache
def checkpoint(kind: str) -> Checkpoint:
    problem, network, arguments, info = KINDS[kind]
    torch.manual_seed(0)
    weights = dict(build_model(network, arguments, info, problem_of(problem)).state_dict())
    return Checkpoint(network=network, arguments=arguments, problem=problem, info=info, training={}, weights=weights)


@cache
def exported(kind: str) -> bytes:
    return export_checkpoint(checkpoint(kind))


@cache
def model(kind: str) -> Model:
    return Model(exported(kind), threads=1)


def answers(kind: str, *inputs: np.ndarray) -> Any:
    """What the network itself answers, in PyTorch."""
    with torch.no_grad():
        found = checkpoint(kind).build()(*map(torch.from_numpy, inputs))
    return found.numpy() if isinstance(found, torch.Tensor) else tuple(part.numpy() for part in found)


def probabilities(kind: str, *inputs: np.ndarray) -> np.ndarray:
    return softmax(answers(kind, *inputs), axis=1)


def write(kind: str, folder: Path) -> Path:
    """The exported model as a file in `folder`."""
    path = folder / f"{kind}.onnx"
    path.write_bytes(exported(kind))
    return path


def picture(number: int = 0) -> np.ndarray:
    """A grey picture (6, 8) uint8 as the models of images take it."""
    return np.random.default_rng(number).integers(0, 256, (6, 8), dtype=np.uint8)
