"""The blocks of a segmentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from torchloom.config import ClassLoss, EvaluateExamplesConfig, MetricConfig, ModelConfig, TrainConfig, left_out


class SegmenterConfig(ModelConfig):
    outputs = ("maps",)
    inputs = ("shape",)


class SegmentationLoss(ClassLoss):
    suitable = frozenset({"CrossEntropyLoss", "NLLLoss", "FocalLoss", "DiceLoss"})


class SegmentationTrainConfig(TrainConfig):
    rising = frozenset({"accuracy", "mean_iou"})
    whole = frozenset({"mean_iou"})

    loss: SegmentationLoss = Field(default_factory=SegmentationLoss)
    monitor: Literal["accuracy", "loss", "mean_iou"] = Field(  # type: ignore[assignment]
        "loss",
        description="which validation figure makes an epoch the best, of equal ones the loss decides; accuracy is the "
        "share of right pixels, and mean_iou the mean over the classes of what truth and answer have in common",
    )


class EvaluateSegmenterConfig(EvaluateExamplesConfig):
    metrics: Annotated[
        list[MetricConfig], left_out("pixels are counted batch by batch, and no metric gets all of them")
    ] = Field([], description="none: pixels are counted batch by batch, and no metric gets all of them")
