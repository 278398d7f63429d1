"""What a batch does in a step: forward, backward, and twice of both where the steepest place nearby is looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from torchloom.config import SamConfig, TrainConfig
from torchloom.problems.base import Batch, Objective
from torchloom.system.devices import autocast
from torchloom.training.distribution import Ranks

# The network as it is trained, a batch, of how many the gradients become one step, and whether the last of them is
# here -> the loss and other figures. Gradients are added to those that are there.
Pass = Callable[[nn.Module, Batch, int, bool], tuple[Tensor, dict[str, Tensor]]]


def create_pass(
    model: nn.Module,
    objective: Objective,
    config: TrainConfig,
    scaler: Any,
    device: torch.device,
    dtype: torch.dtype,
    ranks: Ranks,
) -> Pass:
    """Forward and backward pass of a training of `model`; with `train.sam` twice."""

    def forward(trained: nn.Module, batch: Batch, group: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        with autocast(device, dtype):
            loss, figures = objective(trained, batch)
        return loss, scaler.scale((loss + penalty(model, config.l1, config.l2)) / group), figures

    def once(trained: nn.Module, batch: Batch, group: int, last: bool) -> tuple[Tensor, dict[str, Tensor]]:
        with ranks.exchange(trained, last):
            loss, scaled, figures = forward(trained, batch, group)
            scaled.backward()  # type: ignore[no-untyped-call]
        return loss, figures

    def twice(trained: nn.Module, batch: Batch, group: int, last: bool) -> tuple[Tensor, dict[str, Tensor]]:
        assert config.sam is not None
        with ranks.exchange(trained, False):  # each process looks around for itself, as in the paper
            loss, scaled, figures = forward(trained, batch, group)
            weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
            gradients = torch.autograd.grad(scaled, weights, allow_unused=True)
        with climbed(weights, gradients, config.sam), statistics_kept(model):
            once(trained, batch, group, last)
        return loss, figures

    return twice if config.sam else once


@contextmanager
def climbed(weights: Sequence[Tensor], gradients: Sequence[Tensor | None], config: SamConfig) -> Iterator[None]:
    """With the weights `rho` further up along the gradients, whatever those are scaled by: where the loss is about the
    greatest that it is so near. Afterwards they are what they were, to the bit.

    Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-aware minimization for efficiently improving generalization", ICLR
    2021 (arXiv:2010.01412). With `adaptive`, nearness is in shares of each weight: Kwon, Kim, Park, Choi, "ASAM", ICML
    2021 (arXiv:2102.11600), with T_w = diag(|w|).
    """
    moved = [(weight, slope) for weight, slope in zip(weights, gradients, strict=True) if slope is not None]
    before = [weight.detach().clone() for weight, _ in moved]
    slopes = [slope * weight.detach().abs() if config.adaptive else slope for weight, slope in moved]
    norm = torch.stack([slope.norm() for slope in slopes]).norm() + 1e-12
    with torch.no_grad():
        for (weight, _), slope in zip(moved, slopes, strict=True):
            weight.add_(slope * (weight.abs() if config.adaptive else 1) * (config.rho / norm))
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_([weight for weight, _ in moved], before)


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """The buffers of `model`, such as the statistics of batch norm, are what they were when all is over."""
    buffers = list(model.buffers())
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        if buffers:
            torch._foreach_copy_(buffers, before)


def penalty(model: nn.Module, l1: float, l2: float) -> Tensor | float:
    """L1 and L2 penalties over all matrices and kernels; biases and batch norm are left free."""
    total: Tensor | float = 0.0
    if l1 or l2:
        for weight in weights_of(model):
            total = total + l1 * weight.abs().sum() + l2 / 2 * weight.square().sum()
    return total


def weights_of(model: nn.Module) -> Iterator[Tensor]:
    return (parameter for parameter in model.parameters() if parameter.ndim > 1 and parameter.requires_grad)
