"""The block `tracking`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from torchloom.config.base import Block


class TrackingConfig(Block):
    """The block `tracking`: who is shown what becomes of a task, for all tasks the same. It decides nothing."""

    name: Literal["none", "mlflow", "tensorboard"] = Field("none", description="each is an extra of the same name")
