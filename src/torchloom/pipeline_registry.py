"""The table of tasks: a name, the kind of problem, the data set. Everything else about a task is in its YAML file.

A third entry is a task whose trained model this one starts from, or learns from. What is made of another task's model
names that task in place of the data.
"""

from typing import Any

from kedro.pipeline import Pipeline

from torchloom.errors import InputError
from torchloom.pipelines import (
    classification,
    distillation,
    federated,
    language_model,
    prediction,
    preparation,
    pruning,
    quantization,
    reconstruction,
    regression,
    reporting,
    sweep,
)
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
    "mnist_lenet_quantized": (quantization, "mnist_lenet"),
    "cifar_resnet_pruned": (pruning, "cifar_resnet"),
    "cifar_resnet_quantized": (quantization, "cifar_resnet"),
    "cifar_cnn_distilled": (distillation, "cifar10", "cifar_resnet"),
    "mnist_lenet_federated": (federated, "mnist_lenet"),
}
APART = {task for task, (problem, *_) in TASKS.items() if problem is federated}  # in an environment of their own


class Pipelines(dict[str, Pipeline]):
    """Pipelines by name; asking for one that is not there is answered in one message."""

    def __missing__(self, name: str) -> Pipeline:
        raise InputError(f"--pipelines {name}: {unknown(name, [*TASKS, 'predict', 'sweep'], 'task')}")


def register_pipelines() -> Pipelines:
    """One named pipeline per task, all but those APART together as the default, `predict` and `sweep`."""
    pipelines = {task: pipeline_of(task) for task in TASKS}
    together = Pipeline({node for task, each in pipelines.items() if task not in APART for node in each.nodes})
    more = {"predict": prediction.create_pipeline(), "sweep": sweep.create_pipeline()}
    return Pipelines({**pipelines, **more, "__default__": together})


def pipeline_of(task: str) -> Pipeline:
    """The task's own stages, a report last, after those of its data set unless its source is another task."""
    entry: Any = TASKS[task]
    problem, source, *base = entry
    own: Pipeline = problem.create_pipeline(task, source, *base)
    data = source
    while data in TASKS:
        data = str(TASKS[data][1])
    prepared = preparation.create_pipeline(data)
    own += reporting.create_pipeline(task, own, next(iter(prepared.inputs() & {f"{data}_source"}), None))
    return own if source in TASKS else prepared + own
