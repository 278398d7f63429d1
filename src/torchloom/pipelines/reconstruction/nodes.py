"""The stages of a reconstruction task, in the order of the graph.

torch is imported inside the functions, so that commands which only look at the project stay quick.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from torchloom.config import (
    AutoencoderConfig,
    DebuggingConfig,
    DistributedConfig,
    EvaluateExamplesConfig,
    ReconstructionTrainConfig,
)
from torchloom.data.loaders import LoaderPlan
from torchloom.modalities import ImageInfo, expect
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
    network: AutoencoderConfig,
    config: ReconstructionTrainConfig,
    distributed: DistributedConfig,
    debugging: DebuggingConfig,
    states: TrainingStates | None = None,
    start: Checkpoint | None = None,
) -> Trained:
    """Train an autoencoder; see `train_network`."""
    from torchloom.training.losses import reconstruction_objective

    expect(loaders.info, ImageInfo)
    config = adjusted(config, debugging)
    objective = partial(reconstruction_objective, config.loss.name, config.loss.arguments, config.divergence)
    return train_network(loaders, network, config, distributed, debugging, objective, states, start)


def evaluate(
    checkpoint: Checkpoint, loaders: LoaderPlan, history: list[dict[str, float]], config: EvaluateExamplesConfig
) -> tuple[dict[str, Any], Figure, Figure, Figure, Figure, Figure]:
    """Measure the checkpoint on the test split, beside what principal components of as many numbers reach.

    Returns the metrics and the figures: learning curves, test images and their reconstructions, those that come back
    best and worst, a map of the latent space, and images decoded from latents that were drawn.
    """
    import torch

    from torchloom import figures
    from torchloom.evaluation import by_error, draw_images, predict, principal_components_mse, reconstruction_metrics
    from torchloom.training.devices import choose_device

    device = choose_device(config.device)
    model = checkpoint.build().to(device)
    (reconstructions, latents, divergences), _ = predict(model, loaders.loader("test", device))
    images, labels = loaders.first("test", len(latents))
    train_images, _ = loaders.trained()
    metrics = reconstruction_metrics(images, reconstructions, divergences)
    metrics["principal_components_mse"] = principal_components_mse(train_images, images, latents.shape[1])
    metrics |= {"latent": latents.shape[1], "epoch": int(checkpoint.training["epoch"]), "test_samples": len(images)}
    logger.info("test MSE %.5f per pixel on [0, 1]", metrics["mse"])
    shown = min(config.pictures, len(images))
    order = by_error(images, reconstructions)
    extremes = torch.cat([order[:9], order[9:][-9:]])
    return (
        metrics,
        figures.learning_curves(history),
        figures.reconstruction_grid(images[:shown], reconstructions[:shown]),
        figures.reconstruction_grid(images[extremes], reconstructions[extremes]),
        figures.latent_map(latents, labels, expect(loaders.info, ImageInfo).classes),
        figures.image_grid(draw_images(model, train_images[:10_000], config.pictures)),
    )
