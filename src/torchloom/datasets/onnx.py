"""ONNX models in the catalog."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from torchloom.errors import InputError
from torchloom.system.files import atomic_write

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

LARGEST_MODEL = (2 << 30) - 1  # bytes; protocol buffers end there
SEAL = "fingerprint"  # in the metadata
AGAIN = "Run the export stage again: kedro run --tags export_onnx"


class ONNXDataset(AbstractDataset[bytes, bytes]):
    """A serialised ONNX model: what `onnxruntime.InferenceSession` and `onnx.load_from_string` take.

    It is whole: one that has weights in other files, which could be any file of the machine, is not loaded.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> bytes:
        try:
            with self._filepath.open("rb") as file:
                serialised = file.read(LARGEST_MODEL + 1)
            _check(serialised)
        except (OSError, ValueError) as error:
            raise InputError(f"{self._filepath}: {error}. {AGAIN}") from error
        return serialised

    def save(self, data: bytes) -> None:
        with atomic_write(self._filepath) as temporary:
            temporary.write_bytes(data)

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


def seal(model: Any) -> bytes:
    """An onnx.ModelProto, serialised with a fingerprint of itself in its metadata, which `load` holds it to."""
    model.metadata_props.add(key=SEAL, value=_fingerprint(model))
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised


def _fingerprint(model: Any) -> str:
    """SHA-256 of the model without the seal."""
    bare = type(model)()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    bare.metadata_props.extend(entry for entry in model.metadata_props if entry.key != SEAL)
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def _check(serialised: bytes) -> None:
    """ValueError unless it is an ONNX model that refers to no other file, and as it was sealed if it was."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load_from_string(serialised)
    except DecodeError as error:
        raise ValueError("damaged or not an ONNX model") from error
    if not (model.ir_version and model.opset_import and model.graph.node):
        raise ValueError("not an ONNX model")
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto) and (message.data_location or message.external_data):
            raise ValueError(f"its tensor {message.name!r} lies in another file, which could be any; not loaded")
    seals = [entry.value for entry in model.metadata_props if entry.key == SEAL]
    if seals and seals != [_fingerprint(model)]:
        raise ValueError("damaged: it does not have the fingerprint that it states")


def _messages(message: Any) -> Iterator[Any]:
    """A protocol buffer's message and all those inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type:
            for part in value if field.is_repeated else [value]:
                yield from _messages(part)


def open_session(serialised: bytes, threads: int | None = None) -> InferenceSession:
    """ONNX Runtime ready to run the graph on the CPU; InputError when it cannot load it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # it takes one per core
    try:
        return onnxruntime.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common parent
        raise InputError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load the graph ({error}). Of a model of your own, "
            "try a lower export.opset"
        ) from error
