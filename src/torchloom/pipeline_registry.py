"""The table of tasks: a name, the kind of problem, the data set. Everything else about a task is in its YAML file."""

from kedro.pipeline import Pipeline

from torchloom.errors import InputError
from torchloom.pipelines import classification, preparation
from torchloom.validation import unknown

TASKS = {
    "mnist_mlp": (classification, "mnist"),
    "cifar_resnet": (classification, "cifar10"),
}


class Pipelines(dict[str, Pipeline]):
    """Pipelines by name; asking for one that is not there is answered in one message."""

    def __missing__(self, name: str) -> Pipeline:
        raise InputError(f"--pipeline {name}: {unknown(name, TASKS, 'task')}")


def register_pipelines() -> Pipelines:
    """One named pipeline per task, and all of them together as the default."""
    pipelines = {
        task: preparation.create_pipeline(data) + problem.create_pipeline(task, data)
        for task, (problem, data) in TASKS.items()
    }
    return Pipelines({**pipelines, "__default__": sum(pipelines.values(), Pipeline([]))})
