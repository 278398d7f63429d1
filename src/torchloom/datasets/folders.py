"""Folders of many small files that one stage writes together."""

from __future__ import annotations

import base64
import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from torchloom.errors import InputError
from torchloom.system.files import checksum

if TYPE_CHECKING:
    import pyarrow

NAME, CONTENT = "file", "content"  # the columns of the table: the files' names, and what they hold, in base64


class FolderDataset(AbstractDataset["pyarrow.Table", "pyarrow.Table"]):
    """Files in a folder of their own, as a table of NAME and CONTENT; without rows there is no folder.

    It is written beside its place and put there when it is whole, instead of what was there.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def save(self, data: pyarrow.Table) -> None:
        new, old = (self._filepath.with_name(f".{self._filepath.name}.{which}") for which in ("new", "old"))
        try:
            for left in (new, old):  # by a run that was killed
                shutil.rmtree(left, ignore_errors=True)
            for batch in data.to_batches(max_chunksize=100):
                for row in batch.to_pylist():
                    path = new / row[NAME]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(base64.b64decode(row[CONTENT]))
            if self._filepath.is_dir():
                self._filepath.rename(old)
            if new.is_dir():
                new.rename(self._filepath)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            shutil.rmtree(new, ignore_errors=True)
            raise InputError(
                f"{self._filepath}: cannot be written ({error.strerror}). Make room or change the rights of the folder"
            ) from error

    def load(self) -> pyarrow.Table:
        import pyarrow

        files = {name: base64.b64encode((self._filepath / name).read_bytes()).decode() for name in self._names()}
        columns = {NAME: list(files), CONTENT: list(files.values())}
        return pyarrow.table(columns, pyarrow.schema(dict.fromkeys(columns, pyarrow.string())))

    def fingerprint(self) -> str | None:
        """Of the names and what the files hold; None where there are none."""
        said = "".join(f"{name} {checksum(self._filepath / name)}\n" for name in self._names())
        return hashlib.sha256(said.encode()).hexdigest() if said else None

    def _names(self) -> list[str]:
        found = (path for path in self._filepath.rglob("*") if path.is_file())
        return sorted(path.relative_to(self._filepath).as_posix() for path in found)

    def _exists(self) -> bool:
        return self._filepath.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
