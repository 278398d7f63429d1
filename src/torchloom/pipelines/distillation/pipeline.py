"""The wiring of a student that learns from another task's model."""

from kedro.pipeline import Pipeline

from torchloom.pipelines.distillation import nodes
from torchloom.pipelines.training.pipeline import compared, task_pipeline
from torchloom.problems import problem_of


def create_pipeline(task: str, *, problem: str, data: str, teacher: str) -> Pipeline:
    """A classification task whose training is taught by the model of the task `teacher`, and the report on both."""
    return task_pipeline(task, problem_of(problem), data, nodes.train, teacher, more=[compared("checkpoint")])
