"""Reading ahead: threads read the next samples of many files while a model looks at some."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

from torchloom.errors import InputError
from torchloom.modalities.files import Sample

AHEAD = 2  # batches that are read while one is worked on


class Batch(NamedTuple):
    """Samples that could be read, by name, and the names of the others with the reasons."""

    names: list[str]
    values: list[Any]
    failures: list[tuple[str, str]]


def read_ahead(samples: Iterable[Sample], size: int) -> Iterator[Batch]:
    """Batches of `size` samples in their order; threads read the next ones meanwhile."""
    left = iter(samples)
    waiting: deque[list[tuple[str, Future[Any]]]] = deque()
    with ThreadPoolExecutor() as pool:
        while True:
            batch = [(name, pool.submit(read)) for name, read in islice(left, size)]
            if batch:
                waiting.append(batch)
            if not waiting:
                return
            if len(waiting) > AHEAD or not batch:
                yield _settled(waiting.popleft())


def _settled(waiting: list[tuple[str, Future[Any]]]) -> Batch:
    batch = Batch([], [], [])
    for name, future in waiting:
        try:
            batch.values.append(future.result())
            batch.names.append(name)
        except InputError as error:
            batch.failures.append((name, error.message))
    return batch
