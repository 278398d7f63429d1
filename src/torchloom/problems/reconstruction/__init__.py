"""Reconstruction: an autoencoder of images, which makes a few numbers of each, and the image of them again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torchloom.config import EvaluateExamplesConfig
from torchloom.data.targets import Classes
from torchloom.errors import InputError
from torchloom.modalities import ImageInfo, Info
from torchloom.modalities.base import Axes
from torchloom.problems.base import Columns, Objective, Problem, known_classes
from torchloom.problems.reconstruction.config import AutoencoderConfig, ReconstructionTrainConfig

if TYPE_CHECKING:
    import pyarrow
    from torch import Tensor, nn

    from torchloom.config import AnswerConfig
    from torchloom.inference.model import Model
    from torchloom.training.checkpoint import Checkpoint
    from torchloom.training.loaders import LoaderPlan

logger = logging.getLogger(__name__)

REPORTS = {
    "metrics": "",
    "learning_curves": "",
    "reconstructions": "The first test images, and below each what is made of it.",
    "best_and_worst": "Best and worst: the test images that come back best, then those that come back worst, and below "
    "each what is made of it.",
    "latent_map": "The latent space of the test images, on its two principal components.",
    "generated": "Images that the decoder makes of latents that were drawn; with classes, a row for each.",
}


CLASSES = 20  # of which generated images are shown, at most
ALL = "All test images, from the one that comes back best to the worst, and below each what is made of it."


class Reconstruction(Problem):
    """A network gives the reconstruction (B, C, H, W) on [0, 1], the latent (B, latent) and the divergence (B,)."""

    network = AutoencoderConfig
    training = ReconstructionTrainConfig
    evaluation = EvaluateExamplesConfig
    modalities: ClassVar = (ImageInfo,)
    reports = REPORTS
    tag = "feature-extraction"
    answers = ("reconstruction", "latent", "divergence")
    state_axes: ClassVar[Axes] = {"labels": {0: "batch"}}
    card = "templates/reconstruction.md"

    def sizes(self, info: Info) -> dict[str, Any]:
        return {"classes": len(known_classes(info))}

    def meanings(self, info: Info) -> dict[str, Any]:
        return {"classes": known_classes(info)}

    def objective(self, config: ReconstructionTrainConfig, info: Info) -> Objective:
        told = bool(known_classes(info))
        return reconstruction_objective(config.loss.name, config.loss.arguments, config.divergence, told)

    def evaluate(
        self,
        checkpoint: Checkpoint,
        loaders: LoaderPlan,
        history: list[dict[str, float]],
        config: EvaluateExamplesConfig,
    ) -> dict[str, Any]:
        """The metrics, beside what principal components of as many numbers reach, and figures."""
        import torch

        from torchloom.problems.evaluation import own_metrics, predict
        from torchloom.problems.reconstruction import metrics as measures
        from torchloom.system import figures
        from torchloom.system.devices import choose_device

        device = choose_device(config.device)
        model: Any = checkpoint.build().to(device)
        names = known_classes(loaders.info) if model.network.conditional else []
        test = loaders.loader("test", device)
        (reconstructions, latents, divergences), _ = predict(model, Labelled(test) if names else test)
        images, labels = loaders.first("test", len(latents))
        train_images, trained_on = loaders.trained()
        metrics = measures.reconstruction_metrics(images, reconstructions, divergences)
        metrics |= own_metrics(config.metrics, reconstructions, images.float() / 255, metrics)
        components = measures.principal_components_mse(train_images, images, latents.shape[1])
        metrics["principal_components_mse"] = components
        metrics |= {"latent": latents.shape[1], "epoch": int(checkpoint.training["epoch"]), "test_samples": len(images)}
        logger.info("test MSE %.5f per pixel on [0, 1]", metrics["mse"])
        shown = min(config.pictures, len(images))
        order = measures.by_error(images, reconstructions)
        extremes = torch.cat([order[:9], order[9:][-9:]])
        first = torch.arange(shown) if shown < len(images) else order
        target = loaders.info.target
        known, classes = torch.zeros(len(latents), dtype=torch.int64), [loaders.info.unit]
        if isinstance(target, Classes) and target.array == "labels":
            known, classes = labels, target.classes
        told = trained_on[:10_000] if names else None
        generated: Any = partial(measures.draw_images, model, train_images[:10_000], labels=told)
        return {
            "metrics": metrics,
            "learning_curves": figures.learning_curves(history),
            "reconstructions": figures.reconstruction_grid(images[first], reconstructions[first]),
            "best_and_worst": figures.reconstruction_grid(images[extremes], reconstructions[extremes])
            if shown < len(images)
            else b"",
            "latent_map": figures.latent_map(latents, known, classes),
            "generated": figures.image_rows(by_class(generated, names, config.pictures))
            if names
            else figures.image_grid(generated(config.pictures)),
        }

    # ---- for exported models ---------------------------------------------------------------------------------------

    def signature(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """The images and, of a conditional network, their classes."""
        import torch

        network: Any = model.network
        images = inputs["images"]
        labels = {"labels": torch.arange(len(images)) % network.classes} if network.conditional else {}
        return {"images": images, **labels}, list(self.answers)

    def captions(self, made: Mapping[str, Any]) -> Mapping[str, str | None]:
        return self.reports if made.get("best_and_worst") else {**self.reports, "reconstructions": ALL}

    def answering(
        self,
        model: Model,
        config: AnswerConfig,
    ) -> tuple[pyarrow.Schema, Callable[[list[Any]], Columns]]:
        """The error per pixel, and the latent."""
        import pyarrow

        if "labels" in {entry.name for entry in model.session.get_inputs()}:
            raise InputError(
                "this autoencoder is conditional: it must be told the class of each image, which predict and serve do "
                "not know. Its ONNX file takes images and labels"
            )
        latent = model.session.get_outputs()[1].shape[1]
        names = ["mse", *(f"latent_{place}" for place in range(1, latent + 1))]
        return pyarrow.schema(dict.fromkeys(names, pyarrow.float32())), partial(_reconstruct, model)

    def caption(self, model: Model, row: dict[str, Any]) -> str:
        return f"MSE {row['mse']:.4f}"


PROBLEM = Reconstruction


def _reconstruct(model: Model, samples: list[Any]) -> Columns:
    import numpy as np

    inputs = model.info.batch(samples)
    reconstructions, latents = model.session.run(["reconstruction", "latent"], inputs)
    errors = ((inputs["images"] / np.float32(255) - reconstructions) ** 2).mean((1, 2, 3))
    return {"mse": errors} | {f"latent_{place}": column for place, column in enumerate(latents.T, start=1)}


class Labelled:
    """A loader of images and classes, whose classes are inputs too."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.sampler = loader, loader.sampler

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for images, labels in self.loader:
            yield images, labels, labels


def by_class(draw: Callable[..., Tensor], classes: list[str], count: int) -> list[tuple[str, Tensor]]:
    """Generated images for each of the first classes, together about so many."""
    from torchloom.system.figures import COLUMNS

    shown = classes[:CLASSES]
    across = max(1, min(COLUMNS, count // len(shown)))
    return [(name, draw(across, label=place)) for place, name in enumerate(shown)]


def reconstruction_objective(name: str, arguments: dict[str, Any], divergence: float, told: bool = False) -> Objective:
    """What an autoencoder is trained for: the mean loss per pixel on [0, 1], and the mean squared error.

    Where it is `told` classes, those of a batch are the targets.

    A variational network's divergence from its prior is added, `divergence` times and per pixel, so that with weight 1
    and BCELoss the sum is the negative evidence lower bound (Kingma & Welling, "Auto-encoding variational Bayes", ICLR
    2014); other weights are Higgins et al., "beta-VAE", ICLR 2017.
    """
    import torch
    import torch.nn.functional as F

    from torchloom.problems.losses import created_loss

    loss = created_loss(name, arguments)

    def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        images, *_, labels = batch
        pixels = images.float() / 255
        reconstruction, _, kl = model(images, labels) if told else model(images)
        with torch.autocast(images.device.type, enabled=False):
            total = loss(reconstruction, pixels) + divergence * kl.mean() / pixels[0].numel()
        return total, {"mse": F.mse_loss(reconstruction, pixels)}

    return objective
