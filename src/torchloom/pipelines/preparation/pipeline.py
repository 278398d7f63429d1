"""The stages that belong to a data set and that all of its tasks share."""

from importlib import import_module

from kedro.pipeline import Node, Pipeline

from torchloom.pipelines.preparation.nodes import download


def create_pipeline(data: str) -> Pipeline:
    """download -> preprocess, for the data set whose module is torchloom.data.<data>."""
    module = import_module(f"torchloom.data.{data}")
    splits = [f"{data}_train", f"{data}_validation", f"{data}_test"]
    return Pipeline(
        [
            Node(download, inputs="source", outputs=f"{data}_raw", name="download", tags="download"),
            Node(
                module.preprocess,
                inputs=[f"{data}_raw", "params:preprocess"],
                outputs=[*splits, f"{data}_info"],
                name="preprocess",
                tags="preprocess",
            ),
        ],
        namespace=data,
        inputs={"source": f"{data}_source"},
        outputs={f"{data}_raw", *splits, f"{data}_info"},
        tags=data,
    )
