"""The model that validation and the checkpoints see, where that is an average of the trained weights.

An average has a copy of the model, `module`, and is told of each optimiser step. `settled` makes the copy ready to be
judged.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from torchloom.config import SwaConfig, TrainConfig
from torchloom.data.batches import start_epoch
from torchloom.problems.base import Batch, Objective
from torchloom.system.devices import autocast
from torchloom.training.distribution import Ranks
from torchloom.training.transfer import learn, training_mode

STATISTICS = 100  # batches, at most, of which batch norm takes new statistics for averaged weights


class Average(Protocol):
    module: nn.Module

    def update_parameters(self, model: nn.Module) -> None:
        """After each optimiser step."""

    def refresh(self) -> bool:
        """Before `module` is judged; whether its batch norm needs statistics that are taken for its weights."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


def create_average(model: nn.Module, optimizer: Optimizer, config: TrainConfig, steps: int) -> Average | None:
    """What is kept of `model` instead of the trained weights, if anything is; an epoch has so many optimiser `steps`.

    An optimiser that averages by itself has a method `average_of(parameter)`.
    """
    if hasattr(optimizer, "average_of"):
        return OptimizersAverage(model, optimizer.average_of)
    if config.swa:
        return StochasticAverage(model, config.swa, config.epochs, steps)
    return average(model, config.ema)


class ExponentialAverage(AveragedModel):
    def refresh(self) -> bool:
        return False  # it averages the statistics, too


def average(model: nn.Module, decay: float | None) -> ExponentialAverage | None:
    """An exponential moving average of weights and buffers, updated after each optimiser step.

    It warms up, as in TensorFlow: the decay of step n is (1 + n) / (10 + n) at most, so that what the network was at
    first is forgotten in short trainings too. Buffers of whole numbers, such as positions, are as the network has them.
    """
    if decay is None:
        return None

    def update(old: Any, new: Any, _: Any) -> None:
        taken = int(averaged.n_averaged)  # on the CPU; what is given is a copy on the device
        used = min(decay, (1 + taken) / (10 + taken)) if old[0].is_floating_point() else 0.0  # all are of one type
        get_ema_multi_avg_fn(used)(old, new, taken)  # type: ignore[no-untyped-call]

    averaged = ExponentialAverage(model, multi_avg_fn=update, use_buffers=True)
    return averaged


class StochasticAverage:
    """The mean of the weights at the ends of some epochs; before the first of these, the weights of the last epoch.

    Izmailov, Podoprikhin, Garipov, Vetrov, Wilson, "Averaging weights leads to wider optima and better generalization",
    UAI 2018 (arXiv:1803.05407).
    """

    def __init__(self, model: nn.Module, config: SwaConfig, epochs: int, steps: int) -> None:
        self.averaged = AveragedModel(model)
        self.module: nn.Module = self.averaged.module
        self.first, self.cycle, self.steps = config.first(epochs), config.cycle, steps
        self.taken = 0

    def update_parameters(self, model: nn.Module) -> None:
        self.taken += 1
        epoch, rest = divmod(self.taken, self.steps)
        if rest:
            return
        if epoch <= self.first:
            self.averaged.n_averaged.zero_()  # what is averaged next is copied
        if epoch <= self.first or (epoch - self.first) % self.cycle == 0:
            self.averaged.update_parameters(model)

    def refresh(self) -> bool:
        return bool(self.averaged.n_averaged > 1)  # the weights of one epoch have those that they were trained with

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken, "averaged": self.averaged.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.taken = state["taken"]
        self.averaged.load_state_dict(state["averaged"])


class OptimizersAverage:
    """The average that the optimiser keeps itself, which is asked for when it is needed."""

    def __init__(self, model: nn.Module, average_of: Callable[[Tensor], Tensor]) -> None:
        self.model, self.average_of = model, average_of
        self.module = copy.deepcopy(model)

    def update_parameters(self, model: nn.Module) -> None:
        pass

    @torch.no_grad()
    def refresh(self) -> bool:
        for mean, trained in zip(self.module.parameters(), self.model.parameters(), strict=True):
            mean.copy_(self.average_of(trained))
        for kept, buffer in zip(self.module.buffers(), self.model.buffers(), strict=True):
            kept.copy_(buffer)
        return True

    def state_dict(self) -> dict[str, Any]:
        return {}  # all of it is the optimiser's

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def settled(
    averaged: Average | None,
    model: nn.Module,
    optimizer: Optimizer,
    config: TrainConfig,
    loader: Any,
    device: torch.device,
    dtype: torch.dtype,
    objective: Objective,
    ranks: Ranks,
    epoch: int,
) -> None:
    """Make what is judged of `model` after `epoch`, counted from 1, ready for that, in all of the `ranks` the same.

    An exponential average has statistics of batch norm of its own. Other weights than the trained ones get new ones
    from the training data that `loader` gives in this epoch, but for layers that stay as they are.
    """
    if averaged and averaged.refresh():
        learn(model, optimizer, config, epoch)
        training_mode(model)
        start_epoch(loader, epoch - 1)
        pairs = zip(model.modules(), averaged.module.modules(), strict=True)
        norms = [norm for trained, norm in pairs if isinstance(norm, _BatchNorm) and trained.training]
        with autocast(device, dtype):
            take_statistics([norm for norm in norms if norm.track_running_stats], averaged.module, loader, objective)
    ranks.share_buffers(averaged.module if averaged else model)


@torch.no_grad()
def take_statistics(norms: list[_BatchNorm], model: nn.Module, batches: Iterable[Batch], objective: Objective) -> None:
    """Give `norms`, which are within `model`, the mean statistics of some batches; all else is as in evaluation."""
    model.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
        norm.training = True
    for batch in islice(batches, STATISTICS if norms else 0):
        objective(model, batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.training = False
