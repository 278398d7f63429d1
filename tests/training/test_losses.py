from typing import Any, get_type_hints

import pytest
import torch
import torch.nn.functional as F
import yaml
from pydantic import ValidationError
from torch import Tensor, nn

from torchloom.config import ClassLoss, ValueLoss
from torchloom.data.targets import IGNORED, Number
from torchloom.data.text import Tokenizer
from torchloom.errors import InputError
from torchloom.modalities import TextInfo
from torchloom.models import build_model
from torchloom.problems import problem_of
from torchloom.problems.base import WEIGHT
from torchloom.problems.class_weights import check_weights, weighted
from torchloom.problems.classification import classification_objective
from torchloom.problems.language_model import language_model_objective
from torchloom.problems.losses import (
    LINKS,
    check_loss,
    check_soft_labels,
    classification_loss,
    loss_class,
    scores,
    weighed_loss,
)
from torchloom.problems.reconstruction import reconstruction_objective
from torchloom.problems.reconstruction.config import ReconstructionLoss
from torchloom.problems.regression import regression_objective
from torchloom.problems.segmentation.config import SegmentationLoss
from torchloom.training.loop import Running

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, -0.3], [-2.0, 3.0, 1.0], [0.0, 1.5, 1.0]])
LABELS = torch.tensor([0, 2, 1, 1])
ONE_HOT = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0]])

SIGNS = 2 * ONE_HOT - 1

CASES: list[tuple[str, dict[str, Any], Tensor]] = [
    ("CrossEntropyLoss", {}, F.cross_entropy(LOGITS, LABELS)),
    ("CrossEntropyLoss", {"label_smoothing": 0.2}, F.cross_entropy(LOGITS, LABELS, label_smoothing=0.2)),
    ("NLLLoss", {}, F.nll_loss(LOGITS.log_softmax(1), LABELS)),
    ("NLLLoss", {"ignore_index": 2}, F.nll_loss(LOGITS.log_softmax(1), LABELS, ignore_index=2)),
    ("FocalLoss", {"gamma": 0.0}, F.cross_entropy(LOGITS, LABELS)),
    ("FocalLoss", {"gamma": 0.0, "label_smoothing": 0.2}, F.cross_entropy(LOGITS, LABELS, label_smoothing=0.2)),
    ("KLDivLoss", {}, F.kl_div(LOGITS.log_softmax(1), ONE_HOT, reduction="batchmean")),
    (
        "KLDivLoss",
        {"label_smoothing": 0.3},
        F.kl_div(LOGITS.log_softmax(1), 0.7 * ONE_HOT + 0.1, reduction="batchmean"),
    ),
    ("HingeLoss", {}, (1 - SIGNS * LOGITS).clamp(min=0).mean()),
    ("HingeLoss", {"margin": 0.5, "p": 2}, (0.5 - SIGNS * LOGITS).clamp(min=0).square().mean()),
    ("MultiMarginLoss", {"p": 2}, F.multi_margin_loss(LOGITS, LABELS, p=2)),
    ("MultiMarginLoss", {}, F.multi_margin_loss(LOGITS, LABELS)),
    ("MultiMarginLoss", {"margin": 0.5}, F.multi_margin_loss(LOGITS, LABELS, margin=0.5)),
    ("MSELoss", {}, F.mse_loss(LOGITS, ONE_HOT)),
    ("L1Loss", {}, F.l1_loss(LOGITS, ONE_HOT)),
    ("SmoothL1Loss", {"beta": 0.5}, F.smooth_l1_loss(LOGITS, ONE_HOT, beta=0.5)),
    ("HuberLoss", {"delta": 0.5}, F.huber_loss(LOGITS, ONE_HOT, delta=0.5)),
    ("BCEWithLogitsLoss", {}, F.binary_cross_entropy_with_logits(LOGITS, ONE_HOT)),
]


WEIGHTS = [1.0, 2.0, 0.5]
EACH = torch.tensor(WEIGHTS)


def over_weights(entries: Tensor) -> Tensor:
    """The mean of what the samples cost (4, 3), over the weights of their classes."""
    return (EACH[LABELS] * entries.mean(1)).sum() / EACH[LABELS].sum()


WEIGHTED: list[tuple[str, dict[str, Any], Tensor]] = [
    ("CrossEntropyLoss", {"weight": WEIGHTS}, F.cross_entropy(LOGITS, LABELS, EACH)),
    ("FocalLoss", {"gamma": 0.0, "weight": WEIGHTS}, F.cross_entropy(LOGITS, LABELS, EACH)),
    ("NLLLoss", {"weight": WEIGHTS}, F.nll_loss(LOGITS.log_softmax(1), LABELS, EACH)),
    (
        "FocalLoss",
        {"gamma": 0.0, "weight": WEIGHTS, "label_smoothing": 0.2},
        F.cross_entropy(LOGITS, LABELS, EACH, label_smoothing=0.2),
    ),
    ("KLDivLoss", {"weight": WEIGHTS}, F.cross_entropy(LOGITS, LABELS, EACH)),
    ("MSELoss", {"weight": WEIGHTS}, over_weights(F.mse_loss(LOGITS, ONE_HOT, reduction="none"))),
    ("L1Loss", {"weight": WEIGHTS}, over_weights(F.l1_loss(LOGITS, ONE_HOT, reduction="none"))),
    (
        "SmoothL1Loss",
        {"beta": 0.5, "weight": WEIGHTS},
        over_weights(F.smooth_l1_loss(LOGITS, ONE_HOT, beta=0.5, reduction="none")),
    ),
    (
        "HuberLoss",
        {"delta": 0.5, "weight": WEIGHTS},
        over_weights(F.huber_loss(LOGITS, ONE_HOT, delta=0.5, reduction="none")),
    ),
    ("HingeLoss", {"weight": WEIGHTS}, (EACH * (1 - SIGNS * LOGITS).clamp(min=0)).mean()),
    (
        "HingeLoss",
        {"pos_weight": WEIGHTS},
        (EACH.where(SIGNS > 0, 1.0) * (1 - SIGNS * LOGITS).clamp(min=0)).mean(),
    ),
    ("MultiMarginLoss", {"weight": WEIGHTS}, F.multi_margin_loss(LOGITS, LABELS, weight=EACH)),
    ("BCEWithLogitsLoss", {"weight": WEIGHTS}, F.binary_cross_entropy_with_logits(LOGITS, ONE_HOT, EACH)),
    (
        "BCEWithLogitsLoss",
        {"pos_weight": [1, 2, 3]},
        F.binary_cross_entropy_with_logits(LOGITS, ONE_HOT, pos_weight=torch.tensor([1.0, 2.0, 3.0])),
    ),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), WEIGHTED)
def test_weights_by_class_are_given_as_a_list(name: str, arguments: dict[str, Any], expected: Tensor) -> None:
    check_loss(name, arguments, "classes")
    assert classification_loss(name, arguments)(LOGITS, LABELS).item() == pytest.approx(expected.item(), abs=1e-7)


def test_every_tensor_that_a_loss_takes_is_tried_here() -> None:
    """So that a new one of PyTorch's is not left out."""
    hints = {name: get_type_hints(loss_class(name).__init__) for name in ClassLoss.suitable}
    taken = {(name, key) for name, keys in hints.items() for key, hint in keys.items() if "Tensor" in str(hint)}
    of_ours = {(name, "weight") for name in ValueLoss.suitable}  # which torch has none for
    tried = {(name, key) for name, given, _ in WEIGHTED for key in given if "weight" in key}
    assert tried == taken | of_ours
    assert {name for name, _ in tried} == ClassLoss.suitable


def test_mixed_labels_are_weighted_too() -> None:
    check_soft_labels("CrossEntropyLoss", {"weight": [1.0, 2.0]})
    check_soft_labels("BCEWithLogitsLoss", {"pos_weight": [1.0, 2.0]})


@pytest.mark.parametrize(
    "arguments", [{"weight": WEIGHTS}, {"ignore_index": 1}, {"weight": WEIGHTS, "ignore_index": 0}]
)
def test_the_mean_over_batches_is_that_over_all_samples(arguments: dict[str, Any]) -> None:
    """In batches whose labels differ in weight, as those of classes in order do."""
    order = LABELS.argsort()
    running = Running(2, torch.device("cpu"))
    for part in (order[:3], order[3:]):
        loss, figures = classification_objective("CrossEntropyLoss", arguments)(
            nn.Identity(), (LOGITS[part], LABELS[part])
        )
        running.add(len(part), loss, figures)
    given = {**arguments, "weight": EACH} if "weight" in arguments else arguments
    means = running.means()
    assert means.keys() == {"loss", "accuracy"}
    assert means["loss"] == pytest.approx(F.cross_entropy(LOGITS, LABELS, **given).item(), rel=1e-6)
    assert means["accuracy"] == 0.75


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_that_are_not_mixed_have_the_same_loss_as_shares(smoothing: float) -> None:
    loss = weighed_loss("CrossEntropyLoss", {"weight": WEIGHTS, "label_smoothing": smoothing})
    (hard, weight), (soft, same) = loss(LOGITS, LABELS), loss(LOGITS, ONE_HOT)
    assert hard.item() == pytest.approx(F.cross_entropy(LOGITS, LABELS, EACH, label_smoothing=smoothing).item())
    assert soft.item() == pytest.approx(hard.item())
    assert weight == same == {WEIGHT: torch.tensor(1.0 + 0.5 + 2 + 2)}


def test_there_is_a_weight_for_each_class() -> None:
    check_weights("CrossEntropyLoss", {"weight": [1.0, 2.0]}, ["cat", "dog"])
    with pytest.raises(InputError, match=r"^train\.loss\.weight: .* 2 weights, but there are 3 classes: 'a', 'b', 'c'"):
        check_weights("CrossEntropyLoss", {"weight": [1.0, 2.0]}, ["a", "b", "c"])


def test_answers_are_scaled_as_the_loss_has_them() -> None:
    assert LINKS.keys() <= ClassLoss.suitable | SegmentationLoss.suitable
    torch.testing.assert_close(scores(LOGITS, "softmax"), LOGITS.softmax(1))
    torch.testing.assert_close(scores(LOGITS, "sigmoid"), LOGITS.sigmoid())
    order = scores(LOGITS, None)
    assert (order.min(), order.max()) == (0, 1)
    assert torch.equal(order.flatten().argsort(stable=True), LOGITS.flatten().argsort(stable=True))
    assert scores(torch.ones(2, 3), None).isfinite().all()


def test_every_loss_has_a_case_here() -> None:
    assert {name for name, _, _ in CASES} == ClassLoss.suitable


@pytest.mark.parametrize(("name", "arguments", "expected"), CASES)
def test_values_are_torchs_own(name: str, arguments: dict[str, Any], expected: Tensor) -> None:
    assert classification_loss(name, arguments)(LOGITS, LABELS).item() == pytest.approx(expected.item(), abs=1e-7)


def test_the_cross_entropy_is_the_mean_of_minus_log_p() -> None:
    logits = torch.tensor([[0.8, 0.2], [0.6, 0.4]]).log()
    loss = classification_loss("CrossEntropyLoss", {})(logits, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(-(torch.tensor(0.8).log() + torch.tensor(0.4).log()).item() / 2)


@pytest.mark.parametrize("name", sorted(ClassLoss.suitable))
def test_half_precision_logits_are_judged_in_float32(name: str) -> None:
    loss = classification_loss(name, {})
    half = LOGITS.bfloat16()
    assert loss(half, LABELS).dtype is torch.float32
    assert torch.equal(loss(half, LABELS), loss(half.float(), LABELS))


def test_the_objective_gives_mean_loss_and_accuracy() -> None:
    loss, figures = classification_objective("MSELoss", {})(nn.Identity(), (LOGITS, LABELS))
    assert loss.item() == pytest.approx(F.mse_loss(LOGITS, ONE_HOT).item())
    assert {name: value.item() for name, value in figures.items()} == {"accuracy": 0.75}


class Reconstructor(nn.Module):
    """Answers with a constant picture, and a divergence that it is told."""

    def __init__(self, value: float, divergence: float = 0.0) -> None:
        super().__init__()
        self.value, self.divergence = value, divergence

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count = len(images)
        return torch.full(images.shape, self.value), torch.zeros(count, 2), torch.full((count,), self.divergence)


PICTURES = torch.tensor([[0, 51], [255, 102]], dtype=torch.uint8).reshape(1, 1, 2, 2)  # 0, 0.2, 1 and 0.4


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MSELoss", (0.25 + 0.09 + 0.25 + 0.01) / 4),
        ("L1Loss", (0.5 + 0.3 + 0.5 + 0.1) / 4),
        ("SmoothL1Loss", (0.25 + 0.09 + 0.25 + 0.01) / 8),
        ("HuberLoss", (0.25 + 0.09 + 0.25 + 0.01) / 8),
        ("BCELoss", 0.6931472),  # an even chance, whatever the pixel
    ],
)
def test_reconstruction_losses_are_means_per_pixel_on_the_unit_interval(name: str, expected: float) -> None:
    loss, figures = reconstruction_objective(name, {}, 1.0)(Reconstructor(0.5), (PICTURES, torch.tensor([3])))
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert figures["mse"].item() == pytest.approx(0.15, abs=1e-6)


@pytest.mark.parametrize(("weight", "added"), [(1.0, 8 / 4), (0.5, 4 / 4), (0.0, 0.0)])
def test_the_divergence_counts_per_pixel(weight: float, added: float) -> None:
    loss, figures = reconstruction_objective("MSELoss", {}, weight)(Reconstructor(0.5, 8.0), (PICTURES, LABELS[:1]))
    assert loss.item() == pytest.approx(0.15 + added, abs=1e-6)
    assert figures["mse"].item() == pytest.approx(0.15, abs=1e-6)


def test_every_reconstruction_loss_has_a_case_here() -> None:
    assert ReconstructionLoss.suitable == {"MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "BCELoss"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("MSELoss", (1 + 9) / 2), ("L1Loss", 2.0), ("HuberLoss", (0.5 + 2.5) / 2), ("SmoothL1Loss", (0.5 + 2.5) / 2)],
)
def test_regression_losses_see_standardised_targets(name: str, expected: float) -> None:
    target = torch.tensor([10.0, 30.0])
    prediction = target + torch.tensor([5.0, -15.0])  # 1 and 3 standard deviations of 5
    loss, figures = regression_objective(name, {}, [Number(name="y", mean=20.0, std=5.0)])(
        nn.Identity(), (prediction, target)
    )
    assert loss.item() == pytest.approx(expected)
    assert {key: value.item() for key, value in figures.items()} == {"mae": pytest.approx((5 + 15) / 2)}  # in the unit
    assert name in ValueLoss.suitable


def test_a_language_model_is_charged_for_each_token() -> None:
    torch.manual_seed(0)
    info = TextInfo(tokenizer=Tokenizer.of_characters("abcd"))
    model = build_model("language_rnn", {"embedding": 4, "width": 4}, info, problem_of("language_model")).eval()
    text = torch.randint(4, (3, 9))
    batch = (text[:, :-1], text[:, 1:])
    loss, figures = language_model_objective("CrossEntropyLoss", {})(model, batch)
    probabilities = model(batch[0])[0].softmax(2)
    charged = -probabilities.gather(2, batch[1].unsqueeze(2)).log()
    assert loss.item() == pytest.approx(charged.mean().item(), rel=1e-5)
    assert figures["bits_per_token"].item() == pytest.approx(charged.mean().item() / 0.6931472, rel=1e-5)
    right = probabilities.argmax(2) == batch[1]
    assert figures["accuracy"].item() == pytest.approx(right.float().mean().item())
    smoothed, figures = language_model_objective("CrossEntropyLoss", {"label_smoothing": 0.3})(model, batch)
    assert smoothed.item() != pytest.approx(loss.item(), rel=1e-3)
    assert figures["bits_per_token"].item() == pytest.approx(charged.mean().item() / 0.6931472, rel=1e-5)


# ---- classes that are uneven ---------------------------------------------------------------------------------------

UNEVEN = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])


def in_numbers(given: Any, key: str = "weight", name: str = "CrossEntropyLoss", classes: str = "abc") -> list[float]:
    loss = ClassLoss.model_validate({"name": name, key: given})
    check_weights(name, loss.arguments, list(classes))
    found: list[float] = weighted(loss, list(classes), lambda: UNEVEN).arguments[key]
    return found


@pytest.mark.parametrize("name", sorted(ClassLoss.suitable))
def test_balanced_weights_give_each_class_the_same_weight_in_all(name: str) -> None:
    """As scikit-learn's class_weight="balanced" has them."""
    weights = in_numbers("balanced", name=name)
    assert weights == pytest.approx([10 / (3 * 6), 10 / (3 * 3), 10 / 3])
    assert torch.allclose(torch.tensor(weights) * UNEVEN.bincount(), torch.tensor(10 / 3))
    assert in_numbers("balanced", "pos_weight", "BCEWithLogitsLoss") == pytest.approx([4 / 6, 7 / 3, 9.0])


def test_masks_are_counted_by_pixel_and_a_class_without_samples_is_let_be() -> None:
    loss = ClassLoss.model_validate({"name": "CrossEntropyLoss", "weight": "balanced"})
    masks = torch.tensor([[[0, 0, IGNORED], [0, 1, IGNORED]]], dtype=torch.uint8)
    assert weighted(loss, ["a", "b"], lambda: masks).arguments == {"weight": pytest.approx([4 / 6, 2.0])}
    assert in_numbers("balanced", classes="abcd")[3] == 10 / 4


def test_weights_are_given_by_the_names_of_classes() -> None:
    assert in_numbers({"c": 3, "a": 0.5}) == [0.5, 1.0, 3.0]
    assert in_numbers([1, 2, 3]) == [1, 2, 3]


def test_names_that_yaml_takes_for_something_else_are_known() -> None:
    loss = ClassLoss.model_validate({"name": "CrossEntropyLoss", **yaml.safe_load("weight: {yes: 2.0, no: 1}")})
    assert weighted(loss, ["no", "yes"], lambda: UNEVEN).arguments["weight"] == [1.0, 2.0]
    numbers = ClassLoss.model_validate({"name": "CrossEntropyLoss", **yaml.safe_load("weight: {1: 2.0}")})
    assert weighted(numbers, ["0", "1"], lambda: UNEVEN).arguments["weight"] == [1.0, 2.0]


def test_a_class_that_is_none_is_named() -> None:
    with pytest.raises(InputError, match=r"^train\.loss\.weight: 'd' is none of the classes; .* 'a', 'b', 'c'"):
        in_numbers({"d": 2.0})
    with pytest.raises(InputError, match=r"True is none of the classes"):
        in_numbers({True: 2.0})


@pytest.mark.parametrize("given", ["even", {}, {"a": -1.0}, {"a": 0.0}, [0.0, 0.0], 3])
def test_other_weights_are_refused(given: Any) -> None:
    with pytest.raises(ValidationError):
        ClassLoss.model_validate({"name": "CrossEntropyLoss", "weight": given})


def test_what_is_told_well_counts_less_for_the_focal_loss() -> None:
    shares = LOGITS.softmax(1)[torch.arange(4), LABELS]
    expected = -((1 - shares) ** 2 * shares.log())
    found = classification_loss("FocalLoss", {"gamma": 2.0})
    assert found(LOGITS, LABELS).item() == pytest.approx(expected.mean().item())
    assert found(LOGITS, ONE_HOT).item() == pytest.approx(expected.mean().item())
    by_weight, weight = weighed_loss("FocalLoss", {"gamma": 2.0, "weight": WEIGHTS})(LOGITS, LABELS)
    assert by_weight.item() == pytest.approx(((expected * EACH[LABELS]).sum() / EACH[LABELS].sum()).item())
    assert weight == {WEIGHT: torch.tensor(5.5)}
    sure = torch.tensor([[60.0, -60.0]], requires_grad=True)
    classification_loss("FocalLoss", {"gamma": 0.5})(sure, torch.tensor([0])).backward()
    assert sure.grad is not None
    assert sure.grad.isfinite().all()
