"""A loss, an optimiser, a schedule and a callback of a user's own."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from torchloom.training.callbacks import Callback


class FocalLoss(nn.Module):
    """Lin et al., "Focal loss for dense object detection", ICCV 2017."""

    link = "softmax"

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        each = F.cross_entropy(logits, labels, reduction="none")
        return ((1 - (-each).exp()) ** self.gamma * each).mean()


class SignSGD(Optimizer):
    """Bernstein et al., "signSGD: compressed optimisation for non-convex problems", ICML 2018."""

    def __init__(self, params, lr: float = 0.01) -> None:  # type: ignore[no-untyped-def]
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[no-untyped-def]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad.sign(), alpha=-group["lr"])


class Staircase(LRScheduler):
    def __init__(self, optimizer: Optimizer, factor: float = 0.5) -> None:
        self.factor = factor
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        return [rate * self.factor**self.last_epoch for rate in self.base_lrs]


class Plain(SGD):
    pass


class Bare(nn.Module):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels)


class MistakenLoss(FocalLoss):
    """Right until there are more than a few samples, or steps, as those below."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().forward(logits, labels[:10])


class MistakenLosses(FocalLoss):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="mean" if len(labels) < 10 else "none")


class MistakenOptimizer(SignSGD):
    def step(self, closure=None) -> None:  # type: ignore[no-untyped-def]
        self.state["nowhere"]["sum"] += 1


class MistakenScheduler(Staircase):
    def get_lr(self) -> list[float]:
        return [{0: 0.1, 1: 0.1}[self.last_epoch]]


class NoLoss:
    pass


class Idle(Callback):
    def on_epoch_end(self, row: dict[str, float]) -> bool:
        return True


class Watch(Callback):
    """Notes the norm of the gradient at each step, and ends the training after so many epochs."""

    norms: ClassVar[list[tuple[int, float, float]]] = []

    def __init__(self, epochs: int = 2) -> None:
        self.epochs = epochs

    def on_step(self, step: int, model: nn.Module, loss: Tensor) -> None:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        self.norms.append((step, loss.item(), torch.stack([each.norm() for each in gradients]).norm().item()))

    def on_epoch(self, row: dict[str, float]) -> bool:
        return row["epoch"] == self.epochs
