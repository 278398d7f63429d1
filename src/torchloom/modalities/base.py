"""What every modality answers: its `Info`, which goes with the data, the loaders and the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from torchloom.config import AnswerConfig, DataConfig
from torchloom.data.documents import FILE
from torchloom.data.targets import AnyTarget
from torchloom.data.writing import USUAL, Writing
from torchloom.modalities.files import Sample

if TYPE_CHECKING:
    from typing import Self

    import numpy as np
    import torch
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from torchloom.data.batches import Gathered
    from torchloom.datasets.listing import Listing
    from torchloom.modalities.table import TableInfo
    from torchloom.training.loaders import LoaderPlan

Axes = dict[str, dict[int, str]]  # of each input the axes that may have any length, with what they count


@dataclass(frozen=True)
class Use:
    """What batches of a split are for: training, changed as the block `data` has it, or not; `share` is (number, count)
    of one of several processes."""

    data: DataConfig
    seed: int
    training: bool
    device: torch.device
    share: tuple[int, int]


@dataclass(frozen=True)
class Origin:
    """What weights of others were trained on: pictures of a `size` (height, width) with `mean` and `std` per channel on
    the scale [0, 1], or texts cut by a `tokenizer`, a tokenizer.json as it is."""

    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    size: tuple[int, int] | None = None
    tokenizer: str = ""


class Info(BaseModel):
    """What preprocessing finds out about a data set, and what loaders, networks and exported models must know of it.

    It goes with the model: in its checkpoint, and in the metadata of its ONNX file. So it has all that is done to an
    input before the network sees it, for whoever asks the model later to do the same.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    kind: str  # the name of the modality, or the dotted path of one of the user's own
    target: AnyTarget | None = None  # what there is to learn beside the inputs
    writing: Writing = Field(USUAL)  # how the tables that it was learnt from write numbers and dates, and later ones do

    inputs: ClassVar[tuple[str, ...]]  # what a model of such data takes
    axes: ClassVar[Axes]
    size_names: ClassVar[tuple[str, ...]]  # what a network's `build` can ask for
    content: ClassVar[str]  # the prepared array that has an entry for each sample where there is no target
    tag: ClassVar[str]  # what such data are in the Hugging Face hub's names of problems
    unit: ClassVar[str]  # what the data consist of, in the singular
    samples: ClassVar[str] = "samples"  # what a network learns from, in the plural
    holds_back: ClassVar[bool] = False  # whether `predict.holdout` is for such data
    own_keys: ClassVar[frozenset[str]] = frozenset()  # parameters that are for such data alone
    pictured: ClassVar[bool] = True  # whether a sample is more to look at than its row among the answers
    field: ClassVar[str | None] = None  # where a request has a list of samples; none: one is the whole body
    body: ClassVar[str] = ""  # what that is
    item: ClassVar[type] = str  # what each of them is: a text, or a dict of values by name
    card: ClassVar[str] = "templates/modality.md"  # the template that says in a model card how its inputs are made

    # ---- for training ----------------------------------------------------------------------------------------------

    def sizes(self) -> dict[str, Any]:
        """The values of `size_names`."""
        raise NotImplementedError

    def meanings(self) -> dict[str, Any]:
        """What those of the sizes stand for that say only how many there are, such as words."""
        return {}

    def reads_as(self, other: Info) -> bool:
        """Whether equal inputs stand for the same in data that `other` describes, whose sizes are the same."""
        return type(self) is type(other)

    def asked(self, data: DataConfig, evaluation: Any) -> Self:
        """With what the blocks `data` and `evaluate` of a task do to an input."""
        return self

    def origin(self) -> Origin | None:
        """What the inputs of a network that has learnt from such data are made as; None where nothing is measured."""
        return None

    def after(self, origin: Origin) -> Self:
        """The same with its inputs made as those that weights from elsewhere were trained on; InputError where they
        cannot be."""
        return self

    def measured(self, loaders: LoaderPlan) -> Self:
        """The same with what is measured of the training samples, such as scales, measured of those of `loaders`.

        What the prepared arrays themselves hang on, such as a vocabulary, stays: see config.AnewConfig.
        """
        target = self.target.measured(loaders.learnt().numpy()) if self.target else None
        return self.model_copy(update={"target": target})

    @property
    def counted(self) -> str:
        """Which of the prepared arrays has an entry for each sample."""
        return self.target.array if self.target else self.content

    def opened(self, arrays: Mapping[str, Any], account: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arrays of a split as they are gathered from; `account` is what preprocessing says of them."""
        return arrays

    def batches(self, arrays: Mapping[str, Any], use: Use) -> Gathered:
        """What gathers batches of the prepared arrays: the inputs, and last the target if there is one."""
        raise NotImplementedError

    def scaled(self, network: nn.Module) -> nn.Module:
        """The network behind the scaling of its inputs, if there is one: a modalities.modules.Scaling."""
        return network

    def viewed(self, model: nn.Module) -> nn.Module:
        """The model as it is asked: over several views of each input, if there are any."""
        return model

    def as_numbers(self) -> tuple[TableInfo, Callable[[Tensor], Tensor]] | None:
        """A table of numbers alone that says the same, and what makes it of the inputs; None where there is no such."""
        return None

    def example(self, batch: int, time: int) -> dict[str, Tensor]:
        """Made-up inputs of a model, by name; texts are `time` tokens long."""
        raise NotImplementedError

    # ---- for reports -----------------------------------------------------------------------------------------------

    def predictions(self, loaders: LoaderPlan, numbers: Sequence[int], captions: Sequence[tuple[str, bool]]) -> Figure:
        """A picture of test samples, each with a caption and whether what it says is right."""
        from torchloom.system import figures

        rows = self.columns(loaders, numbers)
        texts = [", ".join(f"{name} {value}" for name, value in row.items()) for row in rows]
        named = [text or f"test sample {number}" for number, text in zip(numbers, texts, strict=True)]
        return figures.text_predictions(named, captions)

    def columns(self, loaders: LoaderPlan, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """What a table of test samples says of each, beside the answers."""
        return [{} for _ in numbers]

    def named(self, loaders: LoaderPlan, numbers: Sequence[int]) -> dict[str, list[str]]:
        """What a table calls test samples beside their numbers, by columns: as `predict` does, where that is known."""
        return {"file": loaders.texts("test", numbers, FILE)} if loaders.has("test", FILE) else {}

    def drawn_names(self) -> Iterator[tuple[str, Sequence[str]]]:
        """The names that figures show, of the target and of what goes in, with what each is the name of."""
        yield from self.target.drawn_names() if self.target else ()

    def facts(self) -> Iterator[tuple[str, Any]]:
        """What a report says of the inputs, by what it is."""
        yield from ()

    # ---- for exported models ---------------------------------------------------------------------------------------

    def described(self) -> dict[str, Any]:
        """What the metadata of an exported model say of the data, by name, values as JSON has them: all of it but a
        `writing` that is the usual one."""
        usual = {"writing"} if self.writing == USUAL else set()
        return self.model_dump(mode="json", exclude={"kind", *usual})

    def shapes(self) -> dict[str, list[int]]:
        """Of the inputs, by name, the lengths of the axes after the batch, where these are always the same."""
        return {}

    def told(self, config: AnswerConfig) -> Self:
        """As the model is to be asked: as its test was, but for what `config` says; what differs is in the log."""
        return self

    def plain(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row of a user's table with numbers and dates as they are usually written."""
        return self.writing.row(row)

    def reader(self, config: AnswerConfig) -> Callable[[Any], Any]:
        """What turns a file, a text or a row into a sample; it raises InputError when it cannot."""
        raise NotImplementedError

    def said_of(self, sample: Any, row: Mapping[str, Any] | None) -> Any:
        """What comes with a sample says of its target, by its row if it has one; None where nothing does.

        ValueError of what it cannot be.
        """
        return self.target.told(self.plain(row)) if self.target and row else None

    def check_rows(self) -> None:
        """InputError unless samples can be told by the rows of a table alone."""

    def samples_in(self, files: Listing, read: Callable[[Any], Any]) -> Iterator[Sample]:
        """The samples in a user's files, each with its name and with what reads it by `read`."""
        raise NotImplementedError

    def remarks(self, samples: list[Any]) -> list[str] | None:
        """What is odd about each sample beside those of the training, in words, or nothing; None where none can be."""
        return None

    def batch(self, samples: list[Any]) -> dict[str, np.ndarray]:
        """What a model takes of samples that `reader` has read, by the names of its inputs."""
        raise NotImplementedError

    def parts(self, samples: list[Any]) -> Iterator[list[Any]]:
        """The samples, in order, as many at once as a model is asked about."""
        yield samples

    def in_views(self, inputs: dict[str, np.ndarray]) -> Iterator[tuple[float, dict[str, np.ndarray]]]:
        """The batches that the model is asked about in place of one, with their weights in the mean of its answers."""
        yield 1.0, inputs

    def sheet(self, shown: list[tuple[str, Any, str]]) -> Figure:
        """A picture of samples: the name of each, what `reader` made of it, and a caption."""
        from torchloom.system.figures import text_sheet

        return text_sheet([(name, caption) for name, _, caption in shown])

    def said(self) -> dict[str, Any]:
        """What a server says of the inputs that its model takes."""
        return {}
