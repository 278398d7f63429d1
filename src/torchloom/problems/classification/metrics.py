"""How well classes are told apart, from logits (N, classes) and labels (N,)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchloom.problems.losses import scores

BINS = 15  # of confidence, equally wide


def classification_metrics(
    logits: Tensor,
    labels: Tensor,
    classes: list[str],
    link: str | None = "softmax",
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> tuple[dict[str, Any], dict[str, Any], Tensor]:
    """All figures of a classifier from logits (N, C) and labels (N,), in memory that grows with N C and not with C².

    Returns flat metrics (fractions in [0, 1]; `loss` is what the model was trained with), a table by class, and the
    confusion matrix (C, C) of counts, true classes down, sparse. Macro means are over the classes that come up among
    labels or answers. The calibration error, of what has probabilities by its `link`, is the expected one over BINS
    bins of confidence (Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015).
    `roc_auc` is the mean over the classes that some, but not all labels are of; without any it is left out.
    """
    predicted = logits.argmax(1)
    table = _by_class(labels, predicted, len(classes))
    known = table["samples"] + predicted.bincount(minlength=len(classes)) > 0
    metrics: dict[str, Any] = {
        "accuracy": (predicted == labels).double().mean(),
        "loss": loss(logits, labels),
        **{f"macro_{name}": table[name][known].mean() for name in ("f1", "precision", "recall")},
    }
    if len(classes) > 5:  # of fewer all are among the five likeliest
        metrics["top5_accuracy"] = (logits.topk(5).indices == labels.unsqueeze(1)).any(1).double().mean()
    if link:
        metrics["calibration_error"] = _calibration_error(reliability(logits, labels, link))
    areas = _areas(scores(logits, link), labels, table["samples"])
    if areas:
        metrics["roc_auc"] = sum(areas) / len(areas)
    rows = zip(*(values.tolist() for values in table.values()), strict=True)
    per_class = {name: dict(zip(table, row, strict=True)) for name, row in zip(classes, rows, strict=True)}
    pairs, size = torch.stack([labels, predicted]), (len(classes), len(classes))
    confusion = torch.sparse_coo_tensor(pairs, torch.ones_like(labels), size, check_invariants=True).coalesce()
    return {name: float(value) for name, value in metrics.items()}, per_class, confusion


def _by_class(labels: Tensor, predicted: Tensor, count: int) -> dict[str, Tensor]:
    """Precision, recall, F1 and samples of each class, (C,), from class numbers (N,); 0 where there is nothing."""
    samples, found, right = (
        numbers.bincount(minlength=count) for numbers in (labels, predicted, labels[predicted == labels])
    )
    return {
        "precision": (right.double() / found).nan_to_num(),
        "recall": (right.double() / samples).nan_to_num(),
        "f1": (2 * right.double() / (found + samples)).nan_to_num(),
        "samples": samples,
    }


def _calibration_error(bins: list[dict[str, float]]) -> float:
    gaps = [row["samples"] * abs(row["accuracy"] - row["confidence"]) for row in bins]
    return sum(gaps) / sum(row["samples"] for row in bins)


def _areas(values: Tensor, labels: Tensor, samples: Tensor) -> list[float]:
    """The areas below the ROC curves of the classes that some of (N,) labels are of, and others not.

    Each is the share of pairs, one of the class and one of the rest, that (N, C) values put in the right order, equals
    counting half (Hanley & McNeil, Radiology 143, 1982). Libraries keep the curves of all classes, 3 N C numbers.
    """
    areas = []
    for index in ((samples > 0) & (samples < len(labels))).nonzero().flatten().tolist():
        ordered, own = values[:, index].sort().values, values[labels == index, index]
        below = torch.searchsorted(ordered, own) + torch.searchsorted(ordered, own, right=True)  # twice, for equals
        in_order = below.sum().item() / 2 - len(own) ** 2 / 2  # without the pairs of its own
        areas.append(in_order / (len(own) * (len(labels) - len(own))))
    return areas


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


def most_confident(logits: Tensor, labels: Tensor, right: bool, link: str | None = "softmax") -> Tensor:
    """The numbers (M,) of the samples that are answered right, or wrong, the most confident first."""
    confidence, predicted = scores(logits, link).max(1)
    chosen = ((predicted == labels) == right).nonzero().flatten()
    return chosen[confidence[chosen].argsort(descending=True, stable=True)]


def worst_mistakes(
    logits: Tensor, labels: Tensor, classes: list[str], count: int = 100, link: str | None = "softmax"
) -> list[dict[str, Any]]:
    """The wrong answers, most confident first, at most `count`: a table with the sample's number in the test split.

    Without a `link` it has no probabilities.
    """
    answers = scores(logits, link)
    confidence, predicted = answers.max(1)
    table: list[dict[str, Any]] = []
    for index in most_confident(logits, labels, right=False, link=link)[:count].tolist():
        row = {"test_sample": index, "true": classes[labels[index]], "predicted": classes[predicted[index]]}
        probabilities = {"confidence": confidence[index], "probability_of_true": answers[index, labels[index]]}
        shown = {name: round(value.item(), 4) for name, value in probabilities.items()} if link else {}
        table.append({**row, **shown})
    return table


def verdicts(labels: Tensor, logits: Tensor, classes: list[str], link: str | None) -> list[tuple[str, bool]]:
    """What to write beside each sample, and whether the model is right; without a `link` it has no probability."""
    confidences, predicted = scores(logits, link).max(1)
    written = []
    for label, guess, confidence in zip(labels.tolist(), predicted.tolist(), confidences.tolist(), strict=True):
        title = f"{classes[guess]} {confidence:.0%}" if link else classes[guess]
        written.append((title, True) if guess == label else (f"✗ {title}\nis {classes[label]}", False))
    return written
