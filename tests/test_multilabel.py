"""Labels of which several may hold: how they are learnt, judged and answered."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from pydantic import ValidationError
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torch import Tensor, nn
from torchmetrics.functional.classification import multilabel_average_precision, multilabel_f1_score

from torchloom.config import DataConfig
from torchloom.data.batches import ImageBatches
from torchloom.data.targets import Labels
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.export.onnx import export_checkpoint
from torchloom.inference.model import Model
from torchloom.modalities import ImageInfo
from torchloom.models import build_model
from torchloom.problems import problem_of
from torchloom.problems.losses import label_loss
from torchloom.problems.multilabel.config import MultilabelLoss, MultilabelTrainConfig
from torchloom.problems.multilabel.metrics import label_objective, worst
from torchloom.problems.scores import best_thresholds, class_scores, label_scores
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan, TensorFile

MULTILABEL = problem_of("multilabel")
NAMES = ["up", "down", "_left $x$"]
TARGET = Labels(labels=NAMES)
INFO = ImageInfo(target=TARGET, shape=[1, 4, 4], mean=[0.5], std=[0.25])
TRAIN = {"epochs": 1, "optimizer": {"name": "SGD", "lr": 0.1}}
CONFIG = MultilabelTrainConfig.model_validate(TRAIN)


def answers(count: int = 200) -> tuple[Tensor, Tensor]:
    """Logits (N, K), and marks (N, K) that follow them in part."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(count, 3, generator=generator)
    marks = logits + 2 * torch.randn(count, 3, generator=generator) > torch.tensor([0.0, 1.0, 3.0])
    return logits, marks.to(torch.uint8)


# ---- what is minimised ---------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_torch_and_figures_are_those_of_torchmetrics() -> None:
    logits, marks = answers()
    weights = [1.0, 2.0, 5.0]
    objective = label_objective(label_loss("BCEWithLogitsLoss", {"pos_weight": weights}))
    loss, figures = objective(nn.Identity(), (logits, marks))
    expected = F.binary_cross_entropy_with_logits(logits, marks.float(), pos_weight=torch.tensor(weights))
    torch.testing.assert_close(loss, expected)
    assert figures["subset_accuracy"].item() == pytest.approx(
        ((logits > 0) == (marks > 0)).all(1).float().mean().item()
    )
    found = MULTILABEL.validation(CONFIG, INFO)
    assert found
    assert found(logits, marks) == pytest.approx(
        {
            "macro_f1": multilabel_f1_score(logits, marks, 3, average="macro").item(),
            "mean_average_precision": multilabel_average_precision(logits, marks.long(), 3).item(),
        },
        abs=1e-5,
    )


def test_each_member_of_a_network_is_held_to_the_marks() -> None:
    logits, marks = answers(10)
    members = torch.stack([logits, -logits], 1)
    loss, _ = label_objective(label_loss("BCEWithLogitsLoss", {}))(nn.Identity(), (members, marks))
    each = [F.binary_cross_entropy_with_logits(part, marks.float()) for part in (logits, -logits)]
    torch.testing.assert_close(loss, torch.stack(each).mean())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ([1.0, 2.5, 3.0], [1.0, 2.5, 3.0]),
        ({"down": 3.0}, [1.0, 3.0, 1.0]),
        ("balanced", [1.0, 3.0, 9.0]),
    ],
)
def test_weights_are_said_in_several_ways(given: Any, expected: list[float] | None) -> None:
    marks = torch.zeros(100, 3, dtype=torch.uint8)
    for place, count in enumerate((50, 25, 10)):
        marks[:count, place] = 1
    loaders: Any = SimpleNamespace(info=INFO, learnt=lambda: marks, length=lambda split: 9)
    config = MultilabelTrainConfig.model_validate({**TRAIN, "loss": {"name": "BCEWithLogitsLoss", "pos_weight": given}})
    MULTILABEL.check(config, loaders)
    settled = MULTILABEL.settled(config, loaders)
    assert settled.loss.arguments.get("pos_weight") == expected
    logits, marks = answers(20)
    mean, _ = MULTILABEL.objective(settled, INFO)(nn.Identity(), (logits, marks))
    weights = torch.tensor(expected) if expected else None
    torch.testing.assert_close(mean, F.binary_cross_entropy_with_logits(logits, marks.float(), pos_weight=weights))


def test_weights_of_other_labels_are_refused() -> None:
    loaders: Any = SimpleNamespace(info=INFO, length=lambda split: 9)
    for given, message in {
        "{left: 3.0}": r"^train\.loss\.pos_weight: 'left' is none of the labels \(did you mean '_left \$x\$'\?\); t",
        "[1.0]": r"^train\.loss\.pos_weight: BCE\w+ was given 1 weight, but there are 3 labels: 'up', 'down'",
    }.items():
        loss = {"name": "BCEWithLogitsLoss", "pos_weight": yaml.safe_load(given)}
        with pytest.raises(InputError, match=message):
            MULTILABEL.check(MultilabelTrainConfig.model_validate({**TRAIN, "loss": loss}), loaders)


@pytest.mark.parametrize("block", [{"name": "MSELoss"}, {"pos_weight": "half"}, {"pos_weight": [-1.0]}, {"wight": 3}])
def test_what_the_loss_cannot_be(block: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MultilabelLoss.model_validate({"name": "BCEWithLogitsLoss", **block})


# ---- how it is judged ----------------------------------------------------------------------------------------------


def test_figures_are_those_of_scikit_learn() -> None:
    logits, marks = (part.numpy() for part in answers())
    probabilities, least = 1 / (1 + np.exp(-logits)), [0.5, 0.4, 0.7]
    scores, rows = label_scores(marks, probabilities, least)
    found = probabilities >= np.array(least)
    assert scores == pytest.approx(
        {
            "subset_accuracy": (found == marks).all(1).mean(),
            "macro_f1": f1_score(marks, found, average="macro"),
            "micro_f1": f1_score(marks, found, average="micro"),
            "mean_average_precision": average_precision_score(marks, probabilities, average="macro"),
            "roc_auc": roc_auc_score(marks, probabilities, average="macro"),
        }
    )
    assert [row["f1"] for row in rows] == pytest.approx(f1_score(marks, found, average=None))
    assert [row["samples"] for row in rows] == marks.sum(0).tolist()
    assert [row["threshold"] for row in rows] == least


def test_labels_that_never_come_up_are_left_out_of_means() -> None:
    marks = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 0]])
    scores, rows = label_scores(marks, np.array([[0.9, 0.1, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.1]]), [0.5] * 3)
    assert scores == dict.fromkeys(scores, 1.0)
    assert rows[1] == {
        **dict.fromkeys(["precision", "recall", "f1", "average_precision"], 0.0), "threshold": 0.5, "samples": 0
    }  # fmt: skip
    assert label_scores(0 * marks, 0.1 * marks, [0.5] * 3)[0] == {"subset_accuracy": 1.0}


def test_a_threshold_has_the_greatest_f1() -> None:
    logits, marks = (part.numpy() for part in answers())
    probabilities = (1 / (1 + np.exp(-logits))).round(2)  # with equal ones among them
    for place, threshold in enumerate(best_thresholds(marks, probabilities)):
        each = [f1_score(marks[:, place], probabilities[:, place] >= one) for one in np.linspace(0, 1, 101) - 0.005]
        reached = f1_score(marks[:, place], probabilities[:, place] >= threshold)
        assert reached == pytest.approx(max(each))
    assert best_thresholds(np.array([[0, 1], [0, 1]]), np.array([[0.2, 0.3], [0.4, 0.9]])) == [0.5, pytest.approx(0.15)]


def test_those_that_are_the_furthest_off_come_first() -> None:
    marks = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 0]], dtype=torch.uint8)
    found = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.9, 0.9], [0.1, 0.2]])
    assert worst(marks, found, torch.tensor([0.5, 0.5])) == [1, 2]
    assert worst(marks, found, torch.tensor([0.95, 0.5]), count=1) == [1]


def test_classes_of_training_and_new_ones() -> None:
    assert class_scores(["a", "b", "new"], ["a", "b", "b"]) == pytest.approx(
        {"accuracy": 2 / 3, "macro_f1": (1 + 2 / 3 + 0) / 3}
    )


# ---- with pictures, from the loaders to the answer -----------------------------------------------------------------


def pictures(count: int, seed: int) -> dict[str, np.ndarray]:
    """Bright above, bright below, or bright at the left."""
    generator = np.random.default_rng(seed)
    marks = (generator.random((count, 3)) < [0.5, 0.4, 0.3]).astype(np.uint8)
    images = generator.integers(0, 160, (count, 4, 4, 1))
    images[:, :2] += 40 * marks[:, 0, None, None, None]
    images[:, 2:] += 40 * marks[:, 1, None, None, None]
    images[:, :, :2] += 40 * marks[:, 2, None, None, None]
    return {"images": images.astype(np.uint8), "labels": marks}


@pytest.fixture
def plan(tmp_path: Path) -> LoaderPlan:
    splits = {}
    for seed, split in enumerate(("train", "validation", "test")):
        dataset = TensorsDataset(filepath=str(tmp_path / f"{split}.safetensors"))
        dataset.save(Tensors(pictures(400 if split == "train" else 100, seed)))
        saved = dataset.load()
        assert saved.path
        splits[split] = [
            TensorFile(path=saved.path, fingerprint=str(saved.fingerprint), length=len(saved.arrays["labels"]))
        ]
    return LoaderPlan(splits=splits, info=INFO, data=DataConfig(), batch_size=16, seed=0)


def trained(plan: LoaderPlan, **settings: Any) -> tuple[Checkpoint, list[dict[str, float]]]:
    from torchloom.config import DebuggingConfig, DistributedConfig
    from torchloom.pipelines.training.nodes import train

    config = MultilabelTrainConfig.model_validate(
        {"epochs": 4, "batch_size": 16, "optimizer": {"name": "Adam", "lr": 0.02}, "threads": 1, **settings}
    )
    network = MULTILABEL.network(name="mlp", hidden=[16])
    found = train(plan, network, config, DistributedConfig(), DebuggingConfig(), problem=MULTILABEL)
    return found.best, found.history


def test_pictures_with_several_labels(plan: LoaderPlan, exporter: None) -> None:
    checkpoint, history = trained(plan, threshold="validation", monitor="macro_f1")
    assert history[-1]["val_macro_f1"] > 0.6
    assert checkpoint.training["val_macro_f1"] == max(row["val_macro_f1"] for row in history)
    target = checkpoint.info.target
    assert isinstance(target, Labels)
    assert target.thresholds
    assert target.thresholds != [0.5] * 3
    reports = MULTILABEL.evaluate(checkpoint, plan, history, MULTILABEL.evaluation())
    images, marks = plan.first("test", 1000)
    with torch.no_grad():
        probabilities = checkpoint.build()(images).sigmoid().numpy()
    expected, _ = label_scores(marks.numpy(), probabilities, target.thresholds)
    assert {name: reports["metrics"][name] for name in expected} == pytest.approx(expected)
    assert list(reports["per_class"]) == NAMES
    assert [row["threshold"] for row in reports["per_class"].values()] == target.thresholds
    assert 0.6 < expected["macro_f1"] < 1
    wrong = [row["test_sample"] for row in reports["mistakes"]]
    found = probabilities >= np.array(target.thresholds, dtype=np.float32)
    assert sorted(wrong) == np.flatnonzero((found != marks.numpy()).any(1)).tolist()
    model = Model(export_checkpoint(checkpoint), threads=1)
    assert model.session.get_outputs()[0].name == "probabilities"
    assert json.loads(model.session.get_modelmeta().custom_metadata_map["target"])["thresholds"] == target.thresholds
    np.testing.assert_allclose(model.run("probabilities", images=images.numpy()), probabilities, atol=1e-5)
    assert model.problem.said(model) == {"labels": NAMES, "thresholds": target.thresholds}
    schema, answer = model.answering(_config())
    assert schema.names == ["labels", *(f"probability_{name}" for name in NAMES)]
    columns = answer(list(images.numpy()))
    held = [";".join(name for name, holds in zip(NAMES, row, strict=True) if holds) for row in found]
    assert columns["labels"] == held
    assert "" in held
    assert model.problem.caption(model, {"labels": ""}) == "none"


@pytest.mark.parametrize("name", ["HingeLoss", "MultiLabelMarginLoss"])
def test_what_is_no_probability_is_not_called_one(plan: LoaderPlan, exporter: None, name: str) -> None:
    with_focal = {"name": name, "plus": [{"name": "FocalLoss", "pos_weight": "balanced", "times": 0.5}]}
    if name == "MultiLabelMarginLoss":
        with pytest.raises(InputError, match=r"^train\.threshold: MultiLabelMarginLoss puts labels in an order"):
            trained(plan, loss=with_focal)
    checkpoint, history = trained(plan, loss=with_focal, threshold="validation", epochs=2)
    reports = MULTILABEL.evaluate(checkpoint, plan, history, MULTILABEL.evaluation())
    images, marks = plan.first("test", 1000)
    with torch.no_grad():
        logits = checkpoint.build()(images)
    expected = label_loss(*checkpoint.loss)(logits, marks.float()).item()
    assert reports["metrics"]["loss"] == pytest.approx(expected, rel=1e-5)
    model = Model(export_checkpoint(checkpoint), threads=1)
    assert model.metadata["probabilities"] is None
    assert model.metadata["loss"]["name"] == name
    assert list(model.metadata["loss"]["plus"][0]["pos_weight"]) == NAMES
    schema, answer = model.answering(_config())
    assert schema.names == ["labels", *(f"score_{label}" for label in NAMES)]
    columns = answer(list(images.numpy()))
    np.testing.assert_allclose(columns[f"score_{NAMES[0]}"], logits.sigmoid()[:, 0], atol=1e-5)
    told = [[label for label, held in zip(NAMES, row, strict=True) if held] for row in marks.tolist()]
    judged = model.problem.judged(columns, told, model.info)
    assert judged["mean_average_precision"] == pytest.approx(reports["metrics"]["mean_average_precision"], abs=1e-6)
    rows = MULTILABEL.answers_to(checkpoint, plan, MULTILABEL.evaluation())
    assert f"score_{NAMES[0]}" in rows[0]


def _config() -> Any:
    from torchloom.config import PredictConfig

    return PredictConfig(model="m", files="f", models="")


def test_a_threshold_of_a_half_or_another(plan: LoaderPlan) -> None:
    for threshold in (0.5, 0.2):
        target = trained(plan, epochs=1, threshold=threshold)[0].info.target
        assert isinstance(target, Labels)
        assert target.thresholds == [threshold] * 3
    without = plan.model_copy(update={"splits": {**plan.splits, "validation": []}})
    with pytest.raises(InputError, match=r"^train\.threshold: validation needs a validation split"):
        trained(without, threshold="validation")


def test_pictures_are_turned_but_not_mixed() -> None:
    arrays = {name: torch.from_numpy(array) for name, array in pictures(8, 0).items()}
    batches = ImageBatches(arrays["images"], arrays["labels"])
    images, marks = batches[torch.tensor([3, 1])]
    assert (images.shape, marks.shape, marks.dtype) == ((2, 1, 4, 4), (2, 3), torch.uint8)


def test_a_model_of_other_labels_is_refused(exporter: None) -> None:
    weights = dict(build_model("mlp", {"hidden": [4]}, INFO, MULTILABEL).state_dict())
    found = Checkpoint(
        network="mlp", arguments={"hidden": [4]}, problem="multilabel", info=INFO, training={}, weights=weights
    )
    path = export_checkpoint(found)
    model = Model(path, threads=1)
    fewer = TARGET.model_copy(update={"thresholds": [0.5]})
    model.info = model.info.model_copy(update={"target": fewer})
    with pytest.raises(ValueError, match="3 labels, 3 probabilities"):
        model.problem.check_exported(model)


@pytest.mark.parametrize("monitor", ["micro_f1", "roc_auc"])
def test_any_figure_of_labels_may_be_watched(plan: LoaderPlan, monitor: str) -> None:
    checkpoint, history = trained(plan, monitor=monitor)
    assert checkpoint.training[f"val_{monitor}"] == max(row[f"val_{monitor}"] for row in history) > 0.5


def test_a_model_of_labels_that_has_learnt_nothing_is_told_so(
    plan: LoaderPlan, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint, history = trained(plan, epochs=1)
    flat = {name: 0 * each if name.endswith(("weight", "bias")) else each for name, each in checkpoint.weights.items()}
    same = checkpoint.model_copy(update={"weights": flat})
    metrics = MULTILABEL.evaluate(same, plan, history, MULTILABEL.evaluation())["metrics"]
    assert metrics["mean_average_precision"] == pytest.approx(metrics["mean_average_precision_of_chance"])
    assert "It tells labels no better (mean average precision " in caplog.text
    assert MULTILABEL.doubt({**metrics, "mean_average_precision": 0.9}) is None
    silent = MULTILABEL.doubt({**metrics, "mean_average_precision": 0.9, "micro_f1": 0.0})
    assert silent is not None
    assert silent.startswith("No label is answered")


def test_answers_of_labels_are_kept_beside_the_truth(plan: LoaderPlan) -> None:
    checkpoint, _ = trained(plan, threshold=0.3)
    rows = MULTILABEL.answers_to(checkpoint, plan, MULTILABEL.evaluation())
    marks = plan.targets("test").numpy() > 0
    assert [row["true"] for row in rows] == [";".join(np.array(NAMES)[held]) for held in marks]
    for row in rows:
        held = [name for name in NAMES if row[f"probability_{name}"] >= np.float32(0.3)]
        assert row["predicted"] == ";".join(held)
