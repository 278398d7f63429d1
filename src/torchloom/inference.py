"""A trained model at work: its ONNX file in ONNX Runtime. Nothing here needs PyTorch, or what trained the model."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from pydantic import TypeAdapter, ValidationError

from torchloom.config import Count, Fit
from torchloom.data.pictures import FORMATS
from torchloom.data.text import Tokenizer, read_number
from torchloom.datasets.onnx import ONNXDataset
from torchloom.errors import InputError
from torchloom.modalities import Reading

LARGEST_IMAGE = 100_000_000  # pixels; decoded, each takes up to four bytes
LONGEST_TEXT = 10_000  # tokens; a batch takes memory by its longest text
SIXTEEN_BITS = 65_535  # the greatest value
PHOTOMETRIC = 262  # the TIFF tag that is 0 where 0 is white
LARGEST_NUMBER = float(np.finfo(np.float32).max)
KINDS = {  # what a model does, by its first input and its first output
    ("images", "logits"): "images",
    ("images", "reconstruction"): "reconstruction",
    ("tokens", "logits"): "documents",
    ("features", "prediction"): "table",
}
NEEDS = {  # what must be in the model's metadata
    "images": ["classes"],
    "reconstruction": [],
    "documents": ["classes", "tokenizer"],
    "text": ["tokenizer"],
    "table": ["features", "target"],
}

# Of odd metadata, which does not matter here. Not around each call: threads would undo each other's settings.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Model:
    """An exported model, and what it knows of its data.

    `kind` is what it does: classify `images` or `documents`, give a `reconstruction` of images, continue a `text`, or
    give the number that belongs to each row of a `table`. `classes`, `shape` (channels, height, width), `tokenizer`,
    `features` and `target` are there as far as they belong to the kind. `link` is what makes probabilities of logits:
    softmax, sigmoid, or nothing where the loss that trained it gives none. `reading` and `max_tokens` say what was done
    to the pictures and texts that it was tested on, as info.Reading and info.DocumentInfo have it; what a version
    of before has exported does not know, and takes the defaults.
    """

    classes: list[str]
    shape: tuple[int, int, int]
    tokenizer: Tokenizer
    features: list[str]
    target: str
    link: str | None
    reading: Reading
    max_tokens: int | None

    def __init__(self, serialised: bytes, threads: int | None = None) -> None:
        """Raises InputError when `serialised` is not a model of ours."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0  # 0: all cores
        try:
            self.session = onnxruntime.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common parent
            raise InputError(f"ONNX Runtime {onnxruntime.__version__} cannot load the model ({error})") from error
        try:
            self._describe()
        except (KeyError, ValueError, TypeError) as error:
            reason = _first(error) if isinstance(error, ValidationError) else repr(error)
            raise InputError(f"the model was not exported by torchloom, or by another version ({reason})") from error

    def _describe(self) -> None:
        first, outputs = self.session.get_inputs()[0], self.session.get_outputs()
        self.kind = "text" if outputs[-1].name.startswith("next_") else KINDS[first.name, outputs[0].name]
        metadata = self.session.get_modelmeta().custom_metadata_map
        for name in NEEDS[self.kind]:
            value = json.loads(metadata[name])
            setattr(self, name, Tokenizer.model_validate(value) if name == "tokenizer" else value)
        self.link = json.loads(metadata.get("probabilities", '"softmax"'))
        if self.link not in {"softmax", "sigmoid", None}:
            raise ValueError(f"probabilities {self.link!r}")
        known = {name: json.loads(metadata[name]) for name in (*Reading.model_fields, "max_tokens") if name in metadata}
        self.max_tokens = TypeAdapter(Count | None).validate_python(known.pop("max_tokens", None))
        self.reading = Reading.model_validate(known)
        if first.name == "images":
            channels, height, width = first.shape[1:]
            self.shape = (int(channels), int(height), int(width))
        if "classes" in NEEDS[self.kind] and len(self.classes) != outputs[0].shape[-1]:
            raise ValueError(f"{len(self.classes)} classes, {outputs[0].shape[-1]} logits")

    def run(self, output: str, **inputs: np.ndarray) -> np.ndarray:
        """One output of the graph."""
        answer: np.ndarray = self.session.run([output], inputs)[0]
        return answer

    def probabilities(self, **inputs: np.ndarray) -> np.ndarray:
        """(B, classes) float32 for a batch of `images` (B, C, H, W) uint8, or `tokens` (B, T) and `lengths` (B,).

        Without a `link` they are the logits themselves, which say no more than an order.
        """
        logits = self.logits(**inputs)
        if self.link is None:
            return logits
        if self.link == "sigmoid":
            odds: np.ndarray = np.exp(-np.logaddexp(0, -logits))  # no overflow
            return odds
        shares = np.exp(logits - logits.max(1, keepdims=True))
        probabilities: np.ndarray = shares / shares.sum(1, keepdims=True)
        return probabilities

    def logits(self, **inputs: np.ndarray) -> np.ndarray:
        """(B, classes) float32 for the same; of images the mean over `reading.views`, as evaluation.Views has it."""
        if self.reading.views == "one":
            return self.run("logits", **inputs)
        views = _views(inputs["images"], self.reading)
        mean: np.ndarray = np.sum([share * self.run("logits", images=view) for share, view in views], axis=0)
        return mean

    def tokens(self, text: str) -> np.ndarray:
        """The (T,) int64 tokens of a text, of more than `max_tokens` the last ones.

        InputError when it is empty, too long or has unknown characters.
        """
        tokens = self.tokenizer.encode(text)
        units = self.tokenizer.kind
        if not len(tokens):
            raise InputError(f"holds no {units}")
        tokens = tokens[-self.max_tokens :] if self.max_tokens else tokens
        if len(tokens) > LONGEST_TEXT:
            raise InputError(f"holds {len(tokens):,} {units}, more than {LONGEST_TEXT:,}")
        return tokens

    def prompt(self, text: str) -> str:
        r"""`text` with \n at the end of each line, as in training, when a language model can go on from it.

        Else InputError, as `tokens` has it.
        """
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        self.tokens(text)
        return text


def _first(error: ValidationError) -> str:
    """What is wrong with the first of the values, in one line."""
    details = error.errors()[0]
    return ": ".join([*map(str, details["loc"]), details["msg"]])


# ---- finding one ---------------------------------------------------------------------------------------------------


def find_model(name: str, models: Path, key: str) -> Path:
    """The file of the model `name`: the ONNX file or checkpoint of that name, or what a task left in `models`.

    Raises InputError, which names the parameter `key`, when it is not there.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() in {".onnx", ".safetensors"}:
        if not path.is_file():
            raise InputError(f"{key} {name}: there is no such file")
        return path
    path = models / name / "model.onnx"
    if not path.is_file():
        exported = ", ".join(sorted(found.parent.name for found in models.glob("*/model.onnx"))) or "none"
        raise InputError(
            f"{key} {name}: there is no {path}. Tasks that have been exported there: {exported}. Run another one with "
            "kedro run --pipelines <task>, or name an ONNX file (.onnx) or a checkpoint (.safetensors)"
        )
    return path


def open_model(path: Path, threads: int | None = None) -> Model:
    """The model in an ONNX file, or in a checkpoint, which only PyTorch can export; InputError when it is neither."""
    serialised = ONNXDataset(filepath=str(path)).load() if path.suffix.lower() == ".onnx" else _exported(path)
    try:
        return Model(serialised, threads)
    except InputError as error:
        raise InputError(f"{path}: {error.message}") from error


def _exported(path: Path) -> bytes:
    from torchloom.export import export_checkpoint
    from torchloom.training.checkpoint import CheckpointDataset

    return export_checkpoint(CheckpointDataset(filepath=str(path)).load())


# ---- what goes in --------------------------------------------------------------------------------------------------


def _views(images: np.ndarray, reading: Reading) -> Iterator[tuple[float, np.ndarray]]:
    """The views of (B, C, H, W) images with their weights."""
    shift = reading.views == "mirror_and_shift"
    shifted = []
    if shift:
        height, width = images.shape[2:]
        bordered = np.pad(images, [(0, 0), (0, 0), (1, 1), (1, 1)], mode="reflect")
        shifted = [(1 / 8, bordered[:, :, place : place + height, place : place + width]) for place in (0, 2)]
    for share, view in [(1 / 4 if shift else 1 / 2, images), *shifted]:
        yield share, np.ascontiguousarray(view)
        yield share, np.ascontiguousarray(view[..., ::-1])


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
    with _open_image(file) as picture:
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
def _open_image(file: IO[bytes]) -> Iterator[ImageFile]:
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
    with _open_image(file) as picture:
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


def pad(documents: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Documents of (T,) tokens as a batch: `tokens` (B, greatest T) int64, filled up with 0, and `lengths` (B,)."""
    lengths = np.array([len(tokens) for tokens in documents], dtype=np.int64)
    batch = np.zeros((len(documents), max(map(len, documents))), dtype=np.int64)
    for row, tokens in zip(batch, documents, strict=True):
        row[: len(tokens)] = tokens
    return {"tokens": batch, "lengths": lengths}


def numbers(row: dict[str, Any], features: list[str]) -> np.ndarray:
    """The (features,) float32 of a row, by name; InputError names what is missing or no finite number.

    What else the row holds is left out.
    """
    missing = [name for name in features if row.get(name) is None]
    if missing:
        raise InputError(f"lacks {', '.join(map(repr, missing))}")
    return np.array([_number(name, row[name]) for name in features], dtype=np.float32)


def _number(name: str, given: Any) -> float:
    try:
        value = read_number(given) if isinstance(given, str) else float(given)
    except (TypeError, ValueError, OverflowError):
        advice = ". It takes no comma: decimals follow a point" if isinstance(given, str) and "," in given else ""
        raise InputError(f"{name}: {given!r} is not a number{advice}") from None
    if isinstance(given, bool):
        raise InputError(f"{name}: {given!r} is not a number")
    if not abs(value) <= LARGEST_NUMBER:  # NaN is not either
        raise InputError(f"{name}: {given!r} is not a finite number of 32 bits")
    return value


def top_classes(probabilities: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` likeliest classes of each row of (B, classes), the likeliest first, and their probabilities."""
    places = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    return places, np.take_along_axis(probabilities, places, axis=1)
