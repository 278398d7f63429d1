"""Runs in IPython and in notebooks, whose process stays when a run is over, and works in another folder."""

from __future__ import annotations

import logging
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from kedro.framework.project import LOGGING, configure_logging


def shell() -> Any:
    """The IPython that this process runs; None in all other processes."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def after_each_cell(function: Callable[[], None]) -> None:
    """Call it whenever a cell ends: finished, failed or interrupted."""
    if shell():
        shell().events.register("post_run_cell", lambda _: function())


def _said(conf: Path) -> str | bytes:
    """What is in logging.yml of the configuration, which may be an archive as Kedro packs it; nothing without one."""
    path = conf / "logging.yml"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    if conf.is_file() and tarfile.is_tarfile(conf):
        with tarfile.open(conf) as archive:
            if (name := f"conf/{path.name}") in archive.getnames() and (file := archive.extractfile(name)):
                return file.read()
    return ""


def log_as_the_project_says(conf: Path) -> None:
    """Take the project's logging.yml where Kedro did not: it looks for it in the working directory only.

    Kedro's own settings, which it takes then, show a line for each file that is read or written, and long tracebacks.
    """
    ipython = shell()
    if "rich" in LOGGING.get("handlers", {}) and "KEDRO_LOGGING_CONFIG" not in os.environ and (text := _said(conf)):
        configure_logging(yaml.safe_load(text))
        for name in ("showtraceback", "_showtraceback", "showsyntaxerror") if ipython else ():
            vars(ipython).pop(name, None)  # those that rich has put over IPython's
    root = logging.getLogger()
    for handler in list(root.handlers) if ipython else ():
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
            shown = logging.StreamHandler(sys.stdout)  # on stderr a notebook shows lines as if something were wrong
            shown.setFormatter(handler.formatter)
            root.removeHandler(handler)
            root.addHandler(shown)
