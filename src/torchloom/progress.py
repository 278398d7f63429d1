"""Progress: a live bar on a terminal, and nothing but the log's plain lines elsewhere."""

import logging

import rich
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


def watched() -> bool:
    """Whether somebody sees the bars: the console is a terminal and the log is not silenced below INFO."""
    return rich.get_console().is_terminal and logging.getLogger("torchloom").isEnabledFor(logging.INFO)


def download_bar() -> Progress:
    """A bar with size, speed and time left; tasks count bytes."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=rich.get_console(), disable=not watched())


def step_bar() -> Progress:
    """A bar for steps; what goes into the field `status` stands behind it."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(compact=True),
        console=rich.get_console(),
        transient=True,
        disable=not watched(),
    )
