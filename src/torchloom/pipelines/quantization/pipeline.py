"""The wiring of a model in int8, made of another task's."""

from kedro.pipeline import Node, Pipeline

from torchloom.pipelines.quantization.nodes import quantize
from torchloom.pipelines.training.pipeline import compared, in_namespace


def create_pipeline(task: str, *, problem: str, of: str) -> Pipeline:  # noqa: ARG001 - as all methods are called
    """quantize -> compare, on what `of` has left: its ONNX model, and its loaders to calibrate and to test."""
    nodes = [
        Node(
            quantize,
            inputs=["base_checkpoint", "base_onnx", "base_dataloaders", "params:quantize"],
            outputs="onnx",
            name="quantize",
            tags="quantize",
        ),
        compared(loaders="base_dataloaders"),
    ]
    return in_namespace(task, nodes, of)
