"""The blocks of a classification, and of the methods that make a classifier of another or of clients' data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from torchloom.config import (
    CallbackConfig,
    ClassLoss,
    Count,
    DistillConfig,
    EvaluateExamplesConfig,
    FederatedConfig,
    ModelConfig,
    PruneConfig,
    SchedulerConfig,
    TrainConfig,
    Views,
    left_out,
)


class ClassifierConfig(ModelConfig):
    outputs = ("outputs",)


class EvaluateClassifierConfig(EvaluateExamplesConfig):
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("fp32", description="as train.precision")
    views: Views = Field(
        "one",
        description="test-time augmentation of images: mean logits over the image and its mirror image, and these also "
        "shifted by a pixel up and left, and down and right; predict and serve ask the exported model about each",
    )


Threshold = Annotated[float, Field(gt=0, lt=1)] | Literal["f1", "balanced_accuracy"] | None
WHOLE = ("macro_f1", "macro_precision", "macro_recall", "balanced_accuracy", "roc_auc", "average_precision")


class ClassificationTrainConfig(TrainConfig):
    rising = frozenset({"accuracy", *WHOLE})
    whole = frozenset(WHOLE)

    loss: ClassLoss = Field(default_factory=ClassLoss)
    monitor: Literal["accuracy", "loss", *WHOLE] = Field(  # type: ignore[valid-type]
        "accuracy",
        description="which validation figure makes an epoch the best, as `evaluate` measures it on the test split; of "
        "equal ones the loss decides",
    )
    threshold: Threshold = Field(
        None,
        description="of two classes: from which probability on the rarer one is the answer; f1 (of that class) and "
        "balanced_accuracy choose it for that metric on the validation split. It belongs to the model; none: 0.5",
    )


class DistilledTrainConfig(ClassificationTrainConfig):
    distill: DistillConfig = Field(default_factory=DistillConfig, description="how the teacher is listened to")


class PrunedTrainConfig(ClassificationTrainConfig):
    """The last epoch is the model: only then all is cut that is to be."""

    prune: PruneConfig = Field(default_factory=PruneConfig, description="what is cut out, and when")
    ema: None = None
    lookahead: None = None
    swa: None = None
    early_stopping: None = None
    whitening: None = None
    resume: Literal["auto", "never", "must"] = Field("auto", description="as elsewhere; none starts warm")

    @field_validator("prune")
    @classmethod
    def _in_time(cls, prune: PruneConfig, info: ValidationInfo) -> PruneConfig:
        epochs = info.data.get("epochs")
        if epochs and prune.epochs > epochs:
            raise ValueError(f"prune.epochs {prune.epochs} must not be more than epochs {epochs}")
        return prune


class FederatedTrainConfig(ClassificationTrainConfig):
    """What a client does in a round; only `scheduler` counts rounds, and `early_stopping` and its kin have no place.

    A client starts each round with the server's weights and an optimiser that remembers nothing.
    """

    federated: FederatedConfig = Field(
        default_factory=FederatedConfig, description="the rounds, and what the server does"
    )
    epochs: Count = Field(1, description="passes of a client over its own data in each round")
    threads: Count = Field(1, description="CPU threads of each client")
    warmup_epochs: float = Field(0.0, ge=0, le=0)
    callbacks: Annotated[list[CallbackConfig], left_out("clients have none")] = Field([], description="none")
    ema: None = None
    lookahead: None = None
    swa: None = None
    early_stopping: None = None
    whitening: None = None
    freeze: list[str] = Field(  # type: ignore[assignment]  # for a client nothing waits: each round is its first
        [], description="names or patterns as in model.named_parameters() of what stays as it is"
    )
    resume: Literal["auto", "never", "must"] = Field("auto", description="as elsewhere, by round; none starts warm")

    @field_validator("scheduler")
    @classmethod
    def _rates_alone(cls, scheduler: SchedulerConfig | None) -> SchedulerConfig | None:
        moves = scheduler and scheduler.name in {"CyclicLR", "OneCycleLR"}
        if scheduler and moves and scheduler.arguments.get("cycle_momentum", True):
            raise ValueError("must have cycle_momentum: false, as clients are told a round's rate and no momentum")
        return scheduler

    def recipe(self) -> dict[str, Any]:
        recipe = super().recipe()
        del recipe["federated"]["processes"]
        return recipe
