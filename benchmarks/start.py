"""Part start: how long a command takes that only looks at the project, beside an empty Kedro project.

Each turn is a process of its own; what counts is its time on the processor, with that of the system.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.measure import Comparison, Options, interleave

EMPTY, OURS = "an empty Kedro project", "this project"
COMMAND = [sys.executable, "-m", "kedro", "registry", "list"]
TOOL_KEDRO = '[tool.kedro]\npackage_name = "empty"\nproject_name = "empty"\nkedro_init_version = "1.7.0"\n'
REGISTRY = (
    "from kedro.pipeline import Pipeline\n\n\ndef register_pipelines():\n    return {'__default__': Pipeline([])}\n"
)


def run(options: Options) -> list[Comparison]:
    with tempfile.TemporaryDirectory() as name:
        sides = {EMPTY: partial(seconds, empty_project(Path(name))), OURS: partial(seconds, Path.cwd())}
        values = interleave(sides, options.turns(9))
    title = "kedro registry list"
    return [Comparison(title, "seconds on the processor", values, "no data", EMPTY, 1 / 1.5, less_is_better=True)]


def empty_project(folder: Path) -> Path:
    """What `kedro new` makes, as far as a command asks for it."""
    package = folder / "src/empty"
    for part in (package, folder / "conf/base", folder / "conf/local"):
        part.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(TOOL_KEDRO)
    (package / "__init__.py").touch()
    (package / "settings.py").touch()
    (package / "pipeline_registry.py").write_text(REGISTRY)
    return folder


def seconds(project: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "KEDRO_DISABLE_TELEMETRY": "1"}
    subprocess.run(COMMAND, cwd=project, env=environment, check=True, capture_output=True)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
