"""What the stages of all kinds of task have in common; the kinds differ in objective, measures and pictures.

torch is imported inside the functions, so that commands which only look at the project stay quick.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from torchloom.config import DataConfig, ExportConfig, ModelConfig, TrainConfig
from torchloom.data.loaders import LoaderPlan, TensorFile
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchloom.training.loop import Objective

logger = logging.getLogger(__name__)

# keys of `data` for one kind of data only
SUITS = {"augment": "images", "on_device": "images", "max_tokens": "documents", "window": "text"}


def build_dataloaders(
    train: Tensors,
    validation: Tensors,
    test: Tensors,
    info: dict[str, Any],
    data: DataConfig,
    training: Any,
    evaluation: Any,
) -> LoaderPlan:
    """Plan the loaders and try them out: one batch of each split that is not empty.

    `training` and `evaluation` are the TrainConfig and EvaluateConfig of the kind of task: Kedro takes their types from
    its `train` and `evaluate`. Raises InputError when `data` has keys for other kinds of data.
    """
    splits = {"train": train, "validation": validation, "test": test}
    for key in data.model_fields_set & SUITS.keys():
        if info["kind"] != SUITS[key]:
            raise InputError(f"data.{key}: is for {SUITS[key]}, but these data are {info['kind']}; leave it out")
    files = {name: [_file(tensors, info["kind"])] for name, tensors in splits.items()}
    if data.include_validation:
        files["train"], files["validation"] = [*files["train"], *files["validation"]], []
    plan = LoaderPlan.model_validate(
        {
            "splits": files,
            "info": info,
            "data": data,
            "batch_size": training.batch_size,
            "evaluate_batch_size": evaluation.batch_size,
            "seed": training.seed,
        }
    )
    for split in files:
        loader = plan.loader(split)
        if len(loader):
            inputs, *_ = next(iter(loader))
            logger.info("%s: %d batches of %s", split, len(loader), tuple(inputs.shape))
    return plan


def _file(tensors: Tensors, kind: str) -> TensorFile:
    assert tensors.path is not None  # they come from the catalog
    assert tensors.fingerprint is not None
    counted = {"images": "labels", "documents": "labels", "text": "tokens", "table": "target"}[kind]
    return TensorFile(path=tensors.path, fingerprint=tensors.fingerprint, length=len(tensors.arrays[counted]))


def train_network(
    loaders: LoaderPlan, network: ModelConfig, config: TrainConfig, objective: Objective
) -> tuple[Checkpoint, Checkpoint, list[dict[str, float]]]:
    """Train and return the best checkpoint (on validation; without one the last), the last one, and the history."""
    from torchloom.models import build_model
    from torchloom.training.devices import seed_everything
    from torchloom.training.loop import fit
    from torchloom.training.whitening import whiten

    seed_everything(config.seed, config.deterministic)
    model = build_model(network.name, network.arguments, loaders.info)
    logger.info("%s with %s parameters", network.name, f"{sum(p.numel() for p in model.parameters()):,}")
    if config.whitening:
        if loaders.info.kind != "images":
            raise InputError(f"train.whitening: is for images, but these data are {loaders.info.kind}; leave it out")
        whiten(model, loaders.first("train", config.whitening.images)[0], config.whitening)
    result = fit(model, loaders.loader, config, objective)

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


def export_checked(
    checkpoint: Checkpoint, inputs: dict[str, Tensor], outputs: list[str], config: ExportConfig, model: nn.Module
) -> tuple[bytes, dict[str, Any]]:
    """Export `model` to ONNX and hold ONNX Runtime's answers to PyTorch's on real `inputs`.

    Raises InputError, and leaves an earlier export as it was, when an output differs by more than the tolerance.
    """
    from torchloom.export import compare, to_onnx

    onnx_model = to_onnx(model, inputs, outputs, checkpoint, config.opset)
    report = compare(model, onnx_model, inputs, outputs, config.batch_sizes)
    report |= {"tolerance": config.tolerance, "opset": config.opset, "bytes": len(onnx_model)}
    if not report["greatest_difference"] <= config.tolerance:
        raise InputError(
            f"the exported model differs from PyTorch by {report['greatest_difference']:.3g} in an output, more than "
            f"export.tolerance {config.tolerance:g}; nothing was written"
        )
    logger.info("ONNX Runtime agrees to %.2g on %d samples", report["greatest_difference"], report["samples"])
    return onnx_model, report


def first_inputs(loaders: LoaderPlan, config: ExportConfig) -> dict[str, Tensor]:
    """Test samples by the names of the model's inputs, enough for the greatest batch that the export is tried with."""
    inputs = loaders.first("test", max(2, *config.batch_sizes))
    return dict(zip(loaders.info.inputs, inputs, strict=False))
