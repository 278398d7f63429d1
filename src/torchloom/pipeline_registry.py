"""The table of tasks: a name, the kind of problem, the data set. Everything else about a task is in its YAML file."""

from kedro.pipeline import Pipeline

from torchloom.pipelines import classification, preparation

TASKS = {
    "mnist_mlp": (classification, "mnist"),
    "cifar_resnet": (classification, "cifar10"),
}


def register_pipelines() -> dict[str, Pipeline]:
    """One named pipeline per task, and all of them together as the default."""
    pipelines = {
        task: preparation.create_pipeline(data) + problem.create_pipeline(task, data)
        for task, (problem, data) in TASKS.items()
    }
    return {**pipelines, "__default__": sum(pipelines.values(), Pipeline([]))}
