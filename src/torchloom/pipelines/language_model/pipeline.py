"""The wiring of a language model: besides the common stages, one that writes text."""

from kedro.pipeline import Node, Pipeline

from torchloom.pipelines.language_model import nodes
from torchloom.pipelines.wiring import task_pipeline

REPORTS = ["metrics", "characters", "learning_curves"]


def create_pipeline(task: str, *, data: str, start: str | None = None) -> Pipeline:
    generate = Node(
        nodes.generate,
        inputs=["checkpoint", "params:generate"],
        outputs="sample_text",
        name="generate",
        tags="generate",
    )
    return task_pipeline(task, data, nodes, REPORTS, start, more=[generate])
