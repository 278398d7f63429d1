"""Networks of a library as ours are: a `build` whose keys are those of the class that the library makes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]


class Source(NamedTuple):
    """Where weights are from that others have trained: what stands behind the name of the library, and of a folder its
    config.json."""

    member: str
    folder: Path | None = None
    config: Mapping[str, Any] = {}


def as_build(
    name: str, make: Callable[..., nn.Module], kind: type[nn.Module], given: set[str]
) -> Callable[..., nn.Module]:
    """`build(shape, outputs, …)` that calls `make(shape, outputs, arguments)`.

    The keys are the parameters of the class `kind`, but for those that are `given` by us. ValueError of whatever the
    library says of them.
    """
    parameters: dict[str, inspect.Parameter] = {}
    for key, value in _parameters(kind):
        if key not in given:
            parameters.setdefault(key, value)

    def build(shape: Shape, outputs: int, **arguments: Any) -> nn.Module:
        if unknown := arguments.keys() - parameters.keys():  # also where a checkpoint has them
            raise ValueError(f"takes no {', '.join(sorted(unknown))}")
        try:
            return make(shape, outputs, arguments)
        except (TypeError, AssertionError, RuntimeError, KeyError, AttributeError) as error:
            raise ValueError(f"cannot be made so: {type(error).__name__}: {error}") from error

    sizes = inspect.signature(build).parameters
    ours = [sizes["shape"], sizes["outputs"]]
    build.__name__ = name
    build.__signature__ = inspect.Signature([*ours, *parameters.values()])  # type: ignore[attr-defined]
    build.__annotations__ = {key: value.annotation for key, value in parameters.items()} | {"outputs": int}
    return build


def _parameters(kind: type[nn.Module]) -> Iterator[tuple[str, inspect.Parameter]]:
    """Those of the class, and of those below it as far as it hands all others on to them."""
    for each in kind.__mro__:
        if "__init__" not in vars(each) or each is nn.Module:
            continue
        found = inspect.signature(each.__init__).parameters  # type: ignore[misc]
        hints = _hints(each)
        for name, parameter in list(found.items())[1:]:
            if parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}:
                default = None if parameter.default is parameter.empty else parameter.default
                hint = hints.get(name, Any)
                yield name, inspect.Parameter(name, parameter.KEYWORD_ONLY, default=default, annotation=hint)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in found.values()):
            return


def _hints(kind: type[nn.Module]) -> dict[str, Any]:
    try:
        return get_type_hints(kind.__init__)
    except (NameError, TypeError):  # the library's own affair: anything goes then
        return {}


def made(make: Callable[[], nn.Module]) -> nn.Module:
    """A network without memory for its weights, where that can be."""
    try:
        with torch.device("meta"):
            return make()
    except (RuntimeError, NotImplementedError):
        return make()


class Coloured(nn.Module):
    """A network for colours that sees grey images (B, 1, H, W) as such, with three channels alike."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        return self.network(images.expand(-1, 3, -1, -1))


def check_size(shape: Shape, needed: Any, key: str) -> None:
    """ValueError unless images (C, H, W) are as large as the network must have them; a number is that of both sides."""
    size = [needed, needed] if isinstance(needed, int) else list(needed)
    if list(shape[1:]) != size:
        raise ValueError(
            f"takes images of {size[0]}x{size[1]} pixels alone, and these are {shape[1]}x{shape[2]}. Set "
            f"preprocess.size: {size} in the block of the data, or model.{key}: {list(shape[1:])}"
        )


def head_of(network: nn.Module) -> str:
    """The name of the last layer with weights."""
    names: list[str] = [name for name, layer in network.named_modules() if list(layer.parameters(recurse=False))]
    return names[-1]


def fitting(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the weights that the network takes over: all but a head for another number of outputs.

    ValueError when others are missing, too many, or of other shapes.
    """
    new, head = network.state_dict(), head_of(network)
    fits = {name for name, weight in state.items() if name in new and weight.shape == new[name].shape}
    counters = {name for name in new if name.endswith("num_batches_tracked")}
    wrong = {name for name in new.keys() ^ state.keys() | (state.keys() - fits) if name.rpartition(".")[0] != head}
    if found := sorted(wrong - counters):
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ValueError(f"{', '.join(found[:3])}{more} are missing, too many, or of another shape")
    return {name: weight for name, weight in state.items() if name in fits}
