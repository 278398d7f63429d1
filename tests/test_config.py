"""Every mistake in the parameters is answered in one line: the full key, what was given, what is allowed."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from kedro.config import OmegaConfigLoader
from kedro.validation.type_extractor import TypeExtractor
from pydantic import BaseModel
from torch import nn

from torchloom.config import ModelConfig, OptimizerConfig
from torchloom.errors import InputError
from torchloom.pipeline_registry import register_pipelines
from torchloom.training.losses import loss_names
from torchloom.training.optimization import create_optimizer, optimizer_names, scheduler_names
from torchloom.validation import check_parameters

CONF = Path(__file__).parents[1] / "conf"
PIPELINES = register_pipelines()
EXPECTED: dict[str, type[BaseModel]] = TypeExtractor(PIPELINES).extract_types_from_pipelines()
READ = {
    name.removeprefix("params:").partition(".")[0]
    for pipeline in PIPELINES.values()
    for name in pipeline.inputs()
    if name.startswith("params:")
}
VALID: dict[str, Any] = {data: {"preprocess": {}} for data in ("mnist", "cifar10")} | {
    task: {
        "data": {},
        "model": {"name": "mlp"},
        "train": {"epochs": 3, "optimizer": {"name": "SGD", "lr": 0.1}},
        "evaluate": {},
        "export": {},
    }
    for task in ("mnist_mlp", "cifar_resnet")
}
ABSENT = object()  # as a value: take the key out
TRAIN = "mnist_mlp.train"
SCHEDULER_ARGUMENTS: dict[str, dict[str, Any]] = {  # what has no default
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.01},
    "ExponentialLR": {"gamma": 0.9},
    "MultiStepLR": {"milestones": [1, 2]},
    "StepLR": {"step_size": 1},
}


def mistakes(changes: dict[str, Any]) -> list[str]:
    """The lines about what is wrong with the valid parameters after `changes`, full keys and their new values."""
    parameters = copy.deepcopy(VALID)
    for key, value in changes.items():
        *path, last = key.split(".")
        block = parameters
        for part in path:
            block = block.setdefault(part, {})
        if value is ABSENT:
            del block[last]
        else:
            block[last] = value
    try:
        check_parameters(parameters, EXPECTED, READ)
    except InputError as error:
        head, *lines = error.message.split("\n")
        count = "one mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
        assert head == f"the parameters hold {count}:"
        return [line.removeprefix("  ") for line in lines]
    return []


def test_the_smallest_parameters_are_valid() -> None:
    assert mistakes({}) == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        # wrong type
        (f"{TRAIN}.epochs", "x", "given 'x'; must be a valid integer"),
        (f"{TRAIN}.epochs", 5.0, "given 5.0; must be a valid integer"),
        (f"{TRAIN}.epochs", True, "given True; must be a valid integer"),
        (f"{TRAIN}.epochs", None, "not given; must be a valid integer"),
        (f"{TRAIN}.compile", 1, "given 1; must be a valid boolean"),
        (f"{TRAIN}.optimizer.name", 5, "given 5; must be a valid string"),
        ("mnist_mlp.export.opset", 99, "given 99; must be at most"),
        (f"{TRAIN}.optimizer", "SGD", "given 'SGD'; must be a block such as {name: …}"),
        (f"{TRAIN}.optimizer.lr", "0.1", "given '0.1'; must be a valid number"),
        (f"{TRAIN}.optimizer.nesterov", "yes", "given 'yes'; must be a valid boolean"),
        (f"{TRAIN}.scheduler", {"name": "StepLR", "step_size": "x"}, ".step_size: given 'x'; must be a valid integer"),
        (
            f"{TRAIN}.scheduler",
            {"name": "MultiStepLR", "milestones": "x"},
            ".milestones: given 'x'; must be a valid list",
        ),
        (
            f"{TRAIN}.scheduler",
            {"name": "CyclicLR", "base_lr": "x"},
            ".base_lr: given 'x'; must be a valid number or a valid list",
        ),
        (f"{TRAIN}.loss.label_smoothing", "x", "given 'x'; must be a valid number"),
        ("mnist_mlp.model.hidden", 5, "given 5; must be a valid list"),
        ("mnist_mlp.model.batch_norm", "on", "given 'on'; must be a valid boolean"),
        # not one of the choices
        (f"{TRAIN}.precision", "fp64", "given 'fp64'; must be 'auto', 'fp32', 'bf16' or 'fp16'"),
        (f"{TRAIN}.monitor", "f1", "given 'f1'; must be 'accuracy' or 'loss'"),
        (
            f"{TRAIN}.scheduler",
            {"name": "StepLR", "step_size": 1, "interval": "day"},
            ".interval: given 'day'; must be 'step' or 'epoch'",
        ),
        (f"{TRAIN}.device", "gpu", "given 'gpu'; must be auto, cpu, cuda, cuda:N, mps or xpu"),
        ("mnist_mlp.evaluate.device", "CUDA", "given 'CUDA'; must be auto, cpu, cuda, cuda:N, mps or xpu"),
        ("mnist_mlp.model", {"name": "resnet", "depth": 20}, ".depth: given 20; must be 18, 34 or 50"),
        # out of range
        (f"{TRAIN}.epochs", 0, "given 0; must be greater than or equal to 1"),
        (f"{TRAIN}.seed", -1, "given -1; must be greater than or equal to 0"),
        (f"{TRAIN}.l1", float("inf"), "given inf; must be a finite number"),
        (f"{TRAIN}.ema", 1.0, "given 1.0; must be less than 1"),
        (f"{TRAIN}.ema", float("nan"), "given nan; must be less than 1"),
        (f"{TRAIN}.gradient_clip", 0, "given 0; must be greater than 0"),
        (f"{TRAIN}.early_stopping.patience", 0, "given 0; must be greater than or equal to 1"),
        ("mnist.preprocess.validation_fraction", 1, "given 1; must be less than 1"),
        ("mnist_mlp.data.augment.crop_padding", -1, "given -1; must be greater than or equal to 0"),
        ("mnist_mlp.model.dropout", 1.5, "given 1.5; must be less than 1"),
        ("mnist_mlp.model.hidden", [5, 0], ".1: given 0; must be greater than or equal to 1"),
        ("mnist_mlp.export.opset", 17, "given 17; must be greater than or equal to 18"),
        ("mnist_mlp.export.batch_sizes", [4, 0], ".1: given 0; must be greater than or equal to 1"),
        # combinations
        (f"{TRAIN}.warmup_epochs", 3, "given 3; must be less than epochs 3"),
        # missing
        (f"{TRAIN}.optimizer", ABSENT, "is missing and has no default"),
        (f"{TRAIN}.epochs", ABSENT, "is missing and has no default"),
        (f"{TRAIN}.optimizer.name", ABSENT, "is missing and has no default"),
        (f"{TRAIN}.scheduler", {"name": "StepLR"}, ".step_size: is missing and has no default"),
        (f"{TRAIN}.early_stopping", {}, ".patience: is missing and has no default"),
        ("mnist_mlp", ABSENT, "not given; must be the blocks data, evaluate, export, model, train"),
        ("mnist_mlp", 5, "given 5; must be the blocks data, evaluate, export, model, train"),
        ("mnist_mlp.export", ABSENT, "not given; must be a block with some of the keys opset, tolerance, batch_sizes"),
        ("mnist_mlp.export", 5, "given 5; must be a block with some of the keys opset, tolerance, batch_sizes"),
    ],
)
def test_one_mistake_gives_one_line(key: str, value: Any, message: str) -> None:
    lines = mistakes({key: value})
    assert len(lines) == 1
    assert lines[0].startswith(key + (message if message[0] == "." else f": {message}"))


@pytest.mark.parametrize(
    ("block", "given", "says"),
    [
        ("optimizer", {"name": "SGD", "lr": -1}, "torch.optim.SGD says: Invalid learning rate: -1"),
        (
            "optimizer",
            {"name": "Adam", "betas": [0.9, 2.0]},
            "torch.optim.Adam says: Invalid beta parameter at index 1: 2.0",
        ),
        ("optimizer", {"name": "SGD", "nesterov": True}, "torch.optim.SGD says: Nesterov momentum requires a momentum"),
        ("loss", {"label_smoothing": 2}, "torch.nn.CrossEntropyLoss says: label_smoothing must be between 0.0 and 1.0"),
    ],
)
def test_what_pytorch_rejects_is_said_in_its_words(block: str, given: dict[str, Any], says: str) -> None:
    (line,) = mistakes({f"{TRAIN}.{block}": given})
    assert line.startswith(f"{TRAIN}.{block}: given {given}; {says}")


@pytest.mark.parametrize(
    ("key", "meant", "allowed"),
    [
        (f"{TRAIN}.epoch", "epochs", "accumulate, batch_size"),
        (f"{TRAIN}.optimizer.lrr", "lr", "dampening, differentiable"),
        (f"{TRAIN}.loss.label_smooth", "label_smoothing", "ignore_index, label_smoothing, weight"),
        (f"{TRAIN}.early_stopping.patence", "patience", "min_delta, patience"),
        ("mnist_mlp.data.augment.flp", "flip", "crop_padding, flip"),
        ("mnist_mlp.model.dropuot", "dropout", "activation, batch_norm, dropout, hidden, initialization"),
        ("mnist_mlp.exprot", "export", "data, evaluate, export, model, train"),
        ("mnist.preprocess.sed", "seed", "seed, validation_fraction"),
        ("mnist_mpl", "mnist_mlp", "cifar10, cifar_resnet, mnist, mnist_mlp"),
    ],
)
def test_an_unknown_key_is_answered_with_the_likely_one(key: str, meant: str, allowed: str) -> None:
    changes = {f"{TRAIN}.early_stopping.patience": 2} if "early_stopping" in key else {}
    (line,) = mistakes({**changes, key: 1})
    assert line.startswith(f"{key}: unknown key (did you mean {meant}?); allowed are {allowed}")


@pytest.mark.parametrize(
    "key", [f"{TRAIN}.optimizer.params", f"{TRAIN}.loss.reduction", "mnist_mlp.model.shape", "mnist_mlp.model.depth"]
)
def test_what_is_not_the_users_to_set_is_unknown(key: str) -> None:
    (line,) = mistakes({key: 1})
    assert line.startswith(f"{key}: unknown key; allowed are ")


@pytest.mark.parametrize(
    ("key", "given", "meant", "there"),
    [
        (f"{TRAIN}.optimizer.name", "SDG", "SGD", "Adam, AdamW"),
        (f"{TRAIN}.scheduler.name", "CosineLR", "CosineAnnealingLR", "OneCycleLR, PolynomialLR"),
        (f"{TRAIN}.loss.name", "CrossEntropy", "CrossEntropyLoss", "MSELoss, MultiMarginLoss"),
        ("mnist_mlp.model.name", "mpl", "mlp", "mlp, resnet"),
    ],
)
def test_an_unknown_name_is_answered_with_the_likely_one(key: str, given: str, meant: str, there: str) -> None:
    (line,) = mistakes({key: given})
    assert re.match(rf"{key}: given '{given}'; must be .* \(did you mean {meant}\?\); there are .*{there}", line)


def test_a_name_like_no_other_gets_no_guess() -> None:
    (line,) = mistakes({"mnist_mlp.model.name": "transformer"})
    assert "did you mean" not in line
    assert line.endswith("there are mlp, resnet")


def test_an_unknown_activation_is_answered_with_the_known_ones() -> None:
    (line,) = mistakes({"mnist_mlp.model.activation": "Relu"})
    assert line.startswith(
        "mnist_mlp.model.activation: given 'Relu'; must be an activation of torch.nn; there are ReLU,"
    )
    assert "Threshold" not in line  # it cannot be made without arguments


@pytest.mark.parametrize("name", ["LBFGS", "SparseAdam", "Optimizer"])
def test_optimisers_that_the_loop_cannot_drive_are_not_offered(name: str) -> None:
    (line,) = mistakes({f"{TRAIN}.optimizer": {"name": name}})
    assert line.startswith(f"{TRAIN}.optimizer.name: given '{name}'")


@pytest.mark.parametrize("scheduler", [{"name": "OneCycleLR"}, {"name": "CyclicLR", "base_lr": 0.01}])
def test_schedulers_that_warm_up_themselves_exclude_warm_up(scheduler: dict[str, Any]) -> None:
    (line,) = mistakes({f"{TRAIN}.scheduler": scheduler, f"{TRAIN}.warmup_epochs": 1.0})
    assert line == f"{TRAIN}.warmup_epochs: given 1.0; must be left out: {scheduler['name']} warms up by itself"


@pytest.mark.parametrize(
    ("scheduler", "says"),
    [
        ({"name": "StepLR", "step_size": 0}, "modulo by zero"),
        ({"name": "CosineAnnealingLR", "T_max": 0}, "by zero"),
        ({"name": "ReduceLROnPlateau", "factor": 3.0}, "Factor should be < 1.0"),
        ({"name": "CosineAnnealingWarmRestarts", "T_0": -1}, "Expected positive integer T_0"),
    ],
)
def test_arguments_that_a_scheduler_cannot_work_with(scheduler: dict[str, Any], says: str) -> None:
    (line,) = mistakes({f"{TRAIN}.scheduler": scheduler})
    assert line.startswith(f"{TRAIN}.scheduler: given {scheduler}; torch.optim.lr_scheduler.{scheduler['name']} says: ")
    assert says in line


def test_a_scheduler_that_does_not_suit_the_optimiser() -> None:
    (line,) = mistakes({f"{TRAIN}.optimizer.name": "Adagrad", f"{TRAIN}.scheduler": {"name": "OneCycleLR"}})
    assert line.startswith(f"{TRAIN}.scheduler: ")
    assert "optimizer must support momentum" in line


def test_plateaus_are_not_looked_for_at_every_step() -> None:
    (line,) = mistakes({f"{TRAIN}.scheduler": {"name": "ReduceLROnPlateau", "interval": "step"}})
    assert line.startswith(f"{TRAIN}.scheduler.interval: given 'step'; must be epoch")


def test_all_mistakes_of_all_tasks_are_listed_at_once() -> None:
    lines = mistakes(
        {
            "mnist.preprocess.validation_fraction": 2,
            f"{TRAIN}.epochs": "x",
            f"{TRAIN}.optimizer.lrr": 1,
            f"{TRAIN}.optimizer.momentum": "x",
            "mnist_mlp.model.name": "mpl",
            "cifar_resnet.evaluate": ABSENT,
            "cifar_resnet.expotr": {},
            "vgg": {},
        }
    )
    assert sorted(line.partition(":")[0] for line in lines) == [
        "cifar_resnet.evaluate",
        "cifar_resnet.expotr",
        "mnist.preprocess.validation_fraction",
        "mnist_mlp.model.name",
        f"{TRAIN}.epochs",
        f"{TRAIN}.optimizer.lrr",
        f"{TRAIN}.optimizer.momentum",
        "vgg",
    ]


def test_null_leaves_an_argument_out() -> None:
    config = OptimizerConfig.model_validate({"name": "SGD", "lr": 0.1, "momentum": None})
    assert config.arguments == {"lr": 0.1}
    assert mistakes({f"{TRAIN}.optimizer": {"name": "Adam", "lr": None}, "mnist_mlp.model.dropout": None}) == []
    assert ModelConfig.model_validate({"name": "mlp", "hidden": None}).arguments == {}


def test_a_list_stands_for_a_tuple() -> None:
    config = OptimizerConfig.model_validate({"name": "Adam", "betas": [0.8, 0.9]})
    optimizer = create_optimizer(nn.Linear(2, 2), config.name, config.arguments)
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)
    (line,) = mistakes({f"{TRAIN}.optimizer": {"name": "Adam", "betas": [0.9]}})
    assert line == f"{TRAIN}.optimizer.betas.1: is missing and has no default"
    (line,) = mistakes({f"{TRAIN}.optimizer": {"name": "Adam", "betas": ["x", 0.9]}})
    assert line == f"{TRAIN}.optimizer.betas.0: given 'x'; must be a valid number"


@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimiser_is_accepted_with_its_defaults(name: str) -> None:
    assert mistakes({f"{TRAIN}.optimizer": {"name": name}}) == []


@pytest.mark.parametrize("name", sorted(loss_names()))
def test_every_loss_is_accepted_with_its_defaults(name: str) -> None:
    assert mistakes({f"{TRAIN}.loss": {"name": name}}) == []


@pytest.mark.parametrize("name", scheduler_names())
def test_every_scheduler_is_accepted_with_what_has_no_default(name: str) -> None:
    required = SCHEDULER_ARGUMENTS.get(name, {})
    assert mistakes({f"{TRAIN}.scheduler": {"name": name, **required}}) == []
    missing = [
        line.removesuffix(": is missing and has no default") for line in mistakes({f"{TRAIN}.scheduler.name": name})
    ]
    assert missing == [f"{TRAIN}.scheduler.{argument}" for argument in required]


@pytest.mark.parametrize("environment", ["base", "sample", "cpu", "gpu"])
def test_the_shipped_parameters_are_valid(environment: str) -> None:
    loader = OmegaConfigLoader(
        str(CONF), env=environment, base_env="base", default_run_env="base", merge_strategy={"parameters": "soft"}
    )
    parameters = loader["parameters"]
    assert parameters.keys() == READ
    check_parameters(parameters, EXPECTED, READ)
    assert parameters["cifar_resnet"]["train"]["optimizer"]["momentum"] == 0.9  # merged key by key, not replaced
