"""Prepared data: named tensors in one safetensors file, memory-mapped when loaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from kedro.io import AbstractDataset

from torchloom.errors import InputError
from torchloom.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Tensors:
    """Named arrays; `path` and `fingerprint` (SHA-256 of the contents) are known once they lie in a file."""

    arrays: dict[str, np.ndarray] | dict[str, Tensor]
    path: Path | None = None
    fingerprint: str | None = None


def open_tensors(path: Path) -> Tensors:
    """The tensors of a file, memory-mapped: pages are read when they are used, and never copied."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return Tensors({name: file.get_tensor(name) for name in file.keys()}, path, metadata.get("fingerprint"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: missing. Run the preprocess stage first: kedro run --tags preprocess") from error
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: damaged ({error}). Run the preprocess stage again: kedro run --tags preprocess"
        ) from error


class TensorsDataset(AbstractDataset[Tensors, Tensors]):
    """`Tensors` in a safetensors file."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Tensors:
        return open_tensors(self._filepath)

    def save(self, data: Tensors) -> None:
        from safetensors.numpy import save_file

        arrays = {name: np.ascontiguousarray(array) for name, array in data.arrays.items()}
        digest = hashlib.sha256()
        for name in sorted(arrays):
            digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode())
            digest.update(arrays[name].data)
        with atomic_write(self._filepath) as temporary:
            save_file(arrays, temporary, metadata={"fingerprint": digest.hexdigest()})

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
