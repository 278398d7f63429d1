"""Models side by side on this machine: right answers, size, multiply-adds, latency and throughput."""

from __future__ import annotations

import math
import platform
import statistics
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from torchloom.compression.pruning import CONVOLUTIONS
from torchloom.config import CompareConfig
from torchloom.inference.model import Model
from torchloom.problems.classification import as_probabilities, likeliest
from torchloom.system.devices import tuned_host, usable_cores
from torchloom.system.progress import track
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Inputs = dict[str, Tensor]  # a batch, by the names of the model's inputs
Side = Callable[[Inputs], Callable[[], Any]]  # a batch -> a call without arguments that answers it


def pytorch_side(model: Callable[..., Any]) -> Side:
    return lambda inputs: partial(model, *inputs.values())


def onnx_side(session: InferenceSession) -> Side:
    return lambda inputs: partial(session.run, None, {name: tensor.numpy() for name, tensor in inputs.items()})


def compare_models(
    before: tuple[Checkpoint, bytes], after: tuple[Checkpoint | None, bytes], loaders: LoaderPlan, config: CompareConfig
) -> dict[str, Any]:
    """The report on two models, each a checkpoint and its ONNX form, that classify the same test split.

    The one after may be there in ONNX only; it then takes as many multiply-adds as the one before.

    Of both: accuracy in ONNX Runtime (fraction; over the views that the model is evaluated with), bytes of the ONNX
    file as it is and compressed by zlib, shares of weights that are int8 and that are zero, channels of all
    convolutions and dense layers, multiply-adds for one sample, latency (ms, one sample) and throughput (samples per
    second, `batch_size` samples at once) by ONNX Runtime and of the checkpoint by eager PyTorch in fp32, all in turns.
    Multiply-adds and times are those of one view.
    Under `change`: points of accuracy won, and how many times smaller and faster.
    """
    from torchloom.compression.quantization import int8_share  # which takes a second to import

    one, many = (loaders.samples("test", count) for count in (1, config.batch_size))
    report: dict[str, Any] = {"machine": machine(config.threads), "batch_size": config.batch_size}
    sides: dict[tuple[str, str], Side] = {}
    for name, (checkpoint, serialised) in {"before": before, "after": after}.items():
        exported = Model(serialised, config.threads)
        sides[name, "onnx_runtime"] = onnx_side(exported.session)
        report[name] = {
            "accuracy": onnx_accuracy(exported, loaders),
            "bytes": len(serialised),
            "compressed_bytes": len(zlib.compress(serialised, 6)),
            "int8_weights": int8_share(serialised),
        }
        if checkpoint:
            model = checkpoint.build()
            sides[name, "pytorch"] = pytorch_side(model)
            report[name] |= {"zeros": zero_share(checkpoint), "channels": channels(model)}
            report[name]["multiply_adds"] = multiply_adds(model, one)
        else:
            report[name]["multiply_adds"] = report["before"]["multiply_adds"]
    for (name, engine), times in time_side_by_side(sides, one, many, config).items():
        report[name][engine] = times
    return {**report, "change": _change(report["before"], report["after"])}


def _change(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    times = before["onnx_runtime"], after["onnx_runtime"]
    return {
        "accuracy_points": 100 * (after["accuracy"] - before["accuracy"]),
        "times_smaller": before["bytes"] / after["bytes"],
        "times_smaller_compressed": before["compressed_bytes"] / after["compressed_bytes"],
        "times_fewer_multiply_adds": max(before["multiply_adds"], 1) / max(after["multiply_adds"], 1),  # or none at all
        "times_lower_latency": times[0]["latency_ms"] / times[1]["latency_ms"],
        "times_higher_throughput": times[1]["samples_per_second"] / times[0]["samples_per_second"],
    }


def onnx_accuracy(model: Model, loaders: LoaderPlan, split: str = "test") -> float:
    """The share of the split that a classifier in ONNX Runtime gets right, asked as predict and serve ask it."""
    right = count = 0
    loader = loaders.loader(split)
    for *inputs, labels in track(loader, split):
        named = zip(loaders.info.inputs, inputs, strict=True)
        views = model.info.in_views({name: tensor.contiguous().numpy() for name, tensor in named})
        logits = np.sum([share * model.run("logits", **view) for share, view in views], axis=0)
        answers, _ = likeliest(model, as_probabilities(model, logits), 1)
        right += int((answers[:, 0] == labels.numpy()).sum())
        count += len(labels)
    return float(right / count)


def zero_share(checkpoint: Checkpoint) -> float:
    """The share of zeros in the network's matrices and kernels."""
    network = [weight for name, weight in checkpoint.weights.items() if "." in name]  # the others scale its inputs
    weights = [weight for weight in network if weight.ndim > 1 and weight.is_floating_point()]
    return 1 - sum(int(weight.count_nonzero()) for weight in weights) / float(sum(weight.numel() for weight in weights))


def channels(model: nn.Module) -> int:
    """That the convolutions and dense layers make, all together."""
    layers = [module for module in model.modules() if isinstance(module, (*CONVOLUTIONS, nn.Linear))]
    return sum(len(layer.weight) for layer in layers)


@torch.no_grad()
def multiply_adds(model: nn.Module, one: Inputs) -> int:
    """For one sample, of all products of matrices and vectors and all convolutions that run, whatever the layer.

    So of recurrent layers at each step of the sequence, of attention's projections and of its products, and of bilinear
    layers. A bag of embeddings takes one for each number that it adds up, as if it were the product with a matrix of
    ones; looking up, batch norm, activations, pooling and other work element by element take none.
    """
    with _in_single_products(), FlopCounterMode(display=False, custom_mapping=_FLOPS) as counter:
        model(*one.values())
    return int(counter.get_total_flops()) // 2


@contextmanager
def _in_single_products() -> Iterator[None]:
    """Recurrent layers and attention run product by product, not as kernels of their own, which nobody counts."""
    onednn: Any = torch.backends.mkldnn
    fused, fast = onednn.enabled, torch.backends.mha.get_fastpath_enabled()
    onednn.enabled = False
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        onednn.enabled = fused
        torch.backends.mha.set_fastpath_enabled(fast)


def _of_vectors(*shapes: torch.Size, **_: Any) -> int:
    """A matrix or vector (…, K) by a vector (K,), which comes last."""
    return 2 * math.prod(shapes[-2])


def _of_batches(_: torch.Size, left: torch.Size, right: torch.Size, **__: Any) -> int:
    """Of (B, N, K) by (B, K, M), summed over the batch."""
    return 2 * math.prod(left) * right[2]


def _of_three(left: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
    """A bilinear layer: (N, L) by (outputs, L, R) by (N, R)."""
    return 2 * left[0] * math.prod(weight)


def _of_bags(
    table: torch.Size, tokens: torch.Size, _: Any, _by_frequency: bool = False, mode: int = 0, *__: Any, **___: Any
) -> int:
    """Sums (mode 0) and means (1) of rows (D,) of the table; the greatest (2) takes no additions."""
    return 2 * math.prod(tokens) * table[1] if mode < 2 else 0


_ATEN = torch.ops.aten
_FLOPS: dict[Any, Callable[..., int]] = {  # of what PyTorch's own counter leaves out; two for a multiply-add
    _ATEN.mv: _of_vectors,
    _ATEN.dot: _of_vectors,
    _ATEN.vdot: _of_vectors,
    _ATEN.addmv: _of_vectors,
    _ATEN.addbmm: _of_batches,
    _ATEN._trilinear: _of_three,
    _ATEN._embedding_bag: _of_bags,
    _ATEN._embedding_bag_forward_only: _of_bags,
}


@torch.no_grad()
def time_side_by_side(
    sides: Mapping[Any, Side], one: Inputs, many: Inputs, config: CompareConfig
) -> dict[Any, dict[str, float]]:
    """`latency_ms` of one sample and `samples_per_second` of many at once, in turns, so that noise hits all alike."""
    calls = {name: (bind(one), bind(many)) for name, bind in sides.items()}
    latencies: dict[Any, list[float]] = {name: [] for name in sides}
    rates: dict[Any, list[float]] = {name: [] for name in sides}
    count = len(next(iter(many.values())))
    with tuned_host(torch.device("cpu"), config.threads, keep_memory=False):
        for pair in calls.values():  # allocations, and what is made ready when it is first used
            for call in pair:
                call()
        for _ in range(config.turns):
            for name, (for_one, for_many) in calls.items():
                latencies[name].append(1000 * _seconds(for_one, config.seconds))
                rates[name].append(count / _seconds(for_many, config.seconds))
    return {
        name: {
            "latency_ms": statistics.median(latencies[name]),
            "samples_per_second": statistics.median(rates[name]),
        }
        for name in sides
    }


def _seconds(call: Callable[[], Any], least: float) -> float:
    """Of one call, on the mean over as many as it takes to fill `least` seconds."""
    calls, passed, started = 0, 0.0, time.perf_counter()
    while passed < least:
        call()
        calls, passed = calls + 1, time.perf_counter() - started
    return passed / calls


def machine(threads: int | None) -> dict[str, Any]:
    """What the times were taken on."""
    import onnxruntime

    return {
        "processor": platform.processor() or platform.machine(),
        "threads": threads or usable_cores(),
        "torch": str(torch.__version__),
        "onnxruntime": onnxruntime.__version__,
    }
