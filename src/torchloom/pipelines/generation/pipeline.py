"""The wiring of a generation, whose images another task's classifier may judge."""

from kedro.pipeline import Pipeline

from torchloom.pipelines.generation import nodes
from torchloom.pipelines.training.pipeline import task_pipeline
from torchloom.problems import problem_of


def create_pipeline(
    task: str, *, problem: str, data: str, start: str | None = None, judge: str | None = None
) -> Pipeline:
    """A generation on the data set `data`, from the weights of the task `start`, with the model of the task `judge`."""
    solved, train = problem_of(problem), nodes.train_from if start else nodes.train
    more = solved.more_stages()
    return task_pipeline(task, solved, data, train, start, more, evaluate=nodes.evaluate, judge=judge)
