"""What a training starts from that no task here has left: a checkpoint of another project, or weights alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, DatasetError

from torchloom.datasets.remote import Remote
from torchloom.datasets.tensors import KEY, fingerprint
from torchloom.errors import InputError, telling
from torchloom.system.addresses import is_address, local_path
from torchloom.system.files import contents
from torchloom.training.checkpoint import Checkpoint, CheckpointDataset
from torchloom.training.weights import SUFFIXES, read_weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """Weights that somebody has saved alone; nothing says of which network or which data they are."""

    place: str  # for messages
    weights: dict[str, Tensor]

    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal digits, over all of them."""
        return fingerprint(self.weights, {})


class StartDataset(AbstractDataset[None, Checkpoint | Weights]):
    """The file that `task.start` of a task names: a checkpoint of ours, or weights as read_weights takes them.

    The hooks say which file it is. `filepath` is the folder that it is brought to from an address.
    """

    def __init__(self, *, filepath: str, task: str, metadata: dict[str, Any] | None = None) -> None:
        self.remote, self.key = Remote(Path(filepath)), f"{task}.task.start"
        self.place, self.project = "", Path()
        self.metadata = metadata

    def told(self, place: str, project: Path) -> None:
        """The file is at this path, from the `project` on, or at this address."""
        self.place, self.project = place, project
        if is_address(place):
            self.remote.told(self.key.rpartition(".")[0], {"start": place}, {})

    def load(self) -> Checkpoint | Weights:
        with telling(self.key):
            return self._read(self._path())

    def check(self) -> None:
        """InputError unless it can be read."""
        self.load()

    def _path(self) -> Path:
        path = self._local()
        if path is None:
            path = self.remote.bring(self.place, self.key)
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{path}: must be a task or a file that ends with one of {', '.join(SUFFIXES)}")
        return path

    def _local(self) -> Path | None:
        """Where the file is, if it is on this machine anyhow."""
        if is_address(self.place):
            return local_path(self.place)
        return self.project / Path(self.place).expanduser()

    def _read(self, path: Path) -> Checkpoint | Weights:
        if _is_ours(path):
            return CheckpointDataset(filepath=str(path)).load()
        return Weights(f"{self.key} {self.place}", read_weights(path))

    def fingerprint(self) -> str | None:
        path = self._local()
        return self.remote.fingerprint() if path is None else contents(path)

    def save(self, data: None) -> None:  # noqa: ARG002
        raise DatasetError("what a training starts from is only read")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"place": self.place}


def _is_ours(path: Path) -> bool:
    """Whether this project, or another one, has written it."""
    from safetensors import SafetensorError, safe_open

    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError):  # who reads it will say so
        return False
