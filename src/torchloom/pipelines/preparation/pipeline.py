"""The stages that belong to a data set and that all of its tasks share."""

from importlib import import_module
from importlib.util import find_spec

from kedro.pipeline import Node, Pipeline

from torchloom.pipelines.preparation.nodes import download, find_images, preprocess_folder


def create_pipeline(data: str) -> Pipeline:
    """download -> preprocess, for the data set whose module is torchloom.data.<data>.

    A data set without a module is a folder of pictures: find_images -> preprocess.
    """
    prepared = [f"{data}_train", f"{data}_validation", f"{data}_test", f"{data}_info"]
    module = f"torchloom.data.{data}"
    preprocess = getattr(import_module(module), "preprocess", None) if find_spec(module) else None
    if preprocess:
        raw, inputs = f"{data}_raw", {"source": f"{data}_source"}
        first = Node(download, inputs="source", outputs=raw, name="download", tags="download")
        second = Node(preprocess, inputs=[raw, "params:preprocess"], outputs=prepared, name="preprocess")
    else:
        raw, inputs = f"{data}_images", {"scratch": f"{data}_scratch"}
        first = Node(find_images, inputs="params:preprocess", outputs=raw, name="find_images", tags="find_images")
        needed = [raw, "params:preprocess", "scratch"]
        second = Node(preprocess_folder, inputs=needed, outputs=prepared, name="preprocess")
    return Pipeline(
        [first, second.tag("preprocess")], namespace=data, inputs=inputs, outputs={raw, *prepared}, tags=data
    )
