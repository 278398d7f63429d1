"""Optimisers and learning-rate schedules by the names of torch.optim."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from torchloom.config import SchedulerConfig
from torchloom.errors import InputError
from torchloom.validation import check_call

# LBFGS needs a closure, SparseAdam sparse gradients, Muon (and what builds on it) 2-D weights only.
_OTHER_OPTIMIZERS = {"Optimizer", "LBFGS", "SparseAdam", "Muon"}
# These take Python functions or other schedulers, which YAML cannot name.
_OTHER_SCHEDULERS = {"LRScheduler", "LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler"}
_LENGTHS = {"T_max", "total_iters", "total_steps"}


def optimizer_names() -> list[str]:
    return [name for name, kind in inspect.getmembers(torch.optim, _is(Optimizer)) if name not in _OTHER_OPTIMIZERS]


def scheduler_names() -> list[str]:
    kinds = inspect.getmembers(lr_scheduler, _is(lr_scheduler.LRScheduler))
    return [name for name, _ in kinds if name not in _OTHER_SCHEDULERS and not name.startswith("_")]


def _is(parent: type) -> Any:
    return lambda value: inspect.isclass(value) and issubclass(value, parent)


def check_optimizer(name: str, arguments: dict[str, Any]) -> None:
    """Raise ValueError when torch.optim.<name> does not take `arguments`."""
    check_call(getattr(torch.optim, name), arguments, given_by_us=("params",))
    try:
        create_optimizer(nn.Linear(2, 2), name, arguments)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"torch.optim.{name} says: {error}") from None


def create_optimizer(model: nn.Module, name: str, arguments: dict[str, Any]) -> Optimizer:
    """The optimiser over all parameters of `model`, fused into one kernel where it can be, unless told otherwise."""
    kind = getattr(torch.optim, name)
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    choosable = {"fused", "foreach", "differentiable", "capturable"}
    if "fused" in inspect.signature(kind).parameters and not choosable & arguments.keys():
        try:
            fused: Optimizer = kind(model.parameters(), fused=True, **arguments)
            return fused
        except RuntimeError:  # this device or version has no fused kernel
            pass
    plain: Optimizer = kind(model.parameters(), **arguments)
    return plain


def check_scheduler(
    name: str, arguments: dict[str, Any], optimizer_name: str = "SGD", optimizer_arguments: dict[str, Any] | None = None
) -> None:
    """Raise ValueError when torch.optim.lr_scheduler.<name> does not take `arguments`, or not this optimiser."""
    kind = getattr(lr_scheduler, name)
    optimizer = create_optimizer(nn.Linear(2, 2), optimizer_name, optimizer_arguments or {})
    arguments = {**_lengths(kind, arguments, 10, 0.1), **arguments}
    check_call(kind, arguments, given_by_us=("optimizer",))
    try:
        scheduler = kind(optimizer, **arguments)
        if not isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            optimizer.step()
            scheduler.step()  # a length of 0 shows only now
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"torch.optim.lr_scheduler.{name} says: {error}") from None


def _lengths(kind: type, arguments: dict[str, Any], steps: int, lr: float) -> dict[str, Any]:
    """What a scheduler must know of the run and was not told: its length and, for OneCycleLR, the highest rate."""
    takes = inspect.signature(kind).parameters.keys()
    filled: dict[str, Any] = {}
    if not (_LENGTHS | {"epochs", "steps_per_epoch"}) & arguments.keys():
        filled = dict.fromkeys(_LENGTHS & takes, steps)
    if "max_lr" in takes and "max_lr" not in arguments:
        filled["max_lr"] = lr
    return filled


class Schedule:
    """The learning rate over the run: linear warm-up per step, then the named scheduler by step or by epoch.

    Call `step` after each optimiser step and `end_epoch` after each epoch.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        config: SchedulerConfig | None,
        epochs: int,
        steps_per_epoch: int,
        warmup_epochs: float,
    ) -> None:
        self.taken = 0
        self.warmup_steps = round(warmup_epochs * steps_per_epoch)
        self.main: Any = None
        self.by_step = False
        if config is not None:
            kind = getattr(lr_scheduler, config.name)
            steps = max(1, epochs * steps_per_epoch - self.warmup_steps)
            filled = _lengths(kind, config.arguments, steps, optimizer.param_groups[0]["lr"])
            self.by_step = config.interval == "step" if config.interval else bool(_LENGTHS & filled.keys())
            if not self.by_step:
                steps = epochs - self.warmup_steps // steps_per_epoch
                filled = _lengths(kind, config.arguments, steps, optimizer.param_groups[0]["lr"])
            self.main = kind(optimizer, **filled, **config.arguments)
            if getattr(self.main, "total_steps", steps) < steps:  # OneCycleLR fails when it is asked for more
                length = f"{self.main.total_steps} {'steps' if self.by_step else 'epochs'}"
                raise InputError(f"train.scheduler: {config.name} is over after {length}, the run after {steps}")
        if self.warmup_steps:
            self.warmup = lr_scheduler.LinearLR(optimizer, 1 / (self.warmup_steps + 1), total_iters=self.warmup_steps)

    def step(self) -> None:
        self.taken += 1
        if self.taken <= self.warmup_steps:
            self.warmup.step()
        elif self.by_step:
            self._advance()

    def end_epoch(self, monitored_loss: float) -> None:
        """`monitored_loss` is what ReduceLROnPlateau watches."""
        if self.main is None or self.by_step or self.taken <= self.warmup_steps:
            return
        if isinstance(self.main, lr_scheduler.ReduceLROnPlateau):
            self.main.step(monitored_loss)
        else:
            self._advance()

    def _advance(self) -> None:
        with warnings.catch_warnings():  # fp16 skips optimiser steps while it looks for its scale
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            self.main.step()
