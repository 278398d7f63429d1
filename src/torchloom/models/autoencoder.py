"""Autoencoders: fully connected or convolutional, plain or variational.

Hinton & Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science 313, 2006; Kingma &
Welling, "Auto-encoding variational Bayes", ICLR 2014 (arXiv:1312.6114).
"""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from torchloom.config import Count
from torchloom.models._layers import Activation, Initialization, Norm, initialize, make_activation, make_norm

Widths = Annotated[list[Count], Field(min_length=1)]


def build(
    shape: tuple[int, int, int],
    *,
    form: Literal["dense", "convolutional"] = "dense",
    hidden: Widths = [400, 200],  # noqa: B006  (never changed)
    latent: Count = 32,
    variational: bool = False,
    activation: Activation = "ReLU",
    norm: Norm = "none",
    initialization: Initialization = "default",
) -> nn.Module:
    """An encoder to `latent` numbers and its mirror image; `hidden` are the widths, or channels, on the way.

    Each convolution halves the image's sides, rounded up.
    """
    parts = dense if form == "dense" else convolutional
    encoder, decoder = parts(shape, hidden, latent * (1 + variational), latent, activation, norm)
    return initialize(Autoencoder(encoder, decoder, variational), initialization)


class Autoencoder(nn.Module):
    """Images (B, C, H, W) -> reconstruction (B, C, H, W) on [0, 1], latent (B, L), divergence (B,) in nats.

    A variational encoder gives mean and log-variance of a normal distribution. In training the latent is drawn from it,
    otherwise it is the mean; the divergence is from the standard normal distribution, and zero if not variational.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, variational: bool) -> None:
        super().__init__()
        self.encoder, self.decoder, self.variational = encoder, decoder, variational

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        code = self.encoder(images).float()
        if not self.variational:
            return self.decode(code), code, code.new_zeros(code.shape[0])
        mean, log_variance = code.chunk(2, dim=1)
        latent = mean + torch.randn_like(mean) * (log_variance / 2).exp() if self.training else mean
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
        return self.decode(latent), latent, divergence

    def decode(self, latent: Tensor) -> Tensor:
        """Latent (B, L) -> images (B, C, H, W) on [0, 1]."""
        return torch.sigmoid(self.decoder(latent).float())


def dense(
    shape: tuple[int, int, int], hidden: list[int], code: int, latent: int, activation: str, norm: Norm
) -> tuple[nn.Module, nn.Module]:
    """Encoder to `code` numbers and decoder from `latent` ones, of linear layers."""
    pixels = math.prod(shape)
    encoder: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in zip([pixels, *hidden], hidden, strict=False):
        encoder += [nn.Linear(inputs, outputs), *make_norm(norm, outputs, 0), make_activation(activation)]
    decoder: list[nn.Module] = []
    for inputs, outputs in zip([latent, *hidden[::-1]], hidden[::-1], strict=False):
        decoder += [nn.Linear(inputs, outputs), *make_norm(norm, outputs, 0), make_activation(activation)]
    return (
        nn.Sequential(*encoder, nn.Linear(hidden[-1], code)),
        nn.Sequential(*decoder, nn.Linear(hidden[0], pixels), nn.Unflatten(1, shape)),
    )


def convolutional(
    shape: tuple[int, int, int], hidden: list[int], code: int, latent: int, activation: str, norm: Norm
) -> tuple[nn.Module, nn.Module]:
    """The same of 3x3 convolutions with stride 2, their mirror images of nearest-neighbour growth and convolution."""
    channels, height, width = shape
    sizes = [(height, width)]
    encoder: list[nn.Module] = []
    for inputs, outputs in zip([channels, *hidden], hidden, strict=False):
        encoder += [nn.Conv2d(inputs, outputs, 3, 2, 1), *make_norm(norm, outputs), make_activation(activation)]
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    smallest = (hidden[-1], *sizes[-1])
    encoder += [nn.Flatten(), nn.Linear(math.prod(smallest), code)]
    decoder: list[nn.Module] = [nn.Linear(latent, math.prod(smallest)), nn.Unflatten(1, smallest)]
    for inputs, outputs, size in zip(hidden[::-1], [*hidden[-2::-1], channels], sizes[-2::-1], strict=True):
        decoder += [*make_norm(norm, inputs), make_activation(activation), Grow(size)]
        decoder.append(nn.Conv2d(inputs, outputs, 3, padding=1))
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


class Grow(nn.Module):
    """Enlarge images to `size` by repeating pixels; with a convolution after it, free of a transposed one's pattern
    (Odena, Dumoulin, Olah, "Deconvolution and checkerboard artifacts", Distill 2016)."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, self.size, mode="nearest")
