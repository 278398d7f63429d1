"""`torchloom …` and `python -m torchloom …`: what `kedro …` is in this project, also where it is only installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import kedro
from kedro.framework.cli.cli import KedroCLI
from kedro.framework.cli.utils import load_entry_points
from kedro.framework.project import configure_project
from kedro.framework.startup import ProjectMetadata
from kedro.utils import find_kedro_project

PACKAGE = "torchloom"
OF_ALL = {"-h", "--help"}  # options that are none of a run


class Program(KedroCLI):
    """Kedro's commands and the project's own, which need no `pyproject.toml`: a folder with `conf` is enough, and for
    a run an archive of it."""

    @property
    def project_groups(self) -> Sequence[click.Group]:
        if self._metadata is None or self._metadata.package_name != PACKAGE:
            configure_project(PACKAGE)
            here = Path.cwd()
            self._metadata = ProjectMetadata(
                here / "pyproject.toml", PACKAGE, PACKAGE, here, here, kedro.__version__, [], ""
            )
        groups: Sequence[click.Group] = super().project_groups
        return groups


def main(args: Sequence[str] | None = None, **options: Any) -> Any:
    """Run a command; where options come first, they are those of `run`, as of any project that Kedro has packaged."""
    given = [*(sys.argv[1:] if args is None else args)]
    if given in (["-V"], ["--version"]):  # Kedro would say its own
        return click.echo(f"{PACKAGE} {version(PACKAGE)}, kedro {kedro.__version__}")
    if given and given[0].startswith("-") and given[0] not in OF_ALL:
        given = ["run", *given]
    for begin in load_entry_points("init"):
        begin()
    program = Program(find_kedro_project(Path.cwd()) or Path.cwd())
    return program.main(args=given, prog_name=PACKAGE, **{"standalone_mode": not hasattr(sys, "ps1"), **options})


if __name__ == "__main__":
    main()
