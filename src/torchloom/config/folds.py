"""The block `folds`."""

from __future__ import annotations

from pydantic import Field

from torchloom.config.base import Block, Seed


class FoldsConfig(Block):
    """How training and validation samples become folds; of classes each has the same shares."""

    count: int = Field(5, ge=2, description="folds: so many trainings, each without one of them, which it is tested on")
    seed: Seed = Field(0, description="draws the folds, and in each training which of the other samples validate")
