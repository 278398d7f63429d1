"""Classes of which one is rare, from the batches to the answers."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kedro.io import DataCatalog
from pydantic import ValidationError
from sklearn import metrics
from torch import Tensor

from tests.stages import evaluate
from tests.tables import write
from torchloom.compression.comparison import onnx_accuracy
from torchloom.config import DataConfig, DebuggingConfig, DistributedConfig, PredictConfig, ServeConfig
from torchloom.data.batches import BucketedBatches, continue_epoch, start_epoch
from torchloom.data.targets import Classes, Number
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.export.onnx import export_checkpoint
from torchloom.inference.model import open_model
from torchloom.inference.serving import answerer
from torchloom.modalities import ImageInfo, TableInfo
from torchloom.pipelines.prediction import nodes as prediction_nodes
from torchloom.pipelines.training.nodes import train
from torchloom.problems import problem_of
from torchloom.problems.base import Problem
from torchloom.problems.classification import threshold_of
from torchloom.problems.classification.config import EvaluateClassifierConfig
from torchloom.problems.classification.metrics import best_threshold, classification_metrics
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan, TensorFile

TRAIN: dict[str, Any] = {"epochs": 3, "batch_size": 20, "optimizer": {"name": "Adam", "lr": 0.02}}
TRAIN |= {"threads": 1, "device": "cpu", "precision": "fp32"}
COUNTS = {"train": 200, "validation": 100, "test": 100}
NAMES = ["common", "rare"]


def drawn(count: int, seed: int) -> dict[str, np.ndarray]:
    """One in ten is of the rare class, whose first feature is greater, but not always."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(count) % 10 == 0).astype(np.int64)
    features = generator.normal(0, 1, (count, 3)).astype(np.float32)
    features[:, 0] += 1.5 * labels
    return {"features": features, "labels": labels, "target": 100 + 20 * features[:, 0]}


def plan(folder: Path, problem: str = "classification", **data: Any) -> LoaderPlan:
    splits = {}
    for number, (split, count) in enumerate(COUNTS.items()):
        dataset = TensorsDataset(filepath=str(folder / f"{split}.safetensors"))
        arrays = drawn(count, number)
        del arrays["target" if problem == "classification" else "labels"]
        dataset.save(Tensors(arrays))
        splits[split] = [TensorFile(path=dataset._filepath, fingerprint=str(dataset.load().fingerprint), length=count)]
    target = Classes(classes=NAMES) if problem == "classification" else Number(name="price", mean=103, std=20)
    info = TableInfo(features=["a", "b", "c"], mean=[0.15, 0, 0], std=[1.0, 1.0, 1.0], target=target)
    return LoaderPlan(splits=splits, info=info, data=DataConfig(**data), batch_size=20, seed=0)


def trained(loaders: LoaderPlan, problem: str = "classification", **settings: Any) -> Any:
    solved: Problem = problem_of(problem)
    training, network = solved.training(**{**TRAIN, **settings}), solved.network(name="linear")
    return train(loaders, network, training, DistributedConfig(), DebuggingConfig(), problem=solved)


def recall(checkpoint: Checkpoint, loaders: LoaderPlan) -> float:
    """Of the rare class, on the test split."""
    features, labels = loaders.first("test", COUNTS["test"])
    answers: Tensor = checkpoint.build()(features).argmax(1)
    return float((answers[labels == 1] == 1).float().mean())


# ---- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", ["balanced", {"rare": 5.0, "common": 5 / 9}])
def test_what_weights_were_used_is_said(tmp_path: Path, weight: Any, caplog: pytest.LogCaptureFixture) -> None:
    loaders = plan(tmp_path)
    with caplog.at_level(logging.INFO, logger="torchloom"):
        checkpoint = trained(loaders, loss={"name": "CrossEntropyLoss", "weight": weight}).best
    assert "train.loss.weight: common 0.5556, rare 5" in caplog.text
    assert checkpoint.loss == ("CrossEntropyLoss", {"weight": pytest.approx([5 / 9, 5.0])})
    said = problem_of("classification").described(checkpoint)["loss"]
    assert said == {"name": "CrossEntropyLoss", "weight": {"common": pytest.approx(5 / 9), "rare": 5.0}}
    plain = trained(loaders).best
    assert recall(checkpoint, loaders) > 0.5 > recall(plain, loaders)


def test_only_what_is_trained_on_is_counted(tmp_path: Path) -> None:
    loaders = plan(tmp_path, subset=50)
    counts = loaders.learnt().bincount().tolist()
    assert sum(counts) == 50
    weights = trained(loaders, loss={"name": "FocalLoss", "weight": "balanced"}).best.loss[1]["weight"]
    assert weights == pytest.approx([50 / (2 * count) for count in counts])


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "FocalLoss"])
def test_pixels_are_weighted_by_how_many_there_are_of_a_class(tmp_path: Path, name: str) -> None:
    generator = np.random.default_rng(0)
    masks = (generator.random((10, 4, 4)) < 0.1).astype(np.uint8)
    images = generator.integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)
    dataset = TensorsDataset(filepath=str(tmp_path / "train.safetensors"))
    dataset.save(Tensors({"images": images, "masks": masks}))
    file = TensorFile(path=dataset._filepath, fingerprint=str(dataset.load().fingerprint), length=10)
    info = ImageInfo(target=Classes(array="masks", classes=NAMES), shape=[3, 4, 4], mean=[0.5] * 3, std=[0.3] * 3)
    splits = {split: [file] for split in COUNTS}
    loaders = LoaderPlan(splits=splits, info=info, data=DataConfig(), batch_size=5, seed=0)
    solved = problem_of("segmentation")
    training = solved.training(**{**TRAIN, "loss": {"name": name, "weight": "balanced"}})
    solved.check(training, loaders)
    weights = solved.settled(training, loaders).loss.arguments["weight"]
    assert weights == pytest.approx([160 / (2 * count) for count in np.bincount(masks.ravel())])
    loss, _ = solved.objective(solved.settled(training, loaders), info)(
        lambda given: torch.zeros(len(given), 2, 4, 4),  # type: ignore[arg-type]
        next(iter(loaders.loader("validation"))),
    )
    assert loss.item() == pytest.approx(np.log(2) * (0.25 if name == "FocalLoss" else 1))


# ---- the sampler ---------------------------------------------------------------------------------------------------


def labels_of(loaders: LoaderPlan, epoch: int = 0, **options: Any) -> Tensor:
    loader = loaders.loader("train", **options)
    start_epoch(loader, epoch)
    return torch.cat([batch[-1] for batch in loader])


def test_classes_are_drawn_evenly(tmp_path: Path) -> None:
    loaders = plan(tmp_path, sampler="weighted")
    epochs = [labels_of(loaders, epoch) for epoch in range(20)]
    assert {len(labels) for labels in epochs} == {200}
    assert torch.cat(epochs).float().mean() == pytest.approx(0.5, abs=0.03)  # of 4000
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(epochs[3], labels_of(loaders, 3))
    assert labels_of(plan(tmp_path)).sum() == 20
    features = torch.cat([batch[0] for batch in loaders.loader("train")])
    assert 20 < len(features.unique(dim=0)) < 120  # some come twice
    assert len(loaders.learnt()) == 200


def test_an_epoch_that_was_stopped_goes_on_with_the_same_samples(tmp_path: Path) -> None:
    loaders = plan(tmp_path, sampler="weighted")
    whole = loaders.loader("train")
    start_epoch(whole, 2)
    batches = list(whole)
    again = loaders.loader("train")
    start_epoch(again, 2)
    continue_epoch(again, 4, [])
    for (features, labels), (same, alike) in zip(batches[4:], again, strict=True):
        assert torch.equal(features, same)
        assert torch.equal(labels, alike)


def test_several_processes_share_what_is_drawn(tmp_path: Path) -> None:
    loaders = plan(tmp_path, sampler="weighted")
    parts = [labels_of(loaders, 1, share=(number, 2)).reshape(-1, 10) for number in range(2)]
    together = torch.stack(parts, 2).reshape(-1)
    assert torch.equal(together, labels_of(loaders, 1))


def test_documents_of_nearly_the_same_length_are_drawn_evenly_too() -> None:
    classes = (torch.arange(1000) % 20 == 0).long()
    batches = BucketedBatches(torch.arange(1000) % 37, 10, 0, classes=classes)
    indices = torch.cat(list(batches))
    assert len(indices) == 1000
    assert classes[indices].float().mean() == pytest.approx(0.5, abs=0.06)


def test_what_has_no_classes_cannot_be_drawn_evenly(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^data\.sampler: weighted draws .* no class for each sample"):
        plan(tmp_path, "regression", sampler="weighted").loader("train")
    assert not Classes(array="masks", classes=NAMES).one_class


# ---- what is monitored ---------------------------------------------------------------------------------------------


def validated(checkpoint: Checkpoint, loaders: LoaderPlan) -> tuple[np.ndarray, np.ndarray]:
    """The labels or targets of the validation split, and the checkpoint's answers."""
    features, targets = loaders.first("validation", COUNTS["validation"])
    answers = checkpoint.build()(features).detach()
    return targets.numpy(), answers.softmax(1).numpy() if answers.ndim == 2 else answers.numpy()


MEASURES: dict[str, Any] = {
    "macro_f1": lambda labels, shares: metrics.f1_score(labels, shares.argmax(1), average="macro"),
    "macro_precision": lambda labels, shares: metrics.precision_score(labels, shares.argmax(1), average="macro"),
    "macro_recall": lambda labels, shares: metrics.recall_score(labels, shares.argmax(1), average="macro"),
    "balanced_accuracy": lambda labels, shares: metrics.balanced_accuracy_score(labels, shares.argmax(1)),
    "roc_auc": lambda labels, shares: metrics.roc_auc_score(labels, shares[:, 1]),
    "average_precision": lambda labels, shares: metrics.average_precision_score(np.eye(2)[labels], shares),
}


@pytest.mark.parametrize("monitor", MEASURES)
def test_a_classifier_is_watched_by_what_it_is_judged_by(tmp_path: Path, monitor: str) -> None:
    """The split as a whole, in batches of which some have no sample of the rare class."""
    loaders = plan(tmp_path).model_copy(update={"evaluate_batch_size": 7})
    loss = {"name": "CrossEntropyLoss", "weight": "balanced"}
    outcome = trained(loaders, monitor=monitor, loss=loss, optimizer={"name": "SGD", "lr": 0.3})
    best = outcome.best.training
    expected = MEASURES[monitor](*validated(outcome.best, loaders))
    assert best[f"val_{monitor}"] == pytest.approx(expected, abs=1e-6)
    assert best[f"val_{monitor}"] == max(row[f"val_{monitor}"] for row in outcome.history)
    expensive = {"val_roc_auc", "val_average_precision", "val_macro_recall"}
    assert expensive & outcome.history[0].keys() == expensive & {f"val_{monitor}"}
    assert {"val_macro_f1", "val_balanced_accuracy"} <= outcome.history[0].keys()


def test_metrics_are_those_of_the_library_where_values_are_equal() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = (
        torch.randint(0, 4, (200, 3), generator=generator),
        torch.randint(0, 3, (200,), generator=generator),
    )
    logits[:, 2] = 1
    found, _, _ = classification_metrics(logits.float(), labels, ["a", "b", "c"], None)
    shares, one_hot = logits.numpy(), np.eye(3)[labels]
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(one_hot, shares))
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(one_hot, shares))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, shares.argmax(1)))


@pytest.mark.parametrize("monitor", ["r2", "mae", "rmse"])
def test_a_regressor_is_watched_in_its_own_unit(tmp_path: Path, monitor: str) -> None:
    loaders = plan(tmp_path, "regression").model_copy(update={"evaluate_batch_size": 7})
    outcome = trained(loaders, "regression", monitor=monitor, epochs=6)
    truth, answers = validated(outcome.best, loaders)
    expected = {
        "r2": metrics.r2_score(truth, answers),
        "mae": metrics.mean_absolute_error(truth, answers),
        "rmse": metrics.root_mean_squared_error(truth, answers),
    }
    best = outcome.best.training
    assert {name: best[f"val_{name}"] for name in expected} == pytest.approx(expected, rel=1e-4)
    values = [row[f"val_{monitor}"] for row in outcome.history]
    assert best[f"val_{monitor}"] == (max(values) if monitor == "r2" else min(values))
    assert len(set(values)) == 6


def test_stopping_and_the_learning_rate_follow_the_direction(tmp_path: Path) -> None:
    """Far too high a rate: what is monitored gets no better, and so it falls, and the training ends."""
    plateau = {"name": "ReduceLROnPlateau", "factor": 0.5, "patience": 0}
    loaders = plan(tmp_path)
    given = {"scheduler": plateau, "early_stopping": {"patience": 3}, "epochs": 40}
    history = trained(loaders, monitor="average_precision", **given).history
    values = [row["val_average_precision"] for row in history]
    assert 4 <= len(values) < 40
    assert max(values) == max(values[:-3])
    rates = [row["learning_rate"] for row in history]
    for epoch in range(1, len(values) - 1):
        better = values[epoch] > max(values[:epoch]) * (1 + 1e-4)
        assert rates[epoch + 1] == (rates[epoch] if better else rates[epoch] / 2)


def test_what_cannot_be_watched_is_refused(tmp_path: Path) -> None:
    loaders = plan(tmp_path)
    none = loaders.model_copy(update={"splits": {**loaders.splits, "validation": []}})
    with pytest.raises(InputError, match=r"^train\.monitor: macro_f1 is measured on the validation split, and there"):
        trained(none, monitor="macro_f1")
    with pytest.raises(ValidationError, match="accuracy"):
        problem_of("regression").training(**{**TRAIN, "monitor": "accuracy"})
    dataset = TensorsDataset(filepath=str(tmp_path / "one.safetensors"))
    dataset.save(Tensors({"features": np.zeros((9, 3), np.float32), "labels": np.zeros(9, np.int64)}))
    file = TensorFile(path=dataset._filepath, fingerprint=str(dataset.load().fingerprint), length=9)
    one = loaders.model_copy(update={"splits": {**loaders.splits, "validation": [file]}})
    with pytest.raises(InputError, match=r"^train\.monitor: roc_auc needs a second class in the validation split"):
        trained(one, monitor="roc_auc")


# ---- the threshold -------------------------------------------------------------------------------------------------

LONGER = {"epochs": 10, "optimizer": {"name": "Adam", "lr": 0.1}}
SCORES = {"f1": lambda true, found: metrics.f1_score(true, found), "balanced_accuracy": metrics.balanced_accuracy_score}


@pytest.mark.parametrize("metric", SCORES)
@pytest.mark.parametrize("digits", [1, 6])
def test_no_other_threshold_is_better_on_the_validation_split(metric: str, digits: int) -> None:
    """Also where many probabilities are equal."""
    generator = np.random.default_rng(digits)
    true = generator.random(300) < 0.15
    shares = (generator.beta(2, 5, 300) + 0.2 * true).clip(0, 1).round(digits)
    threshold, value = best_threshold(torch.tensor(shares), torch.tensor(true), metric)
    found = {least: SCORES[metric](true, shares >= least) for least in [*np.unique(shares), threshold]}
    assert found[threshold] == pytest.approx(value) == pytest.approx(max(found.values()))
    assert threshold not in shares
    assert 0 < threshold < 1


@pytest.mark.usefixtures("exporter")
@pytest.mark.parametrize("loss", ["CrossEntropyLoss", "BCEWithLogitsLoss"])
def test_a_threshold_decides_alike_wherever_the_model_is_asked(tmp_path: Path, loss: str) -> None:
    loaders = plan(tmp_path)
    checkpoint = trained(loaders, threshold="balanced_accuracy", loss={"name": loss}, **LONGER).best
    least = checkpoint.training["threshold"]["probability"]
    assert checkpoint.training["threshold"] == {"class": "rare", "probability": least}
    assert 0.02 < least < 0.45
    features, truth = loaders.first("test", COUNTS["test"])
    logits = checkpoint.build()(features).detach()
    shares = (logits.softmax(1) if loss == "CrossEntropyLoss" else logits.sigmoid())[:, 1].numpy()
    answers = [NAMES[int(share >= least)] for share in shares]
    assert answers.count("rare") > (logits.argmax(1) == 1).sum()
    judged = evaluate(checkpoint, loaders, [ROW], EvaluateClassifierConfig())
    right = [answer == NAMES[label] for answer, label in zip(answers, truth.tolist(), strict=True)]
    assert judged["metrics"]["accuracy"] == pytest.approx(np.mean(right))
    assert judged["metrics"]["threshold"] == least
    assert sorted(row["test_sample"] for row in judged["mistakes"]) == np.flatnonzero(~np.array(right)).tolist()
    assert all(row["predicted"] == answers[row["test_sample"]] for row in judged["mistakes"])

    path = tmp_path / "model.onnx"
    path.write_bytes(export_checkpoint(checkpoint))
    rows = [dict(zip("abc", map(float, row), strict=True)) for row in features]
    config = PredictConfig(model=str(path), files=str(write(tmp_path / "rows.csv", rows)), models="", threads=1)
    table, *_ = prediction_nodes.ask(*prediction_nodes.find(config), config)
    served = answerer(open_model(path, threads=1), ServeConfig(models="", most=1000))(rows)
    for asked in (table.to_pylist(), served):
        assert [row["class_1"] for row in asked] == answers
        assert [row["class_2"] for row in asked] == [NAMES[answer == "common"] for answer in answers]
        rare = [row["probability_1" if row["class_1"] == "rare" else "probability_2"] for row in asked]
        np.testing.assert_allclose(rare, shares, atol=1e-5)
    model = open_model(path, threads=1)
    assert onnx_accuracy(model, loaders) == pytest.approx(np.mean(right))
    assert model.problem.said(model)["threshold"] == checkpoint.training["threshold"]
    assert json.loads(model.session.get_modelmeta().custom_metadata_map["threshold"])["class"] == "rare"


def test_a_number_is_taken_as_it_is(tmp_path: Path) -> None:
    checkpoint = trained(plan(tmp_path), threshold=0.2).best
    assert checkpoint.training["threshold"] == {"class": "rare", "probability": 0.2}


def test_what_can_have_no_threshold_is_refused(tmp_path: Path) -> None:
    loaders = plan(tmp_path)
    with pytest.raises(InputError, match=r"^train\.threshold: MultiMarginLoss gives no probabilities"):
        trained(loaders, threshold=0.2, loss={"name": "MultiMarginLoss"})
    target = Classes(classes=["a", "b", "c"])
    three = loaders.model_copy(update={"info": loaders.info.model_copy(update={"target": target})})
    with pytest.raises(InputError, match=r"^train\.threshold: is for two classes, but there are 3"):
        trained(three, threshold=0.2)
    none = loaders.model_copy(update={"splits": {**loaders.splits, "validation": []}})
    with pytest.raises(InputError, match=r"^train\.threshold: f1 needs samples of both classes in the validation"):
        trained(none, threshold="f1")
    assert trained(none, threshold=0.2).best.training["threshold"]["probability"] == 0.2
    for wrong in (0.0, 1.0, "recall"):
        with pytest.raises(ValidationError):
            problem_of("classification").training(**{**TRAIN, "threshold": wrong})


@pytest.mark.usefixtures("exporter")
def test_a_file_with_a_threshold_that_is_none_is_refused(tmp_path: Path) -> None:
    for wrong in ({"class": "other", "probability": 0.5}, {"class": "rare", "probability": 2.0}):
        with pytest.raises(ValueError, match=r"other|threshold"):
            threshold_of({"threshold": wrong}, NAMES)
    assert threshold_of({"threshold": {"class": "rare", "probability": 0.25}}, NAMES) == (1, 0.25)
    checkpoint = trained(plan(tmp_path)).best
    changed = checkpoint.model_copy(update={"training": {**checkpoint.training, "threshold": {"class": "rare"}}})
    (tmp_path / "model.onnx").write_bytes(export_checkpoint(changed))
    with pytest.raises(InputError, match="was not exported by torchloom, or by another version"):
        open_model(tmp_path / "model.onnx")


# ---- models that have learnt nothing -------------------------------------------------------------------------------

ROW = {"epoch": 1, "learning_rate": 0.1, "train_loss": 1.0, "val_loss": 1.0}


def test_a_classifier_that_always_says_the_same_is_told_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaders = plan(tmp_path)
    metrics = evaluate(trained(loaders, epochs=1).best, loaders, [ROW], EvaluateClassifierConfig())["metrics"]
    assert metrics["accuracy_of_the_commonest"] == 0.9
    assert metrics["accuracy"] <= 0.9
    said = "It is right no more often (0.9000) than by always answering the commonest class (0.9000); its balanced"
    assert said in str(problem_of("classification").doubt({**metrics, "accuracy": 0.9}))
    assert "than by always answering the commonest class" in caplog.text
    assert problem_of("classification").doubt({**metrics, "accuracy": 0.91}) is None


def test_a_regressor_that_always_says_the_same_is_told_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaders, regression = plan(tmp_path, "regression"), problem_of("regression")
    checkpoint = trained(loaders, "regression", epochs=1, optimizer={"name": "SGD", "lr": 1e-9}).best
    metrics = regression.evaluate(checkpoint, loaders, [ROW], regression.evaluation())["metrics"]
    assert metrics["r2"] <= 0
    assert (
        f"It is no better than always answering the mean, whose R² is 0: its R² is {metrics['r2']:.4f}" in caplog.text
    )
    assert regression.doubt({"r2": 0.01}) is None


def test_a_run_that_comes_to_nothing_ends_with_saying_so(
    run: Callable[..., DataCatalog], project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train = {"epochs": 1, "optimizer": {"lr": 1e-9}, "threads": 1}
    catalog = run("linear_regression", params={"linear_regression": {"train": train}})
    said = "It is no better than always answering the mean, whose R² is 0: its R² is "
    assert catalog.load("linear_regression.metrics")["r2"] <= 0
    _, last = capfd.readouterr().err.split("finished in")
    assert said in last
    assert said in catalog.load("linear_regression.report")
    assert f"- {said}" in catalog.load("linear_regression.model_card")
