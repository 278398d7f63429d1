"""What stands around a network as a part of the model, so that training, evaluation and exports cannot differ in it."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from torchloom.config import SoundAugmentConfig
from torchloom.data.augment import reflect
from torchloom.data.spectrograms import FLOOR, fourier_kernels, hop_of, mel_filters, window_of


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

    def forward(self, images: Tensor, labels: Tensor | None = None, **asked: Any) -> Any:
        """A `conditional` network takes the classes (B,), too."""
        known = (labels,) if labels is not None and getattr(self.network, "conditional", False) else ()
        return self.network(self.normalize(images), *known, **asked)

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


class LogMel(Scaling):
    """Waveforms (B, T) float32 and their lengths (B,) int64 -> what the network makes of their log-mel spectrograms.

    These are (B, mels, F) float32 with mean 0 and deviation 1 in each band, 0 from the end of a sound on, and (B,)
    int64 how many frames each has; as data/spectrograms.py makes them, in float32 whatever the network computes in. In
    training, stretches of time and of frequencies become 0 by `change` (SpecAugment: Park et al. 2019,
    arXiv:1904.08779).
    """

    kernels: Tensor
    filters: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, rate: int, mean: list[float], std: list[float], change: SoundAugmentConfig
    ) -> None:
        super().__init__()
        self.network, self.change = network, change
        self.window, self.hop = window_of(rate), hop_of(rate)
        kernels, filters = fourier_kernels(self.window), mel_filters(rate, self.window, len(mean))
        self.register_buffer("kernels", torch.from_numpy(kernels).unsqueeze(1), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).unsqueeze(1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).unsqueeze(1))

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Any:
        return self.network(*self.spectrograms(waveforms, lengths))

    def spectrograms(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(waveforms.device.type, enabled=False):
            place = torch.arange(waveforms.shape[1], device=waveforms.device)
            sounds = waveforms * (place < lengths.unsqueeze(1))
            sounds = nn.functional.pad(sounds, (0, self.window)).unsqueeze(1)
            real, imaginary = nn.functional.conv1d(sounds, self.kernels, stride=self.hop).chunk(2, 1)
            power = self.filters @ (real.square() + imaginary.square())
            scaled = ((power + FLOOR).log() - self.mean) / self.std  # (B, mels, F)
        frames = 1 + ((lengths - self.window).clamp(min=0) + self.hop - 1) // self.hop
        shown = torch.arange(scaled.shape[2], device=scaled.device) < frames.unsqueeze(1)
        if self.training:
            bands = torch.full_like(frames, scaled.shape[1])
            shown = shown & uncovered(frames, scaled.shape[2], self.change.time_masks, self.change.time_mask)
            heard = uncovered(bands, scaled.shape[1], self.change.frequency_masks, self.change.frequency_mask)
            scaled = scaled * heard.unsqueeze(2)
        return scaled * shown.unsqueeze(1), frames


def uncovered(lengths: Tensor, longest: int, count: int, share: float) -> Tensor:
    """Where each of B sounds keeps what it is, (B, longest): all but `count` stretches, each of at most that share of
    its length (B,), drawn by torch's own generator, as dropout is."""
    place = torch.arange(longest, device=lengths.device)
    kept = torch.ones(len(lengths), longest, dtype=torch.bool, device=lengths.device)
    for _ in range(count):
        width, start = torch.rand(2, len(lengths), 1, device=lengths.device)
        width = (width * (share * lengths.unsqueeze(1) + 1)).floor()
        start = (start * (lengths.unsqueeze(1) - width + 1)).floor()
        kept = kept & ((place < start) | (place >= start + width))
    return kept


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
