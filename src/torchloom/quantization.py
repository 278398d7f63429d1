"""Post-training static quantisation to int8 with onnxruntime.quantization: QDQ form, weights per channel.

Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR 2018
(arXiv:1712.05877); weights per channel: Krishnamoorthi 2018 (arXiv:1806.08342).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from torchloom.config import QuantizeConfig
from torchloom.datasets.onnx import SEAL, seal
from torchloom.errors import InputError

BATCH = 100  # calibration samples at once
METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Batches of arrays under the names of the graph's inputs."""

    def __init__(self, samples: dict[str, np.ndarray]) -> None:
        self.batches = self._batches(samples)

    def _batches(self, samples: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        count = len(next(iter(samples.values())))
        for start in range(0, count - count % BATCH or 1, BATCH):
            yield {name: array[start : start + BATCH] for name, array in samples.items()}

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def quantize_model(serialised: bytes, samples: dict[str, np.ndarray], config: QuantizeConfig) -> bytes:
    """The ONNX model with int8 weights of 7 bits and uint8 activations, whose ranges are those that `samples` give.

    `samples` are arrays (N, …) by the names of the graph's inputs, of which whole batches of 100 count. Raises
    InputError for a node to exclude that the graph does not have.
    """
    known = onnx.load_from_string(serialised)
    with tempfile.TemporaryDirectory() as folder:
        plain, ready, made = (str(Path(folder) / name) for name in ("plain.onnx", "ready.onnx", "made.onnx"))
        Path(plain).write_bytes(serialised)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)  # not every version can
        _check_excluded(config.exclude, ready)
        with _quiet():
            quantize_static(
                ready,
                made,
                _Batches(samples),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,  # weights of 8 bits overflow on CPUs with AVX2 and no VNNI, which costs accuracy
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=METHODS[config.calibration],
                nodes_to_exclude=list(config.exclude),
            )
        model = onnx.load(made)
    for node in model.graph.node:
        del node.metadata_props[:]  # where it came from in PyTorch, a third as large as small models themselves
    del model.graph.value_info[:], model.metadata_props[:]
    metadata = {entry.key: entry.value for entry in known.metadata_props if entry.key != SEAL}
    onnx.helper.set_model_props(model, {**metadata, "quantization": '"int8"'})
    return seal(model)


def _check_excluded(names: list[str], path: str) -> None:
    nodes = [node.name for node in onnx.load(path).graph.node]
    for name in names:
        if name not in nodes:
            raise InputError(f"quantize.exclude: the graph has no node {name}; it has {', '.join(nodes)}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what onnxruntime.quantization says about preparing the model, which has been done."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
