"""Batches of rows, documents and windows of a text, by index and without per-sample Python."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from torchloom.data.batches import seeded
from torchloom.errors import InputError


class TableBatches(Dataset[tuple[Tensor, ...]]):
    """`self[indices]` is a batch: features (B, F) float32 and targets (B,) float32."""

    def __init__(self, features: Tensor, target: Tensor) -> None:
        self.features, self.target = features, target

    def set_epoch(self, epoch: int) -> None:
        pass

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, ...]:
        indices = indices.to(self.target.device)
        return self.features[indices], self.target[indices]


class DocumentBatches(Dataset[tuple[Tensor, ...]]):
    """`self[indices]` is a batch: tokens (B, T) int64, lengths (B,) int64 and labels (B,) int64.

    T is the length of the batch's longest document; shorter ones are filled up with zeros. Of documents with more than
    `max_tokens` the last ones are kept, where a review comes to its verdict. The lengths stay on the CPU, where packing
    wants them.
    """

    def __init__(self, tokens: Tensor, starts: Tensor, labels: Tensor, max_tokens: int | None) -> None:
        self.tokens, self.labels = tokens, labels
        ends = starts[1:].cpu()
        self.lengths = torch.diff(starts.cpu()).clamp(min=0, max=max_tokens)
        self.starts = ends - self.lengths

    def set_epoch(self, epoch: int) -> None:
        pass

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, ...]:
        lengths = self.lengths[indices]
        place = torch.arange(int(lengths.max()))  # (T,)
        inside = place < lengths[:, None]  # (B, T)
        chosen = torch.where(inside, self.starts[indices][:, None] + place, 0).to(self.tokens.device)
        tokens = torch.where(inside.to(self.tokens.device), self.tokens[chosen], 0)
        return tokens.long(), lengths, self.labels[indices.to(self.labels.device)]


class TextWindows(Dataset[tuple[Tensor, ...]]):
    """`self[indices]` is a batch: tokens (B, T) int64 and the token that follows each (B, T) int64.

    The windows lie end to end. In training their common start is drawn anew for each epoch.
    """

    def __init__(self, tokens: Tensor, window: int, shift_seed: int | None = None) -> None:
        if 0 < len(tokens) <= window:
            raise InputError(f"data.window {window}: a split of the text has only {len(tokens)} characters")
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

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, ...]:
        indices = indices.to(self.tokens.device)
        place = self.shift + indices[:, None] * self.window + torch.arange(self.window + 1, device=indices.device)
        tokens = self.tokens[place].long()  # (B, T + 1)
        return tokens[:, :-1], tokens[:, 1:]
