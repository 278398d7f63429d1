"""The block `model` of a task."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from torchloom.config.base import Named, Place
from torchloom.config.choices import answering_for


class ModelConfig(Named):
    """The block `model`: `name` is a module of torchloom.models, or a network of a library as timm/resnet50; all keys
    beside those here are arguments of its `build` function.

    The first parameters of `build` are sizes that the data decide: what it may ask for of the outputs is in `outputs`,
    and of the inputs in `inputs`, or anything that the data have.
    """

    reads: ClassVar[tuple[str, ...]] = ("weights",)  # the keys that name files, whose contents count

    weights: Place | None = Field(
        None,
        description="what others have trained, to start from: a .safetensors, .pth or .bin file, or a folder as the "
        "Hugging Face hub has it, with a config.json",
    )
    pretrained: bool = Field(
        False, description="start from the weights that the library itself has for the network; it downloads them once"
    )

    outputs: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[tuple[str, ...] | None] = None

    @model_validator(mode="after")
    def _exists(self) -> ModelConfig:
        known = answering_for("network")

        known.check_network(self.name, self.outputs, self.inputs)
        known.check_arguments(self.name, self.arguments)
        known.check_weights(self.name, self.weights, self.pretrained)
        return self
