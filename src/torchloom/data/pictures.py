"""A user's picture as an image of the size that a network takes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from torchloom.config import Fit
from torchloom.data.picture_formats import FORMATS
from torchloom.errors import InputError

LARGEST_IMAGE = 100_000_000  # pixels; decoded, each takes up to four bytes
SIXTEEN_BITS = 65_535  # the greatest value
PHOTOMETRIC = 262  # the TIFF tag that is 0 where 0 is white

# Of odd metadata, which does not matter here. Not around each call: threads would undo each other's settings.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_image(
    file: IO[bytes],
    shape: tuple[int, int, int],
    fit: Fit = "crop",
    invert: bool = False,
    value_range: Sequence[float] | None = None,
) -> np.ndarray:
    """A picture as (C, H, W) uint8 of this `shape`, grey when C is 1 and else in colour.

    It is turned upright as its camera says, what is transparent becomes white, and of an animation the first picture
    counts. `crop` cuts the middle out, `pad` adds black borders, `squash` changes the proportions. `value_range` says
    what becomes black and white of more than 8 bits a channel. `invert` swaps light and dark. Raises InputError when it
    cannot be read.
    """
    channels, height, width = shape
    mode = "RGB" if channels == 3 else "L"
    with opened_image(file) as picture:
        enough = 2 * max(height, width)
        picture.draft(mode, (enough, enough))  # a large JPEG is decoded smaller
        values = _value_range(picture, value_range)
        white_is_zero = _deep(picture) and getattr(picture, "tag_v2", {}).get(PHOTOMETRIC) == 0
        _scale_transparent(picture)
        upright = _flat(ImageOps.exif_transpose(picture), values, white_is_zero).convert(mode)
    if fit == "crop":
        sized = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
    elif fit == "pad":
        sized = ImageOps.pad(upright, (width, height), Image.Resampling.BILINEAR)
    else:
        sized = upright.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(sized, dtype=np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
    return 255 - pixels if invert else pixels


@contextmanager
def opened_image(file: IO[bytes]) -> Iterator[ImageFile]:
    """A picture that is not decoded yet; what is found to be wrong with it, then or later, is an InputError."""
    try:
        with Image.open(file, formats=FORMATS) as picture:
            if picture.width * picture.height > LARGEST_IMAGE:
                raise InputError(f"has too many pixels: {picture.width} x {picture.height}, above {LARGEST_IMAGE:,}")
            yield picture
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError("has too many pixels") from error
    except UnidentifiedImageError as error:
        raise InputError(f"is not a picture that can be read here: {', '.join(FORMATS)}") from error
    except Exception as error:  # each format has its own
        raise InputError(f"is a damaged picture ({str(error) or type(error).__name__})") from error


def _value_range(picture: ImageFile, given: Sequence[float] | None) -> Sequence[float] | None:
    """What becomes black and white in a picture, `given` or by its format; None of one that has 8 bits a channel."""
    if _deep(picture):
        if not given and not picture.mode.startswith("I;16") and picture.format not in {"PNG", "PPM"}:
            raise InputError(
                "has 32 bits a channel, of which nothing says what is white. Save it with 8 or 16, or say so by "
                "value_range: [black, white]"
            )
        return given or (0, SIXTEEN_BITS)
    if given and given[1] < SIXTEEN_BITS and _deep_colour(picture):
        raise InputError(
            "has 16 bits a channel in colour, of which only the higher 8 can be read, and nearly nothing of values up "
            f"to {given[1]:g}. Save it with 8"
        )
    return None


def _deep(picture: Image.Image) -> bool:
    """Whether it is grey and has more than 8 bits."""
    return picture.mode.startswith("I") or picture.mode == "F"


def _deep_colour(picture: ImageFile) -> bool:
    """Whether a picture that is not decoded yet has several channels of 16 bits each, which Pillow cuts to 8."""
    return not _deep(picture) and any(";16" in str(tile[3]) for tile in picture.tile)


def deep_extremes(file: IO[bytes]) -> tuple[float, float, bool] | None:
    """Of a picture with more than 8 bits a channel its least and greatest value, and whether all are whole numbers.

    None of other pictures, which are not decoded, and of those that hold no finite numbers. Raises InputError when it
    cannot be read.
    """
    with opened_image(file) as picture:
        in_colour = _deep_colour(picture)
        if not in_colour and not _deep(picture):
            return None
        values = np.asarray(picture)
        if in_colour:  # the higher 8 bits
            return 0.0, 256.0 * int(values.max()) + 255, True
        least, greatest = float(values.min()), float(values.max())
        whole = values.dtype.kind != "f" or bool((values == np.rint(values)).all())
    return (least, greatest, whole) if math.isfinite(greatest - least) else None


def _scale_transparent(picture: ImageFile) -> None:
    """Bring what is transparent in a PNG file to the 8 bits that Pillow brings its pixels to."""
    raw = {tile[3] for tile in picture.tile} if "transparency" in picture.info else set()
    for bits in (2, 4):
        if f"L;{bits}" in raw:
            picture.info["transparency"] *= 255 // (2**bits - 1)
    if "RGB;16B" in raw:  # the higher 8
        picture.info["transparency"] = tuple(value >> 8 for value in picture.info["transparency"])


def _flat(picture: Image.Image, value_range: Sequence[float] | None, white_is_zero: bool) -> Image.Image:
    """Eight bits a channel, and nothing transparent; Pillow sees to `white_is_zero` where there are no more."""
    if value_range:
        values = np.asarray(picture)
        grey = _eight_bits(values, *value_range)
        grey = 255 - grey if white_is_zero else grey
        return Image.fromarray(np.where(values == picture.info.get("transparency"), np.uint8(255), grey))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture)
    return picture


def _eight_bits(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """The values as uint8, 256 equal steps from black to white: of 0 to 4095 the higher 8 of the 12 bits."""
    if values.dtype.itemsize == 2:
        table = _eight_bits(np.arange(SIXTEEN_BITS + 1, dtype=np.float64), black, white)
        return np.take(table, values)
    if np.isnan(values).any():
        raise InputError("holds values that are not numbers (NaN)")
    steps: np.ndarray = ((values - black) * (256 / (white - black))).clip(0, 255).astype(np.uint8)
    return steps
