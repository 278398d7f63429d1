"""The networks, one family per module, and what all of them share.

A module `torchloom/models/<name>.py` with a function `build` is a network that a task's YAML can name; so is any module
with one, or a function like it, by its dotted path. Its first parameters are sizes, which the data and the problem
decide; those after the `*` are the keys that the YAML may set, checked by their annotations. It asks for sizes by name,
and so says what it is for:

- `build(shape, outputs, …)`: images (B, C, H, W) -> (B, outputs), such as logits of classes
- `build(tokens, outputs, …)`: documents, tokens (B, T) and lengths (B,) -> (B, outputs)
- `build(mels, outputs, …)`: sounds, as log-mel spectrograms (B, mels, F) and frames (B,) -> (B, outputs)
- `build(features, outputs, …)`: rows of numbers (B, features) -> (B, outputs); `columns` says which column each is of
- `build(shape, maps, …)`: images -> (B, maps, H, W), such as logits of each pixel
- `build(window, channels, horizon, …)`: windows of a series (B, window, channels) -> (B, horizon, channels)
- `build(window, channels, outputs, …)`: whole series (B, window, channels) -> (B, outputs)
- `build(shape, …)` is an autoencoder: (B, C, H, W) -> reconstruction, latent, divergence; and it has `decode`
- `build(shape, verdicts, …)` is a generative adversarial network: it has a `generator`, latents (B, `latent`) -> images
  (B, C, H, W) on [-1, 1], and a `discriminator`, such images -> scores (B,)
- `build(tokens, …)` is a language model: tokens (B, T), state … -> logits (B, T, tokens), state …

The last two may ask for `classes` too, how many there are, 0 where there are none: with an attribute `conditional` that
is true, they take the labels (B,) after their inputs.

Sizes of outputs whose default is None are those of several problems, which one network is for: it gets one of them.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from torchloom.config import own
from torchloom.config.checks import UnknownNameError, arguments_of, check_call
from torchloom.errors import InputError
from torchloom.modalities import Info

if TYPE_CHECKING:
    from torchloom.problems.base import Problem

OUTPUTS = {"outputs", "maps", "horizon", "verdicts"}  # the sizes of what comes out; all others are of what goes in


def network_names(outputs: Collection[str] | None = None, inputs: Collection[str] | None = None) -> list[str]:
    """The networks there are; those that ask for these sizes, when given, as `check_network` has it."""
    modules = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    names = [name for name in modules if hasattr(_module(name), "build")]
    return names if outputs is None else [name for name in names if _asks_for(name, outputs, inputs)]


def _asks_for(name: str, outputs: Collection[str], inputs: Collection[str] | None) -> bool:
    asked, needed = set(sizes_of(name)), set(_needed(name))
    given = asked - OUTPUTS - set(outputs)
    fits = needed - given <= set(outputs) <= asked
    return fits and bool(given) and (inputs is None or given <= set(inputs))


def sizes_of(name: str) -> tuple[str, ...]:
    """The sizes that the network's `build` asks for, e.g. ("shape", "outputs")."""
    return tuple(parameter.name for parameter in _sizes(name))


def _needed(name: str) -> list[str]:
    """Those of them that it cannot do without: all but outputs, and how many classes there are, with a default."""
    without = {*OUTPUTS, "classes"}
    return [size.name for size in _sizes(name) if size.default is size.empty or size.name not in without]


def _sizes(name: str) -> list[inspect.Parameter]:
    parameters = inspect.signature(_build(name)).parameters.values()
    return [parameter for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]


def _module(name: str) -> ModuleType:
    return import_module(f"torchloom.models.{name}")


def _build(name: str) -> Callable[..., nn.Module]:
    found: Any = own.find(name) if own.is_path(name) else _module(name)
    build: Callable[..., nn.Module] = getattr(found, "build", found)
    return build


def check_network(name: str, outputs: Collection[str], inputs: Collection[str] | None) -> None:
    """Raise UnknownNameError unless there is such a network, which asks for all `outputs` and for some of `inputs`.

    Without `inputs` it may ask for anything: what the data have is known later.
    """
    names = network_names(outputs, inputs)
    own.chosen(name, names, "a network for this problem, a module of torchloom.models,")
    if own.is_path(name):
        if not callable(_build(name)):
            raise UnknownNameError(name, "must lead to a function that builds a network, or a module with such a build")
        if not _asks_for(name, outputs, inputs):
            needed = ", ".join([*(inputs or ["sizes of the inputs"]), *outputs])
            asked = ", ".join(sizes_of(name)) or "none"
            raise UnknownNameError(name, f"asks for the sizes ({asked}), but networks for this problem for ({needed})")


def network_arguments(name: str) -> type[BaseModel]:
    """The keys that `model` may have for the network `name`."""
    return arguments_of(_build(name), given_by_us=sizes_of(name))


def check_arguments(name: str, arguments: dict[str, Any]) -> None:
    """Raise ArgumentError when the network `name` does not take `arguments`."""
    check_call(network_arguments(name), arguments)


def build_network(name: str, sizes: dict[str, Any], arguments: dict[str, Any]) -> nn.Module:
    """The network `name` with freshly drawn weights, for data of these `sizes`."""
    missing = [size for size in _needed(name) if size not in sizes]
    if missing:
        raise InputError(f"model.name {name}: needs data that have {' and '.join(missing)}; these have {list(sizes)}")
    known = {size: sizes[size] for size in sizes_of(name) if size in sizes}
    try:
        network: nn.Module = _build(name)(**known, **arguments)
    except ValueError as error:
        raise InputError(f"model.name {name}: {error}") from error
    return network


def build_model(
    name: str, arguments: dict[str, Any], info: Info, problem: Problem, sizes: Mapping[str, Any] | None = None
) -> nn.Module:
    """The network for this problem and data like those that `info` describes, between the scaling of both its ends.

    Some of the `sizes` may be others.
    """
    known = {**info.sizes(), **problem.sizes(info), **(sizes or {})}
    return info.scaled(problem.scaled(build_network(name, known, arguments), info))


def resize_layers(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Make convolutions, dense layers and batch norms as wide as the weights of a state_dict; their values are lost."""
    for name, layer in model.named_modules():
        weight = weights.get(f"{name}.weight")
        if weight is None or weight.shape == getattr(layer, "weight", weight).shape:
            continue
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            layer.out_channels, layer.in_channels = weight.shape[0], weight.shape[1] * layer.groups
        elif isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = weight.shape
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            layer.num_features = len(weight)
        for mine, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            tensor.data = torch.empty_like(weights[f"{name}.{mine}"])
