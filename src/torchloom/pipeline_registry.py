"""The pipelines of the project, by name: one for each task that the parameters have, and two for all of them."""

from functools import lru_cache

from kedro.pipeline import Pipeline

from torchloom.config.checks import unknown
from torchloom.config.loader import newest_loader, read_parameters
from torchloom.errors import InputError
from torchloom.pipelines import prediction, preparation
from torchloom.sweeps import pipeline as sweeps
from torchloom.tasks import Task, entry_of, pipeline_of, readers_of, tasks_of


class Pipelines(dict[str, Pipeline]):
    """Pipelines by name; asking for one that is not there is answered in one message."""

    def __missing__(self, name: str) -> Pipeline:
        known = [known for known in self if known != "__default__"]
        raise InputError(f"--pipelines {name}: {unknown(name, known, 'task')}")


def register_pipelines() -> Pipelines:
    """One named pipeline per task; as the default all but those apart, and all data sets; `predict` and `sweep`."""
    loader = newest_loader()
    tasks = tuple(tasks_of(loader).values())
    parameters = read_parameters(loader)
    data_sets = {(name, reader, entry_of(parameters[name])) for name, reader in readers_of(parameters).items()}
    return Pipelines(_pipelines(tasks, frozenset(data_sets)))


@lru_cache(maxsize=4)  # each session asks anew
def _pipelines(tasks: tuple[Task, ...], data_sets: frozenset[tuple[str, str, str | None]]) -> dict[str, Pipeline]:
    own = {task.name: pipeline_of(task) for task in tasks}
    unused = data_sets - {(task.data_set, task.reader, task.entry) for task in tasks}
    parts = [own[task.name] for task in tasks if not task.apart]
    parts += [preparation.create_pipeline(*data_set) for data_set in unused]
    together = Pipeline({node for part in parts for node in part.nodes})
    more = {"predict": prediction.create_pipeline(), "sweep": sweeps.create_pipeline()}
    return {**own, **more, "__default__": together}
