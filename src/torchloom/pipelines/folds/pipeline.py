"""The wiring of a cross-validation: another task is trained anew without each part of its data."""

from kedro.pipeline import Node, Pipeline

from torchloom.config import AnewConfig
from torchloom.data.readers import block_of
from torchloom.pipelines.folds import nodes
from torchloom.pipelines.stages import stage
from torchloom.pipelines.training import nodes as stages
from torchloom.pipelines.training.pipeline import TOGETHER, in_namespace
from torchloom.problems import problem_of


def create_pipeline(task: str, *, problem: str, of: str, data: str, reader: str, prepared: Pipeline) -> Pipeline:
    """build_dataloaders -> cross_validate -> report_folds, with the parameters of the task `of`, on its data set.

    What is `prepared` so that it hangs on what is trained on is prepared anew for each fold, of the same source.
    """
    given = [f"{data}_train", f"{data}_validation", f"{data}_test", f"{data}_info"]
    blocks = ["params:base_data", "params:base_model", "params:base_train", "params:base_evaluate"]
    anew = issubclass(block_of(reader) or object, AnewConfig)
    source = next(node.inputs for node in prepared.nodes if "preprocess" in node.tags)[:2] if anew else []
    return in_namespace(
        task,
        [
            Node(
                stages.build_dataloaders,
                inputs=[*given, blocks[0], *blocks[2:], "params:debugging"],
                outputs="dataloaders",
                name="build_dataloaders",
                tags="build_dataloaders",
            ),
            Node(
                stage(nodes.cross_validate, problem_of(problem), reader if anew else ""),
                inputs=["dataloaders", *blocks, "params:folds", *TOGETHER, "training_states", "folds", *source],
                outputs=["fold_metrics", "out_of_fold"],
                name="cross_validate",
                tags="cross_validate",
            ),
            Node(
                stage(nodes.report_folds, problem_of(problem)),
                inputs=["dataloaders", "fold_metrics", "out_of_fold", "lineage"],
                outputs=["metrics", "label_issues", "fold_plot", "report"],
                name="report_folds",
                tags="report_folds",
            ),
        ],
        of,
        [*given, *source],
    )
