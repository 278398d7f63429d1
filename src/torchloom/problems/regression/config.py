"""The blocks of a regression."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from torchloom.config import ModelConfig, TrainConfig, ValueLoss


class RegressorConfig(ModelConfig):
    outputs = ("outputs",)


class RegressionTrainConfig(TrainConfig):
    rising = frozenset({"r2"})
    whole = frozenset({"r2", "rmse", "mae"})

    loss: ValueLoss = Field(default_factory=ValueLoss)
    monitor: Literal["loss", "r2", "rmse", "mae"] = Field(  # type: ignore[assignment]
        "loss",
        description="which validation figure makes an epoch the best, of equal ones the loss decides; rmse and mae are "
        "in the target's unit",
    )
    interval: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="share of the truths that an interval around each answer is to hold, as wide as the validation "
        "split says it takes (split conformal prediction); it belongs to the model. none: no interval",
    )
