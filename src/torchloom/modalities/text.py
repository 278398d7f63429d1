"""Text: one long text as characters, words or subwords, windows of tokens (B, T) int64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torchloom.config import AnswerConfig
from torchloom.data.text import Tokenizer
from torchloom.errors import InputError
from torchloom.modalities.base import Axes, Info, Use
from torchloom.modalities.files import Sample, texts_of
from torchloom.system.words import counted

if TYPE_CHECKING:
    from torch import Tensor

    from torchloom.data.batches import Gathered
    from torchloom.datasets.listing import Listing


class TextInfo(Info):
    """One long text, as characters, words or subwords."""

    kind: Literal["text"] = "text"
    tokenizer: Tokenizer

    inputs: ClassVar = ("tokens",)
    axes: ClassVar[Axes] = {"tokens": {0: "batch", 1: "time"}}
    size_names: ClassVar = ("tokens",)
    content: ClassVar = "tokens"
    tag: ClassVar = "text"
    own_keys: ClassVar = frozenset({"data.window"})
    field: ClassVar = "prompts"
    card: ClassVar = "templates/text.md"

    @property
    def unit(self) -> str:  # type: ignore[override]
        return self.tokenizer.kind.removesuffix("s")

    def sizes(self) -> dict[str, Any]:
        return {"tokens": len(self.tokenizer.vocabulary)}

    def meanings(self) -> dict[str, Any]:
        return {"tokens": self.tokenizer}

    def batches(self, arrays: Mapping[str, Any], use: Use) -> Gathered:
        from torchloom.data.sequences import TextWindows

        return TextWindows(arrays["tokens"], use.data.window, use.seed if use.training else None, use.device)

    def example(self, batch: int, time: int) -> dict[str, Tensor]:
        import torch

        return {"tokens": torch.ones(batch, time, dtype=torch.int64)}

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "vocabulary", counted(len(self.tokenizer.vocabulary), self.unit)

    def reader(self, config: AnswerConfig) -> Callable[[str], str]:
        return self.prompt

    def prompt(self, text: str) -> str:
        r"""`text` with \n at the end of each line, as in training, when a language model can go on from it.

        Else InputError, as `Tokenizer.tokens` has it, or for characters that it does not know.
        """
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        self.tokenizer.tokens(text)
        self.tokenizer.check_known(text)
        return text

    def check_rows(self) -> None:
        raise InputError("a language model goes on from texts in files, and not in tables: leave predict.entry out")

    def samples_in(self, files: Listing, read: Callable[[Any], Any]) -> Iterator[Sample]:
        return texts_of(files, read)
