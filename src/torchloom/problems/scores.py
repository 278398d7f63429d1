"""Figures of answers beside the truth, from arrays: for `evaluate`, and for `predict`, which does without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def class_scores(truth: Sequence[str], found: Sequence[str]) -> dict[str, float]:
    """Of N classes each; the macro F1 is over the classes that come up in either."""
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": float(accuracy_score(truth, found)),
        "macro_f1": float(f1_score(truth, found, average="macro", zero_division=0)),
    }


def forecast_scores(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Mean squared and absolute errors of (N, horizon, columns) on the scale of each column; NaN is not judged.

    They are means over the steps and columns of those over the samples, as in `evaluate`.
    """
    off = found - truth
    off = off[:, ~np.isnan(off).all(0)].astype(np.float64)
    return {
        "mse": float(np.nanmean(np.square(off), axis=0).mean()),
        "mae": float(np.nanmean(np.abs(off), axis=0).mean()),
    }


def pixel_scores(counts: np.ndarray) -> dict[str, float]:
    """Of a confusion matrix (C, C) of pixels, true classes down; the means are over the classes that come up."""
    both, true, found = counts.diagonal().astype(float), counts.sum(1), counts.sum(0)
    known = true + found > 0
    both, true, found = both[known], true[known], found[known]
    return {
        "accuracy": float(both.sum() / true.sum()),
        "mean_iou": float((both / (true + found - both)).mean()),
        "mean_dice": float((2 * both / (true + found)).mean()),
    }


def number_scores(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """R², and errors in the numbers' unit, of (N,) float64."""
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    return {
        "r2": float(r2_score(truth, found)) if len(truth) > 1 else float(bool((truth == found).all())),
        "rmse": float(root_mean_squared_error(truth, found)),
        "mae": float(mean_absolute_error(truth, found)),
    }


def numbers_scores(truth: np.ndarray, found: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Those of each column of (N, K) by its name, and before them the means; of a single one only its own."""
    each = [number_scores(one, other) for one, other in zip(truth.T, found.T, strict=True)]
    if len(each) == 1:
        return each[0]
    means = {key: float(np.mean([scores[key] for scores in each])) for key in each[0]}
    own = {f"{key}_{name}": scores[key] for name, scores in zip(names, each, strict=True) for key in scores}
    return {**means, **own}


def label_scores(
    truth: np.ndarray, probabilities: np.ndarray, thresholds: Sequence[float]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Of (N, K) marks, 1 where a label holds, and its probability, which it holds from its threshold on.

    Returns flat figures, and a row for each label. `subset_accuracy` is the share of samples of which all labels are
    right. The macro F1 is over the labels that come up in marks or answers, the mean average precision over those that
    hold of some sample, and `roc_auc` over those that hold of some and not of others; without any they are left out.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth, found = truth.astype(bool), probabilities >= np.asarray(thresholds, dtype=probabilities.dtype)
    right, there, said = (truth & found).sum(0), truth.sum(0), found.sum(0)
    precision, recall = right / np.maximum(said, 1), right / np.maximum(there, 1)
    f1 = 2 * right / np.maximum(there + said, 1)
    pairs = list(zip(truth.T, probabilities.T, strict=True))
    average = np.array([average_precision_score(*pair) if pair[0].any() else 0.0 for pair in pairs])
    areas = [roc_auc_score(*pair) for pair in pairs if 0 < pair[0].sum() < len(truth)]
    scores = {"subset_accuracy": float((truth == found).all(1).mean())}
    if (up := there + said > 0).any():
        scores |= {"macro_f1": float(f1[up].mean()), "micro_f1": float(2 * right.sum() / (there + said).sum())}
    if there.any():
        scores["mean_average_precision"] = float(average[there > 0].mean())
    if areas:
        scores["roc_auc"] = float(np.mean(areas))
    columns = {"precision": precision, "recall": recall, "f1": f1, "average_precision": average}
    columns |= {"threshold": np.asarray(thresholds, dtype=float), "samples": there}
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return scores, [dict(zip(columns, row, strict=True)) for row in rows]


def best_thresholds(truth: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """For each label that from which on it has the greatest F1, between two of its (N, K) probabilities.

    Of a label that holds of no sample it is a half.
    """
    pairs = zip(truth.astype(bool).T, probabilities.T, strict=True)
    return [_best(*pair) if pair[0].any() else 0.5 for pair in pairs]


def _best(truth: np.ndarray, probabilities: np.ndarray) -> float:
    order = np.argsort(-probabilities, kind="stable")
    sorted_ones = probabilities[order].astype(float)
    last = np.append(sorted_ones[:-1] > sorted_ones[1:], True)  # of those that are equal
    f1 = 2 * truth[order].cumsum() / (np.arange(1, len(truth) + 1) + truth.sum())
    place = int(np.argmax(np.where(last, f1, -1)))
    below = sorted_ones[place + 1] if place + 1 < len(truth) else 0.0
    return float((sorted_ones[place] + below) / 2)


def text_scores(truth: Sequence[str], found: Sequence[str]) -> dict[str, float]:
    """Of N texts each: the share of those that are right to the letter, and how many letters must be put in, taken out
    or changed for all to be, over all letters of the truth (character error rate)."""
    wrong = sum(edit_distance(one, other) for one, other in zip(found, truth, strict=True))
    return {
        "exact_match": float(np.mean([one == other for one, other in zip(found, truth, strict=True)])),
        "character_error_rate": wrong / max(1, sum(map(len, truth))),
    }


def edit_distance(one: str, other: str) -> int:
    """How many characters must be put in, taken out or changed to make one text of the other (Levenshtein 1966)."""
    letters, places = np.array(list(map(ord, other)), dtype=np.int64), np.arange(len(other) + 1)
    row = places
    for number, letter in enumerate(map(ord, one), 1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (letters != letter))
        row = np.minimum.accumulate(np.append(number, changed) - places) + places
    return int(row[-1])
