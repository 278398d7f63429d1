"""The block `features` of a task."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from torchloom.config.base import Block, Device


class FeaturesConfig(Block):
    """What layers inside the trained network answer to each sample; a task that has the block has the stage."""

    layers: list[str] = Field(min_length=1, description="their names as in model.named_modules(): network.stages.3")
    pool: Literal["average", "max", "none"] = Field(
        "average",
        description="of what a layer gives at each place of a picture, step of a sequence or token, one number "
        "for each channel, over the real steps alone; none keeps all, one after another",
    )
    splits: list[Literal["train", "validation", "test"]] = Field(
        ["train", "validation", "test"], min_length=1, description="whose samples are answered to, as they are"
    )
    device: Device = Field("auto", description="as train.device")

    @field_validator("layers", "splits")
    @classmethod
    def _named_once(cls, names: list[str]) -> list[str]:
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"must name {twice} only once")
        return names
