"""The project's own commands, beside Kedro's."""

from __future__ import annotations

import csv
import sys

import click
from kedro.framework.startup import ProjectMetadata


@click.group(name="torchloom")
def cli() -> None:
    """Commands of this project."""


@cli.command()
@click.option("--env", "-e", help="The environment whose runs are shown; by default the local one.")
@click.option("--pipeline", "-p", "task", help="Only this task.")
@click.option("--last", "-n", type=click.IntRange(min=1), default=20, show_default=True, help="So many of the newest.")
@click.option("--csv", "as_csv", is_flag=True, help="As CSV.")
@click.option(
    "--html",
    "page",
    is_flag=False,
    flag_value="",
    metavar="[PATH]",
    help="As one page with plots, in data/08_reporting/runs.html unless PATH is given.",
)
def runs(env: str | None, task: str | None, last: int, as_csv: bool, page: str | None = None) -> None:
    """Compare the runs so far in one table; parameters are shown where they differ."""
    from kedro.framework.session import KedroSession

    from torchloom.errors import InputError
    from torchloom.records.runs import as_text, chosen, comparison, read_runs

    with KedroSession.create(env=env) as session:
        catalog = session.load_context().catalog  # type: ignore[attr-defined]
    folder = catalog.load("records").results / "runs"
    found = read_runs(folder)
    rows = comparison(found, task, last)
    if not rows:
        raise InputError(f"{folder}: no run {f'of {task} ' if task else ''}has left a record there yet")
    if as_csv:
        writer = csv.DictWriter(sys.stdout, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    elif page is not None:
        from torchloom.datasets.reports import TextDataset
        from torchloom.reporting.runs_page import runs_page

        dataset = TextDataset(filepath=page) if page else catalog.get("runs_page")
        dataset.save(runs_page(chosen(found, task, last), rows))
        click.echo(f"written to {dataset._filepath}")
    else:
        click.echo(as_text(rows))


@cli.command()
@click.pass_obj
def schema(metadata: ProjectMetadata) -> None:
    """Write conf/parameters.schema.json, from which editors complete the names in parameter files."""
    from kedro.framework.project import settings

    from torchloom.config.schema import write_schema
    from torchloom.tasks import all_blocks

    click.echo(write_schema(metadata.project_path / settings.CONF_SOURCE, all_blocks()))


@cli.command()
@click.argument("model")
@click.option("--env", "-e", help="The environment whose models and parameters are taken; by default the local one.")
@click.option("--port", "-p", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one.")
def serve(model: str, env: str | None, port: int) -> None:
    """Answer over HTTP on this machine with MODEL: a task that was exported, an ONNX file or a checkpoint."""
    from pathlib import Path

    from kedro.framework.session import KedroSession

    from torchloom.config import ServeConfig
    from torchloom.errors import InputError
    from torchloom.inference.model import find_model, open_model

    try:
        from torchloom.inference import serving
    except ModuleNotFoundError as error:
        raise InputError(
            f"kedro serve needs {error.name}, which is not installed. Install the extra: pip install -e '.[serve]'"
        ) from error
    with KedroSession.create(env=env) as session:
        parameters = session.load_context().config_loader["parameters"]  # type: ignore[attr-defined]
    config = ServeConfig(**parameters["serve"])
    loaded = open_model(find_model(model, Path(config.models), "kedro serve"), config.threads)
    listener = serving.listen(port)
    host, port = listener.getsockname()
    click.echo(f"{model} answers at http://{host}:{port} until Ctrl-C")
    serving.serve(serving.create_app(loaded, model, config), listener)
