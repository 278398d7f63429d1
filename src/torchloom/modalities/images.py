"""Images: (B, C, H, W) uint8, normalised within the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from torchloom.config import DataConfig, Fit, ValueRange, Views
from torchloom.modalities.base import Axes, LabelledInfo

if TYPE_CHECKING:
    from typing import Self

    import torch
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from torchloom.data.batches import Gathered
    from torchloom.data.loaders import LoaderPlan

READING = (
    "made 8 bits a channel by value_range, turned upright, laid on white where transparent, resized bilinearly by fit, "
    "and asked about as views says"
)


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
    axes: ClassVar[Axes] = {"images": {0: "batch"}}
    counted: ClassVar = "labels"
    unit: ClassVar = "image"
    samples: ClassVar = "images"
    own_keys: ClassVar = frozenset({"data.augment", "train.whitening", "evaluate.views"})

    def sizes(self) -> dict[str, Any]:
        return {"shape": tuple(self.shape), "classes": len(self.classes)}

    def asked(self, data: DataConfig, evaluation: Any) -> Self:  # noqa: ARG002
        return self.model_copy(update={"views": getattr(evaluation, "views", "one")})

    def batches(
        self,
        arrays: Mapping[str, Any],
        data: DataConfig,
        seed: int,
        training: bool,
        device: torch.device,
        share: tuple[int, int],
    ) -> Gathered:
        from torchloom.data.batches import ImageBatches

        change = data.augment if training else None
        classes = len(self.classes)
        return ImageBatches(arrays["images"], arrays["labels"], change, seed, classes, self.mean, device, share)

    def scaled(self, network: nn.Module) -> nn.Module:
        from torchloom.modalities.scaling import NormalizedImages

        return NormalizedImages(network, self.mean, self.std)

    def example(self, batch: int, time: int) -> dict[str, Tensor]:  # noqa: ARG002
        import torch

        return {"images": torch.zeros(batch, *self.shape, dtype=torch.uint8)}

    def described(self) -> dict[str, Any]:
        known = self.model_dump(mode="json", exclude={"kind", "shape", "mean", "std"})
        inside = {"input": "uint8, 0 to 255", "inside_the_graph": "(x / 255 - mean) / std"}
        return {**known, "preprocessing": {"pictures": READING, **inside, "mean": self.mean, "std": self.std}}

    def predictions(self, loaders: LoaderPlan, numbers: Sequence[int], *answers: Any) -> Figure:
        from torchloom import figures

        return figures.prediction_grid(loaders.chosen("test", numbers)[0], *answers)

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "channels, height, width", " x ".join(map(str, self.shape))
        yield from super().facts()
