"""The wiring of a reconstruction task: an autoencoder of images."""

from kedro.pipeline import Pipeline

from torchloom.pipelines.reconstruction import nodes
from torchloom.pipelines.wiring import task_pipeline

REPORTS = ["metrics", "learning_curves", "reconstructions", "best_and_worst", "latent_map", "generated"]


def create_pipeline(task: str, *, data: str, start: str | None = None) -> Pipeline:
    return task_pipeline(task, data, nodes, REPORTS, start)
