"""What a trained model makes of a user's own files, or of what an entry of the catalog holds."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from torchloom.pipelines.prediction.nodes import find, find_model, predict, predict_entry


def create_pipeline(entry: str | None = None) -> Pipeline:
    """find -> predict, by the block `predict` of the parameters; `entry` is that of the catalog whose rows are asked
    about, if it is not files."""
    function: Any
    if entry:
        first = Node(find_model, inputs="params:predict", outputs="model", name="find", tags="find")
        function, needed, inputs = predict_entry, ["entry", "params:predict", "remote", "scratch"], {"entry": entry}
    else:
        needed = ["params:predict", "remote"]
        first = Node(find, inputs=needed, outputs=["model", "files"], name="find", tags="find")
        function, needed, inputs = predict, ["files", "params:predict", "scratch"], {}
    outputs = ["predictions", "predictions_parquet", "contact_sheet", "unreadable", "scores", "pictures"]
    second = Node(function, inputs=["model", *needed], outputs=outputs, name="predict", tags="predict")
    return Pipeline([first, second], namespace="predict", inputs=inputs, parameters={"params:predict"})
