"""Export to ONNX, and the proof that the exported graph answers as the model does."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

import torchloom
from torchloom.datasets.onnx import seal
from torchloom.errors import InputError
from torchloom.modalities import MODALITIES, Info, TableInfo, TextInfo
from torchloom.models._operators import with_operators
from torchloom.training.checkpoint import Checkpoint

# Which axes of an input may have any length; also of the state of a language model.
AXES = {name: axes for modality in MODALITIES.values() for name, axes in modality.axes.items()}
AXES |= {"hidden": {1: "batch"}, "cell": {1: "batch"}}
STACK_TRACE = "pkg.torch.onnx.stack_trace"  # lines of the code, with the folders of the machine that exports


def to_onnx(
    model: nn.Module, inputs: dict[str, Tensor], outputs: list[str], checkpoint: Checkpoint, opset: int
) -> bytes:
    """The model as a serialised ONNX graph with `AXES` of any length and, as metadata, what a user of it must know.

    Raises InputError when the graph cannot be had like that, or in that opset; torch.onnx itself then quietly gives
    another.
    """
    dims = {name: torch.export.Dim(name) for axes in AXES.values() for name in axes.values()}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for about_torch in ("_check_is_size", "# The axis name", "The tensor attributes self", "`isinstance.treespec"):
            warnings.filterwarnings("ignore", message=about_torch)
        program = torch.onnx.export(
            with_operators(model),
            tuple(at_least_two(tensor, AXES[name]) for name, tensor in inputs.items()),
            dynamo=True,
            dynamic_shapes=tuple({axis: dims[name] for axis, name in AXES[given].items()} for given in inputs),
            input_names=list(inputs),
            output_names=outputs,
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    given = next(entry.version for entry in proto.opset_import if entry.domain == "")
    if given != opset:
        raise InputError(f"export.opset {opset}: torch {torch.__version__} can export this model only in opset {given}")
    for entry in proto.graph.input:
        for axis, name in AXES[entry.name].items():
            if not entry.type.tensor_type.shape.dim[axis].dim_param:
                raise InputError(
                    f"torch {torch.__version__} can export {checkpoint.network} only with a fixed {name} of "
                    f"{entry.name}. Its forward must not depend on that number, as a loop in Python does"
                )
    metadata = {
        "producer": f"torchloom {torchloom.__version__}",
        "network": json.dumps({"name": checkpoint.network, **checkpoint.arguments}),
        **{name: json.dumps(value) for name, value in checkpoint.info.described().items()},
    }
    if outputs == ["logits"]:
        metadata["probabilities"] = json.dumps(checkpoint.link)
    onnx.helper.set_model_props(proto, metadata)
    for node in [*proto.graph.node, *(node for function in proto.functions for node in function.node)]:
        kept = [entry for entry in node.metadata_props if entry.key != STACK_TRACE]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.checker.check_model(proto)
    return seal(proto)


@torch.no_grad()
def signature(model: nn.Module, inputs: dict[str, Tensor], info: Info) -> tuple[dict[str, Tensor], list[str]]:
    """All inputs of the exported model with samples for them, and the names of its outputs.

    `inputs` are samples of what `info.inputs` names. The models:
    - of images: `images` (batch, channels, height, width) uint8, with the normalisation inside -> `logits` (batch,
      classes), or of an autoencoder `reconstruction` of that shape on [0, 1], `latent` (batch, latent) and `divergence`
      (batch);
    - of documents: `tokens` (batch, time) and `lengths` (batch) int64 -> `logits` (batch, classes), of which the
      metadata `probabilities` say what makes probabilities of them (softmax, sigmoid; null: nothing does);
    - of a text: `tokens` (batch, time) int64 and the state before them, `hidden` and for an LSTM `cell` (layers, batch,
      width), zeros at the beginning -> `logits` (batch, time, tokens) and the state after them, `next_…`; the samples
      are the second half of `inputs`, with the state after the first;
    - of a table: `features` (batch, features) in their own units -> `prediction` (batch) in the target's unit.
    All that is not said to be another type is float32.
    """
    if isinstance(info, TextInfo):
        first, second = inputs["tokens"].tensor_split(2, dim=1)
        _, *state = model(first)
        names = ["hidden", "cell"][: len(state)]
        return {"tokens": second, **dict(zip(names, state, strict=True))}, ["logits", *(f"next_{n}" for n in names)]
    if isinstance(info, TableInfo):
        return inputs, ["prediction"]
    if isinstance(model(*(tensor[:1] for tensor in inputs.values())), tuple):
        return inputs, ["reconstruction", "latent", "divergence"]
    return inputs, ["logits"]


def export_checkpoint(checkpoint: Checkpoint, opset: int = 20) -> bytes:
    """The checkpoint's model in ONNX, as its export stage makes it, but without the comparison on real data."""
    model, info = checkpoint.build(), checkpoint.info
    inputs = info.example(batch=2, time=10)
    return to_onnx(model, *signature(model, inputs, info), checkpoint, opset)


def at_least_two(tensor: Tensor, axes: dict[int, str]) -> Tensor:
    """`tensor` doubled along those of `axes` that have length 1, which torch.export would take for a constant."""
    for axis in axes:
        if tensor.shape[axis] == 1:
            tensor = torch.cat([tensor, tensor], dim=axis)
    return tensor


def compare(
    model: nn.Module, serialised: bytes, inputs: dict[str, Tensor], outputs: list[str], batch_sizes: list[int]
) -> dict[str, Any]:
    """`parity` with ONNX Runtime. Raises InputError when it cannot load the graph."""
    session = open_session(serialised)

    def answer(batch: dict[str, Tensor]) -> list[np.ndarray]:
        answers: list[np.ndarray] = session.run(outputs, {name: tensor.numpy() for name, tensor in batch.items()})
        return answers

    return {**parity(model, answer, inputs, outputs, batch_sizes), "onnxruntime": onnxruntime.__version__}


@torch.no_grad()
def parity(
    model: nn.Module,
    answer: Callable[[dict[str, Tensor]], list[np.ndarray]],
    inputs: dict[str, Tensor],
    outputs: list[str],
    batch_sizes: list[int],
) -> dict[str, Any]:
    """Hold what `answer` makes of real `inputs` to the model's own answers, in batches of each size.

    Sizes beyond the N samples that there are, are cut to N. Returns the greatest absolute difference of an output, how
    many samples took part, the sizes and, where there are logits, the share of decisions that agree.
    """
    axes = {name: next(axis for axis, dim in AXES[name].items() if dim == "batch") for name in inputs}
    count = next(tensor.shape[axes[name]] for name, tensor in inputs.items())
    sizes = sorted({min(size, count) for size in batch_sizes})
    differences, alike = [], []
    for size in sizes:
        batch = {name: tensor.narrow(axes[name], 0, size).contiguous() for name, tensor in inputs.items()}
        theirs, ours = answer(batch), [tensor.numpy() for tensor in as_tuple(model(*batch.values()))]
        differences += [float(np.abs(one - other).max()) for one, other in zip(ours, theirs, strict=True)]
        alike.append(ours[0].argmax(-1) == theirs[0].argmax(-1))
    report = {
        "greatest_difference": float(np.max(differences)),  # NaN if one is NaN
        "samples": sizes[-1],
        "batch_sizes": sizes,
    }
    if outputs[0] == "logits":
        report["agreement"] = float(np.concatenate([equal.ravel() for equal in alike]).mean())
    return report


def as_tuple(answer: Any) -> tuple[Tensor, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def open_session(serialised: bytes, threads: int | None = None) -> onnxruntime.InferenceSession:
    """ONNX Runtime ready to run the graph on the CPU; InputError when it cannot load it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # it takes one per core
    try:
        return onnxruntime.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common parent
        raise InputError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load the exported graph; try a lower export.opset ({error})"
        ) from error
