"""MNIST: 28x28 grey images of handwritten digits, 60,000 to train and 10,000 to test, as IDX files.

LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86(11), 1998.
"""

from __future__ import annotations

import math
import os
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import ImagesPreprocessConfig
from torchloom.data.download import write_sums
from torchloom.data.images import LabelledImages, prepare
from torchloom.datasets.raw import AGAIN, RawFiles
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError

CLASSES = [str(digit) for digit in range(10)]


def preprocess(raw: RawFiles, config: ImagesPreprocessConfig) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Raw IDX files -> training, validation and test tensors, and what is known about them."""
    train, test = read_images(raw)
    return prepare(train, test, CLASSES, config)


def read_images(raw: RawFiles) -> tuple[LabelledImages, LabelledImages]:
    """The training and the test images of four files that are named as MNIST's."""
    train, test = (
        LabelledImages(
            read_idx(raw.path(f"{part}-images-idx3-ubyte"), dimensions=3)[..., None],
            read_idx(raw.path(f"{part}-labels-idx1-ubyte"), dimensions=1).astype(np.int64),
        )
        for part in ("train", "t10k")
    )
    return train, test


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array of an IDX file with that many dimensions; InputError when the file is not one.

    The format: two zero bytes, the type (8 = uint8), the number of dimensions, each size as a big-endian uint32,
    then the values, the last dimension fastest.
    """
    length = 4 + 4 * dimensions
    with path.open("rb") as file:
        header = file.read(length)
        if len(header) < length or header[:4] != bytes([0, 0, 8, dimensions]):
            raise InputError(f"{path}: not an IDX file of uint8 values in {dimensions} dimensions. {AGAIN}")
        shape = struct.unpack(f">{dimensions}I", header[4:])
        size, expected = os.fstat(file.fileno()).st_size, length + math.prod(shape)
        if size != expected:
            raise InputError(f"{path}: has {size} bytes, but its header {shape} asks for {expected}. {AGAIN}")
        try:
            return np.frombuffer(file.read(), dtype=np.uint8).reshape(shape)
        except ValueError as error:  # one size is 0 and the others are beyond numpy
            raise InputError(f"{path}: its header {shape} describes no array. {AGAIN}") from error


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write a uint8 array as an IDX file."""
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(header + np.ascontiguousarray(values, dtype=np.uint8).tobytes())


# The strokes of each digit as polylines in the unit square, x to the right and y downwards.
STROKES: dict[int, list[list[tuple[float, float]]]] = {
    0: [
        [
            (0.5, 0.1),
            (0.25, 0.25),
            (0.2, 0.5),
            (0.25, 0.75),
            (0.5, 0.9),
            (0.75, 0.75),
            (0.8, 0.5),
            (0.75, 0.25),
            (0.5, 0.1),
        ]
    ],
    1: [[(0.35, 0.25), (0.55, 0.1), (0.55, 0.9)]],
    2: [[(0.25, 0.3), (0.35, 0.12), (0.6, 0.1), (0.75, 0.25), (0.65, 0.5), (0.25, 0.9), (0.8, 0.88)]],
    3: [
        [
            (0.25, 0.15),
            (0.6, 0.1),
            (0.75, 0.27),
            (0.6, 0.46),
            (0.42, 0.48),
            (0.65, 0.52),
            (0.78, 0.7),
            (0.6, 0.9),
            (0.25, 0.85),
        ]
    ],
    4: [[(0.6, 0.1), (0.2, 0.6), (0.8, 0.6)], [(0.62, 0.35), (0.6, 0.92)]],
    5: [[(0.75, 0.1), (0.32, 0.12), (0.28, 0.48), (0.6, 0.43), (0.77, 0.65), (0.6, 0.9), (0.25, 0.85)]],
    6: [[(0.65, 0.1), (0.35, 0.35), (0.25, 0.68), (0.4, 0.9), (0.65, 0.88), (0.74, 0.68), (0.58, 0.52), (0.3, 0.62)]],
    7: [[(0.22, 0.12), (0.78, 0.12), (0.42, 0.9)]],
    8: [
        [
            (0.5, 0.1),
            (0.28, 0.28),
            (0.5, 0.48),
            (0.75, 0.7),
            (0.5, 0.9),
            (0.25, 0.7),
            (0.5, 0.48),
            (0.72, 0.28),
            (0.5, 0.1),
        ]
    ],
    9: [[(0.72, 0.35), (0.5, 0.48), (0.3, 0.32), (0.42, 0.12), (0.65, 0.12), (0.72, 0.35), (0.6, 0.9)]],
}


def draw_sample(folder: Path, train: int = 4000, test: int = 1000, seed: int = 0) -> None:
    """Draw digits of our own, in MNIST's format and with a SHA256SUMS, into `folder`.

    Each is the digit's strokes under a random affine map, with random thickness, brightness and noise.
    """
    generator = np.random.default_rng(seed)
    for part, count in (("train", train), ("t10k", test)):
        labels = generator.permutation(np.arange(count) % 10)
        write_idx(folder / f"{part}-images-idx3-ubyte", draw_digits(labels, generator))
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
    write_sums(folder)


def draw_digits(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(N, 28, 28) uint8 images of the digits that (N,) `labels` name: bright strokes on black."""
    images = np.empty((len(labels), 28, 28), np.uint8)
    for label, strokes in STROKES.items():
        chosen = np.flatnonzero(labels == label)
        images[chosen] = _draw(strokes, len(chosen), generator)
    return images


def _draw(strokes: list[list[tuple[float, float]]], count: int, generator: np.random.Generator) -> np.ndarray:
    """(count, 28, 28) uint8 images of one digit."""
    turn, shear = generator.normal(0, 0.15, count), generator.normal(0, 0.2, count)
    rows = [[np.cos(turn), -np.sin(turn) + shear], [np.sin(turn), np.cos(turn)]]
    matrix = np.moveaxis(np.array(rows), 2, 0) * generator.uniform(15, 22, (count, 1, 2))  # width and height in pixels
    centre = 13.5 + generator.normal(0, 1.2, (count, 1, 2))
    y, x = np.mgrid[0:28, 0:28].astype(np.float32)
    nearest = np.full((count, 28, 28), np.inf, np.float32)  # squared distance to the strokes
    for stroke in strokes:
        points = np.array(stroke) - 0.5 + generator.normal(0, 0.03, (count, len(stroke), 2))
        points = (points @ matrix.transpose(0, 2, 1) + centre).astype(np.float32)
        for start, end in pairwise(np.moveaxis(points, 1, 0)[..., None, None]):
            across, down = end[:, 0] - start[:, 0], end[:, 1] - start[:, 1]
            right, below = x - start[:, 0], y - start[:, 1]
            share = np.clip((right * across + below * down) / (across**2 + down**2), 0, 1)
            nearest = np.minimum(nearest, (right - share * across) ** 2 + (below - share * down) ** 2)
    thickness, brightness = generator.uniform(1.2, 2.0, (count, 1, 1)), generator.uniform(180, 255, (count, 1, 1))
    ink: np.ndarray = np.clip(thickness - np.sqrt(nearest), 0, 1) * brightness
    ink += 12 * generator.standard_normal(ink.shape, dtype=np.float32)
    images: np.ndarray = np.clip(ink, 0, 255).astype(np.uint8)
    return images
