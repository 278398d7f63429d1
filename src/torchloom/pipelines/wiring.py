"""The graph that all kinds of task share; each kind's stages and reports are in its own package."""

from types import ModuleType

from kedro.pipeline import Node, Pipeline

from torchloom.pipelines.stages import build_dataloaders


def task_pipeline(
    task: str, data: str, stages: ModuleType, reports: list[str], more: list[Node] | None = None
) -> Pipeline:
    """build_dataloaders -> train -> evaluate and export_onnx, on what preprocessing made of the data set `data`.

    `stages` is the module with `train`, `evaluate` and `export_onnx`, `reports` names the outputs of `evaluate`, and
    `more` are nodes that only this kind of task has.
    """
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
                stages.train,
                inputs=["dataloaders", "params:model", "params:train", "training_states"],
                outputs=["checkpoint", "last_checkpoint", "history"],
                name="train",
                tags="train",
            ),
            Node(
                stages.evaluate,
                inputs=["checkpoint", "dataloaders", "history", "params:evaluate"],
                outputs=reports,
                name="evaluate",
                tags="evaluate",
            ),
            Node(
                stages.export_onnx,
                inputs=["checkpoint", "dataloaders", "params:export"],
                outputs=["onnx", "export_report"],
                name="export_onnx",
                tags="export_onnx",
            ),
            *(more or []),
        ],
        namespace=task,
        inputs=set(prepared),
        tags=task,
    )
