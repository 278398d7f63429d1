"""A user's own files: which there are, and whether they are still as they were."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from torchloom.errors import InputError, printable
from torchloom.system.files import atomic_write

logger = logging.getLogger(__name__)

NAMED = 5  # that a line of the log names, of many
LEFT_BY_SYSTEMS = {  # in lower case: what archives, file managers and storage devices put beside a user's own files
    "__macosx", "icon\r", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "#recycle",
    "@recycle", "#snapshot", "@eadir", "@tmp", "lost+found", "system volume information",
}  # fmt: skip

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
    others: dict[str, int] = field(default_factory=dict)  # how many files have which other suffix
    links: list[str] = field(default_factory=list)  # that are skipped: those to folders, and to nothing
    lists: list[str] = field(default_factory=list)  # files and folders elsewhere that say what these files are
    entry: str | None = None  # of the catalog, whose rows the one file has for a while

    @property
    def paths(self) -> Iterator[Path]:
        return (Path(self.folder, name) for name in self.names)

    def say_links(self) -> None:
        """Warn of links that are skipped: what lies behind them is not listed."""
        if self.links:
            shown = printable(first_of(self.links))
            logger.warning("%s: links to folders, and to nothing, are skipped: %s", printable(self.folder), shown)


def first_of(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def readable(name: str) -> str:
    """A file's name as valid text: bytes that are not UTF-8 are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_users(name: str) -> bool:
    """Whether a file or folder of this name is a user's own: neither hidden nor left there by a system."""
    return not name.startswith(".") and name.lower() not in LEFT_BY_SYSTEMS


def scan(path: Path, key: str, suffixes: Collection[str] = ()) -> Listing:
    """The file, or all files below the folder, by name, without hidden ones, those of systems and links to folders.

    Of a folder's files, only those with one of the `suffixes` are listed when any are given; in lower case here, in
    either in the files' names. Raises InputError, which names the parameter `key`, when nothing is there.
    """
    path = path.expanduser()
    if path.is_file():
        return Listing(str(path.parent.resolve()), [path.name], [stamp_of(path.stat())], single=True)
    if not path.is_dir():
        raise InputError(f"{key} {path}: there is no such file or folder. Name yours: --params {key}=…")
    skipped: list[str] = []
    closed: list[OSError] = []
    everything = list(_below(str(path), skipped, closed))
    if suffixes and closed:  # else whole classes could be missing
        raise InputError(f"{key} {closed[0].filename}: the folder cannot be read ({closed[0].strerror})")
    everything += [(os.path.relpath(error.filename, path), (0, 0)) for error in closed]  # who reads it will say why
    found = [entry for entry in everything if not suffixes or _suffix(entry) in suffixes]
    if not found:
        kinds = f" of the kinds {', '.join(sorted(suffixes))}" if suffixes else ""
        links = f"; links to folders, and to nothing, are skipped: {first_of(skipped)}" if skipped else ""
        there = first_of(sorted(set(map(_suffix, everything)) - {""}))
        instead = f"; those there are {there}" if there else ""
        raise InputError(f"{key} {path}: the folder holds no files{kinds}{instead}{links}")
    names, stamps = [name for name, _ in found], [stamp for _, stamp in found]
    others = Counter(map(_suffix, everything)) if suffixes else {}
    left = {suffix: count for suffix, count in sorted(others.items()) if suffix not in suffixes}
    return Listing(str(path.resolve()), names, stamps, False, sorted(suffixes), left, skipped)


def _suffix(entry: Entry) -> str:
    return os.path.splitext(entry[0])[1].lower()


def _below(top: str, skipped: list[str], closed: list[OSError]) -> Iterator[Entry]:
    """The files below a folder.

    Takes note of links that are skipped, those to folders, which could lead round in circles, and those to nothing; and
    of folders that cannot be read.
    """
    for folder, folders, names in os.walk(top, onerror=closed.append):
        folders[:] = sorted(filter(is_users, folders))
        paths = [os.path.join(folder, name) for name in folders]
        skipped += [os.path.relpath(path, top) for path in paths if os.path.islink(path)]
        for name in filter(is_users, sorted(names)):
            path = os.path.join(folder, name)
            try:
                status = os.stat(path)
            except OSError:  # a link to nothing, or removed since
                skipped.append(os.path.relpath(path, top))
                continue
            if stat.S_ISREG(status.st_mode):
                yield os.path.relpath(path, top), stamp_of(status)


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
        now = [scan(place, str(self._filepath), listed.suffixes)]
        now += [scan(Path(other), str(self._filepath)) for other in listed.lists]
        found = [part for each in now for part in (each.names, each.stamps)]
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
