"""The block `sweep`."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator, model_validator

from torchloom.config.base import Block, Count, Named


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Number = Annotated[Any, AfterValidator(_number)]  # keeps whole numbers apart from others, which a union does not


class DimensionConfig(Block):
    """What a sweep draws one parameter from: `choices`, or all numbers from `low` to `high`."""

    low: Number | None = Field(None, description="least value; with a whole low and high only whole numbers are drawn")
    high: Number | None = Field(None, description="greatest value")
    log: bool = Field(False, description="each order of magnitude as likely as any other")
    step: Number | None = Field(None, description="only low, low + step, low + 2 step, …")
    choices: list[Any] | None = Field(None, min_length=1, description="one of these values, lists too")

    @model_validator(mode="after")
    def _one_kind(self) -> DimensionConfig:
        if self.choices is not None:
            if self.log or (self.low, self.high, self.step) != (None, None, None):
                raise ValueError("must be either choices or low and high")
            labels = self.labels()
            if any(label in labels[:place] for place, label in enumerate(labels)):
                raise ValueError("must have choices that differ")
        elif self.low is None or self.high is None:
            raise ValueError("must have choices, or low and high")
        elif self.low >= self.high:
            raise ValueError("must have a low that is less than high")
        elif self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("must have a low above 0 and no step where log is true")
        elif self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError("must have a step above 0 that is not more than high - low")
        return self

    @property
    def whole(self) -> bool:
        """Whether all numbers of the range are whole."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    def labels(self) -> list[Any]:
        """The choices as a study keeps them: lists and blocks as JSON."""
        scalar = str | int | float | None
        return [choice if isinstance(choice, scalar) else json.dumps(choice) for choice in self.choices or []]


class SamplerConfig(Named):
    """A class of optuna.samplers by its name, with its arguments."""

    name: str = "TPESampler"


class PrunerConfig(Named):
    """A class of optuna.pruners by its name, with its arguments (`n_warmup_steps` and the like count epochs)."""

    name: str = "MedianPruner"


class SweepConfig(Block):
    """The block `sweep`: which parameters of a task are tried out, and how."""

    task: str = Field(description="whose parameters are tried out")
    trials: Count = Field(20, description="to try, over all runs that go on with the same study")
    workers: Count = Field(1, description="processes that train at the same time and share the cores")
    space: dict[str, DimensionConfig | None] = Field(
        description="keys below the task, such as train.optimizer.lr, and what their values are drawn from; null takes "
        "a key of another environment out"
    )
    sampler: SamplerConfig = Field(default_factory=SamplerConfig, description="draws the values")
    pruner: PrunerConfig = Field(
        default_factory=PrunerConfig, description="ends trials that are worse than others after some epochs"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of the sampler; what trainings draw is up to train.seed")
    environment: str | None = Field(None, description="that of the run, which fills it in")

    @field_validator("space")
    @classmethod
    def _not_empty(cls, space: dict[str, DimensionConfig | None]) -> dict[str, DimensionConfig | None]:
        if not any(space.values()):
            raise ValueError("must have one key at least")
        return space

    @property
    def dimensions(self) -> dict[str, DimensionConfig]:
        return {key: dimension for key, dimension in self.space.items() if dimension}
