"""Losses that are added up, each so many times, as the block `loss` has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]  # predictions and targets -> the mean of the batch ()


@dataclass(frozen=True)
class Summand:
    """A loss among those that are added up, each so many `times`; `key` is its own in the parameters."""

    name: str
    arguments: dict[str, Any]
    times: float
    key: str


def summands(name: str, arguments: Mapping[str, Any]) -> list[Summand]:
    """A loss and what is added to it, as its arguments have both: a list `plus` of blocks like its own, and `times`."""
    blocks = {"train.loss": {**arguments, "name": name}}
    blocks |= {f"train.loss.plus.{number}": block for number, block in enumerate(arguments.get("plus", []))}
    return [_summand(key, block) for key, block in blocks.items()]


def _summand(key: str, block: Mapping[str, Any]) -> Summand:
    rest = {key: value for key, value in block.items() if key not in {"name", "times", "plus"} and value is not None}
    return Summand(block["name"], rest, block.get("times", 1.0), key)


def added_up(name: str, arguments: Mapping[str, Any], make: Callable[[Summand], Loss]) -> Loss:
    """The sum of all the losses that `make` makes, each so many times."""
    losses = [(each.times, make(each)) for each in summands(name, arguments)]

    def total(predictions: Tensor, targets: Tensor) -> Tensor:
        first, *more = (loss(predictions, targets) * times for times, loss in losses)
        return sum(more, start=first)

    return total
