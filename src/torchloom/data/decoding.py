"""The pictures of a user's files are decoded once: to keep their pixels, to measure them, and to know that they can be
read."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np

from torchloom.config import PictureConfig
from torchloom.data.copies import Seen, digest_of, say_copies
from torchloom.data.documents import packed_names
from torchloom.data.image_files import in_threads, read_picture
from torchloom.data.images import channel_counts, describe_pixels
from torchloom.datasets.listing import NAMED, Listing, readable
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.system.progress import step_bar

logger = logging.getLogger(__name__)

ROOM = 0.8  # share of the free disk space that may be taken
BLOCK = 128  # pictures decoded before they are written

ReadMask = Callable[[int, int], np.ndarray]  # the places of a picture and its mask -> (H, W) uint8


@dataclass(frozen=True)
class Part:
    """The pictures of a split: (N,) `places` in the listing, those of their `masks` if there are such, and what else
    there is of each by name, (N, …)."""

    places: np.ndarray
    arrays: Mapping[str, np.ndarray]
    masks: np.ndarray | None = None

    def __getitem__(self, chosen: np.ndarray) -> Part:
        masks = None if self.masks is None else self.masks[chosen]
        return Part(self.places[chosen], {name: array[chosen] for name, array in self.arrays.items()}, masks)

    def __len__(self) -> int:
        return len(self.places)


def decode(
    listing: Listing, config: PictureConfig, parts: Mapping[str, Part], scratch: Path, read_mask: ReadMask | None = None
) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """The tensors of each split, and what is known of the images: see `images.describe_pixels` and modalities.Reading.

    Where the pixels are not kept, the tensors are what `ImageFiles` takes. Raises InputError for pictures that cannot
    be read, unless these are to be left out.
    """
    from torchloom.system.devices import usable_cores

    kept = scratch if read_mask or _keeps_pixels(sum(map(len, parts.values())), config, scratch) else None
    with ThreadPoolExecutor(usable_cores(), "decode") as pool, step_bar() as bar:
        values = config.value_range or measured_range(listing, parts["train"], pool, bar)
        reading = {"fit": config.fit, "value_range": values}
        decoder = Decoder(listing, config, reading, kept, pool, bar, read_mask)
        splits = {name: decoder.split(part) for name, part in parts.items()}
    decoder.report()
    say_copies(dict(zip(parts, decoder.seen, strict=True)), "picture")
    height, width, channels = decoder.shape
    if not splits["train"][1].any():
        raise InputError(f"{listing.folder}: no training picture can be read")
    known = describe_pixels([channels, height, width], splits["train"][1], config) | reading
    return {name: tensors for name, (tensors, _) in splits.items()}, known


def measured_range(listing: Listing, part: Part, pool: ThreadPoolExecutor, bar: Any) -> list[float] | None:
    """What is black and white in the pictures of the split that have more than 8 bits a channel; None without any.

    Whole numbers are taken to be of 8, 10, 12, 14 or 16 bits, by the greatest, and others to be shares of 1. What is
    neither reaches from the least to the greatest. Pictures that cannot be read do not count.
    """
    task = bar.add_task("measure", total=len(part.places), status="")

    def extremes(place: int) -> tuple[float, float, bool] | None:
        from torchloom.data.pictures import deep_extremes

        try:
            with open(os.path.join(listing.folder, listing.names[place]), "rb") as file:
                return deep_extremes(file)
        except (OSError, InputError):
            return None

    all_of_them = bar.track(in_threads(pool, extremes, part.places.tolist()), task_id=task)
    found = [values for values in all_of_them if values]
    if not found:
        return None
    least, greatest = min(values[0] for values in found), max(values[1] for values in found)
    values = _levels(least, greatest, whole=all(values[2] for values in found))
    logger.info(
        "%d training pictures have more than 8 bits a channel, with values from %g to %g: %g becomes black and %g "
        "white, in predict too (preprocess.value_range says otherwise)",
        *(len(found), least, greatest, *values),
    )
    return values


def _levels(least: float, greatest: float, whole: bool) -> list[float]:
    """Black and white for values from `least` to `greatest`."""
    if whole and least >= 0 and greatest < 2**16:
        bits = next(bits for bits in (8, 10, 12, 14, 16) if greatest < 2**bits)
        return [0.0, 2.0**bits - 1]
    if least >= 0 and greatest <= 1:
        return [0.0, 1.0]
    return [least, greatest if greatest > least else least + 1]


class Decoder:
    """Decodes a folder's pictures, many at once, and takes note of those that it cannot read.

    The pixels of a split are kept in a temporary file in the folder `scratch`, or not at all without one. `reading` are
    arguments of decode_image.
    """

    def __init__(
        self,
        listing: Listing,
        config: PictureConfig,
        reading: Mapping[str, Any],
        scratch: Path | None,
        pool: ThreadPoolExecutor,
        bar: Any,
        read_mask: ReadMask | None = None,
    ) -> None:
        self.listing, self.config, self.scratch, self.pool, self.bar = listing, config, scratch, pool, bar
        self.reading, self.read_mask = reading, read_mask
        self.shape = (config.size[0], config.size[1], config.channels)
        self.task = bar.add_task("decode", total=len(listing.names), status="")
        self.tried = 0
        self.failures: list[str] = []
        self.seen: list[list[Seen]] = []  # the pictures of each split

    def split(self, part: Part) -> tuple[Tensors, np.ndarray]:
        """The tensors of a split, and how often each channel of it has each value (C, 256)."""
        if self.scratch is None:
            readable, counts = self._decode(part)
            return self._sources(part[readable]), counts
        try:
            with ExitStack() as stack:
                files = [stack.enter_context(TemporaryFile(dir=self.scratch)) for _ in (self.shape, self.read_mask)]
                readable, counts = self._decode(part, *files)
                return self._pixels(part[readable], *files), counts
        except OSError as error:
            raise InputError(
                f"{self.scratch}: the decoded pictures cannot be written ({error.strerror}). Make room, or set "
                "preprocess.cache: never"
            ) from error

    def _decode(
        self, part: Part, pixels: IO[bytes] | None = None, masks: IO[bytes] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Write the pixels of all pictures that can be read, in order; returns which (N,), and the counts (C, 256)."""
        places = part.places if part.masks is None else np.stack([part.places, part.masks], axis=1)
        readable = np.ones(len(part.places), dtype=bool)
        counts = np.zeros((self.config.channels, 256), dtype=np.int64)
        self.seen.append([])
        for start in range(0, len(readable), BLOCK):
            decoded = list(in_threads(self.pool, self._try, places[start : start + BLOCK].tolist()))
            readable[start : start + BLOCK] = [found is not None for found in decoded]
            known = [found for found in decoded if found is not None]
            images = np.array([image for image, _ in known], np.uint8).reshape(-1, *self.shape)
            counts += channel_counts(images)
            there = part.places[start : start + BLOCK][readable[start : start + BLOCK]]
            self.seen[-1] += map(Seen, (self.listing.names[place] for place in there), map(digest_of, images))
            if pixels and masks:
                pixels.write(images.data)
                masks.writelines(mask.data for _, mask in known if mask is not None)
            self.tried += len(decoded)
            self.bar.update(self.task, advance=len(decoded), status=f"{len(self.failures)} unreadable")
        return readable, counts

    def _try(self, places: int | list[int]) -> tuple[np.ndarray, np.ndarray | None] | None:
        """The pixels of a picture, and its mask; None when one cannot be read, which is noted."""
        place, *masks = places if isinstance(places, list) else [places]
        path = os.path.join(self.listing.folder, self.listing.names[place])
        try:
            mask = self.read_mask(place, *masks) if self.read_mask else None
            return read_picture(path, self.listing.stamps[place], self.shape, self.reading), mask
        except InputError as error:
            self.failures.append(error.message)
            return None

    def _pixels(self, part: Part, pixels: IO[bytes], masks: IO[bytes]) -> Tensors:
        """What the files hold, memory-mapped: it may be larger than the memory."""
        arrays = {"images": _mapped(pixels, (len(part), *self.shape)), **part.arrays, **self._names(part)}
        return Tensors(arrays | ({"masks": _mapped(masks, (len(part), *self.shape[:2]))} if self.read_mask else {}))

    def _names(self, part: Part) -> dict[str, np.ndarray]:
        return packed_names([[readable(self.listing.names[place]) for place in part.places]])

    def _sources(self, part: Part) -> Tensors:
        """What `ImageFiles` reads the pictures by."""
        names = [os.fsencode(self.listing.names[place]) for place in part.places]
        stamps = [self.listing.stamps[place] for place in part.places]
        arrays: dict[str, np.ndarray] = {
            "names": np.array(list(b"".join(names)), dtype=np.uint8),
            "name_starts": np.cumsum([0, *map(len, names)], dtype=np.int64),
            "stamps": np.array(stamps, dtype=np.int64).reshape(-1, 2),
            **part.arrays,
            **self._names(part),
        }
        account = {"folder": self.listing.folder, "shape": self.shape, **self.reading}
        return Tensors(arrays, description=account)

    def report(self) -> None:
        """Say what could not be read; InputError unless that is to be left out."""
        if not self.failures:
            return
        named = "\n".join(f"  {line}" for line in sorted(self.failures)[:NAMED])
        more = f"\n  and {len(self.failures) - NAMED} more" if len(self.failures) > NAMED else ""
        found = f"{len(self.failures)} of {self.tried} pictures cannot be read:\n{named}{more}\n"
        if not self.config.skip_unreadable:
            raise InputError(f"{found}Remove or mend them, or set preprocess.skip_unreadable: true to leave them out")
        logger.warning("%sThey are left out", found)


def _mapped(file: IO[bytes], shape: tuple[int, ...]) -> np.ndarray:
    file.flush()
    return np.memmap(file, np.uint8, "r", shape=shape) if shape[0] else np.empty(shape, np.uint8)


def _keeps_pixels(count: int, config: PictureConfig, scratch: Path) -> bool:
    """Whether the decoded pixels are to be kept; by default when they fit on the disk, twice while they are written."""
    needed = count * math.prod(config.size) * config.channels
    free = shutil.disk_usage(scratch).free
    keep = config.cache == "always" or (config.cache == "auto" and 2 * needed < ROOM * free)
    logger.info(
        "%.2f GB of pixels, %.0f GB free on the disk: %s",
        needed / 1e9,
        free / 1e9,
        "kept in files" if keep else "decoded from the pictures for each batch",
    )
    return keep
