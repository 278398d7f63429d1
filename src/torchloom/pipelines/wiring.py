"""The graphs that several kinds of task share; each kind's stages and reports are in its own package."""

import warnings
from collections.abc import Iterable
from functools import partial
from types import ModuleType

from kedro.pipeline import Node, Pipeline

from torchloom import previews
from torchloom.pipelines.stages import build_dataloaders, compare, export_formats, export_onnx

TOGETHER = ("params:distributed", "params:debugging")  # parameters that all tasks share


def task_pipeline(
    task: str,
    data: str,
    stages: ModuleType,
    reports: list[str],
    base: str | None = None,
    more: Iterable[Node] = (),
) -> Pipeline:
    """build_dataloaders -> train -> evaluate and export_onnx, on what preprocessing made of the data set `data`.

    `stages` is the module with `train` and `evaluate`, `reports` names the outputs of `evaluate`, and `more` are nodes
    that only this kind of task has. The checkpoint of the task `base` goes into `train`.
    """
    prepared = [f"{data}_train", f"{data}_validation", f"{data}_test", f"{data}_info"]
    started = ["base_checkpoint"] if base else []
    nodes = [
        Node(
            build_dataloaders,
            inputs=[*prepared, "params:data", "params:train", "params:evaluate", "params:debugging"],
            outputs="dataloaders",
            name="build_dataloaders",
            tags="build_dataloaders",
        ),
        train_node(
            task,
            stages,
            inputs=["dataloaders", "params:model", "params:train", *TOGETHER, "training_states", *started],
            outputs=["checkpoint", "last_checkpoint", "history", "profile"],
            data=data,
        ),
        *judged(stages, reports),
        *more,
    ]
    return in_namespace(task, nodes, base, prepared)


def train_node(task: str, stages: ModuleType, inputs: list[str], outputs: list[str], data: str | None = None) -> Node:
    """The stage `train`, on which kedro-viz shows the network; where its `data` are known, untrained too."""
    with warnings.catch_warnings():  # Kedro warns that it may yet change what a preview is
        warnings.filterwarnings("ignore", message="The 'preview_fn' feature is experimental")
        return Node(
            stages.train,
            inputs=inputs,
            outputs=outputs,
            name="train",
            tags="train",
            preview_fn=partial(previews.network, task, data),
        )


def judged(stages: ModuleType, reports: list[str]) -> list[Node]:
    """What becomes of any checkpoint: evaluate, export_onnx and export_formats."""
    return [
        Node(
            stages.evaluate,
            inputs=["checkpoint", "dataloaders", "history", "params:evaluate"],
            outputs=reports,
            name="evaluate",
            tags="evaluate",
        ),
        Node(
            export_onnx,
            inputs=["checkpoint", "dataloaders", "params:export"],
            outputs=["onnx", "export_report"],
            name="export_onnx",
            tags="export_onnx",
        ),
        Node(
            export_formats,
            inputs=["checkpoint", "onnx", "dataloaders", "params:export"],
            outputs=["formats", "formats_report"],
            name="export_formats",
            tags="export_formats",
        ),
    ]


def compared() -> Node:
    """The report on the task's model beside that of the task `base`."""
    return Node(
        compare,
        inputs=["base_checkpoint", "base_onnx", "checkpoint", "onnx", "dataloaders", "params:compare"],
        outputs="comparison",
        name="compare",
        tags="compare",
    )


def in_namespace(task: str, nodes: list[Node], base: str | None = None, prepared: Iterable[str] = ()) -> Pipeline:
    """The nodes of `task`; what they call `base_<name>` is the <name> of the task `base`."""
    used = {name for node in nodes for name in node.inputs}
    inputs = {name: name for name in prepared}
    inputs |= {name: f"{base}.{name.removeprefix('base_')}" for name in used if name.startswith("base_")}
    with warnings.catch_warnings():  # Kedro warns of a dot where one task takes what another has made
        warnings.filterwarnings("ignore", message="One or more dataset names contain")
        return Pipeline(nodes, namespace=task, inputs=inputs, parameters=used & set(TOGETHER), tags=task)
