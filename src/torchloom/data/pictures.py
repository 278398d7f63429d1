"""A user's picture as an image of the size that a network takes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import RLock
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from torchloom.config import Fit
from torchloom.data.picture_formats import FORMATS
from torchloom.errors import InputError

LARGEST_IMAGE = 100_000_000  # pixels; decoded, each takes up to four bytes
LARGE = 16_000_000  # pixels, of which one picture is decoded at a time, and made smaller on the way
BAND = 1 << 22  # pixels that are worked on at once
ONE_AT_A_TIME = RLock()
SIXTEEN_BITS = 65_535  # the greatest value
PHOTOMETRIC = 262  # the TIFF tag that is 0 where 0 is white
SUBFILE = 254  # the one that is above 0 on a page that is a smaller copy, or says what is transparent in another
ORIENTATION = 274  # the tag, of EXIF too, of how a camera was held

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
    counts; a TIFF file of several pages is refused. `crop` cuts the middle out, `pad` adds black borders, `squash`
    changes the proportions. `value_range` says what becomes black and white of more than 8 bits a channel. `invert`
    swaps light and dark. Raises InputError when it cannot be read.
    """
    channels, height, width = shape
    mode = "RGB" if channels == 3 else "L"
    with opened_image(file) as picture:
        enough = 2 * max(height, width)
        picture.draft(mode, (enough, enough))  # a large JPEG is decoded smaller
        values = _value_range(picture, value_range)
        white_is_zero = _deep(picture) and getattr(picture, "tag_v2", {}).get(PHOTOMETRIC) == 0
        _scale_transparent(picture)
        flat = _reduced(picture, mode, 2 * enough, lambda part: _flat(part, values, white_is_zero).convert(mode))
        upright = turned(flat, turn_of(picture))
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
    """A picture that is not decoded yet; what is found to be wrong with it, then or later, is an InputError.

    A LARGE one is held by one thread at a time.
    """
    try:
        with ExitStack() as stack:
            picture = stack.enter_context(Image.open(file, formats=FORMATS))
            pixels = picture.width * picture.height
            if pixels > LARGEST_IMAGE:
                raise InputError(f"has too many pixels: {picture.width} x {picture.height}, above {LARGEST_IMAGE:,}")
            if picture.format == "TIFF":
                _check_one_page(picture)
            if pixels > LARGE:
                stack.enter_context(ONE_AT_A_TIME)
            yield picture
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError("has too many pixels") from error
    except UnidentifiedImageError as error:
        raise InputError(f"is not a picture that can be read here: {', '.join(FORMATS)}") from error
    except Exception as error:  # each format has its own
        raise InputError(f"is a damaged picture ({str(error) or type(error).__name__})") from error


def _check_one_page(picture: ImageFile) -> None:
    """InputError when a TIFF file has a second picture beside the first, and not a smaller copy of it."""
    size = picture.size
    try:
        picture.seek(1)
    except EOFError:
        return
    alike = picture.size == size and not getattr(picture, "tag_v2", {}).get(SUBFILE)
    picture.seek(0)
    if alike:
        pages = getattr(picture, "n_frames", 2)
        raise InputError(f"holds {pages} pages, of which only the first would count. Save each in a file of its own")


def bands(picture: Image.Image, multiple: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """A picture in pieces of so few rows, `multiple` times any number, that these take little memory, each with the
    number of its first row."""
    rows = max(1, BAND // (picture.width * multiple)) * multiple
    if rows >= picture.height:
        yield 0, picture
        return
    for start in range(0, picture.height, rows):
        yield start, picture.crop((0, start, picture.width, min(start + rows, picture.height)))


def _reduced(
    picture: Image.Image, mode: str, enough: int, flattened: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """The picture `flattened` to this mode, as it is; of a LARGE one the means of squares, so that it still has
    `enough` pixels to a side."""
    if picture.width * picture.height <= LARGE:
        return flattened(picture)
    factor = max(1, min(picture.size) // enough)
    whole = Image.new(mode, (-(-picture.width // factor), -(-picture.height // factor)))
    for start, part in bands(picture, factor):
        whole.paste(flattened(part).reduce(factor), (0, start // factor))
    return whole


def turn_of(picture: Image.Image) -> int:
    """How a camera was held, as EXIF numbers it: 1 is upright."""
    turn = picture.getexif().get(ORIENTATION, 1)
    return turn if turn in range(1, 9) else 1


def turned(image: Image.Image, turn: int) -> Image.Image:
    """The image upright that a camera took which was held like this."""
    if turn == 1:
        return image
    image.getexif()[ORIENTATION] = turn
    return ImageOps.exif_transpose(image)


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
        parts = [_extremes(np.asarray(part)) for _, part in bands(picture)]
    least, greatest = min(part[0] for part in parts), max(part[1] for part in parts)
    if in_colour:  # the higher 8 bits
        return 0.0, 256.0 * greatest + 255, True
    return (least, greatest, all(part[2] for part in parts)) if math.isfinite(sum(map(sum, parts))) else None


def _extremes(values: np.ndarray) -> tuple[float, float, bool]:
    whole = values.dtype.kind != "f" or bool((values == np.rint(values)).all())
    return float(values.min()), float(values.max()), whole


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
