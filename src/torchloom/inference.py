"""A trained model at work: its ONNX file in ONNX Runtime. Nothing here needs PyTorch, or what trained the model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import onnxruntime
from PIL import Image, ImageOps, UnidentifiedImageError

from torchloom.data.pictures import FORMATS
from torchloom.data.text import Tokenizer, read_number
from torchloom.datasets.onnx import ONNXDataset
from torchloom.errors import InputError

LARGEST_IMAGE = 100_000_000  # pixels; decoded, each takes up to four bytes
LONGEST_TEXT = 10_000  # tokens; a batch takes memory by its longest text
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

Fit = Literal["crop", "pad", "squash"]

# Of odd metadata, which does not matter here. Not around each call: threads would undo each other's settings.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Model:
    """An exported model, and what it knows of its data.

    `kind` is what it does: classify `images` or `documents`, give a `reconstruction` of images, continue a `text`, or
    give the number that belongs to each row of a `table`. `classes`, `shape` (channels, height, width), `tokenizer`,
    `features` and `target` are there as far as they belong to the kind. `link` is what makes probabilities of logits:
    softmax, sigmoid, or nothing where the loss that trained it gives none.
    """

    classes: list[str]
    shape: tuple[int, int, int]
    tokenizer: Tokenizer
    features: list[str]
    target: str
    link: str | None

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
            raise InputError(f"the model was not exported by torchloom, or by another version ({error!r})") from error

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
        logits = self.run("logits", **inputs)
        if self.link is None:
            return logits
        if self.link == "sigmoid":
            odds: np.ndarray = np.exp(-np.logaddexp(0, -logits))  # no overflow
            return odds
        shares = np.exp(logits - logits.max(1, keepdims=True))
        probabilities: np.ndarray = shares / shares.sum(1, keepdims=True)
        return probabilities

    def tokens(self, text: str) -> np.ndarray:
        """The (T,) int64 tokens of a text; InputError when it is empty, too long or has unknown characters."""
        tokens = self.tokenizer.encode(text)
        units = self.tokenizer.kind
        if not len(tokens):
            raise InputError(f"holds no {units}")
        if len(tokens) > LONGEST_TEXT:
            raise InputError(f"holds {len(tokens):,} {units}, more than {LONGEST_TEXT:,}")
        return tokens

    def prompt(self, text: str) -> str:
        """`text`, when a language model can go on from it; else InputError, as `tokens` has it."""
        self.tokens(text)
        return text


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
            "kedro run --pipeline <task>, or name an ONNX file (.onnx) or a checkpoint (.safetensors)"
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


def decode_image(file: IO[bytes], shape: tuple[int, int, int], fit: Fit = "crop", invert: bool = False) -> np.ndarray:
    """A picture as (C, H, W) uint8 of this `shape`, grey when C is 1 and else in colour.

    It is turned upright as its camera says, what is transparent becomes white, and of an animation the first picture
    counts. `crop` cuts the middle out, `pad` adds black borders, `squash` changes the proportions. `invert` swaps
    light and dark. Raises InputError when it cannot be read.
    """
    channels, height, width = shape
    mode = "RGB" if channels == 3 else "L"
    try:
        with Image.open(file, formats=FORMATS) as picture:
            enough = 2 * max(height, width)
            picture.draft(mode, (enough, enough))  # a large JPEG is decoded smaller
            if picture.width * picture.height > LARGEST_IMAGE:
                raise InputError(f"has too many pixels: {picture.width} x {picture.height}, above {LARGEST_IMAGE:,}")
            upright = _flat(ImageOps.exif_transpose(picture)).convert(mode)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError("has too many pixels") from error
    except UnidentifiedImageError as error:
        raise InputError(f"is not a picture that can be read here: {', '.join(FORMATS)}") from error
    except Exception as error:  # each format has its own
        raise InputError(f"is a damaged picture ({str(error) or type(error).__name__})") from error
    if fit == "crop":
        sized = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
    elif fit == "pad":
        sized = ImageOps.pad(upright, (width, height), Image.Resampling.BILINEAR)
    else:
        sized = upright.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(sized, dtype=np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
    return 255 - pixels if invert else pixels


def _flat(picture: Image.Image) -> Image.Image:
    """Eight bits a channel, and nothing transparent."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8))
    if picture.mode in {"I", "F"}:
        raise InputError("has 32 bits a channel, of which nothing says what is white. Save it with 8 or 16")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture)
    return picture


def pad(documents: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Documents of (T,) tokens as a batch: `tokens` (B, greatest T) int64, filled up with 0, and `lengths` (B,)."""
    lengths = np.array([len(tokens) for tokens in documents], dtype=np.int64)
    batch = np.zeros((len(documents), lengths.max()), dtype=np.int64)
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
