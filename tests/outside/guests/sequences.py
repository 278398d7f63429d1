"""A modality of a user's own: sequences of a fixed length, as numbers (B, length) float32."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from torchloom.config import AnswerConfig
from torchloom.data.batches import Gathered
from torchloom.data.sequences import TableBatches
from torchloom.data.targets import Target
from torchloom.datasets.listing import Listing
from torchloom.errors import InputError
from torchloom.modalities import Info
from torchloom.modalities.base import Axes, Use
from torchloom.modalities.files import Sample, texts_of
from torchloom.modalities.modules import Scaling


class ByHighest(Scaling):
    """Divides by the greatest value of the training data."""

    highest: Tensor

    def __init__(self, network: nn.Module, highest: float) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("highest", torch.tensor(highest))

    def forward(self, sequences: Tensor) -> Any:
        return self.network(sequences / self.highest)


class SequenceInfo(Info):
    kind: Literal["guests.sequences.SequenceInfo"] = "guests.sequences.SequenceInfo"
    length: int
    highest: float

    inputs: ClassVar = ("sequences",)
    axes: ClassVar[Axes] = {"sequences": {0: "batch"}}
    size_names: ClassVar = ("length",)
    content: ClassVar = "sequences"
    tag: ClassVar = "sequence"
    unit: ClassVar = "sequence"
    samples: ClassVar = "sequences"
    field: ClassVar = "sequences"
    item: ClassVar = list

    def sizes(self) -> dict[str, Any]:
        return {"length": self.length}

    def batches(self, arrays: Mapping[str, Any], use: Use) -> Gathered:
        return TableBatches(arrays["sequences"], arrays[self.counted], use.device)

    def scaled(self, network: nn.Module) -> nn.Module:
        return ByHighest(network, self.highest)

    def example(self, batch: int, time: int) -> dict[str, Tensor]:
        return {"sequences": torch.zeros(batch, self.length)}

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "length", self.length

    def shapes(self) -> dict[str, list[int]]:
        return {"sequences": [self.length]}

    def reader(self, config: AnswerConfig) -> Callable[[Any], np.ndarray]:
        return self.read

    def read(self, given: str | list[float]) -> np.ndarray:
        """A line of numbers, or the numbers themselves."""
        try:
            numbers = np.array(given.split() if isinstance(given, str) else given, dtype=np.float32)
        except (TypeError, ValueError):
            raise InputError("holds something else than numbers") from None
        if numbers.shape != (self.length,):
            raise InputError(f"holds {numbers.size} numbers, not {self.length}")
        return numbers

    def samples_in(self, files: Listing, read: Callable[[Any], Any]) -> Iterator[Sample]:
        return texts_of(files, read)

    def batch(self, samples: list[np.ndarray]) -> dict[str, np.ndarray]:
        return {"sequences": np.stack(samples)}


class Spans(Target):
    """From where to where in a sequence something lasts: (N, 2) float32."""

    array: str = "spans"
    unit: str


class SpannedSequenceInfo(SequenceInfo):
    """The same with a target of a kind of one's own."""

    kind: Literal["guests.sequences.SpannedSequenceInfo"] = "guests.sequences.SpannedSequenceInfo"  # type: ignore[assignment]
    target: Spans | None = None  # type: ignore[assignment]
