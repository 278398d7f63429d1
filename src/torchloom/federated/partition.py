"""Which client of a federation has which samples: every sample belongs to exactly one."""

from __future__ import annotations

import numpy as np

from torchloom.config import PartitionConfig
from torchloom.errors import InputError


def partition(labels: np.ndarray, classes: int, config: PartitionConfig) -> list[np.ndarray]:
    """For each client the places (n,) int64 in `labels` (N,) of its samples, ascending; sizes differ by one at most.

    InputError when there are fewer samples than clients.
    """
    if len(labels) < config.clients:
        raise InputError(
            f"partition.clients {config.clients}: more than training samples, of which there are {len(labels)}"
        )
    generator = np.random.default_rng(config.seed)
    sizes = [len(part) for part in np.array_split(labels, config.clients)]
    if config.name == "iid":
        shards = np.split(generator.permutation(len(labels)), np.cumsum(sizes)[:-1])
    else:
        assert config.alpha is not None
        shards = dirichlet(labels, classes, sizes, config.alpha, generator)
    return [np.sort(shard) for shard in shards]


def dirichlet(
    labels: np.ndarray, classes: int, sizes: list[int], alpha: float, generator: np.random.Generator
) -> list[np.ndarray]:
    """Clients of `sizes` whose shares of the classes are draws from Dir(alpha * p), where p are the shares of all.

    Hsu, Qi, Brown, "Measuring the effects of non-identical data distribution for federated visual classification", 2019
    (arXiv:1909.06335). A client that would take more of a class than is left takes the rest of its samples from the
    other classes, in its own proportions; so the last clients have what the others left over.
    """
    places = [generator.permutation(np.flatnonzero(labels == index)) for index in range(classes)]
    left = np.array([len(part) for part in places])
    present = left > 0
    concentration = alpha * left[present] / left.sum()
    shards = []
    for size in sizes:
        wanted = np.zeros(classes)
        wanted[present] = generator.dirichlet(concentration)
        taken = _draw(size, wanted, left, generator)
        parts = [part[rest - count : rest] for part, rest, count in zip(places, left, taken, strict=True)]
        shards.append(np.concatenate(parts))
        left = left - taken
    return shards


def _draw(size: int, shares: np.ndarray, left: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """How many samples of each class (C,) a client takes, `size` in all and of no class more than there are left."""
    taken = np.zeros_like(left)
    while (missing := size - int(taken.sum())) > 0:
        room = left - taken
        possible = np.where(room > 0, shares, 0.0)
        if possible.sum() < 1e-12:  # it wants nothing of what there is
            possible = room.astype(float)
        taken += np.minimum(generator.multinomial(missing, possible / possible.sum()), room)
    return taken


def class_counts(labels: np.ndarray, shards: list[np.ndarray], classes: int) -> np.ndarray:
    """Samples (clients, C) of each class."""
    return np.stack([np.bincount(labels[shard], minlength=classes) for shard in shards])


def skew(counts: np.ndarray) -> float:
    """How far the clients' shares of classes lie from those of all, by counts (clients, C).

    The mean total variation distance: 0 when all are alike, towards 1 when each client has a class of its own.
    """
    together = counts.sum(0) / counts.sum()
    shares = counts / counts.sum(1, keepdims=True)
    return float(np.abs(shares - together).sum(1).mean() / 2)
