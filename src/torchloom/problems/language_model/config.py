"""The blocks of a language model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from torchloom.config import (
    ClassLoss,
    ContinueConfig,
    Count,
    EvaluateConfig,
    MetricConfig,
    ModelConfig,
    TrainConfig,
    left_out,
)


class LanguageModelConfig(ModelConfig):
    inputs = ("tokens",)


class EvaluateLanguageModelConfig(EvaluateConfig):
    metrics: Annotated[list[MetricConfig], left_out("a text is read as a stream, and no metric gets all of it")] = (
        Field([], description="none: a text is read as a stream, and no metric gets all of it")
    )


class LanguageModelLoss(ClassLoss):
    suitable = frozenset({"CrossEntropyLoss", "NLLLoss", "FocalLoss"})


class LanguageModelTrainConfig(TrainConfig):
    loss: LanguageModelLoss = Field(default_factory=LanguageModelLoss)


class GenerateConfig(ContinueConfig):
    """The block `generate` of a language model."""

    prompt: str = Field("\n", min_length=1, description="what the text begins with")
    length: Count = Field(
        1000, description="characters to write after the prompt, or words or subwords, as the text is cut into"
    )
    samples: Count = Field(3, description="texts to write")
