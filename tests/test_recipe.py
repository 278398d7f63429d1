"""What the model card says of how to repeat a run."""

import re
from typing import Any

import pytest

from torchloom.config import AugmentConfig, DataConfig, QuantizeConfig
from torchloom.problems.classification.config import ClassificationTrainConfig, ClassifierConfig, PrunedTrainConfig
from torchloom.records.provenance import Lineage
from torchloom.records.recipe import commands, commit, computed, unlike_defaults, versions, without_folders

REQUIRED = {"epochs": 2, "optimizer": {"name": "AdamW", "lr": 0.003}}
ALWAYS = {"train.epochs": 2, "train.optimizer.name": "AdamW", "train.optimizer.lr": 0.003, "train.seed": 0}


def differing(**changes: Any) -> dict[str, Any]:
    recorded = ClassificationTrainConfig.model_validate({**REQUIRED, **changes}).recipe()
    found = dict(unlike_defaults(recorded, ClassificationTrainConfig, "train"))
    return {key: value for key, value in found.items() if key not in ALWAYS or value != ALWAYS[key]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"batch_size": 128, "l1": 0.0, "compile": False}, {}),
        ({"batch_size": 64, "compile": True}, {"train.batch_size": 64, "train.compile": True}),
        ({"seed": 7}, {"train.seed": 7}),
        ({"ema": 0.0}, {"train.ema": 0.0}),  # 0 is not none
        ({"whitening": {}}, {"train.whitening": {}}),  # as by default, but there
        ({"whitening": {"freeze": False}}, {"train.whitening.freeze": False}),
        ({"loss": {"name": "CrossEntropyLoss"}}, {}),
        (
            {"loss": {"name": "CrossEntropyLoss", "label_smoothing": 0.0}},
            {"train.loss.name": "CrossEntropyLoss", "train.loss.label_smoothing": 0.0},
        ),
        (
            {"optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0, "nesterov": False}},
            {
                "train.optimizer.name": "SGD",
                "train.optimizer.lr": 0.1,
                "train.optimizer.momentum": 0,
                "train.optimizer.nesterov": False,
            },
        ),
        ({"freeze": ["network.*"]}, {"train.freeze": ["network.*"]}),
        ({"swa": {"start": 0.5}, "keep_state": True}, {"train.swa.start": 0.5}),
    ],
)
def test_settings_that_are_no_defaults(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    assert differing(**changes) == expected


def test_settings_within_settings() -> None:
    data = DataConfig(augment=AugmentConfig(flip=True)).model_dump(mode="json")
    assert dict(unlike_defaults(data, DataConfig, "data")) == {"data.augment.flip": True}
    model = {"name": "mlp", "dropout": 0.0, "activation": None}
    assert dict(unlike_defaults(model, ClassifierConfig, "model")) == {"model.name": "mlp", "model.dropout": 0.0}


def test_of_how_a_model_was_made_of_another_all_is_told() -> None:
    recorded = PrunedTrainConfig.model_validate({**REQUIRED, "epochs": 4}).recipe()
    found = dict(unlike_defaults(recorded, PrunedTrainConfig, "train"))
    assert {key: value for key, value in found.items() if "prune" in key} == {
        "train.prune.amount": 0.5,
        "train.prune.form": "unstructured",
        "train.prune.scope": "global",
        "train.prune.multiple": 16,
        "train.prune.epochs": 3,
        "train.prune.exclude": [],
    }
    assert "train.l1" not in found
    assert dict(unlike_defaults(QuantizeConfig().model_dump(mode="json"), QuantizeConfig, "quantize")) == {
        "quantize.samples": 1000,
        "quantize.calibration": "minmax",
        "quantize.exclude": [],
    }


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        ({}, "cpu (Xeon) in float32, 2 threads"),
        ({"processes": 2, "threads": 1}, "cpu (Xeon) in float32, 1 thread in each of 2 processes"),
        ({"device": "cuda:0", "precision": "bfloat16"}, "cuda:0 (H200) in bfloat16, 2 threads"),
    ],
)
def test_what_computed_it(on: dict[str, Any], expected: str) -> None:
    nodes = [{"node": "teacher.train", "run": "1", "device": "T4"}, {"node": "a.train", "run": "2", "device": "H200"}]
    nodes.append({"node": "a.evaluate", "run": "3", "device": "cpu"})
    runs = {"2": {"machine": {"processor": "Xeon"}}, "1": {"machine": {"processor": "Atom"}}}
    known = {"device": "cpu", "precision": "float32", "threads": 2, "processes": 1, **on}
    assert computed(Lineage("a", nodes, runs), known) == expected
    assert computed(Lineage("a", [], {}), known) == re.sub(r" \(.*\)", "", expected)
    assert computed(Lineage("a", nodes, runs), {}) is None


def test_a_block_of_an_unknown_kind_is_shown_as_it_is() -> None:
    assert dict(unlike_defaults({"a": {"b": None}, "c": 0}, None, "x")) == {"x.a.b": None, "x.c": 0}


def test_runs_are_told_in_their_order() -> None:
    nodes = [{"packages": {"torch": "2.14", "python": "3.11"}}, {"packages": {"torch": "2.15"}}]
    runs: dict[str, Any] = {
        "2026-02": {"command": "kedro run --tags train", "git": {"commit": "b" * 40, "changed": True}},
        "2026-01": {"command": "kedro run --tags preprocess", "git": {"commit": "a" * 40, "changed": False}},
    }
    lineage = Lineage("task", nodes, runs)
    assert commands(lineage) == ["kedro run --tags preprocess", "kedro run --tags train"]
    assert commit(lineage) == "b" * 40 + " and changes"
    assert versions(lineage) == {"torch": "2.15", "python": "3.11"}
    assert (commands(Lineage("task", [], {})), commit(Lineage("task", [], {}))) == ([], None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kedro run --params own.preprocess.folder=/home/me/cats", "kedro run --params own.preprocess.folder=…/cats"),
        ("/data/x", "…/x"),
        ("~/pictures/cats", "…/cats"),
        ("C:\\Users\\me\\cats", "…/cats"),
        ("relative/folder", "relative/folder"),
        ("https://host/path/file.gz", "https://host/path/file.gz"),
        (0.5, 0.5),
    ],
)
def test_folders_of_this_machine_are_not_named(text: object, expected: object) -> None:
    assert without_folders(text) == expected
