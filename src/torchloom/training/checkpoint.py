"""Checkpoints: weights and all that it takes to use them, in one safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from torchloom.config.checks import UnknownNameError
from torchloom.datasets.tensors import fingerprint, read_tensors, write_tensors
from torchloom.errors import InputError
from torchloom.modalities import AnyInfo

if TYPE_CHECKING:
    from torch import nn

RETRAIN = "Run the train stage again, or put a good checkpoint there"


class Checkpoint(BaseModel):
    """A trained model.

    `training` says how it came about: the epoch's row of the history, the block `train`, and what computed it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    network: str  # a module of torchloom.models, or a dotted path
    arguments: dict[str, Any]
    problem: str  # a package of torchloom.problems, or a dotted path
    info: AnyInfo
    training: dict[str, Any]
    resized: bool = False  # channels were cut out: layers are as wide as their weights, not as the network has them
    weights: dict[str, Any] = Field(repr=False, exclude=True)  # name -> Tensor, on the CPU

    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal digits, over all of it."""
        return fingerprint(self.weights, self.model_dump(mode="json"))

    @property
    def loss(self) -> tuple[str, dict[str, Any]]:
        """The name and the arguments of the loss that a classifier was trained with."""
        given = self.training.get("parameters", {}).get("loss", {"name": "CrossEntropyLoss"})
        return given["name"], {key: value for key, value in given.items() if key != "name" and value is not None}

    @property
    def link(self) -> str | None:
        """What makes a classifier's outputs probabilities: softmax, sigmoid, or nothing, as the loss has it."""
        from torchloom.problems.losses import link_of

        return link_of(self.loss[0])

    def build(self) -> nn.Module:
        """The model with its weights, on the CPU in evaluation mode; it takes what `info.inputs` names."""
        from torchloom.models import build_model, resize_layers
        from torchloom.problems import problem_of

        try:
            problem = problem_of(self.problem)
            problem.check_data(self.info)
            model = build_model(self.network, self.arguments, self.info, problem)
            if self.resized:
                resize_layers(model, self.weights)
            model.load_state_dict(self.weights)
        except (ModuleNotFoundError, TypeError, RuntimeError, UnknownNameError) as error:
            raise InputError(
                f"the checkpoint's weights do not fit the network {self.network}: {error}. {RETRAIN}"
            ) from error
        return model.eval()

    def exported(self) -> nn.Module:
        """The same as it is exported, which may answer in another form."""
        from torchloom.problems import problem_of

        return problem_of(self.problem).exported(self.build()).eval()


class CheckpointDataset(AbstractDataset[Checkpoint, Checkpoint]):
    """A `Checkpoint` in a safetensors file: no pickle, so loading one cannot run code."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Checkpoint:
        weights, description = read_tensors(self._filepath, f"{RETRAIN}.")
        described: Any = description.get("checkpoint")
        try:
            # cloned: the file may be replaced while the weights are in use
            return Checkpoint(**described, weights={name: tensor.clone() for name, tensor in weights.items()})
        except (TypeError, ValidationError) as error:
            raise InputError(f"{self._filepath}: not a checkpoint of ours ({error}). {RETRAIN}.") from error

    def save(self, data: Checkpoint) -> None:
        weights = {name: tensor.contiguous() for name, tensor in data.weights.items()}
        write_tensors(self._filepath, weights, {"checkpoint": data.model_dump(mode="json")})

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
