"""Where a data set comes from, and the verified files of it that have arrived."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from torchloom.errors import InputError
from torchloom.system.files import atomic_write, contents

MIRROR_VARIABLE = "TORCHLOOM_MIRROR"
AGAIN = "Run the download stage again: kedro run --tags download"
CHECKSUM = re.compile(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", re.IGNORECASE)


@dataclass(frozen=True)
class RawFiles:
    """Verified files of one data set, as the download stage left them below `folder`."""

    folder: Path
    checksums: dict[str, str]  # file name -> "algorithm:hex"

    def path(self, name: str) -> Path:
        """Where the file is; InputError when it has gone since it was downloaded or cannot be read."""
        path = self.folder / name
        try:
            if name not in self.checksums:
                raise FileNotFoundError
            with path.open("rb"):
                return path
        except FileNotFoundError as error:
            raise InputError(f"{path}: missing. {AGAIN}") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}). Mend or remove it. {AGAIN}") from error


@dataclass(frozen=True)
class Form:
    """One form that a data set is published in.

    `files` maps each file's name to its published `md5:…` or `sha256:…`; None takes the checksum from the
    SHA256SUMS file that lies with the data. `fetch` is what a place offers: an archive (`.tar.gz` …) that
    holds the files, or `{name}.gz` (`.bz2`, `.xz`), or `{name}`, which is kept as it is even if it is an archive.
    """

    files: dict[str, str | None]
    fetch: str = "{name}"


@dataclass(frozen=True)
class Source:
    """Where a data set comes from and what must arrive.

    `files` and `fetch` are those of a `Form`; `alternatives` are other forms, any one of which is as good. `places`
    are tried in order: `https://…`, `file://…`, a folder, `package://name/folder`, which is a folder of an installed
    Python package, or `sample://module`, which has `torchloom.data.<module>.draw_sample` draw the data. `mirror` is
    the data set's folder below the one that TORCHLOOM_MIRROR names, which is tried first.
    """

    name: str
    folder: Path
    files: dict[str, str | None]
    fetch: str
    places: list[str]
    mirror: str | None = None
    alternatives: tuple[Form, ...] = ()

    def all_places(self) -> list[str]:
        root = os.environ.get(MIRROR_VARIABLE)
        return ([str(Path(root).expanduser() / self.mirror)] if root and self.mirror else []) + self.places


def _lower(digests: dict[str, str | None]) -> dict[str, str | None]:
    """Checksums as we compute them; some programs write them in capitals."""
    return {name: digest and digest.lower() for name, digest in digests.items()}


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
        for digests in (files, *(form["files"] for form in alternatives or [])):
            for name, digest in digests.items():
                if digest is not None and not CHECKSUM.fullmatch(digest):
                    raise InputError(f"{folder.name}_source: {name}: {digest!r} is no md5:… or sha256:… in hexadecimal")
        forms = tuple(Form(**{**form, "files": _lower(form["files"])}) for form in alternatives or [])
        self._source = Source(folder.name, folder, _lower(files), fetch, places, mirror, forms)
        self.metadata = metadata

    def load(self) -> Source:
        return self._source

    def save(self, data: None) -> None:  # noqa: ARG002
        raise DatasetError("a source is only read")

    def fingerprint(self) -> str:
        """Of the account, not of what may lie at the places: a file without a published checksum is known by them."""
        account = asdict(replace(self._source, folder=Path(self._source.name)))
        return hashlib.sha256(json.dumps(account, default=str, sort_keys=True).encode()).hexdigest()

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
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{self._filepath}: not readable ({error}). {AGAIN}") from error
        if not isinstance(checksums, dict) or not all(isinstance(digest, str) for digest in checksums.values()):
            raise InputError(f"{self._filepath}: not a list of checksums. {AGAIN}")
        return RawFiles(self._filepath.parent, checksums)

    def save(self, data: RawFiles) -> None:
        with atomic_write(self._filepath) as temporary:
            temporary.write_text(json.dumps(data.checksums, indent=2) + "\n", encoding="utf-8")

    def fingerprint(self) -> str | None:
        """Of the files that the list names, as they are now."""
        if not self._exists():
            return None
        found = {name: contents(self._filepath.parent / name) for name in self.load().checksums}
        return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
