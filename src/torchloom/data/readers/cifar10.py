"""CIFAR-10: 32x32 colour images of ten kinds of things, 50,000 to train and 10,000 to test, as Python pickles.

Krizhevsky, "Learning multiple layers of features from tiny images", technical report, University of Toronto, 2009.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import ImagesPreprocessConfig
from torchloom.data.download import write_sums
from torchloom.data.images import LabelledImages, join, prepare
from torchloom.datasets.raw import AGAIN, RawFiles
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError

FOLDER = "cifar-10-batches-py"
LARGEST_BATCH = 64 << 20  # bytes; in truth 31 MB
TRAIN_BATCHES = [f"{FOLDER}/data_batch_{number}" for number in range(1, 6)]


def preprocess(raw: RawFiles, config: ImagesPreprocessConfig) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
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
    for place, name in enumerate(names):
        if not name.strip() or not name.isprintable() or name in names[:place]:
            raise InputError(f"{path}: the name {name!r} in 'label_names' is empty, not printable or there twice")
    return names


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle of numbers, strings, lists and uint8 arrays.

    Nothing that the file names is imported or called: what CIFAR-10's batches need of numpy is stood in for by
    classes that only take down what they are given. A file that asks for anything else, or that could make the
    unpickler take much more memory or time than a genuine one, is an InputError.
    """
    try:
        with path.open("rb") as file:
            pickled = file.read(LARGEST_BATCH + 1)
        _check_instructions(pickled)
        value = _BatchUnpickler(io.BytesIO(pickled), encoding="latin1").load()
        if not isinstance(value, dict):
            raise InputError(f"holds a {type(value).__name__}, not a dictionary. {AGAIN}")
        items = ((key, item) for key, item in value.items() if isinstance(key, str))
        return {key: _as_array(item) if isinstance(item, _Array) else item for key, item in items}
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # the unpickler answers a damaged file with whatever its bytes provoke
        raise InputError(
            f"{path}: not a readable CIFAR-10 pickle ({type(error).__name__}: {error}). {AGAIN}"
        ) from error


# The instructions that a pickle of such values needs, by pickletools' names.
PLAIN = {
    "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
NAMED = {"GLOBAL", "STACK_GLOBAL", "REDUCE"}  # only ever make stand-ins
TUPLES = {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
STORES, FETCHES = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"GET", "BINGET", "LONG_BINGET"}
OTHERS = {
    "PROTO", "FRAME", "STOP", "MARK", "BUILD", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "LIST",
    "APPEND", "APPENDS",
}  # fmt: skip
ALLOWED = PLAIN | NAMED | TUPLES | STORES | FETCHES | OTHERS
MOST_INSTRUCTIONS, MOST_TUPLES = 1_000_000, 1_000  # in truth 40,000 and 10


def _check_instructions(pickled: bytes) -> None:
    """Refuse what a genuine batch does without and what is no longer bounded by the length of the file.

    That is a far place in the memo, up to which the unpickler would allocate it, and tuples that are fetched from the
    memo or deep in each other: to hash them can take time without end or all of the C stack.
    """
    if len(pickled) > LARGEST_BATCH:
        raise InputError(f"has more than {LARGEST_BATCH >> 20} MiB, which no genuine CIFAR-10 file has. {AGAIN}")
    tuples, before = 0, ""
    memo: dict[Any, str] = {}  # place -> the instruction that made what lies there
    for count, (instruction, argument, _) in enumerate(pickletools.genops(pickled), 1):
        name = instruction.name
        place: Any = len(memo) if name == "MEMOIZE" else argument
        if name in STORES:
            memo[place] = before
        tuples += name in TUPLES
        stray = (name in STORES and place > count) or (name in FETCHES and memo.get(place) not in PLAIN | NAMED)
        if name not in ALLOWED or stray or count > MOST_INSTRUCTIONS or tuples > MOST_TUPLES:
            raise _unwanted(f"the instruction {name}" + (f" {place}" if stray else ""))
        before = name


def _unwanted(what: str) -> InputError:
    return InputError(f"asks for {what}, which no genuine CIFAR-10 file does; it was not loaded. {AGAIN}")


class _Standin:
    """What is made of a name in a pickle: it takes down what it is given, and does nothing."""

    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Standin):
    """Of a numpy array."""


class _Dtype(_Standin):
    """Of a numpy dtype."""


class _Encoded(_Standin):
    """Of bytes as Python 3 writes them with protocols up to 2: text, and the encoding that makes it bytes."""


_STANDINS: dict[tuple[str, str], type[_Standin]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encoded,
}


class _BatchUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STANDINS[module, name]
        except KeyError:
            raise _unwanted(repr(f"{module}.{name}")) from None


def _as_array(standin: _Array) -> np.ndarray:
    """The uint8 array whose pickled state is (version, shape, dtype, Fortran order, bytes)."""
    match standin.state:
        case (int(), tuple(shape), _Dtype(arguments=("u1", *_)), bool(False) | 0, data):
            if isinstance(data, _Encoded) and data.arguments[1:] == ("latin1",):
                data = data.arguments[0]
            if isinstance(data, str):
                data = data.encode("latin1")
            whole = len(shape) <= 4 and all(type(size) is int and 0 <= size < 2**32 for size in shape)
            if isinstance(data, bytes) and whole and math.prod(shape) == len(data):
                return np.frombuffer(data, dtype=np.uint8).reshape(shape)
    raise InputError(f"holds an array that is not plain uint8 values of the shape it states. {AGAIN}")


# The points (x, y) of each shape around (0, 0), which reaches out to about 1.
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disk": lambda x, y: np.hypot(x, y) < 0.9,
    "ring": lambda x, y: abs(np.hypot(x, y) - 0.8) < 0.2,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.8,
    "frame": lambda x, y: abs(np.maximum(abs(x), abs(y)) - 0.725) < 0.175,
    "triangle": lambda x, y: (y < 0.7) & (y > 1.8 * abs(x) - 1),
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1),
    "stripes": lambda x, y: (np.sin(y * 7) > 0) & (np.maximum(abs(x), abs(y)) < 1),
    "checkers": lambda x, y: (np.sin(x * 6) * np.sin(y * 6) > 0) & (np.maximum(abs(x), abs(y)) < 1),
    "star": lambda x, y: np.hypot(x, y) < 0.55 + 0.4 * np.cos(5 * np.arctan2(y, x)),
    "crescent": lambda x, y: (np.hypot(x, y) < 0.95) & (np.hypot(x - 0.45, y) > 0.75),
}


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
    meta = {"num_cases_per_batch": train // 5, "label_names": list(SHAPES), "num_vis": 3072}
    (folder / FOLDER / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    write_sums(folder)


def _write_batch(path: Path, title: str, count: int, generator: np.random.Generator) -> None:
    labels = generator.permutation(np.arange(count) % len(SHAPES))
    names = list(SHAPES)
    batch = {
        "batch_label": title,
        "labels": labels.tolist(),
        "data": draw_shapes(labels, generator).reshape(count, 3072),
        "filenames": [f"{names[label]}_{index:05d}.png" for index, label in enumerate(labels)],
    }
    path.write_bytes(pickle.dumps(batch, protocol=2))


def draw_shapes(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(N, 3, 32, 32) uint8 images of the shapes that (N,) `labels` name, on coloured ground."""
    count = len(labels)
    size = generator.uniform(8, 14, (count, 1, 1)).astype(np.float32)  # radius in pixels
    turn = generator.uniform(-0.5, 0.5, (count, 1, 1)).astype(np.float32)
    centre = (generator.uniform(-4, 4, (2, count, 1, 1)) + 15.5).astype(np.float32)
    y, x = np.mgrid[0:32, 0:32][:, None].astype(np.float32)
    x, y = (x - centre[0]) / size, (y - centre[1]) / size
    x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    inside = np.empty((count, 32, 32), bool)
    for label, covers in enumerate(SHAPES.values()):
        inside[labels == label] = covers(x[labels == label], y[labels == label])
    ground = generator.uniform(0, 255, (count, 3, 1, 1)).astype(np.float32)
    ink = (ground + generator.uniform(70, 185, ground.shape).astype(np.float32)) % 256  # never near the ground's colour
    noise = 18 * generator.standard_normal((count, 3, 32, 32), dtype=np.float32)
    pictures = np.where(inside[:, None], ink, ground) + noise
    return np.clip(pictures, 0, 255).astype(np.uint8)
