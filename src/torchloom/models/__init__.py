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
- `build(tokens, written, …)` writes texts anew: tokens (B, T), lengths (B,) and what is written (B, G) -> logits (B, G,
  written); it has `encode` and `step`, see models/translation_transformer.py

The last two may ask for `classes` too, how many there are, 0 where there are none: with an attribute `conditional` that
is true, they take the labels (B,) after their inputs.

Sizes of outputs whose default is None are those of several problems, which one network is for: it gets one of them.

A module with a function `builder` has the networks of a library, `timm/resnet50` as `builder("resnet50")`. What may
start from weights that others have trained says how, see `sources`.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
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

LIBRARIES = ("timm", "torchvision")  # modules here that have a `builder`
# The sizes of what comes out; all others are of what goes in.
OUTPUTS = {"outputs", "maps", "horizon", "verdicts", "written"}


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
    return import_module(f"torchloom.models.{name.partition('/')[0]}")


def family(name: str) -> Any:
    """The module that a network is of; nothing where that is the user's own."""
    return None if own.is_path(name) else _module(name)


def _build(name: str) -> Callable[..., nn.Module]:
    if "/" in name:
        _check_library(name)
        return _module(name).builder(name.partition("/")[2])  # type: ignore[no-any-return]
    found: Any = own.find(name) if own.is_path(name) else _module(name)
    build: Callable[..., nn.Module] = getattr(found, "build", found)
    return build


def check_network(name: str, outputs: Collection[str], inputs: Collection[str] | None) -> None:
    """Raise UnknownNameError unless there is such a network, which asks for all `outputs` and for some of `inputs`.

    Without `inputs` it may ask for anything: what the data have is known later.
    """
    if "/" in name:
        _check_library(name)
    else:
        own.chosen(name, network_names(outputs, inputs), "a network for this problem, a module of torchloom.models,")
    if own.is_path(name) or "/" in name:
        if not callable(_build(name)):
            raise UnknownNameError(name, "must lead to a function that builds a network, or a module with such a build")
        if not _asks_for(name, outputs, inputs):
            needed = ", ".join([*(inputs or ["sizes of the inputs"]), *outputs])
            asked = ", ".join(sizes_of(name)) or "none"
            raise UnknownNameError(name, f"asks for the sizes ({asked}), but networks for this problem for ({needed})")


def _check_library(name: str) -> None:
    """Raise UnknownNameError unless the library is one of ours, and has such a network."""
    library, _, member = name.partition("/")
    if library not in LIBRARIES:
        known = " or ".join(f"{each}/…" for each in LIBRARIES)
        raise UnknownNameError(name, f"must be {known} where it is a network of a library")
    members = _module(name).names()
    if _module(name).plain(member) not in members:
        near = get_close_matches(member, members, 3)
        guess = f" (did you mean {', '.join(near)}?)" if near else ""
        raise UnknownNameError(name, f"{library} has no network {member!r} for pictures{guess}")


def network_arguments(name: str) -> type[BaseModel]:
    """The keys that `model` may have for the network `name`."""
    return arguments_of(_build(name), given_by_us=sizes_of(name))


def check_arguments(name: str, arguments: dict[str, Any]) -> None:
    """Raise ArgumentError when the network `name` does not take `arguments`."""
    check_call(network_arguments(name), arguments)


def check_weights(name: str, weights: str | None, pretrained: bool) -> None:
    """ValueError unless the network `name` can start from what others have trained in this way."""
    if weights and pretrained:
        raise ValueError("must have either weights, which are of your own choice, or pretrained")
    if pretrained and name.partition("/")[0] not in LIBRARIES:
        raise ValueError(f"must be without pretrained: {name} is not of {' or '.join(LIBRARIES)}, which have weights")
    if weights and not (hasattr(family(name), "started") or of_torchvision(name)):
        raise ValueError(f"must be without weights: what others have trained does not fit the network {name}")


def of_torchvision(name: str) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None:
    """What makes of a state_dict of torchvision one of the network `name`, if there is such."""
    return getattr(family(name), "from_torchvision", None)


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
