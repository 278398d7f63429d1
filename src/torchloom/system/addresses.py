"""Addresses of files elsewhere, as fsspec has them: s3://bucket/folder/, https://host/rows.csv, memory://rows.csv."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

KEYS = ("files", "folder")  # of a block of parameters, which may be addresses
PROTOCOL = re.compile(r"[a-zA-Z][\w+.-]+(?:://|::)")  # of two letters or more: C: is a disk
LOCAL = {"file", "local"}


def is_address(place: object) -> bool:
    """Whether it has a protocol in front, and is no path."""
    return isinstance(place, str) and PROTOCOL.match(place) is not None


def is_place(name: str) -> bool:
    """Whether it is an address or a path, and no name of a task, which has neither a slash nor a suffix."""
    return any(sign in name for sign in "./\\")


def addresses_in(block: Any) -> dict[str, str]:
    """Those of the KEYS of a block of parameters that are addresses, and what they are."""
    if not isinstance(block, Mapping):
        return {}
    return {key: str(block[key]) for key in KEYS if is_address(block.get(key))}


def local_path(address: str) -> Path | None:
    """The path that a file:// address stands for; None of others."""
    parts = urlsplit(address)
    if "::" in address or parts.scheme not in LOCAL:
        return None
    return Path(url2pathname(parts.netloc.removeprefix("localhost") + parts.path)).expanduser()
