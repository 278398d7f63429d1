"""Every mistake in the parameters is answered in one line: the full key, what was given, what is allowed."""

import copy
import math
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from torch import nn

from conftest import TASKS
from torchloom.config import OptimizerConfig
from torchloom.config.checks import check_parameters
from torchloom.config.loader import ConfigLoader
from torchloom.errors import InputError
from torchloom.pipeline_registry import register_pipelines
from torchloom.problems import problem_names, problem_of
from torchloom.problems.classification.config import ClassifierConfig
from torchloom.settings import CONFIG_LOADER_ARGS
from torchloom.tasks import all_blocks
from torchloom.training.optimizers import create_optimizer, optimizer_names, scheduler_names

CONF = Path(__file__).parents[1] / "conf"
PIPELINES = register_pipelines()
EXPECTED: dict[str, type[BaseModel]] = all_blocks()
READ = {
    name.removeprefix("params:").partition(".")[0]
    for pipeline in PIPELINES.values()
    for name in pipeline.inputs()
    if name.startswith("params:")
}
PROBLEMS = {name: task.choice for name, task in TASKS.items()}
DATA_SETS = {task.data_set for task in TASKS.values()}
SMALLEST = {"reconstruction": "autoencoder", "language_model": "language_rnn", "regression": "linear"}
SMALLEST |= {"segmentation": "unet", "translation": "translation_transformer"}
SMALLEST |= {"generation": "dcgan"}
VALID: dict[str, Any] = {}
for place in EXPECTED:
    owner, _, name = place.partition(".")
    if not name:
        continue
    VALID.setdefault(owner, {})[name] = {
        "model": {"name": SMALLEST.get(PROBLEMS.get(owner, ""), "mlp")},
        "train": {"epochs": 3, "optimizer": {"name": "SGD", "lr": 0.1}},
        "task": {TASKS[owner].kind: TASKS[owner].choice, **dict(TASKS[owner].sources)} if owner in TASKS else {},
    }.get(name, {})
VALID |= {"predict": {"model": "mnist_mlp", "files": "photos", "models": "models"}, "serve": {"models": "models"}}
VALID["distributed"] = VALID["debugging"] = VALID["tracking"] = {}
VALID["sweep"] = {"task": "mnist_mlp", "space": {"train.epochs": {"low": 1, "high": 9}}}
EXAMPLES = {problem: task for task, problem in PROBLEMS.items()}  # a task of each kind
WRITER, TABLE, ENCODER = (EXAMPLES[problem] for problem in ("language_model", "regression", "reconstruction"))
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
        (f"{TRAIN}.loss.weight", 2.0, "given 2.0; must be a valid list"),
        ("mnist_mlp.model.hidden", 5, "given 5; must be a valid list"),
        ("mnist_mlp.data.include_validation", "on", "given 'on'; must be a valid boolean"),
        # not one of the choices
        (f"{TRAIN}.precision", "fp64", "given 'fp64'; must be 'auto', 'fp32', 'bf16' or 'fp16'"),
        (f"{TRAIN}.monitor", "f1", "given 'f1'; must be 'accuracy', 'loss', 'macro_f1'"),
        (f"{TABLE}.train.monitor", "accuracy", "given 'accuracy'; must be 'loss'"),
        (f"{ENCODER}.train.monitor", "accuracy", "given 'accuracy'; must be 'loss'"),
        (f"{ENCODER}.model.form", "deep", "given 'deep'; must be 'dense' or 'convolutional'"),
        (
            f"{TRAIN}.scheduler",
            {"name": "StepLR", "step_size": 1, "interval": "day"},
            ".interval: given 'day'; must be 'step' or 'epoch'",
        ),
        (f"{TRAIN}.device", "gpu", "given 'gpu'; must be auto, cpu, cuda, cuda:N, mps or xpu"),
        ("mnist_mlp.evaluate.device", "CUDA", "given 'CUDA'; must be auto, cpu, cuda, cuda:N, mps or xpu"),
        ("mnist_mlp.model", {"name": "resnet", "depth": 20}, ".depth: given 20; must be 18, 34, 50, 101 or 152"),
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
        ("mnist_mlp.data.subset", 0, "given 0; must be greater than or equal to 1"),
        ("mnist_mlp.evaluate.pictures", 0, "given 0; must be greater than or equal to 1"),
        ("imdb_lstm.data.max_tokens", 0, "given 0; must be greater than or equal to 1"),
        ("imdb.preprocess.vocabulary_size", 2, "given 2; must be greater than or equal to 3"),
        ("imdb.preprocess.min_count", 0, "given 0; must be greater than or equal to 1"),
        ("predict.top", 0, "given 0; must be greater than or equal to 1"),
        ("predict.fit", "cut", "given 'cut'; must be 'crop', 'pad' or 'squash'"),
        ("sweep.trials", 0, "given 0; must be greater than or equal to 1"),
        ("sweep.seed", 2**32, "given 4294967296; must be less than 4294967296"),
        ("sweep.space", {}, "given {}; must have one key at least"),
        ("sweep.space", {"train.epochs": None}, "given {'train.epochs': None}; must have one key at least"),
        ("predict.generate.length", 0, "given 0; must be greater than or equal to 1"),
        (
            "predict",
            {**VALID["predict"], "entry": "rows"},
            "given {'model': 'mnist_mlp', 'files': 'photos', 'models': 'models', 'entry': 'rows'}; must say what is to "
            "be answered by either files or entry, and leave the other out",
        ),
        ("predict.model", ABSENT, "is missing and has no default"),
        ("predict", 5, "given 5; must be a block with some of the keys models, top, fit"),
        ("serve.megabytes", 0, "given 0; must be greater than or equal to 1"),
        ("serve.models", 7, "given 7; must be a valid string"),
        ("serve", ABSENT, "not given; must be a block with some of the keys models, top, fit"),
        (f"{WRITER}.data.window", 0, "given 0; must be greater than or equal to 2"),
        (f"{WRITER}.data.window", 1, "given 1; must be greater than or equal to 2"),
        (f"{WRITER}.generate.temperature", -0.1, "given -0.1; must be greater than or equal to 0"),
        (f"{WRITER}.generate.temperature", float("inf"), "given inf; must be a finite number"),
        (f"{WRITER}.generate.top_k", 0, "given 0; must be greater than or equal to 1"),
        (f"{WRITER}.generate.prompt", "", "given ''; String should have at least 1 character"),
        (f"{WRITER}.generate.samples", 0, "given 0; must be greater than or equal to 1"),
        (f"{WRITER}.generate.length", 0, "given 0; must be greater than or equal to 1"),
        ("wonderland.preprocess.test_fraction", 1.0, "given 1.0; must be less than 1"),
        ("diabetes.preprocess.test_fraction", -0.1, "given -0.1; must be greater than or equal to 0"),
        (f"{ENCODER}.train.divergence", -1, "given -1; must be greater than or equal to 0"),
        (f"{ENCODER}.model.latent", 0, "given 0; must be greater than or equal to 1"),
        (f"{ENCODER}.model.hidden", [], "given []; List should have at least 1 item after validation, not 0"),
        # new blocks
        (f"{TRAIN}.lookahead", 5, "given 5; must be a block such as {every: …, decay: …, ramp: …}"),
        (f"{TRAIN}.lookahead.every", 0, "given 0; must be greater than or equal to 1"),
        (f"{TRAIN}.lookahead.every", 2.5, "given 2.5; must be a valid integer"),
        (f"{TRAIN}.lookahead.decay", 1.0, "given 1.0; must be less than 1"),
        (f"{TRAIN}.lookahead.decay", -0.1, "given -0.1; must be greater than or equal to 0"),
        (f"{TRAIN}.lookahead.ramp", -1.0, "given -1.0; must be greater than or equal to 0"),
        (f"{TRAIN}.lookahead.ramp", float("inf"), "given inf; must be a finite number"),
        (f"{TRAIN}.swa", {"start": 1.5}, ".start: given 1.5; must be a share below 1, or the whole number of an epoch"),
        (f"{TRAIN}.swa", {"start": 4}, ".start: given 4.0; must be one of the 3 epochs"),
        (
            f"{TRAIN}.swa",
            {"start": 1, "lr": 0.1},
            ".start: given 1.0; must be later: it is after epoch 1 that the rate",
        ),
        (f"{TRAIN}.swa.cycle", 0, "given 0; must be greater than or equal to 1"),
        (f"{TRAIN}.swa.lr", 0.0, "given 0.0; must be greater than 0"),
        (f"{TRAIN}.sam", 5, "given 5; must be a block such as {rho: …, adaptive: …}"),
        (f"{TRAIN}.sam.rho", 0.0, "given 0.0; must be greater than 0"),
        (f"{TRAIN}.freeze", "network.*", "given 'network.*'; must be a valid list"),
        (f"{TRAIN}.freeze", ["a", 5], ".1: given 5; must be a block such as {parameters: …, epochs: …}"),
        (f"{TRAIN}.freeze", [{"parameters": ["a"]}], ".0.epochs: is missing and has no default"),
        (f"{TRAIN}.freeze", [{"parameters": [], "epochs": 1}], ".0.parameters: given []; List should have at least 1"),
        (
            f"{TRAIN}.freeze",
            [{"parameters": ["a"], "epoch": 1, "epochs": 1}],
            ".0.epoch: unknown key (did you mean epochs",
        ),
        (f"{TRAIN}.recompute", ["a", 5], ".1: given 5; must be a valid string"),
        (f"{TRAIN}.resume", "worm", "given 'worm'; must be 'auto', 'never', 'must' or 'warm'"),
        (f"{TRAIN}.keep_state", 1, "given 1; must be a valid boolean"),
        (f"{TRAIN}.whitening", True, "given True; must be a block such as {images: …, epsilon: …, freeze: …}"),
        (f"{TRAIN}.whitening.images", 0, "given 0; must be greater than or equal to 1"),
        (f"{TRAIN}.whitening.epsilon", 0.0, "given 0.0; must be greater than 0"),
        (f"{TRAIN}.whitening.freeze", "x", "given 'x'; must be a valid boolean"),
        (f"{TRAIN}.threads", 0, "given 0; must be greater than or equal to 1"),
        (f"{TRAIN}.threads", "all", "given 'all'; must be a valid integer"),
        (f"{TRAIN}.keep_memory", "x", "given 'x'; must be a valid boolean"),
        (f"{TRAIN}.optimizer.groups", 5, "given 5; must be a valid list"),
        (f"{TRAIN}.optimizer.groups", [5], ".0: given 5; must be a block such as {parameters: …}"),
        (f"{TRAIN}.optimizer.groups", [{"lr": 0.1}], ".0.parameters: is missing and has no default"),
        (f"{TRAIN}.optimizer.groups", [{"parameters": "*"}], ".0.parameters: given '*'; must be a valid list"),
        (
            f"{TRAIN}.optimizer.groups",
            [{"parameters": []}],
            ".0.parameters: given []; List should have at least 1 item",
        ),
        (f"{TRAIN}.optimizer.groups", [{"parameters": [5]}], ".0.parameters.0: given 5; must be a valid string"),
        (
            f"{TRAIN}.optimizer.groups",
            [{"parameters": ["a"]}, {"parameters": ["b"], "epochs": 0}],
            ".1.epochs: given 0; must be greater than or equal to 1",
        ),
        (
            f"{TRAIN}.optimizer.groups",
            [{"parameters": ["a"]}, {"parameters": ["b"], "lr": "x"}],
            ".1.lr: given 'x'; must be a valid number",
        ),
        (
            f"{TRAIN}.optimizer.groups",
            [{"parameters": ["a"], "lrr": 0.1}],
            ".0.lrr: unknown key (did you mean lr?); allowed are dampening, differentiable",
        ),
        (
            f"{TRAIN}.optimizer",
            {"name": "Muon", "momentun": 0.5},
            ".momentun: unknown key (did you mean momentum?); allowed are adamw_share, betas, eps, lr, mom",
        ),
        (f"{TRAIN}.optimizer", {"name": "Muon", "ns_steps": 2.5}, ".ns_steps: given 2.5; must be a valid integer"),
        (f"{TRAIN}.optimizer", {"name": "Muon", "normalize": 1}, ".normalize: given 1; must be a valid boolean"),
        ("mnist_mlp.data.augment.crop_border", "white", "given 'white'; must be 'black' or 'reflect'"),
        ("mnist_mlp.data.augment.flip", "x", "given 'x'; must be False, True or 'alternating'"),
        ("mnist_mlp.data.on_device", "x", "given 'x'; must be a valid boolean"),
        ("mnist_mlp.evaluate.batch_size", 0, "given 0; must be greater than or equal to 1"),
        ("mnist_mlp.evaluate.precision", "fp8", "given 'fp8'; must be 'auto', 'fp32', 'bf16' or 'fp16'"),
        ("mnist_mlp.evaluate.views", "two", "given 'two'; must be 'one', 'mirror' or 'mirror_and_shift'"),
        (
            "mnist_mlp.model",
            {"name": "airbench", "widths": [8, 8]},
            ".widths: given [8, 8]; List should have at least 3",
        ),
        ("mnist_mlp.model", {"name": "airbench", "depth": 4}, ".depth: given 4; must be 2 or 3"),
        (
            "mnist_mlp.model",
            {"name": "airbench", "norm_momentum": 1.0},
            ".norm_momentum: given 1.0; must be less than 1",
        ),
        ("mnist_mlp.model", {"name": "airbench", "scale": 0.0}, ".scale: given 0.0; must be greater than 0"),
        # combinations
        (f"{TRAIN}.warmup_epochs", 3, "given 3; must be less than epochs 3"),
        # missing
        (f"{TRAIN}.optimizer", ABSENT, "is missing and has no default"),
        (f"{TRAIN}.epochs", ABSENT, "is missing and has no default"),
        (f"{TRAIN}.optimizer.name", ABSENT, "is missing and has no default"),
        (f"{TRAIN}.scheduler", {"name": "StepLR"}, ".step_size: is missing and has no default"),
        (f"{TRAIN}.early_stopping", {}, ".patience: is missing and has no default"),
        ("mnist_mlp", ABSENT, "not given; must be the blocks data, evaluate, export, model, task, train"),
        ("mnist_mlp", 5, "given 5; must be the blocks data, evaluate, export, model, task, train"),
        (f"{WRITER}.generate", ABSENT, "not given; must be a block with some of the keys length, temperature, top_k"),
        (WRITER, ABSENT, "not given; must be the blocks data, evaluate, export, generate, model, task, train"),
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
        ("optimizer", {"name": "Muon", "lr": -1}, "Muon says: lr and weight_decay must not be negative"),
        ("optimizer", {"name": "Muon", "momentum": 0.0}, "Muon says: nesterov needs a momentum"),
        (
            "optimizer",
            {"name": "SGD", "groups": [{"parameters": ["a"]}, {"parameters": ["b"], "lr": -1}]},
            "groups.1: torch.optim.SGD says: Invalid learning rate: -1",
        ),
        (
            "optimizer",
            {"name": "Muon", "momentum": 0.5, "groups": [{"parameters": ["a"], "momentum": 0.0}]},
            "groups.0: Muon says: nesterov needs a momentum",
        ),
        ("loss", {"name": "HuberLoss", "delta": -1.0}, "torch.nn.HuberLoss says: huber_loss does not support non-pos"),
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
        (f"{TRAIN}.lookahead.evry", "every", "decay, every, ramp"),
        (f"{TRAIN}.whitening.image", "images", "epsilon, freeze, images"),
        ("mnist_mlp.evaluate.view", "views", "batch_size, device, metrics, pictures, precision, views"),
        ("mnist_mlp.data.augment.flp", "flip", "affine, color, crop_border, crop_padding, cutmix, cutout, flip"),
        ("mnist_mlp.model.dropuot", "dropout", "activation, dropout, hidden, initialization, norm"),
        ("mnist_mlp.exprot", "export", "data, evaluate, export, model, task, train"),
        ("mnist.preprocess.sed", "seed", "modality, normalize, reader, seed, validation_fraction"),
        (f"{WRITER}.generate.promt", "prompt", "length, prompt, samples, seed, temperature, top_k"),
        (
            f"{ENCODER}.train.divergance",
            "divergence",
            "accumulate, batch_size, callbacks, compile, deterministic, device, diverg",
        ),
        ("mnist_mpl", "mnist_mlp", ", ".join(sorted(VALID))),
    ],
)
def test_an_unknown_key_is_answered_with_the_likely_one(key: str, meant: str, allowed: str) -> None:
    changes = {f"{TRAIN}.early_stopping.patience": 2} if "early_stopping" in key else {}
    (line,) = mistakes({**changes, key: 1})
    assert line.startswith(f"{key}: unknown key (did you mean {meant}?); allowed are {allowed}")


@pytest.mark.parametrize(
    "key",
    [
        f"{TRAIN}.optimizer.params",
        f"{TRAIN}.loss.reduction",
        "mnist_mlp.model.shape",
        "mnist_mlp.model.depth",
        f"{WRITER}.model.tokens",
        f"{TABLE}.model.features",
        # what is for other kinds of task
        f"{TRAIN}.divergence",
        f"{WRITER}.train.divergence",
        f"{WRITER}.evaluate.pictures",
        f"{TABLE}.evaluate.pictures",
        f"{WRITER}.evaluate.views",
        f"{ENCODER}.evaluate.views",
        f"{TABLE}.evaluate.precision",
        "mnist_mlp.generate",
        "wonderland.preprocess.seed",
        "predict.generate.prompt",
        "serve.files",
    ],
)
def test_what_is_not_the_users_to_set_is_unknown(key: str) -> None:
    (line,) = mistakes({key: 1})
    assert re.match(rf"{re.escape(key)}: unknown key( \(did you mean \w+\?\))?; allowed are ", line)


@pytest.mark.parametrize(
    ("key", "given", "meant", "there"),
    [
        (f"{TRAIN}.optimizer.name", "SDG", "SGD", "Adam, AdamW"),
        (f"{TRAIN}.scheduler.name", "CosineLR", "CosineAnnealingLR", "OneCycleLR, PolynomialLR"),
        (f"{TRAIN}.loss.name", "CrossEntropy", "CrossEntropyLoss", "MSELoss, MultiMarginLoss"),
        ("mnist_mlp.model.name", "mpl", "mlp", "mlp, resnet"),
        (f"{WRITER}.model.name", "language_rn", "language_rnn", "language_rnn"),
    ],
)
def test_an_unknown_name_is_answered_with_the_likely_one(key: str, given: str, meant: str, there: str) -> None:
    (line,) = mistakes({key: given})
    assert re.match(rf"{key}: given '{given}'; must be .* \(did you mean {meant}\?\); there are .*{there}", line)


def test_a_name_like_no_other_gets_no_guess() -> None:
    (line,) = mistakes({"mnist_mlp.model.name": "perceiver"})
    assert "did you mean" not in line
    assert "; there are " in line


WITH_OUTPUTS = {"airbench", "alexnet", "cnn", "densenet", "lenet", "linear", "mlp"}
WITH_OUTPUTS |= {"resnet", "row_rnn", "text_rnn", "vgg"}
NETWORKS = {
    "classification": WITH_OUTPUTS,
    "reconstruction": {"autoencoder"},
    "language_model": {"language_rnn"},
    "regression": WITH_OUTPUTS,
    "segmentation": {"unet"},
    "translation": {"translation_transformer", "translation_rnn"},
    "generation": {"dcgan"},
}


@pytest.mark.parametrize("problem", NETWORKS)
def test_a_network_for_another_kind_of_task_is_refused(problem: str) -> None:
    key = f"{EXAMPLES[problem]}.model"
    others = set().union(*NETWORKS.values()) - NETWORKS[problem]
    for name in NETWORKS[problem]:
        assert mistakes({key: {"name": name}}) == []
    for name in others:
        (line,) = mistakes({key: {"name": name}})
        assert line.startswith(f"{key}.name: given {name!r}; must be a network for this problem, a module of")
        offered = line.partition("; there are ")[2].split(", ")
        assert NETWORKS[problem] <= set(offered)
        assert not others & set(offered)


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


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"scheduler": {"name": "StepLR", "step_size": 1}},
            "scheduler: given {'name': 'StepLR', 'step_size': 1}; must be ",
        ),
        ({"ema": 0.9}, "ema: given 0.9; must be left out: ScheduleFreeAdamW averages the weights itself"),
        ({"swa": {}}, "swa: given {}; must be left out: ScheduleFreeAdamW averages the weights itself"),
        ({"lookahead": {}}, "lookahead: given {}; must be left out: ScheduleFreeAdamW averages"),
    ],
)
def test_an_optimiser_without_a_schedule_goes_without(given: dict[str, Any], line: str) -> None:
    free = {f"{TRAIN}.scheduler": None, f"{TRAIN}.optimizer": {"name": "ScheduleFreeAdamW"}}
    assert mistakes({**free, f"{TRAIN}.warmup_epochs": 1.0}) == []
    (found,) = mistakes({**free, **{f"{TRAIN}.{key}": value for key, value in given.items()}})
    assert found.startswith(f"{TRAIN}.{line}")


def test_a_fused_optimiser_waits_for_no_layer() -> None:
    fused = {f"{TRAIN}.optimizer": {"name": "SGD", "fused": True}}
    assert mistakes({**fused, f"{TRAIN}.freeze": ["a"]}) == []
    (line,) = mistakes({**fused, f"{TRAIN}.freeze": [{"parameters": ["a"], "epochs": 1}]})
    assert "; must have no epochs where optimizer.fused is true" in line


@pytest.mark.parametrize(
    ("key", "value", "argument"),
    [
        ("optimizer", {"name": "SGD", "lr": math.nan}, "lr"),
        ("optimizer", {"name": "Lion", "lr": 0.1, "betas": [0.9, math.nan]}, "betas"),
        ("optimizer.groups", [{"parameters": ["a"], "weight_decay": math.nan}], "groups.0.weight_decay"),
        ("scheduler", {"name": "ExponentialLR", "gamma": math.nan}, "gamma"),
        ("loss", {"name": "MultiMarginLoss", "margin": math.nan}, "margin"),
    ],
)
def test_nan_is_no_argument(key: str, value: Any, argument: str) -> None:
    (line,) = mistakes({f"{TRAIN}.{key}": value})
    block = key.removesuffix(".groups")
    assert line.startswith(f"{TRAIN}.{block}.{argument}: given ")
    assert line.endswith("; must be a number, and not nan")


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "FocalLoss", "KLDivLoss"])
@pytest.mark.parametrize("given", [-0.5, 1.0, 1.5])
def test_labels_are_smoothed_by_a_share(name: str, given: float) -> None:
    """torch takes less than 0 for 0, and with 1 there would be nothing to learn."""
    (line,) = mistakes({f"{TRAIN}.loss": {"name": name, "label_smoothing": given}})
    assert line.startswith(f"{TRAIN}.loss.label_smoothing: given {given}; must be ")


def test_weights_are_averaged_in_one_way() -> None:
    (line,) = mistakes({f"{TRAIN}.ema": 0.9, f"{TRAIN}.swa": {}})
    assert line == f"{TRAIN}.swa: given {{}}; must be left out: ema averages the weights already"


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


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ([1.0, "x"], ".1: given 'x'; must be a valid number"),
        ([1.0, -1.0], ".1: given -1.0; must be greater than or equal to 0"),
        ([0.0, 0.0], ": given [0.0, 0.0]; must have a weight above 0"),
        ([1.0], ": given [1.0]; List should have at least 2 items"),
    ],
)
def test_weights_of_classes_that_no_loss_works_with(weights: list[Any], says: str) -> None:
    (line,) = mistakes({f"{TRAIN}.loss": {"name": "CrossEntropyLoss", "weight": weights}})
    assert line.startswith(f"{TRAIN}.loss.weight{says}")


@pytest.mark.parametrize(("monitor", "mode", "must"), [("accuracy", "min", "max"), ("loss", "max", "min")])
def test_plateaus_are_looked_for_in_the_direction_of_what_is_monitored(monitor: str, mode: str, must: str) -> None:
    scheduler = {"name": "ReduceLROnPlateau", "mode": mode}
    (line,) = mistakes({f"{TRAIN}.monitor": monitor, f"{TRAIN}.scheduler": scheduler})
    follows = f"it follows train.monitor, which is {monitor}"
    assert line == f"{TRAIN}.scheduler.mode: given '{mode}'; must be {must} or left out: {follows}"
    assert mistakes({f"{TRAIN}.monitor": monitor, f"{TRAIN}.scheduler": {**scheduler, "mode": must}}) == []


def test_highest_rates_of_groups_are_a_list() -> None:
    groups = [{"parameters": ["*.bias"], "lr": 0.2}]
    keys = {f"{TRAIN}.optimizer": {"name": "SGD", "lr": 0.1, "groups": groups}}
    (line,) = mistakes({**keys, f"{TRAIN}.scheduler": {"name": "OneCycleLR", "max_lr": 0.3}})
    assert line.startswith(f"{TRAIN}.scheduler.max_lr: given 0.3; must be a list of 2")
    for name in ("OneCycleLR", "CyclicLR"):
        arguments = {"max_lr": [0.3, 0.6], **({"base_lr": 0.1} if name == "CyclicLR" else {})}
        assert mistakes({**keys, f"{TRAIN}.scheduler": {"name": name, **arguments}}) == []
    (line,) = mistakes({**keys, f"{TRAIN}.scheduler": {"name": "OneCycleLR", "max_lr": [0.3, 0.6, 0.9]}})
    assert "max_lr" in line


def test_a_schedule_that_an_optimiser_would_not_look_at_is_refused() -> None:
    scheduler = {"name": "ExponentialLR", "gamma": 0.9}
    (line,) = mistakes({f"{TRAIN}.optimizer": {"name": "Rprop"}, f"{TRAIN}.scheduler": scheduler})
    assert "must be left out: Rprop" in line


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
    assert ClassifierConfig.model_validate({"name": "mlp", "hidden": None}).arguments == {}


def test_a_list_stands_for_a_tuple() -> None:
    config = OptimizerConfig.model_validate({"name": "Adam", "betas": [0.8, 0.9]})
    optimizer = create_optimizer(nn.Linear(2, 2), config)
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)
    (line,) = mistakes({f"{TRAIN}.optimizer": {"name": "Adam", "betas": [0.9]}})
    assert line == f"{TRAIN}.optimizer.betas.1: is missing and has no default"
    (line,) = mistakes({f"{TRAIN}.optimizer": {"name": "Adam", "betas": ["x", 0.9]}})
    assert line == f"{TRAIN}.optimizer.betas.0: given 'x'; must be a valid number"


@pytest.mark.parametrize(
    "changes",
    [
        {f"{TRAIN}.lookahead": {}},
        {f"{TRAIN}.swa": {"start": 2, "lr": 0.01, "cycle": 2}, f"{TRAIN}.sam": {}, f"{TRAIN}.resume": "warm"},
        {f"{TRAIN}.freeze": ["a.*", {"parameters": ["b.*"], "epochs": 2}], f"{TRAIN}.recompute": ["network.*"]},
        {f"{TRAIN}.optimizer": {"name": "Lion", "lr": 0.001, "betas": [0.9, 0.99]}, f"{TRAIN}.keep_state": True},
        {f"{TRAIN}.lookahead": {"every": 1, "decay": 0.0, "ramp": 3}},
        {f"{TRAIN}.whitening": {}},
        {f"{TRAIN}.threads": 4, f"{TRAIN}.keep_memory": False},
        {f"{TRAIN}.optimizer": {"name": "Muon", "lr": 0.1, "normalize": True, "ns_steps": 3}},
        {f"{TRAIN}.optimizer": {"name": "Adam", "groups": [{"parameters": ["*.bias"], "betas": [0.5, 0.6]}]}},
        {f"{TRAIN}.optimizer": {"name": "SGD", "groups": [{"parameters": ["*.bias"], "epochs": 1, "lr": None}]}},
        {f"{TRAIN}.optimizer": {"name": "SGD", "groups": []}},
        {"mnist_mlp.data": {"on_device": False, "augment": {"flip": "alternating", "crop_border": "reflect"}}},
        {"mnist_mlp.data": {"on_device": None, "augment": {"flip": False}}},
        {"mnist_mlp.evaluate": {"batch_size": None, "views": "mirror", "precision": "bf16"}},
        {"mnist_mlp.model": {"name": "airbench", "widths": [1, 2, 3], "depth": 3, "scale": None, "norm_momentum": 0.0}},
    ],
)
def test_what_makes_training_quick_is_accepted(changes: dict[str, Any]) -> None:
    assert mistakes(changes) == []


def test_arguments_of_groups_are_checked_together_with_those_for_all() -> None:
    groups = [{"parameters": ["a"], "nesterov": True}]
    assert mistakes({f"{TRAIN}.optimizer": {"name": "SGD", "momentum": 0.9, "groups": groups}}) == []
    (line,) = mistakes({f"{TRAIN}.optimizer": {"name": "SGD", "groups": groups}})
    assert "groups.0: torch.optim.SGD says: Nesterov momentum requires a momentum" in line
    (line,) = mistakes({f"{TRAIN}.optimizer": {"name": "SGD", "lrr": 0.1, "groups": [{"parameters": ["a"]}]}})
    assert line.startswith(f"{TRAIN}.optimizer.lrr: unknown key")  # said once, and not for the group too


@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimiser_is_accepted_with_its_defaults(name: str) -> None:
    assert mistakes({f"{TRAIN}.optimizer": {"name": name}}) == []


LOSSES = {name: problem_of(name).training.model_fields["loss"].annotation.suitable for name in problem_names()}


@pytest.mark.parametrize("problem", sorted(LOSSES.keys() & EXAMPLES.keys()))
def test_each_kind_of_task_has_its_losses(problem: str) -> None:
    key = f"{EXAMPLES[problem]}.train.loss"
    for name in sorted(set().union(*LOSSES.values())):
        lines = mistakes({key: {"name": name}})
        if name in LOSSES[problem]:
            assert lines == []
        else:
            (line,) = lines
            assert line.startswith(f"{key}.name: given {name!r}; must be a loss that suits this task")
            assert line.endswith(f"; there are {', '.join(sorted(LOSSES[problem]))}")


@pytest.mark.parametrize(
    ("task", "loss"),
    [(TABLE, {"name": "HuberLoss", "delta": 0.5}), (ENCODER, {"name": "SmoothL1Loss", "beta": 0.1})],
)
def test_losses_of_values_take_their_arguments(task: str, loss: dict[str, Any]) -> None:
    assert mistakes({f"{task}.train.loss": loss}) == []
    (line,) = mistakes({f"{task}.train.loss": {**loss, "label_smoothing": 0.1}})
    assert line.startswith(f"{task}.train.loss.label_smoothing: unknown key")
    number = next(name for name in loss if name != "name")
    (line,) = mistakes({f"{task}.train.loss": {**loss, number: -1.0}})
    assert f"torch.nn.{loss['name']} says: " in line


@pytest.mark.parametrize(
    "changes",
    [
        {f"{ENCODER}.train.divergence": 4.0},
        {f"{ENCODER}.train.monitor": "loss"},
        {f"{WRITER}.train.monitor": "accuracy"},
        {f"{WRITER}.generate": {"temperature": 0, "top_k": 1, "prompt": "\n", "seed": 7}},
        {f"{WRITER}.data.window": 2},
        {"imdb_lstm.data.max_tokens": 1, "imdb_lstm.model": {"name": "text_rnn", "pooling": "max"}},
        {"mnist_mlp.data.subset": 1},
        {"diabetes.preprocess": {"test_fraction": 0.0, "validation_fraction": 0.5, "seed": 3}},
    ],
)
def test_what_only_some_kinds_of_task_have(changes: dict[str, Any]) -> None:
    assert mistakes(changes) == []


@pytest.mark.parametrize("name", scheduler_names())
def test_every_scheduler_is_accepted_with_what_has_no_default(name: str) -> None:
    required = SCHEDULER_ARGUMENTS.get(name, {})
    assert mistakes({f"{TRAIN}.scheduler": {"name": name, **required}}) == []
    missing = [
        line.removesuffix(": is missing and has no default") for line in mistakes({f"{TRAIN}.scheduler.name": name})
    ]
    assert missing == [f"{TRAIN}.scheduler.{argument}" for argument in required]


ENVIRONMENTS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "local")


def shipped(environment: str) -> dict[str, Any]:
    loader = ConfigLoader(str(CONF), env=environment, **CONFIG_LOADER_ARGS)
    parameters: dict[str, Any] = loader["parameters"]
    return parameters


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_shipped_parameters_are_valid(environment: str) -> None:
    parameters = shipped(environment)
    assert parameters.keys() == READ | {"serve", "tracking"}
    check_parameters(parameters, EXPECTED, READ)


def test_parameters_are_merged_key_by_key() -> None:
    optimizer = shipped("base")["cifar_resnet"]["train"]["optimizer"]
    assert shipped("gpu")["cifar_resnet"]["train"]["optimizer"] == {**optimizer, "lr": 0.4}


@pytest.mark.parametrize(
    ("dimension", "key", "says"),
    [
        ({}, "", "must have choices, or low and high"),
        ({"low": 1}, "", "must have choices, or low and high"),
        ({"low": 2, "high": 2}, "", "must have a low that is less than high"),
        ({"low": 0.0, "high": 1.0, "log": True}, "", "must have a low above 0"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "", "no step where log is true"),
        ({"low": 1, "high": 9, "step": 9}, "", "must have a step above 0 that is not more than high - low"),
        ({"low": 1, "high": 9, "choices": [1]}, "", "must be either choices or low and high"),
        ({"choices": [[1], [2], [1]]}, "", "must have choices that differ"),
        ({"choices": []}, ".choices", "at least 1 item"),
        ({"low": "1", "high": 9}, ".low", "given '1'; must be a finite number"),
        ({"low": 1, "high": True}, ".high", "given True; must be a finite number"),
        ({"low": 1, "high": float("inf")}, ".high", "given inf; must be a finite number"),
        ({"low": 1, "hihg": 9, "high": 9}, ".hihg", "unknown key (did you mean high?); allowed are choices, high, log"),
    ],
)
def test_what_nothing_can_be_drawn_from(dimension: dict[str, Any], key: str, says: str) -> None:
    (line,) = mistakes({"sweep.space": {"train.optimizer.lr": dimension}})
    assert line.startswith(f"sweep.space.train.optimizer.lr{key}: ")
    assert says in line


def test_a_key_of_another_environment_is_taken_out_of_a_sweep() -> None:
    assert mistakes({"sweep.space": {"train.epochs": None, "train.seed": {"choices": [0, 1]}}}) == []
