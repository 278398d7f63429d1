"""A generator and a discriminator in one module, so that one pass backward gives each the gradient of its own loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from torchloom.errors import InputError
from torchloom.modalities.draws import drawn
from torchloom.modalities.modules import Scaling

FRAMES, ACROSS = 10, 10  # times over a training at which images are kept, and how many each time


class Contest(Scaling):
    """What `network` makes of images (B, C, H, W), as the modality scales them, beside as many that it generates.

    Both learn at once, by one optimiser: the discriminator sees the generated images cut off from the generator, and
    the generator sees the discriminator with weights that are given. So the sum of both losses has, for the weights of
    each, the gradient of its own loss alone.

    `film` (FRAMES x ACROSS, C H W) uint8 has what the same latents became over the training, after `filmed` (FRAMES,)
    epochs each, -1 where it is empty: as buffers both go where the weights go, into the states of a training too.
    """

    scale: Tensor
    shift: Tensor
    film: Tensor
    filmed: Tensor

    def __init__(self, network: nn.Module, shape: list[int], mean: list[float], std: list[float], classes: int) -> None:
        super().__init__()
        check_parts(network)
        self.network = network
        self.conditional = bool(getattr(network, "conditional", False))
        self.latent: int = network.latent  # type: ignore[assignment]
        self.classes = classes if self.conditional else 0
        self.register_buffer("scale", 2 * torch.tensor(std).view(1, -1, 1, 1))
        self.register_buffer("shift", 2 * torch.tensor(mean).view(1, -1, 1, 1) - 1)
        self.register_buffer("film", torch.zeros(FRAMES * ACROSS, math.prod(shape), dtype=torch.uint8))
        self.register_buffer("filmed", torch.full((FRAMES,), -1))

    def forward(self, images: Tensor, labels: Tensor | None = None, *, slopes: bool = False) -> tuple[Tensor, ...]:
        """Scores (B,) of real images, of generated ones for the discriminator, and of the same for the generator; both
        kinds of images on [-1, 1]; and with `slopes` the squared norms (B,) of the scores' slopes at the real ones.
        """
        network: Any = self.network
        known = self.known(labels)
        images = (images * self.scale + self.shift).requires_grad_(slopes)
        generated = network.generator(self.drawn(len(images)), *known).float()
        real, fake = network.discriminator(images, *known), network.discriminator(generated.detach(), *known)
        given = {name: weight.detach() for name, weight in network.discriminator.named_parameters()}
        given |= {name: buffer.clone() for name, buffer in network.discriminator.named_buffers()}  # those of the others
        fooled = functional_call(network.discriminator, given, (generated, *known))
        return real, fake, fooled, generated, images, *([slopes_at(images, real)] if slopes else [])

    def known(self, labels: Tensor | None) -> tuple[Tensor | None, ...]:
        return (labels,) if self.conditional else ()

    def drawn(self, count: int) -> Tensor:
        return torch.randn(count, self.latent, device=self.scale.device)

    def generate(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) on [0, 1] of latents (B, latent), and of classes (B,) where they are asked for."""
        network: Any = self.network
        images: Tensor = network.generator(latents, *self.known(labels)).float()
        return ((images + 1) / 2).clamp(0, 1)


class Drawer(nn.Module):
    """The generator alone, as it is exported: latents (B, latent), and labels (B,) -> images (B, C, H, W) on [0, 1]."""

    def __init__(self, contest: Contest) -> None:
        super().__init__()
        self.contest = contest
        self.latent, self.classes = contest.latent, contest.classes

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.contest.generate(latents, labels)


def check_parts(network: nn.Module) -> None:
    """InputError unless a network of the user's own has what a generation asks for."""
    if lacking := [part for part in ("generator", "discriminator", "latent") if not hasattr(network, part)]:
        raise InputError(
            f"model.name: a network that generates has generator, discriminator, latent; no {lacking[0]} here"
        )


def slopes_at(images: Tensor, scores: Tensor) -> Tensor:
    """The squared norms (B,) of the gradients of the scores (B,) at their images, which can be learnt from."""
    (slopes,) = torch.autograd.grad(scores.float().sum(), images, create_graph=True)
    return slopes.square().flatten(1).sum(1)


def as_bytes(images: Tensor) -> Tensor:
    """Images on [-1, 1] as a file would have them, uint8."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def latents_of(seeds: Iterable[int], latent: int) -> Tensor:
    """The latents (N, latent) that belong to the seeds."""
    return torch.from_numpy(np.stack([drawn(seed, latent) for seed in seeds]))


def filming(
    epochs: int,
    classes: int,
    *_: Any,
) -> Callable[[nn.Module, int], None]:
    """What is done when an epoch begins: now and then, the images of the same latents are kept.

    What all such functions get, the checkpoint to start from, the model and the loaders, is not needed.
    """
    first = {frame * epochs // FRAMES: frame for frame in reversed(range(FRAMES))}  # of an epoch one is enough

    @torch.no_grad()
    def film(model: nn.Module, epoch: int) -> None:
        frame, contest = first.get(epoch - 1), contest_of(model)
        if frame is None:
            return
        device = contest.scale.device
        labels = torch.arange(ACROSS, device=device) % max(classes, 1)
        latents = latents_of(range(ACROSS), contest.latent).to(device)
        model.eval()
        images = as_bytes(2 * contest.generate(latents, labels) - 1)
        contest.film[frame * ACROSS : (frame + 1) * ACROSS] = images.flatten(1)
        contest.filmed[frame] = epoch - 1

    return film


def contest_of(model: nn.Module) -> Contest:
    """That within a model of a generation."""
    return next(module for module in model.modules() if isinstance(module, Contest))
