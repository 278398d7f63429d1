"""The stages that belong to a data set and that all of its tasks share."""

from functools import cache
from inspect import signature
from typing import Any

from kedro.pipeline import Node, Pipeline

from torchloom.data.readers import reader
from torchloom.pipelines.preparation.nodes import Bringing, download


@cache  # as several tasks learn from the same data
def create_pipeline(data: str, reader_name: str, entry: str | None = None, remote: bool = False) -> Pipeline:
    """download -> preprocess; find_files -> preprocess where the reader finds the user's own files; or preprocess alone
    of an entry of the catalog. `remote` is whether files of the user's own are at an address."""
    prepared = [f"{data}_train", f"{data}_validation", f"{data}_test", f"{data}_info"]
    chosen: Any = reader(reader_name)
    bring: Any = Bringing if remote else lambda function: function
    more, elsewhere = (["remote"], {"remote": f"{data}_remote"}) if remote else ([], {})
    if entry:
        inputs = {"entry": entry, **elsewhere}
        needed = ["entry", "params:preprocess"]
        if "scratch" in signature(chosen.preprocess_entry).parameters:  # of what may be larger than the memory
            needed, inputs = [*needed, "scratch"], inputs | {"scratch": f"{data}_scratch"}
        function = bring(chosen.preprocess_entry)
        node = Node(function, inputs=[*needed, *more], outputs=prepared, name="preprocess", tags="preprocess")
        return Pipeline([node], namespace=data, inputs=inputs, outputs=set(prepared), tags=data)
    if not hasattr(chosen, "find"):
        raw, inputs = f"{data}_raw", {"source": f"{data}_source"}
        first = Node(download, inputs="source", outputs=raw, name="download", tags="download")
        needed = [raw, "params:preprocess"]
    else:
        raw, inputs, needed = f"{data}_files", {"scratch": f"{data}_scratch", **elsewhere}, ["params:preprocess", *more]
        first = Node(bring(chosen.find), inputs=needed, outputs=raw, name="find_files", tags="find_files")
        needed = [raw, "params:preprocess", "scratch"]
    second = Node(chosen.preprocess, inputs=needed, outputs=prepared, name="preprocess", tags="preprocess")
    return Pipeline([first, second], namespace=data, inputs=inputs, outputs={raw, *prepared}, tags=data)
