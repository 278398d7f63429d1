"""Layers whose activations are not kept for the backward pass, but computed again when it comes to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fnmatch import fnmatchcase
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from torchloom.errors import InputError


def recompute(model: nn.Module, patterns: Sequence[str], *, compiled: bool) -> None:
    """Let the layers of `model` whose names fit one of `patterns` compute their activations again for the backward
    pass, each as a whole: of what fits, the outermost. Values and gradients stay what they are, dropout too.

    Chen, Xu, Zhang, Guestrin, "Training deep nets with sublinear memory cost" (arXiv:1604.06174). Raises InputError
    when a pattern fits none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name, _ in model.named_modules()):
            names = ", ".join(name for name, layer in model.named_modules() if name and any(layer.children()))
            raise InputError(f"train.recompute: {pattern} fits no layer; those that have others within are {names}")
    for layer in list(_outermost(model, patterns)) if patterns else ():
        # partial, and not a function that knows the layer, so that copies of the model have their own
        given = {} if compiled else {"context_fn": partial(_contexts, layer)}
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, **given)


def _outermost(layer: nn.Module, patterns: Sequence[str], name: str = "", fits: bool = False) -> Iterator[nn.Module]:
    """A list of layers stands for those in it: it is never called itself."""
    fits = fits or any(fnmatchcase(name, pattern) for pattern in patterns)
    if fits and type(layer).forward is not nn.Module.forward:
        yield layer
        return
    for child_name, child in layer.named_children():
        yield from _outermost(child, patterns, f"{name}.{child_name}".lstrip("."), fits)


def _contexts(layer: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around the forward pass, and around its repetition: statistics are gathered in the first alone. What is compiled
    knows that by itself."""
    return nullcontext(), _on_copies(layer)


@contextmanager
def _on_copies(layer: nn.Module) -> Iterator[None]:
    """With copies of all buffers in their places, which take what would have changed them."""
    own = [(module, dict(module._buffers)) for module in layer.modules()]
    for module, buffers in own:
        module._buffers.update({name: None if value is None else value.clone() for name, value in buffers.items()})
    try:
        yield
    finally:
        for module, buffers in own:
            module._buffers.update(buffers)
