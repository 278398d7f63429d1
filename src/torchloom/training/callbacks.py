"""Who watches a training: a study that may end it, a tracker, whoever waits for a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Each is shown the history's row of an epoch that is over, and says whether the training is over too; so it is when one
# of them raises something.
Watcher = Callable[[dict[str, float]], bool | None]
watchers: ContextVar[tuple[Watcher, ...]] = ContextVar("watchers", default=())


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Trainings within are watched by it too."""
    token = watchers.set((*watchers.get(), watcher))
    try:
        yield
    finally:
        watchers.reset(token)


def over(row: dict[str, float]) -> bool:
    """Show all of them the row; whether one of them says that the training is over."""
    return True in [watch(row) for watch in watchers.get()]
