"""The loader plan: what `build_dataloaders` leaves in the catalog, and the DataLoaders that it opens.

A plan is a small JSON file that names memory-mapped tensors, batch sizes and augmentation. Opening it costs
milliseconds and copies nothing, so that every later stage can run alone in a new process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from torchloom.config import AugmentConfig, Count, Seed
from torchloom.errors import InputError
from torchloom.files import atomic_write

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

REBUILD = "Run the build_dataloaders stage again: kedro run --tags build_dataloaders"


class TensorFile(BaseModel):
    """One prepared file and the fingerprint of the contents that the plan was made for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    fingerprint: str
    length: int


class ImageInfo(BaseModel):
    """What preprocessing found out about the images."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    classes: list[str]
    shape: list[int]  # channels, height, width
    mean: list[float]
    std: list[float]


class LoaderPlan(BaseModel):
    """How the splits of prepared images become batches: `loader("train", device)` and so on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    splits: dict[str, list[TensorFile]]  # train, validation, test; several files are strung together
    info: ImageInfo
    batch_size: Count
    evaluate_batch_size: Count
    augment: AugmentConfig
    seed: Seed

    @field_validator("splits")
    @classmethod
    def _complete(cls, splits: dict[str, list[TensorFile]]) -> dict[str, list[TensorFile]]:
        if splits.keys() != {"train", "validation", "test"}:
            raise ValueError("must be train, validation and test")
        return splits

    def length(self, split: str) -> int:
        """The number of images in the split."""
        return sum(file.length for file in self.splits[split])

    def loader(self, split: str, device: torch.device | str = "cpu") -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of images (B, C, H, W) uint8 and labels (B,) int64, on `device`.

        The training split is shuffled anew each epoch and augmented; a last batch that is not full is left out there
        (its images come up in other epochs). The other splits come whole and in order. Raises InputError when a
        prepared file has gone or is not the one that the plan was made for.
        """
        from torch.utils.data import DataLoader

        from torchloom.data.batches import Batches, ImageBatches, join

        images, labels = join([self._open(file) for file in self.splits[split]], device)
        if split == "train":
            dataset = ImageBatches(images, labels, self.augment, self.seed)
            batches = Batches(len(labels), self.batch_size, shuffle_seed=self.seed)
        else:
            dataset = ImageBatches(images, labels)
            batches = Batches(len(labels), self.evaluate_batch_size)
        return DataLoader(dataset, sampler=batches, batch_size=None)

    def first(self, split: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first `count` images and labels of the split, or all if there are fewer, as `loader` gives them."""
        import torch

        images, labels = self.loader(split).dataset[torch.arange(min(count, self.length(split)))]
        return images, labels

    def _open(self, file: TensorFile) -> dict[str, Any]:
        from torchloom.datasets.tensors import open_tensors

        tensors = open_tensors(file.path)
        if tensors.fingerprint != file.fingerprint:
            raise InputError(f"{file.path}: has changed since the loaders were planned. {REBUILD}")
        return dict(tensors.arrays)


def _with_paths(plan: LoaderPlan, change: Callable[[Path], Path]) -> LoaderPlan:
    splits = {
        split: [file.model_copy(update={"path": change(file.path)}) for file in files]
        for split, files in plan.splits.items()
    }
    return plan.model_copy(update={"splits": splits})


class LoaderPlanDataset(AbstractDataset[LoaderPlan, LoaderPlan]):
    """A `LoaderPlan` as JSON; paths are kept relative to the file, so that a project folder can be moved."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> LoaderPlan:
        try:
            plan = LoaderPlan.model_validate_json(self._filepath.read_bytes())
        except OSError as error:
            raise InputError(f"{self._filepath}: cannot be read ({error.strerror}). {REBUILD}") from error
        except ValidationError as error:
            raise InputError(f"{self._filepath}: is damaged or from another version. {REBUILD}") from error
        return _with_paths(plan, lambda path: (self._filepath.parent / path).resolve())

    def save(self, data: LoaderPlan) -> None:
        folder = self._filepath.parent.resolve()
        relative = _with_paths(data, lambda path: Path(os.path.relpath(path.resolve(), folder)))
        with atomic_write(self._filepath) as temporary:
            temporary.write_text(json.dumps(relative.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
