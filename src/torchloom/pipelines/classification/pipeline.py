"""The wiring of an image classification task."""

from kedro.pipeline import Node, Pipeline

from torchloom.pipelines.classification.nodes import build_dataloaders, evaluate, export_onnx, train


def create_pipeline(task: str, data: str) -> Pipeline:
    """build_dataloaders -> train -> evaluate and export_onnx, on what preprocessing made of the data set `data`."""
    prepared = [f"{data}_train", f"{data}_validation", f"{data}_test", f"{data}_info"]
    return Pipeline(
        [
            Node(
                build_dataloaders,
                inputs=[*prepared, "params:data", "params:train", "params:evaluate"],
                outputs="dataloaders",
                name="build_dataloaders",
                tags="build_dataloaders",
            ),
            Node(
                train,
                inputs=["dataloaders", "params:model", "params:train"],
                outputs=["checkpoint", "last_checkpoint", "history"],
                name="train",
                tags="train",
            ),
            Node(
                evaluate,
                inputs=["checkpoint", "dataloaders", "history", "params:evaluate"],
                outputs=["metrics", "per_class", "confusion_matrix", "learning_curves", "predictions"],
                name="evaluate",
                tags="evaluate",
            ),
            Node(
                export_onnx,
                inputs=["checkpoint", "dataloaders", "params:export"],
                outputs=["onnx", "export_report"],
                name="export_onnx",
                tags="export_onnx",
            ),
        ],
        namespace=task,
        inputs=set(prepared),
        tags=task,
    )
