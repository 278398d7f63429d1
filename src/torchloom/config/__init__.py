"""Every parameter that a task's YAML file may hold, with its type, range, unit and default.

Kedro builds these models from conf/<env>/parameters and from `--params` before any node runs, because the node
functions are annotated with them; `checks.py` does it a little earlier, for all tasks at once, to answer
mistakes in one readable message. What is named after a class of PyTorch is checked against the PyTorch installed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from torchloom.config import own
from torchloom.config.checks import ArgumentError
from torchloom.config.choices import answering_for

Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _device(name: str) -> str:
    if name != "auto":
        import torch

        try:
            torch.device(name)
        except RuntimeError as error:
            raise ValueError("must be auto, cpu, cuda, cuda:N, mps or xpu") from error
    return name


Device = Annotated[str, AfterValidator(_device)]


def _black_below_white(values: list[float]) -> list[float]:
    if not values[0] < values[1] or not all(map(math.isfinite, values)):
        raise ValueError("must be two numbers, [black, white], the first less than the second")
    return values


ValueRange = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_black_below_white)]
Fit = Literal["crop", "pad", "squash"]
Views = Literal["one", "mirror", "mirror_and_shift"]


class Block(BaseModel):
    """A block of parameters: exact types, no unknown keys, not changeable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class Named(BaseModel):
    """A choice by name; every other key is an argument of what the name stands for, null one that is left out."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)

    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        return {key: value for key, value in (self.model_extra or {}).items() if value is not None}


# ---- data sets -----------------------------------------------------------------------------------------------------


class ReaderConfig(Block):
    """The block `preprocess` of a data set, as far as all readers share it."""

    reader: str | None = Field(
        None,
        description="a module of torchloom.data.readers, or the dotted path of one of yours; none: that of the data "
        "set's name, or else that of folders of pictures",
    )
    modality: str | None = Field(
        None, description="of a reader of yours whose inputs are of a kind of yours: the dotted path of its Info"
    )

    @field_validator("modality")
    @classmethod
    def _known(cls, modality: str | None) -> str | None:
        known = answering_for("modality")

        if modality is not None:
            known.check_modality(modality)
        return modality


class PreprocessConfig(ReaderConfig):
    """The block `preprocess` of a data set."""

    validation_fraction: Fraction = Field(0.1, description="share of each class cut from the training data to validate")
    seed: Seed = Field(0, description="draws the validation split")


class SplitFolders(Block):
    """Which folders of pictures are which split, all others being left out; none of them: no folder is."""

    train: str | None = Field(None, min_length=1, description="a folder below `folder` that holds the class folders")
    validation: str | None = Field(None, min_length=1, description="the same; none cuts it from the training data")
    test: str | None = Field(None, min_length=1, description="the same; none cuts it from the training data")

    @model_validator(mode="after")
    def _trains(self) -> SplitFolders:
        if not self.train and (self.validation or self.test):
            raise ValueError("must say which folder is train, too")
        return self


class FolderPreprocessConfig(PreprocessConfig):
    """The block `preprocess` of a folder of pictures, in a subfolder for each class.

    The class folders lie in the folder itself, or in its folders of the splits; a split that has no folder is cut from
    the training data.
    """

    folder: str = Field(min_length=1, description="where the pictures are; looked through with all below it")
    splits: SplitFolders | None = Field(
        None, description="none knows the folders of splits by their usual names; with {} every folder is a class"
    )
    size: list[Count] = Field([64, 64], min_length=2, max_length=2, description="height and width in pixels")
    channels: Literal[1, 3] = Field(3, description="1 makes them grey, 3 coloured")
    fit: Fit = Field(
        "crop", description="how pictures of other proportions fit: cut, with black borders, or out of proportion"
    )
    value_range: ValueRange | None = Field(
        None,
        description="[black, white]: the values that become 0 and 255 in pictures of more than 8 bits a channel; none: "
        "by what the training pictures hold, for values up to 4095 as of 12 bits, for example",
    )
    test_fraction: Fraction = Field(0.1, description="share of each class to test, one or more, without a folder test")
    validation_fraction: Fraction = Field(
        0.1, description="share of each class, of what remains, to validate, without a folder val"
    )
    skip_unreadable: bool = Field(False, description="leave out what cannot be read, instead of ending the run")
    cache: Literal["auto", "always", "never"] = Field(
        "auto",
        description="whether the decoded pixels are kept in one file, or decoded again for each batch; auto keeps them "
        "when they fit on the disk",
    )


class TextPreprocessConfig(ReaderConfig):
    """The block `preprocess` of one long text, which is cut in two places: training, validation and test in a row."""

    test_fraction: Fraction = Field(0.1, description="share of the text, at its end, to test")
    validation_fraction: Fraction = Field(0.1, description="share of what remains, at its end, to validate")


class DocumentPreprocessConfig(PreprocessConfig):
    """The block `preprocess` of labelled texts."""

    vocabulary_size: int = Field(20_000, ge=3, description="most frequent words to know, with <pad> and <unk>")
    min_count: Count = Field(2, description="words that the training data hold less often are unknown")


class TablePreprocessConfig(ReaderConfig):
    """The block `preprocess` of a table."""

    test_fraction: Fraction = Field(0.2, description="share of the rows to test")
    validation_fraction: Fraction = Field(0.1, description="share of what remains to validate")
    seed: Seed = Field(0, description="draws both")


# ---- data ----------------------------------------------------------------------------------------------------------


class AffineConfig(Block):
    """Turning, moving, scaling and shearing about the centre, as torchvision's RandomAffine; black around."""

    degrees: float = Field(0.0, ge=0, le=180, description="turned by at most so much either way")
    translate: float = Field(0.0, ge=0, le=1, description="moved by at most this share of the side, by whole pixels")
    scale: list[Positive] = Field([1.0, 1.0], description="least and greatest factor of the size")
    shear: float = Field(0.0, ge=0, lt=90, description="rows slanted by at most so many degrees either way")

    @field_validator("scale")
    @classmethod
    def _ordered(cls, scale: list[float]) -> list[float]:
        if len(scale) != 2 or scale[0] > scale[1]:
            raise ValueError("must be two factors, [least, greatest]")
        return scale


class ColorConfig(Block):
    """Factors from [max(0, 1 - x), 1 + x], applied in random order, as torchvision's ColorJitter."""

    brightness: NotNegative = Field(0.0, description="x of the distance from black")
    contrast: NotNegative = Field(0.0, description="x of the distance from the image's mean grey")
    saturation: NotNegative = Field(0.0, description="x of the distance from each pixel's grey")


class PolicyConfig(Named):
    """A policy of torchvision.transforms.v2 by its class name, with its arguments (`magnitude`, `num_ops`, …).

    One of the user's own is a class below torch.nn.Module: images (B, C, H, W) uint8 -> the same.
    """

    groups: Count = Field(16, description="random parts of a batch, each changed by a draw of its own")

    @model_validator(mode="after")
    def _exists(self) -> PolicyConfig:
        from torch.nn import Module

        known = answering_for("policy")

        own.chosen(self.name, known.POLICIES, "a policy of torchvision.transforms.v2", parent=Module)
        known.check_policy(self.name, self.arguments)
        return self


class AugmentConfig(Block):
    """Random changes to training images, in this order, drawn for each image and batch anew."""

    crop_padding: int = Field(0, ge=0, description="pixels of border that a crop of the old size is cut from")
    crop_border: Literal["black", "reflect"] = Field("black", description="what the border shows")
    affine: AffineConfig | None = Field(None, description="turns, moves, scales and shears")
    flip: Literal[False, True, "alternating"] = Field(
        False,
        description="mirror left and right with probability 1/2; alternating: half of the images in the first epoch, "
        "the others in the next, and so on in turn",
    )
    policy: PolicyConfig | None = Field(None, description="RandAugment and its kin")
    color: ColorConfig | None = Field(None, description="changes brightness, contrast and saturation")
    cutout: int = Field(0, ge=0, description="side in pixels of a square in the mean colour, centred anywhere")
    mixup: NotNegative = Field(0.0, description="alpha of MixUp, which blends images and their labels; 0 leaves it out")
    cutmix: NotNegative = Field(
        0.0, description="alpha of CutMix, which pastes; 0 leaves it out; with mixup too, each batch gets one of both"
    )
    per_sample: bool = Field(
        False, description="all before cutout image by image, by torchvision's own transforms: the slow reference"
    )

    @property
    def mixes(self) -> bool:
        """Whether labels become shares of classes."""
        return self.mixup > 0 or self.cutmix > 0


class DataConfig(Block):
    """The block `data` of a task: how prepared data become batches."""

    augment: AugmentConfig = Field(default_factory=AugmentConfig, description="of images only")
    max_tokens: Count | None = Field(
        None, description="of documents only: of longer ones so many of the last words count"
    )
    window: int = Field(128, ge=2, description="of a text only: length of a training sequence, in characters")
    include_validation: bool = Field(
        False, description="train on the validation split too; then the last epoch, not the best, is the model"
    )
    subset: Count | None = Field(None, description="train on so many samples only, drawn by train.seed")
    on_device: bool | None = Field(
        None,
        description="whether the data lie in the device's memory as a whole, or come batch by batch from the files, "
        "the next ones while the device computes; none: as a whole when they fit into half of what is free",
    )


# ---- model ---------------------------------------------------------------------------------------------------------


class ModelConfig(Named):
    """The block `model`: `name` is a module of torchloom.models, the rest are arguments of its `build` function.

    The first parameters of `build` are sizes that the data decide: what it may ask for of the outputs is in `outputs`,
    and of the inputs in `inputs`, or anything that the data have.
    """

    outputs: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[tuple[str, ...] | None] = None

    @model_validator(mode="after")
    def _exists(self) -> ModelConfig:
        known = answering_for("network")

        known.check_network(self.name, self.outputs, self.inputs)
        known.check_arguments(self.name, self.arguments)
        return self


# ---- train ---------------------------------------------------------------------------------------------------------


class DistributedConfig(Block):
    """The block `distributed`: the processes that train a network together, for all tasks the same.

    `train.batch_size` is that of all of them together; each works on its part.
    """

    processes: Count | Literal["auto"] = Field(
        1, description="on this machine; auto is one for each GPU, and on a single machine without GPUs two"
    )
    machines: Count = Field(1, description="that take part; the same command is started on each")
    address: str | None = Field(None, description="host:port on one of the machines, where all of them meet")
    sync_batch_norm: bool = Field(
        True, description="whether batch norm looks at the batches of all processes, or each at its own"
    )
    restarts: int = Field(3, ge=0, description="times that all begin again from the last state when one was lost")
    timeout: Positive = Field(600.0, description="seconds to wait for other machines to come, and for an answer")

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, address: str | None) -> str | None:
        host, _, port = (address or "localhost:1").rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError("must be host:port, such as 10.0.0.1:29400")
        return address

    @model_validator(mode="after")
    def _meeting_point(self) -> DistributedConfig:
        if self.machines > 1 and self.address is None:
            raise ValueError(f"address: is missing; {self.machines} machines must know where to meet")
        return self

    @property
    def alone(self) -> bool:
        """Whether the training is one process, this one."""
        return self.processes == 1 and self.machines == 1

    def recipe(self) -> dict[str, Any]:
        """What decides the outcome, as JSON has it."""
        return self.model_dump(mode="json", include={"processes", "machines", "sync_batch_norm"})


class OverfitConfig(Block):
    """A handful of samples learnt by heart: what cannot do that will learn nothing from many."""

    samples: Count = Field(8, description="that are trained on, and validated on, as they are")
    epochs: Count = Field(1000, description="after which it gives up")
    share: float = Field(
        0.01, gt=0, lt=1, description="of the first epoch's loss; where the validation loss is less, they are learnt"
    )


class ProfileConfig(Block):
    """Which optimiser steps torch.profiler watches, as in torch.profiler.schedule."""

    wait: int = Field(1, ge=0, description="steps that are left out at first")
    warmup: int = Field(2, ge=0, description="steps in which the profiler runs, and nothing is kept")
    active: Count = Field(5, description="steps that are kept")
    rows: Count = Field(20, description="of the table of hot spots")


class DebuggingConfig(Block):
    """The block `debugging`: short runs that show where something is wrong, for all tasks the same.

    The environments debug, overfit and profile are made of it. Their results lie in folders of their own.
    """

    batches: Count | None = Field(None, description="of each split at most, read without threads; none takes all")
    epochs: Count | None = Field(None, description="instead of train.epochs")
    detect_anomaly: bool = Field(
        False, description="look at what each layer and each gradient gives, and end where one is not finite first"
    )
    overfit: OverfitConfig | None = Field(None, description="learn a few samples by heart, with nothing in the way")
    profile: ProfileConfig | None = Field(None, description="a few steps only, with a trace and a table of hot spots")

    @property
    def on(self) -> bool:
        return self != DebuggingConfig()


class TrackingConfig(Block):
    """The block `tracking`: who is shown what becomes of a task, for all tasks the same. It decides nothing."""

    name: Literal["none", "mlflow", "tensorboard"] = Field("none", description="each is an extra of the same name")


class GroupConfig(BaseModel):
    """Parameters with settings of their own; every other key is an argument of the optimiser."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)

    parameters: list[str] = Field(
        min_length=1, description="their names or patterns (*.bias) as in model.named_parameters()"
    )
    epochs: Count | None = Field(None, description="they learn for so many epochs and then stay as they are")

    @property
    def arguments(self) -> dict[str, Any]:
        return {key: value for key, value in (self.model_extra or {}).items() if value is not None}


class OptimizerConfig(Named):
    """A class of torch.optim by its name, or Muon, with its arguments (`lr`, `weight_decay`, …)."""

    groups: list[GroupConfig] = Field([], description="parameters with other arguments; the first that fits counts")

    @model_validator(mode="after")
    def _exists(self) -> OptimizerConfig:
        from torch.optim import Optimizer

        known = answering_for("optimizer")

        own.chosen(self.name, known.optimizer_names(), "Muon, an optimiser of torch.optim", parent=Optimizer)
        known.check_optimizer(self.name, self.arguments)
        for number, group in enumerate(self.groups):
            try:
                known.check_optimizer(self.name, {**self.arguments, **group.arguments})
            except ArgumentError as error:
                raise ArgumentError(error.model, error.errors, ("groups", str(number))) from None
            except ValueError as error:
                raise ValueError(f"groups.{number}: {error}") from None
        return self


class SchedulerConfig(Named):
    """A class of torch.optim.lr_scheduler by its name, with its arguments.

    Left out, the length (`T_max`, `total_steps`, `total_iters`) is the whole run after warm-up, in optimiser steps;
    arguments that you give are counted in epochs, but those of CyclicLR and OneCycleLR in optimiser steps, as PyTorch
    has it. `interval` overrides which of both the scheduler counts. Counting begins when warm-up is over: after 5
    epochs of it the milestone 30 is the end of epoch 35. ReduceLROnPlateau watches what the training monitors.
    """

    interval: Literal["step", "epoch"] | None = Field(None, description="what the scheduler counts")

    @field_validator("interval")
    @classmethod
    def _countable(cls, interval: str | None, info: ValidationInfo) -> str | None:
        if interval == "step" and info.data.get("name") == "ReduceLROnPlateau":
            raise ValueError("must be epoch: ReduceLROnPlateau watches figures of whole epochs")
        return interval

    @model_validator(mode="after")
    def _exists(self) -> SchedulerConfig:
        from torch.optim.lr_scheduler import LRScheduler

        known = answering_for("scheduler")

        own.chosen(self.name, known.scheduler_names(), "a scheduler of torch.optim.lr_scheduler", parent=LRScheduler)
        known.check_scheduler(self.name, self.arguments)
        return self


ON_VALUES = frozenset({"MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss"})


class LossConfig(Named):
    """A loss of torch.nn by its class name, with its arguments (`label_smoothing`, `delta`, …)."""

    suitable: ClassVar[frozenset[str]]  # the names of those that suit the problem
    on_classes: ClassVar[bool] = False  # whether targets are numbers of classes, and predictions logits

    @model_validator(mode="after")
    def _exists(self) -> LossConfig:
        from torch.nn import Module

        known = answering_for("loss")

        own.chosen(self.name, self.suitable, "a loss of torch.nn that suits this task", parent=Module)
        known.check_loss(self.name, self.arguments, self.on_classes)
        return self


class ClassLoss(LossConfig):
    """Targets are numbers of classes or, of all but the first two, one-hot rows."""

    on_classes = True
    suitable = ON_VALUES | {"CrossEntropyLoss", "MultiMarginLoss", "BCEWithLogitsLoss"}
    name: str = "CrossEntropyLoss"


class ValueLoss(LossConfig):
    """Targets are numbers."""

    suitable = ON_VALUES
    name: str = "MSELoss"


class EarlyStoppingConfig(Block):
    patience: Count = Field(description="epochs without improvement on the validation split before training stops")
    min_delta: NotNegative = Field(0.0, description="a smaller improvement than this counts as none")


def direction(monitor: str, rising: Collection[str] = ("accuracy",)) -> Literal["max", "min"]:
    """Which values of a figure are better: greater ones of those in `rising`."""
    return "max" if monitor in rising else "min"


class LookaheadConfig(Block):
    """Slow weights that follow the trained ones and are handed back to them (Zhang et al., NeurIPS 2019)."""

    every: Count = Field(5, description="optimiser steps between two meetings")
    decay: Fraction = Field(0.5, description="share of itself that a slow weight keeps when both meet")
    ramp: NotNegative = Field(
        0.0, description="decay grows with this power of the run's done share; 0 keeps it from the beginning"
    )


class WhiteningConfig(Block):
    """The first convolution's kernels make its outputs uncorrelated; see torchloom/training/whitening.py."""

    images: Count = Field(5000, description="training images, drawn at random, whose patches are taken")
    epsilon: Positive = Field(5e-4, description="added to the patches' variances, so that noise is not blown up")
    freeze: bool = Field(True, description="the kernels stay; only their biases learn")


class CallbackConfig(Named):
    """A class below torchloom.training.callbacks.Callback by its dotted path, with its arguments."""

    @model_validator(mode="after")
    def _exists(self) -> CallbackConfig:
        answering_for("callback").check_callback(self.name, self.arguments)
        return self


class TrainConfig(Block):
    """The block `train`, as far as all problems share it."""

    rising: ClassVar[frozenset[str]] = frozenset({"accuracy"})  # of what can be monitored, that of which more is better

    epochs: Count = Field(description="passes over the training data")
    batch_size: Count = Field(128, description="samples per step")
    optimizer: OptimizerConfig
    monitor: Literal["accuracy", "loss"] = Field(
        "loss", description="which validation figure makes an epoch the best; of equal ones the loss decides"
    )
    scheduler: SchedulerConfig | None = Field(None, description="none keeps the learning rate")
    warmup_epochs: NotNegative = Field(0.0, description="epochs of linear rise to the full learning rate")
    l1: NotNegative = Field(0.0, description="adds l1 * sum of |w| over all weight matrices and kernels to the loss")
    l2: NotNegative = Field(0.0, description="adds l2 / 2 * sum of w² likewise; see also the optimiser's weight_decay")
    gradient_clip: Positive | None = Field(None, description="largest norm of the whole gradient")
    accumulate: Count = Field(1, description="batches whose gradients are averaged before each optimiser step")
    ema: Fraction | None = Field(
        None, description="decay per step of an averaged copy of the weights, which is the model"
    )
    lookahead: LookaheadConfig | None = Field(None, description="slow weights beside the trained ones")
    whitening: WhiteningConfig | None = Field(None, description="of images only: how the first convolution starts")
    early_stopping: EarlyStoppingConfig | None = None
    freeze: list[str] = Field(
        [],
        description="names or patterns (network.stages.*) as in model.named_parameters() of what stays as it is; "
        "layers that stay as a whole keep their statistics too",
    )
    callbacks: list[CallbackConfig] = Field([], description="of yours, which see each optimiser step and each epoch")
    seed: Seed = Field(0, description="for initial weights, order of the data, augmentation and dropout")
    deterministic: bool = Field(False, description="only deterministic algorithms, at some cost in speed on GPUs")
    device: Device = Field("auto", description="auto is the first of cuda, mps, xpu, cpu that is there; or e.g. cuda:1")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="type of the matrix products; auto takes bf16 where the hardware computes it natively"
    )
    compile: bool = Field(
        False, description="torch.compile the network, on CUDA with CUDA graphs: pays on GPUs, not on CPUs"
    )
    threads: Count | None = Field(
        None, description="CPU threads of PyTorch; none takes as many as this process has cores for itself"
    )
    resume: Literal["auto", "never", "must"] = Field(
        "auto",
        description="whether an interrupted training is continued: auto does so when its recipe is the same, and stops "
        "with a message when it is not; never starts anew; must continues whatever there is, under the new recipe",
    )
    save_minutes: Positive = Field(
        5.0,
        description="most minutes between two saved states; they are also saved when epochs end, unless that would "
        "take more than a hundredth of the time",
    )
    keep_states: Count = Field(2, description="saved states that are kept, the newest; older ones stand in for damaged")
    keep_memory: bool = Field(
        True, description="on CPUs, hold freed memory for the next step instead of handing it back to the system"
    )

    def recipe(self) -> dict[str, Any]:
        """What decides the outcome, as JSON has it: all but how states are saved, and where freed memory stays."""
        return self.model_dump(mode="json", exclude={"resume", "save_minutes", "keep_states", "keep_memory"})

    @field_validator("scheduler")
    @classmethod
    def _suits_optimizer(cls, scheduler: SchedulerConfig | None, info: ValidationInfo) -> SchedulerConfig | None:
        known = answering_for("scheduler")

        optimizer = info.data.get("optimizer")
        if scheduler is None or optimizer is None:
            return scheduler
        known.check_scheduler(scheduler.name, scheduler.arguments, optimizer)
        if optimizer.name == "Rprop":
            raise ValueError("must be left out: Rprop looks at its learning rate in its first step only")
        highest = scheduler.arguments.get("max_lr", [])
        if not isinstance(highest, list) and any("lr" in group.arguments for group in optimizer.groups):
            must = f"must be a list of {1 + len(optimizer.groups)}, as groups of the optimiser have rates of their own"
            raise ArgumentError.of("max_lr", highest, must)
        return scheduler

    @field_validator("scheduler")
    @classmethod
    def _follows_monitor(cls, scheduler: SchedulerConfig | None, info: ValidationInfo) -> SchedulerConfig | None:
        monitor = info.data.get("monitor")
        if scheduler and scheduler.name == "ReduceLROnPlateau" and monitor:
            better = direction(monitor, cls.rising)
            mode = scheduler.arguments.get("mode", better)
            if mode != better:
                must = f"must be {better} or left out: it follows train.monitor, which is {monitor}"
                raise ArgumentError.of("mode", mode, must)
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


class PruneConfig(Block):
    """Which weights of convolutions and dense layers are cut out."""

    amount: float = Field(0.5, gt=0, lt=1, description="share of the weights, or of the channels, that is cut")
    form: Literal["unstructured", "structured"] = Field(
        "unstructured",
        description="unstructured: single weights become zero and the model keeps its shape; structured: whole "
        "channels go, and with them size and time",
    )
    scope: Literal["global", "layer"] = Field(
        "global", description="whether the smallest of all, or the same share of each layer"
    )
    multiple: Count = Field(
        16,
        description="of structured pruning: channels are left in multiples of so many, which processors are fast with",
    )
    epochs: Count = Field(3, description="epochs over which the share grows; in those that are left nothing is cut")
    exclude: list[str] = Field(
        [], description="names or patterns (network.stem.*) as in model.named_parameters() of weights that stay"
    )


class DistillConfig(Block):
    """How a student learns from its teacher."""

    temperature: Positive = Field(4.0, description="divides both models' logits before they are compared")
    mix: float = Field(0.9, ge=0, le=1, description="share of the teacher in the loss; the labels have the rest")


class StrategyConfig(Block):
    """How the server joins what the clients have learnt; a strategy of flwr.serverapp.strategy by its class name."""

    name: Literal["FedAvg", "FedProx"] = Field(
        "FedAvg", description="both average the weights; with FedProx clients are held near the weights they got"
    )
    proximal_mu: float | None = Field(
        None, gt=0, allow_inf_nan=False, validate_default=True, description="FedProx adds mu / 2 * ||w - w_global||²"
    )

    @field_validator("proximal_mu")
    @classmethod
    def _of_fedprox(cls, mu: float | None, info: ValidationInfo) -> float | None:
        if info.data.get("name") == "FedProx" and mu is None:
            raise ValueError("FedProx needs it, a number greater than 0")
        if info.data.get("name") == "FedAvg" and mu is not None:
            raise ValueError("is for FedProx only; leave it out, or give it as null")
        return mu


class FederatedConfig(Block):
    """How a federation trains, round by round."""

    rounds: Count = Field(20, description="how often the clients' weights are averaged")
    fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the clients that train in a round, drawn anew; their number is rounded down",
    )
    strategy: StrategyConfig = Field(
        default_factory=StrategyConfig, description="how the server joins the clients' weights"
    )
    processes: Count | None = Field(
        None, description="clients that train at the same time; none: one for each core, or a single one on a GPU"
    )


# ---- evaluate, generate and export ---------------------------------------------------------------------------------


def left_out(why: str) -> AfterValidator:
    """Of a list that must be empty, for a reason."""

    def check(values: list[Any]) -> list[Any]:
        if values:
            raise ValueError(f"must be left out: {why}")
        return values

    return AfterValidator(check)


class MetricConfig(Named):
    """A metric by its dotted path: a function of outputs (N, …) float32 and targets (N, …) that gives a number, or a
    class whose instances are such functions, as those of torchmetrics are."""

    @model_validator(mode="after")
    def _exists(self) -> MetricConfig:
        known = answering_for("metric")

        own.chosen(self.name, (), "a metric by its dotted path,")
        known.check_metric(self.name, self.arguments)
        return self


class EvaluateConfig(Block):
    """The block `evaluate`."""

    batch_size: Count | None = Field(
        None, description="samples per step, in validation too; none takes 500 on a CPU and 5000 on a GPU"
    )
    device: Device = Field("auto", description="as train.device")
    metrics: list[MetricConfig] = Field([], description="further ones, of yours, beside those of the problem")


class EvaluateExamplesConfig(EvaluateConfig):
    pictures: Count = Field(36, description="test samples shown in the pictures")


class ContinueConfig(Block):
    """How a text is continued by a language model."""

    length: Count = Field(200, description="characters to write after the prompt")
    temperature: NotNegative = Field(0.7, description="divides the logits; 0 takes the likeliest character each time")
    top_k: Count | None = Field(None, description="draw from so many likeliest characters only")
    seed: Seed = Field(0, description="draws the characters")


class CompareConfig(Block):
    """The block `compare`: how the model before and the one after are measured."""

    batch_size: Count = Field(128, description="samples at once for the throughput; the latency is that of one")
    turns: Count = Field(5, description="measurements of each, in turns; the medians count")
    seconds: Positive = Field(0.5, description="that each measurement takes at least")
    threads: Count | None = Field(None, description="CPU threads; none leaves it to ONNX Runtime and PyTorch")


class ExportConfig(Block):
    """The block `export`."""

    opset: int = Field(20, ge=18, description="version of the ONNX operators")
    tolerance: Positive = Field(1e-3, description="greatest difference of an output between PyTorch and ONNX Runtime")
    batch_sizes: list[Count] = Field([1, 3, 64], min_length=1, description="numbers of test samples compared at once")
    formats: list[Literal["torch_export", "aot_inductor", "torchscript"]] = Field(
        [], description="other formats than ONNX to save the model in; see torchloom/export/formats.py"
    )
    compare: CompareConfig = Field(
        default_factory=CompareConfig, description="how the formats are measured side by side"
    )

    @field_validator("opset")
    @classmethod
    def _known(cls, opset: int) -> int:
        import onnx

        if opset > onnx.defs.onnx_opset_version():
            raise ValueError(
                f"must be at most {onnx.defs.onnx_opset_version()}, the newest that the installed onnx has"
            )
        return opset


# ---- federated learning --------------------------------------------------------------------------------------------


class PartitionConfig(Block):
    """The block `partition` of a federated task: which client has which of the training samples."""

    clients: Count = Field(10, description="that the training samples are dealt out to, in equal numbers")
    name: Literal["iid", "dirichlet"] = Field(
        "iid", description="iid: by chance; dirichlet: each client with classes in proportions of its own"
    )
    alpha: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        validate_default=True,
        description="of dirichlet, Dir(alpha * p): the smaller, the more the clients' classes differ; 0.1 leaves most "
        "with one or two",
    )
    seed: Seed = Field(0, description="draws them")

    @field_validator("alpha")
    @classmethod
    def _of_dirichlet(cls, alpha: float | None, info: ValidationInfo) -> float | None:
        if info.data.get("name") == "dirichlet" and alpha is None:
            raise ValueError("dirichlet needs it, a number greater than 0")
        if info.data.get("name") == "iid" and alpha is not None:
            raise ValueError("is for dirichlet only; leave it out, or give it as null")
        return alpha


# ---- predict and serve ---------------------------------------------------------------------------------------------


class AnswerConfig(Block):
    """How an exported model is asked, by `predict` and by `serve`."""

    models: str = Field(description="the folder that has the models of the tasks")
    top: Count = Field(3, description="likeliest classes in an answer")
    fit: Fit | None = Field(None, description="as preprocess.fit; none: as the model was trained")
    value_range: ValueRange | None = Field(
        None, description="as preprocess.value_range; none: as the model was trained"
    )
    views: Views | None = Field(None, description="as evaluate.views; none: as the model was evaluated")
    invert: bool = Field(False, description="swap light and dark: MNIST's digits are white on black")
    generate: ContinueConfig = Field(
        default_factory=ContinueConfig, description="of language models: how each text is continued"
    )
    threads: Count | None = Field(None, description="CPU threads of ONNX Runtime; none takes all cores")


class PredictConfig(AnswerConfig):
    """The block `predict`: a trained model and a user's own files."""

    model: str = Field(description="a task that was exported; or a .onnx file, or a checkpoint (.safetensors)")
    files: str = Field(
        description="pictures, texts or CSV files: a folder, looked through with all below it, or one file; of one "
        "text file each line is a text of its own"
    )
    batch_size: Count = Field(128, description="samples at once")
    pictures: Count = Field(45, description="on the contact sheet")


class ServeConfig(AnswerConfig):
    """The block `serve`: what `kedro serve` takes in one request."""

    megabytes: Count = Field(10, description="greatest size of a request's body, in 10^6 bytes")
    most: Count = Field(100, description="texts, prompts or rows in one request")


# ---- smaller models ------------------------------------------------------------------------------------------------


class QuantizeConfig(Block):
    """The block `quantize`: weights and activations in 8 bits."""

    samples: Count = Field(
        1000, description="training samples, drawn at random, that the ranges of the activations are taken from"
    )
    calibration: Literal["minmax", "entropy", "percentile"] = Field(
        "minmax", description="how a range follows from the activations that were seen"
    )
    exclude: list[str] = Field([], description="names of nodes of the ONNX graph that stay as they are")


# ---- sweep ---------------------------------------------------------------------------------------------------------


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Number = Annotated[Any, AfterValidator(_number)]  # keeps whole numbers apart from others, which a union does not


class DimensionConfig(Block):
    """What a sweep draws one parameter from: `choices`, or all numbers from `low` to `high`."""

    low: Number | None = Field(None, description="least value; with a whole low and high only whole numbers are drawn")
    high: Number | None = Field(None, description="greatest value")
    log: bool = Field(False, description="each order of magnitude as likely as any other")
    step: Number | None = Field(None, description="only low, low + step, low + 2 step, …")
    choices: list[Any] | None = Field(None, min_length=1, description="one of these values, lists too")

    @model_validator(mode="after")
    def _one_kind(self) -> DimensionConfig:
        if self.choices is not None:
            if self.log or (self.low, self.high, self.step) != (None, None, None):
                raise ValueError("must be either choices or low and high")
            labels = self.labels()
            if any(label in labels[:place] for place, label in enumerate(labels)):
                raise ValueError("must have choices that differ")
        elif self.low is None or self.high is None:
            raise ValueError("must have choices, or low and high")
        elif self.low >= self.high:
            raise ValueError("must have a low that is less than high")
        elif self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("must have a low above 0 and no step where log is true")
        elif self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError("must have a step above 0 that is not more than high - low")
        return self

    @property
    def whole(self) -> bool:
        """Whether all numbers of the range are whole."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    def labels(self) -> list[Any]:
        """The choices as a study keeps them: lists and blocks as JSON."""
        scalar = str | int | float | None
        return [choice if isinstance(choice, scalar) else json.dumps(choice) for choice in self.choices or []]


class SamplerConfig(Named):
    """A class of optuna.samplers by its name, with its arguments."""

    name: str = "TPESampler"


class PrunerConfig(Named):
    """A class of optuna.pruners by its name, with its arguments (`n_warmup_steps` and the like count epochs)."""

    name: str = "MedianPruner"


class SweepConfig(Block):
    """The block `sweep`: which parameters of a task are tried out, and how."""

    task: str = Field(description="whose parameters are tried out")
    trials: Count = Field(20, description="to try, over all runs that go on with the same study")
    workers: Count = Field(1, description="processes that train at the same time and share the cores")
    space: dict[str, DimensionConfig | None] = Field(
        description="keys below the task, such as train.optimizer.lr, and what their values are drawn from; null takes "
        "a key of another environment out"
    )
    sampler: SamplerConfig = Field(default_factory=SamplerConfig, description="draws the values")
    pruner: PrunerConfig = Field(
        default_factory=PrunerConfig, description="ends trials that are worse than others after some epochs"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of the sampler; what trainings draw is up to train.seed")
    environment: str | None = Field(None, description="that of the run, which fills it in")

    @field_validator("space")
    @classmethod
    def _not_empty(cls, space: dict[str, DimensionConfig | None]) -> dict[str, DimensionConfig | None]:
        if not any(space.values()):
            raise ValueError("must have one key at least")
        return space

    @property
    def dimensions(self) -> dict[str, DimensionConfig]:
        return {key: dimension for key, dimension in self.space.items() if dimension}
