"""A user's own pictures: a folder with a subfolder for each class, with or without folders for the splits.

The decoded pixels are kept in one memory-mapped file for each split (`cache`), or the pictures stay where they are and
are decoded for each batch. One function decodes for both, and for `predict`: a model sees the same pixels everywhere.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, TypeVar
from unicodedata import normalize

import numpy as np

from torchloom.config import FolderPreprocessConfig
from torchloom.data.class_folders import class_roots, place_pictures, split_named
from torchloom.data.image_files import in_threads, read_picture
from torchloom.data.images import channel_counts, describe
from torchloom.data.picture_formats import SUFFIXES
from torchloom.data.readers import Proposal
from torchloom.data.splits import choose_validation, log_classes, missing_classes, stratified_choice
from torchloom.datasets.listing import NAMED, Listing, first_of, is_users, scan
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError, printable
from torchloom.system.progress import step_bar
from torchloom.system.words import counted

logger = logging.getLogger(__name__)
T = TypeVar("T")

SPLITS = ("train", "validation", "test")
ROOM = 0.8  # share of the free disk space that may be taken
BLOCK = 128  # pictures decoded before they are written


# ---- what there is -------------------------------------------------------------------------------------------------


def takes(path: Path, target: str | None) -> bool:  # noqa: ARG001  (pictures have none)
    """Whether it is a folder with folders of pictures."""
    return path.is_dir() and any(file.suffix.lower() in SUFFIXES for file in path.glob("*/**/*"))


def propose(path: Path, target: str | None) -> Proposal:
    """A task that tells the classes apart which the folders are. InputError where they are none."""
    if target:
        raise InputError(f"--target {target}: of pictures in folders the classes are the folders; leave it out")
    config = FolderPreprocessConfig(folder=str(path))
    listing = find(config)
    classes, parts = split_pictures(listing, config)
    counts = {split: counted(len(part.labels), "picture") for split, part in parts.items()}
    labels = np.concatenate([part.labels for part in parts.values()])
    each = np.bincount(labels, minlength=len(classes)).tolist()
    seen = [", ".join(f"{split}: {count}" for split, count in counts.items()), f"{len(classes)} classes:"]
    seen += [f"  {name}: {count}" for name, count in zip(classes, each, strict=True)]
    train = {
        "epochs": 20,
        "batch_size": 128 if len(labels) >= 5000 else 16,
        "optimizer": {"name": "AdamW", "lr": 0.002},
        "scheduler": {"name": "CosineAnnealingLR"},
    }
    augment = {"augment": {"crop_padding": 8, "flip": True}}
    blocks = {"data": augment, "model": {"name": "resnet", "width": 16}, "train": train, "evaluate": {}, "export": {}}
    return Proposal({"reader": "folder", "folder": str(path), "size": [64, 64]}, "classification", blocks, seen)


# ---- which pictures there are --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """The pictures of a split: (N,) `places` in the listing and (N,) int64 `labels`."""

    places: np.ndarray
    labels: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> Part:
        return Part(self.places[chosen], self.labels[chosen])


def check_class_folders(listing: Listing, config: FolderPreprocessConfig) -> None:
    """InputError unless each picture lies in a class folder, see `class_roots`, and each of those has a picture."""
    if listing.single:
        raise InputError(f"{next(listing.paths)}: is a file, not a folder with class subfolders")
    odd = [name for name in listing.names if name.encode(errors="ignore").decode() != name]
    if odd:
        raise InputError(f"{listing.folder}: names that are not in UTF-8: {first_of(odd)}. Rename them")
    roots = class_roots(listing, config.splits)
    placed = place_pictures(listing.names, roots)
    if len(roots) == 1 and not any(placed):
        raise InputError(f"{listing.folder}: has no subfolders with pictures. Make one for each class, by its name")
    given = config.splits is not None and config.splits.train is not None
    strays = [name for name, place in zip(listing.names, placed, strict=True) if not place]
    if strays and given:
        logger.info("%s: %d pictures outside of preprocess.splits are left out", listing.folder, len(strays))
    elif strays:
        raise InputError(_in_no_class(listing.folder, strays, roots))
    used = {"".join(place) for place in placed if place}
    empty = sorted(
        (_folders(listing.folder, roots) | (set() if given else _splits_beside(listing.folder, roots))) - used
    )
    if empty:
        raise InputError(
            f"{listing.folder}: class folders without a picture: {first_of(empty)} (links to folders are not followed)"
            ". Remove them, or put pictures there"
        )


def _in_no_class(folder: str, strays: list[str], roots: Mapping[str, str]) -> str:
    kind = f"class folder inside {' or '.join(roots)}" if min(roots) else "class folder"
    return (
        f"{folder}: in no {kind}: {first_of(strays)}. Move them there, or out of this folder; or say which folders to "
        "use, preprocess.splits: {train: …, test: …}, or {} when every folder is a class"
    )


def _folders(folder: str, roots: Iterable[str]) -> set[str]:
    """The folders on the disk that lie in one of the `roots`, as paths below `folder`."""
    found = ((root, path) for root in roots for path in Path(folder, root).iterdir())
    return {f"{root}{path.name}" for root, path in found if is_users(path.name) and path.is_dir()}


def _splits_beside(folder: str, roots: Mapping[str, str]) -> set[str]:
    """The folders with the name of a split that hold none of the `roots`; none where the data are not split."""
    around = {root.partition("/")[0] for root in roots}
    return {name for name in _folders(folder, [""]) - around if split_named(name)} if min(roots) else set()


def split_pictures(listing: Listing, config: FolderPreprocessConfig) -> tuple[list[str], dict[str, Part]]:
    """The class names, sorted, and the training, validation and test split.

    What has no folder is cut from the training data, the test split first. One name is one class, whichever of
    Unicode's ways a system writes its accents in. Raises InputError when there are not two classes, or one that cannot
    be learnt or judged.
    """
    roots = class_roots(listing, config.splits)
    placed = place_pictures(listing.names, roots)
    places = np.array([place for place, found in enumerate(placed) if found], dtype=np.int64)
    found = [(roots[root], normalize("NFC", folder)) for root, folder in filter(None, placed)]
    classes = sorted({name for _, name in found})
    if len(classes) < 2:
        raise InputError(f"{listing.folder}: has one class only, {classes[0]!r}; to classify takes two folders or more")
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[name] for _, name in found], dtype=np.int64)
    split_of = np.array([split for split, _ in found])
    parts = {name: Part(places[split_of == name], labels[split_of == name]) for name in SPLITS}
    _check(listing, parts["train"].labels, classes, "train")
    if not len(parts["test"].labels):
        chosen = stratified_choice(parts["train"].labels, config.test_fraction, config.seed, least=1)
        parts |= {"train": parts["train"][~chosen], "test": parts["train"][chosen]}
    if not len(parts["validation"].labels):
        chosen = choose_validation(parts["train"].labels, config)
        parts |= {"train": parts["train"][~chosen], "validation": parts["train"][chosen]}
    _check(listing, parts["test"].labels, classes, "test")
    return classes, parts


def _check(listing: Listing, labels: np.ndarray, classes: list[str], split: str) -> None:
    """InputError unless every class is among the (N,) labels of the split."""
    missing = missing_classes(labels, classes)
    if missing:
        without = "; without such a folder it takes two pictures, and preprocess.test_fraction above 0"
        advice = "" if split == "train" else without
        raise InputError(
            f"{listing.folder}: the {split} data hold no picture of {missing}{_alike(missing, classes)}; every class "
            f"needs at least one. Put some into a folder {split}{advice}"
        )


def _alike(missing: str, classes: list[str]) -> str:
    """Which of the classes that have no picture may be meant by another name, which differs in case or spaces only."""
    groups = defaultdict(list)
    for name in classes:
        groups["".join(name.split()).casefold()].append(repr(name))
    doubtful = [names for names in groups.values() if len(names) > 1 and any(name in missing for name in names)]
    return "".join(f" ({' and '.join(names)} are two classes)" for names in doubtful)


# ---- decoding ------------------------------------------------------------------------------------------------------


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
        config: FolderPreprocessConfig,
        reading: Mapping[str, Any],
        scratch: Path | None,
        pool: ThreadPoolExecutor,
        bar: Any,
    ) -> None:
        self.listing, self.config, self.scratch, self.pool, self.bar = listing, config, scratch, pool, bar
        self.reading = reading
        self.shape = (config.size[0], config.size[1], config.channels)
        self.task = bar.add_task("decode", total=len(listing.names), status="")
        self.failures: list[str] = []

    def split(self, part: Part) -> tuple[Tensors, np.ndarray]:
        """The tensors of a split, and how often each channel of it has each value (C, 256)."""
        if self.scratch is None:
            readable, counts = self._decode(part, None)
            return self._sources(part[readable]), counts
        try:
            with TemporaryFile(dir=self.scratch) as file:
                readable, counts = self._decode(part, file)
                file.flush()
                return self._pixels(file, part[readable]), counts
        except OSError as error:
            raise InputError(
                f"{self.scratch}: the decoded pictures cannot be written ({error.strerror}). Make room, or set "
                "preprocess.cache: never"
            ) from error

    def _decode(self, part: Part, file: IO[bytes] | None) -> tuple[np.ndarray, np.ndarray]:
        """Write the pixels of all pictures that can be read, in order; returns which (N,), and the counts (C, 256)."""
        readable = np.ones(len(part.places), dtype=bool)
        counts = np.zeros((self.config.channels, 256), dtype=np.int64)
        for start in range(0, len(readable), BLOCK):
            decoded = list(in_threads(self.pool, self._try, part.places[start : start + BLOCK].tolist()))
            readable[start : start + BLOCK] = [pixels is not None for pixels in decoded]
            images = np.array([pixels for pixels in decoded if pixels is not None], np.uint8).reshape(-1, *self.shape)
            counts += channel_counts(images)
            if file:
                file.write(images.data)
            self.bar.update(self.task, advance=len(decoded), status=f"{len(self.failures)} unreadable")
        return readable, counts

    def _try(self, place: int) -> np.ndarray | None:
        """The pixels of a picture; None when it cannot be read, which is noted."""
        path = os.path.join(self.listing.folder, self.listing.names[place])
        try:
            return read_picture(path, self.listing.stamps[place], self.shape, self.reading)
        except InputError as error:
            self.failures.append(error.message)
            return None

    def _pixels(self, file: IO[bytes], part: Part) -> Tensors:
        """What `file` holds, memory-mapped: it may be larger than the memory."""
        shape = (len(part.labels), *self.shape)
        images = np.memmap(file, np.uint8, "r", shape=shape) if len(part.labels) else np.empty(shape, np.uint8)
        return Tensors({"images": images, "labels": part.labels})

    def _sources(self, part: Part) -> Tensors:
        """What `ImageFiles` reads the pictures by."""
        names = [os.fsencode(self.listing.names[place]) for place in part.places]
        stamps = [self.listing.stamps[place] for place in part.places]
        arrays: dict[str, np.ndarray] = {
            "names": np.array(list(b"".join(names)), dtype=np.uint8),
            "name_starts": np.cumsum([0, *map(len, names)], dtype=np.int64),
            "stamps": np.array(stamps, dtype=np.int64).reshape(-1, 2),
            "labels": part.labels,
        }
        account = {"folder": self.listing.folder, "shape": self.shape, **self.reading}
        return Tensors(arrays, description=account)

    def report(self) -> None:
        """Say what could not be read; InputError unless that is to be left out."""
        if not self.failures:
            return
        named = "\n".join(f"  {line}" for line in sorted(self.failures)[:NAMED])
        more = f"\n  and {len(self.failures) - NAMED} more" if len(self.failures) > NAMED else ""
        found = f"{len(self.failures)} of {len(self.listing.names)} pictures cannot be read:\n{named}{more}\n"
        if not self.config.skip_unreadable:
            raise InputError(f"{found}Remove or mend them, or set preprocess.skip_unreadable: true to leave them out")
        logger.warning("%sThey are left out", found)


def find(config: FolderPreprocessConfig) -> Listing:
    """List the pictures of a folder that has a subfolder for each class."""
    listing = scan(Path(config.folder), "preprocess.folder", SUFFIXES)
    listing.say_links()
    check_class_folders(listing, config)
    found, others = counted(len(listing.names), "picture"), counted(sum(listing.others.values()), "other file")
    kinds = ", ".join(f"{count} {suffix or 'without an ending'}" for suffix, count in listing.others.items())
    said = f": {printable(kinds)}" if kinds else ""
    logger.info("%s: %s; %s ignored%s", listing.folder, found, others, said)
    return listing


def preprocess(
    listing: Listing, config: FolderPreprocessConfig, scratch: Path
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Decode every picture once: to keep its pixels, to measure them, and to know that it can be read.

    Returns the tensors of the training, validation and test split and what is known about them, as `images.prepare`
    does; where the pixels are not kept, the tensors are what `ImageFiles` takes. Raises InputError for what is wrong
    with the folder or with a picture.
    """
    from torchloom.system.devices import usable_cores

    classes, parts = split_pictures(listing, config)
    log_classes(classes, {name: part.labels for name, part in parts.items()})
    kept = scratch if _keeps_pixels(listing, config, scratch) else None
    with ThreadPoolExecutor(usable_cores(), "decode") as pool, step_bar() as bar:
        values = config.value_range or measured_range(listing, parts["train"], pool, bar)
        reading = {"fit": config.fit, "value_range": values}
        decoder = Decoder(listing, config, reading, kept, pool, bar)
        splits = {name: decoder.split(part) for name, part in parts.items()}
    decoder.report()
    labels = {name: np.asarray(tensors.arrays["labels"]) for name, (tensors, _) in splits.items()}
    for name in ("train", "test"):
        _check(listing, labels[name], classes, name)
    height, width, channels = decoder.shape
    info = describe(classes, [channels, height, width], splits["train"][1], labels) | reading
    return splits["train"][0], splits["validation"][0], splits["test"][0], info


def _keeps_pixels(listing: Listing, config: FolderPreprocessConfig, scratch: Path) -> bool:
    """Whether the decoded pixels are to be kept; by default when they fit on the disk, twice while they are written."""
    needed = len(listing.names) * math.prod(config.size) * config.channels
    free = shutil.disk_usage(scratch).free
    keep = config.cache == "always" or (config.cache == "auto" and 2 * needed < ROOM * free)
    logger.info(
        "%.2f GB of pixels, %.0f GB free on the disk: %s",
        needed / 1e9,
        free / 1e9,
        "kept in files" if keep else "decoded from the pictures for each batch",
    )
    return keep
