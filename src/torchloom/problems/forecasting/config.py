"""The blocks of a forecast."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from torchloom.config import Count, EvaluateExamplesConfig, ModelConfig, TrainConfig, ValueLoss
from torchloom.problems.conformal import INTERVAL, Share


class ForecasterConfig(ModelConfig):
    outputs = ("horizon",)
    inputs = ("window", "channels")


class ForecastingTrainConfig(TrainConfig):
    loss: ValueLoss = Field(default_factory=ValueLoss)
    monitor: Literal["loss"] = "loss"
    prediction_interval: Share = INTERVAL


class EvaluateForecasterConfig(EvaluateExamplesConfig):
    pictures: Count = Field(6, description="test windows shown in the picture")
    season: Count | None = Field(
        None,
        description="steps after which the naive forecast repeats itself; none: a day, of days a week, else a year",
    )
