"""The stages that only a federation has; the others are those of a classification.

torch is imported inside the functions, so that commands which only look at the project stay quick.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from torchloom.config import DebuggingConfig, PartitionConfig
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.pipelines.training.nodes import say_if_one_step
from torchloom.problems.base import Problem
from torchloom.problems.classification import classes_of
from torchloom.problems.classification.config import FederatedTrainConfig
from torchloom.records.provenance import code_of, reads
from torchloom.system.locks import command
from torchloom.system.words import counted
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan
from torchloom.training.state import TrainingStates

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any  # Kedro resolves these annotations when it looks for parameters; matplotlib takes a second to import

logger = logging.getLogger(__name__)


@reads(model=[], train=["batch_size", "seed"], evaluate=["views"])
def build_dataloaders(
    loaders: LoaderPlan,
    training: FederatedTrainConfig,
    evaluation: Any,
    debugging: DebuggingConfig,
) -> LoaderPlan:
    """The loaders of the task beside which this one stands, with the batches and the seed of this training."""
    if debugging.on:
        raise InputError(
            "debugging: looks at trainings in one place, not at those of clients. Take the task beside which this one "
            "stands: its network and its loop are the same"
        )
    require_flower()
    info = loaders.info.asked(loaders.data, evaluation)
    return loaders.model_copy(update={"info": info, "batch_size": training.batch_size, "seed": training.seed})


def require_flower() -> None:
    """InputError when Flower is not installed, with the line that makes an environment with it."""
    missing = [name for name in ("flwr", "ray") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"federated learning needs {' and '.join(missing)}, in an environment of its own, since Flower asks for "
            "older packages than the rest. This line makes it and goes on:\n"
            f"UV_PROJECT_ENVIRONMENT=.venv-federated uv run --no-dev --extra federated {command()}"
        )


def partition(loaders: LoaderPlan, config: PartitionConfig) -> tuple[Tensors, list[dict[str, Any]], Figure]:
    """Deal the training samples out to the clients.

    Returns the numbers of their samples in the train split, `samples` (N,), with `starts` (clients + 1,) of where those
    of each client begin; and the samples of each class as a table with a row per client, and as a picture.
    """
    from torchloom.federated import partition as shards
    from torchloom.system import figures
    from torchloom.system.fonts import naming

    classes = classes_of(loaders.info)
    known = loaders.trained_numbers().numpy()
    labels = loaders.loader("train").dataset.labels.numpy()[known]  # type: ignore[attr-defined]
    parts = shards.partition(labels, len(classes), config)
    counts = shards.class_counts(labels, parts, len(classes))
    logger.info(
        "%s with %d to %d samples; shares of classes differ from those of all by %.3f (mean total variation)",
        *(counted(config.clients, "client"), counts.sum(1).min(), counts.sum(1).max(), shards.skew(counts)),
    )
    starts = np.cumsum([0, *map(len, parts)])
    dealt = Tensors({"samples": known[np.concatenate(parts)], "starts": starts}, description=_data(loaders))
    rows = [{"client": client, **dict(zip(classes, row.tolist(), strict=True))} for client, row in enumerate(counts)]
    with naming(loaders.info.drawn_names()):
        return dealt, rows, figures.class_shares(counts, classes)


def _data(loaders: LoaderPlan) -> dict[str, Any]:
    """What the partition is a partition of."""
    return {"train": loaders.recipe()["splits"]["train"], "subset": loaders.data.subset}


def train(
    loaders: LoaderPlan,
    dealt: Tensors,
    network: Any,
    config: FederatedTrainConfig,
    states: TrainingStates,
    *,
    problem: Problem,
) -> tuple[Checkpoint, list[dict[str, float]]]:
    """Train with the clients of the partition: the best round's checkpoint (on validation; without one the last).

    Returns the history too, in which `epoch` counts rounds. InputError when the partition is of other data.
    """
    require_flower()
    from torchloom.federated.federation import Federation, Server
    from torchloom.federated.flower import run_rounds
    from torchloom.training import pretrained
    from torchloom.training.loop import TIMES

    problem.check(config, loaders)
    config = problem.settled(config, loaders)
    if dealt.description != _data(loaders):
        raise InputError(f"{dealt.path}: is of other data. Run the partition stage again: kedro run --tags partition")
    samples, starts = (np.asarray(dealt.arrays[name]) for name in ("samples", "starts"))
    say_if_one_step(config, len(samples) // (len(starts) - 1), "client's samples")
    network, loaders = pretrained.settled(network, loaders)
    federation = Federation(problem, loaders, network, config, np.split(samples, starts[1:-1]))
    code, packages = code_of(train, names=[network.name, problem.name, loaders.info.kind])
    recipe: dict[str, Any] = {
        "model": network.model_dump(mode="json"),
        "train": config.recipe(),
        "dataloaders": loaders.recipe(),
        "partition": dealt.fingerprint,
        "code": code,
        "packages": packages,
        **pretrained.fingerprint(network),
    }
    server = Server(federation, states, recipe)
    run_rounds(federation, server)
    row = {name: value for name, value in server.history[server.best_round - 1].items() if name not in TIMES}
    checkpoint = Checkpoint(
        network=network.name,
        arguments=network.arguments,
        problem=problem.name,
        info=loaders.info,
        training={**row, "parameters": config.recipe()},
        weights=server.best,
    )
    return problem.completed(checkpoint, loaders, config), server.history


def compare_rounds(
    central_history: list[dict[str, float]],
    central_metrics: dict[str, Any],
    history: list[dict[str, float]],
    metrics: dict[str, Any],
) -> tuple[dict[str, Any], Figure]:
    """The federation beside the training in one place: a report of flat figures, and accuracy by round and epoch.

    Accuracies are fractions; `points` are those that the federation is better by. `round_within_a_point` is the first
    whose test accuracy is at most a point (0.01) lower than the central one, null when there is none.
    """
    from torchloom.system import figures

    central = central_metrics["accuracy"]
    near = [int(row["epoch"]) for row in history if row["test_accuracy"] >= central - 0.01]
    report = {
        "central_accuracy": central,
        "central_epochs": len(central_history),
        "federated_accuracy": metrics["accuracy"],
        "federated_round": metrics["epoch"],
        "rounds": len(history),
        "last_round_accuracy": history[-1]["test_accuracy"],
        "points": 100 * (metrics["accuracy"] - central),
        "round_within_a_point": near[0] if near else None,
    }
    logger.info("test accuracy: central %.4f, federated %.4f", central, metrics["accuracy"])
    return report, figures.rounds(central_history, central, history)
