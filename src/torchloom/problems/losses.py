"""Losses by the names of torch.nn, or a user's own; those on classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import AfterValidator, BaseModel, Field, create_model
from torch import Tensor, nn

from torchloom.config import NotNegative, own
from torchloom.config.checks import arguments_of, check_call, parts_of
from torchloom.errors import InputError
from torchloom.problems.base import WEIGHT
from torchloom.system.words import listed

_ON_CLASSES = {"CrossEntropyLoss", "MultiMarginLoss"}  # targets are class numbers

# How a classifier's outputs become probabilities, by the loss that trained it; from others none follow.
LINKS = {"CrossEntropyLoss": "softmax", "BCEWithLogitsLoss": "sigmoid"}


def loss_class(name: str) -> Any:
    """That of torch.nn, or one of the user's own: of predictions and targets it makes the batch's mean loss.

    Of classes the targets are numbers (B,) int64. An attribute `link` may say what makes its outputs probabilities:
    softmax or sigmoid.
    """
    return own.resolve(name, nn)


def link_of(name: str) -> str | None:
    """What makes a classifier's outputs probabilities, by the loss that trained it; nothing where none follow."""
    if own.is_path(name):
        link: str | None = getattr(loss_class(name), "link", None)
        return link
    return LINKS.get(name)


def _some(weights: list[float]) -> list[float]:
    if not any(weights):
        raise ValueError("must have a weight above 0")
    return weights


Weights = Annotated[list[NotNegative], Field(min_length=2), AfterValidator(_some)]


@cache
def loss_arguments(name: str) -> type[BaseModel]:
    """What a user may give to torch.nn.<name>; where it takes a tensor, that is a list with a weight for each class."""
    if own.is_path(name):
        return arguments_of(loss_class(name), given_by_us=("reduction",))
    by_us = ("size_average", "reduce", "reduction", *(("weight",) if name == "BCELoss" else ()))  # it has no classes
    plain = arguments_of(getattr(nn, name), given_by_us=by_us)
    hints = {key: field.annotation for key, field in plain.model_fields.items()}
    weights: dict[str, Any] = {key: (Weights | None, None) for key, hint in hints.items() if Tensor in parts_of(hint)}
    return create_model(plain.__name__, __base__=plain, **weights)


def check_weights(name: str, arguments: dict[str, Any], classes: list[str], what: str = "classes") -> None:
    """Raise InputError unless each list of weights has one for each of the classes."""
    for key, weights in ({} if own.is_path(name) else arguments).items():
        if isinstance(weights, list) and len(weights) != len(classes):
            raise InputError(
                f"train.loss.{key}: {name} was given {len(weights)} weights, but there are {len(classes)} {what}: "
                + ", ".join(map(repr, classes))
            )


def weights_by_name(key: str, given: Any, names: list[str], balanced: Sequence[float]) -> list[float]:
    """What the parameter `key` says, a list, weights by name, or `balanced`, as a weight for each of the names.

    Those that are not named have a weight of 1. InputError when a name is unknown, or there are not so many.
    """
    if given == "balanced":
        return list(balanced)
    if isinstance(given, Mapping):
        weights = {str(name): float(value) for name, value in given.items()}
        if unknown := sorted(weights.keys() - set(names)):
            raise InputError(f"{key}.{unknown[0]}: there is none of that name; there are {listed(names)}")
        return [weights.get(name, 1.0) for name in names]
    if len(given) != len(names):
        raise InputError(f"{key}: was given {len(given)} weights, but there are {len(names)}: {listed(names)}")
    return [float(value) for value in given]


def _trial_classes(arguments: dict[str, Any]) -> int:
    """For how many classes a loss of torch.nn with these arguments can be tried out."""
    return next((len(weights) for weights in arguments.values() if isinstance(weights, list)), 3)


def scores(logits: Tensor, link: str | None) -> Tensor:
    """A classifier's answers (N, classes) on [0, 1]: probabilities or, without a link, nothing but an order."""
    if link is None:
        low, high = logits.aminmax()
        return (logits - low) / (high - low).clamp(min=1e-12)
    return logits.softmax(1) if link == "softmax" else logits.sigmoid()


def check_loss(name: str, arguments: dict[str, Any], on_classes: bool) -> None:
    """Raise ValueError when torch.nn.<name> does not take `arguments`, or does not give a mean."""
    check_call(loss_arguments(name), arguments)
    try:
        if on_classes:
            classes = _trial_classes(arguments)
            classification_loss(name, arguments)(torch.zeros(2, classes), torch.tensor([0, classes - 1]))
        else:
            loss_class(name)(**arguments)(torch.zeros(2, 3), torch.ones(2, 3))
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{'' if own.is_path(name) else 'torch.nn.'}{name} says: {error}") from None


def classification_loss(
    name: str, arguments: dict[str, Any], reduction: str = "mean"
) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of logits (B, classes) and labels to the batch's mean loss, in float32.

    Labels are classes (B,) int64, or shares of each class (B, classes) float32, for which see `check_soft_labels`.
    """
    if own.is_path(name):
        mine = loss_class(name)(**arguments)
        return lambda logits, labels: mine.to(logits.device)(logits.float(), labels)
    weights = {key: torch.tensor(value).float() for key, value in arguments.items() if isinstance(value, list)}
    loss = getattr(nn, name)(**{**arguments, **weights}, reduction=reduction)
    if name in _ON_CLASSES:
        return lambda logits, labels: loss.to(logits.device)(logits.float(), labels)
    return lambda logits, labels: loss.to(logits.device)(logits.float(), _shares(labels, logits.shape[1]))


def _shares(labels: Tensor, classes: int) -> Tensor:
    return F.one_hot(labels, classes).float() if labels.ndim == 1 else labels


def check_soft_labels(name: str, arguments: dict[str, Any]) -> None:
    """Raise InputError when the loss needs one class per image, and so cannot learn from mixed ones."""
    classes = _trial_classes(arguments)
    try:
        classification_loss(name, arguments)(torch.zeros(2, classes), torch.full((2, classes), 1 / classes))
    except (ValueError, TypeError, RuntimeError):
        given = f"{name} with {', '.join(arguments)}" if arguments else name
        raise InputError(
            f"train.loss: {given} needs one class per image, but data.augment.mixup and cutmix give shares of several; "
            "leave them out, or take CrossEntropyLoss (without ignore_index) or a loss on one-hot labels"
        ) from None


def weighed_loss(name: str, arguments: dict[str, Any]) -> Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]:
    """`classification_loss`, and as a figure the weight of its mean, where that is not the number of samples.

    With weights of classes, or one to ignore, torch's CrossEntropyLoss divides by the sum of the weights that a batch's
    labels have; here also where labels are shares. Processes that train together divide by what they have on average.
    """
    loss = classification_loss(name, arguments)
    weights, ignored = arguments.get("weight"), arguments.get("ignore_index")
    if name != "CrossEntropyLoss" or (weights is None and ignored is None):
        return lambda logits, labels: (loss(logits, labels), {})
    total = classification_loss(name, arguments, "sum")

    def weighed(logits: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        each = torch.ones(logits.shape[1]) if weights is None else torch.tensor(weights).float()
        each = each.to(logits.device)
        weight = (labels @ each if labels.ndim == 2 else each[labels] * (labels != ignored)).sum()
        if torch.is_grad_enabled() and dist.is_available() and dist.is_initialized():
            dist.all_reduce(weight)
            weight /= dist.get_world_size()
        return total(logits, labels) / weight, {WEIGHT: weight}

    return weighed


def answer_by_answer(answers: Tensor, target: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    """What several networks in one answer in training, (B, members, …), a row for each, with the target of each.

    Answers of a single network have so many `dimensions`, and stay as they are.
    """
    if answers.ndim == dimensions:
        return answers, target
    return answers.flatten(0, 1), target.repeat_interleave(answers.shape[1], 0)


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of right decisions from logits (B, classes) and labels (B,), or shares of classes (B, classes)."""
    likeliest = labels if labels.ndim == 1 else labels.argmax(1)
    return (logits.argmax(1) == likeliest).float().mean()
