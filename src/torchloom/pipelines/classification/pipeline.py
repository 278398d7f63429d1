"""The wiring of a classification task, of images or of documents."""

from kedro.pipeline import Pipeline

from torchloom.pipelines.classification import nodes
from torchloom.pipelines.wiring import task_pipeline

REPORTS = [
    *("metrics", "per_class", "confusion_matrix", "roc_curves", "calibration"),
    *("learning_curves", "predictions", "best_and_worst", "mistakes"),
]


def create_pipeline(task: str, *, data: str, start: str | None = None) -> Pipeline:
    return task_pipeline(task, data, nodes, REPORTS, start)
