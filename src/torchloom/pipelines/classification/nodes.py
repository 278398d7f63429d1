"""The stages of a classification task, in the order of the graph.

torch is imported inside the functions, so that commands which only look at the project stay quick.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from torchloom.config import (
    ClassificationTrainConfig,
    ClassifierConfig,
    DebuggingConfig,
    DistributedConfig,
    EvaluateClassifierConfig,
)
from torchloom.data.loaders import LoaderPlan
from torchloom.errors import InputError
from torchloom.modalities import LabelledInfo, check_suits, expect
from torchloom.pipelines.stages import Trained, train_network
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.debugging import adjusted
from torchloom.training.state import TrainingStates

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any  # Kedro resolves these annotations when it looks for parameters; matplotlib takes a second to import

logger = logging.getLogger(__name__)


def train(
    loaders: LoaderPlan,
    network: ClassifierConfig,
    config: ClassificationTrainConfig,
    distributed: DistributedConfig,
    debugging: DebuggingConfig,
    states: TrainingStates | None = None,
    start: Checkpoint | None = None,
) -> Trained:
    """Train a classifier; see `train_network`."""
    from torchloom.training.losses import classification_objective

    check_labels(config, loaders)
    config = adjusted(config, debugging)
    objective = partial(classification_objective, config.loss.name, config.loss.arguments)
    return train_network(loaders, network, config, distributed, debugging, objective, states, start)


def check_labels(config: ClassificationTrainConfig, loaders: LoaderPlan) -> None:
    """InputError unless the loaders give labels that the loss can learn from."""
    from torchloom.training.losses import check_soft_labels, check_weights

    classes = expect(loaders.info, LabelledInfo).classes
    if len(classes) < 2:
        raise InputError(f"to classify takes two classes or more, but these data have only {', '.join(classes)}")
    check_weights(config.loss.name, config.loss.arguments, classes)
    if loaders.data.augment.mixes:
        check_soft_labels(config.loss.name, config.loss.arguments)


def check_classifier(base: Checkpoint) -> None:
    """InputError unless another task's model tells classes apart, as what is made of it is measured by that."""
    from torchloom.models import sizes_of

    if "classes" not in sizes_of(base.network):
        raise InputError(
            "this kind of task starts from a classifier, but the one that its block task names has the network "
            f"{base.network}, which tells no classes apart"
        )


def evaluate(
    checkpoint: Checkpoint, loaders: LoaderPlan, history: list[dict[str, float]], config: EvaluateClassifierConfig
) -> tuple[dict[str, Any], dict[str, Any], Figure, Figure, Figure, Figure, Figure, Figure, list[dict[str, Any]]]:
    """Measure the checkpoint on the test split.

    Returns the metrics (flat), a table by class, the figures: confusion matrix, ROC curves, calibration, learning
    curves, predictions, the most confident right and wrong ones; and the wrong answers as a table, the most confident
    first.
    """
    from torchloom import figures
    from torchloom.evaluation import (
        Views,
        classification_metrics,
        hardest,
        most_confident,
        predict,
        reliability,
        worst_mistakes,
    )
    from torchloom.training.devices import choose_device, choose_precision
    from torchloom.training.losses import classification_loss

    device = choose_device(config.device)
    model = checkpoint.build()
    if config.views != "one":
        check_suits("evaluate.views", loaders.info)
        model = Views(model, config.views)
    known = getattr(checkpoint.info, "views", "one")
    if known != config.views:
        logger.warning(
            "evaluate.views is %s, but the model was trained to be asked with %s, as predict and serve do unless their "
            "views say otherwise. Run from build_dataloaders on, to have them alike",
            config.views,
            known,
        )
    (logits,), labels = predict(
        model.to(device), loaders.loader("test", device), choose_precision(config.precision, device)
    )
    classes = expect(loaders.info, LabelledInfo).classes
    link, (loss, arguments) = checkpoint.link, checkpoint.loss
    trained_for = classification_loss(loss, arguments)
    metrics, per_class, confusion = classification_metrics(logits, labels, classes, link, trained_for)
    metrics |= {"epoch": int(checkpoint.training["epoch"]), "test_samples": len(labels)}
    mistakes = worst_mistakes(logits, labels, classes, link=link)
    more = loaders.info.columns(loaders, [row["test_sample"] for row in mistakes])
    mistakes = [{**row, **columns} for row, columns in zip(mistakes, more, strict=True)]

    def shown(numbers: list[int]) -> Figure:
        return loaders.info.predictions(loaders, numbers, labels[numbers], logits[numbers], classes, link)

    first = list(range(min(config.pictures, len(labels))))
    sides = [most_confident(logits, labels, right, link)[:9].tolist() for right in (True, False)]
    calibration = figures.no_calibration(loss)
    if link:
        calibration = figures.calibration(reliability(logits, labels, link), metrics["calibration_error"])
    logger.info("test accuracy %.4f, loss %.4f", metrics["accuracy"], metrics["loss"])
    return (
        metrics,
        per_class,
        figures.confusion_matrix(confusion, classes),
        figures.roc_curves(logits, labels, classes, hardest(per_class), link),
        calibration,
        figures.learning_curves(history),
        shown(first),
        shown([*sides[0], *sides[1]]),
        mistakes,
    )
