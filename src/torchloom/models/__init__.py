"""The networks, one family per module, and what all of them share.

A module `torchloom/models/<name>.py` with a function `build(shape, classes, …)` is a network that a task's YAML can
name: the function's other parameters are the keys it may set, checked by their annotations.
"""

import pkgutil
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from torchloom.validation import check_call


def network_names() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]


def check_arguments(name: str, arguments: dict[str, Any]) -> None:
    """Raise ArgumentError when the network `name` does not take `arguments`."""
    check_call(import_module(f"{__name__}.{name}").build, arguments, given_by_us=("shape", "classes"))


def build_network(name: str, shape: list[int], classes: int, arguments: dict[str, Any]) -> nn.Module:
    """The network `name` for images of `shape` (C, H, W), with freshly drawn weights."""
    network: nn.Module = import_module(f"{__name__}.{name}").build(tuple(shape), classes, **arguments)
    return network


class ImageClassifier(nn.Module):
    """uint8 images (B, C, H, W) -> logits (B, classes): normalisation, then the network.

    The normalisation, (pixel / 255 - mean) / std per channel, is part of the model, so that training, evaluation and
    the exported graph cannot differ in it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", _per_channel(mean) * 255)
        self.register_buffer("std", _per_channel(std) * 255)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images.float() - self.mean) / self.std)
        return logits


def _per_channel(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1)
