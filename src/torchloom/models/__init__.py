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
from torchloom.data.info import ImageInfo, Info, TableInfo
from torchloom.errors import InputError
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
    network = build_network(name, info.sizes(), arguments)
    if isinstance(info, ImageInfo):
        return NormalizedImages(network, info.mean, info.std)
    if isinstance(info, TableInfo):
        return StandardizedTable(network, info)
    return network


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


class NormalizedImages(nn.Module):
    """uint8 images (B, C, H, W) -> what the network makes of (pixel / 255 - mean) / std per channel.

    The normalisation is part of the model, so that training, evaluation and the exported graph cannot differ in it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", _per_channel(mean) * 255)
        self.register_buffer("std", _per_channel(std) * 255)

    def forward(self, images: Tensor) -> Any:
        return self.network(self.normalize(images))

    def normalize(self, images: Tensor) -> Tensor:
        """As it says, and quickly: row by row as they lie in memory, in place, without temporaries of their size."""
        if torch.compiler.is_compiling():  # fused there; and a simple graph in exports
            return (images.float() - self.mean) / self.std
        count, channels, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).flatten(2).to(torch.float32, copy=True)  # (B, H, W C)
        scale = (1 / self.std).flatten()
        rows.mul_(scale.repeat(width)).sub_((self.mean.flatten() * scale).repeat(width))
        return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


def _per_channel(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1)


class StandardizedTable(nn.Module):
    """Features (B, F) float32 in their own units -> predictions (B,) in the target's unit.

    The network sees features of mean 0 and standard deviation 1 and answers on that scale too.
    """

    mean: Tensor
    std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(self, network: nn.Module, info: TableInfo) -> None:
        super().__init__()
        self.network = network
        for name in ("mean", "std", "target_mean", "target_std"):
            self.register_buffer(name, torch.tensor(getattr(info, name), dtype=torch.float32))

    def forward(self, features: Tensor) -> Tensor:
        prediction: Tensor = self.network((features - self.mean) / self.std) * self.target_std + self.target_mean
        return prediction
