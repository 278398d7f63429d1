"""Which tasks there are: each block of parameters that has a block `task`, in the environment of the run.

`task: {problem: classification, data: mnist}` is a problem to be solved on a data set, and `task: {method: pruning, of:
mnist_lenet}` a model that is made of another task's. Which keys go with a problem or a method its `Recipe` says; `data`
names a block of parameters with a block `preprocess`, and all others name tasks; `start` may be a file, too.

Commands that only look at the project know the tasks without an import of what is in their pipelines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from typing import Any, Literal

from kedro.pipeline import Pipeline
from pydantic import BaseModel, ConfigDict, create_model

from torchloom.config.checks import UnknownNameError, check_block, one_of, unknown
from torchloom.config.entries import is_data_set, is_task
from torchloom.config.loader import ConfigLoader, newest_loader, read_parameters
from torchloom.data.readers import check_reader, default_reader
from torchloom.data.readers import reader as reader_of
from torchloom.errors import InputError
from torchloom.problems import check_problem, problem_of
from torchloom.system.addresses import addresses_in, is_place


@dataclass(frozen=True)
class Recipe:
    """How a model is made: by which package of `pipelines`, and of what, by the keys of the block `task`."""

    package: str
    needs: tuple[str, ...]
    may: tuple[str, ...] = ()
    parent: str | None = None  # the problem that the models must be for of which it is made
    trains: bool = True  # or else leaves no checkpoint, and no other task can be made of it
    anew: bool = False  # whether it trains the task itself that it is made of, on the data of that one
    tunable: bool = True  # whether it is one training, whose settings `kedro tune` can look for
    apart: bool = False  # whether it runs in an environment of its own, and so not together with others

    def create_pipeline(self, task: str, problem: str, sources: Mapping[str, Any]) -> Pipeline:
        made: Pipeline = import_module(self.package).create_pipeline(task, problem=problem, **sources)
        return made


PIPELINES = "torchloom.pipelines"
SOLVING = Recipe(f"{PIPELINES}.training", needs=("data",), may=("start",))
PROBLEMS = {  # that are solved in a way of their own
    "generation": Recipe(f"{PIPELINES}.generation", needs=("data",), may=("start", "judge"), parent="classification"),
}
METHODS = {  # other ways to a model than to train one on a data set
    "distillation": Recipe(f"{PIPELINES}.distillation", needs=("data", "teacher"), parent="classification"),
    # Flower asks for older packages than all else
    "federation": Recipe(f"{PIPELINES}.federation", needs=("of",), parent="classification", apart=True, tunable=False),
    "folds": Recipe(f"{PIPELINES}.folds", needs=("of",), trains=False, anew=True, tunable=False),
    "pruning": Recipe(f"{PIPELINES}.pruning", needs=("of",), parent="classification"),
    "quantization": Recipe(
        f"{PIPELINES}.quantization", needs=("of",), parent="classification", trains=False, tunable=False
    ),
}
KINDS = ("problem", "method")
SHARED = ("debugging", "distributed", "serve", "tracking")
NAME = re.compile(r"[\w-]{1,100}")


@dataclass(frozen=True)
class Task:
    """`kind` is problem or method, and `choice` which; `sources` are the data set and the tasks that it is made of, by
    key. `problem` and `data_set`, with its `reader`, are its own or those of the first task that it is made of."""

    name: str
    kind: str
    choice: str
    sources: tuple[tuple[str, str], ...]
    problem: str
    data_set: str
    reader: str
    entry: str | None  # of the catalog, where the reader takes the data from one
    remote: bool  # whether files of the user's own are at an address
    features: bool = False  # whether those of layers are asked for

    @property
    def recipe(self) -> Recipe:
        return recipe_of(self.kind, self.choice)

    @property
    def block(self) -> type[BaseModel]:
        """What its block `task` must fit."""
        return keys_of(self.kind, self.choice)


def read_tasks(parameters: Mapping[str, Any], files: Mapping[str, list[Any]] | None = None) -> dict[str, Task]:
    """The tasks in `parameters`, by name; `files` are where each block stands, as far as that is known.

    Raises one InputError with all that is wrong with them.
    """
    _check_names(parameters)
    blocks = {name: block["task"] for name, block in parameters.items() if is_task(name, block)}
    readers, wrong = _readers(parameters)
    data_sets = set(readers)
    wrong |= {name: _mistakes(name, block, blocks.keys(), data_sets) for name, block in blocks.items()}
    wrong = {name: found for name, found in wrong.items() if found} or _circle(blocks) or _unfit(blocks)
    wrong |= {name: [f"{name}: is a task and a data set"] for name in sorted(blocks.keys() & data_sets)}
    if wrong:
        lines = [f"  {line}{_where(name, files or {})}" for name, found in wrong.items() for line in found]
        raise InputError("the tasks cannot be put together:\n" + "\n".join(lines))
    tasks = {}
    for name, block in sorted(blocks.items()):  # Kedro reads its files in any order
        kind = _kind_of(block)
        assert kind is not None
        problem, data_set = _problem(block, blocks), _data_set(block, blocks)
        own = readers[data_set], *origin_of(parameters[data_set])
        asked = recipe_of(kind, block[kind]).trains and parameters[name].get("features") is not None
        tasks[name] = Task(name, kind, block[kind], tuple(_sources(block)), problem, data_set, *own, asked)
    return tasks


def _check_names(parameters: Mapping[Any, Any]) -> None:
    """InputError unless Kedro, and files, can have the names of all tasks and data sets."""
    named = [name for name, block in parameters.items() if is_task(name, block) or is_data_set(block)]
    for name in named:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise InputError(
                f"{name!r}: cannot be the name of a task or a data set, which has letters, digits, _ and -, at most 100"
            )
        if name in SHARED or name == "__default__":
            raise InputError(f"{name}: is a block that all tasks share, and can be no task or data set; rename it")


def readers_of(parameters: Mapping[str, Any]) -> dict[str, str]:
    """The data sets, which are the blocks with a block `preprocess`, and the reader of each."""
    blocks = {name: block["preprocess"] for name, block in parameters.items() if is_data_set(block)}
    given = {name: block.get("reader") if isinstance(block, Mapping) else None for name, block in blocks.items()}
    return {name: default_reader(name) if reader is None else reader for name, reader in given.items()}


def entry_of(block: Any) -> str | None:
    """The entry of the catalog that a data set is made of, if it says one."""
    return entry_in(block["preprocess"])


def entry_in(block: Any) -> str | None:
    """The entry of the catalog that a block of parameters names, if it does."""
    entry = block.get("entry") if isinstance(block, Mapping) else None
    return None if entry is None else str(entry)


def origin_of(block: Any) -> tuple[str | None, bool]:
    """The entry of the catalog that a data set is made of, if it says one, and whether it has files at an address."""
    return entry_of(block), bool(addresses_in(block["preprocess"]))


def start_of(block: Any) -> str | None:
    """The file that a task of these parameters starts from, if it does."""
    start = block["task"].get("start") if isinstance(block["task"], Mapping) else None
    return start if isinstance(start, str) and is_place(start) else None


def _readers(parameters: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The reader of each data set, and a line for each that is none."""
    readers, wrong = readers_of(parameters), {}
    for name, reader in readers.items():
        try:
            check_reader(str(reader))
        except UnknownNameError as error:
            wrong[name] = [f"{name}.preprocess.reader: given {reader!r}; {error}"]
            continue
        entry = entry_of(parameters[name])
        if entry and not hasattr(reader_of(str(reader)), "preprocess_entry"):
            wrong[name] = [f"{name}.preprocess.entry: given {entry!r}, but the reader {reader} takes none"]
    return readers, wrong


def recipe_of(kind: str, name: str) -> Recipe:
    return PROBLEMS.get(name, SOLVING) if kind == "problem" else METHODS[name]


@cache
def keys_of(kind: str, name: str) -> type[BaseModel]:
    """The block `task` of the problem or the method of that name."""
    recipe = recipe_of(kind, name)
    keys: dict[str, Any] = dict.fromkeys(recipe.needs, (str, ...)) | dict.fromkeys(recipe.may, (str | None, None))
    rules = ConfigDict(extra="forbid", strict=True)
    return create_model(name, __config__=rules, **keys, **{kind: (Literal[name], ...)})  # type: ignore[call-overload,no-any-return]


def _mistakes(name: str, block: Any, tasks: Iterable[str], data_sets: set[str]) -> list[str]:
    """A line for each mistake in the block `task` of the task `name`."""
    key = f"{name}.task"
    kind = _kind_of(block)
    if kind is None:
        such = "{problem: classification, data: …} or {method: pruning, of: …}"
        return [f"{key}: given {block!r}; must be a block such as {such}"]
    try:
        check_problem(str(block[kind])) if kind == "problem" else one_of(str(block[kind]), METHODS, "a method")
    except UnknownNameError as error:
        return [f"{key}.{kind}: given {block[kind]!r}; {error}"]
    wrong = [] if _fits(kind, block) else check_block(key, block, keys_of(kind, block[kind]))
    for place, other in {} if wrong else _sources(block):
        if place == "start" and is_place(other):
            continue
        known, what = (data_sets, "data set") if place == "data" else (tasks, "task")
        if other not in known:
            wrong.append(f"{key}.{place}: given {other!r}; {unknown(other, known, what)}")
    return wrong


def _fits(kind: str, block: Mapping[str, Any]) -> bool:
    """Whether the block is right at a glance, which spares nearly all commands a model of it."""
    recipe, given = recipe_of(kind, block[kind]), block.keys() - {kind}
    known = {*recipe.needs, *recipe.may}
    return {*recipe.needs} <= given <= known and all(isinstance(block[key], str) for key in given)


def _kind_of(block: Any) -> str | None:
    """Whether a block `task` is that of a problem or of a method; None of neither or both."""
    found = [kind for kind in KINDS if isinstance(block, Mapping) and kind in block]
    return found[0] if len(found) == 1 else None


def _sources(block: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a task is made of, by key."""
    return [(key, name) for key, name in block.items() if key not in KINDS and name is not None]


def _circle(blocks: Mapping[str, Any]) -> dict[str, list[str]]:
    """A line when a task is made of itself, by way of others or not."""
    made_of = {task: [name for key, name in _sources(block) if key != "data"] for task, block in blocks.items()}
    try:
        TopologicalSorter(made_of).prepare()
    except CycleError as error:
        way = error.args[1][::-1]
        return {way[0]: [f"{way[0]}.task: is made of itself: {' -> '.join(way)}"]}
    return {}


def _data_set(block: Mapping[str, Any], blocks: Mapping[str, Any]) -> str:
    """Where the data of a task come from, if not from the first task that it is made of."""
    key, name = next((source for source in _sources(block) if source[0] == "data"), _sources(block)[0])
    return name if key == "data" else _data_set(blocks[name], blocks)


def _problem(block: Mapping[str, Any], blocks: Mapping[str, Any]) -> str:
    """What a task's model is for: that of the first task that it is made of, if it says none."""
    if "problem" in block:
        return str(block["problem"])
    return _problem(blocks[next(name for key, name in _sources(block) if key != "data")], blocks)


def _unfit(blocks: Mapping[str, Any]) -> dict[str, list[str]]:
    """A line for each task whose method is not for such models as it is made of."""
    wrong = {}
    for name, block in blocks.items():
        for key, other in _sources(block):
            if key != "data" and other in blocks and (reason := _unfit_for(block, key, other, blocks)):
                wrong[name] = [f"{name}.task.{key}: {reason}"]
    return wrong


def _unfit_for(block: Mapping[str, Any], key: str, other: str, blocks: Mapping[str, Any]) -> str | None:
    """Why nothing can be made, as `block` has it, of the task `other`, which it names by `key`."""
    kind = _kind_of(block)
    assert kind is not None
    recipe, choice, problem = recipe_of(kind, block[kind]), block[kind], blocks[other].get("problem")
    if "method" in blocks[other] and not METHODS[blocks[other]["method"]].trains:
        return f"{other} leaves no checkpoint, of which a model could be made"
    if recipe.anew and (not problem or problem in PROBLEMS or blocks[other].get("start")):
        return f"{choice} trains a task anew that solves a problem from nothing, which {other} does not"
    if recipe.parent and key != "start" and problem and not _is_below(problem, recipe.parent):
        does = "asks" if kind == "problem" else "starts from"
        return f"{choice} {does} a {recipe.parent}, but {other} is for the problem {problem}"
    return None


def _is_below(problem: str, parent: str) -> bool:
    """Whether the problem is the other, or a user's own that is a class below it."""
    return problem == parent or isinstance(problem_of(problem), type(problem_of(parent)))


def _where(name: str, files: Mapping[str, list[Any]]) -> str:
    return f" (in {', '.join(map(str, files[name]))})" if files.get(name) else ""


def pipeline_of(task: Task) -> Pipeline:
    """The task's own stages, a report last, after those of its data set where it learns from them itself."""
    from torchloom.pipelines import features, preparation, reporting

    prepared = preparation.create_pipeline(task.data_set, task.reader, task.entry, task.remote)
    more = {"data": task.data_set, "reader": task.reader, "prepared": prepared} if task.recipe.anew else {}
    own = task.recipe.create_pipeline(task.name, task.problem, {**dict(task.sources), **more})
    source = next(iter(prepared.inputs() & {f"{task.data_set}_source"}), None)
    parts = [own, reporting.create_pipeline(task.name, own, source)]
    parts += [prepared] if own.inputs() & prepared.outputs() else []
    parts += [features.create_pipeline(task.name)] if task.features else []
    return Pipeline({node for part in parts for node in part.nodes})


def tasks_of(loader: ConfigLoader) -> dict[str, Task]:
    """The tasks that the loader's environment has; InputError when a run would change them."""
    for name, block in loader.runtime_params.items():
        if is_task(name, block):
            raise InputError(
                f"--params {name}.task: a task cannot be changed for one run, as its graph would be another. Write it "
                "into a parameter file of this or another environment"
            )
    return read_tasks(read_parameters(loader), loader.files)


def all_blocks() -> dict[str, type[BaseModel]]:
    """Every block of parameters by its full key, those `task` among them, and the model that checks it."""
    from torchloom.config.schema import blocks

    return {**blocks(), **{f"{name}.task": task.block for name, task in tasks_of(newest_loader()).items()}}
