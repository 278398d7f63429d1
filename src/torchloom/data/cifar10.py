"""CIFAR-10: 32x32 colour images of ten kinds of things, 50,000 to train and 10,000 to test, as Python pickles.

Krizhevsky, "Learning multiple layers of features from tiny images", technical report, University of Toronto, 2009.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import PreprocessConfig
from torchloom.data.download import RawFiles, write_sums
from torchloom.data.images import LabelledImages, join, prepare
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError

FOLDER = "cifar-10-batches-py"
TRAIN_BATCHES = [f"{FOLDER}/data_batch_{number}" for number in range(1, 6)]


def preprocess(raw: RawFiles, config: PreprocessConfig) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Raw batches -> training, validation and test tensors, and what is known about them."""
    train = join([read_batch(raw.path(name)) for name in TRAIN_BATCHES])
    test = read_batch(raw.path(f"{FOLDER}/test_batch"))
    return prepare(train, test, read_class_names(raw.path(f"{FOLDER}/batches.meta")), config)


def read_batch(path: Path) -> LabelledImages:
    """The (N, 32, 32, 3) uint8 images and (N,) int64 labels of one batch file."""
    batch = read_pickle(path)
    data, labels = batch.get("data"), batch.get("labels")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3072:
        raise InputError(f"{path}: 'data' is not an array of 3,072 bytes a row")
    if not isinstance(labels, list) or len(labels) != len(data) or not all(type(label) is int for label in labels):
        raise InputError(f"{path}: 'labels' is not a list of {len(data)} whole numbers")
    images = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    try:
        return LabelledImages(np.ascontiguousarray(images), np.array(labels, dtype=np.int64))
    except OverflowError as error:
        raise InputError(f"{path}: 'labels' holds a number beyond 64 bits") from error


def read_class_names(path: Path) -> list[str]:
    names = read_pickle(path).get("label_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: 'label_names' is not a list of names")
    return names


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle of numbers, strings, lists and uint8 arrays.

    Nothing that the file names is imported or called: what CIFAR-10's batches need of numpy is stood in for by
    `_Array` and `_Dtype`, which only take down what they are given; any other name is an InputError.
    """
    try:
        with path.open("rb") as file:
            value = _BatchUnpickler(file, encoding="latin1").load()
        if not isinstance(value, dict):
            raise InputError(f"holds a {type(value).__name__}, not a dictionary")
        return {str(key): _as_array(item) if isinstance(item, _Array) else item for key, item in value.items()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # the unpickler answers a damaged file with whatever its bytes provoke
        raise InputError(f"{path}: not a readable CIFAR-10 pickle ({type(error).__name__}: {error})") from error


class _Array:
    """Stands in for a numpy array while a pickle is read."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype:
    """Stands in for a numpy dtype: remembers its name and nothing else."""

    def __init__(self, name: Any = None, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        pass


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes into a pickle of protocol 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes in an unknown encoding")
    return text.encode("latin1")


_STANDINS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _BatchUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STANDINS[module, name]
        except KeyError:
            raise InputError(
                f"asks for {module}.{name}, which no genuine CIFAR-10 file does; it was not loaded. "
                "Remove the file and run the download stage again."
            ) from None


def _as_array(standin: _Array) -> np.ndarray:
    """The uint8 array whose pickled state is (version, shape, dtype, Fortran order, bytes)."""
    match standin.state:
        case (int(), tuple(shape), _Dtype(name="u1"), bool(False) | 0, bytes() | str() as data):
            values = np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype=np.uint8)
            if (
                all(type(size) is int and size >= 0 for size in shape)
                and int(np.prod(shape, dtype=object)) == values.size
            ):
                return values.reshape(shape)
    raise InputError("holds an array that is not plain uint8 values of the shape it states")


SHAPES = ["disk", "ring", "square", "frame", "triangle", "cross", "stripes", "checkers", "star", "crescent"]


def draw_sample(folder: Path, train: int = 4000, test: int = 1000, seed: int = 0) -> None:
    """Draw shapes of our own, in CIFAR-10's format and with a SHA256SUMS, into `folder`.

    Size, place, turn, both colours and the noise are random, so only the shape tells the class. `train` is spread
    over the five training batches.
    """
    generator = np.random.default_rng(seed)
    (folder / FOLDER).mkdir(parents=True)
    for number, name in enumerate(TRAIN_BATCHES, 1):
        _write_batch(folder / name, f"training batch {number} of 5", train // 5, generator)
    _write_batch(folder / FOLDER / "test_batch", "testing batch 1 of 1", test, generator)
    meta = {"num_cases_per_batch": train // 5, "label_names": SHAPES, "num_vis": 3072}
    (folder / FOLDER / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    write_sums(folder)


def _write_batch(path: Path, title: str, count: int, generator: np.random.Generator) -> None:
    labels = generator.permutation(np.arange(count) % len(SHAPES))
    batch = {
        "batch_label": title,
        "labels": labels.tolist(),
        "data": draw_shapes(labels, generator).reshape(count, 3072),
        "filenames": [f"{SHAPES[label]}_{index:05d}.png" for index, label in enumerate(labels)],
    }
    path.write_bytes(pickle.dumps(batch, protocol=2))


def draw_shapes(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(N, 3, 32, 32) uint8 images of the shapes that (N,) `labels` name, on coloured ground."""
    count = len(labels)
    size = generator.uniform(8, 14, (count, 1, 1))  # radius in pixels
    turn = generator.uniform(-0.5, 0.5, (count, 1, 1))
    centre = generator.uniform(-4, 4, (2, count, 1, 1)) + 15.5
    y, x = np.mgrid[0:32, 0:32][:, None]
    x, y = (x - centre[0]) / size, (y - centre[1]) / size
    x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    radius, angle, extent = np.hypot(x, y), np.arctan2(y, x), np.maximum(abs(x), abs(y))
    inside = np.choose(
        labels[:, None, None],
        [
            radius < 0.9,
            (radius < 1) & (radius > 0.6),
            extent < 0.8,
            (extent < 0.9) & (extent > 0.55),
            (y < 0.7) & (y > 1.8 * abs(x) - 1),
            (np.minimum(abs(x), abs(y)) < 0.3) & (extent < 1),
            (np.sin(y * 7) > 0) & (extent < 1),
            (np.sin(x * 6) * np.sin(y * 6) > 0) & (extent < 1),
            radius < 0.55 + 0.4 * np.cos(5 * angle),
            (radius < 0.95) & (np.hypot(x - 0.45, y) > 0.75),
        ],
    )
    ground = generator.uniform(0, 255, (count, 3, 1, 1))
    ink = (ground + generator.uniform(70, 185, (count, 3, 1, 1))) % 256  # never near the ground's colour
    pictures = np.where(inside[:, None], ink, ground) + generator.normal(0, 18, (count, 3, 32, 32))
    return np.clip(pictures, 0, 255).astype(np.uint8)
