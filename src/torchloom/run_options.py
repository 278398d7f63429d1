"""What the options of `kedro run` ask for and is not there, said in one message; a session that is told the same by
its arguments says it, too."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from functools import partial
from typing import Any

import click
import yaml
from kedro.framework.project import pipelines
from kedro.io.core import DatasetNotFoundError
from kedro.pipeline import Pipeline
from omegaconf.errors import OmegaConfBaseException

from torchloom.config.checks import UnknownNameError, odd_numbers, one_of, unknown
from torchloom.errors import InputError
from torchloom.system.words import counted

MOST = 8  # names that a message lists


# ---- which nodes ---------------------------------------------------------------------------------------------------


def _nodes(pipeline: Pipeline) -> set[str]:
    return {node.name for node in pipeline.nodes}


def _tags(pipeline: Pipeline) -> set[str]:
    return {tag for node in pipeline.nodes for tag in node.tags}


def _entries(pipeline: Pipeline) -> set[str]:
    """Those of the catalog, also without the format that a node reads them in (`table@pandas`)."""
    return {name for whole in pipeline.datasets() for name in (whole, whole.partition("@")[0])}


def _namespaces(pipeline: Pipeline) -> set[str]:
    """With those around them."""
    parts = [node.namespace.split(".") for node in pipeline.nodes if node.namespace]
    return {".".join(each[: depth + 1]) for each in parts for depth in range(len(each))}


# By the argument of Pipeline.filter the option that it comes from, what that names, and which of it there are.
FILTERS: dict[str, tuple[str, str, Callable[[Pipeline], set[str]]]] = {
    "node_names": ("--nodes", "node", _nodes),
    "from_nodes": ("--from-nodes", "node", _nodes),
    "to_nodes": ("--to-nodes", "node", _nodes),
    "tags": ("--tags", "tag", _tags),
    "node_namespaces": ("--namespaces", "namespace", _namespaces),
    "from_inputs": ("--from-inputs", "entry of the catalog", _entries),
    "to_outputs": ("--to-outputs", "entry of the catalog", _entries),
}


class Filtered(Pipeline):
    """A pipeline of which a run may ask for a part; InputError when it asks for what is not there.

    Kedro adds up the pipelines of a run before it filters them: what is added to one of these is one of these.
    """

    def __add__(self, other: Any) -> Pipeline:
        return Filtered({*self.nodes, *other.nodes}) if isinstance(other, Pipeline) else NotImplemented

    def __radd__(self, other: Any) -> Pipeline:
        return self if isinstance(other, int) and other == 0 else self + other

    def filter(self, *given: Any, **named: Any) -> Pipeline:
        asked = {name: value for name, value in named.items() if value}
        if wrong := [line for name, value in asked.items() for line in _mistakes(self, name, value)]:
            raise InputError("\n".join(wrong))
        try:
            return super().filter(*given, **named)
        except ValueError as error:  # which says that none is left
            raise InputError(f"no node is left to run: {_counts(self, asked) or error}") from error


def _mistakes(pipeline: Pipeline, name: str, asked: Iterable[str]) -> Iterator[str]:
    option, what, known = FILTERS[name]
    if isinstance(asked, str):
        yield f"{name}: given {asked!r}; must be a list of such names"
        return
    there = known(pipeline)
    for each in asked:
        if each not in there:
            yield f"{option} {each}: {_elsewhere(each, known) or unknown(each, _beside(each, there), what, MOST)}"


def _elsewhere(name: str, known: Callable[[Pipeline], set[str]]) -> str | None:
    """What to do where it is of a task that is not run."""
    owner = name.partition(".")[0]
    if owner not in {*pipelines} or name not in known(pipelines[owner]):
        return None
    return f"is of the task {owner}, which is not run. Add it to --pipelines"


def _beside(name: str, there: set[str]) -> set[str]:
    """Those of the same task, or all."""
    owner, dot, _ = name.partition(".")
    return {each for each in there if dot and each.startswith(owner + dot)} or there


def _counts(pipeline: Pipeline, asked: dict[str, Any]) -> str:
    """How many nodes each of the filters has by itself."""
    counts = []
    for name, value in asked.items():
        try:
            found = len(Pipeline(pipeline.nodes).filter(**{name: value}).nodes)
        except ValueError:
            found = 0
        counts.append(f"{FILTERS[name][0]} {','.join(value)} has {counted(found, 'node')}")
    return " and ".join(counts) + (", but they have none in common" if len(counts) > 1 else "")


# ---- the command ---------------------------------------------------------------------------------------------------


def command() -> click.Command:
    """Kedro's `run`, which is told what its options hold before it begins."""
    from kedro.framework.cli.project import run

    checked = copy(run)
    checked.params = [_read_by_us(option) if option.name == "params" else option for option in run.params]
    checked.callback = partial(_checked, run)
    return checked


def _read_by_us(option: click.Parameter) -> click.Parameter:
    option = copy(option)
    option.callback = parameters
    return option


def _checked(run: click.Command, **given: Any) -> Any:
    check_runner(given["runner"] or "SequentialRunner", given["runner_params"])
    assert run.callback
    try:
        return run.callback(**given)
    except DatasetNotFoundError as error:
        if "load_versions" not in str(error):
            raise
        asked = ", ".join(given["load_versions"])
        raise InputError(f"--load-versions {asked}: must name entries of the catalog. {error}") from error


def parameters(ctx: click.Context, option: click.Parameter, value: Any) -> Any:
    """Those of `--params` as Kedro reads them, and one message where a value is no YAML, such as an open list."""
    from kedro.framework.cli.utils import _split_params, split_string

    try:
        for item in split_string(ctx, option, value) if isinstance(value, str) else ():
            for line in odd_numbers(item.partition("=")[2]):
                raise click.BadParameter(f"{item}: {line.partition(': ')[2]}")
        return _split_params(ctx, option, value)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        shown = place.get_snippet(indent=2) if place else value
        raise click.BadParameter(f"a value is no YAML ({getattr(error, 'problem', error)}):\n{shown}") from error
    except OmegaConfBaseException as error:
        why = "${ begins a reference to another value, which } ends. Write \\${…} where the signs themselves are meant"
        raise click.BadParameter(f"{value}: {why}") from error


def check_runner(name: str, arguments: Mapping[str, Any]) -> None:
    """InputError unless it is one of Kedro's runners, or the dotted path of another, that takes the arguments."""
    from kedro import runner as kedros

    from torchloom.config import own

    allowed = {each for each in kedros.__all__ if each.endswith("Runner") and each != "AbstractRunner"}
    try:
        if not own.is_path(name):
            one_of(
                name, allowed | {"torchloom.runner.SkipUnchanged"}, "a runner of Kedro, or the dotted path of another"
            )
        found = own.reached(name if own.is_path(name) else f"kedro.runner.{name}", kedros.AbstractRunner)
    except UnknownNameError as error:
        raise InputError(f"--runner {name}: {error}") from error
    taken = set(inspect.signature(found).parameters)
    for each in arguments:
        if each not in taken:
            raise InputError(f"--runner-params {each}: {unknown(each, taken, f'argument of {name}')}")
