"""Export to ONNX, and the proof that the exported graph answers as the model does."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

import torchloom
from torchloom.errors import InputError
from torchloom.training.checkpoint import Checkpoint


def to_onnx(model: nn.Module, checkpoint: Checkpoint, opset: int) -> bytes:
    """The model as a serialised ONNX graph with a dynamic batch and, as metadata, what a user of it must know.

    Raises InputError when the graph cannot be had in that opset; torch.onnx itself then quietly gives another.
    """
    example = torch.zeros((2, *checkpoint.info.shape), dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["images"],
        output_names=["logits"],
        opset_version=opset,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    given = next(entry.version for entry in proto.opset_import if entry.domain == "")
    if given != opset:
        raise InputError(f"export.opset {opset}: torch {torch.__version__} can export this model only in opset {given}")
    metadata = {
        "producer": f"torchloom {torchloom.__version__}",
        "network": json.dumps({"name": checkpoint.network, **checkpoint.arguments}),
        "classes": json.dumps(checkpoint.info.classes),
        "preprocessing": json.dumps(
            {
                "input": "uint8, 0 to 255",
                "inside_the_graph": "(x / 255 - mean) / std",
                "mean": checkpoint.info.mean,
                "std": checkpoint.info.std,
            }
        ),
    }
    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto)
    serialised: bytes = proto.SerializeToString()
    return serialised


@torch.no_grad()
def compare(model: nn.Module, serialised: bytes, images: Tensor, batch_sizes: list[int]) -> dict[str, Any]:
    """Run both on real `images` (N, C, H, W) uint8, in batches of each size.

    Sizes beyond N are cut to N. Returns the greatest absolute difference of a logit, the share of decisions that
    agree, how many images took part, and the sizes. Raises InputError when ONNX Runtime cannot load the graph.
    """
    try:
        session = onnxruntime.InferenceSession(serialised, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common parent
        raise InputError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load the exported graph; try a lower export.opset ({error})"
        ) from error
    sizes = sorted({min(size, len(images)) for size in batch_sizes})
    differences, alike = [], []
    for size in sizes:
        batch = images[:size].contiguous()
        theirs = session.run(["logits"], {"images": batch.numpy()})[0]
        ours = model(batch).numpy()
        differences.append(float(np.abs(ours - theirs).max()))
        alike.append(ours.argmax(1) == theirs.argmax(1))
    return {
        "greatest_difference": float(np.max(differences)),  # NaN if one is NaN
        "agreement": float(np.concatenate(alike).mean()),
        "images": sizes[-1],
        "batch_sizes": sizes,
        "onnxruntime": onnxruntime.__version__,
    }
