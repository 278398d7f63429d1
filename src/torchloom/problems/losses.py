"""Losses by the names of torch.nn, one of ours, or a user's own; of classes, of labels and of values; added up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import torch
import torch.distributed as dist
from pydantic import BaseModel, create_model
from torch import Tensor, nn

from torchloom.config import Fraction, LossConfig, own
from torchloom.config.checks import ArgumentError, arguments_of, check_call, parts_of
from torchloom.errors import InputError
from torchloom.problems.base import WEIGHT, means_of_several
from torchloom.problems.class_weights import LabelWeights, Weights, weights_in
from torchloom.problems.loss_modules import (
    DiceLoss,
    FocalLoss,
    HingeLoss,
    KLDivLoss,
    LabelFocalLoss,
    LabelMarginLoss,
    shares_of,
)
from torchloom.problems.summands import Loss, Summand, added_up, summands

Targets = Literal["classes", "labels", "values"]  # what a loss is of

TINY = torch.finfo(torch.float32).tiny  # in place of the weight of a batch with nothing to learn
# Of classes: whose targets are their numbers; whose means are over the weights that the labels of a batch have; and
# whose targets are one-hot rows, which then get such weights from us.
_BY_NUMBER = {"CrossEntropyLoss", "NLLLoss", "FocalLoss", "KLDivLoss", "MultiMarginLoss", "DiceLoss"}
_OF_ROWS = {"MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss"}
_BY_WEIGHT = {"CrossEntropyLoss", "NLLLoss", "FocalLoss", "KLDivLoss", *_OF_ROWS}

# How outputs become probabilities, by the loss that a network was trained with; from others none follow.
_LINKED = {
    "softmax": {"CrossEntropyLoss", "NLLLoss", "FocalLoss", "KLDivLoss", "DiceLoss"},
    "sigmoid": {"BCEWithLogitsLoss"},
}
LINKS = {name: link for link, names in _LINKED.items() for name in names}
LABEL_LINKS = dict.fromkeys(("BCEWithLogitsLoss", "FocalLoss", "MultiLabelSoftMarginLoss"), "sigmoid")

_CLASSES = {"FocalLoss": FocalLoss, "HingeLoss": HingeLoss, "KLDivLoss": KLDivLoss, "DiceLoss": DiceLoss}
_LABELS = {"FocalLoss": LabelFocalLoss, "HingeLoss": HingeLoss, "MultiLabelMarginLoss": LabelMarginLoss}
_OURS: dict[Targets, dict[str, type[nn.Module]]] = {"classes": _CLASSES, "labels": _LABELS, "values": {}}
# What the user has no say in, as it follows from the problem.
_BY_US = {"BCELoss": ("weight",), "PoissonNLLLoss": ("log_input", "full", "eps")}


def loss_class(name: str, of: Targets = "classes") -> Any:
    """That of torch.nn, ours, or one of the user's own: of predictions and targets it makes the batch's mean loss.

    Of classes the targets are numbers (B,) int64. An attribute `link` may say what makes its outputs probabilities:
    softmax or sigmoid.
    """
    return _OURS[of].get(name) or own.resolve(name, nn)


def link_of(name: str, of: Targets = "classes") -> str | None:
    """What makes outputs probabilities, by the loss that trained for them, of several the first; none where none
    follow."""
    if own.is_path(name):
        link: str | None = getattr(loss_class(name), "link", None)
        return link
    return (LABEL_LINKS if of == "labels" else LINKS).get(name)


@cache
def loss_arguments(name: str, of: Targets = "classes") -> type[BaseModel]:
    """What a user may give to the loss; where it takes a tensor, that is a weight for each class.

    Weights are a list by the classes' numbers, a mapping by their names, or `balanced`; see `class_weights.weighted`.
    """
    if own.is_path(name):
        return arguments_of(loss_class(name), given_by_us=("reduction",))
    by_us = ("size_average", "reduce", "reduction", *_BY_US.get(name, ()))
    plain = arguments_of(loss_class(name, of), given_by_us=by_us)
    hints = {key: field.annotation for key, field in plain.model_fields.items()}
    tensors = [key for key, hint in hints.items() if Tensor in parts_of(hint)]
    tensors += ["weight"] if of == "classes" and name in _OF_ROWS else []
    kind = LabelWeights if of == "labels" else Weights
    chosen: dict[str, Any] = dict.fromkeys(tensors, (kind | None, None))
    if "label_smoothing" in plain.model_fields:  # torch takes less than 0 for 0, and with 1 nothing is learnt
        chosen["label_smoothing"] = (Fraction, 0.0)
    return create_model(plain.__name__, __base__=plain, **chosen)


def check_sum(config: LossConfig) -> None:
    """Raise ArgumentError unless the losses that are added go together: all probabilities are by the same link."""
    links = {each.key: link_of(each.name, config.of) for each in summands(config.name, config.arguments)}
    first, *more = links.values()
    for number, (part, link) in enumerate(zip(config.plus, more, strict=True)):
        if part.plus:
            raise ArgumentError.of(f"plus.{number}.plus", part.plus, "must be left out: all stands in one list")
        if first and link and link != first:
            must = f"must make probabilities as {config.name} does, by {first}, and not by {link}"
            raise ArgumentError.of(f"plus.{number}.name", part.name, must)


# ---- of values -----------------------------------------------------------------------------------------------------


def created_loss(name: str, arguments: dict[str, Any]) -> Loss:
    """The loss itself, of values; a user's own that fails, or gives no mean, is an InputError."""
    return added_up(name, arguments, value_loss)


def value_loss(part: Summand) -> Loss:
    """One alone."""
    return _moving(part, loss_class(part.name, "values"))


def _moving(part: Summand, kind: Callable[..., nn.Module], **more: Any) -> Loss:
    """The loss, which goes to where the predictions are."""
    with own.running(part.key, part.name):
        loss = kind(**part.arguments, **more)
    if not own.is_path(part.name):
        return lambda predictions, targets: loss.to(predictions.device)(predictions, targets)

    def checked(predictions: Tensor, targets: Tensor) -> Tensor:
        with own.running(part.key, part.name):
            mean: Tensor = loss.to(predictions.device)(predictions, targets)
            if not isinstance(mean, Tensor) or mean.numel() != 1:
                given = f"a tensor of {list(mean.shape)}" if isinstance(mean, Tensor) else type(mean).__name__
                raise InputError(
                    f"{part.key}: {part.name} gives {given}, and must give one number, the mean of the batch"
                )
            return mean

    return checked


# ---- of labels -----------------------------------------------------------------------------------------------------


def label_loss(name: str, arguments: dict[str, Any]) -> Loss:
    """A function of logits (B, labels) and marks (B, labels) float32 to the batch's mean loss."""
    return added_up(name, arguments, _label_loss)


def _label_loss(part: Summand) -> Loss:
    return _moving(_with_tensors(part), loss_class(part.name, "labels"))


def fooling_loss(name: str, arguments: dict[str, Any]) -> Loss:
    """What a generator minimises whose discriminator learns by this loss, of the scores (B,) of its images and of ones.

    It is the loss itself, where its class has no function `fooled` of the scores alone.
    """
    return added_up(name, arguments, _fooling_loss)


def _fooling_loss(part: Summand) -> Loss:
    fooled = getattr(loss_class(part.name, "labels"), "fooled", None)
    if not fooled:
        return _label_loss(part)

    def mean(scores: Tensor, _: Tensor) -> Tensor:
        with own.running(part.key, part.name):
            return fooled(scores)  # type: ignore[no-any-return]

    return mean


def _with_tensors(part: Summand) -> Summand:
    if own.is_path(part.name):
        return part
    tensors = {key: torch.tensor(value).float() for key, value in part.arguments.items() if isinstance(value, list)}
    return replace(part, arguments={**part.arguments, **tensors})


# ---- of classes ----------------------------------------------------------------------------------------------------


def scores(logits: Tensor, link: str | None) -> Tensor:
    """A classifier's answers (N, classes) on [0, 1]: probabilities or, without a link, nothing but an order."""
    if link is None:
        low, high = logits.aminmax()
        return (logits - low) / (high - low).clamp(min=1e-12)
    return logits.softmax(1) if link == "softmax" else logits.sigmoid()


def check_loss(name: str, arguments: dict[str, Any], of: Targets) -> None:
    """Raise ValueError when the loss, which is one alone, does not take `arguments`, or does not give a mean."""
    check_call(loss_arguments(name, of), arguments)
    part = Summand(name, arguments, 1.0, "train.loss")
    try:
        _TRIALS[of](part)
    except InputError as error:  # of one of the user's own
        raise ValueError(error.message) from error
    except (ValueError, TypeError, RuntimeError) as error:
        from_torch = not own.is_path(name) and name not in _OURS[of]
        raise ValueError(f"{'torch.nn.' if from_torch else ''}{name} says: {error}") from None


def _on_trial(part: Summand) -> tuple[Summand, int]:
    """A loss with arguments with which it can be tried out, and for how many classes."""
    lists = [len(given) for given in part.arguments.values() if isinstance(given, list)]
    unknown = {key: given for key, given in weights_in(part) if not isinstance(given, list)}
    named = [len(given) for given in unknown.values() if isinstance(given, dict)]
    count = lists[0] if lists else max([3, *named])
    return replace(part, arguments={**part.arguments, **dict.fromkeys(unknown, [1.0] * count)}), count


def _try_on_classes(part: Summand) -> None:
    tried, classes = _on_trial(part)
    _class_loss(tried)(torch.zeros(2, classes), torch.tensor([0, classes - 1]))


def _try_on_labels(part: Summand) -> None:
    tried, labels = _on_trial(part)
    _label_loss(tried)(torch.zeros(2, labels), torch.ones(2, labels))


def _try_on_values(part: Summand) -> None:
    value_loss(part)(torch.zeros(2, 3), torch.ones(2, 3))


_TRIALS: dict[Targets, Callable[[Summand], None]] = {
    "classes": _try_on_classes,
    "labels": _try_on_labels,
    "values": _try_on_values,
}


def classification_loss(name: str, arguments: dict[str, Any]) -> Loss:
    """A function of logits (B, classes) and labels to the batch's mean loss, in float32.

    Labels are classes (B,) int64, or shares of each class (B, classes) float32, for which see `check_soft_labels`.
    """
    return added_up(name, arguments, _class_loss)


def _class_loss(part: Summand, reduction: str = "mean") -> Loss:
    if own.is_path(part.name):
        mine = _moving(part, loss_class(part.name))
        return lambda logits, labels: mine(logits.float(), labels)
    if part.name in _OF_ROWS and "weight" in part.arguments:
        return _weighted_rows(part, reduction)
    loss = _moving(_with_tensors(part), loss_class(part.name), reduction=reduction)
    if part.name == "NLLLoss":  # which log-probabilities stay as they are
        return lambda logits, labels: loss(logits.float().log_softmax(1), labels)
    if part.name in _BY_NUMBER:
        return lambda logits, labels: loss(logits.float(), labels)
    return lambda logits, labels: loss(logits.float(), shares_of(labels, logits.shape[1]))


def _weighted_rows(part: Summand, reduction: str) -> Loss:
    """A loss of one-hot rows, its mean over the weights of the labels."""
    arguments = {**part.arguments}
    weight = torch.tensor(arguments.pop("weight")).float()
    each = _moving(replace(part, arguments=arguments), loss_class(part.name), reduction="none")

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        shares = shares_of(labels, logits.shape[1])
        weights = shares @ weight.to(logits.device)
        total = (each(logits.float(), shares).mean(1) * weights).sum()
        return total if reduction == "sum" else total / weights.sum()

    return loss


def check_soft_labels(name: str, arguments: dict[str, Any]) -> None:
    """Raise InputError when a loss needs one class per image, and so cannot learn from mixed ones."""
    for part in summands(name, arguments):
        tried, classes = _on_trial(part)
        try:
            _class_loss(tried)(torch.zeros(2, classes), torch.full((2, classes), 1 / classes))
        except (ValueError, TypeError, RuntimeError):
            given = f"{part.name} with {', '.join(part.arguments)}" if part.arguments else part.name
            raise InputError(
                f"{part.key}: {given} needs one class per image, but data.augment.mixup and cutmix give shares of "
                "several; leave them out, or take CrossEntropyLoss (without ignore_index) or a loss on one-hot labels"
            ) from None


Weighed = Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]


def weighed_loss(name: str, arguments: dict[str, Any], ignored: int | None = None) -> Weighed:
    """`classification_loss`, and as figures the weight of its mean, where that is not the number of samples.

    With weights of classes, or one to ignore, CrossEntropyLoss and its kin divide by the sum of the weights that a
    batch's labels have; here also where labels are shares. Processes that train together divide by what they have on
    average. Of several losses that are added up each has a mean of its own, see `torchloom.problems.base.sums_of`.
    Labels that are `ignored` are so by all of them.
    """
    losses = [(part.times, _weighed(part, ignored)) for part in summands(name, arguments)]

    def total(logits: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        found = [(times, *loss(logits, labels)) for times, loss in losses]
        sums = [mean * times for times, mean, _ in found]
        mean = sum(sums[1:], start=sums[0])
        if len(found) == 1 or not any(weight for *_, weight in found):
            return mean, found[0][2]
        every = logits.new_tensor(len(logits), dtype=torch.float32)
        weights = [weight.get(WEIGHT, every) for *_, weight in found]
        return mean, means_of_several([each.detach() for each in sums], weights)

    return total


def _weighed(part: Summand, ignored: int | None) -> Weighed:
    """One alone."""
    if ignored is None:
        return _by_weight(part)
    if own.is_path(part.name) or "ignore_index" not in loss_arguments(part.name).model_fields:
        plain = _by_weight(part)
        return lambda logits, labels: plain(logits[labels != ignored], labels[labels != ignored])
    also = part.arguments.get("ignore_index", ignored)
    loss = _by_weight(replace(part, arguments={**part.arguments, "ignore_index": ignored}))
    return lambda logits, labels: loss(logits, labels.masked_fill(labels == also, ignored))


def _by_weight(part: Summand) -> Weighed:
    loss = _class_loss(part)
    weights, ignore = part.arguments.get("weight"), part.arguments.get("ignore_index")
    if part.name not in _BY_WEIGHT or (weights is None and ignore is None):
        return lambda logits, labels: (loss(logits, labels), {})
    total = _class_loss(part, "sum")

    def weighed(logits: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        each = torch.ones(logits.shape[1]) if weights is None else torch.tensor(weights).float()
        each = each.to(logits.device)
        weight = (labels @ each if labels.ndim == 2 else _of_labels(each, labels, ignore)).sum()
        if torch.is_grad_enabled() and dist.is_available() and dist.is_initialized():
            dist.all_reduce(weight)
            weight /= dist.get_world_size()
        return total(logits, labels) / weight.clamp(min=TINY), {WEIGHT: weight}

    return weighed


def _of_labels(each: Tensor, labels: Tensor, ignored: int | None) -> Tensor:
    """Of each label (B,) int64 its weight; the one to ignore, which may be of no class, has none."""
    return each[labels.clamp(0, len(each) - 1)] * (labels != ignored)


def answer_by_answer(answers: Tensor, target: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    """What several networks in one answer in training, (B, members, …), a row for each, with the target of each.

    Answers of a single network have so many `dimensions`, and stay as they are.
    """
    if answers.ndim == dimensions:
        return answers, target
    return answers.flatten(0, 1), target.repeat_interleave(answers.shape[1], 0)


def accuracy(logits: Tensor, labels: Tensor, known: Tensor | None = None) -> Tensor:
    """The share of right decisions from logits (B, classes) and labels (B,), or shares of classes (B, classes).

    Only those count that are `known` (B,) bool, where that is given.
    """
    likeliest = labels if labels.ndim == 1 else labels.argmax(1)
    right = logits.argmax(1) == likeliest
    return right.float().mean() if known is None else (right & known).sum() / known.sum().clamp(min=1)
