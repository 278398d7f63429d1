"""Folders of pictures that say where in them things are: what is known by name or by what it holds, to be refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from torchloom.data.columns import is_number
from torchloom.datasets.listing import Listing
from torchloom.errors import InputError

FORMATS = {  # by what their files are called
    "YOLO": ("labels/*.txt", "labels/*/*.txt"),
    "COCO": ("*coco*.json", "annotations/instances_*.json"),
    "Pascal VOC": ("Annotations/*.xml",),
}
LOOKED_AT, BEGINNING = 20, 1 << 16  # files of each ending, and bytes of each


def check_no_boxes(listing: Listing, by_content: bool = False) -> None:
    """InputError when beside the pictures there are boxes, in a format that is known, by the files' names.

    `by_content` is for what makes no sense otherwise: any text beside a picture may be one on it.
    """
    if not listing.others.keys() & {".txt", ".json", ".xml"}:
        return
    found = next(_by_name(Path(listing.folder)), None) or (next(_by_content(listing), None) if by_content else None)
    if found:
        raise InputError(
            f"{found[1]}: says where things are in the pictures, as {found[0]} has it. To find things is no problem "
            "that is here. Give a folder for each class, a table with a class for each picture, or masks"
        )


def _by_name(folder: Path) -> Iterator[tuple[str, Path]]:
    for name, patterns in FORMATS.items():
        for pattern in patterns:
            yield from ((name, file) for file in folder.glob(f"**/{pattern}"))


def _by_content(listing: Listing) -> Iterator[tuple[str, Path]]:
    pictures = {Path(name).stem for name in listing.names}
    for name, (ending, holds) in HOLDS.items():
        for file in islice(Path(listing.folder).rglob(f"*{ending}"), LOOKED_AT):
            if (ending != ".txt" or file.stem in pictures) and file.is_file() and holds(_beginning(file)):
                yield name, file


def _beginning(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as text:
            return text.read(BEGINNING)
    except OSError:
        return ""


def _is_yolo(text: str) -> bool:
    """Whether each line is the number of a class and at least four numbers of the box or outline."""
    lines = text.splitlines()[:LOOKED_AT]
    return bool(lines) and all(len(line.split()) > 4 and all(map(is_number, line.split())) for line in lines)


HOLDS: dict[str, tuple[str, Callable[[str], object]]] = {
    "COCO": (".json", re.compile(r'\s*{\s*"(info|images|annotations|licenses|categories)"').match),
    "labelme": (".json", re.compile(r'\s*{[^{]*"(shapes|flags)"').match),
    "Pascal VOC": (".xml", re.compile(r"\s*(<\?.*?\?>)?\s*<annotation\b").match),
    "YOLO": (".txt", _is_yolo),
}
