"""The stages that only a pruning has; the others are those of a classification.

torch is imported inside the functions, so that commands which only look at the project stay quick.
"""

from __future__ import annotations

import logging
from functools import partial

from torchloom.config import DebuggingConfig, DistributedConfig, EvaluateClassifierConfig, PrunedTrainConfig
from torchloom.data.loaders import LoaderPlan
from torchloom.errors import InputError
from torchloom.modalities import ImageInfo, LabelledInfo, expect
from torchloom.pipelines.classification.nodes import check_classifier, check_labels, evaluate
from torchloom.pipelines.stages import train_network
from torchloom.provenance import reads
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.debugging import adjusted
from torchloom.training.state import TrainingStates

logger = logging.getLogger(__name__)

__all__ = ["build_dataloaders", "evaluate", "train"]


@reads(train=["batch_size", "seed"], evaluate=["views"])
def build_dataloaders(
    loaders: LoaderPlan, training: PrunedTrainConfig, evaluation: EvaluateClassifierConfig
) -> LoaderPlan:
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
) -> tuple[Checkpoint, list[dict[str, float]], dict[str, bytes]]:
    """Cut weights out of a trained classifier, more at each epoch, while it goes on learning.

    Returns the checkpoint of the last epoch, the history and the profile.
    """
    from torchloom.training.losses import classification_objective
    from torchloom.training.pruning import check_channels, gradual_pruning, without_channels, without_masks

    expect(checkpoint.info, ImageInfo if config.prune.form == "structured" else LabelledInfo)
    check_classifier(checkpoint)
    check_labels(config, loaders)
    config = adjusted(config, debugging)
    inputs = loaders.first("train", 2)[0]
    if config.prune.form == "structured":
        check_channels(checkpoint, config.prune, inputs)
    objective = partial(classification_objective, config.loss.name, config.loss.arguments)
    pruning = partial(gradual_pruning, config.prune)
    _, last, history, profile = train_network(
        loaders, None, config, distributed, debugging, objective, states, start=checkpoint, at_epoch=pruning
    )
    if config.prune.form == "structured":
        try:
            return without_channels(last, inputs), history, profile
        except InputError as error:  # what has been learnt is worth more
            logger.warning("%s. Here the channels that were cut stay, as zeros", error.message)
    return last.model_copy(update={"weights": without_masks(last.weights)}), history, profile
