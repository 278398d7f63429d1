"""Losses of labels (B, classes), the shares of each class, as MixUp and CutMix make them."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torchloom.config import ClassLoss
from torchloom.errors import InputError
from torchloom.problems.classification import classification_objective
from torchloom.problems.losses import check_soft_labels, classification_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, -0.3], [-2.0, 3.0, 1.0]])
SHARES = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.4, 0.6], [0.25, 0.75, 0.0]])
HARD = {"MultiMarginLoss", "NLLLoss"}
SOFT = sorted(ClassLoss.suitable - HARD)


def test_the_cross_entropy_is_the_mean_of_minus_p_log_q() -> None:
    expected = -(SHARES * LOGITS.log_softmax(1)).sum(1).mean()
    assert classification_loss("CrossEntropyLoss", {})(LOGITS, SHARES).item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("MSELoss", {}, (LOGITS - SHARES).square().mean()),
        ("L1Loss", {}, (LOGITS - SHARES).abs().mean()),
        ("HuberLoss", {"delta": 0.5}, F.huber_loss(LOGITS, SHARES, delta=0.5)),
        (
            "BCEWithLogitsLoss",
            {},
            -(SHARES * F.logsigmoid(LOGITS) + (1 - SHARES) * F.logsigmoid(-LOGITS)).mean(),
        ),
    ],
)
def test_losses_of_scores_take_the_shares(name: str, arguments: dict[str, Any], expected: torch.Tensor) -> None:
    assert classification_loss(name, arguments)(LOGITS, SHARES).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("name", SOFT)
def test_whole_shares_are_labels(name: str) -> None:
    loss, labels = classification_loss(name, {}), torch.tensor([0, 2, 1])
    assert loss(LOGITS, F.one_hot(labels).float()).item() == pytest.approx(loss(LOGITS, labels).item())


@pytest.mark.parametrize("name", SOFT)
def test_half_precision_logits_are_judged_in_float32(name: str) -> None:
    assert classification_loss(name, {})(LOGITS.bfloat16(), SHARES).dtype is torch.float32


def test_accuracy_counts_the_likeliest_class() -> None:
    _, figures = classification_objective("CrossEntropyLoss", {})(nn.Identity(), (LOGITS, SHARES))
    assert figures["accuracy"].item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", SOFT)
def test_losses_that_take_shares_pass(name: str) -> None:
    check_soft_labels(name, {})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("NLLLoss", {}), ("MultiMarginLoss", {"margin": 0.5}), ("CrossEntropyLoss", {"ignore_index": 1})],
)
def test_losses_that_need_one_class_are_refused(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError) as refusal:
        check_soft_labels(name, arguments)
    assert refusal.value.message.startswith(f"train.loss: {name}")
    assert "data.augment.mixup and cutmix" in refusal.value.message
    assert all(argument in refusal.value.message for argument in arguments)


def test_harmless_arguments_pass() -> None:
    check_soft_labels("CrossEntropyLoss", {"label_smoothing": 0.1, "ignore_index": -100})
