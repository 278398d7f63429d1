"""Losses that are added up, and those of ours: their values, their gradients, and what becomes of them in a model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from conftest import ROOT
from tests.stages import evaluate
from tests.tables import write
from torchloom.config import (
    ClassLoss,
    DataConfig,
    DebuggingConfig,
    DistributedConfig,
    LossConfig,
    PredictConfig,
    ServeConfig,
    ValueLoss,
)
from torchloom.config.checks import check_block
from torchloom.data.targets import IGNORED, Classes, Number
from torchloom.data.text import Tokenizer
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.export.onnx import export_checkpoint
from torchloom.inference.model import open_model
from torchloom.inference.serving import answerer
from torchloom.modalities import ImageInfo, TableInfo, TextInfo
from torchloom.models import build_model
from torchloom.pipelines.prediction import nodes as prediction_nodes
from torchloom.pipelines.training.nodes import train
from torchloom.problems import problem_of
from torchloom.problems.base import WEIGHT, means_of, sums_of
from torchloom.problems.class_weights import by_name, check_weights, weighted
from torchloom.problems.classification import classification_objective
from torchloom.problems.classification.config import ClassificationTrainConfig, EvaluateClassifierConfig
from torchloom.problems.forecasting import forecasting_objective
from torchloom.problems.language_model import language_model_objective
from torchloom.problems.language_model.config import LanguageModelLoss
from torchloom.problems.language_model.metrics import language_model_metrics
from torchloom.problems.loss_modules import (
    DiceLoss,
    FocalLoss,
    HingeLoss,
    KLDivLoss,
    LabelFocalLoss,
    LabelMarginLoss,
    shares_of,
)
from torchloom.problems.losses import (
    LABEL_LINKS,
    check_loss,
    check_soft_labels,
    classification_loss,
    label_loss,
    link_of,
    loss_class,
    weighed_loss,
)
from torchloom.problems.multilabel.config import MultilabelLoss
from torchloom.problems.reconstruction import reconstruction_objective
from torchloom.problems.reconstruction.config import ReconstructionLoss
from torchloom.problems.regression import regression_objective
from torchloom.problems.regression.config import RegressionLoss, RegressionTrainConfig
from torchloom.problems.segmentation.config import SegmentationLoss, SegmentationTrainConfig
from torchloom.problems.summands import summands
from torchloom.reporting.report import named
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan, TensorFile
from torchloom.training.loop import Running

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 2 * torch.randn(12, 3, generator=GENERATOR)
LABELS = torch.randint(0, 3, (12,), generator=GENERATOR)
MARKS = (torch.rand(12, 3, generator=GENERATOR) < 0.4).float()
SHARES = torch.rand(12, 3, generator=GENERATOR).softmax(1)
WEIGHTS = [1.0, 20.0, 0.5]
EACH = torch.tensor(WEIGHTS)
ENTROPY_AND_FOCAL: dict[str, Any] = {
    "label_smoothing": 0.1,
    "weight": WEIGHTS,
    "plus": [{"name": "FocalLoss", "gamma": 1.0, "times": 0.5}, {"name": "MultiMarginLoss", "times": 2.0}],
}


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    shares = logits.softmax(1)[torch.arange(len(labels)), labels]
    return -((1 - shares) * shares.log()).mean()


# ---- what each comes to --------------------------------------------------------------------------------------------

MODULES: list[tuple[nn.Module, Tensor]] = [
    (FocalLoss(1.5, EACH, label_smoothing=0.1), LABELS),
    (KLDivLoss(EACH, 0.2), SHARES),
    (HingeLoss(0.7, 2, EACH, EACH), MARKS),
    (HingeLoss(), MARKS),
    (LabelFocalLoss(1.5, EACH, EACH, 0.1), MARKS),
    (LabelMarginLoss(), MARKS),
    (DiceLoss(weight=EACH), LABELS),
]
NAMES = [f"{type(module).__name__}{number}" for number, (module, _) in enumerate(MODULES)]


@pytest.mark.parametrize(("module", "targets"), MODULES, ids=NAMES)
def test_gradients_are_those_of_differences(module: nn.Module, targets: Tensor) -> None:
    targets = targets.double() if targets.is_floating_point() else targets
    logits = (LOGITS + 0.01).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda given: module.double()(given, targets), (logits,))
    module.float()


COMPILED = [
    pytest.param(*case, id=name, marks=[] if name in {"FocalLoss0", "LabelMarginLoss5"} else pytest.mark.long)
    for case, name in zip(MODULES, NAMES, strict=True)
]


@pytest.mark.parametrize(("module", "targets"), COMPILED)
def test_compiled_they_are_as_eager(module: nn.Module, targets: Tensor) -> None:
    found = []
    for loss in (module, torch.compile(module, backend="aot_eager", fullgraph=True)):
        logits = LOGITS.clone().requires_grad_()
        value = loss(logits, targets)
        value.backward()
        found.append((value.detach(), logits.grad))
    torch.testing.assert_close(found[0], found[1])


def test_the_divergence_is_nothing_where_shares_are_met() -> None:
    assert classification_loss("KLDivLoss", {})(SHARES.log(), SHARES).item() == pytest.approx(0, abs=1e-6)
    logits = [LOGITS.clone().requires_grad_() for _ in range(2)]
    for given, name in zip(logits, ("KLDivLoss", "CrossEntropyLoss"), strict=True):
        classification_loss(name, {})(given, SHARES).backward()
    torch.testing.assert_close(logits[0].grad, logits[1].grad)


def test_log_probabilities_and_logits_have_the_same_loss() -> None:
    loss = classification_loss("NLLLoss", {"weight": WEIGHTS})
    torch.testing.assert_close(loss(LOGITS, LABELS), loss(LOGITS.log_softmax(1), LABELS))
    assert link_of("NLLLoss") == "softmax"


def test_the_dice_loss_is_that_of_all_pixels_of_a_batch() -> None:
    answer, truth = LOGITS.softmax(1), F.one_hot(LABELS, 3)
    each = 1 - (2 * (answer * truth).sum(0) + 1) / (answer.sum(0) + truth.sum(0) + 1)
    torch.testing.assert_close(classification_loss("DiceLoss", {})(LOGITS, LABELS), each.mean())
    expected = (each * EACH).sum() / EACH.sum()
    torch.testing.assert_close(classification_loss("DiceLoss", {"weight": WEIGHTS})(LOGITS, LABELS), expected)
    assert classification_loss("DiceLoss", {"smooth": 1e-6})(100 * truth.float(), LABELS).item() < 1e-6


HOLDING = torch.tensor([[0, 2, -1], [1, -1, -1], [-1, -1, -1], [0, 1, 2]])
OF_LABELS: list[tuple[str, dict[str, Any], Callable[[Tensor, Tensor], Tensor]]] = [
    ("BCEWithLogitsLoss", {"weight": WEIGHTS}, lambda x, y: F.binary_cross_entropy_with_logits(x, y, EACH)),
    (
        "FocalLoss",
        {"gamma": 0.0, "weight": WEIGHTS, "pos_weight": [3.0, 1.0, 2.0]},
        lambda x, y: F.binary_cross_entropy_with_logits(x, y, EACH, pos_weight=torch.tensor([3.0, 1.0, 2.0])),
    ),
    (
        "FocalLoss",
        {"gamma": 2.0},
        lambda x, y: (
            -(y * (1 - x.sigmoid()) ** 2 * x.sigmoid().log() + (1 - y) * x.sigmoid() ** 2 * (-x).sigmoid().log()).mean()
        ),
    ),
    (
        "FocalLoss",
        {"gamma": 0.0, "label_smoothing": 0.2},
        lambda x, y: F.binary_cross_entropy_with_logits(x, 0.8 * y + 0.1),
    ),
    ("HingeLoss", {"margin": 2.0}, lambda x, y: F.relu(2 - (2 * y - 1) * x).mean()),
    (
        "HingeLoss",
        {"p": 2, "pos_weight": WEIGHTS},
        lambda x, y: (EACH.where(y > 0, 1.0) * F.relu(1 - (2 * y - 1) * x) ** 2).mean(),
    ),
    ("MultiLabelSoftMarginLoss", {"weight": WEIGHTS}, lambda x, y: F.multilabel_soft_margin_loss(x, y, EACH)),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), OF_LABELS)
def test_losses_of_labels(name: str, arguments: dict[str, Any], expected: Callable[[Tensor, Tensor], Tensor]) -> None:
    check_loss(name, arguments, "labels")
    torch.testing.assert_close(label_loss(name, arguments)(LOGITS, MARKS), expected(LOGITS, MARKS))


def test_labels_are_set_apart_by_the_places_of_those_that_hold() -> None:
    marks = torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]])
    expected = F.multilabel_margin_loss(LOGITS[:4], HOLDING)
    torch.testing.assert_close(label_loss("MultiLabelMarginLoss", {})(LOGITS[:4], marks), expected)


def test_every_loss_of_labels_has_a_case_here() -> None:
    assert {name for name, *_ in OF_LABELS} | {"MultiLabelMarginLoss"} == MultilabelLoss.suitable
    assert LABEL_LINKS.keys() <= MultilabelLoss.suitable
    assert {name for name in MultilabelLoss.suitable if link_of(name, "labels") is None} == {
        "HingeLoss",
        "MultiLabelMarginLoss",
    }


def test_weights_of_labels_balance_each_with_the_rest() -> None:
    marks = torch.tensor([[1, 0, 1]] * 2 + [[0, 0, 1]] * 6)
    settled = weighted(MultilabelLoss(name="HingeLoss", pos_weight="balanced"), ["a", "b", "c"], lambda: marks)
    assert settled.arguments["pos_weight"] == [3.0, 1.0, 1.0]  # of what always or never holds there is no rest


def test_counts_are_learnt_by_their_mean() -> None:
    """Of one more, on the scale that the log of one more is on; least at the mean."""
    numbers = [Number(name="n", mean=1.0, std=0.7, scale="log")]
    target = torch.tensor([0.0, 1.0, 0.0, 5.0])
    objective = regression_objective("PoissonNLLLoss", {}, numbers)
    prediction = torch.tensor([0.5, 2.0, 0.1, 3.0])
    loss, _ = objective(nn.Identity(), (prediction, target))
    expected = F.poisson_nll_loss(prediction + 1, target + 1, log_input=False, eps=0)
    torch.testing.assert_close(loss, expected)
    same = torch.tensor(1.5, requires_grad=True)
    objective(lambda given: same.expand(4), (prediction, target))[0].backward()  # type: ignore[arg-type]
    assert same.grad is not None
    assert same.grad.item() == pytest.approx(0, abs=1e-6)  # as 1.5 is the mean
    both, _ = regression_objective("MSELoss", {"plus": [{"name": "PoissonNLLLoss", "times": 0.5}]}, numbers)(
        nn.Identity(), (prediction, target)
    )
    apart = F.mse_loss(prediction.log1p() / 0.7, target.log1p() / 0.7)
    torch.testing.assert_close(both, apart + 0.5 * expected)


# ---- the sum -------------------------------------------------------------------------------------------------------


def expected_sum(logits: Tensor, labels: Tensor) -> Tensor:
    entropy = F.cross_entropy(logits, labels, EACH, label_smoothing=0.1)
    return entropy + 0.5 * focal(logits, labels) + 2 * F.multi_margin_loss(logits, labels)


def test_losses_are_added_up_each_so_many_times() -> None:
    torch.testing.assert_close(
        classification_loss("CrossEntropyLoss", ENTROPY_AND_FOCAL)(LOGITS, LABELS), expected_sum(LOGITS, LABELS)
    )
    loss, figures = classification_objective("CrossEntropyLoss", ENTROPY_AND_FOCAL)(nn.Identity(), (LOGITS, LABELS))
    torch.testing.assert_close(loss, expected_sum(LOGITS, LABELS))
    assert "accuracy" in figures
    plain = weighed_loss("MSELoss", {"times": 2.0, "plus": [{"name": "L1Loss"}]})(LOGITS, LABELS)
    rows = F.one_hot(LABELS, 3).float()
    torch.testing.assert_close(plain, (2 * F.mse_loss(LOGITS, rows) + F.l1_loss(LOGITS, rows), {}))
    alone, weight = weighed_loss("CrossEntropyLoss", {"weight": WEIGHTS, "times": 3.0})(LOGITS, LABELS)
    torch.testing.assert_close(alone, 3 * F.cross_entropy(LOGITS, LABELS, EACH))
    assert weight == {WEIGHT: EACH[LABELS].sum()}


@pytest.mark.parametrize("soft", [False, True])
def test_the_mean_over_batches_is_that_over_all_samples(soft: bool) -> None:
    """Each of the losses by weights of its own, and one that has none."""
    arguments = {
        "weight": WEIGHTS,
        "plus": [
            {"name": "FocalLoss", "weight": [5.0, 1.0, 1.0]},
            {"name": "MSELoss", "times": 0.5},
            {"name": "L1Loss", "weight": [1.0, 9.0, 1.0]},
        ],
    }
    order = LABELS.argsort()
    labels = F.one_hot(LABELS, 3).float() if soft else LABELS
    running = Running(2, torch.device("cpu"))
    for part in (order[:7], order[7:]):
        loss, figures = classification_objective("CrossEntropyLoss", arguments)(
            nn.Identity(), (LOGITS[part], labels[part])
        )
        running.add(len(part), loss, figures)
    again = Running(2, torch.device("cpu"))
    again.load_state_dict(running.state_dict())
    whole = classification_loss("CrossEntropyLoss", arguments)(LOGITS, LABELS)
    for means in (running.means(), again.means()):
        assert list(means) == ["loss", "accuracy"]
        assert means["loss"] == pytest.approx(whole.item(), rel=1e-6)


def test_processes_divide_by_what_they_have_on_average(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of the gradients of two processes is that of all samples together."""
    parts = (slice(0, 7), slice(7, 12))
    weights: list[list[Tensor]] = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    arguments = {"weight": WEIGHTS, "plus": [{"name": "FocalLoss", "ignore_index": 1, "times": 0.5}]}

    def gradient(of: slice) -> Tensor:
        logits = LOGITS.clone().requires_grad_()
        loss, figures = weighed_loss("CrossEntropyLoss", arguments)(logits[of], LABELS[of])
        loss.backward()
        assert logits.grad is not None
        sums.append({name: float(value) for name, value in sums_of(len(LABELS[of]), loss, figures).items()})
        return logits.grad

    sums: list[dict[str, float]] = []
    for part in parts:
        weights.append([])
        monkeypatch.setattr(dist, "all_reduce", lambda weight: weights[-1].append(weight.clone()))
        gradient(part)
    sums.clear()
    found = []
    for part in parts:
        every = [one + other for one, other in zip(*weights, strict=True)]
        monkeypatch.setattr(dist, "all_reduce", lambda weight, every=every: weight.copy_(every.pop(0)))
        found.append(gradient(part))
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    logits = LOGITS.clone().requires_grad_()
    whole = classification_loss("CrossEntropyLoss", arguments)(logits, LABELS)
    whole.backward()
    torch.testing.assert_close((found[0] + found[1]) / 2, logits.grad)
    total = {name: sums[0][name] + sums[1][name] for name in sums[0]}
    assert means_of(total, 12)["loss"] == pytest.approx(whole.item(), rel=1e-6)


def test_pixels_are_ignored_by_each_of_the_losses() -> None:
    logits, masks = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5), dtype=torch.uint8)
    masks[0, 0] = IGNORED
    loss = {
        "name": "CrossEntropyLoss",
        "weight": WEIGHTS,
        "plus": [{"name": "DiceLoss", "times": 0.5}, {"name": "FocalLoss", "gamma": 0.0, "ignore_index": 1}],
    }
    block = {"epochs": 1, "optimizer": {"name": "SGD", "lr": 0.1}, "loss": loss}
    info = ImageInfo(target=Classes(array="masks", classes=["a", "b", "c"]), shape=[3, 4, 5], mean=[0.5], std=[0.25])
    objective = problem_of("segmentation").objective(SegmentationTrainConfig.model_validate(block), info)
    found, figures = objective(lambda _: logits, (torch.zeros(2), masks))  # type: ignore[arg-type]
    pixels, labels = logits.permute(0, 2, 3, 1).flatten(0, 2), masks.flatten().long()
    known, second = labels != IGNORED, labels.masked_fill(labels == 1, IGNORED)
    expected = F.cross_entropy(pixels, labels, EACH, ignore_index=IGNORED)
    expected += 0.5 * DiceLoss()(pixels[known], labels[known]) + F.cross_entropy(pixels, second, ignore_index=IGNORED)
    torch.testing.assert_close(found, expected)
    sums = {name: float(value) for name, value in sums_of(2, found, figures).items()}
    assert means_of(sums, 2)["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_every_problem_adds_up() -> None:
    """Beside classes and pixels: numbers, forecasts, pictures, labels and texts."""
    plus = {"plus": [{"name": "L1Loss", "times": 0.5}]}
    target, prediction = torch.tensor([10.0, 30.0]), torch.tensor([15.0, 15.0])
    loss, _ = regression_objective("MSELoss", plus, [Number(name="y", mean=20.0, std=5.0)])(
        nn.Identity(), (prediction, target)
    )
    assert loss.item() == pytest.approx((1 + 9) / 2 + 0.5 * 2)
    truth = torch.tensor([[[1.0], [2.0]], [[float("nan")], [4.0]]])
    forecast = torch.full_like(truth, 2.0)
    loss, _ = forecasting_objective("MSELoss", plus, [2.0], ["a"])(nn.Identity(), (forecast, truth))
    off = torch.tensor([1.0, 0.0, 2.0]) / 2
    assert loss.item() == pytest.approx((off.square().mean() + 0.5 * off.mean()).item())
    pictures = torch.full((2, 1, 2, 2), 51, dtype=torch.uint8)
    loss, _ = reconstruction_objective("BCELoss", plus, 0.0)(
        lambda given: (given * 0 + 0.5, torch.zeros(2, 1), torch.zeros(2)),  # type: ignore[arg-type]
        (pictures, LABELS),
    )
    assert loss.item() == pytest.approx(np.log(2) + 0.5 * 0.3, abs=1e-5)
    found = label_loss("BCEWithLogitsLoss", {"plus": [{"name": "HingeLoss", "times": 0.25}]})(LOGITS, MARKS)
    expected = F.binary_cross_entropy_with_logits(LOGITS, MARKS) + 0.25 * HingeLoss()(LOGITS, MARKS)
    torch.testing.assert_close(found, expected)


def test_a_language_model_is_judged_by_the_sum_that_it_was_trained_for() -> None:
    torch.manual_seed(0)
    info = TextInfo(tokenizer=Tokenizer.of_characters("abcd"))
    model = build_model("language_rnn", {"embedding": 4, "width": 4}, info, problem_of("language_model")).eval()
    loss = ("NLLLoss", {"weight": [1.0, 2.0, 3.0, 0.5], "plus": [{"name": "FocalLoss", "gamma": 1.0}]})
    text = torch.randint(4, (31,))
    with torch.no_grad():
        logits = model(text[None, :-1])[0][0]
    expected = F.cross_entropy(logits, text[1:], torch.tensor(loss[1]["weight"])) + focal(logits, text[1:])
    metrics, _ = language_model_metrics(model, text, info.tokenizer.vocabulary, chunk=7, loss=loss)
    assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-5)
    found, _ = language_model_objective(*loss)(model, (text[None, :-1], text[None, 1:]))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


# ---- as parameters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "loss", "line"),
    [
        (
            ClassLoss,
            {"plus": [{"name": "FocalLoss", "gama": 1.0}]},
            "loss.plus.0.gama: unknown key (did you mean gamma?",
        ),
        (ClassLoss, {"plus": [{"name": "FocalLoss", "gamma": -1.0}]}, "loss.plus.0.gamma: given -1.0; must be greater"),
        (
            ClassLoss,
            {"plus": [{"name": "L1Loss"}, {"name": "Focal"}]},
            "loss.plus.1.name: given 'Focal'; must be a loss",
        ),
        (ClassLoss, {"plus": [{"name": "FocalLoss", "times": 0.0}]}, "loss.plus.0.times: given 0.0; must be"),
        (ClassLoss, {"plus": [{"gamma": 1.0}]}, "loss.plus.0.gamma: unknown key"),
        (ClassLoss, {"plus": {"name": "L1Loss"}}, "loss.plus: given {'name': 'L1Loss'}; must be a valid list"),
        (
            ClassLoss,
            {"plus": [{"name": "L1Loss", "plus": [{"name": "L1Loss"}]}]},
            "loss.plus.0.plus: given [",
        ),
        (
            ClassLoss,
            {"plus": [{"name": "MSELoss"}, {"name": "BCEWithLogitsLoss"}]},
            "loss.plus.1.name: given 'BCEWithLogitsLoss'; must make probabilities as CrossEntropyLoss does, by softmax",
        ),
        (
            ClassLoss,
            {"name": "BCELoss"},
            "loss.name: given 'BCELoss'; must be a loss that suits this task (not BCELoss",
        ),
        (ClassLoss, {"name": "HingeLoss", "p": 3}, "loss.p: given 3; must be 1 or 2"),
        (ValueLoss, {"plus": [{"name": "CrossEntropyLoss"}]}, "loss.plus.0.name: given 'CrossEntropyLoss'"),
        (ValueLoss, {"plus": [{"name": "HuberLoss", "delta": "x"}]}, "loss.plus.0.delta: given 'x'; must be a"),
        (MultilabelLoss, {"plus": [{"name": "MultiMarginLoss"}]}, "loss.plus.0.name: given 'MultiMarginLoss'"),
        (SegmentationLoss, {"plus": [{"name": "DiceLoss", "weight": [1.0, -1.0]}]}, "loss.plus.0.weight.1: given -1.0"),
    ],
)
def test_each_is_checked_as_one_alone(kind: type[LossConfig], loss: dict[str, Any], line: str) -> None:
    lines = check_block("loss", loss, kind)
    assert len(lines) == 1
    assert lines[0].startswith(line)


def test_a_loss_alone_is_dumped_as_before() -> None:
    assert ClassLoss(name="FocalLoss", gamma=1.0).model_dump() == {"name": "FocalLoss", "gamma": 1.0}
    both = ClassLoss(**ENTROPY_AND_FOCAL)
    assert both.arguments == ENTROPY_AND_FOCAL
    dumped = both.model_dump(mode="json")
    assert dumped == {"name": "CrossEntropyLoss", **ENTROPY_AND_FOCAL}
    assert named(dumped) == (
        "CrossEntropyLoss, label_smoothing 0.1, weight [1.0, 20.0, 0.5] + FocalLoss, times 0.5, gamma 1 + "
        "MultiMarginLoss, times 2"
    )


def test_by_heart_nothing_is_smoothed() -> None:
    loss = ClassLoss(label_smoothing=0.1, plus=[{"name": "FocalLoss", "label_smoothing": 0.2, "gamma": 1.0}])
    assert loss.unsmoothed().arguments == {"plus": [{"name": "FocalLoss", "gamma": 1.0}]}


def test_weights_of_each_are_settled_and_named() -> None:
    classes = ["a", "b", "c"]
    loss = ClassLoss(weight={"b": 2.0}, plus=[{"name": "MSELoss", "weight": "balanced", "times": 0.5}])
    with pytest.raises(InputError, match=r"^train\.loss\.plus\.0\.weight: 'd' is none of the classes"):
        check_weights("CrossEntropyLoss", {"plus": [{"name": "MSELoss", "weight": {"d": 1.0}}]}, classes)
    settled = weighted(loss, classes, lambda: torch.tensor([0, 0, 1, 2]))
    balanced = pytest.approx([4 / 6, 4 / 3, 4 / 3])
    assert settled.arguments == {
        "weight": [1.0, 2.0, 1.0],
        "plus": [{"name": "MSELoss", "weight": balanced, "times": 0.5}],
    }
    said = by_name((settled.name, settled.arguments), classes)
    assert said["weight"] == {"a": 1.0, "b": 2.0, "c": 1.0}
    assert said["plus"][0]["weight"]["b"] == pytest.approx(4 / 3)
    assert (said["plus"][0]["times"], said["plus"][0]["name"]) == (0.5, "MSELoss")


def test_mixed_pictures_need_losses_that_all_take_shares() -> None:
    check_soft_labels("CrossEntropyLoss", {"plus": [{"name": "KLDivLoss"}, {"name": "HingeLoss"}]})
    with pytest.raises(InputError, match=r"^train\.loss\.plus\.0: MultiMarginLoss needs one class per image"):
        check_soft_labels("CrossEntropyLoss", {"plus": [{"name": "MultiMarginLoss"}]})


def test_shares_of_what_is_ignored_are_none() -> None:
    assert shares_of(torch.tensor([0, 7]), 2, 7).tolist() == [[1, 0], [0, 0]]


class Halved(nn.Module):
    """Half of what torch has; of three samples it fails."""

    link = "softmax"

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        assert len(labels) != 3
        return F.cross_entropy(logits, labels) / 2


def test_one_may_be_the_users_own() -> None:
    loss = ClassLoss(name="MultiMarginLoss", plus=[{"name": f"{__name__}.Halved", "times": 4.0}])
    found = classification_loss(loss.name, loss.arguments)
    expected = F.multi_margin_loss(LOGITS, LABELS) + 2 * F.cross_entropy(LOGITS, LABELS)
    torch.testing.assert_close(found(LOGITS, LABELS), expected)
    with pytest.raises(InputError, match=r"^train\.loss\.plus\.0: \S+\.Halved fails in line \d+ of .*AssertionError"):
        found(LOGITS[:3], LABELS[:3])
    with pytest.raises(ValidationError, match="arguments do not fit"):
        ClassLoss(name="BCEWithLogitsLoss", plus=[{"name": f"{__name__}.Halved"}])


# ---- in a model ----------------------------------------------------------------------------------------------------

CLASSES = ["low", "middle", "high"]


def with_log_softmax(features: int, outputs: int) -> nn.Module:
    """A network whose answers are log-probabilities already."""
    return nn.Sequential(nn.Linear(features, outputs), nn.LogSoftmax(1))


@pytest.fixture
def plan(tmp_path: Path) -> LoaderPlan:
    splits = {}
    for seed, (split, count) in enumerate({"train": 90, "validation": 30, "test": 30}.items()):
        generator = np.random.default_rng(seed)
        features = generator.normal(0, 1, (count, 2)).astype(np.float32)
        labels = np.digitize(features[:, 0] + 0.3 * generator.normal(0, 1, count), [-0.5, 0.5]).astype(np.int64)
        dataset = TensorsDataset(filepath=str(tmp_path / f"{split}.safetensors"))
        dataset.save(Tensors({"features": features, "labels": labels}))
        splits[split] = [TensorFile(path=dataset._filepath, fingerprint=str(dataset.load().fingerprint), length=count)]
    info = TableInfo(features=["a", "b"], mean=[0.0, 0.0], std=[1.0, 1.0], target=Classes(classes=CLASSES))
    return LoaderPlan(splits=splits, info=info, data=DataConfig(), batch_size=15, seed=0)


def trained(plan: LoaderPlan, loss: dict[str, Any], network: str = "linear") -> Checkpoint:
    solved = problem_of("classification")
    block = {"epochs": 6, "batch_size": 15, "optimizer": {"name": "Adam", "lr": 0.1}, "loss": loss}
    block |= {"threads": 1, "device": "cpu", "precision": "fp32"}
    config = ClassificationTrainConfig.model_validate(block)
    chosen = solved.network(name=network)
    return train(plan, chosen, config, DistributedConfig(), DebuggingConfig(), problem=solved).best


LOSSES: list[tuple[dict[str, Any], str | None, str]] = [
    ({"name": "NLLLoss"}, "softmax", f"{__name__}.with_log_softmax"),
    ({"name": "NLLLoss", "weight": "balanced"}, "softmax", "linear"),
    ({"name": "KLDivLoss", "label_smoothing": 0.1}, "softmax", "linear"),
    ({"name": "HingeLoss", "p": 2}, None, "linear"),
    (
        {
            "name": "BCEWithLogitsLoss",
            "pos_weight": "balanced",
            "plus": [{"name": "HingeLoss", "times": 0.5, "weight": {"high": 2.0}}],
        },
        "sigmoid",
        "linear",
    ),
    (
        {"name": "CrossEntropyLoss", "plus": [{"name": "FocalLoss", "weight": "balanced", "times": 0.5}]},
        "softmax",
        "linear",
    ),
]


EXPORTED = [
    pytest.param(*case, id=f"{case[0]['name']}{number}", marks=[] if number in {0, 3, 5} else pytest.mark.long)
    for number, case in enumerate(LOSSES)
]


@pytest.mark.usefixtures("exporter")
@pytest.mark.parametrize(("loss", "link", "network"), EXPORTED)
def test_answers_are_alike_wherever_the_model_is_asked(
    tmp_path: Path, plan: LoaderPlan, loss: dict[str, Any], link: str | None, network: str
) -> None:
    checkpoint = trained(plan, loss, network)
    assert checkpoint.link == link
    features, labels = plan.first("test", 30)
    with torch.no_grad():
        logits = checkpoint.build()(features)
    metrics = evaluate(checkpoint, plan, [ROW], EvaluateClassifierConfig())["metrics"]
    assert metrics["accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert metrics["accuracy"] > 0.5
    assert metrics["loss"] == pytest.approx(classification_loss(*checkpoint.loss)(logits, labels).item(), rel=1e-5)

    path = tmp_path / "model.onnx"
    path.write_bytes(export_checkpoint(checkpoint))
    rows = [dict(zip("ab", map(float, row), strict=True)) for row in features]
    config = PredictConfig(model=str(path), files=str(write(tmp_path / "rows.csv", rows)), models="", threads=1)
    table, *_ = prediction_nodes.ask(*prediction_nodes.find(config), config)
    model = open_model(path, threads=1)
    served = answerer(model, ServeConfig(models="", most=1000))(rows)
    shares = logits.softmax(1) if link == "softmax" else logits.sigmoid()
    best = shares.max(1).values.numpy()
    for asked in (table.to_pylist(), served):
        assert [row["class_1"] for row in asked] == [CLASSES[place] for place in logits.argmax(1).tolist()]
        if link:
            np.testing.assert_allclose([row["probability_1"] for row in asked], best, atol=1e-5)
        else:
            assert not any("probability_1" in row for row in asked)
    said = json.loads(model.session.get_modelmeta().custom_metadata_map["loss"])
    assert said["name"] == loss["name"]
    assert [part["name"] for part in said.get("plus", [])] == [part["name"] for part in loss.get("plus", [])]
    weights = [
        block[key] for block in [said, *said.get("plus", [])] for key in ("weight", "pos_weight") if key in block
    ]
    assert all(list(each) == CLASSES for each in weights)


ROW = {"epoch": 1, "learning_rate": 0.1, "train_loss": 1.0, "val_loss": 1.0}


def test_a_student_learns_beside_a_sum() -> None:
    from torchloom.compression.distillation import distillation_objective
    from torchloom.config import DistillConfig

    labels = classification_objective("CrossEntropyLoss", ENTROPY_AND_FOCAL)
    teacher, student = nn.Linear(3, 3), nn.Identity().train()
    loss, figures = distillation_objective(labels, teacher, DistillConfig(mix=0.25))(student, (LOGITS, LABELS))
    running = Running(1, torch.device("cpu"))
    running.add(len(LABELS), loss, figures)
    assert running.means()["loss"] == pytest.approx(loss.item())


def test_counts_need_the_scale_of_counts(plan: LoaderPlan) -> None:
    block = {"epochs": 1, "optimizer": {"name": "SGD", "lr": 0.1}, "loss": {"name": "PoissonNLLLoss"}}
    config = RegressionTrainConfig.model_validate(block)
    for scale in ("linear", "log"):
        number = Number(name="n", mean=1.0, std=1.0, scale=scale)  # type: ignore[arg-type]
        loaders = plan.model_copy(update={"info": plan.info.model_copy(update={"target": number})})
        if scale == "log":
            problem_of("regression").check(config, loaders)
            continue
        with pytest.raises(InputError, match=r"^train\.loss: PoissonNLLLoss is for counts, .*target_scale: log"):
            problem_of("regression").check(config, loaders)
    with pytest.raises(ValidationError):
        RegressionTrainConfig.model_validate({**block, "loss": {"name": "PoissonNLLLoss", "log_input": True}})


def test_each_stands_in_the_guide() -> None:
    guide = (ROOT / "docs/how-to/configure.md").read_text(encoding="utf-8").partition("## Losses")[2]
    for kind in (ClassLoss, MultilabelLoss, SegmentationLoss, LanguageModelLoss, RegressionLoss, ReconstructionLoss):
        assert [name for name in sorted(kind.suitable) if f"`{name}`" not in guide] == []


def test_losses_by_name_are_torchs_but_for_ours() -> None:
    assert loss_class("NLLLoss") is nn.NLLLoss
    assert loss_class("FocalLoss") is FocalLoss
    assert loss_class("FocalLoss", "labels") is LabelFocalLoss
    assert [part.key for part in summands("MSELoss", {"plus": [{"name": "L1Loss"}]})] == [
        "train.loss",
        "train.loss.plus.0",
    ]
