"""The loader plan: what `build_dataloaders` leaves in the catalog, and the DataLoaders that it opens.

A plan is a small JSON file that names memory-mapped tensors, batch sizes and augmentation. Opening it costs
milliseconds and copies nothing, so that every later stage can run alone in a new process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from torchloom.config import BatchSize, Count, DataConfig, Seed
from torchloom.data.folds import Fold
from torchloom.errors import InputError
from torchloom.modalities import AnyInfo
from torchloom.modalities.base import Use
from torchloom.system.files import atomic_write

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

    from torchloom.data.batches import Gathered

FIRST_LOOK = 128  # samples
REBUILD = "Run the build_dataloaders stage again: kedro run --tags build_dataloaders"


class TensorFile(BaseModel):
    """One prepared file and the fingerprint of the contents that the plan was made for."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    path: Path
    fingerprint: str
    length: int


class LoaderPlan(BaseModel):
    """How the splits of prepared data become batches: `loader("train", device)` and so on."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    splits: dict[str, list[TensorFile]]  # train, validation, test; several files are strung together
    info: AnyInfo
    data: DataConfig
    batch_size: BatchSize  # auto: training has yet to find it
    evaluate_batch_size: Count | None = None
    seed: Seed
    batches: Count | None = None  # of each split at most; see DebuggingConfig
    fold: Fold | None = None  # of the samples of all files, those that belong to a split
    tested: str = "test"  # what is measured on the split test is called so
    overfit: Count | None = None  # so many training samples, as they are, are those to train and to validate on

    @field_validator("splits")
    @classmethod
    def _complete(cls, splits: dict[str, list[TensorFile]]) -> dict[str, list[TensorFile]]:
        if splits.keys() != {"train", "validation", "test"}:
            raise ValueError("must be train, validation and test")
        return splits

    def recipe(self) -> dict[str, Any]:
        """All that decides which batches come, as JSON has it: of the files the contents, not where they lie."""
        described = self.model_dump(mode="json", exclude={"info"})
        return {
            **described,
            "splits": {name: [file.fingerprint for file in part] for name, part in self.splits.items()},
        }

    def length(self, split: str) -> int:
        """The number of images, documents, characters or rows in the split."""
        if self.fold and self.splits[split]:
            return len(self.numbers(split))
        return sum(file.length for file in self.splits[split])

    @property
    def size(self) -> int:
        """Samples of a batch of training; where these are yet to be found, those of a first look at the data."""
        return FIRST_LOOK if self.batch_size == "auto" else self.batch_size

    @property
    def subset(self) -> int | None:
        """How many training samples take part, as far as that is given."""
        if self.overfit:
            return self.overfit
        counts = [self.data.subset, self.batches and self.batches * self.size]
        return min((count for count in counts if count), default=None)

    def loader(
        self, split: str, device: torch.device | str = "cpu", share: tuple[int, int] = (0, 1)
    ) -> DataLoader[tuple[torch.Tensor, ...]]:
        """Batches on `device`: what the model takes (`info.inputs`) and then the labels or targets.

        Images are (B, C, H, W) uint8, labels (B,) int64; for other data see torchloom/data/sequences.py. The training
        split is shuffled anew each epoch and augmented; a last batch that is not full is left out there (its samples
        come up in other epochs). The other splits come whole and in order. `share` (number, count) is for one of
        several that train together: of each batch it has one part of so many. With `batches` or `overfit` only some of
        the samples come, and no thread reads ahead. Raises InputError when a prepared file has gone or is not the one
        that the plan was made for, and when batches of training cannot be divided evenly.
        """
        import torch
        from torch.utils.data import DataLoader

        from torchloom.data.batches import Batches, BucketedBatches, StreamedBatches, drawn_subset

        device = torch.device(device)
        if not self.splits[split]:
            return DataLoader([], sampler=Batches(0, 1), batch_size=None)  # type: ignore[arg-type]
        dataset = self._dataset(split, device, split == "train" and not self.overfit, share)
        if split == "train":
            self._check_divisible(len(dataset), share[1])
        # the indices of documents and of what is streamed are needed on the CPU
        place = "cpu" if dataset.streamed or dataset.indexed_on_host else device
        lengths = getattr(dataset, "lengths", None)
        if split != "train":
            size = self.evaluate_batch_size or min(500 if device.type == "cpu" else 5000, dataset.most)
            batches = Batches(len(dataset), size, device=place, share=share)
            if self.overfit and split == "validation":
                batches.samples = drawn_subset(len(dataset), self.overfit, self.seed)
            batches.samples = batches.samples[: self.batches and self.batches * size]
        elif lengths is None:
            batches = Batches(len(dataset), self.size, self.seed, self.subset, place, share, self._classes())
        else:
            batches = BucketedBatches(lengths, self.size, self.seed, self.subset, place, share, self._classes())
        kind = StreamedBatches if dataset.streamed and not (self.batches or self.overfit) else DataLoader
        # with a generator of its own it leaves the global one, which dropout draws from, as it is
        return kind(dataset, sampler=batches, batch_size=None, generator=torch.Generator())

    def _classes(self) -> torch.Tensor | None:
        """Those (N,) of the training samples, where they are to be drawn evenly; InputError when there are none."""
        if self.data.sampler == "shuffled":
            return None
        if not (self.info.target and self.info.target.one_class):
            raise InputError(
                "data.sampler: weighted draws as many samples of each class, but these data have no class for each "
                "sample; leave it out"
            )
        return self.targets("train")

    def _check_divisible(self, length: int, count: int) -> None:
        """InputError unless so many processes get parts of the same size."""
        batch = min(self.size, length, self.subset or length)
        if batch % count and self.batch_size != "auto":
            raise InputError(
                f"train.batch_size: batches of {batch} samples cannot be divided evenly among {count} processes; "
                f"{max(batch - batch % count, count)} could"
            )

    def first(self, split: str, count: int) -> tuple[torch.Tensor, ...]:
        """The first `count` samples of the split, or all if there are fewer, as a batch without augmentation."""
        return self.chosen(split, range(min(count, len(self._dataset(split)))))

    def drawn(self, split: str, count: int) -> tuple[torch.Tensor, ...]:
        """`count` samples of the split, or all, drawn at random, each time the same; a batch without augmentation."""
        import torch

        from torchloom.data.batches import seeded

        order = torch.randperm(len(self._dataset(split)), generator=seeded(self.seed + 2, 0))
        return self.chosen(split, order[:count].tolist())

    def trained(self, count: int | None = None) -> tuple[torch.Tensor, ...]:
        """The samples that are trained on, or `count` of them drawn at random, as a batch without augmentation."""
        from torchloom.data.batches import drawn_subset

        numbers = self.trained_numbers()
        return self.chosen("train", numbers[drawn_subset(len(numbers), count, self.seed)])

    def trained_numbers(self) -> torch.Tensor:
        """The numbers (N,) in the train split of the samples that are trained on, which `data.subset` may choose."""
        numbers: torch.Tensor = self.loader("train").sampler.samples  # type: ignore[attr-defined]
        return numbers

    def targets(self, split: str) -> torch.Tensor:
        """What there is to learn of each sample of the split, (N, …), as it was prepared; (0,) of an empty one."""
        import torch

        from torchloom.data.mapped import whole

        if not self.splits[split]:
            return torch.empty(0)
        targets = whole(self._arrays(split)[self.info.counted], "cpu")
        return targets[self.numbers(split)] if self.fold else targets

    def numbers(self, split: str) -> torch.Tensor:
        """Which samples (N,) of its files the split has, where they are divided into folds."""
        import torch

        assert self.fold
        if not self.info.target:
            raise InputError("folds: are of samples with something to learn of each, such as a class or a number")
        if self.info.target.in_order:
            raise InputError("folds: are drawn by chance, and what follows in time would be looked ahead at")
        every, arrays = self.model_copy(update={"fold": None}).targets(split), self._arrays(split)
        known = {name: arrays[name].numpy() for name in ("groups", "order") if name in arrays}
        return torch.from_numpy(self.fold.numbers(every.numpy(), self.info.target.one_class, **known)[split])

    def learnt(self) -> torch.Tensor:
        """The targets (N, …) of the samples that are trained on."""
        return self.targets("train")[self.trained_numbers()]

    def chosen(self, split: str, numbers: Sequence[int] | torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The samples of the split with these numbers, as a batch without augmentation."""
        import torch

        batch: tuple[torch.Tensor, ...] = self._dataset(split)[torch.as_tensor(numbers, dtype=torch.int64)]
        return batch

    def samples(self, split: str, count: int, drawn: bool = False) -> dict[str, torch.Tensor]:
        """What a model takes of `count` samples, by the names of its inputs, laid out in memory as the shapes say.

        They are the first of the split, or `drawn` at random.
        """
        inputs = (self.drawn if drawn else self.first)(split, count)
        return {name: tensor.contiguous() for name, tensor in zip(self.info.inputs, inputs, strict=False)}

    def has(self, split: str, name: str) -> bool:
        """Whether there is such a prepared array."""
        return bool(self.splits[split]) and name in self._arrays(split)

    def texts(self, split: str, chosen: Sequence[int], name: str = "text") -> list[str]:
        """The documents as they were written, by their number in the split; or other texts, see data.documents."""
        arrays = self._arrays(split)
        starts = arrays[f"{name}_starts"]
        chosen = self.numbers(split)[list(chosen)].tolist() if self.fold else chosen
        return [bytes(arrays[name][starts[i] : starts[i + 1]].numpy()).decode() for i in chosen]

    def tokens(self, split: str) -> torch.Tensor:
        """The whole text of the split, (N,) tokens."""
        return self.array(split, "tokens")

    def array(self, split: str, name: str) -> torch.Tensor:
        """One of the prepared arrays, whole and on the CPU."""
        from torchloom.data.mapped import whole

        return whole(self._arrays(split)[name], "cpu")

    def _dataset(
        self,
        split: str,
        device: torch.device | None = None,
        training: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> Gathered:
        import torch

        from torchloom.data.batches import Part
        from torchloom.data.mapped import read_at_random, whole

        device = device or torch.device("cpu")
        arrays = {name: array for name, array in self._arrays(split).items() if not name.startswith("text")}
        streamed = not self._belongs_on(device, arrays)
        if streamed:
            for array in arrays.values():
                read_at_random(array)
        elif device.type != "cpu":
            arrays = {name: whole(array, device) for name, array in arrays.items()}
        dataset = self.info.batches(arrays, Use(self.data, self.seed, training, device, share))
        dataset.streamed = streamed
        return Part(dataset, self.numbers(split)) if self.fold else dataset

    def _belongs_on(self, device: torch.device, arrays: dict[str, Any]) -> bool:
        """Whether the arrays are to lie in the device's memory; on the CPU they are mapped from their files."""
        from torchloom.system.devices import free_memory

        if not all(hasattr(array, "nbytes") for array in arrays.values()):  # what is made when it is asked for
            if self.data.on_device:
                raise InputError("data.on_device: the pixels of these data are not kept; set preprocess.cache: always")
            return False
        if self.data.on_device is not None:
            return self.data.on_device
        return bool(sum(array.nbytes for array in arrays.values()) < free_memory(device) / 2)

    def _arrays(self, split: str) -> dict[str, Any]:
        """The split's arrays, on the CPU; what is large stays memory-mapped."""
        import torch

        from torchloom.data.mapped import join
        from torchloom.datasets.tensors import open_tensors

        files: list[dict[str, Any]] = []
        account: dict[str, Any] = {}
        for file in self.splits[split]:
            tensors = open_tensors(file.path)
            if tensors.fingerprint != file.fingerprint:
                raise InputError(f"{file.path}: has changed since the loaders were planned. {REBUILD}")
            files.append({name: torch.as_tensor(array) for name, array in tensors.arrays.items()})
            account = tensors.description
        return dict(self.info.opened(join(files), account))


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
