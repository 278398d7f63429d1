"""Types of values that several blocks have, and what all blocks share."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from torchloom.errors import without_secrets

Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


def _is_word(size: Any) -> str:
    return "<word>" if isinstance(size, str) else "<number>"


BatchSize = Annotated[
    Annotated[Count, Tag("<number>")] | Annotated[Literal["auto"], Tag("<word>")], Discriminator(_is_word)
]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _device(name: str) -> str:
    if name != "auto":
        import torch

        try:
            torch.device(name)
        except RuntimeError as error:
            raise ValueError("must be auto, cpu, cuda, cuda:N, mps or xpu") from error
    return name


Device = Annotated[str, AfterValidator(_device)]


def _black_below_white(values: list[float]) -> list[float]:
    if not values[0] < values[1] or not all(map(math.isfinite, values)):
        raise ValueError("must be two numbers, [black, white], the first less than the second")
    return values


def _without_secrets(place: str) -> str:
    if without_secrets(place) != place:
        raise ValueError(
            "has a password or a signature in it, which records and reports would show. Write what lets you in into "
            "conf/local/credentials.yml, and name that entry: credentials"
        )
    return place


Place = Annotated[str, Field(min_length=1), AfterValidator(_without_secrets)]  # a path, or an address
ValueRange = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_black_below_white)]
Fit = Literal["crop", "pad", "squash"]
Views = Literal["one", "mirror", "mirror_and_shift"]


class Block(BaseModel):
    """A block of parameters: exact types, no unknown keys, not changeable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class Named(BaseModel):
    """A choice by name; every other key is an argument of what the name stands for, null one that is left out."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)

    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        return {key: value for key, value in (self.model_extra or {}).items() if value is not None}
