"""The block `debugging`."""

from __future__ import annotations

from pydantic import Field

from torchloom.config.base import Block, Count


class OverfitConfig(Block):
    """A handful of samples learnt by heart: what cannot do that will learn nothing from many."""

    samples: Count = Field(8, description="that are trained on, and validated on, as they are")
    epochs: Count = Field(1000, description="after which it gives up")
    share: float = Field(
        0.01, gt=0, lt=1, description="of the first epoch's loss; where the validation loss is less, they are learnt"
    )


class ProfileConfig(Block):
    """Which optimiser steps torch.profiler watches, as in torch.profiler.schedule."""

    wait: int = Field(1, ge=0, description="steps that are left out at first")
    warmup: int = Field(2, ge=0, description="steps in which the profiler runs, and nothing is kept")
    active: Count = Field(5, description="steps that are kept")
    rows: Count = Field(20, description="of the table of hot spots")


class DebuggingConfig(Block):
    """The block `debugging`: short runs that show where something is wrong, for all tasks the same.

    The environments debug, overfit and profile are made of it. Their results lie in folders of their own.
    """

    batches: Count | None = Field(None, description="of each split at most, read without threads; none takes all")
    epochs: Count | None = Field(None, description="instead of train.epochs")
    detect_anomaly: bool = Field(
        False, description="look at what each layer and each gradient gives, and end where one is not finite first"
    )
    overfit: OverfitConfig | None = Field(None, description="learn a few samples by heart, with nothing in the way")
    profile: ProfileConfig | None = Field(None, description="a few steps only, with a trace and a table of hot spots")

    @property
    def on(self) -> bool:
        return self != DebuggingConfig()
