"""One optimiser step, of the gradients of one batch or of several: the training loop's, and whatever tries settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchloom.config import TrainConfig, own
from torchloom.problems.base import WEIGHT, Batch, Objective
from torchloom.system.devices import autocast
from torchloom.training.distribution import ALONE, Ranks
from torchloom.training.sharpness import climbed, statistics_kept

TINY = 1e-12  # of batches in which nothing counts


@dataclass
class Steps:
    """`backward` for each batch of a group, then `update`.

    The gradient is that of the mean loss over all samples of the group, or over all weights where the loss is a mean by
    weights, as with weights of classes; penalties count once.
    """

    model: nn.Module
    trained: nn.Module  # the same, compiled, or one of several processes
    objective: Objective
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    config: TrainConfig
    device: torch.device
    dtype: torch.dtype
    ranks: Ranks = ALONE
    weight: Tensor | None = None  # of the group's batches so far

    def backward(self, batch: Batch, group: int, last: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the gradients of a batch, one of so many in its `group`, which with `train.sam` are those of the steepest
        place nearby; what the objective says of it."""
        if self.config.sam is None:
            return self._backward(batch, group, last)
        with self.ranks.exchange(self.trained, False):  # each process looks around for itself, as in the paper
            loss, figures, penalties = self._forward(batch)
            weights = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            gradients = torch.autograd.grad(self.scaler.scale(loss + penalties), weights, allow_unused=True)
        with climbed(weights, gradients, self.config.sam), statistics_kept(self.model):
            self._backward(batch, group, last)
        return loss, figures

    def _forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor | float]:
        with autocast(self.device, self.dtype):
            loss, figures = self.objective(self.trained, batch)
        return loss, figures, penalty(self.model, self.config.l1, self.config.l2)

    def _backward(self, batch: Batch, group: int, last: bool) -> tuple[Tensor, dict[str, Tensor]]:
        with self.ranks.exchange(self.trained, last):
            loss, figures, penalties = self._forward(batch)
            self.scaler.scale(self._share(batch, loss, figures, penalties, group, last)).backward()  # type: ignore[no-untyped-call]
        return loss, figures

    def _share(
        self,
        batch: Batch,
        loss: Tensor,
        figures: dict[str, Tensor],
        penalties: Tensor | float,
        group: int,
        last: bool,
    ) -> Tensor:
        """What a batch adds to what its group minimises, to be divided by `weight` where there is one."""
        if WEIGHT in figures and group > 1:
            share = figures[WEIGHT].detach() / len(batch[-1])  # about 1, so that fp16 scales as ever
            self.weight = share if self.weight is None else self.weight + share
            return loss * share + (penalties * self.weight.clamp(min=TINY) if last else 0.0)
        return (loss + penalties) / group

    def update(self) -> None:
        """Take the step; gradients stay until `optimizer.zero_grad`."""
        if self.weight is not None:
            given = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
            torch._foreach_div_(given, self.weight.clamp(min=TINY))
            self.weight = None
        if self.config.gradient_clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        with own.running("train.optimizer", self.config.optimizer.name):
            self.scaler.step(self.optimizer)
        self.scaler.update()


def penalty(model: nn.Module, l1: float, l2: float) -> Tensor | float:
    """L1 and L2 penalties over all matrices and kernels; biases and batch norm are left free."""
    total: Tensor | float = 0.0
    if l1 or l2:
        for weight in weights_of(model):
            total = total + l1 * weight.abs().sum() + l2 / 2 * weight.square().sum()
    return total


def weights_of(model: nn.Module) -> Iterator[Tensor]:
    return (parameter for parameter in model.parameters() if parameter.ndim > 1 and parameter.requires_grad)
