"""The wiring of a classifier that clients train together, each on samples of its own."""

from kedro.pipeline import Node, Pipeline

from torchloom.pipelines.federation import nodes
from torchloom.pipelines.stages import stage
from torchloom.pipelines.training.pipeline import evaluation_nodes, in_namespace, train_node
from torchloom.problems import problem_of


def create_pipeline(task: str, *, problem: str, of: str) -> Pipeline:
    """build_dataloaders -> partition -> train -> evaluate, export_onnx, compare_rounds: beside the task `of`.

    That is the same classification with all samples in one place; its loaders are what the clients share out.
    """
    solved = problem_of(problem)
    return in_namespace(
        task,
        [
            Node(
                nodes.build_dataloaders,
                inputs=["base_dataloaders", "params:train", "params:evaluate", "params:debugging"],
                outputs="dataloaders",
                name="build_dataloaders",
                tags="build_dataloaders",
            ),
            Node(
                nodes.partition,
                inputs=["dataloaders", "params:partition"],
                outputs=["partition", "class_counts", "partition_plot"],
                name="partition",
                tags="partition",
            ),
            train_node(
                task,
                stage(nodes.train, solved),
                inputs=["dataloaders", "partition", "params:model", "params:train", "training_states"],
                outputs=["checkpoint", "history"],
            ),
            *evaluation_nodes(solved),
            Node(
                nodes.compare_rounds,
                inputs=["base_history", "base_metrics", "history", "metrics"],
                outputs=["rounds_report", "rounds_plot"],
                name="compare_rounds",
                tags="compare_rounds",
            ),
        ],
        of,
    )
