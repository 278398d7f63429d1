"""Classes of which one is rare, from the batches to the answers."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from torchloom.config import DataConfig, DebuggingConfig, DistributedConfig
from torchloom.data.batches import BucketedBatches, continue_epoch, start_epoch
from torchloom.data.targets import Classes, Number
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.modalities import TableInfo
from torchloom.pipelines.training.nodes import train
from torchloom.problems import problem_of
from torchloom.problems.base import Problem
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan, TensorFile

TRAIN = {"epochs": 3, "batch_size": 20, "optimizer": {"name": "Adam", "lr": 0.02}, "threads": 1, "device": "cpu"}
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
