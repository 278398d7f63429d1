"""ONNX models in the catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from torchloom.errors import InputError
from torchloom.files import atomic_write


class ONNXDataset(AbstractDataset[bytes, bytes]):
    """A serialised ONNX model: what `onnxruntime.InferenceSession` and `onnx.load_from_string` take."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> bytes:
        try:
            return self._filepath.read_bytes()
        except OSError as error:
            raise InputError(f"{self._filepath}: {error.strerror}. Run: kedro run --tags export_onnx") from error

    def save(self, data: bytes) -> None:
        with atomic_write(self._filepath) as temporary:
            temporary.write_bytes(data)

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
