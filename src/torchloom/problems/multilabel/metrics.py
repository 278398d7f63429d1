"""What a network of labels is trained for, and which of its answers are wrong."""

from __future__ import annotations

from torch import Tensor, nn

from torchloom.problems.base import Objective
from torchloom.problems.losses import answer_by_answer
from torchloom.problems.scores import label_scores
from torchloom.problems.summands import Loss


class Probabilities(nn.Module):
    """A model that gives logits (B, labels) -> the probability of each label."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(*inputs)
        return logits.float().sigmoid()


def label_objective(loss: Loss) -> Objective:
    """A model and a batch (inputs …, marks) -> mean loss, and the share of samples with all labels right."""

    def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        *inputs, marks = batch
        logits, marks = answer_by_answer(model(*inputs).float(), marks, dimensions=2)
        right = ((logits > 0) == (marks > 0)).all(1)
        return loss(logits, marks.float()), {"subset_accuracy": right.float().mean()}

    return objective


def validation_figures(monitor: str, logits: Tensor, marks: Tensor) -> dict[str, float]:
    """Of a whole split (N, K) what is always followed, and what is monitored; labels hold from a probability of a half
    on."""
    scores, _ = label_scores(marks.numpy(), logits.sigmoid().numpy(), [0.5] * marks.shape[1])
    followed = ("macro_f1", "mean_average_precision", *({monitor} & {"micro_f1", "roc_auc"}))
    return {name: scores.get(name, 0.0) for name in followed}


def worst(marks: Tensor, probabilities: Tensor, thresholds: Tensor, count: int = 100) -> list[int]:
    """The numbers of the samples with wrong labels by (N, K) marks, those that are the furthest off first."""
    wrong = (probabilities >= thresholds) != (marks > 0)
    off = ((probabilities - marks.float()).abs() * wrong).sum(1)
    order = off.argsort(descending=True, stable=True)
    chosen: list[int] = order[wrong[order].any(1)][:count].tolist()
    return chosen
