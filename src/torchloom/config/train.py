"""The block `train` of a task."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from torchloom.config import own
from torchloom.config.base import BatchSize, Block, Count, Device, Fraction, Named, NotNegative, Positive, Seed
from torchloom.config.checks import ArgumentError
from torchloom.config.choices import answering_for


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
    """A class of torch.optim by its name, or one of ours, with its arguments (`lr`, `weight_decay`, …).

    Ours are Lion, Muon and ScheduleFreeAdamW.
    """

    groups: list[GroupConfig] = Field([], description="parameters with other arguments; the first that fits counts")

    @model_validator(mode="after")
    def _exists(self) -> OptimizerConfig:
        from torch.optim import Optimizer

        known = answering_for("optimizer")

        own.chosen(self.name, known.optimizer_names(), "an optimiser of torch.optim or ours,", parent=Optimizer)
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
    """A loss by its name in torch.nn, or one of ours, with its arguments (`label_smoothing`, `delta`, …).

    Weights of classes (`weight`, `pos_weight`) are a list in the order of the classes, a mapping by their names, or
    balanced, by how often each class comes up in training. What is minimised is `times` the loss and, of each loss in
    `plus`, so many times that.
    """

    suitable: ClassVar[frozenset[str]]  # the names of those that suit the problem
    of: ClassVar[Literal["classes", "labels", "values"]] = "values"  # targets; of the first two, predictions are logits
    lacking: ClassVar[str] = ""  # why one that could be expected is not among them

    times: Positive = Field(1.0, description="how much it counts, where others are added to it, or it to another")
    plus: list[Self] = Field(
        [], description="losses that are added, blocks like this one; probabilities follow from the first"
    )

    @model_serializer(mode="wrap")
    def _without_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A loss alone is dumped as one."""
        dumped: dict[str, Any] = dump(self)
        return {key: value for key, value in dumped.items() if (key, value) not in [("times", 1.0), ("plus", [])]}

    @property
    def arguments(self) -> dict[str, Any]:
        """With `times` and `plus`, as far as they are set."""
        plus = [{"name": part.name, **part.arguments} for part in self.plus]
        return super().arguments | ({"times": self.times} if self.times != 1 else {}) | ({"plus": plus} if plus else {})

    def unsmoothed(self) -> Self:
        """It, and what is added to it, without label smoothing, by which it cannot become 0."""
        smooth = {"label_smoothing": None} if "label_smoothing" in self.arguments else {}
        return self.model_copy(update={"plus": [part.unsmoothed() for part in self.plus], **smooth})

    @model_validator(mode="after")
    def _exists(self) -> Self:
        from torch.nn import Module

        known = answering_for("loss")

        own.chosen(self.name, self.suitable, f"a loss that suits this task{self.lacking}", parent=Module)
        known.check_loss(self.name, super().arguments, self.of)
        known.check_sum(self)
        return self


class ClassLoss(LossConfig):
    """Targets are numbers of classes or, where the loss is one of scores, one-hot rows."""

    of = "classes"
    suitable = ON_VALUES | {
        *("CrossEntropyLoss", "NLLLoss", "FocalLoss", "KLDivLoss"),
        *("BCEWithLogitsLoss", "MultiMarginLoss", "HingeLoss"),
    }
    lacking = " (not BCELoss: networks give logits, of which BCEWithLogitsLoss makes the probabilities)"
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


def _share_or_number(value: float) -> float:
    if value >= 1 and value != int(value):
        raise ValueError("must be a share below 1, or the whole number of an epoch")
    return value


class SwaConfig(Block):
    """The mean of the weights at the ends of some epochs is the model (Izmailov et al., arXiv:1803.05407)."""

    start: Annotated[NotNegative, AfterValidator(_share_or_number)] = Field(
        0.75, description="share of the epochs that pass before one whose weights count; or that one's number, from 1"
    )
    cycle: Count = Field(1, description="epochs from one whose weights count to the next")
    lr: Positive | None = Field(
        None, description="learning rate from then on, for groups as a share of it; none follows the scheduler"
    )
    anneal_epochs: int = Field(1, ge=0, description="in which the learning rate goes there")

    def first(self, epochs: int) -> int:
        """The number, from 1, of the first of so many `epochs` whose weights count."""
        return int(self.start) if self.start >= 1 else int(self.start * epochs + 1e-9) + 1


class SamConfig(Block):
    """Each step goes down where the loss is the greatest nearby (Foret et al., arXiv:2010.01412): twice the time."""

    rho: Positive = Field(0.05, description="how far away that is, as a norm over all weights")
    adaptive: bool = Field(False, description="in shares of each weight (arXiv:2102.11600); rho is then about 0.5 to 2")


class FreezeConfig(Block):
    """Parameters that stay as they are for some epochs and learn after that."""

    parameters: list[str] = Field(
        min_length=1, description="their names or patterns (network.stem.*) as in model.named_parameters()"
    )
    epochs: Count = Field(description="they stay as they are for so many epochs")


def _block_unless_text(value: Any) -> Any:
    """Of what may be either, mistakes are told of the block alone."""
    if isinstance(value, str | FreezeConfig):
        return value
    try:
        return FreezeConfig.model_validate(value)
    except ValidationError as error:
        raise ArgumentError(FreezeConfig, error.errors()) from None


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


class FinetuneConfig(Named):
    """A recipe of torchloom/training/finetuning.py by its name, with its arguments; the name alone will do, too."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _exists(self) -> FinetuneConfig:
        answering_for("finetuning").check_recipe(self.name, self.arguments)
        return self


def _or_name(schema: dict[str, Any]) -> None:
    """For editors."""
    schema["anyOf"].append({"type": "string"})


SAVING = {"resume", "keep_state", "save_minutes", "keep_states", "keep_memory"}  # what decides no outcome


class TrainConfig(Block):
    """The block `train`, as far as all problems share it."""

    rising: ClassVar[frozenset[str]] = frozenset({"accuracy"})  # of what can be monitored, that of which more is better
    whole: ClassVar[frozenset[str]] = frozenset()  # that which is measured of the validation split alone, as a whole

    epochs: Count = Field(description="passes over the training data")
    batch_size: BatchSize = Field(
        128,
        description="samples per step; auto finds out, when a training begins, how many are nearly as fast as any "
        "(docs/how-to/tune.md)",
    )
    optimizer: OptimizerConfig
    monitor: Literal["accuracy", "loss"] = Field(
        "loss", description="which validation figure makes an epoch the best; of equal ones the loss decides"
    )
    scheduler: SchedulerConfig | None = Field(None, description="none keeps the learning rate")
    warmup_epochs: NotNegative = Field(
        0.0, description="epochs of linear rise to the full learning rate; they count among epochs, and 0.1 is a tenth"
    )
    l1: NotNegative = Field(0.0, description="adds l1 * sum of |w| over all weight matrices and kernels to the loss")
    l2: NotNegative = Field(0.0, description="adds l2 / 2 * sum of w² likewise; see also the optimiser's weight_decay")
    gradient_clip: Positive | None = Field(None, description="largest norm of the whole gradient")
    accumulate: Count = Field(1, description="batches whose gradients are averaged before each optimiser step")
    ema: Fraction | None = Field(
        None, description="decay per step of an averaged copy of the weights, which is the model"
    )
    lookahead: LookaheadConfig | None = Field(None, description="slow weights beside the trained ones")
    swa: SwaConfig | None = Field(None, description="the mean of the weights of the last epochs, which is the model")
    sam: SamConfig | None = Field(None, description="steps towards weights around which the loss is small, too")
    whitening: WhiteningConfig | None = Field(None, description="of images only: how the first convolution starts")
    early_stopping: EarlyStoppingConfig | None = None
    freeze: list[Annotated[str | FreezeConfig, BeforeValidator(_block_unless_text)]] = Field(
        [],
        description="names or patterns (network.stages.*) as in model.named_parameters() of what stays as it is, or "
        "does so for some epochs; layers that stay as a whole keep their statistics too",
    )
    recompute: list[str] = Field(
        [],
        description="names or patterns (network.stages.*) as in model.named_modules() of layers whose activations are "
        "not kept for the backward pass but computed again: less memory, more time, the same result",
    )
    finetune: FinetuneConfig | None = Field(
        None,
        description="of what has learnt before, which weights learn on, and how fast: a recipe by its name",
        json_schema_extra=_or_name,
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
    resume: Literal["auto", "never", "must", "warm"] = Field(
        "auto",
        description="whether a training is continued from its saved state: auto does so when it ends as one that was "
        "not interrupted, and stops with a message when it would not; never starts anew; must continues whatever there "
        "is, under the new recipe; warm goes on from the weights of the last epoch with a new optimiser",
    )
    keep_state: bool = Field(
        False, description="keep the state when the training is over, to go on from it for more epochs"
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
        return self.model_dump(mode="json", exclude=SAVING)

    @field_validator("scheduler")
    @classmethod
    def _suits_optimizer(cls, scheduler: SchedulerConfig | None, info: ValidationInfo) -> SchedulerConfig | None:
        known = answering_for("scheduler")

        optimizer = info.data.get("optimizer")
        if scheduler is None or optimizer is None:
            return scheduler
        known.check_scheduler(scheduler.name, scheduler.arguments, optimizer)
        if optimizer.name in known.UNSCHEDULED:
            raise ValueError(f"must be left out: {optimizer.name} {known.UNSCHEDULED[optimizer.name]}")
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

    @field_validator("freeze")
    @classmethod
    def _can_begin_later(cls, freeze: list[Any], info: ValidationInfo) -> list[Any]:
        optimizer = info.data.get("optimizer")
        if optimizer and optimizer.arguments.get("fused") and not all(isinstance(entry, str) for entry in freeze):
            raise ValueError("must have no epochs where optimizer.fused is true: its kernel wants all to begin at once")
        return freeze

    @field_validator("ema", "lookahead", "swa")
    @classmethod
    def _one_average(cls, value: Any, info: ValidationInfo) -> Any:
        optimizer = info.data.get("optimizer")
        if value is None or optimizer is None:
            return value
        if optimizer.name in answering_for("optimizer").AVERAGING:
            raise ValueError(f"must be left out: {optimizer.name} averages the weights itself")
        if info.field_name == "swa" and info.data.get("ema") is not None:
            raise ValueError("must be left out: ema averages the weights already")
        return value

    @field_validator("swa")
    @classmethod
    def _begins_in_time(cls, swa: SwaConfig | None, info: ValidationInfo) -> SwaConfig | None:
        epochs, warmup = info.data.get("epochs"), info.data.get("warmup_epochs", 0.0)
        if not swa or not epochs:
            return swa
        if swa.first(epochs) > epochs:
            raise ArgumentError.of("start", swa.start, f"must be one of the {epochs} epochs")
        if swa.lr and swa.first(epochs) - 1 < max(1, warmup):
            why = f", when the warm-up ends (warmup_epochs {warmup:g})" if warmup > 1 else ""
            must = f"must be later: it is after epoch {max(1, warmup):g}{why} that the rate can go to lr"
            raise ArgumentError.of("start", swa.start, must)
        return swa
