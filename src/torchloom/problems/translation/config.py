"""The blocks of a translation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from torchloom.config import (
    ClassLoss,
    Count,
    EvaluateExamplesConfig,
    MetricConfig,
    ModelConfig,
    TrainConfig,
    left_out,
)


class TranslatorConfig(ModelConfig):
    outputs = ("written",)
    inputs = ("tokens",)


class TranslationLoss(ClassLoss):
    suitable = frozenset({"CrossEntropyLoss"})


class TranslationTrainConfig(TrainConfig):
    rising = frozenset({"accuracy", "exact_match"})

    loss: TranslationLoss = Field(default_factory=TranslationLoss)
    monitor: Literal["accuracy", "loss", "exact_match"] = Field(  # type: ignore[assignment]
        "loss",
        description="which validation figure makes an epoch the best, of equal ones the loss decides; accuracy is the "
        "share of a text's tokens that are right after the true ones before, and exact_match of texts all of whose are",
    )


class EvaluateTranslationConfig(EvaluateExamplesConfig):
    metrics: Annotated[list[MetricConfig], left_out("answers are texts, and a metric gets tensors")] = Field(
        [], description="none: answers are texts, and a metric gets tensors"
    )
    beam: Count = Field(
        1,
        description="beginnings of an answer that are followed at a time, the likeliest (beam search); 1 takes the "
        "likeliest token each time. It belongs to the model: predict and serve do the same",
    )
