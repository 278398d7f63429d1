"""Which values of a task's parameters are the best."""

from kedro.pipeline import Node, Pipeline

from torchloom.sweeps.nodes import report, search


def create_pipeline() -> Pipeline:
    """search -> report, by the block `sweep` of the parameters."""
    return Pipeline(
        [
            Node(
                search, inputs=["parameters", "params:sweep", "study"], outputs="trials", name="search", tags="search"
            ),
            Node(
                report,
                inputs=["trials", "parameters", "params:sweep", "study"],
                outputs=["best", "optimization_history", "importances", "parallel_coordinates", "slices"],
                name="report",
                tags="report",
            ),
        ],
        namespace="sweep",
        parameters={"parameters", "params:sweep"},
    )
