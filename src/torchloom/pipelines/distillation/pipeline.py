"""The wiring of a student that learns from another task's model."""

from kedro.pipeline import Node, Pipeline

from torchloom.pipelines.classification.pipeline import REPORTS
from torchloom.pipelines.distillation import nodes
from torchloom.pipelines.wiring import task_pipeline


def create_pipeline(task: str, data: str, base: str) -> Pipeline:
    """A classification task whose training is taught by the model of the task `base`, and the report on both."""
    compare = Node(
        nodes.compare,
        inputs=["base_checkpoint", "base_onnx", "checkpoint", "onnx", "dataloaders", "params:compare"],
        outputs="comparison",
        name="compare",
        tags="compare",
    )
    return task_pipeline(task, data, nodes, REPORTS, base, more=[compare])
