"""Functions in new processes, which say what they have to say as they go and end with the one that started them.

On Linux they are forked from one clean process that has imported the large libraries, for all of them, and nothing
that may change, or that starts threads or a GPU.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from torchloom.errors import InputError

Say = Callable[[Any], None]

LIBRARIES = ["torch", "torch._dynamo", "torchmetrics", "torchvision", "kedro.framework.session"]
LIBRARIES += ["torchloom.system.forkserver"]
if sys.platform == "linux":
    CONTEXT = multiprocessing.get_context("forkserver")
    CONTEXT.set_forkserver_preload(LIBRARIES)
else:  # which cannot fork, or not with all libraries
    CONTEXT = multiprocessing.get_context("spawn")


def run_processes(function: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> Generator[Any, None, None]:
    """Call `function(*arguments, say)` for each arguments in a process of its own; yield what they say as it comes.

    It is over when all of them have ended; where the iteration ends before, they are ended too: close it. Raises the
    InputError of a process, and one when a process was killed.
    """
    processes: dict[Connection, Any] = {}  # which each context has a class of its own for
    try:
        for given in arguments:
            reader, writer = CONTEXT.Pipe(duplex=False)
            process = CONTEXT.Process(target=_child, args=(function, given, writer, dict(os.environ)))
            process.start()
            processes[reader] = process
            writer.close()  # the process has its own; without one, reading tells that it has ended
        reading = set(processes)
        while reading:
            for ready in wait(list(reading)):
                assert isinstance(ready, Connection)
                try:
                    message = ready.recv()
                except EOFError:
                    reading.remove(ready)
                    _check_end(processes[ready])
                    continue
                if isinstance(message, InputError):
                    raise message
                yield message
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.join()


def _check_end(process: BaseProcess) -> None:
    process.join()
    if process.exitcode:
        raise InputError(
            f"the process {process.pid} has ended before its work was done (exit status {process.exitcode}). If nobody "
            "killed it, the memory may not be enough; what it said before stands above"
        )


def check_beginning() -> None:
    """InputError in a process that has yet to import the script of the one that started it: it would do the same."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError(
            "a new process runs the script that has started it from its beginning. Put what the script does below "
            'if __name__ == "__main__":'
        )


def _child(
    function: Callable[..., None], given: tuple[Any, ...], writer: Connection, environment: Mapping[str, str]
) -> None:
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
    try:
        function(*given, writer.send)
    except InputError as error:
        writer.send(error)


def end_with_parent() -> None:
    """End this process, which multiprocessing has started, as soon as the one that started it is no more."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
