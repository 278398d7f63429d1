"""What a trained model makes of a user's own files."""

from kedro.pipeline import Node, Pipeline

from torchloom.pipelines.prediction.nodes import find, predict


def create_pipeline() -> Pipeline:
    """find -> predict, by the block `predict` of the parameters."""
    return Pipeline(
        [
            Node(find, inputs=["params:predict", "remote"], outputs=["model", "files"], name="find", tags="find"),
            Node(
                predict,
                inputs=["model", "files", "params:predict", "scratch"],
                outputs=["predictions", "predictions_parquet", "contact_sheet", "unreadable", "scores", "pictures"],
                name="predict",
                tags="predict",
            ),
        ],
        namespace="predict",
        parameters={"params:predict"},
    )
