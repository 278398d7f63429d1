"""What stands around a network as a part of the model, so that training, evaluation and exports cannot differ in it."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from torchloom.data.augment import reflect


class Scaling(nn.Module):
    """A `network` behind the scaling of what goes in, or before that of what comes out; the buffers belong to the data,
    and are not taken over when the weights go on to others."""

    network: nn.Module


class NormalizedImages(Scaling):
    """uint8 images (B, C, H, W) -> what the network makes of (pixel / 255 - mean) / std per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", _per_channel(mean) * 255)
        self.register_buffer("std", _per_channel(std) * 255)

    def forward(self, images: Tensor) -> Any:
        return self.network(self.normalize(images))

    def normalize(self, images: Tensor) -> Tensor:
        """As it says, and quickly: row by row as they lie in memory, in place, without temporaries of their size."""
        if torch.compiler.is_compiling():  # fused there; and a simple graph in exports
            return (images.float() - self.mean) / self.std
        count, channels, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).flatten(2).to(torch.float32, copy=True)  # (B, H, W C)
        scale = (1 / self.std).flatten()
        rows.mul_(scale.repeat(width)).sub_((self.mean.flatten() * scale).repeat(width))
        return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


def _per_channel(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1)


class StandardizedTable(Scaling):
    """Features (B, F) float32 in their own units -> what the network makes of them with mean 0 and deviation 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, features: Tensor) -> Any:
        return self.network((features - self.mean) / self.std)


class StandardizedSeries(Scaling):
    """Windows (B, window, columns) float32 in their own units, and what is known of the steps in them and ahead
    (B, window + horizon, K), if anything is -> what the network makes of both with mean 0 and deviation 1.

    Each of the `scales` is a mean and a standard deviation for each column.
    """

    def __init__(self, network: nn.Module, *scales: tuple[list[float], list[float]]) -> None:
        super().__init__()
        self.network = network
        for number, (mean, std) in enumerate(scales):
            self.register_buffer(f"mean{number}", torch.tensor(mean, dtype=torch.float32))
            self.register_buffer(f"std{number}", torch.tensor(std, dtype=torch.float32))

    def forward(self, *inputs: Tensor) -> Any:
        scales = [(getattr(self, f"mean{number}"), getattr(self, f"std{number}")) for number in range(len(inputs))]
        return self.network(*((x - mean) / std for x, (mean, std) in zip(inputs, scales, strict=True)))


class EncodedTable(Scaling):
    """Features (B, F) float32 of a table with words and gaps -> what the network makes of them as vectors (B, W).

    A number becomes one entry for each of its bins, between two neighbours of its `bins`: 0 below the bin, 1 above it,
    and between them as far as it has come, so that what is linear in the entries is linear between the edges; in the
    first and last bin one width further, and no more (Gorishniy et al. 2022, arXiv:2203.05556: piecewise-linear). A gap
    has only zeros. Then, for the features that are in `gaps`, 1 where there is one. Then of each of the `categories` of
    the other features 1 where it is that one; the first of them is that of what is new, or a gap.
    """

    gaps: Tensor
    bin_of: Tensor
    start: Tensor
    width: Tensor
    least: Tensor
    greatest: Tensor
    category_of: Tensor
    category: Tensor

    def __init__(self, network: nn.Module, bins: list[list[float]], categories: list[int], gaps: list[int]) -> None:
        super().__init__()
        self.network = network
        edges = [torch.tensor(each, dtype=torch.float64) for each in bins]
        counts = torch.tensor([max(len(each) - 1, 0) for each in edges])
        ends = counts.cumsum(0)
        last = torch.zeros(int(counts.sum()), dtype=torch.bool)
        last[ends[counts > 0] - 1] = True
        first = last.roll(1)  # what follows the last of a feature, or of all, is the first of one
        self.register_buffer("gaps", torch.tensor(gaps, dtype=torch.int64))
        self.register_buffer("bin_of", torch.arange(len(bins)).repeat_interleave(counts))
        self.register_buffer("start", _joined([each[:-1] for each in edges]))
        self.register_buffer("width", _joined([each.diff() for each in edges]))
        self.register_buffer("least", torch.where(first, -1.0, 0.0))
        self.register_buffer("greatest", torch.where(last, 2.0, 1.0))
        self.register_buffer("category_of", torch.arange(len(bins)).repeat_interleave(torch.tensor(categories)))
        self.register_buffer("category", _joined([torch.arange(count, dtype=torch.float64) for count in categories]))

    def forward(self, features: Tensor) -> Any:
        return self.network(self.vectors(features))

    def vectors(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, W) float32."""
        place = (features.index_select(1, self.bin_of) - self.start) / self.width
        place = torch.minimum(torch.maximum(place, self.least), self.greatest)
        place = torch.where(place.isnan(), torch.zeros_like(place), place)
        missing = features.index_select(1, self.gaps).isnan().float()
        given = features.index_select(1, self.category_of)
        given = torch.where(given.isnan(), torch.zeros_like(given), given)
        return torch.cat([place, missing, (given == self.category).float()], 1)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts).float()


class Views(nn.Module):
    """Test-time augmentation: a classifier's mean logits over several views of each image (B, C, H, W).

    `mirror` adds the mirror image; `mirror_and_shift` gives half of the weight to these two, and the other half to both
    shifted by one pixel up and left, and down and right, over a reflected border (Jordan 2024, arXiv:2404.00498).
    """

    def __init__(self, model: nn.Module, views: Literal["mirror", "mirror_and_shift"]) -> None:
        super().__init__()
        self.model, self.views = model, views

    def forward(self, images: Tensor) -> Tensor:
        logits = self.with_mirror(images)
        if self.views == "mirror":
            return logits
        height, width = images.shape[2:]
        bordered = reflect(images.permute(0, 2, 3, 1), 1).permute(0, 3, 1, 2)
        shifted = [self.with_mirror(bordered[:, :, i : i + height, i : i + width]) for i in (0, 2)]
        return logits / 2 + (shifted[0] + shifted[1]) / 4

    def with_mirror(self, images: Tensor) -> Tensor:
        mean: Tensor = (self.model(images).float() + self.model(images.flip(3)).float()) / 2
        return mean
