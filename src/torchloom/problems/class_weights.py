"""Weights of classes, or of labels, among the arguments of a loss: lists, mappings by names, or balanced."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Discriminator, Field, Tag
from torch import Tensor

from torchloom.config import LossConfig, NotNegative, own
from torchloom.errors import InputError, printable
from torchloom.problems.summands import Summand, summands
from torchloom.system.words import counted, listed, meant

logger = logging.getLogger(__name__)

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


def _weights_of(least: int) -> Any:
    return Annotated[
        Annotated[list[NotNegative], Field(min_length=least), AfterValidator(_some), Tag("list")]
        | Annotated[dict[Any, NotNegative], Field(min_length=1), AfterValidator(_some), Tag("names")]
        | Annotated[Literal["balanced"], Tag("word")],
        Discriminator(_form),
    ]


LabelWeights, Weights = _weights_of(1), _weights_of(2)


def weights_in(part: Summand) -> Iterator[tuple[str, Any]]:
    """The arguments that are weights of classes; those of a user's own loss are the user's."""
    for key, given in {} if own.is_path(part.name) else part.arguments.items():
        if isinstance(given, list | dict) or given == BALANCED:
            yield key, given


def check_weights(name: str, arguments: dict[str, Any], classes: list[str], what: str = "classes") -> None:
    """Raise InputError unless lists of weights have one for each of the classes, and mappings name such."""
    for part in summands(name, arguments):
        for key, weights in weights_in(part):
            _check_weights(f"{part.key}.{key}", part.name, weights, classes, what)


def _check_weights(key: str, name: str, weights: Any, classes: list[str], what: str) -> None:
    shown = f"there are {len(classes)} {what}: {listed(list(map(repr, classes)))}"
    if isinstance(weights, list) and len(weights) != len(classes):
        raise InputError(f"{key}: {name} was given {counted(len(weights), 'weight')}, but {shown}")
    for given in weights if isinstance(weights, dict) else ():
        if _class_of(given, classes) is None:
            raise InputError(f"{key}: {given!r} is none of the {what}{meant(str(given), classes)}; {shown}")


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
    (n - count) / count. `targets` are the numbers of classes (N, …) of the samples that are trained on, or their marks
    (N, labels).
    """

    @cache
    def counts() -> tuple[Tensor, int]:
        found = targets()
        if loss.of == "labels":
            return found.double().sum(0), len(found)
        each = class_counts(found, classes)
        return each, int(each.sum())

    first, *more = (_by_number(part, classes, counts) for part in summands(loss.name, loss.arguments))
    plus = [part.model_copy(update=chosen) for part, chosen in zip(loss.plus, more, strict=True)]
    return loss.model_copy(update={**first, **({"plus": plus} if plus else {})})


def _by_number(
    part: Summand, classes: Sequence[str], counts: Callable[[], tuple[Tensor, int]]
) -> dict[str, list[float]]:
    """The weights that are not lists as such, and in the log."""
    chosen = {}
    for key, given in weights_in(part):
        if given == BALANCED:
            chosen[key] = _balanced(*counts(), key)
        elif isinstance(given, dict):
            by_number = {_class_of(name, classes): float(weight) for name, weight in given.items()}
            chosen[key] = [by_number.get(number, 1.0) for number in range(len(classes))]
    for key, weights in chosen.items():
        said = [f"{printable(name)} {weight:.4g}" for name, weight in zip(classes, weights, strict=True)]
        shown = ", ".join(said[:SHOWN]) + (", …" if len(said) > SHOWN else "")
        logger.info("%s.%s: %s", part.key, key, shown)
    return chosen


def _balanced(counts: Tensor, samples: int, key: str) -> list[float]:
    some = counts.clamp(min=1)  # a class of which `data.subset` has left none has no say
    weights = counts.sum() / (len(counts) * some)
    if key == "pos_weight":  # without either side there is nothing to balance
        weights = torch.where((counts > 0) & (counts < samples), (samples - counts) / some, 1.0)
    found: list[float] = weights.tolist()
    return found


def by_name(loss: tuple[str, dict[str, Any]], classes: Sequence[str] = ()) -> dict[str, Any]:
    """What metadata say of a loss, by its name and arguments: its weights by the names of the classes."""
    first, *more = (_as_block(part, classes) for part in summands(*loss))
    return {**first, **({"plus": more} if more else {})}


def _as_block(part: Summand, classes: Sequence[str]) -> dict[str, Any]:
    weights = {key: dict(zip(classes, given, strict=True)) for key, given in weights_in(part)}
    times = {} if part.times == 1 else {"times": part.times}
    return {"name": part.name, **part.arguments, **weights, **times}
