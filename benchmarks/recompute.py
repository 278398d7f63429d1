"""Part recompute: what a step keeps for its backward pass, and how long it takes, with train.recompute and without.

Bytes are those of all that the forward pass makes and is still held at its end, beside the weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.measure import Comparison, Options, interleave, synchronize
from torchloom.models import build_network
from torchloom.training.recompute import recompute

CASES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "ResNet-18": ("resnet", {"depth": 18}, ["stages.*"]),
    "ViT of 6 blocks": ("vit", {"width": 192, "layers": 6, "heads": 3}, ["encoder.blocks.*"]),
}
KEPT, AGAIN = SIDES = ("all kept", "computed again")


def run(options: Options) -> list[Comparison]:
    torch.manual_seed(0)
    device = "cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu"
    return [each for case in CASES for each in compare(case, device, options)]


def compare(case: str, device: str, options: Options) -> list[Comparison]:
    name, arguments, patterns = CASES[case]
    batch = 8 if options.quick else 128
    small = {"width": 16} if options.quick and name == "resnet" else {}
    images = torch.rand(batch, 3, 32, 32, device=device)
    networks = {side: build_network(name, {"shape": (3, 32, 32), "outputs": 10}, arguments | small) for side in SIDES}
    recompute(networks[AGAIN], patterns, compiled=False)
    for network in networks.values():
        network.to(device)
    measures: dict[str, Callable[[nn.Module], float]] = {
        "MiB kept for the backward pass": lambda network: kept(network, images) / 2**20,
        "ms for a step": lambda network: seconds(network, images, device) * 1000,
    }
    return [
        Comparison(
            f"A step of {case}, batches of {batch}",
            unit,
            interleave({side: partial(measure, network) for side, network in networks.items()}, options.turns(5)),
            "drawn images",
            KEPT,
            less_is_better=True,
        )
        for unit, measure in measures.items()
    ]


class Made(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Knows the memory of all tensors that are made within."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.storages[StorageWeakRef(storage)] = storage.nbytes()  # type: ignore[no-untyped-call]
        return made

    def left(self) -> int:
        """Bytes of it that are still held."""
        held = [size for storage, size in self.storages.items() if not storage.expired()]  # type: ignore[no-untyped-call]
        return sum(held)


def kept(network: nn.Module, images: Tensor) -> float:
    """Bytes that one forward pass leaves for the backward pass."""
    with Made() as made:
        answers = network(images)
    left = made.left()
    del answers
    return float(left)


def seconds(network: nn.Module, images: Tensor, device: str) -> float:
    began = time.perf_counter()
    network(images).square().sum().backward()
    synchronize(device)
    return time.perf_counter() - began
