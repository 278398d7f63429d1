"""Samples that are in training and also among those to validate or to test, under whatever name."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from torchloom.datasets.listing import first_of
from torchloom.errors import printable
from torchloom.system.words import counted

logger = logging.getLogger(__name__)


class Seen(NamedTuple):
    """What a sample is called, and what tells it from others that are not the same."""

    name: str
    digest: bytes


def digest_of(values: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).digest()


def say_copies(parts: Mapping[str, Sequence[Seen]], unit: str) -> None:
    """Warn of samples of other splits that training has too, under another name; `parts` are those of each split."""
    known = {sample.digest: sample.name for sample in reversed(parts["train"])}
    for split in ("validation", "test"):
        pairs = [(name, known[digest]) for name, digest in parts[split] if known.get(digest, name) != name]
        if pairs:
            logger.warning(
                "%s: %d of %s are among the training ones too, under other names, and what is measured on them says "
                "little: %s",
                *(split, len(pairs), counted(len(parts[split]), unit)),
                printable(first_of([f"{name} is {other}" for name, other in pairs])),
            )
