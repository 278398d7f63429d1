"""The blocks of a reconstruction."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from torchloom.config import ModelConfig, NotNegative, TrainConfig, ValueLoss


class AutoencoderConfig(ModelConfig):
    inputs = ("shape", "classes")


class ReconstructionLoss(ValueLoss):
    suitable = ValueLoss.suitable | {"BCELoss"}


class ReconstructionTrainConfig(TrainConfig):
    loss: ReconstructionLoss = Field(default_factory=ReconstructionLoss)
    divergence: NotNegative = Field(
        1.0, description="weight of a variational network's divergence from its prior; 1 is the evidence lower bound"
    )
    monitor: Literal["loss"] = "loss"
