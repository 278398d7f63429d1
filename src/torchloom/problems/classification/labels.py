"""Labels that are likely wrong, by what models that have not seen them say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cleanlab.filter import find_label_issues

SURE = 0.05  # greatest probability of a label that is to be looked at


def label_issues(
    shares: Sequence[Sequence[float]], true: Sequence[str], classes: list[str]
) -> list[tuple[int, dict[str, Any]]]:
    """The places of such samples, the surest first, each with its label and the likeliest class.

    From the probabilities (N, classes) of samples that the models have not seen, and their labels (N,). Those that are
    found both by class and by noise rate (Northcutt, Jiang & Chuang, "Confident learning", JAIR 70, 2021), and whose
    label has a probability below SURE.
    """
    probabilities = np.asarray(shares)
    probabilities = probabilities / probabilities.sum(1, keepdims=True)
    labels = np.array([classes.index(name) for name in true])
    found = find_label_issues(
        labels, probabilities, filter_by="both", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    rows = []
    for place in found.tolist():
        row, label = probabilities[place], labels[place]
        if row[label] < SURE:
            likely = int(row.argmax())
            said = {"probability_of_label": round(float(row[label]), 4), "probability": round(float(row[likely]), 4)}
            rows.append((place, {"label": classes[label], "likelier": classes[likely], **said}))
    return rows
