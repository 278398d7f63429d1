"""Fine-tuning: weights that were learnt elsewhere, a head of one's own, and layers that stay as they are."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from reprlib import repr as shortened
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchloom.config import FreezeConfig, ModelConfig, TrainConfig
from torchloom.errors import InputError
from torchloom.modalities import Info
from torchloom.modalities.modules import Scaling
from torchloom.models import build_model
from torchloom.problems import problem_of
from torchloom.problems.base import Problem
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.optimizers import freeze_groups
from torchloom.training.starting import Weights

logger = logging.getLogger(__name__)


def take_over(
    model: nn.Module, network: ModelConfig, info: Info, problem: Problem, start: Checkpoint | Weights
) -> None:
    """Give `model`, which `network` describes for data like `info`, the weights of `start`; see `take_weights`.

    The scaling stays that of the new data. Weights whose shapes follow from the number of classes, or of words or
    characters, stay as drawn unless both have the very same ones. Raises InputError when the network is
    another or when other weights have other shapes.
    """
    if isinstance(start, Weights):
        take_weights(model, network, info, problem, start)
        return
    if network.name != start.network:
        raise InputError(f"model.name {network.name}: the checkpoint to start from is of {start.network}")
    new, own = model.state_dict(), _names_of_scaling(model)
    fresh = {
        name
        for size in _changed(info, problem, start)
        for name in weights_depending_on(size, network.name, network.arguments, info, problem)
    }
    taken = {name: weight for name, weight in start.weights.items() if name not in fresh | own}
    others = [name for name, weight in taken.items() if name not in new or new[name].shape != weight.shape]
    if others or new.keys() - own - fresh - taken.keys():
        described = {"name": start.network, **start.arguments}
        raise InputError(
            f"model: the weights {', '.join(others[:3]) or 'of this network'} of the checkpoint to start from do not "
            f"fit. It was trained as {described} with inputs {shortened(start.info.sizes())}; this is "
            f"{ {'name': network.name, **network.arguments} } with inputs {shortened(info.sizes())}"
        )
    model.load_state_dict(taken, strict=False)
    logger.info("weights from the checkpoint to start from: %d, new ones: %d", len(taken), len(fresh & new.keys()))


def take_weights(model: nn.Module, network: ModelConfig, info: Info, problem: Problem, start: Weights) -> None:
    """Give `model` weights that are by the names of the network's own, whatever all of these begin with.

    What follows from the sizes of the outputs stays as drawn where the shapes are others. Raises InputError when other
    weights are missing, are too many or have other shapes.
    """
    own = _names_of_scaling(model)
    wanted = {name: weight for name, weight in model.state_dict().items() if name not in own}
    given = {name: weight for name, weight in _as_named(start.weights, wanted).items() if name not in own}
    fitting = {name for name, weight in given.items() if name in wanted and weight.shape == wanted[name].shape}
    others = (given.keys() | wanted.keys()) - fitting
    others = {name for name in others if name.rpartition(".")[2] != "num_batches_tracked"}  # older files have none
    whole = (name for name in fitting if wanted[name].is_floating_point() > given[name].is_floating_point())
    if name := next(whole, None):
        raise InputError(
            f"{start.place}: {name} has whole numbers ({given[name].dtype}), as of a quantized network. Save what was "
            "trained"
        )
    head = set() if not others else _following(network.name, network.arguments, info, problem)
    if odd := sorted(others - head):
        raise InputError(
            f"{start.place}: these are no weights of { {'name': network.name, **network.arguments} } with inputs "
            f"{shortened(info.sizes())}: of {', '.join(odd[:3])} there is one alone, or the shapes are others"
        )
    model.load_state_dict({name: given[name] for name in fitting}, strict=False)
    logger.info("weights from %s: %d, new ones: %d", start.place, len(fitting), len(head & wanted.keys() - fitting))


def _as_named(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those that are given by the names of those that are wanted, as far as both differ only in how all begin."""
    every = [
        {f"{ours}{name.removeprefix(theirs)}": weight for name, weight in given.items()}
        for theirs in _beginnings(given)
        for ours in _beginnings(wanted)
    ]
    return max(every, key=lambda names: len(names.keys() & wanted.keys()))


def _beginnings(names: Collection[str]) -> list[str]:
    """What all names begin with, layer by layer: nothing, `network.`, `network.body.`, …"""
    found, beginning = [""], ""
    parts = min((name.split(".")[:-1] for name in names), key=len, default=[])
    for part in parts:
        beginning += f"{part}."
        if not all(name.startswith(beginning) for name in names):
            break
        found.append(beginning)
    return found


def _names_of_scaling(model: nn.Module) -> set[str]:
    """The names of what models.build_model put around the network."""
    scalings = [(name, module) for name, module in model.named_modules() if isinstance(module, Scaling)]
    return {
        f"{place}.{name}".removeprefix(".")
        for place, module in scalings
        for name, _ in module.named_buffers(recurse=False)
    }


def _changed(info: Info, problem: Problem, start: Checkpoint) -> set[str]:
    """The sizes of the network that stand for other things now."""
    now = {**info.meanings(), **problem.meanings(info)}
    then = {**start.info.meanings(), **problem_of(start.problem).meanings(start.info)}
    return {size for size in now.keys() & then.keys() if now[size] != then[size]}


def weights_depending_on(size: str, network: str, arguments: dict[str, Any], info: Info, problem: Problem) -> set[str]:
    """The names of the weights whose shapes change when that size does."""

    def shapes(count: int | list[int]) -> dict[str, torch.Size]:
        built = build_model(network, arguments, info, problem, {size: count})
        return {name: weight.shape for name, weight in built.state_dict().items()}

    known = {**info.sizes(), **problem.sizes(info)}[size]
    now, larger = shapes(known), shapes(known + 1 if isinstance(known, int) else [*known, max(known) + 1])
    return {name for name, shape in now.items() if larger[name] != shape}


def head_of(checkpoint: Checkpoint) -> set[str]:
    """The names of the weights whose shapes follow from the sizes that the problem asks for, such as `outputs`."""
    return _following(checkpoint.network, checkpoint.arguments, checkpoint.info, problem_of(checkpoint.problem))


def _following(network: str, arguments: dict[str, Any], info: Info, problem: Problem) -> set[str]:
    with torch.random.fork_rng([]):  # what is built for it draws nothing from those who come after
        found = [weights_depending_on(size, network, arguments, info, problem) for size in problem.sizes(info)]
    return set().union(*found)


def freeze(model: nn.Module, entries: Sequence[str | FreezeConfig]) -> None:
    """Let the parameters whose names fit one of the patterns stay as they are; those that do so for some epochs only,
    `learn` sees to.

    Raises InputError when a pattern fits none, or when nothing is left to learn.
    """
    named = dict(model.named_parameters())
    waiting: set[str] = set()
    for entry in entries:
        for pattern in [entry] if isinstance(entry, str) else entry.parameters:
            fitting = [name for name in named if fnmatchcase(name, pattern)]
            if not fitting:
                raise InputError(f"train.freeze: {pattern} fits none of {', '.join(named)}")
            if isinstance(entry, str):
                for name in fitting:
                    named[name].requires_grad_(False)
            else:
                waiting.update(fitting)
    if not any(parameter.requires_grad for name, parameter in named.items() if name not in waiting):
        patterns = (entry if isinstance(entry, str) else ", ".join(entry.parameters) for entry in entries)
        raise InputError(f"train.freeze: {', '.join(patterns)} leave nothing to learn")


def all_begin(entries: Sequence[str | FreezeConfig]) -> bool:
    """Whether nothing waits for an epoch of its own."""
    return all(isinstance(entry, str) for entry in entries)


def learn(model: nn.Module, optimizer: Optimizer, config: TrainConfig, epoch: int) -> bool:
    """Let the parameters that the optimiser has learn, or stay as they are, as they are to in `epoch`, from 1.

    Layers that wait for their turn are those of Howard & Ruder, "Universal language model fine-tuning", ACL 2018
    (arXiv:1801.06146). Returns whether others learn than before.
    """
    may_learn = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    before = [parameter.requires_grad for parameter in may_learn]
    timed = [entry for entry in config.freeze if not isinstance(entry, str)]
    ours = set(may_learn)
    for name, parameter in model.named_parameters() if timed else ():
        held = [entry.epochs for entry in timed if any(fnmatchcase(name, pattern) for pattern in entry.parameters)]
        if held and parameter in ours:
            parameter.requires_grad_(epoch > max(held))
            parameter.grad = None
    freeze_groups(optimizer, config.optimizer, epoch)
    return before != [parameter.requires_grad for parameter in may_learn]


def training_mode(model: nn.Module) -> None:
    """Training mode, but for layers all of whose parameters stay as they are, and norms among such: their statistics
    stay, too."""
    model.train()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            module.training = False  # eval() would take all layers within it along
    for module in model.modules():
        every = list(module.parameters())
        if every and not any(parameter.requires_grad for parameter in every):
            _keep_statistics(module)


def _keep_statistics(model: nn.Module) -> None:
    """Of norms without parameters of their own."""
    for module in model.modules():
        if not list(module.parameters()) and list(module.buffers(recurse=False)):
            module.training = False
