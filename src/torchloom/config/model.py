"""The block `model` of a task."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from torchloom.config.base import Named
from torchloom.config.choices import answering_for


class ModelConfig(Named):
    """The block `model`: `name` is a module of torchloom.models, the rest are arguments of its `build` function.

    The first parameters of `build` are sizes that the data decide: what it may ask for of the outputs is in `outputs`,
    and of the inputs in `inputs`, or anything that the data have.
    """

    outputs: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[tuple[str, ...] | None] = None

    @model_validator(mode="after")
    def _exists(self) -> ModelConfig:
        known = answering_for("network")

        known.check_network(self.name, self.outputs, self.inputs)
        known.check_arguments(self.name, self.arguments)
        return self
