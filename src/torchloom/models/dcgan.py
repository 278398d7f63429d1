"""A generative adversarial network of convolutions: a generator of pictures, and a discriminator that judges them.

Goodfellow et al., "Generative adversarial nets", NIPS 2014; Radford, Metz, Chintala, "Unsupervised representation
learning with deep convolutional generative adversarial networks", ICLR 2016 (arXiv:1511.06434).
"""

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import Grow, check_side, one_hot

SMALLEST = 4  # pixels of the shorter side, at least, that the generator's pictures begin with
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def build(
    shape: tuple[int, int, int],
    classes: int,
    verdicts: int,
    *,
    latent: Count = 100,
    width: Count = 64,
    growth: Literal["transposed", "nearest"] = "transposed",
    discriminator_norm: Literal["batch", "none"] = "batch",
    dropout: Fraction = 0.0,
    conditional: bool = False,
) -> nn.Module:
    """Pictures of any size are halved as long as 4 pixels of the shorter side remain: `width` channels, then twice as
    many each time, and in the generator the mirror image, of transposed convolutions or of repeated pixels and
    convolutions.

    A conditional one knows the class of each picture: the generator beside its latent, the discriminator by projection
    (Miyato & Koyama, "cGANs with projection discriminator", ICLR 2018). `dropout` is the discriminator's.
    """
    check_side(shape, 2 * SMALLEST, "dcgan")
    if conditional and not classes:
        raise ValueError("conditional: needs data with a class for each picture, and these have none; leave it out")
    sizes = [shape[1:]]
    while min(sizes[-1]) // 2 >= SMALLEST:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    widths = [width * 2**number for number in range(len(sizes) - 1)]
    known = classes if conditional else 0
    generator = Generator(latent, known, [shape[0], *widths], sizes, growth)
    discriminator = Discriminator(known, [shape[0], *widths], sizes[-1], verdicts, discriminator_norm, dropout)
    return draw_weights(DCGAN(generator, discriminator, latent, known))


class DCGAN(nn.Module):
    """What the problem `generation` asks for: a `generator`, latents (B, latent) -> pictures (B, C, H, W) on [-1, 1],
    and a `discriminator`, such pictures -> scores (B,), the greater, the more real.

    A `conditional` one's take the classes (B,) too.
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module, latent: int, classes: int) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.latent, self.conditional = latent, bool(classes)


class Generator(nn.Module):
    def __init__(self, latent: int, classes: int, widths: list[int], sizes: list[tuple[int, int]], growth: str) -> None:
        super().__init__()
        self.classes = classes
        smallest = (widths[-1], *sizes[-1])
        layers: list[nn.Module] = [nn.Linear(latent + classes, math.prod(smallest), bias=False)]
        layers.append(nn.Unflatten(1, smallest))
        for inputs, outputs, size in zip(widths[:0:-1], widths[-2::-1], sizes[-2::-1], strict=True):
            layers += [nn.BatchNorm2d(inputs), nn.ReLU(), *larger(inputs, outputs, size, growth, size == sizes[0])]
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.classes:
            latents = torch.cat([latents, one_hot(labels, self.classes, latents)], 1)
        pictures: Tensor = self.layers(latents)
        return pictures


def larger(inputs: int, outputs: int, size: tuple[int, int], growth: str, last: bool) -> list[nn.Module]:
    """What makes pictures of half of `size`, rounded down, as large as that; a norm shifts what is not the `last`."""
    if growth == "nearest":
        return [Grow(size), nn.Conv2d(inputs, outputs, 3, padding=1, bias=last)]
    odd = (size[0] % 2, size[1] % 2)
    return [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, output_padding=odd, bias=last)]


class Discriminator(nn.Module):
    """Its batch norm knows no other pictures than those of the batch, also in evaluation: real and generated ones come
    in batches of their own, and statistics of both together would be those of neither."""

    def __init__(
        self, classes: int, widths: list[int], smallest: tuple[int, int], verdicts: int, norm: str, dropout: float
    ) -> None:
        super().__init__()
        self.classes = classes
        layers: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(pairwise(widths)):
            normed = norm == "batch" and number > 0
            layers.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=not normed))
            layers += [nn.BatchNorm2d(outputs, track_running_stats=False)] if normed else []
            layers += [nn.LeakyReLU(0.2), *([nn.Dropout(dropout)] if dropout else [])]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        features = widths[-1] * math.prod(smallest)
        self.score = nn.Linear(features, verdicts)
        if classes:
            self.projection = nn.Linear(classes, features, bias=False)

    def forward(self, pictures: Tensor, labels: Tensor | None = None) -> Tensor:
        features = self.layers(pictures)  # (B, features)
        scores: Tensor = self.score(features).squeeze(1)
        if self.classes:
            scores = scores + (features * self.projection(one_hot(labels, self.classes, features))).sum(1)
        return scores


@torch.no_grad()
def draw_weights(network: nn.Module) -> nn.Module:
    """As in the paper: all weights from N(0, 0.02), in place, and the scales of batch norm from N(1, 0.02)."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, NORMS):
            nn.init.normal_(layer.weight, mean=1.0, std=0.02)
    return network
