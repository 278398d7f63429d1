"""The blocks of a regression."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from torchloom.config import ModelConfig, TrainConfig, ValueLoss


class RegressorConfig(ModelConfig):
    outputs = ("outputs",)


class RegressionTrainConfig(TrainConfig):
    loss: ValueLoss = Field(default_factory=ValueLoss)
    monitor: Literal["loss"] = "loss"
