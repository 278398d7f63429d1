"""Masks, which say of which class each pixel of a picture is, as they are found: grey levels, palettes or colours.

The numbers of classes are found out on the training masks. Nothing is ever made between two of them: what has another
size than its picture, or is brought to that of an image, takes the nearest pixel.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from torchloom.config import Fit
from torchloom.data.pictures import BAND, bands, opened_image, turn_of, turned
from torchloom.data.targets import IGNORED
from torchloom.errors import InputError
from torchloom.system.words import listed

logger = logging.getLogger(__name__)

UNKNOWN = 254  # stands among numbers of classes for values that are of none
MOST = 64  # values that are classes of their own, where nothing says which are
LOSSY = {"JPEG", "WEBP"}  # formats that make values in between
NEAR, MOSTLY = 32, 0.9  # so near to black or white are so many of the pixels of a black and white mask that is lossy
NEARLY_GREY = 12  # by which channels may differ in a format that makes values in between
COLOUR = 1 << 24  # is added to the red, green and blue of what is no grey
WIDTH, HEIGHT = 256, 257  # the TIFF tags of a picture as it is stored: Pillow has it upright
BYTES = {"P", "PA", "L", "LA", "RGB", "RGBA"}  # Pillow's names of pixels of 8 bits a channel
MOST_COLOURS = 100_000  # a photograph has so many, and no mask
PROPORTIONS = 0.02  # by which those of a mask may differ from its picture's


@dataclass(frozen=True)
class Coding:
    """The numbers of classes by the values of masks; `nearest` is whether values in between are of the nearest one."""

    classes: Sequence[str]
    numbers: Mapping[int, int]
    nearest: bool
    palette: Mapping[int, int] = field(default_factory=dict)  # the colours of its places, where masks have one

    @property
    def greys(self) -> list[int]:
        """The value of each class, where all are greys of 8 bits; else nothing."""
        values = [value for value, number in sorted(self.numbers.items(), key=lambda each: each[1]) if number < UNKNOWN]
        return values if max(values) < 256 else []

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Values of any shape -> numbers of classes, uint8, IGNORED or UNKNOWN."""
        if values.dtype == np.uint8:
            numbers: np.ndarray = self._coded(np.arange(256))[values]
            return numbers
        coded = np.empty(values.shape, dtype=np.uint8)
        for rows in _rows(values):
            coded[rows] = self._coded(values[rows])
        return coded

    def _coded(self, values: np.ndarray) -> np.ndarray:
        if max(self.numbers) >= COLOUR:
            values = as_colours(values)
        known = np.array(sorted(self.numbers))
        numbers = np.array([self.numbers[value] for value in known.tolist()], dtype=np.uint8)
        if self.nearest:
            found: np.ndarray = numbers[np.searchsorted((known[1:] + known[:-1]) / 2, values)]
            return np.where(values < COLOUR, found, np.uint8(UNKNOWN))
        places = np.searchsorted(known, values).clip(max=len(known) - 1)
        coded: np.ndarray = np.where(known[places] == values, numbers[places], np.uint8(UNKNOWN))
        return coded


@dataclass(frozen=True)
class Mask:
    """`values` (H, W) are grey levels, places in a palette, or colours, see `value_name`: uint8, or int32 where these
    are too great. They lie as they are to be seen; `turn` is how the camera was held, by the file.

    `counts` are how often each comes up, of more than MOST_COLOURS the first ones; `lossy` is whether its format may
    have changed them, and `palette` has the colours of the places that come up.
    """

    values: np.ndarray
    counts: Counter[int]
    lossy: bool
    palette: Mapping[int, int] | None
    turn: int


def read_mask(file: IO[bytes]) -> Mask:
    """InputError when it cannot be read, or is transparent in places."""
    with opened_image(file) as picture:
        lossy, turn = picture.format in LOSSY, turn_of(picture)
        values = _values(picture, lossy)
        counts = _counted(values)
        palette = _palette(picture, counts) if picture.mode in {"P", "PA"} else None
        return Mask(_turned(values, turn_of(picture)), counts, lossy, palette, turn)  # Pillow turns TIFF itself


def _turned(values: np.ndarray, turn: int) -> np.ndarray:
    return values if turn == 1 else np.asarray(turned(Image.fromarray(values), turn))


def upright(mask: Mask, size: tuple[int, int], turn: int) -> np.ndarray:
    """The values of the mask of a picture that is of this `size` (width, height) when upright, as it lies on that.

    Where the camera was held otherwise for one of the two, by their files, its proportions say whether it is a mask of
    the picture as it is seen or as it is stored. InputError where they do not.
    """
    if mask.turn == turn:
        return mask.values
    back = {6: 8, 8: 6}.get(mask.turn, mask.turn)
    stored = _turned(_turned(mask.values, back), turn)
    seen_fits, stored_fits = (_alike(values.shape[::-1], size) for values in (mask.values, stored))
    if seen_fits and stored_fits:
        raise InputError(
            f"has the EXIF orientation {mask.turn}, and its picture {turn}: it is unclear how it lies on that. Save "
            "both upright"
        )
    return stored if stored_fits else mask.values


def _alike(one: tuple[int, ...], other: tuple[int, int]) -> bool:
    """Whether the proportions are the same."""
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) <= PROPORTIONS


def check_palette(known: Mapping[int, int], palette: Mapping[int, int]) -> None:
    """InputError when a place in a mask's palette is another colour than in others."""
    for place, colour in palette.items():
        if known.get(place, colour) != colour:
            raise InputError(
                f"masks have different palettes: place {place} is {value_name(known[place])} in one and "
                f"{value_name(colour)} in another. Save them as colours, without palettes"
            )


def mask_of(picture: Path, mask: Path, coding: Coding, shape: tuple[int, int], fit: Fit) -> np.ndarray:
    """The mask of a picture (H, W) uint8 as its image of `shape` has it; InputError when it is of no class."""
    path = picture
    try:
        with path.open("rb") as file:
            size, turn = upright_size(file)
        path = mask
        with path.open("rb") as file:
            found = read_mask(file)
        check_palette(coding.palette, found.palette or {})
        values = np.array(list(found.counts), dtype=np.int64)
        if (unknown := values[coding(values) == UNKNOWN]).size:
            raise InputError(f"holds {unknown_values(unknown.tolist())}")
        return fitted(coding(upright(found, size, turn)), size, shape, fit)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except InputError as error:
        raise InputError(f"{path}: {error.message}") from error


def as_colours(values: np.ndarray) -> np.ndarray:
    """Grey levels as the colours that they are."""
    values = values.astype(np.int64)
    return np.where((values < COLOUR) & (values < 256), COLOUR + 0x010101 * values, values)


def _rows(values: np.ndarray) -> Iterator[slice]:
    """The rows in pieces that take little memory to work on."""
    step = max(1, BAND // max(1, values[:1].size))
    return (slice(start, start + step) for start in range(0, len(values), step))


def _counted(values: np.ndarray) -> Counter[int]:
    found: Counter[int] = Counter()
    for rows in _rows(values):
        if values.dtype == np.uint8:
            counts = np.bincount(values[rows].ravel(), minlength=256)
            there = np.flatnonzero(counts)
            counts = counts[there]
        else:
            there, counts = np.unique(values[rows], return_counts=True)
        found.update(dict(zip(there.tolist(), counts.tolist(), strict=True)))
        if len(found) > MOST_COLOURS:
            break
    return found


def _palette(picture: Image.Image, places: Iterable[int]) -> dict[int, int]:
    colours = np.reshape(picture.getpalette("RGB") or [], (-1, 3)).astype(np.int64) @ [1 << 16, 1 << 8, 1]
    return {place: COLOUR + int(colours[place]) for place in sorted(places) if place < len(colours)}


def _values(picture: Image.Image, lossy: bool) -> np.ndarray:
    if picture.mode == "1":
        picture = picture.convert("L")
    elif picture.mode not in {*BYTES, "I", "F"} and not picture.mode.startswith("I;16"):
        picture = picture.convert("RGB")
    if picture.mode in {"PA", "LA", "RGBA"} and len({end for part in _arrays(picture) for end in _ends(part)}) > 1:
        raise InputError("is transparent in places, and nothing says of which class these are. Save it without")
    tolerance = NEARLY_GREY if lossy else 0
    grey = picture.mode not in {"RGB", "RGBA"} or all(
        np.ptp(part[..., :3], axis=2).max() <= tolerance for part in _arrays(picture)
    )
    values = np.empty(picture.size[::-1], dtype=np.uint8 if grey and picture.mode in BYTES else np.int32)
    start = 0
    for part in _arrays(picture):
        values[start : start + len(part)] = _whole(part if part.ndim == 2 else part[..., 0]) if grey else _colours(part)
        start += len(part)
    return values


def _arrays(picture: Image.Image) -> Iterator[np.ndarray]:
    """The pixels (H, W) or (H, W, C) in pieces that take little memory."""
    return (np.asarray(part) for _, part in bands(picture))


def _ends(part: np.ndarray) -> tuple[int, int]:
    """The least and the greatest of what the last channel has."""
    return int(part[..., -1].min()), int(part[..., -1].max())


def _colours(part: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(part[..., :3].astype(np.int32), 2, 0)
    colours: np.ndarray = COLOUR + (red << 16) + (green << 8) + blue
    return colours


def _whole(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    whole: np.ndarray = values.astype(np.int64)
    if (whole != values).any() or (whole < 0).any() or (whole >= COLOUR).any():
        raise InputError("holds values that are no whole numbers from 0 on, and so of no class")
    return whole


def value_name(value: int) -> str:
    """A grey level as it is, a colour as #rrggbb."""
    return f"#{value - COLOUR:06x}" if value >= COLOUR else str(value)


def _value(name: int | str, coloured: bool = True) -> int:
    value = name if isinstance(name, int) else COLOUR + int(name.removeprefix("#"), 16)
    return int(as_colours(np.array(value))) if coloured else value


def _coloured(counts: Counter[int]) -> Counter[int]:
    """With grey levels among colours as the colours that they are."""
    found: Counter[int] = Counter()
    for value, count in counts.items():
        found[_value(value)] += count
    return found


def _check(counts: Counter[int], lossy: bool, classes: Mapping[str, int | str], ignore: Sequence[int | str]) -> None:
    if lossy and max(counts) >= COLOUR:
        raise InputError("the masks hold colours, and are JPEG or WebP, and these change colours. Save them as PNG")
    twice = [value for value, count in Counter(map(_value, [*classes.values(), *ignore])).items() if count > 1]
    if twice:
        raise InputError(f"preprocess.classes and ignore: {value_name(twice[0])} stands for two things")
    if len(classes) > UNKNOWN:
        raise InputError(f"preprocess.classes: there are {len(classes)}, and may be {UNKNOWN} at most")


def unknown_values(values: Iterable[int]) -> str:
    named = listed(sorted({value_name(value) for value in values}))
    return f"{named}, of which nothing says what class it is. Name it in preprocess.classes, or in ignore"


def learn_coding(
    counts: Counter[int], lossy: bool, classes: Mapping[str, int | str], ignore: Sequence[int | str]
) -> Coding:
    """The coding of masks whose pixels have these values so often.

    Without `classes` each value is one: 0 and 255 are two, and beside other greys 255 is ignored, as is customary. In
    formats that make values in between black and white are taken for the nearer one, and what else there is must be
    said by `classes`. InputError when it is unclear.
    """
    _check(counts, lossy, classes, ignore)
    coloured = max(counts) >= COLOUR
    if coloured:
        counts = _coloured(counts)
    ignored = {_value(value, coloured) for value in ignore}
    if classes:
        given = {_value(value, coloured): number for number, value in enumerate(classes.values())}
        lacking = [] if lossy else sorted(map(value_name, given.keys() - counts.keys()))
        if lacking:
            raise InputError(f"preprocess.classes: no training mask has {lacking[0]}; they have {_named(counts)}")
        given |= dict.fromkeys(ignored, IGNORED)
        nearest = lossy and max(given) < COLOUR
        if not nearest and (unknown := counts.keys() - given.keys()):
            raise InputError(f"the training masks also hold {unknown_values(unknown)}")
        return Coding(list(classes), given, nearest)
    values = sorted(counts.keys() - ignored)
    if lossy or len(values) > MOST:
        ends = sum(count for value, count in counts.items() if value <= NEAR or 255 - NEAR <= value <= 255)
        if ends < MOSTLY * counts.total() or ignored:
            raise InputError(
                f"the masks hold {len(values)} different values, which cannot all be classes: {_named(counts)}. Say "
                "which are, preprocess.classes: {background: 0, cell: 255}"
            )
        logger.warning("the masks hold values between black and white: each is taken for the nearer one")
        return Coding(["0", "255"], {0: 0, 255: 1}, nearest=True)
    if len(values) > 2 and values[-1] == 255:
        logger.info("masks: 255 stands for what is of no class, and is ignored; preprocess.classes says otherwise")
        ignored.add(255)
        values.remove(255)
    if len(values) < 2:
        raise InputError(f"the training masks hold {_named(counts)} alone: to tell pixels apart takes two classes")
    if len(values) > UNKNOWN:
        raise InputError(f"the training masks hold {len(values)} values, and there may be {UNKNOWN} classes at most")
    numbers = {value: number for number, value in enumerate(values)}
    return Coding(list(map(value_name, values)), numbers | dict.fromkeys(ignored, IGNORED), nearest=False)


def _named(counts: Counter[int]) -> str:
    return listed([f"{value_name(value)} ({count / counts.total():.2%})" for value, count in counts.most_common(10)])


def upright_size(file: IO[bytes]) -> tuple[tuple[int, int], int]:
    """Width and height of a picture when it is upright, and how its camera was held."""
    with opened_image(file) as picture:
        tags, turn = getattr(picture, "tag_v2", {}), turn_of(picture)
        width, height = tags.get(WIDTH, picture.width), tags.get(HEIGHT, picture.height)
        return ((height, width) if turn > 4 else (width, height)), turn


def fitted(numbers: np.ndarray, size: tuple[int, int], shape: tuple[int, int], fit: Fit) -> np.ndarray:
    """A mask of a picture of this `size` (width, height) as its image of `shape` (H, W) has it, see `decode_image`.

    What `pad` adds is IGNORED. InputError when its proportions are not those of the picture.
    """
    mask = Image.fromarray(numbers)
    if mask.size != size:
        if not _alike(mask.size, size):
            raise InputError(f"is a mask of {mask.width} x {mask.height} pixels for a picture of {size[0]} x {size[1]}")
        mask = mask.resize(size, Image.Resampling.NEAREST)
    target = shape[1], shape[0]
    if fit == "crop":
        mask = ImageOps.fit(mask, target, Image.Resampling.NEAREST)
    elif fit == "pad":
        mask = ImageOps.pad(mask, target, Image.Resampling.NEAREST, color=IGNORED)
    else:
        mask = mask.resize(target, Image.Resampling.NEAREST)
    return np.asarray(mask)
