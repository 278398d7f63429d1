"""A project folder of its own for each test that runs Kedro, so that nothing is written into the repository."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog

ROOT = Path(__file__).parents[1]

# Small enough for a second or two, large enough to learn from.
TINY: dict[str, dict[str, Any]] = {
    "mnist_mlp": {"model": {"hidden": [64]}, "train": {"epochs": 3, "batch_size": 64}},
    "cifar_resnet": {"model": {"width": 8}, "train": {"epochs": 2, "batch_size": 64}},
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project: its configuration and a link to its code, with an empty data folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copy(ROOT / ".telemetry", folder)
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    (folder / "conf" / "local").mkdir()
    (folder / "src").symlink_to(ROOT / "src")
    return folder


@pytest.fixture
def kedro_run(project: Path) -> Callable[..., DataCatalog]:
    """Run a pipeline of `project` in this process and return the catalog of what it left.

    `params` are what `--params` would give; all further arguments are those of KedroSession.run.
    """

    def run(pipeline: str, env: str = "sample", params: dict[str, Any] | None = None, **options: Any) -> DataCatalog:
        bootstrap_project(project)
        with KedroSession.create(project, env=env, runtime_params=params) as session:
            session.run(pipeline_names=[pipeline], **options)
            return session.load_context().catalog

    return run
