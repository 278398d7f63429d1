"""What one stage leaves in files of other formats, which are not ours to read: kept by name in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from torchloom.errors import InputError
from torchloom.system.files import atomic_write, checksum, contents

INDEX = "files.json"


class ExportsDataset(AbstractDataset[dict[str, bytes], dict[str, Path]]):
    """Files by name, saved from their contents and loaded as their paths; `files.json` has their checksums.

    Loading raises InputError when one is missing or is not what was saved. Files that an earlier save has left and that
    are no longer wanted are removed.
    """

    def __init__(self, *, filepath: str, stage: str = "export_formats", metadata: dict[str, Any] | None = None) -> None:
        """`filepath` is the folder: by this name Kedro takes it from the project's folder on."""
        self.folder, self.stage = Path(filepath), stage
        self._filepath = self.folder / INDEX
        self.metadata = metadata

    def load(self) -> dict[str, Path]:
        for name, expected in self._index().items():
            if contents(self.folder / name) != expected:
                raise InputError(f"{self.folder / name}: missing or not what was saved. {self._again()}")
        return {name: self.folder / name for name in self._index()}

    def save(self, data: dict[str, bytes]) -> None:
        before = self._index() if self._exists() else {}
        for name, content in data.items():
            with atomic_write(self.folder / name) as temporary:
                temporary.write_bytes(content)
        sums = {name: checksum(self.folder / name) for name in sorted(data)}
        with atomic_write(self._filepath) as temporary:
            temporary.write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
        for name in before.keys() - data.keys():
            (self.folder / name).unlink(missing_ok=True)

    def fingerprint(self) -> str | None:
        if not self._exists():
            return None
        self.load()
        return contents(self._filepath)

    def _index(self) -> dict[str, str]:
        try:
            index = json.loads(self._filepath.read_text(encoding="utf-8"))
            if not isinstance(index, dict) or any(Path(name).name != name for name in index):
                raise ValueError("not a list of files")
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{self._filepath}: missing or damaged ({error}). {self._again()}") from error
        return index

    def _again(self) -> str:
        return f"Run the {self.stage} stage again: kedro run --tags {self.stage}"

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"folder": str(self.folder)}
