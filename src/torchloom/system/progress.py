"""Progress: a live bar on a terminal, and elsewhere a plain line in the log when nothing else was said for a minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rich
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

logger = logging.getLogger(__name__)

MINUTE = 60.0  # seconds of silence after which a line is due


def watched() -> bool:
    """Whether somebody sees the bars: the console is a terminal and the log is not silenced below INFO."""
    return rich.get_console().is_terminal and logging.getLogger("torchloom").isEnabledFor(logging.INFO)


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


class Bars(Progress):
    """Bars that vanish when they are done; where nobody sees them, lines in the log."""

    def __init__(self, *columns: ProgressColumn, **options: Any) -> None:
        super().__init__(*columns, console=rich.get_console(), disable=not watched(), **options)
        if CLOCK not in logging.getLogger("torchloom").handlers:
            logging.getLogger("torchloom").addHandler(CLOCK)
            CLOCK.heard = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._say(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        if self.disable and CLOCK.line_is_due():
            task = next(task for task in self.tasks if task.id == task_id)
            done = f"{task.completed:,.0f}" + (f" of {task.total:,.0f}" if task.total else "")
            left = f"  {duration(task.time_remaining)} left" if task.time_remaining is not None else ""
            logger.info("%s: %s%s  %s", task.description, done, left, task.fields.get("status", ""))


def download_bar() -> Progress:
    """A bar with size, speed and time left; tasks count bytes."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Bars(*columns, TimeRemainingColumn())


def step_bar() -> Progress:
    """A bar for steps; what goes into the field `status` stands behind it."""
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
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=12), TimeElapsedColumn())
    with Bars(*columns, transient=True) as bar:
        bar.add_task(what, total=None)
        yield


def duration(seconds: float) -> str:
    """As minutes:seconds, with hours where there are some."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
