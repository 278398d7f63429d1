"""The blocks of a multilabel classification."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from torchloom.config import ClassLoss, EvaluateExamplesConfig, LossConfig, ModelConfig, TrainConfig

Threshold = Annotated[float, Field(gt=0, lt=1)]


class MultilabelConfig(ModelConfig):
    outputs = ("outputs",)


class MultilabelLoss(LossConfig):
    """Predictions are logits (B, labels), and targets 1 where a label holds.

    `pos_weight` is how much more the samples count that have a label: of each label, or of some by name; balanced lets
    them count as much as those without.
    """

    of = "labels"
    suitable = frozenset(
        {"BCEWithLogitsLoss", "FocalLoss", "HingeLoss", "MultiLabelMarginLoss", "MultiLabelSoftMarginLoss"}
    )
    lacking = ClassLoss.lacking
    name: str = "BCEWithLogitsLoss"


class MultilabelTrainConfig(TrainConfig):
    rising = frozenset({"macro_f1", "micro_f1", "subset_accuracy", "mean_average_precision", "roc_auc"})
    whole = rising - {"subset_accuracy"}
    loss: MultilabelLoss = Field(default_factory=MultilabelLoss)
    monitor: Literal["loss", "macro_f1", "micro_f1", "subset_accuracy", "mean_average_precision", "roc_auc"] = Field(  # type: ignore[assignment]
        "loss", description="which validation figure makes an epoch the best; of equal ones the loss decides"
    )
    threshold: Threshold | Literal["validation"] = Field(
        0.5,
        description="the probability from which on a label holds; validation chooses one for each label, that with the "
        "greatest F1 on the validation data",
    )


class EvaluateMultilabelConfig(EvaluateExamplesConfig):
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("fp32", description="as train.precision")
