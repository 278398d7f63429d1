"""The pipelines of the project, by name: one for each task that the parameters have, and two for all of them."""

from collections.abc import Callable
from functools import lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

from kedro.pipeline import Pipeline

from torchloom.config.checks import unknown
from torchloom.config.loader import newest_loader, read_parameters
from torchloom.errors import InputError
from torchloom.run_options import Filtered
from torchloom.tasks import Task, entry_in, origin_of, pipeline_of, readers_of, tasks_of

OURS = {"distillation", "features", "federation", "folds", "prediction", "preparation", "pruning", "quantization"}
OURS |= {"generation", "reporting", "training"}  # packages of torchloom.pipelines
DataSet = tuple[str, str, str | None, bool]  # its name, its reader and its origin, as tasks.origin_of has it


class Pipelines(dict[str, Pipeline]):
    """Pipelines by name; asking for one that is not there is answered in one message."""

    def __missing__(self, name: str) -> Pipeline:
        known = [known for known in self if known != "__default__"]
        raise InputError(f"--pipelines {name}: {unknown(name, known, 'task')}")


class Deferred(Filtered):
    """A pipeline that is put together when something is asked of it: its name alone takes no import of its stages."""

    def __init__(self, build: Callable[[], Pipeline]) -> None:
        self._build: Callable[[], Pipeline] | None = build

    def __getattr__(self, name: str) -> Any:  # which Python asks for what is not there yet
        if build := self.__dict__.get("_build"):
            self.__dict__.update(vars(build()), _build=None)
        return object.__getattribute__(self, name)


def register_pipelines() -> Pipelines:
    """One named pipeline per task, and for each package of torchloom.pipelines that a user has added with a function
    `create_pipeline`; as the default all but those apart, and all data sets; `predict` and `sweep`."""
    loader = newest_loader()
    tasks = tuple(tasks_of(loader).values())
    parameters = read_parameters(loader)
    data_sets = {(name, reader, *origin_of(parameters[name])) for name, reader in readers_of(parameters).items()}
    return Pipelines(_pipelines(tasks, frozenset(data_sets), entry_in(parameters.get("predict")), _added()))


@lru_cache(maxsize=4)  # each session asks anew
def _pipelines(
    tasks: tuple[Task, ...], data_sets: frozenset[DataSet], asked: str | None, added: tuple[str, ...]
) -> dict[str, Pipeline]:
    """`asked` is the entry of the catalog whose rows `predict` answers, if it does not look into files; `added` are
    packages with pipelines of the user's own."""
    theirs: dict[str, Pipeline] = {name: Deferred(partial(_added_pipeline, name)) for name in added}
    own: dict[str, Pipeline] = {task.name: Deferred(partial(pipeline_of, task)) for task in tasks}
    unused = data_sets - {(task.data_set, task.reader, task.entry, task.remote) for task in tasks}
    parts = [*theirs.values(), *(own[task.name] for task in tasks if not task.recipe.apart)]
    return {
        **theirs,
        **own,
        "predict": Deferred(partial(_predict, asked)),
        "sweep": Deferred(_sweep),
        "__default__": Deferred(partial(_together, parts, unused)),
    }


def _added() -> tuple[str, ...]:
    package = find_spec("torchloom.pipelines")  # which is not imported for its names
    folders = package.submodule_search_locations if package else None
    return tuple(module.name for module in iter_modules(folders) if module.ispkg and module.name not in OURS)


def _added_pipeline(name: str) -> Pipeline:
    created: Pipeline = import_module(f"torchloom.pipelines.{name}").create_pipeline()
    return created


def _predict(entry: str | None) -> Pipeline:
    from torchloom.pipelines import prediction

    return prediction.create_pipeline(entry)


def _sweep() -> Pipeline:
    from torchloom.sweeps import pipeline

    return pipeline.create_pipeline()


def _together(parts: list[Pipeline], unused: frozenset[DataSet]) -> Pipeline:
    from torchloom.pipelines import preparation

    whole = [*parts, *(preparation.create_pipeline(*data_set) for data_set in unused)]
    return Pipeline({node for part in whole for node in part.nodes})
