"""What preprocessing finds out about a data set, and what loaders, networks and exported models must know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from torchloom.config import DataConfig, Fit, ValueRange, Views
from torchloom.data.text import Tokenizer
from torchloom.errors import InputError

if TYPE_CHECKING:
    from typing import Self


class Info(BaseModel):
    """`inputs` names what a model of such data takes; `sizes` are what its network's `build` can ask for.

    It goes with the model: in its checkpoint, and in the metadata of its ONNX file. So it has all that is done to an
    input before the network sees it, for whoever asks the model later to do the same.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    inputs: ClassVar[tuple[str, ...]]

    def sizes(self) -> dict[str, Any]:
        raise NotImplementedError

    def reads_as(self, other: Info) -> bool:
        """Whether equal inputs stand for the same in data that `other` describes, whose sizes are the same."""
        return type(self) is type(other)

    def asked(self, data: DataConfig, evaluation: Any) -> Self:  # noqa: ARG002
        """With what the blocks `data` and `evaluate` of a task do to an input."""
        return self


class LabelledInfo(Info):
    """Samples of several classes."""

    classes: list[str]


class Reading(BaseModel):
    """How a user's picture becomes an image, and how a classifier is asked about it.

    `fit` is for pictures of other proportions. `value_range` is what becomes black and white in pictures of more than 8
    bits a channel; without one 0 and 65,535 do, and those of 32 bits say nothing. `views` are those of evaluate.views.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    fit: Fit = "crop"
    value_range: ValueRange | None = None
    views: Views = "one"


class ImageInfo(Reading, LabelledInfo):
    """Labelled images; `mean` and `std` per channel, on the scale [0, 1]."""

    kind: Literal["images"] = "images"
    shape: list[int]  # channels, height, width
    mean: list[float]
    std: list[float]

    inputs: ClassVar = ("images",)

    def sizes(self) -> dict[str, Any]:
        return {"shape": tuple(self.shape), "classes": len(self.classes)}

    def asked(self, data: DataConfig, evaluation: Any) -> Self:  # noqa: ARG002
        return self.model_copy(update={"views": getattr(evaluation, "views", "one")})


class DocumentInfo(LabelledInfo):
    """Labelled texts of any length, as words."""

    kind: Literal["documents"] = "documents"
    tokenizer: Tokenizer
    max_tokens: int | None = None  # of longer ones so many of the last, where a review comes to its verdict

    inputs: ClassVar = ("tokens", "lengths")

    def sizes(self) -> dict[str, Any]:
        return {"tokens": len(self.tokenizer.vocabulary), "classes": len(self.classes)}

    def reads_as(self, other: Info) -> bool:
        return isinstance(other, DocumentInfo) and self.tokenizer == other.tokenizer

    def asked(self, data: DataConfig, evaluation: Any) -> Self:  # noqa: ARG002
        return self.model_copy(update={"max_tokens": data.max_tokens})


class TextInfo(Info):
    """One long text, as characters."""

    kind: Literal["text"] = "text"
    tokenizer: Tokenizer

    inputs: ClassVar = ("tokens",)

    def sizes(self) -> dict[str, Any]:
        return {"tokens": len(self.tokenizer.vocabulary)}


class TableInfo(Info):
    """Rows of numbers and one number to predict; mean and standard deviation of each over the training rows."""

    kind: Literal["table"] = "table"
    features: list[str]
    target: str
    mean: list[float]
    std: list[float]
    target_mean: float
    target_std: float

    inputs: ClassVar = ("features",)

    def sizes(self) -> dict[str, Any]:
        return {"features": len(self.features)}


AnyInfo = Annotated[ImageInfo | DocumentInfo | TextInfo | TableInfo, Field(discriminator="kind")]


def read_info(values: Any) -> ImageInfo | DocumentInfo | TextInfo | TableInfo:
    """What a file that preprocessing wrote says; InputError when it does not say it."""
    try:
        info: ImageInfo | DocumentInfo | TextInfo | TableInfo = TypeAdapter(AnyInfo).validate_python(values)
    except ValidationError as error:
        raise InputError(
            f"the info of the data set is damaged or from another version: {error.errors()[0]['msg']}. Run the "
            "preprocess stage again: kedro run --tags preprocess"
        ) from error
    return info


Kind = TypeVar("Kind", bound=Info)


def expect(info: Info, kind: type[Kind]) -> Kind:
    """`info`, when it is of this kind; else InputError: the task was registered with data that do not suit it."""
    if not isinstance(info, kind):
        needed = {LabelledInfo: "images or documents with classes", ImageInfo: "images", TextInfo: "a text"}
        raise InputError(
            f"this kind of task needs {needed.get(kind, 'a table')}, but the data that its block task names are of the "
            f"kind {getattr(info, 'kind', None)!r}"
        )
    return info
