"""Small untrained models of each kind, exported once in a process."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from torchloom.data.text import Tokenizer
from torchloom.export import export_checkpoint
from torchloom.inference import Model
from torchloom.modalities import DocumentInfo, ImageInfo, Info, TableInfo, TextInfo
from torchloom.models import build_model
from torchloom.training.checkpoint import Checkpoint

WORDS = Tokenizer.of_words(["a good film , a bad film"], size=20, min_count=1)
LETTERS = Tokenizer.of_characters("abcdefgh \n")
GREY = ImageInfo(classes=["ä", "b$", "c"], shape=[1, 6, 8], mean=[0.5], std=[0.2])
TABLE = TableInfo(
    features=["age", "bmi"], target="glucose", mean=[50.0, 25.0], std=[10.0, 5.0], target_mean=100.0, target_std=20.0
)

REVIEWS = DocumentInfo(classes=["bad", "good"], tokenizer=WORDS)
KINDS: dict[str, tuple[str, dict[str, Any], Info]] = {
    "images": ("mlp", {"hidden": [8]}, GREY),
    "reconstruction": ("autoencoder", {"hidden": [8], "latent": 3}, GREY),
    "documents": ("text_rnn", {"cell": "gru", "embedding": 4, "width": 4, "bidirectional": False}, REVIEWS),
    "text": ("language_rnn", {"cell": "gru", "embedding": 4, "width": 8, "layers": 1}, TextInfo(tokenizer=LETTERS)),
    "table": ("linear", {}, TABLE),
}


@cache
def checkpoint(kind: str) -> Checkpoint:
    network, arguments, info = KINDS[kind]
    torch.manual_seed(0)
    weights = dict(build_model(network, arguments, info).state_dict())
    return Checkpoint(network=network, arguments=arguments, info=info, training={}, weights=weights)


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
