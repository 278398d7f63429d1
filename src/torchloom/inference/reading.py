"""Reading ahead: threads read the next samples of many files while a model looks at some."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

from torchloom.errors import InputError
from torchloom.modalities.files import Sample

AHEAD = 2  # batches that are read while one is worked on

Waiting = tuple[str, Future[Any], Mapping[str, Any] | None]


class Batch(NamedTuple):
    """Samples that could be read, by name, with the rows of tables that they stand in; and the names of the others with
    the reasons."""

    names: list[str]
    values: list[Any]
    failures: list[tuple[str, str]]
    rows: list[Mapping[str, Any] | None]


def read_ahead(samples: Iterable[Sample], size: int) -> Iterator[Batch]:
    """Batches of `size` samples in their order; threads read the next ones meanwhile."""
    left = iter(samples)
    waiting: deque[list[Waiting]] = deque()
    with ThreadPoolExecutor() as pool:
        while True:
            coming = [Sample(*each) for each in islice(left, size)]
            batch = [(each.name, pool.submit(each.read), each.row) for each in coming]
            if batch:
                waiting.append(batch)
            if not waiting:
                return
            if len(waiting) > AHEAD or not batch:
                yield _settled(waiting.popleft())


def _settled(waiting: list[Waiting]) -> Batch:
    batch = Batch([], [], [], [])
    for name, future, row in waiting:
        try:
            batch.values.append(future.result())
            batch.names.append(name)
            batch.rows.append(row)
        except InputError as error:
            batch.failures.append((name, error.message))
    return batch
