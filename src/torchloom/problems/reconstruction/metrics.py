"""How well images come back, and images that were never there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def reconstruction_metrics(images: Tensor, reconstructions: Tensor, divergences: Tensor) -> dict[str, Any]:
    """Figures per pixel on [0, 1] from images (N, C, H, W) uint8 and reconstructions of that shape.

    `bce` is the binary cross entropy in nats, `divergence` the mean of (N,) nats per image.
    """
    pixels = images.float() / 255
    return {
        "mse": F.mse_loss(reconstructions, pixels).item(),
        "mae": F.l1_loss(reconstructions, pixels).item(),
        "bce": F.binary_cross_entropy(reconstructions, pixels).item(),
        "divergence": divergences.mean().item(),
    }


def by_error(images: Tensor, reconstructions: Tensor) -> Tensor:
    """The numbers (N,) of the images (N, C, H, W) uint8 by their squared error, the best reconstructed first."""
    return (images.float() / 255 - reconstructions).square().flatten(1).mean(1).argsort(stable=True)


def principal_components_mse(train: Tensor, test: Tensor, components: int) -> float:
    """The squared error per pixel on [0, 1] that `components` principal components of `train` leave on `test`."""
    from sklearn.decomposition import PCA

    known, asked = (images.flatten(1).double().numpy() / 255 for images in (train, test))
    components = min(components, len(known) - 1, known.shape[1])  # more have no variance
    if not components:
        return float(((known.mean(0) - asked) ** 2).mean())
    with np.errstate(invalid="ignore"):  # of pictures that are all alike
        found = PCA(components, svd_solver="covariance_eigh").fit(known)
    return float(((found.inverse_transform(found.transform(asked)) - asked) ** 2).mean())


@torch.no_grad()
def draw_images(
    model: nn.Module,
    images: Tensor,
    count: int,
    seed: int = 0,
    *,
    labels: Tensor | None = None,
    label: int | None = None,
) -> Tensor:
    """New images (count, C, H, W) on [0, 1], decoded from latents that were drawn by `seed`; of a class that is given.

    A variational network's are drawn from its prior, the standard normal distribution; others' from the normal
    distribution that fits the latents of `images` (N, C, H, W), with their `labels` (N,) if it is told those (Ghosh et
    al., "From variational to deterministic autoencoders", ICLR 2020).
    """
    network: Any = model.network
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    told = () if labels is None else (labels.to(device),)
    _, latents, _ = model(images.to(device), *told)
    drawn = torch.randn((count, latents.shape[1]), generator=generator)
    if not network.variational:
        latents = latents.double().cpu()
        covariance = latents.T.cov(correction=min(1, len(latents) - 1)).reshape(latents.shape[1], -1)
        variances, axes = torch.linalg.eigh(covariance)
        drawn = (latents.mean(0) + drawn * variances.clamp(min=0).sqrt() @ axes.T).float()
    known = () if label is None else (torch.full((count,), label, device=device),)
    decoded: Tensor = network.decode(drawn.to(device), *known)
    return decoded.cpu()
