"""How well classes are told apart, from logits (N, classes) and labels (N,)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchloom.problems.losses import scores

BINS = 15  # of confidence, equally wide
Threshold = tuple[int, float] | None  # of two classes, the number of one and from which probability on it is the answer


def answered(logits: Tensor, link: str | None, threshold: Threshold = None) -> tuple[Tensor, Tensor]:
    """The probability (N,) of the class that is the answer, and its number (N,), from logits (N, classes)."""
    values, predicted = scores(logits, link), logits.argmax(1)
    if threshold:
        number, least = threshold
        predicted = torch.where(values[:, number] >= least, number, 1 - number)
    return values.gather(1, predicted[:, None]).squeeze(1), predicted


def best_threshold(probabilities: Tensor, true: Tensor, metric: str) -> tuple[float, float]:
    """The least probability from which on a class is best answered, and the metric there, f1 or balanced_accuracy.

    From probabilities (N,) of the class, and whether it is true (N,); both must come up. It lies half way between two
    that were given, so that no rounding decides.
    """
    from sklearn.metrics import roc_curve

    alarms, recall, steps = roc_curve(true.numpy(), probabilities.double().numpy(), drop_intermediate=False)
    found, rest = int(true.sum()) * recall, int((~true).sum()) * alarms
    f1 = 2 * found / (found + rest + int(true.sum()))
    values = (f1 if metric == "f1" else (recall + 1 - alarms) / 2)[1:]  # at first nothing is the class
    best = int(values.argmax())
    high, low = [*steps[1:], 0.0][best : best + 2]
    return float(min(max((high + low) / 2, 1e-6), 1 - 1e-6)), float(values[best])


def classification_metrics(
    logits: Tensor,
    labels: Tensor,
    classes: list[str],
    link: str | None = "softmax",
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    threshold: Threshold = None,
) -> tuple[dict[str, Any], dict[str, Any], Tensor]:
    """All figures of a classifier from logits (N, C) and labels (N,), in memory that grows with N C and not with C².

    Returns flat metrics (fractions in [0, 1]; `loss` is what the model was trained with), a table by class, and the
    confusion matrix (C, C) of counts, true classes down, sparse. Macro means are over the classes that come up among
    labels or answers. The calibration error, of what has probabilities by its `link`, is the expected one over BINS
    bins of confidence (Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015).
    `roc_auc` and `average_precision` are means over the classes that some, but not all labels are of; without any they
    are left out. `accuracy_of_the_commonest` is that of always answering the class that most labels are of.
    """
    _, predicted = answered(logits, link, threshold)
    table = _by_class(labels, predicted, len(classes))
    metrics: dict[str, Any] = {
        "accuracy": (predicted == labels).double().mean(),
        "loss": loss(logits, labels),
        **{f"macro_{name}": _macro(table, name) for name in ("f1", "precision", "recall")},
        "balanced_accuracy": _balanced_accuracy(table),
        "accuracy_of_the_commonest": table["samples"].max().double() / len(labels),
    }
    if len(classes) > 5:  # of fewer all are among the five likeliest
        metrics["top5_accuracy"] = (logits.topk(5).indices == labels.unsqueeze(1)).any(1).double().mean()
    if link:
        metrics["calibration_error"] = _calibration_error(reliability(logits, labels, link))
    metrics |= _ranked(scores(logits, link), labels, table["samples"])
    del table["answers"]
    rows = zip(*(values.tolist() for values in table.values()), strict=True)
    per_class = {name: dict(zip(table, row, strict=True)) for name, row in zip(classes, rows, strict=True)}
    pairs, size = torch.stack([labels, predicted]), (len(classes), len(classes))
    confusion = torch.sparse_coo_tensor(pairs, torch.ones_like(labels), size, check_invariants=True).coalesce()
    return {name: float(value) for name, value in metrics.items()}, per_class, confusion


def validation_figures(monitor: str, link: str | None, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Figures of `classification_metrics` from logits (N, C) and labels (N,): two that say how the rare classes fare.

    And the one that is monitored, where it is another.
    """
    table = _by_class(labels, logits.argmax(1), logits.shape[1])
    found = {"macro_f1": _macro(table, "f1"), "balanced_accuracy": _balanced_accuracy(table)}
    if monitor.startswith("macro_"):
        found[monitor] = _macro(table, monitor.removeprefix("macro_"))
    if monitor in {"roc_auc", "average_precision"}:
        found[monitor] = _ranked(scores(logits, link), labels, table["samples"])[monitor]
    return found


def _macro(table: dict[str, Tensor], name: str) -> float:
    """The mean over the classes that come up among labels or answers."""
    return float(table[name][table["samples"] + table["answers"] > 0].mean())


def _balanced_accuracy(table: dict[str, Tensor]) -> float:
    """The mean recall of the classes that come up among labels (Brodersen et al., ICPR 2010)."""
    return float(table["recall"][table["samples"] > 0].mean())


def _by_class(labels: Tensor, predicted: Tensor, count: int) -> dict[str, Tensor]:
    """Precision, recall, F1, samples and answers of each class, (C,), from class numbers (N,); 0 for nothing."""
    samples, found, right = (
        numbers.bincount(minlength=count) for numbers in (labels, predicted, labels[predicted == labels])
    )
    return {
        "precision": (right.double() / found).nan_to_num(),
        "recall": (right.double() / samples).nan_to_num(),
        "f1": (2 * right.double() / (found + samples)).nan_to_num(),
        "samples": samples,
        "answers": found,
    }


def _calibration_error(bins: list[dict[str, float]]) -> float:
    gaps = [row["samples"] * abs(row["accuracy"] - row["confidence"]) for row in bins]
    return sum(gaps) / sum(row["samples"] for row in bins)


def _ranked(values: Tensor, labels: Tensor, samples: Tensor) -> dict[str, float]:
    """Means over the classes that some of (N,) labels are of, and others not; nothing where there are none.

    The area below the ROC curve is the share of pairs, one of the class and one of the rest, that (N, C) values put in
    the right order, equals counting half (Hanley & McNeil, Radiology 143, 1982). The average precision is the mean,
    over the samples of the class, of its share in all that have no lower value. Libraries keep the curves of all
    classes, 3 N C numbers.
    """
    areas, precisions = [], []
    for index in ((samples > 0) & (samples < len(labels))).nonzero().flatten().tolist():
        ordered, own = values[:, index].sort().values, values[labels == index, index].sort().values
        below = torch.searchsorted(ordered, own) + torch.searchsorted(ordered, own, right=True)  # twice, for equals
        in_order = below.sum().item() / 2 - len(own) ** 2 / 2  # without the pairs of its own
        areas.append(in_order / (len(own) * (len(labels) - len(own))))
        right, found = (len(some) - torch.searchsorted(some, own) for some in (own, ordered))
        precisions.append((right / found).double().mean().item())
    means = {"roc_auc": areas, "average_precision": precisions}
    return {name: sum(parts) / len(parts) for name, parts in means.items() if parts}


def hardest(per_class: dict[str, dict[str, float]], most: int = 20) -> list[str]:
    """The names of all classes; of more than `most` those with the lowest F1 among the ones that have samples."""
    if len(per_class) <= most:
        return list(per_class)
    known = [name for name, row in per_class.items() if row["samples"]]
    return sorted(known, key=lambda name: per_class[name]["f1"])[:most]


def reliability(logits: Tensor, labels: Tensor, link: str = "softmax", bins: int = BINS) -> list[dict[str, float]]:
    """How often answers are right, by how confident they are: a row for each bin of confidence that has samples.

    `low` and `high` are the bin's ends, `confidence` and `accuracy` the means over its samples, all in [0, 1]. The
    calibration error is the mean of |accuracy - confidence| over all samples.
    """
    confidence, predicted = scores(logits, link).max(1)
    right = (predicted == labels).float()
    place = torch.bucketize(confidence, torch.linspace(0, 1, bins + 1), right=True).sub(1).clamp(max=bins - 1)
    return [
        {
            "low": index / bins,
            "high": (index + 1) / bins,
            "samples": int(inside.sum()),
            "confidence": confidence[inside].mean().item(),
            "accuracy": right[inside].mean().item(),
        }
        for index in range(bins)
        if (inside := place == index).any()
    ]


def most_confident(
    logits: Tensor, labels: Tensor, right: bool, link: str | None = "softmax", threshold: Threshold = None
) -> Tensor:
    """The numbers (M,) of the samples that are answered right, or wrong, the most confident first."""
    confidence, predicted = answered(logits, link, threshold)
    chosen = ((predicted == labels) == right).nonzero().flatten()
    return chosen[confidence[chosen].argsort(descending=True, stable=True)]


def worst_mistakes(
    logits: Tensor,
    labels: Tensor,
    classes: list[str],
    count: int = 100,
    link: str | None = "softmax",
    threshold: Threshold = None,
) -> list[dict[str, Any]]:
    """The wrong answers, most confident first, at most `count`: a table with the sample's number in the test split.

    Without a `link` it has no probabilities.
    """
    answers, (confidence, predicted) = scores(logits, link), answered(logits, link, threshold)
    table: list[dict[str, Any]] = []
    for index in most_confident(logits, labels, False, link, threshold)[:count].tolist():
        row = {"test_sample": index, "true": classes[labels[index]], "predicted": classes[predicted[index]]}
        probabilities = {"confidence": confidence[index], "probability_of_true": answers[index, labels[index]]}
        shown = {name: round(value.item(), 4) for name, value in probabilities.items()} if link else {}
        table.append({**row, **shown})
    return table


def verdicts(
    labels: Tensor, logits: Tensor, classes: list[str], link: str | None, threshold: Threshold = None
) -> list[tuple[str, bool]]:
    """What to write beside each sample, and whether the model is right; without a `link` it has no probability."""
    confidences, predicted = answered(logits, link, threshold)
    written = []
    for label, guess, confidence in zip(labels.tolist(), predicted.tolist(), confidences.tolist(), strict=True):
        title = f"{classes[guess]} {confidence:.0%}" if link else classes[guess]
        written.append((title, True) if guess == label else (f"✗ {title}\nis {classes[label]}", False))
    return written
