"""Optimisers and learning-rate schedules by the names of torch.optim."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.swa_utils import SWALR

from torchloom.config import LookaheadConfig, OptimizerConfig, SchedulerConfig, SwaConfig, TrainConfig, own
from torchloom.config.checks import arguments_of, check_call
from torchloom.errors import InputError
from torchloom.training.lion import Lion
from torchloom.training.muon import Muon
from torchloom.training.schedule_free import ScheduleFreeAdamW

logger = logging.getLogger(__name__)


def _public(module: Any, parent: type, others: Collection[str]) -> dict[str, Any]:
    kinds = inspect.getmembers(module, lambda value: inspect.isclass(value) and issubclass(value, parent))
    return {name: kind for name, kind in kinds if not name.startswith("_") and name not in others}


OURS = {"Lion": Lion, "Muon": Muon, "ScheduleFreeAdamW": ScheduleFreeAdamW}
# Without LBFGS, which needs a closure, and SparseAdam, which needs sparse gradients; torch's own Muon takes 2-D weights
# only.
OPTIMIZERS: dict[str, Any] = {
    **_public(torch.optim, Optimizer, {"Optimizer", "LBFGS", "SparseAdam"}),
    **OURS,
}
# With which no scheduler goes, and why; and those that keep an average of the weights, which is the model.
UNSCHEDULED = {
    "Rprop": "looks at its learning rate in its first step only",
    "ScheduleFreeAdamW": "needs none; warmup_epochs goes with it",
}
AVERAGING = {"ScheduleFreeAdamW"}
# Without those that take Python functions or other schedulers, which YAML cannot name.
SCHEDULERS = _public(
    lr_scheduler,
    lr_scheduler.LRScheduler,
    {"LRScheduler", "LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler"},
)
PUBLIC = (torch.optim, lr_scheduler)
LOW_RANK = re.compile(r"\.parametrizations\.(\w+)\.0\.[AB]$")  # the end of its parameters' names
_LENGTHS = {"T_max", "total_iters", "total_steps"}
BY_GROUP = {"max_lr", "base_lr", "min_lr", "max_momentum", "base_momentum"}  # may be lists
_BY_STEP = {"CyclicLR", "OneCycleLR"}  # of which PyTorch says: step should be called after a batch


def optimizer_names() -> list[str]:
    return sorted(OPTIMIZERS)


def scheduler_names() -> list[str]:
    return sorted(SCHEDULERS)


def _optimizer(name: str) -> Any:
    return own.find(name) if own.is_path(name) else OPTIMIZERS[name]


def _scheduler(name: str) -> Any:
    return own.find(name) if own.is_path(name) else SCHEDULERS[name]


def _full_name(kind: type) -> str:
    """As a message says it."""
    module = next((public for public in PUBLIC if getattr(public, kind.__name__, None) is kind), None)
    return (
        kind.__name__ if kind in OURS.values() else f"{module.__name__ if module else kind.__module__}.{kind.__name__}"
    )


def optimizer_arguments(name: str) -> type[BaseModel]:
    return arguments_of(_optimizer(name), given_by_us=("params",))


def scheduler_arguments(name: str) -> type[BaseModel]:
    return arguments_of(_scheduler(name), given_by_us=("optimizer",))


def check_optimizer(name: str, arguments: dict[str, Any]) -> None:
    """Raise ValueError when the optimiser does not take `arguments`."""
    check_call(optimizer_arguments(name), arguments)
    try:
        _on_trial(name, arguments)
    except Exception as error:  # whatever a user's own raises
        raise ValueError(f"{_full_name(_optimizer(name))} says: {error}") from None


def _on_trial(name: str, arguments: dict[str, Any], groups: int = 1) -> Optimizer:
    """An optimiser of so many groups that looks at its arguments and learns nothing.

    For the methods that it goes without, torch imports torch._dynamo: a second or two of every command, also of those
    that train nothing.
    """

    def add_param_group(optimizer: Optimizer, group: dict[str, Any]) -> None:
        optimizer.param_groups.append({**optimizer.defaults, **group})

    kind = _optimizer(name)
    on_trial = type(kind.__name__, (kind,), {"add_param_group": add_param_group, "step": lambda _: None})
    parameters = [{"params": list(nn.Linear(2, 2).parameters())} for _ in range(groups)]
    optimizer: Optimizer = on_trial(parameters, **_tuples(arguments))
    return optimizer


def own_name(name: str) -> str:
    """What a parameter is called in the network as it is built: those of a low rank as the weight that they are
    beside."""
    return LOW_RANK.sub(r".\1", name)


def fits(name: str, patterns: Sequence[str]) -> bool:
    """Whether the parameter of this name, by either of its names, fits one of the patterns."""
    return any(fnmatchcase(each, pattern) for pattern in patterns for each in (name, own_name(name)))


def create_optimizer(model: nn.Module, config: OptimizerConfig, together: bool = True) -> Optimizer:
    """The optimiser over all parameters of `model` that learn, fused into one kernel where it can be.

    That needs all of a group to begin `together`: torch's fused SGD takes momenta of all of them or of none.

    Its first group has all parameters that belong to none of `config.groups`. Raises InputError when a group is empty.
    """
    groups: list[dict[str, Any]] = [{"params": []}]
    groups += [{"params": [], **_tuples(group.arguments)} for group in config.groups]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            fitting = (number for number, group in enumerate(config.groups, 1) if fits(name, group.parameters))
            groups[next(fitting, 0)]["params"].append(parameter)
    for given, group in zip(config.groups, groups[1:], strict=True):
        if not group["params"]:
            names = dict.fromkeys(own_name(name) for name, each in model.named_parameters() if each.requires_grad)
            raise InputError(
                f"train.optimizer.groups: {', '.join(given.parameters)} fits no parameter that is left of "
                f"{', '.join(names)}"
            )
    optimizer = _create(config.name, config.arguments, groups, fused=together)
    if hasattr(optimizer, "know"):
        optimizer.know(model)
    return optimizer


def _create(name: str, arguments: dict[str, Any], parameters: list[Any], *, fused: bool) -> Optimizer:
    kind = _optimizer(name)
    arguments = _tuples(arguments)
    choosable = {"fused", "foreach", "differentiable", "capturable"}
    if fused and "fused" in inspect.signature(kind).parameters and not choosable & arguments.keys():
        try:
            quick: Optimizer = kind(parameters, fused=True, **arguments)
            return quick
        except RuntimeError:  # this device or version has no fused kernel
            pass
    with own.running("train.optimizer", name):
        plain: Optimizer = kind(parameters, **arguments)
    return plain


def _tuples(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}


def usual_rate(config: OptimizerConfig) -> float:
    """That of parameters in no group with one of its own; 0 where the optimiser has none."""
    given = config.arguments.get("lr")
    return float(_on_trial(config.name, config.arguments).defaults.get("lr", 0.0) if given is None else given)


def rates_of(config: TrainConfig) -> list[float]:
    """The rate of each group of the optimiser, or the highest that the scheduler takes it to, the first of what is in
    no other."""
    highest = config.scheduler.arguments.get("max_lr") if config.scheduler else None
    if isinstance(highest, list):
        return highest
    usual = usual_rate(config.optimizer) if highest is None else highest
    return [usual, *(group.arguments.get("lr", usual) for group in config.optimizer.groups)]


def with_rate(config: TrainConfig, rate: float) -> dict[str, Any]:
    """What gives the block `train` another rate, from which groups with one of their own keep their distance.

    It is the scheduler's `max_lr` where that is given, and the optimiser's `lr` elsewhere.
    """
    first, *others = rates_of(config)
    rates = [float(f"{rate * other / (first or 1.0):.4g}") for other in others]
    highest = config.scheduler.arguments.get("max_lr") if config.scheduler else None
    if highest is not None:
        return {"scheduler": {"max_lr": [rate, *rates] if isinstance(highest, list) else rate}}
    groups = [group.model_dump(exclude_none=True) for group in config.optimizer.groups]
    if not any("lr" in group for group in groups):
        return {"optimizer": {"lr": rate}}
    rated = [{**group, "lr": own} if "lr" in group else group for group, own in zip(groups, rates, strict=True)]
    return {"optimizer": {"lr": rate, "groups": rated}}


# How the rate goes with the samples of a step, in words and as a power of them: Goyal et al. 2017 (arXiv:1706.02677),
# and of those that divide by the gradients' own size Malladi et al. 2022 (arXiv:2205.10287).
SCALING = {"SGD": ("in proportion", 1.0)} | dict.fromkeys(
    ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop"), ("by the square root", 0.5)
)


def said_of_scaling(name: str) -> str:
    """A hint at the rate for batches of another size, for an optimiser of which a rule is known or not."""
    if name not in SCALING:
        return f"no rule is known of {name}'s rate"
    return f"{name}'s rate goes {SCALING[name][0]} with the samples of a step"


def scaled_rate(name: str, rate: float, times: float) -> float | None:
    """The rate for batches that are so many times as large; None of an optimiser of which no rule is known."""
    return rate * times ** SCALING[name][1] if name in SCALING else None


def freeze_groups(optimizer: Optimizer, config: OptimizerConfig, epoch: int) -> bool:
    """Let the groups that have learnt their epochs stay as they are; `epoch` is the one that begins, from 1.

    Returns whether there were any that still learnt. Raises InputError when no group is left.
    """
    frozen = False
    for given, group in zip(config.groups, optimizer.param_groups[1:], strict=True):
        if given.epochs is not None and epoch > given.epochs:
            for parameter in group["params"]:
                frozen |= parameter.requires_grad
                parameter.requires_grad_(False)
                parameter.grad = None
    if not any(parameter.requires_grad for group in optimizer.param_groups for parameter in group["params"]):
        raise InputError(f"train.optimizer.groups: from epoch {epoch} on nothing would learn any more")
    return frozen


class Lookahead:
    """Slow copies of the weights, which both meet every few steps: slow <- decay slow + (1 - decay) fast, fast <- slow.

    Zhang et al., "Lookahead optimizer: k steps forward, 1 step back", NeurIPS 2019. A decay that grows with the cube of
    the run's share is that of Jordan 2024 (arXiv:2404.00498).
    """

    def __init__(self, model: nn.Module, config: LookaheadConfig, steps: int) -> None:
        self.config, self.steps, self.taken = config, steps, 0
        self.fast: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.slow = [weight.detach().clone() for weight in self.fast]

    @torch.no_grad()
    def step(self) -> None:
        """Call it after each optimiser step; after the last one the slow weights are what remains."""
        self.taken += 1
        meeting = self.taken % self.config.every == 0
        if not meeting and self.taken != self.steps:
            return
        learning = [number for number, weight in enumerate(self.fast) if weight.requires_grad]  # the others stay
        fast, slow = [self.fast[number] for number in learning], [self.slow[number] for number in learning]
        if meeting:
            decay = self.config.decay * (self.taken / self.steps) ** self.config.ramp
            torch._foreach_lerp_(slow, fast, 1 - decay)
        torch._foreach_copy_(fast, slow)

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken, "slow": self.slow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.taken = state["taken"]
        for slow, saved in zip(self.slow, state["slow"], strict=True):
            slow.copy_(saved)


def check_scheduler(name: str, arguments: dict[str, Any], config: OptimizerConfig | None = None) -> None:
    """Raise ValueError when torch.optim.lr_scheduler.<name> does not take `arguments`, or not this optimiser.

    Lists of rates have one for each of its groups: those of `config.groups`, and all other parameters before them.
    """
    kind = _scheduler(name)
    if config:
        optimizer = _on_trial(config.name, config.arguments, 1 + len(config.groups))
    else:
        lists = [value for key, value in arguments.items() if key in BY_GROUP and isinstance(value, list)]
        optimizer = _on_trial("SGD", {}, max([1, *map(len, lists)]))
    arguments = {**_lengths(kind, arguments, 10, [0.1] * len(optimizer.param_groups)), **arguments}
    check_call(scheduler_arguments(name), arguments)
    try:
        scheduler = kind(optimizer, **arguments)
        if not isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            optimizer.step()
            scheduler.step()  # a length of 0 shows only now
    except Exception as error:  # whatever a user's own raises
        raise ValueError(f"{_full_name(kind)} says: {error}") from None


def _lengths(kind: type, arguments: dict[str, Any], steps: int, rates: list[float]) -> dict[str, Any]:
    """What a scheduler must know of the run and was not told: its length and, for OneCycleLR, the highest rates."""
    takes = inspect.signature(kind).parameters.keys()
    filled: dict[str, Any] = {}
    if not (_LENGTHS | {"epochs", "steps_per_epoch"}) & arguments.keys():
        filled = dict.fromkeys(_LENGTHS & takes, steps)
    if "max_lr" in takes and "max_lr" not in arguments:
        filled["max_lr"] = rates
    return filled


class Schedule:
    """The learning rate over the run: linear warm-up per step, then the named scheduler by step or by epoch.

    Call `step` after each optimiser step and `end_epoch` after each epoch. ReduceLROnPlateau watches what the training
    monitors, whose values are better the greater or the less they are: `better` is max or min.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        config: SchedulerConfig | None,
        epochs: int,
        steps_per_epoch: int,
        warmup_epochs: float,
        better: str = "min",
        swa: SwaConfig | None = None,
    ) -> None:
        self.taken = 0
        self.ends: list[tuple[int, float]] = []  # of the epochs so far: the steps before, and what was monitored
        self.warmup_steps = round(warmup_epochs * steps_per_epoch)
        self.main: Any = None
        self.name = config.name if config else ""
        self.by_step = False
        self.optimizer, self.swa = optimizer, swa if swa and swa.lr else None
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.before_swa = swa.first(epochs) - 1 if swa else 0  # epochs
        self.constant: Any = None  # the scheduler that goes to the rate of the averaged epochs, once they are near
        if config is not None:
            kind = _scheduler(config.name)
            steps = max(1, epochs * steps_per_epoch - self.warmup_steps)
            filled = _lengths(kind, config.arguments, steps, self.rates)
            self.by_step = config.interval == "step" if config.interval else _counts_steps(config.name, filled)
            if not self.by_step:
                steps = epochs - self.warmup_steps // steps_per_epoch
                filled = _lengths(kind, config.arguments, steps, self.rates)
            if kind is lr_scheduler.ReduceLROnPlateau:
                filled["mode"] = better
            with own.running("train.scheduler", config.name):
                self.main = kind(optimizer, **{**filled, **config.arguments})
            if getattr(self.main, "total_steps", steps) < steps:  # OneCycleLR fails when it is asked for more
                length = f"{self.main.total_steps} {'steps' if self.by_step else 'epochs'}"
                raise InputError(f"train.scheduler: {config.name} is over after {length}, the run after {steps}")
        self.warmup: Any = None
        if self.warmup_steps:
            self.warmup = lr_scheduler.LinearLR(optimizer, 1 / (self.warmup_steps + 1), total_iters=self.warmup_steps)

    def step(self) -> None:
        self.taken += 1
        if self.taken <= self.warmup_steps:
            _advance(self.warmup)
        elif self.by_step and self.constant is None:
            _advance(self.main, self.name)

    def end_epoch(self, monitored: float) -> None:
        """`monitored` is the epoch's figure that the training monitors."""
        self.ends.append((self.taken, monitored))
        if self.swa and len(self.ends) >= self.before_swa:
            self._go_to_constant(self.swa)
            return
        if self.main is None or self.by_step or self.taken <= self.warmup_steps:
            return
        if isinstance(self.main, lr_scheduler.ReduceLROnPlateau):
            self.main.step(monitored)
        else:
            _advance(self.main, self.name)

    def _go_to_constant(self, swa: SwaConfig) -> None:
        if self.constant is None:
            rates = [swa.lr * rate / (self.rates[0] or 1.0) for rate in self.rates]
            self.constant = SWALR(self.optimizer, rates, swa.anneal_epochs)  # type: ignore[arg-type]
        _advance(self.constant)

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken, "ends": self.ends}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the place of `state`, which may be that of another schedule: all steps before are taken anew."""
        for taken, *monitored in [*state["ends"], (state["taken"],)]:
            for _ in range(self.taken, taken):
                self.step()
            if monitored:
                self.end_epoch(*monitored)


def hangs_on_length(config: TrainConfig) -> bool:
    """Whether the epochs of a training are others when there are to be more of them."""
    scheduler = config.scheduler
    filled = _lengths(_scheduler(scheduler.name), scheduler.arguments, 1, []) if scheduler else {}
    by_share = config.swa is not None and config.swa.start < 1
    return bool(_LENGTHS & filled.keys()) or by_share or config.lookahead is not None


def say_if_momentum_moves(schedule: Schedule, config: TrainConfig) -> None:
    """Warn when the schedule moves a momentum that the recipe gives a value, without being asked to."""
    given = [name for name in ("momentum", "betas") if name in config.optimizer.arguments]
    if given and getattr(schedule.main, "cycle_momentum", False) and "cycle_momentum" not in config.scheduler.arguments:  # type: ignore[union-attr]
        logger.warning(
            "train.scheduler: %s moves the momentum, too, whatever train.optimizer.%s says; cycle_momentum: false lets "
            "it be, and true is what it does now",
            *(type(schedule.main).__name__, given[0]),
        )


def _counts_steps(name: str, filled: dict[str, Any]) -> bool:
    """Whether a scheduler is stepped after each optimiser step, as its documentation or the run's length asks for."""
    return name in _BY_STEP or bool(_LENGTHS & filled.keys())


def _advance(scheduler: Any, name: str = "") -> None:
    with own.running("train.scheduler", name), warnings.catch_warnings():
        # fp16 skips optimiser steps while it looks for its scale
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        scheduler.step()
