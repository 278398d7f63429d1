"""Predictions on a split and what torchmetrics makes of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional import classification as tm

from torchloom.progress import step_bar


@torch.no_grad()
def predict(model: nn.Module, loader: Any) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) float32 and labels (N,) int64 of the whole loader, in order, on the CPU."""
    model.eval().to(memory_format=torch.channels_last)
    logits, labels = [], []
    with step_bar() as bar:
        task = bar.add_task("test", total=len(loader), status="")
        for images, truth in bar.track(loader, total=len(loader), task_id=task):
            logits.append(model(images).float())
            labels.append(truth)
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


def classification_metrics(
    logits: Tensor, labels: Tensor, classes: list[str]
) -> tuple[dict[str, Any], dict[str, Any], Tensor]:
    """All figures of a classifier from logits (N, C) and labels (N,).

    Returns flat metrics (fractions in [0, 1]; `loss` is the cross entropy in nats), a table by class, and the
    confusion matrix (C, C) of counts, true classes down. The calibration error is the expected one over 15 bins of
    confidence (Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015).
    """
    count = len(classes)
    probabilities = logits.softmax(1)
    macro: dict[str, Any] = {"num_classes": count, "average": "macro"}
    each: dict[str, Any] = {"num_classes": count, "average": None}
    metrics = {
        "accuracy": tm.multiclass_accuracy(logits, labels, count, average="micro"),
        "top5_accuracy": tm.multiclass_accuracy(logits, labels, count, average="micro", top_k=min(5, count)),
        "loss": F.cross_entropy(logits, labels),
        "macro_f1": tm.multiclass_f1_score(logits, labels, **macro),
        "macro_precision": tm.multiclass_precision(logits, labels, **macro),
        "macro_recall": tm.multiclass_recall(logits, labels, **macro),
        "calibration_error": tm.multiclass_calibration_error(probabilities, labels, count, n_bins=15),
    }
    columns = {
        "precision": tm.multiclass_precision(logits, labels, **each),
        "recall": tm.multiclass_recall(logits, labels, **each),
        "f1": tm.multiclass_f1_score(logits, labels, **each),
        "images": labels.bincount(minlength=count),
    }
    per_class = {
        name: {column: values[index].item() for column, values in columns.items()} for index, name in enumerate(classes)
    }
    confusion = tm.multiclass_confusion_matrix(logits, labels, count)
    return {name: float(value) for name, value in metrics.items()}, per_class, confusion
