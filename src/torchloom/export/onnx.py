"""Export to ONNX, and the proof that the exported graph answers as the model does."""

from __future__ import annotations

import inspect
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

import torchloom
from torchloom.datasets.onnx import open_session, seal
from torchloom.errors import InputError
from torchloom.modalities.base import Axes
from torchloom.models._operators import with_operators
from torchloom.problems import problem_of
from torchloom.training.checkpoint import Checkpoint

STACK_TRACE = "pkg.torch.onnx.stack_trace"  # lines of the code, with the folders of the machine that exports


def to_onnx(
    model: nn.Module, form: Signature, checkpoint: Checkpoint, opset: int, more: Mapping[str, Any] | None = None
) -> bytes:
    """The model as a serialised ONNX graph with axes of any length and, as metadata, what a user of it must know,
    to which `more` belongs.

    Raises InputError when the graph cannot be had like that, or in that opset; torch.onnx itself then quietly gives
    another.
    """
    inputs, free, outputs = form
    model = with_operators(model)
    dims = {name: torch.export.Dim(name) for axes in free.values() for name in axes.values()}
    shapes = tuple({axis: dims[name] for axis, name in free[given].items()} for given in inputs)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for about_torch in ("_check_is_size", "# The axis name", "The tensor attributes self", "`isinstance.treespec"):
            warnings.filterwarnings("ignore", message=about_torch)
        program = torch.onnx.export(
            model,
            tuple(at_least_two(tensor, free[name]) for name, tensor in inputs.items()),
            dynamo=True,
            dynamic_shapes=(shapes,) if takes_any_number(model) else shapes,
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
        for axis, name in free[entry.name].items():
            if not entry.type.tensor_type.shape.dim[axis].dim_param:
                raise InputError(
                    f"torch {torch.__version__} can export {checkpoint.network} only with a fixed {name} of "
                    f"{entry.name}. Its forward must not depend on that number, as a loop in Python does"
                )
    problem = problem_of(checkpoint.problem)
    info = problem.taken(checkpoint.info, checkpoint)
    metadata = {
        "producer": f"torchloom {torchloom.__version__}",
        "network": json.dumps({"name": checkpoint.network, **checkpoint.arguments}),
        "problem": json.dumps(checkpoint.problem),
        "modality": json.dumps(info.kind),
        **{name: json.dumps(value) for name, value in info.described().items()},
        **{name: json.dumps(value) for name, value in problem.described(checkpoint).items()},
        **{name: json.dumps(value) for name, value in (more or {}).items()},
    }
    onnx.helper.set_model_props(proto, metadata)
    for node in [*proto.graph.node, *(node for function in proto.functions for node in function.node)]:
        kept = [entry for entry in node.metadata_props if entry.key != STACK_TRACE]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.checker.check_model(proto)
    return seal(proto)


class Signature(NamedTuple):
    """All inputs of an exported model with samples for them, and which of their axes may have any length, with what
    they count; and the names of its outputs."""

    inputs: dict[str, Tensor]
    axes: Axes
    outputs: list[str]


def takes_any_number(model: nn.Module) -> bool:
    """Whether it hands on the inputs that it is given, however many these are."""
    kinds = {parameter.kind for parameter in inspect.signature(model.forward).parameters.values()}
    return inspect.Parameter.VAR_POSITIONAL in kinds


def signature(model: nn.Module, samples: dict[str, Tensor], checkpoint: Checkpoint) -> Signature:
    """Of the checkpoint's `model`; `samples` are of what `info.inputs` names. See Problem.signature."""
    problem = problem_of(checkpoint.problem)
    inputs, outputs = problem.signature(model, samples)
    return Signature(inputs, {**checkpoint.info.axes, **problem.state_axes}, outputs)


def export_checkpoint(checkpoint: Checkpoint, opset: int = 20) -> bytes:
    """The checkpoint's model in ONNX, as its export stage makes it, but without the comparison on real data."""
    model, info = checkpoint.exported(), checkpoint.info
    return to_onnx(model, signature(model, info.example(batch=2, time=10), checkpoint), checkpoint, opset)


def at_least_two(tensor: Tensor, axes: dict[int, str]) -> Tensor:
    """`tensor` doubled along those of `axes` that have length 1, which torch.export would take for a constant."""
    for axis in axes:
        if tensor.shape[axis] == 1:
            tensor = torch.cat([tensor, tensor], dim=axis)
    return tensor


def onnx_parity(model: nn.Module, serialised: bytes, form: Signature, batch_sizes: list[int]) -> dict[str, Any]:
    """`parity` with ONNX Runtime. Raises InputError when it cannot load the graph."""
    session = open_session(serialised)

    def answer(batch: dict[str, Tensor]) -> list[np.ndarray]:
        answers: list[np.ndarray] = session.run(form.outputs, {name: tensor.numpy() for name, tensor in batch.items()})
        return answers

    return {**parity(model, answer, form, batch_sizes), "onnxruntime": onnxruntime.__version__}


@torch.no_grad()
def parity(
    model: nn.Module,
    answer: Callable[[dict[str, Tensor]], list[np.ndarray]],
    form: Signature,
    batch_sizes: list[int],
) -> dict[str, Any]:
    """Hold what `answer` makes of the samples to the model's own answers, in batches of each size.

    Sizes beyond the N samples that there are, are cut to N. Returns the greatest difference of an output, as a share of
    its greatest value where that is above 1, how many samples took part, the sizes and, where there are logits, the
    share of decisions that agree.
    """
    inputs = form.inputs
    axes = {name: next(axis for axis, dim in form.axes[name].items() if dim == "batch") for name in inputs}
    count = next(tensor.shape[axes[name]] for name, tensor in inputs.items())
    sizes = sorted({min(size, count) for size in batch_sizes})
    differences, alike = [], []
    for size in sizes:
        batch = {name: tensor.narrow(axes[name], 0, size).contiguous() for name, tensor in inputs.items()}
        theirs, ours = answer(batch), [tensor.numpy() for tensor in as_tuple(model(*batch.values()))]
        differences += [
            float(np.abs(one - other).max() / max(1.0, np.abs(one).max()))
            for one, other in zip(ours, theirs, strict=True)
        ]
        alike.append(ours[0].argmax(-1) == theirs[0].argmax(-1))
    report = {
        "greatest_difference": float(np.max(differences)),  # NaN if one is NaN
        "samples": sizes[-1],
        "batch_sizes": sizes,
    }
    if form.outputs[0] == "logits":
        report["agreement"] = float(np.concatenate([equal.ravel() for equal in alike]).mean())
    return report


def as_tuple(answer: Any) -> tuple[Tensor, ...]:
    return answer if isinstance(answer, tuple) else (answer,)
