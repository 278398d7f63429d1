"""Part inference: ResNet-18 for small images, from uint8 pixels to logits, by PyTorch and by ONNX Runtime."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import inputs, ours
from benchmarks.measure import Comparison, Options, Worker, interleave, rate
from benchmarks.stages import CLASSIFICATION
from torchloom.compression.quantization import quantize_model
from torchloom.config import DataConfig, ExportConfig, QuantizeConfig
from torchloom.datasets.onnx import open_session
from torchloom.export.onnx import signature, to_onnx
from torchloom.models import build_model
from torchloom.system.devices import seed_everything
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan

BY_TORCH = ["eager fp32", "eager bf16, channels last", "torch.compile fp32"]
BY_ONNX = ["fp32", "int8"]
CALIBRATION = 200  # images


def run(options: Options) -> list[Comparison]:
    env = inputs.environment("cifar10", options.quick)
    batches, width, seconds = ((8,), 8, 0.05) if options.quick else ((1, 128), 64, 1.0)
    task = (inputs.prepared(env, "cifar10"), width, seconds)
    data = f"{inputs.describe(env, 'cifar10')}, random weights, width {width}"
    comparisons = []
    with Worker(by_torch, *task, options.device) as pytorch, Worker(by_onnx, *task) as runtime:
        for batch in batches:
            sides = {kind: partial(pytorch, kind, batch) for kind in BY_TORCH}
            sides |= {f"ONNX Runtime {kind}, CPU": partial(runtime, kind, batch) for kind in BY_ONNX}
            measured = interleave(sides, options.turns(9))
            comparisons.append(Comparison(f"ResNet-18, batch {batch}", "images/s", measured, data, BY_TORCH[0]))
    return comparisons


def prepare(folder: Path, width: int) -> tuple[LoaderPlan, nn.Module]:
    """The data, and the network with random weights, the same in each process."""
    plan = ours.plan_loaders(folder, DataConfig(), ours.config("cpu", 64))
    seed_everything(0)
    return plan, build_model("resnet", {"width": width}, plan.info, CLASSIFICATION).eval()


def by_torch(folder: Path, width: int, seconds: float, device: str) -> Callable[[str, int], float]:
    plan, model = prepare(folder, width)
    model.to(device)
    models: dict[str, Any] = {
        BY_TORCH[0]: model,
        BY_TORCH[1]: copy.deepcopy(model).to(memory_format=torch.channels_last),
        BY_TORCH[2]: torch.compile(copy.deepcopy(model), dynamic=False),
    }

    @torch.no_grad()
    def measure(kind: str, batch: int) -> float:
        images = plan.first("test", batch)[0].to(device)
        with torch.autocast(device, dtype=torch.bfloat16, enabled="bf16" in kind):
            return rate(lambda: models[kind](images), batch, seconds, device)

    return measure


def by_onnx(folder: Path, width: int, seconds: float) -> Callable[[str, int], float]:
    plan, model = prepare(folder, width)
    sessions = {kind: open_session(exported) for kind, exported in export(plan, model).items()}

    def measure(kind: str, batch: int) -> float:
        call = partial(sessions[kind].run, ["logits"], {"images": pixels(plan, "test", 0, batch)})
        return rate(call, batch, seconds, "cpu")

    return measure


def export(plan: LoaderPlan, model: nn.Module) -> dict[str, bytes]:
    """The project's own export, and what its own quantisation makes of it."""
    checkpoint = Checkpoint(
        network="resnet", arguments={}, problem=CLASSIFICATION.name, info=plan.info, training={}, weights={}
    )
    form = signature(model, plan.samples("test", 2), checkpoint)
    fp32 = to_onnx(model, form, checkpoint, ExportConfig().opset)
    samples = {"images": pixels(plan, "train", 0, CALIBRATION)}
    return {"fp32": fp32, "int8": quantize_model(fp32, samples, QuantizeConfig())}


def pixels(plan: LoaderPlan, split: str, start: int, count: int) -> np.ndarray:
    return plan.first(split, start + count)[0][start:].contiguous().numpy()
