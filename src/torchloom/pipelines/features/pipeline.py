"""The wiring of what layers inside a trained network answer."""

from kedro.pipeline import Node, Pipeline

from torchloom.pipelines.features import nodes
from torchloom.pipelines.training.pipeline import in_namespace


def create_pipeline(task: str) -> Pipeline:
    """features, of the checkpoint of the task and of its data."""
    inputs = ["checkpoint", "dataloaders", "params:features", "params:export", "features_scratch"]
    outputs = ["features", "features_onnx"]
    return in_namespace(task, [Node(nodes.features, inputs=inputs, outputs=outputs, name="features", tags="features")])
