"""Post-training quantisation to int8 with onnxruntime.quantization: QDQ form, weights per channel.

Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR 2018
(arXiv:1712.05877); weights per channel: Krishnamoorthi 2018 (arXiv:1806.08342).
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from torchloom.config import QuantizeConfig
from torchloom.datasets.onnx import SEAL, seal
from torchloom.errors import InputError

BATCH = 100  # calibration samples at once
WEIGHTED = {"Conv", "ConvTranspose", "Gather", "Gemm", "MatMul"}  # nodes of ONNX that hold most networks' weights
RECURRENT = {"LSTM", "GRU", "RNN"}
BESIDES = {  # the first input that holds no weights: biases, states, scales or zero points
    **dict.fromkeys((*RECURRENT, "DynamicQuantizeLSTM"), 3),
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), 1),
}
EIGHT_BITS = {TensorProto.INT8, TensorProto.UINT8}
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
    """The ONNX model with int8 weights.

    Of convolutions, matrix products and tables that rows are taken from, the inputs become uint8 too, in ranges that
    `samples` give: arrays (N, …) by the names of the graph's inputs, of which whole batches of 100 count. Those of an
    LSTM are scaled as they come, by an operator that only ONNX Runtime has; those of a GRU or RNN stay as they are, and
    so does all that leads to a logarithm.

    Raises InputError for a node to exclude that the graph does not have, and where no weights can be int8.
    """
    known = onnx.load_from_string(serialised)
    with tempfile.TemporaryDirectory() as folder:
        plain, ready, made = (str(Path(folder) / name) for name in ("plain.onnx", "ready.onnx", "made.onnx"))
        Path(plain).write_bytes(serialised)
        # the shapes are those that torch has written down; to follow symbols fails where lengths are computed
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        kinds = _check_nodes(config.exclude, onnx.load(ready))
        kept = [*config.exclude, *_before_logarithms(onnx.load(ready))]
        weights: dict[str, Any] = {
            "per_channel": True,
            "reduce_range": True,  # weights of 8 bits overflow on CPUs with AVX2 and no VNNI, which costs accuracy
            "weight_type": QuantType.QInt8,
            # of a Gemm, what looks after LSTMs makes a MatMul
            "nodes_to_exclude": [*kept, *(f"{name}_MatMul" for name in kept)],
        }
        with _quiet():
            if "LSTM" in kinds:
                quantize_dynamic(ready, ready, op_types_to_quantize=["LSTM"], **weights)
            quantize_static(
                ready,
                made,
                _Batches(samples),
                quant_format=QuantFormat.QDQ,
                # all that it knows, so that what lies between two convolutions is in 8 bits as well
                op_types_to_quantize=sorted(WEIGHTED) if kinds & RECURRENT else None,
                activation_type=QuantType.QUInt8,
                calibrate_method=METHODS[config.calibration],
                **weights,
            )
        model = onnx.load(made)
    _quantize_weights(model, {"GRU", "RNN"} & kinds, config.exclude)
    for node in model.graph.node:
        del node.metadata_props[:]  # where it came from in PyTorch, a third as large as small models themselves
    del model.graph.value_info[:], model.metadata_props[:]
    metadata = {entry.key: entry.value for entry in known.metadata_props if entry.key != SEAL}
    onnx.helper.set_model_props(model, {**metadata, "quantization": '"int8"'})
    return seal(model)


def int8_share(serialised: bytes) -> float:
    """The share of 8-bit numbers in a model's matrices, kernels and tables, which have two axes longer than 1.

    So do the biases, scales and zero points of recurrent layers with two directions, which do not count.
    """
    graph = onnx.load_from_string(serialised).graph
    others = {name for node in graph.node if node.op_type in BESIDES for name in node.input[BESIDES[node.op_type] :]}
    counts = {True: 0, False: 0}
    for tensor in graph.initializer:
        matrix = tensor.name not in others and sum(length > 1 for length in tensor.dims) > 1
        if matrix and tensor.data_type in {*EIGHT_BITS, TensorProto.FLOAT}:
            counts[tensor.data_type in EIGHT_BITS] += math.prod(tensor.dims)
    return counts[True] / max(1, sum(counts.values()))


def _quantize_weights(model: onnx.ModelProto, kinds: set[str], exclude: list[str]) -> None:
    """Keep the weights of such recurrent nodes, (directions, rows, columns), in int8 with a scale for each row."""
    stored, nodes = {tensor.name: tensor for tensor in model.graph.initializer}, []
    for node in model.graph.node:
        for name in node.input[1:3] if node.op_type in kinds and node.name not in exclude else ():
            if name in stored:
                tensor = stored.pop(name)
                weights = onnx.numpy_helper.to_array(tensor)
                scale = np.maximum(np.abs(weights).max((0, 2)) / 127, np.finfo(np.float32).tiny)  # (rows,)
                rounded = np.round(weights / scale[:, None]).astype(np.int8)
                made: dict[str, np.ndarray] = {f"{name}_quantized": rounded, f"{name}_scale": scale.astype(np.float32)}
                model.graph.initializer.remove(tensor)
                for key, array in made.items():
                    model.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
                nodes.append(
                    onnx.helper.make_node("DequantizeLinear", list(made), [name], f"{name}_dequantize", axis=1)
                )
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _before_logarithms(model: onnx.ModelProto) -> list[str]:
    """The nodes that lead to a logarithm, as in spectrograms: 8 bits would lose all that is small before it."""
    needed: set[str] = set()
    found = []
    for node in reversed(model.graph.node):  # which come in their order
        if node.op_type == "Log" or needed & set(node.output):
            needed |= set(node.input)
            found.append(node.name)
    return found


def _check_nodes(excluded: list[str], model: onnx.ModelProto) -> set[str]:
    """The kinds of nodes with weights that can be int8."""
    nodes = {node.name: node for node in model.graph.node}
    for name in excluded:
        if name not in nodes:
            raise InputError(f"quantize.exclude: the graph has no node {name}; it has {', '.join(nodes)}")
    stored = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    able = {
        node.op_type
        for name, node in nodes.items()
        if name not in excluded and node.op_type in WEIGHTED | RECURRENT and stored & set(node.input)
    }
    if not able:
        others = sorted({node.op_type for node in model.graph.node if stored & set(node.input)})
        raise InputError(
            f"quantize: nothing of this model can be int8. Its weights are in {', '.join(others) or 'no node'}, and "
            f"{', '.join(sorted(WEIGHTED | RECURRENT))} can be quantized"
        )
    return able


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what onnxruntime.quantization says about preparing the model, which has been done."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
