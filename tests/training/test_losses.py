from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.training.losses import classification_loss, classification_objective, loss_names

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, -0.3], [-2.0, 3.0, 1.0], [0.0, 1.5, 1.0]])
LABELS = torch.tensor([0, 2, 1, 1])
ONE_HOT = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0]])

CASES: list[tuple[str, dict[str, Any], Tensor]] = [
    ("CrossEntropyLoss", {}, F.cross_entropy(LOGITS, LABELS)),
    ("CrossEntropyLoss", {"label_smoothing": 0.2}, F.cross_entropy(LOGITS, LABELS, label_smoothing=0.2)),
    ("MultiMarginLoss", {}, F.multi_margin_loss(LOGITS, LABELS)),
    ("MultiMarginLoss", {"margin": 0.5}, F.multi_margin_loss(LOGITS, LABELS, margin=0.5)),
    ("MSELoss", {}, F.mse_loss(LOGITS, ONE_HOT)),
    ("L1Loss", {}, F.l1_loss(LOGITS, ONE_HOT)),
    ("SmoothL1Loss", {"beta": 0.5}, F.smooth_l1_loss(LOGITS, ONE_HOT, beta=0.5)),
    ("HuberLoss", {"delta": 0.5}, F.huber_loss(LOGITS, ONE_HOT, delta=0.5)),
    ("BCEWithLogitsLoss", {}, F.binary_cross_entropy_with_logits(LOGITS, ONE_HOT)),
]


def test_every_loss_has_a_case_here() -> None:
    assert {name for name, _, _ in CASES} == loss_names()


@pytest.mark.parametrize(("name", "arguments", "expected"), CASES)
def test_values_are_torchs_own(name: str, arguments: dict[str, Any], expected: Tensor) -> None:
    assert classification_loss(name, arguments)(LOGITS, LABELS).item() == pytest.approx(expected.item(), abs=1e-7)


def test_the_cross_entropy_is_the_mean_of_minus_log_p() -> None:
    logits = torch.tensor([[0.8, 0.2], [0.6, 0.4]]).log()
    loss = classification_loss("CrossEntropyLoss", {})(logits, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(-(torch.tensor(0.8).log() + torch.tensor(0.4).log()).item() / 2)


@pytest.mark.parametrize("name", sorted(loss_names()))
def test_half_precision_logits_are_judged_in_float32(name: str) -> None:
    loss = classification_loss(name, {})
    half = LOGITS.bfloat16()
    assert loss(half, LABELS).dtype is torch.float32
    assert torch.equal(loss(half, LABELS), loss(half.float(), LABELS))


def test_the_objective_gives_mean_loss_and_accuracy() -> None:
    loss, figures = classification_objective("MSELoss", {})(nn.Identity(), (LOGITS, LABELS))
    assert loss.item() == pytest.approx(F.mse_loss(LOGITS, ONE_HOT).item())
    assert {name: value.item() for name, value in figures.items()} == {"accuracy": 0.75}
