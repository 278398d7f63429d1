"""The project's own commands, beside Kedro's."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from kedro.framework.startup import ProjectMetadata


class Above0(click.FloatRange):
    """A number above 0; click's own range takes nan, which is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        return number if math.isfinite(number) else self.fail(f"{value} is no number.", param, ctx)


ABOVE_0 = Above0(min=0, min_open=True)


def parameters(*given: Any) -> Any:
    """Those of `--params`, as `kedro run` reads them."""
    from torchloom import run_options

    return run_options.parameters(*given)


class Commands(click.Group):
    """This project's, and Kedro's `run` with checks of ours, which is imported when it is asked for."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return __getattr__(cmd_name) if cmd_name == "run" else super().get_command(ctx, cmd_name)


def __getattr__(name: str) -> click.Command:
    """`run`, which Kedro's `find_run_command` looks for here, as those who start a packaged project do."""
    if name != "run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from torchloom.run_options import command

    return command()


@click.group(name="torchloom", cls=Commands)
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


@cli.group()
def task() -> None:
    """Tasks: make one, or see which there are."""


@task.command("new")
@click.argument("name")
@click.option(
    "--data",
    "path",
    required=True,
    help="A table, a text, or a folder: of tables, texts or sounds, or with a folder of pictures, texts or sounds for "
    "each class; by its path, or an address such as s3://bucket/folder/. Or a table that is an entry of the catalog.",
)
@click.option("--credentials", help="Of data at an address the entry of credentials.yml that lets you in.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="The column that is to be told from the others; or several, with commas between or each by an option.",
)
@click.option("--problem", help="What is asked, where data could be for several: forecasting, translation.")
@click.option("--reader", help="What the data are, where they look like something else: the reader that has them.")
@click.pass_obj
def new_task(
    metadata: ProjectMetadata,
    name: str,
    path: str,
    targets: tuple[str, ...],
    problem: str | None = None,
    credentials: str | None = None,
    reader: str | None = None,
) -> None:
    """Look at data, and write a file of parameters for the task NAME."""
    from kedro.framework.project import settings

    from torchloom.config.checks import UnknownNameError
    from torchloom.config.loader import as_yaml, check_name, newest_loader, read_parameters
    from torchloom.data.readers import propose
    from torchloom.errors import InputError
    from torchloom.problems import check_problem
    from torchloom.system.files import atomic_write
    from torchloom.tasks import read_tasks

    check_name(name, newest_loader())
    file = metadata.project_path / settings.CONF_SOURCE / "base" / "parameters" / f"{name}.yml"
    parameters = read_parameters(newest_loader())
    data = f"{name}_data"
    taken = next((str(block) for block in (name, data) if block in parameters), file if file.exists() else None)
    if taken:
        raise InputError(f"{taken}: is there already. Choose another name, or change it in its file")
    if problem:
        try:
            check_problem(problem)
        except UnknownNameError as error:
            raise InputError(f"--problem {problem}: {error}") from error
    with _here(path, data, credentials) as (place, as_said):
        try:
            proposal = propose(place, ",".join(targets) or None, problem, reader)
        except InputError as error:
            raise InputError(error.message.replace(str(place), path)) from error
    found = proposal.preprocess.items()
    preprocess = dict(as_said(key) if value == str(place) else (key, value) for key, value in found)
    preprocess |= {"credentials": credentials} if credentials else {}
    own = {"task": {"problem": proposal.problem, "data": data}, **proposal.blocks}
    blocks = {data: {"preprocess": preprocess}, name: own}
    read_tasks({**parameters, **blocks})  # whether there can be a task of that name
    comments = "".join(f"# {_in_one_line(line)}\n" for line in ["What kedro task new has seen:", *proposal.seen])
    written = comments + as_yaml(blocks)
    with atomic_write(file) as temporary:
        temporary.write_text(written, encoding="utf-8")
    click.echo("\n".join([*proposal.seen, "", f"written to {file}. Train with", f"  kedro run --pipelines {name}"]))


@contextmanager
def _here(place: str, data: str, credentials: str | None) -> Iterator[tuple[Path, Callable[[str], tuple[str, str]]]]:
    """Where data are on this machine, and how the key of a block says it.

    From an address they are brought first, to where the data set will have them; a table of the catalog is put into a
    temporary file.
    """
    from kedro.framework.session import KedroSession
    from kedro.io import DatasetError

    from torchloom.config.loader import credentials_of, newest_loader
    from torchloom.data.entries import keep
    from torchloom.errors import InputError
    from torchloom.system.addresses import is_address

    if not is_address(place) and (path := Path(place).expanduser()).exists():
        yield path.resolve(), lambda key: (key, str(path.resolve()))
        return
    with KedroSession.create() as session:
        context = session.load_context()  # type: ignore[attr-defined]
        if is_address(place):
            newest_loader().coming.add(data)  # which is no data set yet
            remote = context.catalog.load(f"{data}_remote")
            remote.options = credentials_of(context.config_loader, credentials, "--credentials")
            yield Path(remote.bring(place, "--data")).resolve(), lambda key: (key, place)
        elif place in context.catalog:
            with TemporaryDirectory() as folder:
                try:
                    path = keep(context.catalog.load(place), Path(folder, "table.arrow").resolve())
                except DatasetError as error:
                    why = str(error).removeprefix(f"{place}: ")
                    raise InputError(
                        f"--data {place}: {why}. If a pipeline of yours makes it, run that first"
                    ) from error
                yield path, lambda _: ("entry", place)
        else:
            raise click.BadParameter(f"{place!r} is no path, and no entry of the catalog.", param_hint="--data")


def _in_one_line(text: str) -> str:
    """What data hold, as a comment of a YAML file that ends where it should."""
    from torchloom.errors import printable

    return printable(text.replace("\n", "\\n"))


@task.command("list")
@click.option("--env", "-e", help="The environment; by default the local one.")
def list_tasks(env: str | None) -> None:
    """Show the tasks: what they are, on which data, and how good the last model was."""
    from kedro.framework.session import KedroSession

    from torchloom.config.loader import newest_loader
    from torchloom.records.runs import shown_figures
    from torchloom.tasks import tasks_of

    with KedroSession.create(env=env) as session:
        catalog = session.load_context().catalog  # type: ignore[attr-defined]
        rows = []
        for each in tasks_of(newest_loader()).values():
            there = catalog.exists(f"{each.name}.metrics")
            figures = shown_figures(catalog.load(f"{each.name}.metrics"), 2) if there else {}
            said = "  ".join(f"{figure} {value}" for figure, value in figures.items())
            rows.append((each.name, each.choice, each.data_set, said or "not trained here"))
    widths = [max(len(row[place]) for row in rows) for place in range(3)]
    for row in rows:
        click.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))


def _tuned(callback: Callable[..., Any]) -> Callable[..., Any]:
    """What all commands of `tune` take."""
    options = [
        click.argument("task"),
        click.option("--env", "-e", help="The environment; by default the local one."),
        click.option("--params", default="", callback=parameters, help="Other parameters, as kedro run has them."),
    ]
    for option in reversed(options):
        callback = option(callback)
    return callback


@cli.group()
def tune() -> None:
    """Find settings of a task's training by a few steps of it; no model is changed, and none is kept."""


@tune.command("lr")
@_tuned
@click.option("--start", type=ABOVE_0, default=1e-7, show_default=True, help="The lowest learning rate.")
@click.option("--end", type=ABOVE_0, default=10.0, show_default=True, help="The highest.")
@click.option("--steps", type=click.IntRange(min=10), default=100, show_default=True, help="From the one to the other.")
def tune_lr(task: str, env: str | None, params: dict[str, Any], start: float, end: float, steps: int) -> None:
    """Let the learning rate of TASK rise from step to step until its loss grows, and suggest one."""
    from torchloom.tuning import tune_rate

    if start >= end:
        raise click.BadParameter(f"{start:g} is not below --end {end:g}.", param_hint="--start")
    click.echo(tune_rate(task, env, params, start, end, steps))


@tune.command("batch")
@_tuned
@click.option("--most", type=click.IntRange(min=1), help="No more samples than these; by default all there are.")
@click.option("--seconds", type=ABOVE_0, default=5.0, show_default=True, help="A step that takes longer is the last.")
def tune_batch(task: str, env: str | None, params: dict[str, Any], most: int | None, seconds: float) -> None:
    """Find the largest batches of TASK that fit into the memory, the fastest, and those to take."""
    from torchloom.tuning import tune_batches

    click.echo(tune_batches(task, env, params, most, seconds))


@cli.command()
@click.argument("model")
@click.option("--env", "-e", help="The environment whose models and parameters are taken; by default the local one.")
@click.option("--port", "-p", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one.")
def serve(model: str, env: str | None, port: int) -> None:
    """Answer over HTTP on this machine with MODEL: a task that was exported, an ONNX file or a checkpoint."""
    from kedro.framework.session import KedroSession

    from torchloom.config import ServeConfig
    from torchloom.errors import InputError
    from torchloom.inference.model import find_model, open_model

    try:
        from torchloom.inference import serving
    except ModuleNotFoundError as error:
        from torchloom.system.words import extra

        raise InputError(
            f"kedro serve needs {error.name}, which is not installed. Install the extra: {extra('serve')}"
        ) from error
    with KedroSession.create(env=env) as session:
        parameters = session.load_context().config_loader["parameters"]  # type: ignore[attr-defined]
    config = ServeConfig(**parameters["serve"])
    loaded = open_model(find_model(model, Path(config.models), "kedro serve"), config.threads)
    listener = serving.listen(port)
    host, port = listener.getsockname()
    click.echo(f"{model} answers at http://{host}:{port} until Ctrl-C")
    serving.serve(serving.create_app(loaded, model, config), listener)
