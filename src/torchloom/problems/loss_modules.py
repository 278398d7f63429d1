"""Losses that torch.nn has not, or not of logits and shares of classes."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.config import Fraction, NotNegative, Positive

NO_SLOPE = 1e-12  # of what is told well; a power below 1 has no slope at 0


def shares_of(labels: Tensor, classes: int, ignored: int = -100) -> Tensor:
    """Shares of classes (B, classes) float32, of labels (B,) int64 one-hot; a label to ignore is of none."""
    if labels.ndim > 1:
        return labels
    return F.one_hot(labels.where(labels != ignored, 0), classes).float() * (labels != ignored)[:, None]


class _OfShares(nn.Module):
    """A sum over the shares of classes that a label has, its mean over the weights of the labels.

    Smoothed labels leave that much to all classes alike, as those of torch's CrossEntropyLoss do.
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None, ignored: int, smoothing: float, reduction: str) -> None:
        super().__init__()
        self.ignored, self.smoothing, self.reduction = ignored, smoothing, reduction
        self.register_buffer("weight", weight)

    def entries(self, logarithms: Tensor, shares: Tensor) -> Tensor:
        """What each class costs (B, classes), by the logarithms of its probability and by its share."""
        raise NotImplementedError

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, classes), and labels (B,) int64 or shares of classes (B, classes) -> the mean or the sum ()."""
        count = logits.shape[1]
        shares = shares_of(labels, count, self.ignored)
        smooth = (1 - self.smoothing) * shares + self.smoothing / count * shares.sum(1, keepdim=True)
        entries = self.entries(logits.log_softmax(1), smooth)
        if self.weight is not None:
            entries, shares = entries * self.weight, shares * self.weight
        total = entries.sum()
        return total if self.reduction == "sum" else total / shares.sum()


class FocalLoss(_OfShares):
    """-w (1 - p)^gamma log p, where p is what softmax gives the true class, and w the weight of that class.

    What is told well already counts less: Lin et al., "Focal loss for dense object detection" (ICCV 2017,
    arXiv:1708.02002). With gamma 0 it is torch's CrossEntropyLoss; as there, the mean is over the labels' weights.
    """

    def __init__(
        self,
        gamma: NotNegative = 2.0,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: Fraction = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, ignore_index, label_smoothing, reduction)
        self.gamma = gamma

    def entries(self, logarithms: Tensor, shares: Tensor) -> Tensor:
        missed = -torch.expm1(logarithms).clamp(max=-NO_SLOPE)  # 1 - p
        return -shares * missed**self.gamma * logarithms


class KLDivLoss(_OfShares):
    """The divergence of the softmax from the shares of classes that a label has, q log(q / p) in all.

    Kullback & Leibler, "On information and sufficiency" (1951). Its gradients are those of CrossEntropyLoss; unlike it,
    it comes to 0 where mixed or smoothed labels are met.
    """

    def __init__(self, weight: Tensor | None = None, label_smoothing: Fraction = 0.0, reduction: str = "mean") -> None:
        super().__init__(weight, -100, label_smoothing, reduction)

    def entries(self, logarithms: Tensor, shares: Tensor) -> Tensor:
        return F.kl_div(logarithms, shares, reduction="none")


class HingeLoss(nn.Module):
    """Of each class against the rest max(0, margin - score), and of the rest max(0, margin + score), to the power p.

    Cortes & Vapnik, "Support-vector networks" (1995), one class against the rest as in Rifkin & Klautau, "In defense of
    one-vs-all classification" (JMLR 2004); with p 2 it is that of Tang, "Deep learning using linear support vector
    machines" (2013, arXiv:1306.0239). `weight` and `pos_weight` are those of torch's BCEWithLogitsLoss.
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        margin: Positive = 1.0,
        p: Literal[1, 2] = 1,
        weight: Tensor | None = None,
        pos_weight: Tensor | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.margin, self.p, self.reduction = margin, p, reduction
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, scores: Tensor, marks: Tensor) -> Tensor:
        """Scores (B, classes), and how much of each class there is (B, classes) on [0, 1] -> the mean or the sum ()."""
        there, not_there = (F.relu(self.margin - sign * scores) ** self.p for sign in (1, -1))
        return _of_marks(self, there, not_there, marks)

    @staticmethod
    def fooled(scores: Tensor) -> Tensor:
        """What a generator minimises, whose images a discriminator that learns by this loss gives these scores (B,).

        It has no margin: Lim & Ye, "Geometric GAN" (2017, arXiv:1705.02894).
        """
        return -scores.mean()


class LabelFocalLoss(nn.Module):
    """The focal loss of each label by itself, where p is the sigmoid: -(1 - p)^gamma log p where it holds, and
    -p^gamma log(1 - p) where it does not.

    Lin et al. (ICCV 2017, arXiv:1708.02002). With gamma 0 it is torch's BCEWithLogitsLoss, whose `weight` and
    `pos_weight` it has; smoothed labels hold by label_smoothing / 2 where they do not, and so much less where they do.
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        gamma: NotNegative = 2.0,
        weight: Tensor | None = None,
        pos_weight: Tensor | None = None,
        label_smoothing: Fraction = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.gamma, self.smoothing, self.reduction = gamma, label_smoothing, reduction
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, logits: Tensor, marks: Tensor) -> Tensor:
        """Logits (B, labels), and 1 where a label holds (B, labels) float32 -> the mean or the sum ()."""
        marks = (1 - self.smoothing) * marks + self.smoothing / 2
        logarithms = [F.logsigmoid(sign * logits) for sign in (1, -1)]
        missed = [-torch.expm1(each).clamp(max=-NO_SLOPE) for each in logarithms]
        there, not_there = (-(one**self.gamma) * other for one, other in zip(missed, logarithms, strict=True))
        return _of_marks(self, there, not_there, marks)


def _of_marks(loss: HingeLoss | LabelFocalLoss, there: Tensor, not_there: Tensor, marks: Tensor) -> Tensor:
    """The mean or the sum over all entries (B, classes), by what each costs where it is there and where it is not."""
    if loss.pos_weight is not None:
        there = there * loss.pos_weight
    entries = marks * there + (1 - marks) * not_there
    if loss.weight is not None:
        entries = entries * loss.weight
    return entries.sum() if loss.reduction == "sum" else entries.mean()


class LabelMarginLoss(nn.MultiLabelMarginLoss):
    """torch's MultiLabelMarginLoss of marks (B, labels) instead of the places of those that hold."""

    def forward(self, scores: Tensor, marks: Tensor) -> Tensor:
        holding = marks.argsort(dim=1, descending=True, stable=True)
        count = (marks > 0).sum(1, keepdim=True)
        known = torch.arange(marks.shape[1], device=marks.device) < count
        return super().forward(scores, holding.where(known, -1))


class DiceLoss(nn.Module):
    """1 - 2 |A ∩ B| / (|A| + |B|) of each class, where A is what softmax gives it and B where it is, in a whole batch.

    Milletari, Navab, Ahmadi, "V-Net" (3DV 2016, arXiv:1606.04797), so that classes with few pixels count as those with
    many; `smooth` is added to both parts of the fraction.
    """

    weight: Tensor | None

    def __init__(self, smooth: Positive = 1.0, weight: Tensor | None = None, reduction: str = "mean") -> None:
        super().__init__()
        self.smooth, self.reduction = smooth, reduction
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, classes) and labels (N,) int64 -> the mean over the classes, by their weights, ()."""
        answer, truth = logits.softmax(1), shares_of(labels, logits.shape[1])
        both = (answer * truth).sum(0)
        lacking = 1 - (2 * both + self.smooth) / (answer.sum(0) + truth.sum(0) + self.smooth)
        if self.weight is None:
            return lacking.mean()
        return (lacking * self.weight).sum() / self.weight.sum()
