"""`kedro …` in processes of their own, forked from one that has imported the large libraries already; and servers.

Each has its own session, directory, environment and output, imports Kedro and the project's own code, and ends as any
other process does. Only the seconds are spared that PyTorch and its like take to import.
"""

import atexit
import multiprocessing
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

# Nothing of torchloom: a project brings its own.
LIBRARIES = ["torch", "torch._dynamo", "torch.onnx._internal.exporter._compat", "torch.utils.data", "torchmetrics"]
LIBRARIES += ["torchvision", "onnxruntime", "onnxscript.function_libs.torch_lib.ops", "matplotlib.pyplot", "pandas"]
LIBRARIES += ["pyarrow.compute", "pydantic", "rich.progress", "sklearn", "optuna", "numpy.testing"]
TESTS = Path(__file__).parent

CONTEXT = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")


class KedroProcess:
    """`kedro …` in the folder of a project; used as a subprocess.Popen.

    What it says is appended to the files `output` and `errors`, which may be the same.
    """

    def __init__(
        self, project: Path, *arguments: str, output: Path, errors: Path, environment: dict[str, str] | None = None
    ) -> None:
        given = {**os.environ, "KEDRO_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", **(environment or {})}
        for path in (output, errors):
            path.touch()
        self._process = CONTEXT.Process(target=_run, args=(project, arguments, given, output, errors))
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or the number of the signal that ended it, negative."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("kedro", timeout or 0)
        return self.returncode

    def kill(self) -> None:
        self._process.kill()


def _run(project: Path, arguments: tuple[str, ...], environment: dict[str, str], output: Path, errors: Path) -> None:
    """What `python -m kedro …` does."""
    sys.modules.setdefault("ibis", None)  # type: ignore[arg-type]  # which Kedro would import for nothing
    if hasattr(os, "setsid"):
        os.setsid()
    for number, path in ((1, output), (2, errors)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(project)
    sys.path[:] = [str(project), *(path for path in sys.path if not _of_the_tests(path))]
    sys.argv = ["kedro", *arguments]
    try:
        runpy.run_module("kedro", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


def _of_the_tests(path: str) -> bool:
    return Path(path) == TESTS.parent or Path(path).is_relative_to(TESTS)


def free_port() -> int:
    """One below those that systems give to connections, which come and go; kedro-viz takes none above 49151."""
    unseeded = random.SystemRandom()  # the other gives all tests the same
    for port in unseeded.sample(range(20_000, 32_768), 100):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def answer(command: list[str], folder: Path, address: str, seconds: float = 240, **environment: str) -> str:
    """What the server that `command` starts answers at the address, as soon as it does; it is ended then."""
    with tempfile.TemporaryFile("w+") as said:
        server = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=said, stderr=said, start_new_session=True
        )
        try:
            end = time.monotonic() + seconds
            while server.poll() is None and time.monotonic() < end:
                try:
                    with urllib.request.urlopen(address, timeout=seconds) as response:
                        return str(response.read().decode())
                except OSError:
                    time.sleep(0.2)
            said.seek(0)
            raise AssertionError(f"{' '.join(command)} does not answer at {address}:\n{said.read()}")
        finally:
            with suppress(ProcessLookupError):  # it may have ended, and left processes or none
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
