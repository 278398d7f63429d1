"""The networks, one family per module, and what all of them share.

A module `torchloom/models/<name>.py` with a function `build` is a network that a task's YAML can name; so is any module
with one, or a function like it, by its dotted path. Its first
parameters are what the data decide (`sizes` below); those after the `*` are the keys that the YAML may set, checked by
their annotations. Which sizes it asks for says what it is for:

- `build(shape, classes, …)` classifies images: (B, C, H, W) -> logits (B, classes)
- `build(tokens, classes, …)` classifies documents: tokens (B, T), lengths (B,) -> logits (B, classes)
- `build(shape, …)` is an autoencoder: (B, C, H, W) -> reconstruction, latent, divergence; and it has `decode`
- `build(tokens, …)` is a language model: tokens (B, T), state … -> logits (B, T, tokens), state …
- `build(features, …)` is a regressor: (B, features) -> (B,)
"""

import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from torchloom import own
from torchloom.errors import InputError
from torchloom.modalities import Info
from torchloom.validation import UnknownNameError, arguments_of, check_call


def network_names(sizes: Iterable[tuple[str, ...]] | None = None) -> list[str]:
    """The networks there are; those that ask for one of `sizes`, when given."""
    modules = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    names = [name for name in modules if hasattr(_module(name), "build")]
    return names if sizes is None else [name for name in names if sizes_of(name) in sizes]


def sizes_of(name: str) -> tuple[str, ...]:
    """The sizes that the network's `build` asks for, e.g. ("shape", "classes")."""
    parameters = inspect.signature(_build(name)).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD)


def _module(name: str) -> ModuleType:
    return import_module(f"torchloom.models.{name}")


def _build(name: str) -> Callable[..., nn.Module]:
    found: Any = own.find(name) if own.is_path(name) else _module(name)
    build: Callable[..., nn.Module] = getattr(found, "build", found)
    return build


def check_network(name: str, sizes: Iterable[tuple[str, ...]]) -> None:
    """Raise UnknownNameError unless there is such a network that asks for one of `sizes`."""
    own.chosen(name, network_names(sizes), "a network for this kind of task, a module of torchloom.models,")
    if own.is_path(name):
        if not callable(_build(name)):
            raise UnknownNameError(name, "must lead to a function that builds a network, or a module with such a build")
        if sizes_of(name) not in sizes:
            needed = " or ".join(f"({', '.join(each)})" for each in sizes)
            asked = ", ".join(sizes_of(name))
            raise UnknownNameError(name, f"asks for ({asked}), but the networks of this kind of task for {needed}")


def network_arguments(name: str) -> type[BaseModel]:
    """The keys that `model` may have for the network `name`."""
    return arguments_of(_build(name), given_by_us=sizes_of(name))


def check_arguments(name: str, arguments: dict[str, Any]) -> None:
    """Raise ArgumentError when the network `name` does not take `arguments`."""
    check_call(network_arguments(name), arguments)


def build_network(name: str, sizes: dict[str, Any], arguments: dict[str, Any]) -> nn.Module:
    """The network `name` with freshly drawn weights, for data of these `sizes`."""
    missing = [size for size in sizes_of(name) if size not in sizes]
    if missing:
        raise InputError(f"model.name {name}: needs data that have {' and '.join(missing)}; these have {list(sizes)}")
    try:
        network: nn.Module = _build(name)(*(sizes[size] for size in sizes_of(name)), **arguments)
    except ValueError as error:
        raise InputError(f"model.name {name}: {error}") from error
    return network


def build_model(name: str, arguments: dict[str, Any], info: Info) -> nn.Module:
    """The network for data like those that `info` describes, behind the scaling of its inputs."""
    return info.scaled(build_network(name, info.sizes(), arguments))


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
