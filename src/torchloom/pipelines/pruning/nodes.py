"""The stages that only a pruning has; the others are those of a classification.

torch is imported inside the functions, so that commands which only look at the project stay quick.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from torchloom.config import DebuggingConfig, DistributedConfig
from torchloom.errors import InputError
from torchloom.pipelines.training.nodes import train_network
from torchloom.problems.base import Problem
from torchloom.problems.classification import check_classifier
from torchloom.problems.classification.config import PrunedTrainConfig
from torchloom.records.provenance import reads
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.debugging import adjusted
from torchloom.training.loaders import LoaderPlan
from torchloom.training.state import TrainingStates

logger = logging.getLogger(__name__)


@reads(model=[], train=["batch_size", "seed"], evaluate=["views"])
def build_dataloaders(loaders: LoaderPlan, training: PrunedTrainConfig, evaluation: Any) -> LoaderPlan:
    """The loaders of the task that is pruned, with the batches and the seed of this training."""
    info = loaders.info.asked(loaders.data, evaluation)
    return loaders.model_copy(update={"info": info, "batch_size": training.batch_size, "seed": training.seed})


def train(
    checkpoint: Checkpoint,
    loaders: LoaderPlan,
    config: PrunedTrainConfig,
    distributed: DistributedConfig,
    debugging: DebuggingConfig,
    states: TrainingStates,
    *,
    problem: Problem,
) -> tuple[Checkpoint, list[dict[str, float]], dict[str, bytes]]:
    """Cut weights out of a trained classifier, more at each epoch, while it goes on learning.

    Returns the checkpoint of the last epoch, the history and the profile.
    """
    from torchloom.compression.pruning import check_channels, gradual_pruning, without_channels, without_masks

    check_classifier(checkpoint)
    problem.check(config, loaders)
    config = adjusted(problem.settled(config, loaders), debugging)
    inputs = loaders.first("train", 2)[0]
    if config.prune.form == "structured":
        check_channels(checkpoint, config.prune, inputs)
    objective = partial(problem.objective, config, loaders.info)
    pruning = partial(gradual_pruning, config.prune)
    _, last, history, profile = train_network(
        problem, loaders, None, config, distributed, debugging, objective, states, start=checkpoint, at_epoch=pruning
    )
    if config.prune.form == "structured":
        try:
            return without_channels(last, inputs), history, profile
        except InputError as error:  # what has been learnt is worth more
            logger.warning("%s. Here the channels that were cut stay, as zeros", error.message)
    return last.model_copy(update={"weights": without_masks(last.weights)}), history, profile
