"""What layers inside a model answer, as further outputs of it: a vector for each sample and layer.

Layers are listened to by forward hooks, which a network of any kind calls; its code need not be one that can be traced
symbolically, as torchvision's feature extraction asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from torchloom.errors import InputError
from torchloom.export.onnx import as_tuple
from torchloom.modalities.base import Info
from torchloom.modalities.modules import Scaling

Pool = Literal["average", "max", "none"]
FIRST = (  # layers whose channels are the axis after the batch
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.ConvTranspose1d, nn.ConvTranspose2d),
)
LAST = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.RNNBase, nn.MultiheadAttention)  # and here the last one


@dataclass(frozen=True)
class Form:
    """The axes of what a layer gives, with that of the batch first: where the channels are, and the steps of a sequence
    of free length, of which there is one for so many (`stride`) of the network's inputs."""

    channels: int
    steps: int | None = None
    stride: float = 1.0
    turned: bool = False  # the batch is not the first axis, but the second


Heard = dict[str, tuple[Tensor, Tensor | None]]  # of each layer what it gives, and how many of its steps are real


class Featured(nn.Module):
    """A model that gives, after its own outputs, what its `layers` do, pooled: (B, channels) float32 each.

    Without pooling it is all numbers (B, …) of a layer and, of sequences of free length, (B, steps, …) with zeros after
    the end.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, Form], pool: Pool) -> None:
        super().__init__()
        self.model, self.layers, self.pool = model, dict(layers), pool

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        answer, heard = self.hear(*inputs)
        return (*as_tuple(answer), *(values for values, _ in heard.values()))

    def hear(self, *inputs: Tensor) -> tuple[Any, Heard]:
        """What the model answers, and what is heard of the layers."""
        found: Heard = {}

        def take(name: str, given: Any, lengths: Tensor | None) -> None:
            values = _values(given)
            form = self.layers[name]
            values = values.transpose(0, 1) if form.turned else values
            real = None if form.steps is None or lengths is None else _steps(lengths.to(values.device), form.stride)
            found[name] = pooled(values.float(), form, real, self.pool), real

        with _listening(self.model, list(self.layers), take):
            answer = self.model(*inputs)
        return answer, {name: found[name] for name in self.layers}


def pooled(values: Tensor, form: Form, real: Tensor | None, pool: Pool) -> Tensor:
    """(B, …) -> (B, channels), of each sample over its first `real` (B,) steps, or all; or laid out for no pooling."""
    if values.ndim == 1:  # a number for each sample
        return values.unsqueeze(1).clone()
    inside = None
    if real is not None:
        assert form.steps is not None
        there = torch.arange(values.shape[form.steps], device=values.device) < real.unsqueeze(1)  # (B, steps)
        inside = there.reshape([*there.shape[:1], *(-1 if axis == form.steps else 1 for axis in _after(values))])
    if pool == "none":
        kept = values.clone() if inside is None else torch.where(inside, values, 0.0)
        return kept.flatten(1) if form.steps is None else kept.movedim(form.steps, 1).flatten(2)
    axes = [axis for axis in _after(values) if axis != form.channels]
    if not axes:
        return values.clone()  # what comes after the layer may work in place
    if pool == "max":
        return (values if inside is None else values.masked_fill(~inside, -torch.inf)).amax(axes)
    if inside is None or real is None:
        return values.mean(axes)
    places = [values.shape[axis] for axis in axes if axis != form.steps]
    total = torch.where(inside, values, 0.0).sum(axes) / real.clamp(min=1).unsqueeze(1)
    for count in places:
        total = total / count
    return total


def _after(values: Tensor) -> range:
    return range(1, values.ndim)


def _steps(lengths: Tensor, stride: float) -> Tensor:
    """Of (B,) lengths of the network's inputs those of a layer."""
    if stride < 1:
        return lengths * round(1 / stride)
    return (lengths + round(stride) - 1) // round(stride)


def _values(given: Any) -> Tensor:
    """The tensor of what a layer gives; of several, such as outputs and states of an LSTM, the first."""
    if isinstance(given, PackedSequence):
        return pad_packed_sequence(given, batch_first=True)[0]
    if isinstance(given, Mapping):
        return _values(next(iter(given.values())))
    if isinstance(given, tuple | list):
        return _values(given[0])
    assert isinstance(given, Tensor)
    return given


@contextmanager
def _listening(model: nn.Module, layers: Sequence[str], take: Any) -> Iterator[None]:
    """Hand over what each layer gives, with the lengths of sequences as the network is told them, if it is."""
    told: list[Tensor] = []

    def listen(_: nn.Module, given: tuple[Any, ...]) -> None:
        found = [each for each in given[1:] if isinstance(each, Tensor) and each.ndim == 1]
        told.extend(each for each in found[:1] if not each.is_floating_point())

    with ExitStack() as stack:
        stack.enter_context(removed(_network(model).register_forward_pre_hook(listen)))
        for name in layers:
            hook = _hook(name, take, told)
            stack.enter_context(removed(model.get_submodule(name).register_forward_hook(hook)))
        yield


def _hook(name: str, take: Any, told: list[Tensor]) -> Any:
    return lambda _, __, given: take(name, given, told[-1] if told else None)


@contextmanager
def removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _network(model: nn.Module) -> nn.Module:
    """The innermost that stands in a scaling, which is told lengths in its own steps."""
    for module in model.modules():
        if isinstance(module, Scaling) and not isinstance(module.network, Scaling):
            return module.network
    return model


# ---- finding out ---------------------------------------------------------------------------------------------------


def featured(
    exported: nn.Module, model: nn.Module, layers: Sequence[str], pool: Pool, info: Info, some: dict[str, Tensor]
) -> Featured:
    """`exported` with these layers of `model`, of which it is made, as further outputs; `some` are samples of inputs.

    Raises InputError when a layer is not there, does not run, or gives nothing for each sample.
    """
    named = dict(model.named_modules())
    for name in layers:
        if name not in named or not name:
            near = get_close_matches(name, filter(None, named), 3, 0.4)
            raise InputError(f"features.layers: there is no layer {name}; {_near(near, named)}")
    places = {id(module): name for name, module in exported.named_modules()}
    forms = forms_of(model, layers, info, some)
    within = Featured(exported, {places[id(named[name])]: forms[name] for name in layers}, pool)
    return within.eval()


def _near(near: list[str], named: Mapping[str, Any]) -> str:
    if near:
        return f"the nearest are {', '.join(near)}"
    return f"there are {', '.join(list(filter(None, named))[:20])}"


@dataclass
class Seen:
    """The shape of what a layer gave, and the place and number of channels of the last layer before whose channels are
    known."""

    shape: tuple[int, ...]
    channels: tuple[int, int] | None


@torch.no_grad()
def forms_of(model: nn.Module, layers: Sequence[str], info: Info, some: dict[str, Tensor]) -> dict[str, Form]:
    """The forms of what the layers give, by two looks at the same samples, of which sequences are filled up to twice
    their length in one: steps are where both differ."""
    some = {name: torch.cat([tensor, tensor]) if len(tensor) == 1 else tensor for name, tensor in some.items()}
    count = len(next(iter(some.values())))
    short, before = _look(model, layers, some)
    long, after = _look(model, layers, _longer(some, info))
    missing = [name for name in layers if name not in short]
    if missing:
        raise InputError(f"features.layers: {missing[0]} is not called when the network answers; name another layer")
    forms = {}
    for name in layers:
        one, other = short[name], long[name]
        turned = len(one.shape) > 1 and one.shape[0] != count == one.shape[1]
        if not turned and one.shape[:1] != (count,):
            raise InputError(f"features.layers: {name} gives {one.shape} for {count} samples, and no vector for each")
        shapes = [(seen.shape[1], seen.shape[0], *seen.shape[2:]) if turned else seen.shape for seen in (one, other)]
        differing = [axis for axis in range(1, len(shapes[0])) if shapes[0][axis] != shapes[1][axis]]
        if len(differing) > 1:
            raise InputError(
                f"features.layers: {name} gives {one.shape}, of which several axes are steps; name another"
            )
        steps = differing[0] if differing else None
        grown = (shapes[1][steps] - shapes[0][steps]) if steps is not None else 1
        stride = (after - before) / grown if steps is not None and after > before else 1.0
        forms[name] = Form(_channels(shapes[0], steps, one.channels), steps, stride, turned)
    return forms


def _channels(shape: tuple[int, ...], steps: int | None, known: tuple[int, int] | None) -> int:
    """Which axis is that of the channels."""
    last = len(shape) - 1
    if last < 2:
        return 1
    if steps is not None and last == 2:
        return 3 - steps
    axis, count = known or (0, 0)
    fitting = [each for each in ((axis, last) if axis == 1 else (last, 1)) if shape[each] == count and each != steps]
    return fitting[0] if fitting else (last if last == 2 else 1)


def _look(model: nn.Module, layers: Sequence[str], inputs: dict[str, Tensor]) -> tuple[dict[str, Seen], int]:
    """What each layer gives of the samples, and how long the network's own inputs are along the axis of steps."""
    seen: dict[str, Seen] = {}
    known: list[tuple[int, int]] = []
    sizes: list[int] = []

    def leaf(axis: int) -> Any:
        def hook(_: nn.Module, __: Any, given: Any) -> None:
            values = _values(given)
            if values.ndim > 1:
                known.append((1 if axis == 1 else -1, values.shape[axis]))

        return hook

    def take(name: str, given: Any, _: Tensor | None) -> None:
        seen[name] = Seen(tuple(_values(given).shape), known[-1] if known else None)

    def listen(_: nn.Module, given: tuple[Any, ...]) -> None:
        first = given[0] if given else None
        sizes.append(sum(first.shape[1:]) if isinstance(first, Tensor) else 0)

    with ExitStack() as stack:
        for module in model.modules():
            axis = 1 if isinstance(module, FIRST) else -1 if isinstance(module, LAST) else 0
            if axis:
                stack.enter_context(removed(module.register_forward_hook(leaf(axis))))
        stack.enter_context(removed(_network(model).register_forward_pre_hook(listen)))
        stack.enter_context(_listening(model, layers, take))
        model.eval()(*inputs.values())
    return seen, sizes[-1] if sizes else 0


def _longer(some: dict[str, Tensor], info: Info) -> dict[str, Tensor]:
    """The same with all axes of free length but that of the batch twice as long; what is added are zeros."""
    made = {}
    for name, tensor in some.items():
        for axis, dim in info.axes.get(name, {}).items():
            if dim != "batch":
                tensor = torch.cat([tensor, torch.zeros_like(tensor)], axis)
        made[name] = tensor
    return made
