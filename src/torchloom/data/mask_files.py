"""The masks of a user's files: what their values stand for, and how they become those of images."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from torchloom.config import PicturesPreprocessConfig
from torchloom.data import masks
from torchloom.data.image_files import in_threads
from torchloom.data.masks import (
    MOST_COLOURS,
    UNKNOWN,
    Coding,
    Mask,
    fitted,
    learn_coding,
    unknown_values,
    upright,
    upright_size,
    value_name,
)
from torchloom.datasets.listing import Listing
from torchloom.errors import InputError
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
            _check_palette(listing, palette, mask.palette or {})
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


def _check_palette(listing: Listing, known: Mapping[int, int], palette: Mapping[int, int]) -> None:
    """InputError when a place in a mask's palette is another colour than in others."""
    for place, colour in palette.items():
        if known.get(place, colour) != colour:
            raise InputError(
                f"{listing.folder}: masks have different palettes: place {place} is {value_name(known[place])} in one "
                f"and {value_name(colour)} in another. Save them as colours, without palettes"
            )


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
    path = os.path.join(listing.folder, listing.names[picture])
    try:
        with open(path, "rb") as file:
            size, turn = upright_size(file)
        path = os.path.join(listing.folder, listing.names[mask])
        with open(path, "rb") as file:
            found = masks.read_mask(file)
        _check_palette(listing, coding.palette, found.palette or {})
        values = np.array(list(found.counts), dtype=np.int64)
        if (unknown := values[coding(values) == UNKNOWN]).size:
            raise InputError(f"holds {unknown_values(unknown.tolist())}")
        return fitted(coding(upright(found, size, turn)), size, (config.size[0], config.size[1]), config.fit)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except InputError as error:
        raise InputError(f"{path}: {error.message}") from error
