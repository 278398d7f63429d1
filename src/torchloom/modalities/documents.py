"""Documents: texts of any length as words, tokens (B, T) int64 and lengths (B,) int64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from torchloom.config import AnswerConfig, Count, DataConfig
from torchloom.data.text import LONGEST_TEXT, Tokenizer
from torchloom.errors import InputError
from torchloom.modalities.base import Axes, Info, Origin, Use
from torchloom.modalities.files import Sample, texts_of

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.figure import Figure
    from torch import Tensor

    from torchloom.data.batches import Gathered
    from torchloom.datasets.listing import Listing
    from torchloom.training.loaders import LoaderPlan


COLUMN = "text"  # of tables that a model is asked about which has learnt from other files


class DocumentInfo(Info):
    """Texts of any length, as tokens; in a user's tables they stand in the `column`."""

    kind: Literal["documents"] = "documents"
    tokenizer: Tokenizer
    column: str | None = None
    max_tokens: Count | None = None  # of longer ones so many of the last, where a review comes to its verdict

    inputs: ClassVar = ("tokens", "lengths")
    axes: ClassVar[Axes] = {"tokens": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    size_names: ClassVar = ("tokens",)
    content: ClassVar = "starts"
    tag: ClassVar = "text"
    unit: ClassVar = "document"
    samples: ClassVar = "documents"
    own_keys: ClassVar = frozenset({"data.max_tokens"})
    field: ClassVar = "texts"
    card: ClassVar = "templates/documents.md"

    def sizes(self) -> dict[str, Any]:
        return {"tokens": len(self.tokenizer.vocabulary)}

    def meanings(self) -> dict[str, Any]:
        return {"tokens": self.tokenizer}

    def reads_as(self, other: Info) -> bool:
        return isinstance(other, DocumentInfo) and self.tokenizer == other.tokenizer

    def asked(self, data: DataConfig, evaluation: Any) -> Self:
        return self._with(evaluation, max_tokens=data.max_tokens)

    def _with(self, config: Any, **changes: Any) -> Self:
        target = self.target.asked(config) if self.target else None
        return self.model_copy(update={**changes, "target": target})

    def told(self, config: AnswerConfig) -> Self:
        return self._with(config)

    def after(self, origin: Origin) -> Self:
        if self.tokenizer.definition != origin.tokenizer:
            raise InputError(
                "model.weights: the encoder has its own tokens, and the texts were cut into others. Name its folder in "
                "the block preprocess of the data, too: preprocess.tokenizer"
            )
        return self

    def batches(self, arrays: Mapping[str, Any], use: Use) -> Gathered:
        from torchloom.data.sequences import DocumentBatches

        return DocumentBatches(
            arrays["tokens"],
            arrays["starts"],
            arrays[self.counted],
            use.data.max_tokens,
            use.device,
            self.tokenizer.opening,
        )

    def example(self, batch: int, time: int) -> dict[str, Tensor]:
        import torch

        return {"tokens": torch.ones(batch, time, dtype=torch.int64), "lengths": torch.full((batch,), time)}

    def predictions(self, loaders: LoaderPlan, numbers: Sequence[int], captions: Sequence[tuple[str, bool]]) -> Figure:
        from torchloom.system import figures

        names = [f"test sample {number}" for number in numbers]
        return figures.text_predictions(loaders.texts("test", numbers), captions, names)

    def columns(self, loaders: LoaderPlan, numbers: Sequence[int]) -> list[dict[str, Any]]:
        return [{"text": text} for text in loaders.texts("test", numbers)]

    def named(self, loaders: LoaderPlan, numbers: Sequence[int]) -> dict[str, list[str]]:
        return {**super().named(loaders, numbers), "text": loaders.texts("test", numbers)}

    def described(self) -> dict[str, Any]:
        reading = {"input": "the tokens of a text; of more than max_tokens the last ones"}
        said = super().described()
        column = {} if self.column is None else {"column": self.column}
        return {**{name: value for name, value in said.items() if name != "column"}, **column, "preprocessing": reading}

    def reader(self, config: AnswerConfig) -> Callable[[str], np.ndarray]:
        return lambda text: self.tokenizer.tokens(self.writing.plain(text), self.max_tokens)

    def samples_in(self, files: Listing, read: Callable[[Any], Any]) -> Iterator[Sample]:
        return texts_of(files, read, self.column or COLUMN, self.target)

    def sheet(self, shown: list[tuple[str, Any, str]]) -> Figure:
        from torchloom.system.figures import text_sheet

        texts = [self.tokenizer.decode(tokens) for _, tokens, _ in shown]
        return text_sheet([(name, caption) for name, _, caption in shown], texts)

    def batch(self, samples: list[np.ndarray]) -> dict[str, np.ndarray]:
        return pad(samples)

    def parts(self, samples: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
        return of_few_pairs(samples)

    def said(self) -> dict[str, Any]:
        return {"max_tokens": self.max_tokens}


def of_few_pairs(documents: list[np.ndarray], most: int = LONGEST_TEXT**2) -> Iterator[list[np.ndarray]]:
    """The documents of (T,) tokens, in order, in batches that make `most` pairs of places at most, B times the greatest
    T squared, or hold one alone: attention takes memory by these."""
    part: list[np.ndarray] = []
    longest = 0
    for tokens in documents:
        longest = max(longest, len(tokens))
        if part and (len(part) + 1) * longest**2 > most:
            yield part
            part, longest = [], len(tokens)
        part.append(tokens)
    yield part


def pad(documents: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Documents of (T,) tokens as a batch: `tokens` (B, greatest T) int64, filled up with 0, and `lengths` (B,)."""
    lengths = np.array([len(tokens) for tokens in documents], dtype=np.int64)
    batch = np.zeros((len(documents), max(map(len, documents))), dtype=np.int64)
    for row, tokens in zip(batch, documents, strict=True):
        row[: len(tokens)] = tokens
    return {"tokens": batch, "lengths": lengths}
