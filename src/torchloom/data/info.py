"""What preprocessing finds out about a data set, and what loaders, networks and exported models must know of it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from torchloom.data.text import Tokenizer
from torchloom.errors import InputError


class Info(BaseModel):
    """`inputs` names what a model of such data takes; `sizes` are what its network's `build` can ask for."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    inputs: ClassVar[tuple[str, ...]]

    def sizes(self) -> dict[str, Any]:
        raise NotImplementedError


class LabelledInfo(Info):
    """Samples of several classes."""

    classes: list[str]


class ImageInfo(LabelledInfo):
    """Labelled images; `mean` and `std` per channel, on the scale [0, 1]."""

    kind: Literal["images"] = "images"
    shape: list[int]  # channels, height, width
    mean: list[float]
    std: list[float]

    inputs: ClassVar = ("images",)

    def sizes(self) -> dict[str, Any]:
        return {"shape": tuple(self.shape), "classes": len(self.classes)}


class DocumentInfo(LabelledInfo):
    """Labelled texts of any length, as words."""

    kind: Literal["documents"] = "documents"
    tokenizer: Tokenizer

    inputs: ClassVar = ("tokens", "lengths")

    def sizes(self) -> dict[str, Any]:
        return {"tokens": len(self.tokenizer.vocabulary), "classes": len(self.classes)}


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
            f"this kind of task needs {needed.get(kind, 'a table')}, but in TASKS (pipeline_registry.py) its data are "
            f"of the kind {getattr(info, 'kind', None)!r}"
        )
    return info
