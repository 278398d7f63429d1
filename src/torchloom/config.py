"""Every parameter that a task's YAML file may hold, with its type, range, unit and default.

Kedro builds these models from conf/<env>/parameters and from `--params` before any node runs, because the node
functions are annotated with them; `validation.py` does it a little earlier, for all tasks at once, to answer
mistakes in one readable message. What is named after a class of PyTorch is checked against the PyTorch installed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from torchloom.validation import one_of

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

        one_of(self.name, network_names(), "a network, that is a module of torchloom.models")
        check_arguments(self.name, self.arguments)
        return self


# ---- train ---------------------------------------------------------------------------------------------------------


class OptimizerConfig(Named):
    """A class of torch.optim by its name, with its arguments (`lr`, `weight_decay`, …)."""

    @model_validator(mode="after")
    def _exists(self) -> OptimizerConfig:
        from torchloom.training.optimization import check_optimizer, optimizer_names

        one_of(self.name, optimizer_names(), "an optimiser of torch.optim")
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

        one_of(self.name, scheduler_names(), "a scheduler of torch.optim.lr_scheduler")
        check_scheduler(self.name, self.arguments)
        return self


class LossConfig(Named):
    """A loss of torch.nn by its class name, with its arguments (`label_smoothing`, `delta`, …)."""

    name: str = "CrossEntropyLoss"

    @model_validator(mode="after")
    def _exists(self) -> LossConfig:
        from torchloom.training.losses import check_loss, loss_names

        one_of(self.name, loss_names(), "a loss of torch.nn that suits this task")
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

    @field_validator("opset")
    @classmethod
    def _known(cls, opset: int) -> int:
        import onnx

        if opset > onnx.defs.onnx_opset_version():
            raise ValueError(
                f"must be at most {onnx.defs.onnx_opset_version()}, the newest that the installed onnx has"
            )
        return opset
