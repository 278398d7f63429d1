"""The steepest place near the weights, of which sharpness-aware training takes the gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from torchloom.config import SamConfig


@contextmanager
def climbed(weights: Sequence[Tensor], gradients: Sequence[Tensor | None], config: SamConfig) -> Iterator[None]:
    """With the weights `rho` further up along the gradients, whatever those are scaled by: where the loss is about the
    greatest that it is so near. Afterwards they are what they were, to the bit.

    Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-aware minimization for efficiently improving generalization", ICLR
    2021 (arXiv:2010.01412). With `adaptive`, nearness is in shares of each weight: Kwon, Kim, Park, Choi, "ASAM", ICML
    2021 (arXiv:2102.11600), with T_w = diag(|w|).
    """
    moved = [(weight, slope) for weight, slope in zip(weights, gradients, strict=True) if slope is not None]
    before = [weight.detach().clone() for weight, _ in moved]
    slopes = [slope * weight.detach().abs() if config.adaptive else slope for weight, slope in moved]
    norm = torch.stack([slope.norm() for slope in slopes]).norm() + 1e-12
    with torch.no_grad():
        for (weight, _), slope in zip(moved, slopes, strict=True):
            weight.add_(slope * (weight.abs() if config.adaptive else 1) * (config.rho / norm))
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_([weight for weight, _ in moved], before)


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """The buffers of `model`, such as the statistics of batch norm, are what they were when all is over."""
    buffers = list(model.buffers())
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        if buffers:
            torch._foreach_copy_(buffers, before)
