"""Sounds: waveforms (B, T) float32 and lengths (B,) int64; the model itself makes log-mel spectrograms of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from torchloom.config import AnswerConfig, Count, DataConfig, Positive, SoundAugmentConfig
from torchloom.data.sound_files import SUFFIXES, library, read_sound
from torchloom.data.spectrograms import FLOOR, band_at, hop_of, log_mel, window_of
from torchloom.modalities.base import Axes, Info, Use
from torchloom.modalities.files import InFiles

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from torchloom.data.batches import Gathered
    from torchloom.training.loaders import LoaderPlan

PICTURE = (48, 96)  # height and width of a spectrogram that is shown
MARKS = (250, 1000, 2000, 4000, 8000, 16_000)  # Hz, at the axis
RANGE = 2.5  # deviations from the mean that are black and white there


class AudioInfo(InFiles, Info):
    """Sounds of one channel at one `rate`, in samples a second.

    `mean` and `std` are of the log-mel spectrograms of the training sounds, in each band. Of sounds of more than
    `seconds` the middle counts.
    """

    kind: Literal["audio"] = "audio"
    rate: Count
    mean: list[float] = Field(min_length=1)
    std: list[float] = Field(min_length=1)
    seconds: Positive = 10.0
    change: SoundAugmentConfig = Field(default_factory=SoundAugmentConfig)

    inputs: ClassVar = ("waveforms", "lengths")
    axes: ClassVar[Axes] = {"waveforms": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    size_names: ClassVar = ("mels",)
    content: ClassVar = "starts"
    tag: ClassVar = "audio"
    unit: ClassVar = "sound"
    samples: ClassVar = "sounds"
    own_keys: ClassVar = frozenset({"data.augment_sound", "data.seconds"})
    body: ClassVar = "a sound as it is in its file"
    suffixes: ClassVar = SUFFIXES
    card: ClassVar = "templates/audio.md"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError("mean and std do not belong together")
        return self

    @property
    def longest(self) -> int:
        """Samples of a sound that count."""
        return max(1, round(self.seconds * self.rate))

    def sizes(self) -> dict[str, Any]:
        return {"mels": len(self.mean)}

    def reads_as(self, other: Info) -> bool:
        return isinstance(other, AudioInfo) and self.rate == other.rate

    def asked(self, data: DataConfig, evaluation: Any) -> Self:
        return self.model_copy(update={"seconds": data.seconds, "change": data.augment_sound})

    def measured(self, loaders: LoaderPlan) -> Self:
        from torchloom.data.sounds import measured

        parts = (loaders.chosen("train", [number]) for number in loaders.trained_numbers().tolist())
        mean, std = measured((waveform[0].numpy() for waveform, *_ in parts), self.rate, len(self.mean))
        return super().measured(loaders).model_copy(update={"mean": mean, "std": std})

    def batches(self, arrays: Mapping[str, Any], use: Use) -> Gathered:
        from torchloom.data.sequences import SoundBatches

        change = use.data.augment_sound if use.training else None
        waveforms, starts, target = arrays["waveforms"], arrays["starts"], arrays[self.counted]
        return SoundBatches(waveforms, starts, target, self.longest, change, use.seed, use.device, use.share)

    def scaled(self, network: nn.Module) -> nn.Module:
        from torchloom.modalities.modules import LogMel

        return LogMel(network, self.rate, self.mean, self.std, self.change)

    def example(self, batch: int, time: int) -> dict[str, Tensor]:
        """Silence, of one second: a `time` of few samples would be one frame."""
        import torch

        samples = max(time, self.rate)
        return {"waveforms": torch.zeros(batch, samples), "lengths": torch.full((batch,), samples)}

    def predictions(self, loaders: LoaderPlan, numbers: Sequence[int], captions: Sequence[tuple[str, bool]]) -> Figure:
        from torchloom.system.figures import colour_of

        waveforms, lengths, *_ = loaders.chosen("test", numbers)
        sounds = [waveform[:length].numpy() for waveform, length in zip(waveforms, lengths.tolist(), strict=True)]
        return self._spectrograms(sounds, [(caption, colour_of(right)) for caption, right in captions])

    def _spectrograms(self, sounds: Sequence[np.ndarray], captions: Sequence[tuple[str, str]]) -> Figure:
        from torchloom.system.figures import spectrograms

        bands = len(self.mean)
        marks = {hertz: band_at(hertz, self.rate, bands) for hertz in MARKS if hertz <= self.rate / 2}
        drawn = [(self.picture(sound), len(sound) / self.rate) for sound in sounds]
        return spectrograms(drawn, bands, marks, captions)

    def picture(self, sound: np.ndarray) -> np.ndarray:
        """The spectrogram of (T,) as grey values (1, H, W) uint8: time to the right, and what is high above."""
        heights = (log_mel(sound, self.rate, len(self.mean)) - self.mean) / self.std  # (F, mels)
        grey = 255 * np.clip((heights.T[::-1] + RANGE) / (2 * RANGE), 0, 1)
        rows, columns = (np.arange(size) * length // size for size, length in zip(PICTURE, grey.shape, strict=True))
        picture: np.ndarray = grey[rows][:, columns].astype(np.uint8)[None]
        return picture

    def columns(self, loaders: LoaderPlan, numbers: Sequence[int]) -> list[dict[str, Any]]:
        return [{"file": name} for name in loaders.texts("test", numbers)]

    def named(self, loaders: LoaderPlan, numbers: Sequence[int]) -> dict[str, list[str]]:
        return {"file": loaders.texts("test", numbers)}

    def facts(self) -> Iterator[tuple[str, Any]]:
        yield "samples a second", f"{self.rate:,}"
        yield "longest sound", f"{self.seconds:g} s"
        yield "bands of frequencies", len(self.mean)

    def described(self) -> dict[str, Any]:
        window, hop = window_of(self.rate), hop_of(self.rate)
        inside = {
            "input": "the mean of all channels, from -1 to 1, resampled to `rate`, of more than `seconds` the middle; "
            "filled up with zeros to the longest of the batch, of `lengths` in samples",
            "inside_the_graph": f"(log(mel filters of the power spectrum + {FLOOR:g}) - mean) / std; Hann windows of "
            f"{window} samples, one every {hop}",
        }
        said = super().described()
        return {**{name: value for name, value in said.items() if name != "change"}, "preprocessing": inside}

    def reader(self, config: AnswerConfig) -> Callable[[IO[bytes]], np.ndarray]:
        library()  # or else it would be missing for each file anew
        return self.read

    def read(self, file: IO[bytes]) -> np.ndarray:
        """The sound in a file as (T,) float32, of which no more than `longest` samples count."""
        sound = read_sound(file, self.rate)
        start = max(0, len(sound) - self.longest) // 2
        return sound[start : start + self.longest]

    def told(self, config: AnswerConfig) -> Self:
        return self.named_from(getattr(config, "folder", None))

    def batch(self, samples: list[np.ndarray]) -> dict[str, np.ndarray]:
        lengths = np.array([len(sound) for sound in samples], dtype=np.int64)
        batch = np.zeros((len(samples), max(map(len, samples))), dtype=np.float32)
        for row, sound in zip(batch, samples, strict=True):
            row[: len(sound)] = sound
        return {"waveforms": batch, "lengths": lengths}

    def sheet(self, shown: list[tuple[str, Any, str]]) -> Figure:
        from torchloom.system.figures import coloured

        return self._spectrograms([sound for _, sound, _ in shown], [coloured(caption) for *_, caption in shown])

    def said(self) -> dict[str, Any]:
        return {"rate": self.rate, "seconds": self.seconds}
