"""The modalities, what can go in: one module each, which answers all questions about such inputs.

Whoever needs to know something of the data asks their `Info`; see base.py for what it answers. A user's own is a class
below `Info` whose `kind` is its own dotted path; the data set's `preprocess.modality` names it, too.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny, ValidationError

from torchloom.config import own
from torchloom.errors import InputError
from torchloom.modalities.audio import AudioInfo
from torchloom.modalities.base import Info
from torchloom.modalities.documents import DocumentInfo
from torchloom.modalities.draws import DrawInfo
from torchloom.modalities.images import ImageInfo, Reading
from torchloom.modalities.series import LabelledSeriesInfo, SeriesInfo
from torchloom.modalities.table import TableInfo
from torchloom.modalities.text import TextInfo

__all__ = [
    "MODALITIES",
    "AnyInfo",
    "AudioInfo",
    "DocumentInfo",
    "DrawInfo",
    "ImageInfo",
    "Info",
    "LabelledSeriesInfo",
    "Reading",
    "SeriesInfo",
    "TableInfo",
    "TextInfo",
    "check_modality",
    "check_suits",
    "info_of",
    "read_info",
    "suited",
]

MODALITIES: dict[str, type[Info]] = {
    "images": ImageInfo,
    "documents": DocumentInfo,
    "text": TextInfo,
    "table": TableInfo,
    "audio": AudioInfo,
    "series": SeriesInfo,
    "labelled_series": LabelledSeriesInfo,
    "draws": DrawInfo,
}


def check_modality(name: str) -> None:
    """Raise UnknownNameError unless there is such a modality, or one of the user's own with that dotted path."""
    own.chosen(name, MODALITIES, "a modality", parent=Info)


def info_of(values: Any) -> Any:
    """The Info of the modality that the values name; ValueError when there is none of that name."""
    if isinstance(values, Info) or not isinstance(values, dict):
        return values
    kind = values.get("kind")
    if isinstance(kind, str) and own.is_path(kind):
        return own.find_class(kind, Info).model_validate(values)
    if not isinstance(kind, str) or kind not in MODALITIES:
        raise ValueError(f"kind {kind!r} is none of {', '.join(MODALITIES)}")
    return MODALITIES[kind].model_validate(values)


AnyInfo = Annotated[SerializeAsAny[Info], BeforeValidator(info_of)]


def read_info(values: Any) -> Info:
    """What a file that preprocessing wrote says; InputError when it does not say it."""
    try:
        info: Info = Info.model_validate(info_of(values))
    except (ValidationError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise InputError(
            f"the info of the data set is damaged or from another version: {reason}. Run the preprocess stage again: "
            "kedro run --tags preprocess"
        ) from error
    return info


def suited() -> dict[str, list[str]]:
    """The parameters that are for some modalities only, and for which."""
    keys = {key for modality in MODALITIES.values() for key in modality.own_keys}
    return {key: [name for name, modality in MODALITIES.items() if key in modality.own_keys] for key in sorted(keys)}


def check_suits(key: str, info: Info) -> None:
    """InputError when the parameter is for other data."""
    if key not in info.own_keys:
        raise InputError(f"{key}: is for {' and '.join(suited()[key])}, but these data are {info.kind}; leave it out")
