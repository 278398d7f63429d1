"""Whitening: a first convolution whose outputs are uncorrelated and of equal variance from the first step on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torchloom.config import WhiteningConfig
from torchloom.errors import InputError


@torch.no_grad()
def whiten(model: Any, images: Tensor, config: WhiteningConfig) -> None:
    """Set the kernels of `model`'s first convolution to whiten the patches of `images` (N, C, H, W) uint8.

    The kernels are the eigenvectors of the patches' covariance, each over the square root of its eigenvalue plus
    `epsilon`, those of the greatest eigenvalues first, and then all of them once more with the sign turned (Page, "How
    to train your ResNet 8", myrtle.ai 2019). Kernels that are left over keep what they were drawn as. Frozen, they do
    not learn; their biases do. Raises InputError when the network has no convolution.
    """
    layer = next((layer for layer in model.network.modules() if isinstance(layer, nn.Conv2d)), None)
    if layer is None or layer.groups > 1:
        raise InputError("train.whitening: the network does not begin with a convolution of all channels")
    height, width = layer.kernel_size
    values, vectors = torch.linalg.eigh(patch_covariance(images, model.mean, model.std, height, width))
    kernels = (vectors / (values + config.epsilon).sqrt()).T.reshape(-1, *layer.weight.shape[1:]).flip(0)
    kernels = torch.cat([kernels, -kernels])[: len(layer.weight)].to(layer.weight.dtype)
    layer.weight[: len(kernels)] = kernels.to(layer.weight.device)
    layer.weight.requires_grad_(not config.freeze)


def patch_covariance(images: Tensor, mean: Tensor, std: Tensor, height: int, width: int) -> Tensor:
    """(D, D) float64 over all patches of the standardised images, of D = C height width pixels each."""
    mean, std = mean.to(images.device), std.to(images.device)
    total, count = torch.zeros((), dtype=torch.float64), 0
    for some in images.split(250):  # type: ignore[no-untyped-call]
        patches = nn.functional.unfold((some.float() - mean) / std, (height, width)).transpose(1, 2).flatten(0, 1)
        total = total + (patches.T @ patches).cpu().double()
        count += len(patches)
    return total / count
