"""Every parameter that a task's YAML file may hold, with its type, range, unit and default.

Kedro builds these models from conf/<env>/parameters and from `--params` before any node runs, because the node
functions are annotated with them; `check_parameters` does it a little earlier, for all tasks at once, to answer
mistakes in one readable message. What is named after a class of PyTorch is checked against the PyTorch installed.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from torchloom.errors import InputError

Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Block(BaseModel):
    """A block of parameters: exact types, no unknown keys, not changeable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Named(BaseModel):
    """A choice by name; every other key is an argument of what the name stands for, null one that is left out."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        return {key: value for key, value in (self.model_extra or {}).items() if value is not None}


# ---- data sets -----------------------------------------------------------------------------------------------------


class PreprocessConfig(Block):
    """The block `preprocess` of a data set."""

    validation_fraction: Fraction = Field(0.1, description="share of each class cut from the training data to validate")
    seed: Seed = Field(0, description="draws the validation split")


# ---- data ----------------------------------------------------------------------------------------------------------


class AugmentConfig(Block):
    """Random changes to training images, drawn for each image and batch anew."""

    crop_padding: int = Field(0, ge=0, description="pixels of black border that a crop of the old size is cut from")
    flip: bool = Field(False, description="mirror left and right with probability 1/2")


class DataConfig(Block):
    """The block `data` of a task: how prepared data become batches."""

    augment: AugmentConfig = AugmentConfig()
    include_validation: bool = Field(
        False, description="train on the validation split too; then the last epoch, not the best, is the model"
    )


# ---- model ---------------------------------------------------------------------------------------------------------


class ModelConfig(Named):
    """The block `model`: `name` is a module of torchloom.models, the rest are arguments of its `build` function."""

    @model_validator(mode="after")
    def _exists(self) -> ModelConfig:
        from torchloom.models import check_arguments, network_names

        _one_of(self.name, network_names(), "a network, that is a module of torchloom.models")
        check_arguments(self.name, self.arguments)
        return self


# ---- train ---------------------------------------------------------------------------------------------------------


class OptimizerConfig(Named):
    """A class of torch.optim by its name, with its arguments (`lr`, `weight_decay`, …)."""

    @model_validator(mode="after")
    def _exists(self) -> OptimizerConfig:
        from torchloom.training.optimization import check_optimizer, optimizer_names

        _one_of(self.name, optimizer_names(), "an optimiser of torch.optim")
        check_optimizer(self.name, self.arguments)
        return self


class SchedulerConfig(Named):
    """A class of torch.optim.lr_scheduler by its name, with its arguments.

    Left out, the length (`T_max`, `total_steps`, `total_iters`) is the whole run after warm-up, in optimiser steps;
    arguments that you give are counted in epochs. `interval` overrides which of both the scheduler counts.
    """

    interval: Literal["step", "epoch"] | None = Field(None, description="what the scheduler counts")

    @field_validator("interval")
    @classmethod
    def _countable(cls, interval: str | None, info: ValidationInfo) -> str | None:
        if interval == "step" and info.data.get("name") == "ReduceLROnPlateau":
            raise ValueError("must be epoch: ReduceLROnPlateau watches the loss of whole epochs")
        return interval

    @model_validator(mode="after")
    def _exists(self) -> SchedulerConfig:
        from torchloom.training.optimization import check_scheduler, scheduler_names

        _one_of(self.name, scheduler_names(), "a scheduler of torch.optim.lr_scheduler")
        check_scheduler(self.name, self.arguments)
        return self


class LossConfig(Named):
    """A loss of torch.nn by its class name, with its arguments (`label_smoothing`, `delta`, …)."""

    name: str = "CrossEntropyLoss"

    @model_validator(mode="after")
    def _exists(self) -> LossConfig:
        from torchloom.training.losses import check_loss, loss_names

        _one_of(self.name, loss_names(), "a loss of torch.nn that suits this task")
        check_loss(self.name, self.arguments)
        return self


class EarlyStoppingConfig(Block):
    patience: Count = Field(description="epochs without improvement on the validation split before training stops")
    min_delta: NotNegative = Field(0.0, description="a smaller improvement than this counts as none")


class TrainConfig(Block):
    """The block `train`."""

    epochs: Count = Field(description="passes over the training data")
    batch_size: Count = Field(128, description="images per step")
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig | None = Field(None, description="none keeps the learning rate")
    warmup_epochs: NotNegative = Field(0.0, description="epochs of linear rise to the full learning rate")
    loss: LossConfig = Field(default_factory=LossConfig)
    l1: NotNegative = Field(0.0, description="adds l1 * sum of |w| over all weight matrices and kernels to the loss")
    l2: NotNegative = Field(0.0, description="adds l2 / 2 * sum of w² likewise; see also the optimiser's weight_decay")
    gradient_clip: Positive | None = Field(None, description="largest norm of the whole gradient")
    accumulate: Count = Field(1, description="batches whose gradients are averaged before each optimiser step")
    ema: Fraction | None = Field(
        None, description="decay per step of an averaged copy of the weights, which is the model"
    )
    early_stopping: EarlyStoppingConfig | None = None
    monitor: Literal["accuracy", "loss"] = Field(
        "accuracy", description="which validation figure makes an epoch the best"
    )
    seed: Seed = Field(0, description="for initial weights, order of the data, augmentation and dropout")
    deterministic: bool = Field(False, description="only deterministic algorithms, at some cost in speed on GPUs")
    device: str = Field("auto", description="auto takes cuda, mps, xpu or cpu, the first that is there; or e.g. cuda:1")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="type of the matrix products; auto takes bf16 where the hardware computes it natively"
    )
    compile: bool = Field(False, description="torch.compile the network: pays on GPUs, not on CPUs")

    @field_validator("scheduler")
    @classmethod
    def _suits_optimizer(cls, scheduler: SchedulerConfig | None, info: ValidationInfo) -> SchedulerConfig | None:
        from torchloom.training.optimization import check_scheduler

        optimizer = info.data.get("optimizer")
        if scheduler and optimizer:
            check_scheduler(scheduler.name, scheduler.arguments, optimizer.name, optimizer.arguments)
        return scheduler

    @field_validator("warmup_epochs")
    @classmethod
    def _warmup_fits(cls, warmup: float, info: ValidationInfo) -> float:
        epochs, scheduler = info.data.get("epochs"), info.data.get("scheduler")
        if epochs and warmup >= epochs:
            raise ValueError(f"must be less than epochs {epochs}")
        if warmup and scheduler and scheduler.name in {"OneCycleLR", "CyclicLR"}:
            raise ValueError(f"must be left out: {scheduler.name} warms up by itself")
        return warmup

    @field_validator("device")
    @classmethod
    def _device(cls, device: str) -> str:
        if device != "auto":
            import torch

            try:
                torch.device(device)
            except RuntimeError as error:
                raise ValueError("must be auto, cpu, cuda, cuda:N, mps or xpu") from error
        return device



# ---- evaluate and export -------------------------------------------------------------------------------------------


class EvaluateConfig(Block):
    """The block `evaluate`."""

    batch_size: Count = Field(1000, description="images per step, in validation too")
    device: str = Field("auto", description="as train.device")
    pictures: Count = Field(36, description="test images shown in the grid of predictions")

    _device = field_validator("device")(TrainConfig._device.__func__)  # type: ignore[attr-defined]


class ExportConfig(Block):
    """The block `export`."""

    opset: int = Field(20, ge=18, description="version of the ONNX operators")
    tolerance: Positive = Field(1e-3, description="greatest difference of a logit between PyTorch and ONNX Runtime")
    batch_sizes: list[Count] = Field([1, 3, 64], min_length=1, description="numbers of test images compared at once")


# ---- checking it all -----------------------------------------------------------------------------------------------


class UnknownNameError(ValueError):
    """A `name` that stands for nothing."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class ArgumentError(ValueError):
    """Arguments that do not fit a signature; carries pydantic's account of each."""

    def __init__(self, model: type[BaseModel], errors: list[ErrorDetails]) -> None:
        super().__init__(f"arguments do not fit {model.__name__}")
        self.model, self.errors = model, errors


def check_call(function: Callable[..., Any], arguments: Mapping[str, Any], given_by_us: Iterable[str] = ()) -> None:
    """Check names and types of `arguments` against the signature; raise ArgumentError.

    `given_by_us` are parameters of the function that are not the user's to set, such as an optimiser's `params`.
    """
    # torch imports some names of its hints for type checkers only; the one iterable that YAML knows is the list
    names = {"Callable": Callable, "Iterable": list}
    hints = get_type_hints(
        function.__init__ if inspect.isclass(function) else function, localns=names, include_extras=True
    )
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in given_by_us and parameter.kind is not parameter.VAR_KEYWORD
    }
    rules = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, protected_namespaces=())
    model = create_model(function.__name__, __config__=rules, **fields)
    try:
        model.model_validate({name: _as_tuple(value, hints.get(name)) for name, value in arguments.items()})
    except ValidationError as error:
        raise ArgumentError(model, _one_per_value(error.errors())) from None


def _one_per_value(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Join what pydantic says of each type that a union allows, but for types that YAML cannot name, such as Tensor."""
    joined: dict[tuple[int | str, ...], ErrorDetails] = {}
    for error in errors:
        name, *rest = error["loc"]
        place = (name, *(part for part in rest if isinstance(part, int)))  # without the name of the union's member
        if place not in joined:
            joined[place] = {**error, "loc": place}
        elif error["type"] != "is_instance_of":
            joined[place]["msg"] += " or " + error["msg"].removeprefix("Input should be ")
    return list(joined.values())


def _as_tuple(value: Any, hint: Any) -> Any:
    """YAML has no tuples: a list stands for one where the signature asks for one."""
    return tuple(value) if isinstance(value, list) and getattr(hint, "__origin__", None) is tuple else value


def _one_of(name: str, allowed: Iterable[str], what: str) -> None:
    allowed = sorted(allowed)
    if name not in allowed:
        near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UnknownNameError(name, f"must be {what}{hint}; there are {', '.join(allowed)}")


def check_parameters(parameters: Mapping[str, Any], expected: Mapping[str, type[BaseModel]], others: set[str]) -> None:
    """Check all parameters; raise one InputError that lists every mistake by its full key.

    `expected` maps the full key of each typed block (`cifar_resnet.train`) to its model; `others` are the remaining
    top-level keys that some pipeline reads.
    """
    blocks: dict[str, set[str]] = {}
    for key in expected:
        owner, _, block = key.partition(".")
        blocks.setdefault(owner, set()).add(block)
    known = blocks.keys() | others
    problems = [f"{owner}: {unknown(owner, known)}" for owner in parameters if owner not in known]
    for owner, names in blocks.items():
        given = parameters.get(owner)
        if not isinstance(given, Mapping):
            problems.append(f"{owner}: {_given(given)}; must be the blocks {', '.join(sorted(names))}")
            continue
        problems += [f"{owner}.{name}: {unknown(str(name), names)}" for name in given if name not in names]
        for name in sorted(names):
            problems += _check_block(f"{owner}.{name}", given.get(name), expected[f"{owner}.{name}"])
    if problems:
        count = "one mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        raise InputError(f"the parameters hold {count}:\n" + "\n".join(f"  {problem}" for problem in problems))


def _check_block(key: str, given: Any, model: type[BaseModel]) -> list[str]:
    if not isinstance(given, Mapping):
        return [
            f"{key}: {_given(given)}; must be a block with some of the keys {', '.join(model.model_fields)} (or {{}})"
        ]
    try:
        model.model_validate(dict(given))
    except ValidationError as error:
        return [line for details in error.errors() for line in _readable(key, model, details)]
    return []


def _readable(key: str, model: type[BaseModel], error: ErrorDetails) -> list[str]:
    """One pydantic error as `full.key: given …; what is allowed`."""
    path = [str(part) for part in error["loc"]]
    full = ".".join([key, *path])
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, ArgumentError):
        return [line for inner in cause.errors for line in _readable(full, cause.model, inner)]
    if isinstance(cause, UnknownNameError):
        return [f"{full}.name: {_given(cause.name)}; {cause}"]
    if error["type"] == "extra_forbidden":
        return [f"{full}: {unknown(path[-1], _fields_at(model, path[:-1]))}"]
    if error["type"] == "missing":
        return [f"{full}: is missing and has no default"]
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return [f"{full}: {_given(error['input'])}; {message}"]


def _given(value: Any) -> str:
    return "not given" if value is None else f"given {value!r}"


def unknown(name: str, allowed: Iterable[str], what: str = "key") -> str:
    """`unknown key (did you mean …?); allowed are …`"""
    allowed = sorted(allowed)
    near = difflib.get_close_matches(name, allowed, n=1)
    return f"unknown {what}{f' (did you mean {near[0]}?)' if near else ''}; allowed are {', '.join(allowed)}"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys of the block that `path` leads to below `model`."""
    for part in path:
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next(kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(model.model_fields)
