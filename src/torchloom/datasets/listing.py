"""A user's own files: which there are, and whether they are still as they were."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from torchloom.errors import InputError
from torchloom.files import atomic_write

Entry = tuple[str, tuple[int, int]]


@dataclass(frozen=True)
class Listing:
    """The files below a folder, or one file: `names` are relative to `folder`, with their sizes and times.

    Names that are not UTF-8 have surrogates in place of the odd bytes, as Python has them everywhere.
    """

    folder: str
    names: list[str]
    stamps: list[tuple[int, int]]  # bytes, nanoseconds
    single: bool = False
    suffixes: list[str] = field(default_factory=list)  # of the files that are listed, in lower case; none: of all
    others: int = 0  # how many files have other suffixes

    @property
    def paths(self) -> Iterator[Path]:
        return (Path(self.folder, name) for name in self.names)


def scan(path: Path, key: str, suffixes: Collection[str] = ()) -> Listing:
    """The file, or all files below the folder, by name, without hidden ones and links to folders.

    Of a folder's files, only those with one of the `suffixes` are listed when any are given; in lower case here, in
    either in the files' names. Raises InputError, which names the parameter `key`, when nothing is there.
    """
    path = path.expanduser()
    if path.is_file():
        return Listing(str(path.parent.resolve()), [path.name], [stamp_of(path.stat())], single=True)
    if not path.is_dir():
        raise InputError(f"{key} {path}: there is no such file or folder. Name yours: --params {key}=…")
    everything = list(_below(str(path)))
    found = [entry for entry in everything if not suffixes or os.path.splitext(entry[0])[1].lower() in suffixes]
    if not found:
        kinds = f" of the kinds {', '.join(sorted(suffixes))}" if suffixes else ""
        raise InputError(f"{key} {path}: the folder holds no files{kinds}")
    names, stamps = [name for name, _ in found], [stamp for _, stamp in found]
    return Listing(str(path.resolve()), names, stamps, False, sorted(suffixes), len(everything) - len(found))


def _below(top: str) -> Iterator[Entry]:
    closed: list[str] = []
    for folder, folders, names in os.walk(top, onerror=lambda error: closed.append(error.filename)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(folder, name)
            try:
                status = os.stat(path)
            except OSError:  # a link to nothing, or removed since
                continue
            if stat.S_ISREG(status.st_mode) and not name.startswith("."):
                yield os.path.relpath(path, top), stamp_of(status)
    for folder in closed:  # who tries to read it will say why it cannot be
        yield os.path.relpath(folder, top), (0, 0)


def stamp_of(status: os.stat_result) -> tuple[int, int]:
    """What tells two states of a user's file apart without reading it: bytes, and when it was written in ns."""
    return status.st_size, status.st_mtime_ns


class ListingDataset(AbstractDataset[Listing, Listing]):
    """A `Listing` as JSON; its fingerprint is of the files as they are now."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Listing:
        try:
            listing = Listing(**json.loads(self._filepath.read_text(encoding="utf-8")))
            if len(listing.names) != len(listing.stamps):
                raise ValueError("names without stamps")
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise InputError(
                f"{self._filepath}: missing or damaged ({error}). Run the stage that writes it again"
            ) from error
        return listing

    def save(self, data: Listing) -> None:
        with atomic_write(self._filepath) as temporary:
            temporary.write_text(json.dumps(vars(data)) + "\n", encoding="utf-8")

    def fingerprint(self) -> str | None:
        if not self._exists():
            return None
        listed = self.load()
        place = next(listed.paths) if listed.single else Path(listed.folder)
        now = scan(place, str(self._filepath), listed.suffixes)
        return hashlib.sha256(json.dumps([now.names, now.stamps]).encode()).hexdigest()

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
