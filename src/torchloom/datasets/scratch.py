"""Room on the disk for what a stage works on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from torchloom.errors import InputError


class ScratchDataset(AbstractDataset[None, Path]):
    """A folder for temporary files, on the disk where the stage's outputs will lie; it is made when it is asked for."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.folder = self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.folder}: cannot be made ({error.strerror}). Make room or change the rights of the folder above"
            ) from error
        return self.folder

    def fingerprint(self) -> None:
        """Nothing there lasts, and so nothing hangs on it."""

    def save(self, data: None) -> None:  # noqa: ARG002
        raise DatasetError("temporary files are written by the stage itself")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"folder": str(self.folder)}
