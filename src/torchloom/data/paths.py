"""Paths in the cells of a table, of files that are listed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from unicodedata import normalize

from torchloom.datasets.listing import Listing

LOOKED_AT = 1000  # rows of a table, to find the column of paths
Placed = Callable[[Any], int | None]


def places(listing: Listing) -> Placed:
    """Where in the listing the file is that a cell names: by its path there, which may lack the ending."""
    plain = {normalize("NFC", name): place for place, name in enumerate(listing.names)}
    short = {name.rpartition(".")[0]: place for name, place in plain.items()}

    def place(cell: Any) -> int | None:
        if not isinstance(cell, str | int) or isinstance(cell, bool) or not str(cell).strip():
            return None
        path = str(cell).strip().replace("\\", "/")
        if os.path.isabs(path):
            path = os.path.relpath(path, listing.folder)
        path = normalize("NFC", os.path.normpath(path))
        return plain.get(path, short.get(path))

    return place


def path_column(rows: Sequence[dict[str, Any]], place: Placed, others: Iterable[str | None]) -> str | None:
    """The first column, but for the `others`, whose cells name files: more than half of those that are looked at."""
    looked_at = rows[:LOOKED_AT]
    for name in looked_at[0] if looked_at else ():
        if name not in others and 2 * sum(place(row.get(name)) is not None for row in looked_at) > len(looked_at):
            return name
    return None
