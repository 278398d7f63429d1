"""The block `evaluate` of a task."""

from __future__ import annotations

from typing import Any

from pydantic import AfterValidator, Field, model_validator

from torchloom.config import own
from torchloom.config.base import Block, Count, Device, Named
from torchloom.config.choices import answering_for


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
