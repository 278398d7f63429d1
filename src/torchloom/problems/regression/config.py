"""The blocks of a regression."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from torchloom.config import ModelConfig, TrainConfig, ValueLoss
from torchloom.problems.conformal import INTERVAL, Share


class RegressorConfig(ModelConfig):
    outputs = ("outputs",)


class RegressionLoss(ValueLoss):
    """Targets are numbers; PoissonNLLLoss is for counts, which take preprocess.target_scale: log."""

    suitable = ValueLoss.suitable | {"PoissonNLLLoss"}


class RegressionTrainConfig(TrainConfig):
    rising = frozenset({"r2"})
    whole = frozenset({"r2", "rmse", "mae"})

    loss: RegressionLoss = Field(default_factory=RegressionLoss)
    monitor: Literal["loss", "r2", "rmse", "mae"] = Field(  # type: ignore[assignment]
        "loss",
        description="which validation figure makes an epoch the best, of equal ones the loss decides; rmse and mae are "
        "in the target's unit",
    )
    prediction_interval: Share = INTERVAL
