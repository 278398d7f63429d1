"""The blocks of a segmentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from torchloom.config import ClassLoss, EvaluateExamplesConfig, MetricConfig, ModelConfig, TrainConfig, left_out


class SegmenterConfig(ModelConfig):
    outputs = ("maps",)
    inputs = ("shape",)


class SegmentationLoss(ClassLoss):
    suitable = frozenset({"CrossEntropyLoss", "FocalLoss"})


class SegmentationTrainConfig(TrainConfig):
    loss: SegmentationLoss = Field(default_factory=SegmentationLoss)
    monitor: Literal["accuracy", "loss"] = Field(
        "loss", description="which validation figure makes an epoch the best; accuracy is the share of right pixels"
    )


class EvaluateSegmenterConfig(EvaluateExamplesConfig):
    metrics: Annotated[
        list[MetricConfig], left_out("pixels are counted batch by batch, and no metric gets all of them")
    ] = Field([], description="none: pixels are counted batch by batch, and no metric gets all of them")
