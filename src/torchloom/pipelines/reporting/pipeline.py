"""The wiring of a task's last stage: the report on all that the others have made, and the model card."""

from kedro.pipeline import Node, Pipeline

from torchloom.pipelines.reporting.nodes import report

NOT_SHOWN = {
    "last_checkpoint",
    "onnx",
    "formats",
    "partition",
    "profile",
    "generated_images",
}  # files of their own, or large


def create_pipeline(task: str, own: Pipeline, source: str | None = None) -> Pipeline:
    """report, after the stages `own` of the task; `source` is the catalog's account of where its data come from.

    What is made of another task's model is reported on with that task's checkpoint and loaders where it has none.
    A task that has neither gets no report.
    """
    inputs = {name.removeprefix(f"{task}."): name for node in own.nodes for name in node.outputs}
    for name in ("checkpoint", "dataloaders"):
        given = [known for known in sorted(own.inputs()) if known.endswith(f".{name}")]
        if not inputs.setdefault(name, given[0] if given else ""):
            return Pipeline([])
    inputs = {name: full for name, full in inputs.items() if name not in NOT_SHOWN} | {"lineage": f"{task}.lineage"}
    node = Node(
        report,
        inputs=inputs | ({"source": source} if source else {}),
        outputs=[f"{task}.report", f"{task}.model_card"],
        name="report",
        namespace=task,
        tags=["report", task],
    )
    return Pipeline([node])
