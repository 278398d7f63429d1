"""The stages that a generation has in a way of its own; the others are those of any problem.

torch is imported inside the functions, so that commands which only look at the project stay quick.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torchloom.config import DebuggingConfig, DistributedConfig
from torchloom.pipelines.training import nodes
from torchloom.pipelines.training.nodes import Trained, train_network
from torchloom.problems.base import Problem
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.debugging import adjusted
from torchloom.training.loaders import LoaderPlan
from torchloom.training.state import TrainingStates


def train(
    loaders: LoaderPlan,
    network: Any,
    training: Any,
    distributed: DistributedConfig,
    debugging: DebuggingConfig,
    states: TrainingStates | None = None,
    judge: Checkpoint | None = None,
    *,
    problem: Problem,
) -> Trained:
    """Train generator and discriminator from the first; see `train_from`."""
    return train_from(loaders, network, training, distributed, debugging, states, None, judge, problem=problem)


def train_from(
    loaders: LoaderPlan,
    network: Any,
    training: Any,
    distributed: DistributedConfig,
    debugging: DebuggingConfig,
    states: TrainingStates | None,
    start: Checkpoint | None,
    judge: Checkpoint | None = None,
    *,
    problem: Problem,
) -> Trained:
    """Train generator and discriminator; see `train_network`. What the same latents become is kept meanwhile."""
    from torchloom.problems.generation.contest import filming

    judged = replace(problem, judge=judge)  # type: ignore[call-arg]
    judged.check(training, loaders)
    config = adjusted(judged.settled(training, loaders), debugging)
    objective = partial(judged.objective, config, loaders.info)
    kept = partial(filming, config.epochs, judged.sizes(loaders.info)["classes"])
    more = {"judge": judge.fingerprint()} if judge else {}
    return train_network(judged, loaders, network, config, distributed, debugging, objective, states, start, kept, more)


def evaluate(
    checkpoint: Checkpoint,
    loaders: LoaderPlan,
    history: list[dict[str, float]],
    evaluation: Any,
    judge: Checkpoint | None = None,
    *,
    problem: Problem,
) -> dict[str, Any]:
    """Measure the checkpoint by what the judge sees; see `nodes.evaluate`."""
    judged = replace(problem, judge=judge)  # type: ignore[call-arg]
    return nodes.evaluate(checkpoint, loaders, history, evaluation, problem=judged)
