"""The masks of a user's files: what their values stand for, and how they become those of images."""

from __future__ import annotations

import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from torchloom.config import PicturesPreprocessConfig
from torchloom.data.image_files import in_threads
from torchloom.data.masks import UNKNOWN, Coding, fitted, learn_coding, mask_values, unknown_values, upright_size
from torchloom.datasets.listing import Listing
from torchloom.errors import InputError
from torchloom.system.progress import step_bar

logger = logging.getLogger(__name__)

MOST_COLOURS = 100_000  # a photograph has so many, and no mask


def learn(listing: Listing, config: PicturesPreprocessConfig, places: list[int]) -> Coding:
    """What the masks at these places, those to train, hold, and so which classes there are.

    InputError when it is unclear.
    """
    from torchloom.system.devices import usable_cores

    counts: Counter[int] = Counter()
    lossy = False
    with ThreadPoolExecutor(usable_cores(), "masks") as pool, step_bar() as bar:
        task = bar.add_task("masks", total=len(places), status="")
        for each, changed in bar.track(in_threads(pool, partial(_counted, listing), places), task_id=task):
            counts.update(each)
            lossy |= changed
            if len(counts) > MOST_COLOURS:
                raise InputError(f"{listing.folder}: the masks hold more than {MOST_COLOURS:,} different colours")
    if not counts:
        raise InputError(f"{listing.folder}: no training mask can be read")
    coding = learn_coding(counts, lossy, config.classes, config.ignore)
    values = np.array(list(counts), dtype=np.int64)
    pixels = np.bincount(coding(values), weights=list(counts.values()), minlength=len(coding.classes))
    shares = pixels[: len(coding.classes)] / counts.total()
    logger.info(
        "masks: %s", ", ".join(f"{name} {share:.1%}" for name, share in zip(coding.classes, shares, strict=True))
    )
    return coding


def _counted(listing: Listing, place: int) -> tuple[Counter[int], bool]:
    """How often a mask has which value; nothing where it cannot be read, which `decode` will say."""
    try:
        with open(os.path.join(listing.folder, listing.names[place]), "rb") as file:
            values, lossy = mask_values(file)
    except (OSError, InputError):
        return Counter(), False
    unique, counts = np.unique(values, return_counts=True)
    return Counter(dict(zip(unique.tolist(), counts.tolist(), strict=True))), lossy


def read_mask(
    listing: Listing, config: PicturesPreprocessConfig, coding: Coding, picture: int, mask: int
) -> np.ndarray:
    """The mask of a picture (H, W) uint8, as large as its image; InputError when it is of none of the classes."""
    path = os.path.join(listing.folder, listing.names[picture])
    try:
        with open(path, "rb") as file:
            size = upright_size(file)
        path = os.path.join(listing.folder, listing.names[mask])
        with open(path, "rb") as file:
            values = mask_values(file)[0]
        numbers = coding(values)
        if (numbers == UNKNOWN).any():
            raise InputError(f"holds {unknown_values(values[numbers == UNKNOWN].tolist())}")
        return fitted(numbers, size, (config.size[0], config.size[1]), config.fit)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except InputError as error:
        raise InputError(f"{path}: {error.message}") from error
