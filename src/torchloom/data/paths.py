"""Paths in the cells of a table, of files that are listed."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any
from unicodedata import normalize

from torchloom.datasets.listing import Listing, first_of, scan
from torchloom.errors import InputError
from torchloom.system.addresses import is_address
from torchloom.system.words import counted

logger = logging.getLogger(__name__)

LOOKED_AT = 1000  # rows of a table, to find the column of paths
Placed = Callable[[Any], int | None]


def places(listing: Listing) -> Placed:
    """Where in the listing the file is that a cell names: by its path there, which may lack an ending that is clear."""
    plain = {normalize("NFC", name): place for place, name in enumerate(listing.names)}
    stems = Counter(name.rpartition(".")[0] for name in plain)
    short = {stem: place for name, place in plain.items() if stems[stem := name.rpartition(".")[0]] == 1}

    def place(cell: Any) -> int | None:
        if not isinstance(cell, str | int) or isinstance(cell, bool) or not str(cell).strip():
            return None
        path = _written(cell)
        if is_address(path):  # as of what was brought from there
            return next((plain[rest] for rest in endings(normalize("NFC", path)) if rest in plain), None)
        if not os.path.isabs(path):
            return known(path)
        found = known(os.path.relpath(path, listing.folder))
        if found is None:  # the way there may lead over links
            path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
            found = known(os.path.relpath(path, listing.folder))
        return found

    def known(path: str) -> int | None:
        path = normalize("NFC", os.path.normpath(path))
        return plain.get(path, short.get(path))

    return place


def _written(cell: Any) -> str:
    return str(cell).strip().replace("\\", "/")


class Finder:
    """Finds the file that a cell names from one of the `folders` on, the first that has it.

    Cells are read as `places` does, among files of the `suffixes`; the folders are listed when one names no file as it
    stands.
    """

    def __init__(self, folders: Iterable[str | Path], suffixes: Collection[str]) -> None:
        self.folders, self.suffixes = [Path(folder).expanduser() for folder in dict.fromkeys(folders)], suffixes
        self.listed: list[tuple[Listing, Placed]] | None = None
        self.lock = Lock()  # as threads ask

    def __call__(self, cell: Any) -> Path:
        """InputError where there is none."""
        name = _written(cell)
        for folder in self.folders if name else ():
            if (folder / name).is_file():
                return folder / name
        for listing, place in self._listings():
            if (found := place(cell)) is not None:
                return Path(listing.folder, listing.names[found])
        where = " or ".join(map(str, self.folders))
        raise InputError(f"is not in {where}. Say where the paths of the table begin, predict.folder")

    def _listings(self) -> list[tuple[Listing, Placed]]:
        with self.lock:
            if self.listed is None:
                found = [_scanned(folder, self.suffixes) for folder in self.folders if folder.is_dir()]
                self.listed = [(listing, places(listing)) for listing in found if listing]
        return self.listed


def _scanned(folder: Path, suffixes: Collection[str]) -> Listing | None:
    """The files of the folder; None where it has no such."""
    try:
        return scan(folder, "predict.folder", suffixes)
    except InputError:
        return None


def endings(address: str) -> Iterator[str]:
    """The paths that a file at an address may have below a folder of that place, the longest first."""
    parts = address.partition("://")[2].split("/")
    return ("/".join(parts[place:]) for place in range(len(parts)))


def path_column(rows: Sequence[dict[str, Any]], place: Placed, others: Iterable[str | None]) -> str | None:
    """The first column, but for the `others`, whose cells name files: more than half of those that are looked at."""
    looked_at = rows[:LOOKED_AT]
    for name in looked_at[0] if looked_at else ():
        if name not in others and 2 * sum(place(row.get(name)) is not None for row in looked_at) > len(looked_at):
            return name
    return None


def say_twice(
    parts: Mapping[str, Sequence[dict[str, Any]]], column: str, place: Callable[[Any], Hashable], unit: str
) -> None:
    """Warn of files that several rows name, however they write it, and of those that are in several splits."""
    names: dict[Hashable, str] = {}
    counts: Counter[Hashable] = Counter()
    splits: dict[Hashable, set[str]] = {}
    for split, rows in parts.items():
        for row in rows:
            found = place(row[column])
            counts[found] += 1
            names.setdefault(found, str(row[column]))
            splits.setdefault(found, set()).add(split)
    if twice := [found for found, count in counts.items() if count > 1]:
        across = [found for found in twice if len(splits[found]) > 1]
        logger.warning(
            "%s in more than one row, %d of them in more than one split: %s",
            *(counted(len(twice), unit), len(across), first_of([names[found] for found in across or twice])),
        )
