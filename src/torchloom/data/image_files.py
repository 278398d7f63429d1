"""Pictures that stay in their files and are decoded for each batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from torchloom.datasets.listing import stamp_of
from torchloom.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

AGAIN = "Run the data set's stages again, from find_files on"
SHARE = 8  # pictures that a thread takes at once


def read_picture(
    path: str | os.PathLike[str], stamp: tuple[int, int], shape: tuple[int, int, int], reading: Mapping[str, Any]
) -> np.ndarray:
    """A picture's pixels, decoded and resized to `shape` (H, W, C), uint8; `reading` are arguments of decode_image.

    Raises InputError when the file cannot be read, or is not the one that had this `stamp` (bytes, nanoseconds).
    """
    from torchloom.data.pictures import decode_image  # Pillow takes long to import

    height, width, channels = shape
    try:
        with open(path, "rb") as file:
            if stamp_of(os.fstat(file.fileno())) != tuple(stamp):
                raise InputError(f"has changed since it was listed. {AGAIN}")
            if not stamp[0]:
                raise InputError("is empty")
            return decode_image(file, (channels, height, width), **reading).transpose(1, 2, 0)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). {AGAIN}") from error
    except InputError as error:
        raise InputError(f"{path}: {error.message}") from error


def in_threads(pool: ThreadPoolExecutor, function: Callable[[int], T], numbers: Sequence[int]) -> Iterator[T]:
    """`function` of each number, in order; a thread takes several at once, as small pictures take it no time."""
    shares = [numbers[start : start + SHARE] for start in range(0, len(numbers), SHARE)]
    return chain.from_iterable(pool.map(lambda share: [function(number) for number in share], shares))


class ImageFiles:
    """Pictures that stay in their files: `index_select` decodes those that are asked for, by a pool of threads.

    It stands in for the (N, H, W, C) uint8 tensor of pictures whose pixels are kept, on the CPU.
    """

    def __init__(self, arrays: Mapping[str, Tensor], account: Mapping[str, Any]) -> None:
        """Of the tensors and the description that `Decoder` makes of a split."""
        from torchloom.system.devices import usable_cores

        self.names, self.starts, self.stamps = arrays["names"], arrays["name_starts"], arrays["stamps"]
        self.folder = str(account["folder"])
        self.reading = {"fit": account["fit"], "value_range": account.get("value_range")}
        height, width, channels = account["shape"]
        self.shape = (int(height), int(width), int(channels))
        self.pool = ThreadPoolExecutor(usable_cores(), "decode")

    def index_select(self, dimension: int, indices: Tensor) -> Tensor:
        """The pictures (B, H, W, C) uint8 of these `indices` (B,); InputError when one is not as it was."""
        import torch

        assert dimension == 0
        batch = np.empty((len(indices), *self.shape), dtype=np.uint8)
        for row, pixels in enumerate(in_threads(self.pool, self._read, indices.tolist())):
            batch[row] = pixels
        return torch.from_numpy(batch)

    def _read(self, number: int) -> np.ndarray:
        name = os.fsdecode(self.names[self.starts[number] : self.starts[number + 1]].numpy().tobytes())
        size, time = self.stamps[number].tolist()
        return read_picture(os.path.join(self.folder, name), (size, time), self.shape, self.reading)
