"""The JSON schema of the parameter files."""

import json
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from kedro.framework.startup import bootstrap_project

from conftest import ROOT
from torchloom.config.schema import REFERENCE, write_schema
from torchloom.tasks import all_blocks

FILES = sorted((ROOT / "conf").glob("*/parameters/*.yml"))


@pytest.fixture(scope="module")
def validator(tmp_path_factory: pytest.TempPathFactory) -> Draft7Validator:
    """By the file that `kedro schema` writes."""
    bootstrap_project(ROOT)
    return Draft7Validator(json.loads(write_schema(tmp_path_factory.mktemp("conf"), all_blocks()).read_text()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_the_parameter_files_fit(path: Any, validator: Draft7Validator) -> None:
    text = path.read_text()
    assert text.startswith(REFERENCE)
    assert (path.parent / "../../").resolve() == ROOT / "conf"  # where the schema will be
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize(
    "text",
    [
        "mnist_mlp: {train: {optimizer: {name: Muon, lr: 0.1, nesterov: true, groups: []}}}",
        "mnist_mlp: {train: {optimizer: {lr: 0.1}}}",  # a part of a block
        "mnist_mlp: {train: {optimizer: {name: SGD, lr: 0.1, betas: null}}}",  # taken out
        "mnist_mlp: {train: {epochs: '${mnist_lstm.train.epochs}', scheduler: '${mnist_lstm.train.scheduler}'}}",
        "mnist_mlp: {model: {name: mlp, activation: GELU}}",
        "mnist_mlp: {model: {name: my.networks.wide, width: 3}, train: {optimizer: {name: my.optimizers.Lion}}}",
        "mnist_mlp: {train: {scheduler: null}}",
        "mnist_mlp: {train: {freeze: [a, {parameters: [b], epochs: 2}], swa: {start: 0.5}, sam: {}, recompute: [a.*]}}",
        "mnist_mlp: {train: {optimizer: {name: Lion, betas: [0.9, 0.99]}, resume: warm, keep_state: true}}",
        "mnist_mlp: {train: {loss: {name: FocalLoss, gamma: 1, weight: balanced}, monitor: roc_auc, threshold: f1}}",
        "mnist_mlp: {train: {loss: {name: CrossEntropyLoss, weight: {yes: 2.0}}, threshold: 0.3}}",
        "cifar_cnn: {data: {augment: {policy: {name: RandAugment, magnitude: 5, groups: 4}}}}",
        "flowers: {preprocess: {folder: photos}}",  # not registered yet
    ],
)
def test_right(text: str, validator: Draft7Validator) -> None:
    assert validator.is_valid(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "mnist_mlp: {trian: {}}",
        "mnist_mlp: {task: {method: classification, data: mnist}}",
        "mnist_mlp: {train: {epoch: 3}}",
        "mnist_mlp: {train: {epochs: many}}",
        "mnist_mlp: {train: {epochs: 0}}",
        "mnist_mlp: {train: {optimizer: {name: Addam}}}",
        "mnist_mlp: {train: {optimizer: {name: SGD, momentun: 0.9}}}",
        "mnist_mlp: {train: {optimizer: {name: SGD, lr: fast}}}",
        "mnist_mlp: {train: {scheduler: {name: StepLR, gama: 0.1}}}",
        "mnist_mlp: {train: {loss: {name: CrossEntropyLoss, weight: even}}}",
        "mnist_mlp: {train: {threshold: 1.5}}",
        "mnist_mlp: {train: {freeze: [5]}}",
        "mnist_mlp: {train: {freeze: [{parameter: [a]}]}}",
        "mnist_mlp: {train: {optimizer: {name: Lion, momentum: 0.9}}}",
        "mnist_mlp: {train: {swa: {every: 2}}}",
        "mnist_mlp: {train: {loss: {name: BCELoss}}}",  # of autoencoders
        "mnist_autoencoder: {train: {loss: {name: BCEWithLogitsLoss}}}",
        "mnist_mlp: {model: {name: mlp, activation: relu}}",
        "mnist_mlp: {model: {name: autoencoder}}",
        "cifar_cnn: {data: {augment: {policy: {name: RandAugment, strength: 5}}}}",
    ],
)
def test_wrong(text: str, validator: Draft7Validator) -> None:
    assert not validator.is_valid(yaml.safe_load(text))
