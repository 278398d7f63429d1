"""A trained model at work: its ONNX file in ONNX Runtime. Nothing here needs PyTorch, or what trained the model."""

from __future__ import annotations

import json
from contextlib import suppress
from copy import copy
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from pydantic import ValidationError

from torchloom.config import AnswerConfig
from torchloom.datasets.onnx import ONNXDataset, open_session
from torchloom.errors import InputError
from torchloom.modalities import Info, info_of
from torchloom.problems import problem_of
from torchloom.problems.base import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    import pyarrow

    from torchloom.problems.base import Columns

OUTPUT = "features."  # how the outputs that are features of layers begin, of the graph and not in tables
REMARKS = "remarks"  # the column of an answer that says what is odd about the sample


class Model:
    """An exported model, and what it knows of its data (`info`) and of what is asked of it (`problem`).

    `metadata` are those of its file; what they say by name is what `info.described` and `problem.described` have said.
    """

    def __init__(self, serialised: bytes, threads: int | None = None) -> None:
        """Raises InputError when `serialised` is not a model of ours."""
        self.session = open_session(serialised, threads)
        try:
            self.metadata = _metadata(self.session)
            self.info: Info = info_of({**self.metadata, "kind": self.metadata["modality"]})
            self.problem = problem_of(self.metadata["problem"])
            self._check()
        except (KeyError, ValueError, TypeError, ModuleNotFoundError) as error:
            reason = _first(error) if isinstance(error, ValidationError) else repr(error)
            raise InputError(f"the model was not exported by torchloom, or by another version ({reason})") from error

    def _check(self) -> None:
        """ValueError unless the graph is such as the metadata say."""
        try:
            self.problem.check_data(self.info)
        except InputError as error:
            raise ValueError(error.message) from error
        inputs = {entry.name: entry.shape for entry in self.session.get_inputs()}
        outputs = {entry.name for entry in self.session.get_outputs()}
        missing = {*self.info.inputs} - inputs.keys() | {*self.problem.answers} - outputs
        if missing:
            raise ValueError(f"its graph has no {', '.join(sorted(missing))}")
        for name, shape in self.info.shapes().items():
            if inputs[name][1:] != shape:
                raise ValueError(f"{name} of {shape}, but {inputs[name][1:]} in the graph")
        self.problem.check_exported(self)

    def told(self, config: AnswerConfig) -> Self:
        """The model as it is to be asked: as its test was, but for what `config` says; what differs is in the log."""
        asked = copy(self)
        asked.info = self.info.told(config)
        return asked

    def answering(self, config: AnswerConfig) -> tuple[pyarrow.Schema, Callable[[list[Any]], Columns]]:
        """The columns of an answer, and what makes them of samples that the modality's reader has read.

        Those of the problem, and what is odd about the samples, where the data can be odd.
        """
        import pyarrow

        columns, answer = self.problem.answering(self, config)
        more: dict[str, Callable[[list[Any]], Any]] = {}
        if self.info.remarks([]) is not None and REMARKS not in columns.names:
            columns = columns.append(pyarrow.field(REMARKS, pyarrow.string()))
            more[REMARKS] = self.info.remarks
        for name, width in self.features.items():
            columns = columns.append(pyarrow.field(name, pyarrow.list_(pyarrow.float32(), width)))
            more[name] = partial(self._feature, name)
        if not more:
            return columns, answer
        return columns, lambda samples: {**answer(samples), **{name: say(samples) for name, say in more.items()}}

    @cached_property
    def features(self) -> dict[str, int]:
        """The outputs that are features of layers, with their widths; see torchloom/export/features.py."""
        said = self.metadata.get("layers", [])
        if whole := next((each["name"] for each in said if each["steps"]), None):
            raise InputError(f"{whole}: has as many numbers as there are steps; for vectors, set features.pool")
        shapes = {entry.name: entry.shape for entry in self.session.get_outputs()}
        return {each["name"]: int(shapes[OUTPUT + each["name"]][1]) for each in said}

    def _feature(self, name: str, samples: list[Any]) -> pyarrow.Array:
        import pyarrow

        found = run(self, OUTPUT + name, samples)
        return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(found.reshape(-1)), self.features[name])

    def run(self, output: str, **inputs: np.ndarray) -> np.ndarray:
        """One output of the graph."""
        answer: np.ndarray = self.session.run([output], inputs)[0]
        return answer


def _metadata(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    """What the file says by name; what is no JSON, such as who made it, is left out."""
    known = {}
    for name, value in session.get_modelmeta().custom_metadata_map.items():
        with suppress(ValueError, RecursionError):
            known[name] = json.loads(value)
    return known


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
    from torchloom.export.onnx import export_checkpoint
    from torchloom.training.checkpoint import CheckpointDataset

    return export_checkpoint(CheckpointDataset(filepath=str(path)).load())
