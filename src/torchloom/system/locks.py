"""One run at a time for each task, and for each data set while it is prepared: the others wait.

The operating system lets go of a lock when its process ends, however it ends.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import socket
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from torchloom.errors import InputError

if TYPE_CHECKING:
    from filelock import FileLock

logger = logging.getLogger(__name__)


def command() -> str:
    """How this process was started, as one would type it."""
    name = sys.argv[0] if sys.argv else ""
    if Path(name).name == "__main__.py":  # python -m
        return shlex.join(["python", "-m", Path(name).parent.name, *sys.argv[1:]])
    return shlex.join(["kedro" if "kedro" in name else Path(name).name, *sys.argv[1:]])


class Locks:
    """The locks that this run holds, by name; each is a file below `folder`, beside a note of who holds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: dict[str, FileLock] = {}

    def wait_for(self, name: str) -> None:
        """Take the lock, when the run that holds it is over."""
        if not self.take(name):
            logger.warning("waiting: %s is in use by %s (Ctrl-C gives up)", name, self.holder(name))
            self._take(name, timeout=-1)

    def take(self, name: str) -> bool:
        """Take the lock if nobody holds it, and say whether that was so."""
        from filelock import Timeout

        try:
            self._take(name, timeout=0)
        except Timeout:
            return False
        return True

    def _take(self, name: str, timeout: float) -> None:
        from filelock import FileLock, Timeout

        if name in self.held:
            return
        lock = FileLock(self.folder / f"{name}.lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=timeout, poll_interval=0.2)
            self.held[name] = lock
            note = {"process": os.getpid(), "host": socket.gethostname(), "command": command()}
            note["since"] = datetime.now().astimezone().isoformat(timespec="seconds")
            self._note(name).write_text(json.dumps(note), encoding="utf-8")
        except OSError as error:
            if isinstance(error, Timeout):
                raise
            self.release(name)
            raise InputError(
                f"{self.folder}: cannot be written ({error.strerror or error}). Make room or change its rights"
            ) from error

    def known(self, pattern: str) -> list[str]:
        """The names that fit and that some run has locked before."""
        return sorted(path.stem for path in self.folder.glob(f"{pattern}.lock"))

    def _note(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def holder(self, name: str) -> str:
        try:
            note = json.loads(self._note(name).read_text(encoding="utf-8"))
            return f"process {note['process']} on {note['host']} since {note['since']}: {note['command']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another run"

    def release(self, *names: str) -> None:
        """Let go of these, or of all."""
        for name in names or tuple(self.held):
            if name in self.held:
                self.held.pop(name).release()
