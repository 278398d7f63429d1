"""What a model answers to a split."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torchloom.config import MetricConfig, own
from torchloom.config.checks import UnknownNameError, arguments_of, check_call
from torchloom.errors import InputError
from torchloom.system.devices import autocast, computable, enough_memory
from torchloom.system.progress import step_bar


@torch.no_grad()
def predict(model: nn.Module, loader: Any, dtype: torch.dtype = torch.float32) -> tuple[tuple[Tensor, ...], Tensor]:
    """What the model answers to the whole loader, in order, on the CPU: its outputs (N, …) float32, and the targets.

    `dtype` is the type of the matrix products. InputError when the memory is not enough for a batch.
    """
    model.eval().to(memory_format=torch.channels_last)
    found: tuple[Tensor, ...] = ()  # made once: small tensors, kept from each batch, would break the memory to pieces
    count = len(loader.sampler.samples)
    advice = smaller_batches(loader.sampler.batch_size)
    with enough_memory(advice), computable(dtype, "evaluate"), step_bar() as bar:
        task, start = bar.add_task("test", total=len(loader), status=""), 0
        for *inputs, truth in bar.track(loader, total=len(loader), task_id=task):
            with autocast(inputs[0].device, dtype):
                answer = model(*inputs)
            parts = (*(part.float() for part in (answer if isinstance(answer, tuple) else (answer,))), truth)
            found = found or tuple(part.new_empty(count, *part.shape[1:]) for part in parts)
            for whole, part in zip(found, parts, strict=True):
                whole[start : start + len(truth)] = part
            start += len(truth)
    *outputs, targets = (whole[:start].cpu() for whole in found)
    return tuple(outputs), targets


def smaller_batches(size: int) -> str:
    return f"Try evaluate.batch_size={size // 2}" if size > 1 else "Try another evaluate.device"


def check_metric(name: str, arguments: dict[str, Any]) -> None:
    """Raise ArgumentError when the metric does not take `arguments`."""
    metric: Any = own.find(name)
    right = inspect.isfunction(metric) or inspect.isclass(metric)
    if not right:
        raise UnknownNameError(name, "must lead to a function of outputs and targets, or a class that makes such")
    first = list(inspect.signature(metric).parameters)[:2]
    check_call(arguments_of(metric, given_by_us=() if inspect.isclass(metric) else tuple(first)), arguments)


def own_metrics(
    chosen: list[MetricConfig], outputs: Tensor, targets: Tensor, known: Collection[str]
) -> dict[str, float]:
    """The user's own metrics by the last part of their names; InputError when one of these is `known` already."""
    found: dict[str, float] = {}
    for config in chosen:
        name, metric = config.name.rpartition(".")[2], own.find(config.name)
        if name in known or name in found:
            raise InputError(f"evaluate.metrics: there is a metric {name} already; give {config.name} another name")
        with own.running("evaluate.metrics", config.name):
            made: Any = metric(**config.arguments) if inspect.isclass(metric) else partial(metric, **config.arguments)
            found[name] = float(made(outputs, targets))
        if not math.isfinite(found[name]):
            raise InputError(f"evaluate.metrics: {config.name} is {found[name]}, which no report can hold")
    return found
