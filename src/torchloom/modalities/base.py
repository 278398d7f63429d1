"""What every modality answers: its `Info`, which goes with the data, the loaders and the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from torchloom.words import listed

if TYPE_CHECKING:
    from typing import Self

    import torch
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from torchloom.config import DataConfig
    from torchloom.data.batches import Gathered
    from torchloom.data.loaders import LoaderPlan

Axes = dict[str, dict[int, str]]  # of each input the axes that may have any length, with what they count


class Info(BaseModel):
    """What preprocessing finds out about a data set, and what loaders, networks and exported models must know of it.

    It goes with the model: in its checkpoint, and in the metadata of its ONNX file. So it has all that is done to an
    input before the network sees it, for whoever asks the model later to do the same.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    inputs: ClassVar[tuple[str, ...]]  # what a model of such data takes
    axes: ClassVar[Axes]
    counted: ClassVar[str]  # which of the prepared arrays has an entry for each sample
    unit: ClassVar[str]  # what the data consist of, in the singular
    samples: ClassVar[str] = "samples"  # what a network learns from, in the plural
    own_keys: ClassVar[frozenset[str]] = frozenset()  # parameters that are for such data alone

    def sizes(self) -> dict[str, Any]:
        """What a network's `build` can ask for."""
        raise NotImplementedError

    def meanings(self) -> dict[str, Any]:
        """What those of the sizes stand for that say only how many there are, such as classes."""
        return {}

    def reads_as(self, other: Info) -> bool:
        """Whether equal inputs stand for the same in data that `other` describes, whose sizes are the same."""
        return type(self) is type(other)

    def asked(self, data: DataConfig, evaluation: Any) -> Self:  # noqa: ARG002
        """With what the blocks `data` and `evaluate` of a task do to an input."""
        return self

    def batches(
        self,
        arrays: Mapping[str, Any],
        data: DataConfig,
        seed: int,
        training: bool,
        device: torch.device,
        share: tuple[int, int],
    ) -> Gathered:
        """What gathers batches of the prepared arrays; with `training` changed as the block `data` has it."""
        raise NotImplementedError

    def scaled(self, network: nn.Module) -> nn.Module:
        """The network behind the scaling of its inputs, if there is one."""
        return network

    def example(self, batch: int, time: int) -> dict[str, Tensor]:
        """Made-up inputs of a model, by name; texts are `time` tokens long."""
        raise NotImplementedError

    def described(self) -> dict[str, Any]:
        """What the metadata of an exported model say of the data, by name; values as JSON has them."""
        return self.model_dump(mode="json", exclude={"kind"})

    def predictions(self, loaders: LoaderPlan, numbers: Sequence[int], *answers: Any) -> Figure:
        """A picture of test samples with a classifier's answers to them, as figures.prediction_grid takes those."""
        raise NotImplementedError

    def columns(self, loaders: LoaderPlan, numbers: Sequence[int]) -> list[dict[str, Any]]:  # noqa: ARG002
        """What a table of test samples says of each, beside the answers."""
        return [{} for _ in numbers]

    def facts(self) -> Iterator[tuple[str, Any]]:
        """What a report says of the data, by what it is."""
        yield from ()


class LabelledInfo(Info):
    """Samples of several classes."""

    classes: list[str]

    def meanings(self) -> dict[str, Any]:
        return {"classes": self.classes}

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "classes", f"{len(self.classes):,}: {listed(self.classes)}"
