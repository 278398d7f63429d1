"""Tables: rows of numbers (B, F) float32, standardised within the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torchloom.config import DataConfig
from torchloom.modalities.base import Axes, Info

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from torchloom.data.batches import Gathered


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
    axes: ClassVar[Axes] = {"features": {0: "batch"}}
    counted: ClassVar = "target"
    unit: ClassVar = "row"

    def sizes(self) -> dict[str, Any]:
        return {"features": len(self.features)}

    def batches(
        self,
        arrays: Mapping[str, Any],
        data: DataConfig,  # noqa: ARG002
        seed: int,  # noqa: ARG002
        training: bool,  # noqa: ARG002
        device: torch.device,
        share: tuple[int, int],  # noqa: ARG002
    ) -> Gathered:
        from torchloom.data.sequences import TableBatches

        return TableBatches(arrays["features"], arrays["target"], device)

    def scaled(self, network: nn.Module) -> nn.Module:
        from torchloom.modalities.scaling import StandardizedTable

        return StandardizedTable(network, self.mean, self.std, self.target_mean, self.target_std)

    def example(self, batch: int, time: int) -> dict[str, Tensor]:  # noqa: ARG002
        import torch

        return {"features": torch.tensor([self.mean] * batch)}

    def described(self) -> dict[str, Any]:
        known = self.model_dump(mode="json", exclude={"kind", "mean", "std"})
        inside = {"input": "the features in their own units", "inside_the_graph": "(x - mean) / std"}
        return {**known, "preprocessing": {**inside, "mean": self.mean, "std": self.std}}

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "target", self.target
        yield "features", ", ".join(self.features)
