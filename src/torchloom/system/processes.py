"""Functions in new processes, which say what they have to say as they go and end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from torchloom.errors import InputError

Say = Callable[[Any], None]


def run_processes(function: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> Generator[Any, None, None]:
    """Call `function(*arguments, say)` for each arguments in a process of its own; yield what they say as it comes.

    It is over when all of them have ended; where the iteration ends before, they are ended too: close it. Raises the
    InputError of a process, and one when a process was killed.
    """
    context = multiprocessing.get_context("spawn")
    processes: dict[Connection, SpawnProcess] = {}
    try:
        for given in arguments:
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(function, given, writer))
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


def _check_end(process: SpawnProcess) -> None:
    process.join()
    if process.exitcode:
        raise InputError(
            f"the process {process.pid} has ended before its work was done (exit status {process.exitcode}). If nobody "
            "killed it, the memory may not be enough; what it said before stands above"
        )


def _child(function: Callable[..., None], given: tuple[Any, ...], writer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
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
