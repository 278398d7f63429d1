"""Named tensors in one safetensors file, sealed with a fingerprint: prepared data, checkpoints, states of a training.

No pickle, so reading one cannot run code; and what is read is what was written, or refused.
"""

from __future__ import annotations

import errno
import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from kedro.io import AbstractDataset

from torchloom.errors import InputError
from torchloom.system.files import Stamp, atomic_write, stamp

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {"U8": "uint8", "I64": "int64", "F32": "float32"}  # of prepared data, as safetensors and torch call them
KEY = "torchloom"  # the one entry of the file's metadata: safetensors writes several in any order


def write_tensors(path: Path, tensors: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Write numpy arrays, or tensors of torch, and a `description` in JSON; the same ones make the same bytes."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file as save_arrays

    described = json.dumps({**description, "fingerprint": fingerprint(tensors, description)}, sort_keys=True)
    save: Any = save_arrays
    if not all(isinstance(tensor, np.ndarray) for tensor in tensors.values()):
        from safetensors.torch import save_file as save
    with atomic_write(path) as temporary:
        try:
            save(dict(tensors), temporary, metadata={KEY: described})
        except SafetensorError as error:
            if "No space left" in str(error):
                raise OSError(errno.ENOSPC, "No space left on device") from error
            raise


def read_tensors(path: Path, again: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file, memory-mapped (pages are read when they are used), and the description.

    Raises InputError, which ends with `again`, when the file is missing or not as it was written; its contents are
    looked at once for each process.
    """
    try:
        path.open("rb").close()  # safetensors takes a file that it may not read for one that is not there
        tensors, description = _open(path)
        _verify(path, stamp(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: missing. {again}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}). {again}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: damaged or not a file of ours ({error}). {again}") from error
    return tensors, description


def _open(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(error) from error
    except RuntimeError as error:
        if "unable to mmap" not in str(error):
            raise
        tensors, description = _open_large(path)
    if not isinstance(description, dict) or "fingerprint" not in description:
        raise ValueError("no fingerprint")
    return tensors, description


def _open_large(path: Path) -> tuple[dict[str, Tensor], Any]:
    """`_open` of a file that is larger than the memory, read-only: torch maps writably, which Linux then refuses."""
    import torch

    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
    description = json.loads(header.pop("__metadata__", {}).get(KEY, "null"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        data = torch.from_numpy(np.memmap(path, np.uint8, "r", offset=start))
    tensors = {}
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        tensors[name] = data[first:end].view(getattr(torch, DTYPES[entry["dtype"]])).reshape(entry["shape"])
    return tensors, description


@lru_cache(maxsize=1000)
def _verify(path: Path, stamp: Stamp) -> None:  # noqa: ARG001
    """Hold the file's contents to its fingerprint; `stamp` makes a changed file another one."""
    tensors, description = _open(path)
    given = description.pop("fingerprint")
    if fingerprint(tensors, description) != given:
        raise ValueError("its contents do not have the fingerprint that it states")


def fingerprint(tensors: Mapping[str, Any], description: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal digits, over the description and over names, types, shapes and values."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        kind = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"\n{name} {kind} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Any) -> Any:
    if isinstance(tensor, np.ndarray):
        return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


@dataclass(frozen=True)
class Tensors:
    """Named arrays; `path` and `fingerprint` (SHA-256 of the contents) are known once they lie in a file.

    `description`, of what JSON has, says what else it takes to read the arrays.
    """

    arrays: dict[str, np.ndarray] | dict[str, Tensor]
    path: Path | None = None
    fingerprint: str | None = None
    description: dict[str, Any] = field(default_factory=dict)


def open_tensors(path: Path, stage: str = "preprocess") -> Tensors:
    """Prepared data, memory-mapped; `stage` is the one that makes them."""
    tensors, description = read_tensors(path, f"Run the {stage} stage again: kedro run --tags {stage}")
    return Tensors(tensors, path, description.pop("fingerprint"), description)


class TensorsDataset(AbstractDataset[Tensors, Tensors]):
    """`Tensors` in a safetensors file, which the stage of this name writes."""

    def __init__(self, *, filepath: str, stage: str = "preprocess", metadata: dict[str, Any] | None = None) -> None:
        self._filepath, self.stage = Path(filepath), stage
        self.metadata = metadata

    def load(self) -> Tensors:
        return open_tensors(self._filepath, self.stage)

    def save(self, data: Tensors) -> None:
        arrays = {name: np.ascontiguousarray(array) for name, array in data.arrays.items()}
        write_tensors(self._filepath, arrays, data.description)

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
