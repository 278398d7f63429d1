"""The masks of a user's files: what their values stand for, and how they become those of images."""

from __future__ import annotations

import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from torchloom.config import PicturesPreprocessConfig
from torchloom.data import masks
from torchloom.data.image_files import in_threads
from torchloom.data.masks import (
    MOST_COLOURS,
    Coding,
    Mask,
    check_palette,
    learn_coding,
)
from torchloom.datasets.listing import Listing
from torchloom.errors import InputError, telling
from torchloom.system.progress import step_bar

logger = logging.getLogger(__name__)


def learn(listing: Listing, config: PicturesPreprocessConfig, places: list[int]) -> Coding:
    """What the masks at these places, those to train, hold, and so which classes there are.

    InputError when it is unclear.
    """
    from torchloom.system.devices import usable_cores

    counts: Counter[int] = Counter()
    palette: dict[int, int] = {}
    with_palette: set[bool] = set()
    lossy = False
    with ThreadPoolExecutor(usable_cores(), "masks") as pool, step_bar() as bar:
        task = bar.add_task("masks", total=len(places), status="")
        for mask in bar.track(in_threads(pool, partial(_measured, listing), places), task_id=task):
            if mask is None:
                continue
            counts.update(mask.counts)
            lossy |= mask.lossy
            with_palette.add(mask.palette is not None)
            with telling(listing.folder):
                check_palette(palette, mask.palette or {})
            palette |= mask.palette or {}
            if len(counts) > MOST_COLOURS:
                raise InputError(f"{listing.folder}: the masks hold more than {MOST_COLOURS:,} different colours")
    if len(with_palette) > 1:
        raise InputError(f"{listing.folder}: some masks have a palette, and others none. Save them all in one form")
    if not counts:
        raise InputError(f"{listing.folder}: no training mask can be read")
    coding = replace(learn_coding(counts, lossy, config.classes, config.ignore), palette=palette)
    values = np.array(list(counts), dtype=np.int64)
    pixels = np.bincount(coding(values), weights=list(counts.values()), minlength=len(coding.classes))
    shares = pixels[: len(coding.classes)] / counts.total()
    if not shares.all():
        lacking = coding.classes[shares.tolist().index(0)]
        raise InputError(f"{listing.folder}: no pixel of the training masks is of the class {lacking}")
    logger.info(
        "masks: %s", ", ".join(f"{name} {share:.1%}" for name, share in zip(coding.classes, shares, strict=True))
    )
    return coding


def _measured(listing: Listing, place: int) -> Mask | None:
    """A mask without its pixels; None where it cannot be read, which `decode` will say."""
    try:
        with open(os.path.join(listing.folder, listing.names[place]), "rb") as file:
            return replace(masks.read_mask(file), values=np.empty((0, 0), dtype=np.uint8))
    except (OSError, InputError):
        return None


def read_mask(
    listing: Listing, config: PicturesPreprocessConfig, coding: Coding, picture: int, mask: int
) -> np.ndarray:
    """The mask of a picture (H, W) uint8, as large as its image; InputError when it is of none of the classes."""
    one, other = (Path(listing.folder, listing.names[place]) for place in (picture, mask))
    return masks.mask_of(one, other, coding, (config.size[0], config.size[1]), config.fit)
