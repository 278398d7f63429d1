"""Arrays that stay in memory-mapped files and may be larger than the memory."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Shards:
    """The rows (N, …) of several tensors on the CPU, one after the other, as if they were one; nothing is copied."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.parts = list(parts)
        self.ends = torch.tensor([len(part) for part in parts]).cumsum(0)
        self.shape = torch.Size([int(self.ends[-1]), *parts[0].shape[1:]])
        self.device = parts[0].device
        self.nbytes = sum(part.nbytes for part in parts)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Tensor) -> Tensor:
        """The rows (*indices.shape, …) of these `indices`."""
        return self.index_select(0, indices.flatten()).reshape(*indices.shape, *self.shape[1:])

    def index_select(self, dimension: int, indices: Tensor) -> Tensor:
        """The rows (B, …) of these `indices` (B,)."""
        assert dimension == 0
        rows = torch.empty((len(indices), *self.shape[1:]), dtype=self.parts[0].dtype)
        for part, local, places in self.found(indices):
            rows.numpy()[places.numpy()] = take(part, local).numpy()
        return rows

    def found(self, indices: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The tensors that have some of the rows `indices` (B,): which of their own, and at which places of B."""
        number = torch.bucketize(indices.contiguous(), self.ends, right=True)
        places = [(number == index).nonzero().squeeze(1) for index in range(len(self.parts))]
        starts = [0, *self.ends.tolist()]
        return [
            (part, indices[chosen] - start, chosen)
            for part, start, chosen in zip(self.parts, starts, places, strict=False)
            if len(chosen)
        ]


def take(array: Any, indices: Tensor) -> Tensor:
    """The rows (B, …) of these `indices` (B,), by this thread alone; all is on the CPU.

    Beside a thread that computes it must not start more: those of torch spin for a while when they have nothing to do.
    """
    if isinstance(array, Tensor):
        return torch.from_numpy(np.take(array.numpy(), indices.numpy(), axis=0))
    rows: Tensor = array.index_select(0, indices)
    return rows


def whole(array: Tensor | Shards, device: torch.device | str) -> Tensor:
    """All rows as one tensor in the memory of `device`; a tensor on the CPU stays there, mapped as it is."""
    if isinstance(array, Tensor):
        return array.to(device)
    rows = torch.empty(array.shape, dtype=array.parts[0].dtype, device=device)
    for part, place in zip(array.parts, rows.tensor_split(array.ends[:-1]), strict=True):
        place.copy_(part)
    return rows


def join(files: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """The arrays of several files strung together; what is large among them stays memory-mapped."""
    if len(files) == 1:
        return files[0]
    parts = {name: [file[name] for file in files] for name in files[0]}
    return {name: _join(name, part) for name, part in parts.items()}


def _join(name: str, parts: list[Tensor]) -> Tensor | Shards:
    if not name.endswith("starts"):
        return Shards(parts) if name in ("images", "tokens", "features", "waveforms") else torch.cat(parts)
    joined = parts[0]  # where each document starts, (N + 1,) with the end of the last
    for starts in parts[1:]:
        joined = torch.cat([joined, starts[1:] + joined[-1]])
    return joined


def read_at_random(array: Any) -> None:
    """Tell the system that rows are read in no order: when one has to be waited for, what is around it is not read too.

    It is advice only, as is `read_ahead`: what is no tensor that is mapped from a file is left alone.
    """
    for part in array.parts if isinstance(array, Shards) else [array]:
        if isinstance(part, Tensor) and len(part):
            _advise("RANDOM", part, torch.tensor([0]), len(part))


def read_ahead(array: Any, first: Tensor, count: Tensor | int = 1) -> None:
    """Have the system read at once, while they are not waited for, the rows from each of `first` (B,) on.

    `count` says how many rows each time, as far as they are in one file. A page fault for each row would read them one
    after the other.
    """
    if isinstance(array, Shards):
        for part, local, places in array.found(first):
            here = count[places] if isinstance(count, Tensor) else count
            read_ahead(part, local, (len(part) - local).clamp(max=here))
    elif isinstance(array, Tensor) and len(first):
        _advise("WILLNEED", array, first, count)


def _advise(advice: str, array: Tensor, first: Tensor, count: Tensor | int) -> None:
    """madvise(2) for the rows from each of `first` (B,) on."""
    number = getattr(mmap, f"MADV_{advice}", None)  # none on Windows
    if number is None:
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    begin = array.data_ptr() + first * array.stride(0) * array.itemsize
    end = begin + count * array.stride(0) * array.itemsize
    page = begin & -mmap.PAGESIZE
    for address, size in zip(page.tolist(), (end - page).tolist(), strict=True):
        madvise(address, size, number)
