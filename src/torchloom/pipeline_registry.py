"""The table of tasks: a name, the kind of problem, the data set. Everything else about a task is in its YAML file."""

from kedro.pipeline import Pipeline

from torchloom.errors import InputError
from torchloom.pipelines import classification, language_model, preparation, reconstruction, regression
from torchloom.validation import unknown

TASKS = {
    "mnist_mlp": (classification, "mnist"),
    "mnist_lenet": (classification, "mnist"),
    "mnist_lstm": (classification, "mnist"),
    "mnist_autoencoder": (reconstruction, "mnist"),
    "cifar_cnn": (classification, "cifar10"),
    "cifar_alexnet": (classification, "cifar10"),
    "cifar_vgg": (classification, "cifar10"),
    "cifar_resnet": (classification, "cifar10"),
    "cifar_densenet": (classification, "cifar10"),
    "cifar_speedrun": (classification, "cifar10"),
    "cifar_speedrun96": (classification, "cifar10"),
    "linear_regression": (regression, "diabetes"),
    "wonderland_lstm": (language_model, "wonderland"),
    "imdb_lstm": (classification, "imdb"),
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
