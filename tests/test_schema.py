"""The JSON schema of the parameter files."""

import json
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from kedro.framework.startup import bootstrap_project

from conftest import ROOT
from torchloom.schema import FILE, REFERENCE, parameter_schema

FILES = sorted((ROOT / "conf").glob("*/parameters/*.yml"))
SCHEMA: dict[str, Any] = json.loads((ROOT / "conf" / FILE).read_text())
VALIDATOR = Draft7Validator(SCHEMA)


def test_it_is_up_to_date() -> None:
    """With other versions of torch other names are there, so only what is the project's own is compared."""
    bootstrap_project(ROOT)
    now = json.loads(json.dumps(parameter_schema()))
    parts = now.keys() if now["$comment"] == SCHEMA["$comment"] else {"properties"}
    for part in parts:
        assert now[part] == SCHEMA[part], f"{part} has changed: uv run kedro schema"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_the_parameter_files_fit(path: Any) -> None:
    text = path.read_text()
    assert text.startswith(REFERENCE)
    assert (path.parent / "../../" / FILE).is_file()
    assert [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize(
    "text",
    [
        "mnist_mlp: {train: {optimizer: {name: Muon, lr: 0.1, nesterov: true, groups: []}}}",
        "mnist_mlp: {train: {optimizer: {lr: 0.1}}}",  # a part of a block
        "mnist_mlp: {train: {optimizer: {name: SGD, lr: 0.1, betas: null}}}",  # taken out
        "mnist_mlp: {train: {epochs: '${mnist_lstm.train.epochs}', scheduler: '${mnist_lstm.train.scheduler}'}}",
        "mnist_mlp: {model: {name: mlp, activation: GELU}}",
        "mnist_mlp: {train: {scheduler: null}}",
        "cifar_cnn: {data: {augment: {policy: {name: RandAugment, magnitude: 5, groups: 4}}}}",
        "flowers: {preprocess: {folder: photos}}",  # not registered yet
    ],
)
def test_right(text: str) -> None:
    assert VALIDATOR.is_valid(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "mnist_mlp: {trian: {}}",
        "mnist_mlp: {train: {epoch: 3}}",
        "mnist_mlp: {train: {epochs: many}}",
        "mnist_mlp: {train: {epochs: 0}}",
        "mnist_mlp: {train: {optimizer: {name: Addam}}}",
        "mnist_mlp: {train: {optimizer: {name: SGD, momentun: 0.9}}}",
        "mnist_mlp: {train: {optimizer: {name: SGD, lr: fast}}}",
        "mnist_mlp: {train: {scheduler: {name: StepLR, gama: 0.1}}}",
        "mnist_mlp: {train: {loss: {name: BCELoss}}}",  # of autoencoders
        "mnist_autoencoder: {train: {loss: {name: BCEWithLogitsLoss}}}",
        "mnist_mlp: {model: {name: mlp, activation: relu}}",
        "mnist_mlp: {model: {name: autoencoder}}",
        "cifar_cnn: {data: {augment: {policy: {name: RandAugment, strength: 5}}}}",
    ],
)
def test_wrong(text: str) -> None:
    assert not VALIDATOR.is_valid(yaml.safe_load(text))
