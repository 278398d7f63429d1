"""Losses by the names of torch.nn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.validation import check_call

_ON_CLASSES = {"CrossEntropyLoss", "MultiMarginLoss"}  # targets are class numbers
_ON_SCORES = {"MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "BCEWithLogitsLoss"}  # targets are one-hot rows


def loss_names() -> set[str]:
    return _ON_CLASSES | _ON_SCORES


def check_loss(name: str, arguments: dict[str, Any]) -> None:
    """Raise ValueError when torch.nn.<name> does not take `arguments`, or does not give a mean."""
    check_call(getattr(nn, name), arguments, given_by_us=("size_average", "reduce", "reduction"))
    try:
        classification_loss(name, arguments)(torch.zeros(2, 3), torch.tensor([0, 2]))
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"torch.nn.{name} says: {error}") from None


def classification_loss(name: str, arguments: dict[str, Any]) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of logits (B, classes) and labels (B,) int64 to the batch's mean loss, in float32."""
    loss = getattr(nn, name)(**arguments)
    if name in _ON_CLASSES:
        return lambda logits, labels: loss(logits.float(), labels)
    return lambda logits, labels: loss(logits.float(), F.one_hot(labels, logits.shape[1]).float())


def classification_objective(name: str, arguments: dict[str, Any]) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
    """The training objective of a classifier: a model and a batch (images, labels) -> mean loss, and the accuracy."""
    loss = classification_loss(name, arguments)

    def objective(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        images, labels = batch
        logits = model(images)
        return loss(logits, labels), {"accuracy": (logits.argmax(1) == labels).float().mean()}

    return objective
