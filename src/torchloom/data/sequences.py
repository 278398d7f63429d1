"""Batches of rows, documents, sounds and windows of a text or a series, by index and without per-sample Python."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchloom.config import SoundAugmentConfig
from torchloom.data.augment_sound import change_sounds
from torchloom.data.batches import Gathered, seeded
from torchloom.data.mapped import Shards, read_ahead, take
from torchloom.errors import InputError
from torchloom.system.words import counted


class TableBatches(Gathered):
    """`self[indices]` is a batch: features (B, F) float32 and targets (B,).

    Of the `hidden` features, which are numbers of categories, one in 200 becomes that of a new category, 0: a network
    learns what to make of one. Each `share` (number, count) has draws of its own.
    """

    RATE = 0.005

    def __init__(
        self,
        features: Tensor | Shards,
        target: Tensor,
        device: torch.device | None = None,
        hidden: Sequence[int] = (),
        seed: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        super().__init__(target.device, device)
        self.features, self.target, self.seed, self.share = features, target, seed, share
        self.hidden = torch.tensor(hidden, dtype=torch.int64, device=self.device)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        if len(self.hidden):
            number, count = self.share
            self.generators = [seeded(self.seed + 1, epoch * count + number, self.device)]

    def __len__(self) -> int:
        return len(self.target)

    def gather(self, indices: Tensor) -> tuple[Tensor, ...]:
        indices = indices.to(self.target.device)
        return self.rows(self.features, indices), self.target[indices]

    def change_batch(self, *parts: Tensor) -> tuple[Tensor, ...]:
        features, target = parts
        if len(self.hidden):
            draws = torch.rand((len(features), len(self.hidden)), generator=self.generators[0], device=self.device)
            given = features.index_select(1, self.hidden)
            features = features.index_copy(1, self.hidden, torch.where(draws < self.RATE, 0.0, given))
        return features, target


class DocumentBatches(Gathered):
    """`self[indices]` is a batch: tokens (B, T) int64, lengths (B,) int64 and labels (B,) int64.

    T is the length of the batch's longest document; shorter ones are filled up with zeros. Of documents with more than
    `max_tokens` the last ones are kept, where a review comes to its verdict, and the `opening` ones, if there are such.
    The lengths stay on the CPU, where packing wants them.
    """

    indexed_on_host = True  # as the lengths
    stays = frozenset({1})

    def __init__(
        self,
        tokens: Tensor | Shards,
        starts: Tensor,
        labels: Tensor,
        max_tokens: int | None,
        device: torch.device | None = None,
        opening: int = 0,
    ) -> None:
        super().__init__(tokens.device, device)
        self.tokens, self.labels = tokens, labels
        begins, ends = starts[:-1].cpu(), starts[1:].cpu()
        self.lengths = torch.diff(starts.cpu()).clamp(min=0, max=max_tokens)
        self.starts = ends - self.lengths
        self.begins = begins
        self.opening = min(opening, max_tokens) if max_tokens else 0  # without a limit no document is cut

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, indices: Tensor) -> tuple[Tensor, ...]:
        lengths = self.lengths[indices]
        tokens = self.stretches(self.tokens, self.starts[indices], lengths)
        if self.opening:
            tokens = self._opened(tokens, indices, lengths)
        return tokens, lengths, self.labels[indices.to(self.labels.device)]

    def _opened(self, tokens: Tensor, indices: Tensor, lengths: Tensor) -> Tensor:
        """With the first tokens of each document in the place of those that came to stand there."""
        first = self.stretches(self.tokens, self.begins[indices], lengths.clamp(max=self.opening))
        return torch.cat([first, tokens[:, first.shape[1] :]], 1)

    def change_batch(self, *parts: Tensor) -> tuple[Tensor, ...]:
        tokens, lengths, labels = parts
        return tokens.long(), lengths, labels


class SoundBatches(Gathered):
    """`self[indices]` is a batch: waveforms (B, T) float32, lengths (B,) int64 and what is to be told of each (B,).

    T is the length of the batch's longest sound; shorter ones are filled up with zeros. Of those of more than `longest`
    samples the middle is kept; with `change`, for training, a part of so many that is drawn for each epoch anew, and
    they are changed as it says. Each `share` (number, count) has random changes of its own.
    """

    indexed_on_host = True
    WHOLE = 1 << 20  # samples of a batch that is not trained on: spectrograms, and what becomes of them, take more room

    def __init__(
        self,
        waveforms: Tensor | Shards,
        starts: Tensor,
        target: Tensor,
        longest: int,
        change: SoundAugmentConfig | None = None,
        seed: int = 0,
        device: torch.device | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        super().__init__(waveforms.device, device)
        self.waveforms, self.target, self.change, self.seed, self.share = waveforms, target, change, seed, share
        starts = starts.cpu()
        self.first, whole = starts[:-1], torch.diff(starts)
        self.lengths, self.room = whole.clamp(max=longest), (whole - longest).clamp(min=0)
        self.most = max(1, self.WHOLE // max([1, *self.lengths.tolist()]))
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        if self.change is None:
            self.starts = self.first + self.room // 2
            return
        drawn = torch.rand(len(self.room), generator=seeded(self.seed + 3, epoch), dtype=torch.float64)
        self.starts = self.first + (drawn * (self.room + 1)).long()
        number, count = self.share
        self.generators = [seeded(self.seed + 1, epoch * count + number, self.device)]

    def __len__(self) -> int:
        return len(self.target)

    def gather(self, indices: Tensor) -> tuple[Tensor, ...]:
        lengths = self.lengths[indices]
        waveforms = self.stretches(self.waveforms, self.starts[indices], lengths)
        return waveforms, lengths, self.target[indices.to(self.target.device)]

    def change_batch(self, *parts: Tensor) -> tuple[Tensor, ...]:
        waveforms, lengths, target = parts
        if self.change is not None:
            waveforms, lengths = change_sounds(waveforms, lengths, self.change, self.generators[0])
        return waveforms, lengths, target


class TextWindows(Gathered):
    """`self[indices]` is a batch: tokens (B, T) int64 and the token that follows each (B, T) int64.

    The windows lie end to end. In training their common start is drawn anew for each epoch.
    """

    def __init__(
        self,
        tokens: Tensor | Shards,
        window: int,
        shift_seed: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(tokens.device, device)
        if 0 < len(tokens) <= window:
            raise InputError(f"data.window {window}: a split of the text has only {counted(len(tokens), 'character')}")
        self.tokens, self.window, self.seed = tokens, window, shift_seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.shift = 0
        if self.seed is not None:
            room = len(self.tokens) - 1 - len(self) * self.window
            self.shift = int(torch.randint(room + 1, (), generator=seeded(self.seed + 1, epoch)))

    def __len__(self) -> int:
        """In training one window less than there is room for, where there are several, so that they can shift."""
        whole = max(len(self.tokens) - 1, 0) // self.window
        return whole - 1 if self.seed is not None and whole > 1 else whole

    def gather(self, indices: Tensor) -> tuple[Tensor, ...]:
        starts = self.shift + indices.to(self.tokens.device) * self.window
        if self.streamed:
            read_ahead(self.tokens, starts, self.window + 1)
        return (self.tokens[starts[:, None] + torch.arange(self.window + 1, device=starts.device)],)  # (B, T + 1)

    def change_batch(self, *parts: Tensor) -> tuple[Tensor, ...]:
        tokens = parts[0].long()
        return tokens[:, :-1], tokens[:, 1:]


class SeriesWindows(Gathered):
    """`self[indices]` is a batch: windows (B, window, columns) float32, what is known of their steps and of those ahead
    (B, window + horizon, K) float32, if anything is, and what follows them in the first `targets` columns
    (B, horizon, targets) float32.

    `series` (T, columns) and `known` (T, K) are kept once: a window is gathered by the row that it begins at, of
    `starts` (N,). What was never measured, as `filled` (T, columns) uint8 says, is NaN in what follows.
    """

    def __init__(
        self,
        series: Tensor,
        starts: Tensor,
        window: int,
        horizon: int,
        targets: int,
        known: Tensor | None = None,
        filled: Tensor | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(series.device, device)
        self.series, self.known, self.filled, self.starts = series, known, filled, starts
        self.window, self.targets = window, targets
        self.places = torch.arange(window + horizon, device=series.device)

    def __len__(self) -> int:
        return len(self.starts)

    def gather(self, indices: Tensor) -> tuple[Tensor, ...]:
        rows = self.starts[indices.to(self.starts.device)][:, None] + self.places  # (B, window + horizon)
        arrays = (self.series, self.known, self.filled)
        return tuple(self.steps(array, rows) for array in arrays if array is not None)

    def steps(self, array: Tensor, rows: Tensor) -> Tensor:
        if self.streamed:
            read_ahead(array, rows[:, 0], len(self.places))
            return take(array, rows.flatten()).reshape(*rows.shape, -1)
        return array.index_select(0, rows.flatten()).reshape(*rows.shape, -1)

    def change_batch(self, *parts: Tensor) -> tuple[Tensor, ...]:
        series, *more = parts
        ahead = series[:, self.window :, : self.targets]
        if self.filled is not None:
            *more, filled = more
            ahead = ahead.masked_fill(filled[:, self.window :, : self.targets] > 0, torch.nan)
        return series[:, : self.window], *more, ahead
