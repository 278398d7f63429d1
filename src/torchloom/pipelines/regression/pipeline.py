"""The wiring of a regression task."""

from kedro.pipeline import Pipeline

from torchloom.pipelines.regression import nodes
from torchloom.pipelines.wiring import task_pipeline

REPORTS = ["metrics", "coefficients", "learning_curves", "residuals", "coefficient_plot", "largest_residuals"]


def create_pipeline(task: str, *, data: str, start: str | None = None) -> Pipeline:
    return task_pipeline(task, data, nodes, REPORTS, start)
