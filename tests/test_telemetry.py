"""No library reports to its maker: every connection would go through a proxy that notes it, and homes stay empty."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import matplotlib
import pytest

KEDRO = [sys.executable, "-m", "kedro"]


@dataclass
class Outside:
    """What a process that must be alone is given, and what it asked for."""

    asked: list[str]
    home: Path
    environment: dict[str, str]

    def run(self, *command: str, folder: Path, **environment: str) -> str:
        given = {**self.environment, **environment}
        done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def left(self) -> list[str]:
        """The files in the user's home: identifiers, and what waits to be sent."""
        return [str(path.relative_to(self.home)) for path in self.home.rglob("*") if path.is_file()]


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    """A home of its own, none of the variables of a CI, in which libraries keep still, and a proxy."""
    asked: list[str] = []

    class Noting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_error(403)

        do_POST = do_PUT = do_HEAD = do_CONNECT = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    home = tmp_path / "home"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Noting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    proxies = [*("http_proxy", "https_proxy", "all_proxy"), *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")]
    folders = {f"XDG_{name}_HOME": f".{name.lower()}" for name in ("CACHE", "CONFIG", "DATA", "STATE")}
    environment = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    environment |= dict.fromkeys(proxies, address)
    environment |= {"HOME": str(home), **{name: str(home / folder) for name, folder in folders.items()}}
    environment |= {"MPLCONFIGDIR": matplotlib.get_cachedir(), "OMP_NUM_THREADS": "1"}  # its fonts are known there
    home.mkdir()
    try:
        yield Outside(asked, home, environment)
    finally:
        server.shutdown()
        server.server_close()


def test_the_proxy_notes_what_is_asked(outside: Outside, tmp_path: Path) -> None:
    """Without which the other tests would say nothing."""
    for scheme in ("http", "https"):
        ask = f"import urllib.request; urllib.request.urlopen('{scheme}://maker.example/')"
        with pytest.raises(AssertionError, match="403"):
            outside.run(sys.executable, "-c", ask, folder=tmp_path)
    assert outside.asked == ["GET http://maker.example/", "CONNECT maker.example:443"]


def test_onnx_runtime_keeps_still_once_torchloom_is_imported(outside: Outside, tmp_path: Path) -> None:
    open_nothing = "import onnxruntime as o\ntry: o.InferenceSession(b'')\nexcept Exception: pass"
    outside.run(sys.executable, "-c", f"import torchloom.inference.model\n{open_nothing}", folder=tmp_path)
    assert (outside.left(), outside.asked) == ([], [])


def test_kedro_reads_the_project_before_any_library_that_reports(outside: Outside, project: Path) -> None:
    """And what the user has chosen himself stays."""
    code = (
        "from kedro.framework.startup import bootstrap_project; bootstrap_project('.'); import os, sys; "
        "print(*sorted({'onnxruntime', 'mlflow', 'flwr', 'ray'} & set(sys.modules)), "
        "*(os.environ[name] for name in sys.argv[1:]))"
    )
    names = ["ORT_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY", "FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED"]
    assert outside.run(sys.executable, "-c", code, *names, folder=project).split() == ["1", "true", "0", "0"]
    chosen = dict.fromkeys(names, "mine")
    assert outside.run(sys.executable, "-c", code, *names, folder=project, **chosen).split() == ["mine"] * 4


@pytest.mark.long
def test_a_run_predict_and_serve_ask_nobody_for_anything(outside: Outside, project: Path) -> None:
    run = [*KEDRO, "run", "--env", "sample", "--pipelines"]
    outside.run(*run, "linear_regression", "--params", "linear_regression.train.epochs=2", folder=project)
    features = json.loads((project / "data/sample/03_primary/diabetes/info.json").read_text())["features"]
    row = dict.fromkeys(features, 1.0)
    (project / "rows.csv").write_text(f"{','.join(features)}\n{','.join(map(str, row.values()))}\n")
    options = "predict.model=linear_regression,predict.files=rows.csv"
    outside.run(*run, "predict", "--params", options, folder=project)
    assert (project / "data/sample/07_model_output/predict/predictions.csv").read_text().count("\n") == 2
    serve = [*KEDRO, "serve", "linear_regression", "--env", "sample", "--port", "0"]
    with subprocess.Popen(serve, cwd=project, env=outside.environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[3]
            with urllib.request.urlopen(f"{address}/predict", json.dumps({"rows": [row]}).encode()) as answer:
                assert len(json.load(answer)) == 1
        finally:
            server.send_signal(signal.SIGINT)
    assert (outside.left(), outside.asked) == ([], [])
