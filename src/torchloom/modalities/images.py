"""Images: (B, C, H, W) uint8, normalised within the model."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from torchloom.config import AnswerConfig, DataConfig, Fit, ValueRange, Views
from torchloom.data.documents import FILE
from torchloom.data.picture_formats import SUFFIXES
from torchloom.data.targets import Classes
from torchloom.modalities.base import Axes, Info, Origin, Use
from torchloom.modalities.files import PicturesInFiles

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from torchloom.data.batches import Gathered
    from torchloom.training.loaders import LoaderPlan

logger = logging.getLogger(__name__)

READING = (
    "made 8 bits a channel by value_range, turned upright, laid on white where transparent, resized bilinearly by fit, "
    "and asked about as views says"
)


class Reading(BaseModel):
    """How a user's picture becomes an image, and how a classifier is asked about it.

    `fit` is for pictures of other proportions. `value_range` is what becomes black and white in pictures of more than 8
    bits a channel; without one 0 and 65,535 do, and those of 32 bits say nothing. `views` are those of evaluate.views.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    fit: Fit = "crop"
    value_range: ValueRange | None = None
    views: Views = "one"


class ImageInfo(PicturesInFiles, Reading, Info):
    """Images; `mean` and `std` per channel, on the scale [0, 1], measured of the training pixels unless `chosen`."""

    kind: Literal["images"] = "images"
    shape: list[int]  # channels, height, width
    mean: list[float]
    std: list[float]
    chosen: bool = False

    inputs: ClassVar = ("images",)
    axes: ClassVar[Axes] = {"images": {0: "batch"}}
    size_names: ClassVar = ("shape",)
    content: ClassVar = "images"
    tag: ClassVar = "image"
    unit: ClassVar = "image"
    samples: ClassVar = "images"
    own_keys: ClassVar = frozenset({"data.augment", "train.whitening", "evaluate.views"})
    body: ClassVar = "a picture as it is in its file"
    suffixes: ClassVar = SUFFIXES
    card: ClassVar = "templates/images.md"

    def sizes(self) -> dict[str, Any]:
        return {"shape": tuple(self.shape)}

    def asked(self, data: DataConfig, evaluation: Any) -> Self:
        return self.model_copy(update={"views": getattr(evaluation, "views", "one")})

    def origin(self) -> Origin:
        return Origin(self.mean, self.std)

    def after(self, origin: Origin) -> Self:
        """Grey pictures get the mean of what the colours have."""
        if origin.size and tuple(self.shape[1:]) != origin.size:
            logger.info(
                "pictures are %dx%d, and the weights were trained on %dx%d; preprocess.size: %s may do better",
                *(*self.shape[1:], *origin.size, list(origin.size)),
            )
        three = self.shape[0] == len(origin.mean)
        mean, std = (list(each) if three else [float(np.mean(each))] for each in (origin.mean, origin.std))
        return self.model_copy(update={"mean": mean, "std": std})

    def measured(self, loaders: LoaderPlan) -> Self:
        from torchloom.data.images import PART, channel_counts, channel_statistics

        if self.chosen:
            return super().measured(loaders)
        numbers = loaders.trained_numbers().tolist()
        parts = (loaders.chosen("train", numbers[start : start + PART])[0] for start in range(0, len(numbers), PART))
        counts = sum(channel_counts(images.numpy().transpose(0, 2, 3, 1)) for images in parts)
        mean, std = channel_statistics(np.asarray(counts))
        return super().measured(loaders).model_copy(update={"mean": mean.tolist(), "std": std.tolist()})

    def opened(self, arrays: Mapping[str, Any], account: Mapping[str, Any]) -> Mapping[str, Any]:
        """Pictures whose pixels are not kept are the one thing that is no tensor."""
        if not account:
            return arrays
        from torchloom.data.image_files import ImageFiles

        return {
            "images": ImageFiles(arrays, account),
            **{name: arrays[name] for name in arrays if name in {self.counted, "groups", "order"} or FILE in name},
        }

    def batches(self, arrays: Mapping[str, Any], use: Use) -> Gathered:
        from torchloom.data.batches import ImageBatches

        change = use.data.augment if use.training else None
        classes = len(self.target.classes) if isinstance(self.target, Classes) else None
        return ImageBatches(
            arrays["images"], arrays[self.counted], change, use.seed, classes, self.mean, use.device, use.share
        )

    def scaled(self, network: nn.Module) -> nn.Module:
        from torchloom.modalities.modules import NormalizedImages

        return NormalizedImages(network, self.mean, self.std)

    def viewed(self, model: nn.Module) -> nn.Module:
        from torchloom.modalities.modules import Views

        return model if self.views == "one" else Views(model, self.views)

    def example(self, batch: int, time: int) -> dict[str, Tensor]:
        import torch

        return {"images": torch.zeros(batch, *self.shape, dtype=torch.uint8)}

    def predictions(self, loaders: LoaderPlan, numbers: Sequence[int], captions: Sequence[tuple[str, bool]]) -> Figure:
        from torchloom.system import figures

        return figures.prediction_grid(loaders.chosen("test", numbers)[0], captions)

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "channels, height, width", " x ".join(map(str, self.shape))
        if self.chosen:
            scales = (" ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
            yield "mean and deviation of the channels, as chosen", " and ".join(scales)

    def described(self) -> dict[str, Any]:
        inside = {"pictures": READING, "input": "uint8, 0 to 255", "inside_the_graph": "(x / 255 - mean) / std"}
        return {**super().described(), "preprocessing": inside}

    def told(self, config: AnswerConfig) -> Self:
        trained = self.model_dump(include=set(Reading.model_fields)) | {"invert": False}
        otherwise = {key: value for key in trained if (value := getattr(config, key)) not in (None, trained[key])}
        if otherwise:
            lines = [
                f"{key} {json.dumps(value)} instead of {json.dumps(trained[key])}" for key, value in otherwise.items()
            ]
            logger.info("pictures are not put to the model as those of its test were: %s", ", ".join(lines))
        asked = self.model_copy(update={key: value for key, value in otherwise.items() if key != "invert"})
        return asked.named_from(getattr(config, "folder", None))

    def shapes(self) -> dict[str, list[int]]:
        return {"images": self.shape}

    def reader(self, config: AnswerConfig) -> Callable[[Any], np.ndarray]:
        from torchloom.data.arrays import decoded
        from torchloom.data.pictures import decode_image

        channels, height, width = self.shape
        decode = partial(
            decode_image,
            shape=(channels, height, width),
            invert=config.invert,
            fit=self.fit,
            value_range=self.value_range,
        )
        return partial(decoded, decode)

    def batch(self, samples: list[np.ndarray]) -> dict[str, np.ndarray]:
        return {"images": np.stack(samples)}

    def in_views(self, inputs: dict[str, np.ndarray]) -> Iterator[tuple[float, dict[str, np.ndarray]]]:
        yield from ((share, {"images": view}) for share, view in views_of(inputs["images"], self.views))

    def sheet(self, shown: list[tuple[str, Any, str]]) -> Figure:
        from torchloom.system.figures import contact_sheet

        return contact_sheet([image for _, image, _ in shown], [caption for *_, caption in shown])

    def said(self) -> dict[str, Any]:
        return {"shape": self.shape, **self.model_dump(mode="json", include=set(Reading.model_fields))}


def views_of(images: np.ndarray, which: Views) -> Iterator[tuple[float, np.ndarray]]:
    """The views of (B, C, H, W) images with their weights, as modules.Views has them."""
    if which == "one":
        yield 1.0, images
        return
    shifted = []
    if which == "mirror_and_shift":
        height, width = images.shape[2:]
        bordered = np.pad(images, [(0, 0), (0, 0), (1, 1), (1, 1)], mode="reflect")
        shifted = [(1 / 8, bordered[:, :, place : place + height, place : place + width]) for place in (0, 2)]
    for share, view in [(1 / 4 if shifted else 1 / 2, images), *shifted]:
        yield share, np.ascontiguousarray(view)
        yield share, np.ascontiguousarray(view[..., ::-1])
