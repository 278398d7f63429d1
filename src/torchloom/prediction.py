"""What a model makes of many files: reading ahead by threads, batches, and the columns of the table."""

from __future__ import annotations

import csv
import json
import logging
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import pyarrow

from torchloom.config import AnswerConfig, ContinueConfig, GenerateConfig
from torchloom.datasets.listing import Listing
from torchloom.errors import InputError
from torchloom.generation import continue_text, onnx_stepper
from torchloom.inference import Model, decode_image, numbers, pad, top_classes
from torchloom.modalities import Reading

logger = logging.getLogger(__name__)

AHEAD = 2  # batches that are read while one is worked on
LARGEST_TEXT = 10_000_000  # characters of a file, before it is cut into tokens
PICTURES = {"images", "reconstruction"}  # kinds of model

Sample = tuple[str, Callable[[], Any]]  # what it is called in the tables, and how it is read
Columns = dict[str, Any]  # of the table, by name: for each sample a string or a number


# ---- reading -------------------------------------------------------------------------------------------------------


def told(model: Model, config: AnswerConfig) -> Model:
    """The model as it is to be asked: as its test was, but for what `config` says; what differs is in the log."""
    if model.kind not in PICTURES:
        return model
    trained = {**model.reading.model_dump(), "invert": False}
    otherwise = {key: value for key in trained if (value := getattr(config, key)) not in (None, trained[key])}
    if otherwise:
        lines = [f"{key} {json.dumps(value)} instead of {json.dumps(trained[key])}" for key, value in otherwise.items()]
        logger.info("pictures are not put to the model as those of its test were: %s", ", ".join(lines))
    asked = copy(model)
    asked.reading = Reading.model_validate({**trained, **otherwise})
    return asked


def reader(model: Model, config: AnswerConfig) -> Callable[[Any], Any]:
    """What turns an open picture, a text or a row into what the model takes, or raises InputError."""
    if model.kind in PICTURES:
        read = model.reading.model_dump(include={"fit", "value_range"})
        return partial(decode_image, shape=model.shape, invert=config.invert, **read)
    if model.kind == "table":
        return partial(numbers, features=model.features)
    return model.tokens if model.kind == "documents" else model.prompt


def samples_of(kind: str, files: Listing, read: Callable[[Any], Any]) -> Iterator[Sample]:
    """What there is for a model of this kind to look at; nothing is held of what has been handed on.

    Pictures are a file each, texts a file each of a folder or a line each of one file, rows of numbers a line each of
    CSV files with a line of names at the top.
    """
    for path, name in zip(files.paths, map(_readable, files.names), strict=True):
        if kind in PICTURES:
            yield name, partial(_picture, path, read)
        elif kind == "table":
            yield from _each(name, _rows(path, read))
        elif files.single:
            yield from _each(name, _lines(path, read))
        else:
            yield name, partial(_text, path, read)


def _readable(name: str) -> str:
    """A file's name as valid text: bytes that are not UTF-8 are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _each(name: str, parts: Iterator[tuple[int, Callable[[], Any]]]) -> Iterator[Sample]:
    """A sample for each line of the file `name`, and one that fails when the file cannot be read to its end."""
    try:
        for line, read in parts:
            yield f"{name}:{line}", read
    except InputError as error:
        yield name, partial(_fail, error)


def _fail(error: InputError) -> None:
    raise error


def _picture(path: Path, read: Callable[[Any], Any]) -> Any:
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError("is empty")
            file.seek(0)
            return read(file)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error


def _text(path: Path, read: Callable[[Any], Any]) -> Any:
    with _opened(path) as file:
        text = file.read(LARGEST_TEXT + 1)
    if len(text) > LARGEST_TEXT:
        raise InputError(f"holds more than {LARGEST_TEXT:,} characters")
    return read(text.removesuffix("\n"))  # all else may belong to a prompt


def _lines(path: Path, read: Callable[[Any], Any]) -> Iterator[tuple[int, Callable[[], Any]]]:
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, partial(read, line.rstrip("\n"))


def _rows(path: Path, read: Callable[[Any], Any]) -> Iterator[tuple[int, Callable[[], Any]]]:
    with _opened(path, newline="") as file:
        lines = csv.reader(file, skipinitialspace=True)
        try:
            names = [name.strip() for name in next(lines, [])]
            _check_names(names, read)
            for row in lines:
                if row:
                    yield lines.line_num, partial(_row, names, row, read)
        except csv.Error as error:
            raise InputError(f"line {lines.line_num} is not CSV ({error})") from error


def _check_names(names: list[str], read: Callable[[Any], Any]) -> None:
    """InputError when no row below such a line of names can be read, or when it is unclear which of its cells are."""
    try:
        read(dict.fromkeys(names, "0"))
    except InputError as error:
        given = ", ".join(map(repr, names)) or "nothing"
        other = next((mark for mark in (";", "\t", "|") if len(names) == 1 and mark in names[0]), None)
        advice = f". Separate its cells by commas, not by {other!r}" if other else ""
        raise InputError(f"{error.message}; its first line must name the columns, and has {given}{advice}") from error
    counts = Counter(names)
    try:
        read({name: "0" for name, count in counts.items() if count == 1})
    except InputError as error:
        twice = ", ".join(repr(name) for name, count in counts.items() if count > 1)
        raise InputError(
            f"its first line names {twice} more than once, and only one can be meant. Rename or remove the others"
        ) from error


def _row(names: list[str], row: list[str], read: Callable[[Any], Any]) -> Any:
    if len(row) != len(names):
        raise InputError(f"has {len(row)} cells, but the first line names {len(names)} columns")
    return read(dict(zip(names, row, strict=True)))


@contextmanager
def _opened(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """A file as text; what is wrong with it is an InputError."""
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"is not a text in UTF-8 ({error.reason}). Save it as such") from error


class Batch(NamedTuple):
    """Samples that could be read, by name, and the names of the others with the reasons."""

    names: list[str]
    values: list[Any]
    failures: list[tuple[str, str]]


def read_ahead(samples: Iterable[Sample], size: int) -> Iterator[Batch]:
    """Batches of `size` samples in their order; threads read the next ones meanwhile."""
    left = iter(samples)
    waiting: deque[list[tuple[str, Future[Any]]]] = deque()
    with ThreadPoolExecutor() as pool:
        while True:
            batch = [(name, pool.submit(read)) for name, read in islice(left, size)]
            if batch:
                waiting.append(batch)
            if not waiting:
                return
            if len(waiting) > AHEAD or not batch:
                yield _settled(waiting.popleft())


def _settled(waiting: list[tuple[str, Future[Any]]]) -> Batch:
    batch = Batch([], [], [])
    for name, future in waiting:
        try:
            batch.values.append(future.result())
            batch.names.append(name)
        except InputError as error:
            batch.failures.append((name, error.message))
    return batch


# ---- answering -----------------------------------------------------------------------------------------------------


def answering(model: Model, config: AnswerConfig) -> tuple[pyarrow.Schema, Callable[[list[Any]], Columns]]:
    """The columns of an answer, and what makes them of a batch of samples that `reader` has read."""
    text, number = pyarrow.string(), pyarrow.float32()
    if model.kind in {"images", "documents"}:
        places = range(1, min(config.top, len(model.classes)) + 1)
        columns = {name: kind for k in places for name, kind in ((f"class_{k}", text), (f"probability_{k}", number))}
        if not model.link:
            columns = {f"class_{k}": text for k in places}
        return pyarrow.schema(columns), partial(_classify, model, len(places))
    if model.kind == "reconstruction":
        latent = model.session.get_outputs()[1].shape[1]
        columns = {"mse": number} | {f"latent_{place}": number for place in range(1, latent + 1)}
        return pyarrow.schema(columns), partial(_reconstruct, model)
    if model.kind == "text":
        return pyarrow.schema({"prompt": text, "continuation": text}), partial(_continue, model, config.generate)
    return pyarrow.schema({model.target: number}), partial(_regress, model)


def _classify(model: Model, top: int, samples: list[np.ndarray]) -> Columns:
    batch = {"images": np.stack(samples)} if model.kind == "images" else pad(samples)
    places, probabilities = top_classes(model.probabilities(**batch), top)
    columns: Columns = {}
    for column in range(top):
        columns[f"class_{column + 1}"] = [model.classes[place] for place in places[:, column]]
        if model.link:
            columns[f"probability_{column + 1}"] = probabilities[:, column]
    return columns


def _reconstruct(model: Model, samples: list[np.ndarray]) -> Columns:
    images = np.stack(samples)
    reconstructions, latents = model.session.run(["reconstruction", "latent"], {"images": images})
    errors = ((images / np.float32(255) - reconstructions) ** 2).mean((1, 2, 3))
    return {"mse": errors} | {f"latent_{place}": column for place, column in enumerate(latents.T, start=1)}


def _continue(model: Model, config: ContinueConfig, samples: list[str]) -> Columns:
    step, settings = onnx_stepper(model.session), config.model_dump()
    texts = []
    for prompt in samples:
        seed = config.seed + zlib.crc32(prompt.encode())  # each prompt draws for itself, whatever stands beside it
        texts.append(continue_text(step, model.tokenizer, GenerateConfig(prompt=prompt, **settings), seed))
    written = [text[len(prompt) :] for prompt, text in zip(samples, texts, strict=True)]
    return {"prompt": samples, "continuation": written}


def _regress(model: Model, samples: list[np.ndarray]) -> Columns:
    return {model.target: model.run("prediction", features=np.stack(samples))}


def caption(model: Model, row: dict[str, Any]) -> str:
    """An answer, a row of the table, in a few words."""
    if model.kind in {"images", "documents"}:
        return f"{row['class_1']} {row['probability_1']:.0%}" if model.link else str(row["class_1"])
    if model.kind == "reconstruction":
        return f"MSE {row['mse']:.4f}"
    if model.kind == "text":
        return f"{row['prompt']}{row['continuation']}"
    return f"{model.target} {row[model.target]:.5g}"
