"""Autoencoders: fully connected or convolutional, plain or variational.

Hinton & Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science 313, 2006; Kingma &
Welling, "Auto-encoding variational Bayes", ICLR 2014 (arXiv:1312.6114).
"""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from torchloom.config import Count
from torchloom.models._layers import (
    Activation,
    Grow,
    Initialization,
    Norm,
    initialize,
    make_activation,
    make_norm,
    one_hot,
)

Widths = Annotated[list[Count], Field(min_length=1)]


def build(
    shape: tuple[int, int, int],
    classes: int = 0,
    *,
    form: Literal["dense", "convolutional"] = "dense",
    hidden: Widths = [400, 200],  # noqa: B006  (never changed)
    latent: Count = 32,
    variational: bool = False,
    conditional: bool = False,
    activation: Activation = "ReLU",
    norm: Norm = "none",
    initialization: Initialization = "default",
) -> nn.Module:
    """An encoder to `latent` numbers and its mirror image; `hidden` are the widths, or channels, on the way.

    Each convolution halves the image's sides, rounded up. A conditional one is told the class of each image, in both
    parts: Sohn, Lee, Yan, "Learning structured output representation using deep conditional generative models", NeurIPS
    2015.
    """
    if conditional and not classes:
        raise ValueError("conditional: needs data with a class for each image, and these have none; leave it out")
    known = classes if conditional else 0
    parts = dense if form == "dense" else convolutional
    encoder, decoder = parts(shape, hidden, latent * (1 + variational), latent, activation, norm, known)
    network = Conditional(encoder, decoder, variational, shape, known) if known else None
    return initialize(network or Autoencoder(encoder, decoder, variational), initialization)


class Autoencoder(nn.Module):
    """Images (B, C, H, W) -> reconstruction (B, C, H, W) on [0, 1], latent (B, L), divergence (B,) in nats.

    A variational encoder gives mean and log-variance of a normal distribution. In training the latent is drawn from it,
    otherwise it is the mean; the divergence is from the standard normal distribution, and zero if not variational.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, variational: bool) -> None:
        super().__init__()
        self.encoder, self.decoder, self.variational = encoder, decoder, variational

    conditional = False

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        code = self.encode(images, labels).float()
        if not self.variational:
            return self.decode(code, labels), code, code.new_zeros(code.shape[0])
        mean, log_variance = code.chunk(2, dim=1)
        latent = mean + torch.randn_like(mean) * (log_variance / 2).exp() if self.training else mean
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
        return self.decode(latent, labels), latent, divergence

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:  # noqa: ARG002  (of a conditional one)
        code: Tensor = self.encoder(images)
        return code

    def decode(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Latent (B, L) -> images (B, C, H, W) on [0, 1]."""
        return torch.sigmoid(self.decoder(latent).float())


class Conditional(Autoencoder):
    """The same of images whose classes (B,) are known: each class has a picture that is learnt, a channel more for the
    encoder, and stands beside the latent for the decoder."""

    conditional = True

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, variational: bool, shape: tuple[int, int, int], classes: int
    ) -> None:
        super().__init__(encoder, decoder, variational)
        self.classes = classes
        self.pictures = nn.Sequential(nn.Linear(classes, math.prod(shape[1:])), nn.Unflatten(1, (1, *shape[1:])))

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        picture = self.pictures(one_hot(labels, self.classes, images))
        return super().encode(torch.cat([images, picture.to(images.dtype)], 1))

    def decode(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().decode(torch.cat([latent, one_hot(labels, self.classes, latent)], 1))


def dense(
    shape: tuple[int, int, int], hidden: list[int], code: int, latent: int, activation: str, norm: Norm, classes: int
) -> tuple[nn.Module, nn.Module]:
    """Encoder to `code` numbers and decoder from `latent` ones, of linear layers; of classes there is a channel more in
    the former, and as many numbers more in the latter."""
    pixels = math.prod(shape)
    seen = pixels + bool(classes) * math.prod(shape[1:])
    encoder: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in zip([seen, *hidden], hidden, strict=False):
        encoder += [nn.Linear(inputs, outputs), *make_norm(norm, outputs, 0), make_activation(activation)]
    decoder: list[nn.Module] = []
    for inputs, outputs in zip([latent + classes, *hidden[::-1]], hidden[::-1], strict=False):
        decoder += [nn.Linear(inputs, outputs), *make_norm(norm, outputs, 0), make_activation(activation)]
    return (
        nn.Sequential(*encoder, nn.Linear(hidden[-1], code)),
        nn.Sequential(*decoder, nn.Linear(hidden[0], pixels), nn.Unflatten(1, shape)),
    )


def convolutional(
    shape: tuple[int, int, int], hidden: list[int], code: int, latent: int, activation: str, norm: Norm, classes: int
) -> tuple[nn.Module, nn.Module]:
    """The same of 3x3 convolutions with stride 2, their mirror images of nearest-neighbour growth and convolution."""
    channels, height, width = shape
    sizes = [(height, width)]
    encoder: list[nn.Module] = []
    for inputs, outputs in zip([channels + bool(classes), *hidden], hidden, strict=False):
        encoder += [nn.Conv2d(inputs, outputs, 3, 2, 1), *make_norm(norm, outputs), make_activation(activation)]
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    smallest = (hidden[-1], *sizes[-1])
    encoder += [nn.Flatten(), nn.Linear(math.prod(smallest), code)]
    decoder: list[nn.Module] = [nn.Linear(latent + classes, math.prod(smallest)), nn.Unflatten(1, smallest)]
    for inputs, outputs, size in zip(hidden[::-1], [*hidden[-2::-1], channels], sizes[-2::-1], strict=True):
        decoder += [*make_norm(norm, inputs), make_activation(activation), Grow(size)]
        decoder.append(nn.Conv2d(inputs, outputs, 3, padding=1))
    return nn.Sequential(*encoder), nn.Sequential(*decoder)
