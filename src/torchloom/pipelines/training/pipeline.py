"""The graph of a task that learns from a data set, and the parts of it that other methods share."""

import warnings
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

from kedro.pipeline import Node, Pipeline

from torchloom.pipelines.stages import stage
from torchloom.pipelines.training import nodes as stages
from torchloom.problems import problem_of
from torchloom.problems.base import Problem
from torchloom.reporting import previews
from torchloom.system.addresses import is_place

TOGETHER = ("params:distributed", "params:debugging")  # parameters that all tasks share


def create_pipeline(task: str, *, problem: str, data: str, start: str | None = None) -> Pipeline:
    """The task that solves the problem on the data set `data`, starting with the weights of task or file `start`."""
    solved = problem_of(problem)
    file = start is not None and is_place(start)
    base = None if file else start
    return task_pipeline(task, solved, data, stages.train, base, solved.more_stages(), from_file=file)


def task_pipeline(
    task: str,
    problem: Problem,
    data: str,
    train: Callable[..., Any],
    base: str | None = None,
    more: Iterable[Node] = (),
    evaluate: Callable[..., Any] = stages.evaluate,
    judge: str | None = None,
    from_file: bool = False,
) -> Pipeline:
    """build_dataloaders -> train -> evaluate and export_onnx, on what preprocessing made of the data set `data`.

    The checkpoint of the task `base` goes into `train`, or what the task starts `from_file`; that of the task `judge`
    also into `evaluate`. `more` are nodes that others have not.
    """
    prepared = [f"{data}_train", f"{data}_validation", f"{data}_test", f"{data}_info"]
    judged = ["judge_checkpoint"] if judge else []
    started = ["base_checkpoint"] if base else ["start_checkpoint"] if from_file else []
    nodes = [
        Node(
            stages.build_dataloaders,
            inputs=[*prepared, "params:data", "params:train", "params:evaluate", "params:debugging"],
            outputs="dataloaders",
            name="build_dataloaders",
            tags="build_dataloaders",
        ),
        train_node(
            task,
            stage(train, problem),
            inputs=["dataloaders", "params:model", "params:train", *TOGETHER, "training_states", *started, *judged],
            outputs=["checkpoint", "last_checkpoint", "history", "profile"],
            untrained=(problem, data),
        ),
        *evaluation_nodes(problem, evaluate, judged),
        *more,
    ]
    return in_namespace(task, nodes, base, prepared, judge)


def train_node(
    task: str,
    train: Callable[..., Any],
    inputs: list[str],
    outputs: list[str],
    untrained: tuple[Problem, str] | None = None,
) -> Node:
    """The stage `train`, on which kedro-viz shows the network; `untrained` too, from its problem and data set."""
    with warnings.catch_warnings():  # Kedro warns that it may yet change what a preview is
        warnings.filterwarnings("ignore", message="The 'preview_fn' feature is experimental")
        return Node(
            train,
            inputs=inputs,
            outputs=outputs,
            name="train",
            tags="train",
            preview_fn=partial(previews.network, task, untrained),
        )


def evaluation_nodes(
    problem: Problem, evaluate: Callable[..., Any] = stages.evaluate, judged: Collection[str] = ()
) -> list[Node]:
    """What becomes of any checkpoint: evaluate, with what it is `judged` by, export_onnx and export_formats."""
    return [
        Node(
            stage(evaluate, problem),
            inputs=["checkpoint", "dataloaders", "history", "params:evaluate", *judged],
            outputs={name: name for name in problem.reports},
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
        Node(
            stages.export_formats,
            inputs=["checkpoint", "onnx", "dataloaders", "params:export"],
            outputs=["formats", "formats_report"],
            name="export_formats",
            tags="export_formats",
        ),
    ]


def compared(*after: str, loaders: str = "dataloaders") -> Node:
    """The report on the task's model beside that of the task `base`; `after` is its checkpoint, if it has one."""
    return Node(
        stages.compare,
        inputs=["base_checkpoint", "base_onnx", "onnx", loaders, "params:compare", *after],
        outputs="comparison",
        name="compare",
        tags="compare",
    )


def in_namespace(
    task: str, nodes: list[Node], base: str | None = None, prepared: Collection[str] = (), judge: str | None = None
) -> Pipeline:
    """The nodes of `task`; what they call `base_<name>` is the <name> of the task `base`, parameters too, and
    `judge_<name>` that of the task `judge`.

    What is `prepared` is called so everywhere, and so are blocks of parameters among it.
    """
    used = {name for node in nodes for name in node.inputs}
    blocks = {name: name.replace("base_", f"{base}.", 1) for name in used if name.startswith("params:base_")}
    shared = {*TOGETHER, *(name for name in prepared if name.startswith("params:"))}
    parameters = {**{name: name for name in used & shared}, **blocks}
    inputs = {name: name for name in prepared if name not in shared}
    for part, other in (("base_", base), ("judge_", judge)):
        inputs |= {name: f"{other}.{name.removeprefix(part)}" for name in used if name.startswith(part)}
    with warnings.catch_warnings():  # Kedro warns of a dot where one task takes what another has made
        warnings.filterwarnings("ignore", message="One or more dataset names contain")
        return Pipeline(nodes, namespace=task, inputs=inputs, parameters=parameters, tags=task)
