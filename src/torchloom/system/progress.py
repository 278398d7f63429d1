"""Progress: a live bar on a terminal, and elsewhere a plain line in the log when nothing else was said for a minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

MINUTE = 60.0  # seconds of silence after which a line is due


class Clock(logging.Handler):
    """Knows when the log was last heard of."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        self.heard = time.monotonic()

    def line_is_due(self) -> bool:
        return time.monotonic() - self.heard > MINUTE


CLOCK = Clock()


def download_bar() -> Progress:
    """A bar with size, speed and time left; tasks count bytes."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from torchloom.system.bars import Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Bars(*columns, TimeRemainingColumn())


def step_bar() -> Progress:
    """A bar for steps; what goes into the field `status` stands behind it."""
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    from torchloom.system.bars import Bars

    return Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(compact=True),
        transient=True,
    )


def track(things: Any, what: str) -> Iterator[Any]:
    """The things, of which the number is known, one by one and with a bar."""
    with step_bar() as bar:
        yield from bar.track(things, task_id=bar.add_task(what, total=len(things), status=""))


@contextmanager
def working(what: str) -> Iterator[None]:
    """A bar without an end, and the time so far, for what cannot say how far it is."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    from torchloom.system.bars import Bars

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=12), TimeElapsedColumn())
    with Bars(*columns, transient=True) as bar:
        bar.add_task(what, total=None)
        yield


def duration(seconds: float) -> str:
    """As minutes:seconds, with hours where there are some."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
