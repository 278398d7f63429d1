"""Text: one long text as characters, windows of tokens (B, T) int64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torchloom.config import DataConfig
from torchloom.data.text import Tokenizer
from torchloom.modalities.base import Axes, Info
from torchloom.words import counted

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from torchloom.data.batches import Gathered


class TextInfo(Info):
    """One long text, as characters."""

    kind: Literal["text"] = "text"
    tokenizer: Tokenizer

    inputs: ClassVar = ("tokens",)
    axes: ClassVar[Axes] = {"tokens": {0: "batch", 1: "time"}}
    counted: ClassVar = "tokens"
    unit: ClassVar = "character"
    own_keys: ClassVar = frozenset({"data.window"})

    def sizes(self) -> dict[str, Any]:
        return {"tokens": len(self.tokenizer.vocabulary)}

    def meanings(self) -> dict[str, Any]:
        return {"tokens": self.tokenizer}

    def batches(
        self,
        arrays: Mapping[str, Any],
        data: DataConfig,
        seed: int,
        training: bool,
        device: torch.device,
        share: tuple[int, int],  # noqa: ARG002
    ) -> Gathered:
        from torchloom.data.sequences import TextWindows

        return TextWindows(arrays["tokens"], data.window, seed if training else None, device)

    def example(self, batch: int, time: int) -> dict[str, Tensor]:
        import torch

        return {"tokens": torch.ones(batch, time, dtype=torch.int64)}

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "vocabulary", counted(len(self.tokenizer.vocabulary), "character")
