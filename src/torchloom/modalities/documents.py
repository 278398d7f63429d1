"""Documents: texts of any length as words, tokens (B, T) int64 and lengths (B,) int64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torchloom.config import DataConfig
from torchloom.data.text import Tokenizer
from torchloom.modalities.base import Axes, Info, LabelledInfo

if TYPE_CHECKING:
    from typing import Self

    import torch
    from matplotlib.figure import Figure
    from torch import Tensor

    from torchloom.data.batches import Gathered
    from torchloom.data.loaders import LoaderPlan


class DocumentInfo(LabelledInfo):
    """Labelled texts of any length, as words."""

    kind: Literal["documents"] = "documents"
    tokenizer: Tokenizer
    max_tokens: int | None = None  # of longer ones so many of the last, where a review comes to its verdict

    inputs: ClassVar = ("tokens", "lengths")
    axes: ClassVar[Axes] = {"tokens": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    counted: ClassVar = "labels"
    unit: ClassVar = "document"
    samples: ClassVar = "documents"
    own_keys: ClassVar = frozenset({"data.max_tokens"})

    def sizes(self) -> dict[str, Any]:
        return {"tokens": len(self.tokenizer.vocabulary), "classes": len(self.classes)}

    def meanings(self) -> dict[str, Any]:
        return {**super().meanings(), "tokens": self.tokenizer}

    def reads_as(self, other: Info) -> bool:
        return isinstance(other, DocumentInfo) and self.tokenizer == other.tokenizer

    def asked(self, data: DataConfig, evaluation: Any) -> Self:  # noqa: ARG002
        return self.model_copy(update={"max_tokens": data.max_tokens})

    def batches(
        self,
        arrays: Mapping[str, Any],
        data: DataConfig,
        seed: int,  # noqa: ARG002
        training: bool,  # noqa: ARG002
        device: torch.device,
        share: tuple[int, int],  # noqa: ARG002
    ) -> Gathered:
        from torchloom.data.sequences import DocumentBatches

        return DocumentBatches(arrays["tokens"], arrays["starts"], arrays["labels"], data.max_tokens, device)

    def example(self, batch: int, time: int) -> dict[str, Tensor]:
        import torch

        return {"tokens": torch.ones(batch, time, dtype=torch.int64), "lengths": torch.full((batch,), time)}

    def predictions(self, loaders: LoaderPlan, numbers: Sequence[int], *answers: Any) -> Figure:
        from torchloom import figures

        return figures.text_predictions(loaders.texts("test", numbers), *answers)

    def columns(self, loaders: LoaderPlan, numbers: Sequence[int]) -> list[dict[str, Any]]:
        return [{"text": text} for text in loaders.texts("test", numbers)]

    def described(self) -> dict[str, Any]:
        reading = {"input": "the tokens of a text; of more than max_tokens the last ones"}
        return {**super().described(), "preprocessing": reading}
