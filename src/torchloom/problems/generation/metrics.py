"""How far generated images are from real ones, by what a classifier sees in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.errors import InputError

if TYPE_CHECKING:
    from torchloom.training.checkpoint import Checkpoint

POOLED = 8  # pixels of a side, at most, of the images that are compared without a judge
SEEN = 0.1  # of its even share, from which a class counts as one that is generated

# Images (B, C, H, W) uint8 -> what is compared of them (B, F), and the logits (B, classes) of a judge, or (B, 0).
Look = Callable[[Tensor], tuple[Tensor, Tensor]]


def frechet_distance(some: Tensor, others: Tensor) -> float:
    """Between the normal distributions that fit the rows of (N, F) and (M, F).

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^1/2): Dowson & Landau, "The Fréchet distance between multivariate normal
    distributions", 1982; of a network's features Heusel et al., NIPS 2017 (arXiv:1706.08500). The product of two
    covariances has the eigenvalues of C1^1/2 C2 C1^1/2, which is symmetric; all in float64. Few rows make it larger:
    compare only what is of equally many.
    """
    (mean, covariance), (other_mean, other_covariance) = map(moments, (some, others))
    values, axes = torch.linalg.eigh(covariance)
    root = axes * values.clamp(min=0).sqrt() @ axes.T
    common = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp(min=0).sqrt().sum()
    apart = (mean - other_mean).square().sum() + covariance.trace() + other_covariance.trace() - 2 * common
    return max(0.0, float(apart))


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (F,) and covariance (F, F) of rows (N, F), in float64."""
    features = features.double().cpu()
    return features.mean(0), features.T.cov(correction=min(1, len(features) - 1)).reshape(features.shape[1], -1)


def looking(judge: Checkpoint | None) -> Look:
    """What a judge, a classifier of such images, has before its last layer; without one, the pixels in coarse."""
    if judge is None:
        return coarse
    model, seen = judge.build(), list[Tensor]()
    last = last_layer(model, judge)
    last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))

    @torch.no_grad()
    def look(images: Tensor) -> tuple[Tensor, Tensor]:
        seen.clear()
        with torch.autocast(images.device.type, enabled=False):
            logits = model.to(images.device)(images)
        return seen[-1].float().flatten(1), logits.float()

    return look


def coarse(images: Tensor) -> tuple[Tensor, Tensor]:
    """The means of their pixels on [0, 1] in at most POOLED x POOLED places, (B, F)."""
    height, width = (min(POOLED, side) for side in images.shape[2:])
    pooled = F.adaptive_avg_pool2d(images.float() / 255, (height, width))
    return pooled.flatten(1), images.new_zeros(len(images), 0, dtype=torch.float32)


def last_layer(model: nn.Module, judge: Checkpoint) -> nn.Module:
    """The dense layer that gives its logits; InputError when it has none."""
    classes = len(judge.info.target.classes)  # type: ignore[union-attr]
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer.out_features == classes]
    if not layers:
        raise InputError(
            f"task.judge: the network {judge.network} ends in no dense layer, before which there were features. Take a "
            "classifier with one, such as lenet or resnet"
        )
    return layers[-1]


def looked_at(look: Look, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """The features (N, F) and logits (N, classes) of all images, on the CPU."""
    features, logits = zip(*(map(Tensor.cpu, look(images)) for images in batches), strict=True)
    return torch.cat(features), torch.cat(logits)


def noise_like(batches: Iterable[Tensor], mean: list[float], std: list[float]) -> Iterator[Tensor]:
    """Images (B, C, H, W) uint8 in batches like those, of independent pixels with these means and deviations on [0, 1],
    cut off where bytes end."""
    source = torch.Generator().manual_seed(0)
    shift, scale = (255 * torch.tensor(each).view(1, -1, 1, 1) for each in (mean, std))
    for images in batches:
        pixels = torch.randn(images.shape, generator=source) * scale + shift
        yield pixels.round().clamp(0, 255).to(torch.uint8).to(images.device)


def class_figures(logits: Tensor, labels: Tensor | None) -> dict[str, float]:
    """Which classes a judge sees in generated images, by its logits (N, classes): `class_entropy` of their shares, 1
    where all are equally frequent and 0 where there is one; `classes_seen`, how many have SEEN of an even share.

    `judge_accuracy` is how often it sees the class that was asked for, `labels` (N,), if any was.
    """
    classes = logits.shape[1]
    shares = logits.argmax(1).bincount(minlength=classes).double() / len(logits)
    found: dict[str, Any] = {
        "class_entropy": torch.special.entr(shares).sum().item() / math.log(classes),
        "classes_seen": int((shares >= SEEN / classes).sum()),
    }
    if labels is not None:
        found["judge_accuracy"] = (logits.argmax(1) == labels).double().mean().item()
    return found
