"""Folders of pictures that say where in them things are: what is known by name, to be refused."""

from __future__ import annotations

from pathlib import Path

from torchloom.datasets.listing import Listing
from torchloom.errors import InputError

FORMATS = {  # by what their files are called
    "YOLO": ("labels/*.txt", "labels/*/*.txt", "*/labels/*.txt"),
    "COCO": ("*coco*.json", "*/*coco*.json", "annotations/instances_*.json"),
    "Pascal VOC": ("Annotations/*.xml", "*/Annotations/*.xml"),
}


def check_no_boxes(listing: Listing) -> None:
    """InputError when beside the pictures there are boxes, in a format that is known."""
    if not listing.others.keys() & {".txt", ".json", ".xml"}:
        return
    for name, patterns in FORMATS.items():
        found = next((file for pattern in patterns for file in Path(listing.folder).glob(pattern)), None)
        if found:
            raise InputError(
                f"{found}: says where things are in the pictures, as {name} has it. To find things is no problem that "
                "is here. Give a folder for each class, a table with a class for each picture, or masks"
            )
