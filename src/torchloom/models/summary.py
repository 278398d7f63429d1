"""What a network is made of: its layers with the shapes that they put out and the parameters that they learn."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from torchloom.modalities import Info

TIME = "time"  # in a shape: an axis as long as the text or document


def layers(model: nn.Module, info: Info) -> list[dict[str, Any]]:
    """The leaf modules of a model on the CPU, and others with parameters of their own, in order of the forward pass.

    Of each: `name` (as in the state dict), `type` (its class), `output_shape` (of one sample, without the batch's axis;
    `TIME` where it is as long as the input; None where it is not known) and `parameters` (how many). What several
    modules share counts where it comes first, so that the sum is that of the model.
    """
    short, long = (_output_shapes(model, info.example(batch=1, time=time)) for time in (2, 3))
    unseen = {id(parameter): parameter.numel() for parameter in model.parameters()}
    rows = []
    for name in _in_order(model, short):
        module = model.get_submodule(name)
        count = sum(unseen.pop(id(parameter), 0) for parameter in module.parameters(recurse=False))
        shape: list[int | str] | None = None
        if name in short:
            shape = [size if size == other else TIME for size, other in zip(short[name], long[name], strict=True)]
        elif isinstance(module, nn.RNNBase):  # run by its weights alone; see models/_recurrent.py
            shape = [TIME, module.hidden_size * (1 + module.bidirectional)]
        rows.append({"name": name, "type": type(module).__name__, "output_shape": shape, "parameters": count})
    return rows


def _in_order(model: nn.Module, called: Iterable[str]) -> list[str]:
    """The layers that the forward pass called; those that it took only parameters of stand where they were defined."""
    names, place = list(called), 0
    for name, module in model.named_modules():
        if name in names:
            place = names.index(name) + 1
        elif any(True for _ in module.parameters(recurse=False)):
            names.insert(place, name)
            place += 1
    return names


@torch.no_grad()
def _output_shapes(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, list[int]]:
    """The shapes that the layers put out for one sample, in the order of their first calls."""
    shapes: dict[str, list[int]] = {}

    def note(name: str, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output  # of recurrent layers what is not the state
        shapes.setdefault(name, list(first.shape[1:]))

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: note(name, output))
        for name, module in model.named_modules()
        if _is_layer(module)
    ]
    training = model.training
    try:
        model.eval()(*inputs.values())
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return shapes


def _is_layer(module: nn.Module) -> bool:
    return not any(module.children()) or any(True for _ in module.parameters(recurse=False))
