"""Losses by the names of torch.nn, one of ours, or a user's own; those on classes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import AfterValidator, BaseModel, Discriminator, Field, Tag, create_model
from torch import Tensor, nn

from torchloom.config import LossConfig, NotNegative, own
from torchloom.config.checks import arguments_of, check_call, parts_of
from torchloom.errors import InputError, printable
from torchloom.problems.base import WEIGHT
from torchloom.system.words import listed, meant

logger = logging.getLogger(__name__)

_ON_CLASSES = {"CrossEntropyLoss", "FocalLoss", "MultiMarginLoss"}  # targets are class numbers
TINY = torch.finfo(torch.float32).tiny  # in place of the weight of a batch with nothing to learn
_BY_WEIGHT = {"CrossEntropyLoss", "FocalLoss"}  # means are over the weights that the labels of a batch have

# How a classifier's outputs become probabilities, by the loss that trained it; from others none follow.
LINKS = {"CrossEntropyLoss": "softmax", "FocalLoss": "softmax", "BCEWithLogitsLoss": "sigmoid"}


class FocalLoss(nn.Module):
    """-w (1 - p)^gamma log p, where p is what softmax gives the true class, and w the weight of that class.

    What is told well already counts less: Lin et al., "Focal loss for dense object detection" (ICCV 2017,
    arXiv:1708.02002). With gamma 0 it is torch's CrossEntropyLoss; as there, the mean is over the labels' weights.
    """

    weight: Tensor | None

    def __init__(
        self,
        gamma: NotNegative = 2.0,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.gamma, self.ignored, self.reduction = gamma, ignore_index, reduction
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, classes), and labels (B,) int64 or shares of classes (B, classes) -> the mean or the sum ()."""
        logarithms = logits.log_softmax(1)
        weights = _shares(labels, logits.shape[1], self.ignored)
        if self.weight is not None:
            weights = weights * self.weight
        missed = -torch.expm1(logarithms).clamp(max=-1e-12)  # 1 - p; a power below 1 has no slope at 0
        total = -(weights * missed**self.gamma * logarithms).sum()
        return total if self.reduction == "sum" else total / weights.sum()


class HingeLoss(nn.Module):
    """max(0, 1 - s) of scores (B,) whose target is above 1/2, and max(0, 1 + s) of the others.

    It is the discriminator's of Lim & Ye, "Geometric GAN" (arXiv:1705.02894).
    """

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        return (1 - torch.where(targets > 0.5, scores, -scores)).relu().mean()


_OURS: dict[str, Any] = {"FocalLoss": FocalLoss, "HingeLoss": HingeLoss}


def loss_class(name: str) -> Any:
    """That of torch.nn, ours, or one of the user's own: of predictions and targets it makes the batch's mean loss.

    Of classes the targets are numbers (B,) int64. An attribute `link` may say what makes its outputs probabilities:
    softmax or sigmoid.
    """
    return _OURS.get(name) or own.resolve(name, nn)


def created_loss(name: str, arguments: dict[str, Any]) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss itself; a user's own that fails, or gives no mean, is an InputError."""
    with own.running("train.loss", name):
        loss = loss_class(name)(**arguments)
    if not own.is_path(name):
        return lambda predictions, targets: loss.to(predictions.device)(predictions, targets)

    def checked(predictions: Tensor, targets: Tensor) -> Tensor:
        with own.running("train.loss", name):
            mean: Tensor = loss.to(predictions.device)(predictions, targets)
            if not isinstance(mean, Tensor) or mean.numel() != 1:
                given = f"a tensor of {list(mean.shape)}" if isinstance(mean, Tensor) else type(mean).__name__
                raise InputError(f"train.loss: {name} gives {given}, and must give one number, the mean of the batch")
            return mean

    return checked


def link_of(name: str) -> str | None:
    """What makes a classifier's outputs probabilities, by the loss that trained it; nothing where none follow."""
    if own.is_path(name):
        link: str | None = getattr(loss_class(name), "link", None)
        return link
    return LINKS.get(name)


# ---- weights of classes -------------------------------------------------------------------------------------------

BALANCED = "balanced"
SHOWN = 20  # classes in a line of the log
# YAML reads these as truth values, though they may be names of classes.
_TRUTHS = {**dict.fromkeys(("yes", "on", "true"), True), **dict.fromkeys(("no", "off", "false"), False)}


def _some(weights: Any) -> Any:
    if not any(weights.values() if isinstance(weights, dict) else weights):
        raise ValueError("must have a weight above 0")
    return weights


def _form(weights: Any) -> str:
    return "names" if isinstance(weights, dict) else "word" if isinstance(weights, str) else "list"


Weights = Annotated[
    Annotated[list[NotNegative], Field(min_length=2), AfterValidator(_some), Tag("list")]
    | Annotated[dict[Any, NotNegative], Field(min_length=1), AfterValidator(_some), Tag("names")]
    | Annotated[Literal["balanced"], Tag("word")],
    Discriminator(_form),
]


@cache
def loss_arguments(name: str) -> type[BaseModel]:
    """What a user may give to the loss; where it takes a tensor, that is a weight for each class.

    Weights are a list by the classes' numbers, a mapping by their names, or `balanced`; see `weighted`.
    """
    if own.is_path(name):
        return arguments_of(loss_class(name), given_by_us=("reduction",))
    by_us = ("size_average", "reduce", "reduction", *(("weight",) if name == "BCELoss" else ()))  # it has no classes
    plain = arguments_of(loss_class(name), given_by_us=by_us)
    hints = {key: field.annotation for key, field in plain.model_fields.items()}
    weights: dict[str, Any] = {key: (Weights | None, None) for key, hint in hints.items() if Tensor in parts_of(hint)}
    return create_model(plain.__name__, __base__=plain, **weights)


def _weights(name: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The arguments that are weights of classes; those of a user's own loss are the user's."""
    for key, given in {} if own.is_path(name) else arguments.items():
        if isinstance(given, list | dict) or given == BALANCED:
            yield key, given


def check_weights(name: str, arguments: dict[str, Any], classes: list[str], what: str = "classes") -> None:
    """Raise InputError unless lists of weights have one for each of the classes, and mappings name such."""
    shown = f"there are {len(classes)} {what}: {listed(list(map(repr, classes)))}"
    for key, weights in _weights(name, arguments):
        if isinstance(weights, list) and len(weights) != len(classes):
            raise InputError(f"train.loss.{key}: {name} was given {len(weights)} weights, but {shown}")
        for given in weights if isinstance(weights, dict) else ():
            if _class_of(given, classes) is None:
                raise InputError(
                    f"train.loss.{key}: {given!r} is none of the {what}{meant(str(given), classes)}; {shown}"
                )


def _class_of(key: Any, classes: Sequence[str]) -> int | None:
    """The number of the class of that name, which YAML may have read as a number or a truth value."""
    if str(key) in classes:
        return classes.index(str(key))
    meant = _TRUTHS.get(str(key).lower())
    alike = [number for number, name in enumerate(classes) if _TRUTHS.get(name.lower()) == meant]
    return alike[0] if meant is not None and len(alike) == 1 else None


def class_counts(targets: Tensor, classes: Sequence[str]) -> Tensor:
    """How often each class comes up, (classes,) float64, among the numbers of classes (N, …), but for IGNORED."""
    count = len(classes)
    parts = (part.flatten().long().bincount(minlength=count)[:count] for part in targets.split(1000))  # type: ignore[no-untyped-call]
    return sum(parts, start=torch.zeros(len(classes), dtype=torch.int64)).double()


def weighted(loss: LossConfig, classes: Sequence[str], targets: Callable[[], Tensor]) -> LossConfig:
    """The loss with its weights as lists by the classes' numbers; what they are is in the log.

    Classes that a mapping leaves out weigh 1. `balanced` gives each class the same weight in all, n / (classes * count)
    (King & Zeng, Political Analysis 9, 2001), and as pos_weight, which is that of a class against the rest,
    (n - count) / count. `targets` are the numbers of classes (N, …) of the samples that are trained on.
    """
    chosen = {}
    for key, given in _weights(loss.name, loss.arguments):
        if given == BALANCED:
            chosen[key] = _balanced(class_counts(targets(), classes), key)
        elif isinstance(given, dict):
            by_number = {_class_of(name, classes): float(weight) for name, weight in given.items()}
            chosen[key] = [by_number.get(number, 1.0) for number in range(len(classes))]
    for key, weights in chosen.items():
        said = [f"{printable(name)} {weight:.4g}" for name, weight in zip(classes, weights, strict=True)]
        logger.info("train.loss.%s: %s", key, ", ".join(said[:SHOWN]) + (", …" if len(said) > SHOWN else ""))
    return loss.model_copy(update=chosen)


def _balanced(counts: Tensor, key: str) -> list[float]:
    some = counts.clamp(min=1)  # a class of which `data.subset` has left none has no say
    weights = (counts.sum() - counts) / some if key == "pos_weight" else counts.sum() / (len(counts) * some)
    found: list[float] = weights.tolist()
    return found


def by_name(loss: tuple[str, dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """What metadata say of a loss, by its name and arguments: its weights by the names of the classes."""
    name, arguments = loss
    weights = {key: dict(zip(classes, given, strict=True)) for key, given in _weights(name, arguments)}
    return {"name": name, **arguments, **weights}


def _on_trial(name: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Arguments with which a loss can be tried out, and for how many classes."""
    lists = [len(given) for given in arguments.values() if isinstance(given, list)]
    unknown = {key: given for key, given in _weights(name, arguments) if not isinstance(given, list)}
    named = [len(given) for given in unknown.values() if isinstance(given, dict)]
    count = lists[0] if lists else max([3, *named])
    return {**arguments, **dict.fromkeys(unknown, [1.0] * count)}, count


# ---- the losses ----------------------------------------------------------------------------------------------------


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
            tried, classes = _on_trial(name, arguments)
            classification_loss(name, tried)(torch.zeros(2, classes), torch.tensor([0, classes - 1]))
        else:
            created_loss(name, arguments)(torch.zeros(2, 3), torch.ones(2, 3))
    except InputError as error:  # of one of the user's own
        raise ValueError(error.message) from error
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{'' if own.is_path(name) or name in _OURS else 'torch.nn.'}{name} says: {error}") from None


def classification_loss(
    name: str, arguments: dict[str, Any], reduction: str = "mean"
) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of logits (B, classes) and labels to the batch's mean loss, in float32.

    Labels are classes (B,) int64, or shares of each class (B, classes) float32, for which see `check_soft_labels`.
    """
    if own.is_path(name):
        mine = created_loss(name, arguments)
        return lambda logits, labels: mine(logits.float(), labels)
    weights = {key: torch.tensor(value).float() for key, value in arguments.items() if isinstance(value, list)}
    loss = loss_class(name)(**{**arguments, **weights}, reduction=reduction)
    if name in _ON_CLASSES:
        return lambda logits, labels: loss.to(logits.device)(logits.float(), labels)
    return lambda logits, labels: loss.to(logits.device)(logits.float(), _shares(labels, logits.shape[1]))


def _shares(labels: Tensor, classes: int, ignored: int = -100) -> Tensor:
    if labels.ndim > 1:
        return labels
    return F.one_hot(labels.where(labels != ignored, 0), classes).float() * (labels != ignored)[:, None]


def check_soft_labels(name: str, arguments: dict[str, Any]) -> None:
    """Raise InputError when the loss needs one class per image, and so cannot learn from mixed ones."""
    tried, classes = _on_trial(name, arguments)
    try:
        classification_loss(name, tried)(torch.zeros(2, classes), torch.full((2, classes), 1 / classes))
    except (ValueError, TypeError, RuntimeError):
        given = f"{name} with {', '.join(arguments)}" if arguments else name
        raise InputError(
            f"train.loss: {given} needs one class per image, but data.augment.mixup and cutmix give shares of several; "
            "leave them out, or take CrossEntropyLoss (without ignore_index) or a loss on one-hot labels"
        ) from None


def weighed_loss(name: str, arguments: dict[str, Any]) -> Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]:
    """`classification_loss`, and as a figure the weight of its mean, where that is not the number of samples.

    With weights of classes, or one to ignore, CrossEntropyLoss and FocalLoss divide by the sum of the weights that a
    batch's labels have; here also where labels are shares. Processes that train together divide by what they have on
    average.
    """
    loss = classification_loss(name, arguments)
    weights, ignored = arguments.get("weight"), arguments.get("ignore_index")
    if name not in _BY_WEIGHT or (weights is None and ignored is None):
        return lambda logits, labels: (loss(logits, labels), {})
    total = classification_loss(name, arguments, "sum")

    def weighed(logits: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        each = torch.ones(logits.shape[1]) if weights is None else torch.tensor(weights).float()
        each = each.to(logits.device)
        weight = (labels @ each if labels.ndim == 2 else _of_labels(each, labels, ignored)).sum()
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
