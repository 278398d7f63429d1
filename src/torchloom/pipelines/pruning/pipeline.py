"""The wiring of a model that another task's becomes when weights are cut out of it."""

from kedro.pipeline import Node, Pipeline

from torchloom.pipelines.pruning import nodes
from torchloom.pipelines.stages import stage
from torchloom.pipelines.training.pipeline import TOGETHER, compared, evaluation_nodes, in_namespace, train_node
from torchloom.problems import problem_of


def create_pipeline(task: str, *, problem: str, of: str) -> Pipeline:
    """build_dataloaders -> train -> evaluate, export_onnx -> compare, on what the classification `of` has left."""
    solved = problem_of(problem)
    return in_namespace(
        task,
        [
            Node(
                nodes.build_dataloaders,
                inputs=["base_dataloaders", "params:train", "params:evaluate"],
                outputs="dataloaders",
                name="build_dataloaders",
                tags="build_dataloaders",
            ),
            train_node(
                task,
                stage(nodes.train, solved),
                inputs=["base_checkpoint", "dataloaders", "params:train", *TOGETHER, "training_states"],
                outputs=["checkpoint", "history", "profile"],
            ),
            *evaluation_nodes(solved),
            compared("checkpoint"),
        ],
        of,
    )
