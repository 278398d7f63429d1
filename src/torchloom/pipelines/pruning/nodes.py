"""The stages that only a pruning has; the others are those of a classification.

torch is imported inside the functions, so that commands which only look at the project stay quick.
"""

from __future__ import annotations

import logging
from typing import Any

from torchloom.config import PrunedTrainConfig
from torchloom.data.info import ImageInfo, LabelledInfo, expect
from torchloom.data.loaders import LoaderPlan
from torchloom.pipelines.classification.nodes import check_labels, evaluate
from torchloom.provenance import code_of
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.state import TrainingStates

__all__ = ["build_dataloaders", "evaluate", "train"]

logger = logging.getLogger(__name__)


def build_dataloaders(loaders: LoaderPlan, training: PrunedTrainConfig) -> LoaderPlan:
    """The loaders of the task that is pruned, with the batches and the seed of this training."""
    return loaders.model_copy(update={"batch_size": training.batch_size, "seed": training.seed})


def train(
    checkpoint: Checkpoint, loaders: LoaderPlan, config: PrunedTrainConfig, states: TrainingStates
) -> tuple[Checkpoint, list[dict[str, float]]]:
    """Cut weights out of a trained classifier, more at each epoch, while it goes on learning.

    Returns the checkpoint of the last epoch and the history.
    """
    from torchloom.training.devices import seed_everything
    from torchloom.training.loop import TIMES, fit
    from torchloom.training.losses import classification_objective
    from torchloom.training.pruning import Pruner, remove_channels, without_masks
    from torchloom.training.transfer import freeze, weights_depending_on

    expect(checkpoint.info, ImageInfo if config.prune.form == "structured" else LabelledInfo)
    check_labels(config, loaders)
    seed_everything(config.seed, config.deterministic)
    model = checkpoint.build()
    head = weights_depending_on("classes", checkpoint.network, checkpoint.arguments, checkpoint.info)
    inputs = loaders.first("train", 2)[0]
    pruner = Pruner(model, config.prune, head, inputs)
    freeze(model, config.freeze)
    objective = classification_objective(config.loss.name, config.loss.arguments)
    code, packages = code_of(train, objective, names=[checkpoint.network])
    recipe: dict[str, Any] = {
        "start": checkpoint.fingerprint(),
        "train": config.recipe(),
        "dataloaders": loaders.recipe(),
        "code": code,
        "packages": packages,
    }
    result = fit(model, loaders.loader, config, objective, states, recipe, pruner)
    figures = {name: value for name, value in result.history[-1].items() if name not in TIMES}
    weights = without_masks(result.last)
    if config.prune.form == "structured":
        cut = checkpoint.model_copy(update={"weights": weights}).build()
        remove_channels(cut, inputs)
        weights = {name: tensor.contiguous() for name, tensor in cut.state_dict().items()}
    training = {**figures, "parameters": config.recipe()}
    resized = checkpoint.resized or config.prune.form == "structured"
    pruned = checkpoint.model_copy(update={"weights": weights, "training": training, "resized": resized})
    return pruned, result.history
