"""Where a data set comes from, and the verified files of it that have arrived."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from torchloom.data.download import Form, RawFiles, Source
from torchloom.errors import InputError
from torchloom.files import atomic_write


class SourceDataset(AbstractDataset[None, Source]):
    """The catalog's account of a data set's source: read it, never write it. `filepath` is the folder to fill."""

    def __init__(
        self,
        *,
        filepath: str,
        places: list[str],
        files: dict[str, str | None],
        fetch: str = "{name}",
        mirror: str | None = None,
        alternatives: list[dict[str, Any]] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        folder = Path(filepath)
        forms = tuple(Form(**form) for form in alternatives or [])
        self._source = Source(folder.name, folder, files, fetch, places, mirror, forms)
        self.metadata = metadata

    def load(self) -> Source:
        return self._source

    def save(self, data: None) -> None:  # noqa: ARG002
        raise DatasetError("a source is only read")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"folder": str(self._source.folder), "places": self._source.places}


class RawFilesDataset(AbstractDataset[RawFiles, RawFiles]):
    """`RawFiles` as a JSON list of names and checksums that lies beside the files."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> RawFiles:
        try:
            checksums = json.loads(self._filepath.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{self._filepath}: not readable ({error}). Run: kedro run --tags download") from error
        if not isinstance(checksums, dict):
            raise InputError(f"{self._filepath}: not a list of checksums. Run: kedro run --tags download")
        return RawFiles(self._filepath.parent, checksums)

    def save(self, data: RawFiles) -> None:
        with atomic_write(self._filepath) as temporary:
            temporary.write_text(json.dumps(data.checksums, indent=2) + "\n", encoding="utf-8")

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
