"""Bars on a terminal, by rich, which commands that show none need not import."""

from __future__ import annotations

import logging
import time
from typing import Any

import rich
from rich.progress import Progress, ProgressColumn, TaskID

from torchloom.system.progress import CLOCK, duration

logger = logging.getLogger("torchloom.system.progress")


def watched() -> bool:
    """Whether somebody sees the bars: the console is a terminal and the log is not silenced below INFO."""
    return rich.get_console().is_terminal and logging.getLogger("torchloom").isEnabledFor(logging.INFO)


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
