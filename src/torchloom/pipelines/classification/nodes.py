"""The stages of an image classification task, in the order of the graph.

torch is imported inside the functions, so that commands which only look at the project stay quick.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from torchloom.config import DataConfig, EvaluateConfig, ExportConfig, ModelConfig, TrainConfig
from torchloom.data.loaders import ImageInfo, LoaderPlan, TensorFile
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any  # Kedro resolves these annotations when it looks for parameters; matplotlib takes a second to import

logger = logging.getLogger(__name__)


def build_dataloaders(
    train: Tensors,
    validation: Tensors,
    test: Tensors,
    info: dict[str, Any],
    data: DataConfig,
    training: TrainConfig,
    evaluation: EvaluateConfig,
) -> LoaderPlan:
    """Plan the loaders and try them out: one batch of each split that is not empty."""
    files = {"train": _file(train), "validation": _file(validation), "test": _file(test)}
    splits = {name: [file] for name, file in files.items()}
    if data.include_validation:
        splits["train"], splits["validation"] = [files["train"], files["validation"]], []
    plan = LoaderPlan(
        splits=splits,
        info=ImageInfo(**info),
        batch_size=training.batch_size,
        evaluate_batch_size=evaluation.batch_size,
        augment=data.augment,
        seed=training.seed,
    )
    for split in splits:
        loader = plan.loader(split)
        if plan.length(split):
            images, _ = next(iter(loader))
            logger.info("%s: %d images, %d batches of %s", split, plan.length(split), len(loader), tuple(images.shape))
    return plan


def _file(tensors: Tensors) -> TensorFile:
    assert tensors.path is not None  # they come from the catalog
    assert tensors.fingerprint is not None
    return TensorFile(path=tensors.path, fingerprint=tensors.fingerprint, length=len(tensors.arrays["labels"]))


def train(
    loaders: LoaderPlan, network: ModelConfig, config: TrainConfig
) -> tuple[Checkpoint, Checkpoint, list[dict[str, float]]]:
    """Train and return the best checkpoint (on validation; without one the last), the last one, and the history."""
    from torchloom.models import ImageClassifier, build_network
    from torchloom.training.devices import seed_everything
    from torchloom.training.loop import fit
    from torchloom.training.losses import classification_objective

    seed_everything(config.seed, config.deterministic)
    classes = loaders.info.classes
    model = ImageClassifier(
        build_network(network.name, loaders.info.shape, len(classes), network.arguments),
        loaders.info.mean,
        loaders.info.std,
    )
    logger.info("%s with %s parameters", network.name, f"{sum(p.numel() for p in model.parameters()):,}")
    result = fit(model, loaders.loader, config, classification_objective(config.loss.name, config.loss.arguments))

    def checkpoint(weights: dict[str, Any], epoch: int) -> Checkpoint:
        return Checkpoint(
            network=network.name,
            arguments=network.arguments,
            info=loaders.info,
            training={**result.history[epoch - 1], "parameters": config.model_dump(mode="json")},
            weights=weights,
        )

    best = checkpoint(result.best, result.best_epoch)
    return best, checkpoint(result.last, len(result.history)), result.history


def evaluate(
    checkpoint: Checkpoint, loaders: LoaderPlan, history: list[dict[str, float]], config: EvaluateConfig
) -> tuple[dict[str, Any], dict[str, Any], Figure, Figure, Figure]:
    """Measure the checkpoint on the test split.

    Returns the metrics (flat), a table by class, and the figures: confusion matrix, learning curves, predictions.
    """
    from torchloom.evaluation import classification_metrics, predict
    from torchloom.figures import confusion_matrix, learning_curves, prediction_grid
    from torchloom.training.devices import choose_device

    device = choose_device(config.device)
    logits, labels = predict(checkpoint.build().to(device), loaders.loader("test", device))
    metrics, per_class, confusion = classification_metrics(logits, labels, loaders.info.classes)
    metrics |= {"epoch": int(checkpoint.training["epoch"]), "test_images": len(labels)}
    images, truth = loaders.first("test", config.pictures)
    logger.info("test accuracy %.4f, loss %.4f", metrics["accuracy"], metrics["loss"])
    return (
        metrics,
        per_class,
        confusion_matrix(confusion, loaders.info.classes),
        learning_curves(history),
        prediction_grid(images, truth, logits[: len(images)], loaders.info.classes),
    )


def export_onnx(checkpoint: Checkpoint, loaders: LoaderPlan, config: ExportConfig) -> tuple[bytes, dict[str, Any]]:
    """Export to ONNX with the normalisation inside, and hold ONNX Runtime's answers to PyTorch's on test images.

    The graph: `images` (batch, channels, height, width) uint8 -> `logits` (batch, classes) float32, any batch.
    Raises InputError, and leaves an earlier export as it was, when a logit differs by more than the tolerance.
    """
    from torchloom.export import compare, to_onnx

    model = checkpoint.build()
    onnx_model = to_onnx(model, checkpoint, config.opset)
    images, _ = loaders.first("test", max(config.batch_sizes))
    report = compare(model, onnx_model, images, config.batch_sizes)
    report |= {"tolerance": config.tolerance, "opset": config.opset, "bytes": len(onnx_model)}
    if not report["greatest_difference"] <= config.tolerance:
        raise InputError(
            f"the exported model differs from PyTorch by {report['greatest_difference']:.3g} in a logit, more than "
            f"export.tolerance {config.tolerance:g}; nothing was written"
        )
    logger.info("ONNX Runtime agrees to %.2g on %d images", report["greatest_difference"], report["images"])
    return onnx_model, report
