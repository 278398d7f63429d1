"""A fully convolutional network over series.

Wang, Yan, Oates, "Time series classification from scratch with deep neural networks: a strong baseline", IJCNN 2017
(arXiv:1611.06455).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import Activation, Initialization, Norm, initialize, make_activation, make_norm

Sizes = Annotated[list[Count], Field(min_length=1)]


def build(
    channels: int,
    outputs: int,
    *,
    widths: Sizes = [128, 256, 128],  # noqa: B006  (never changed)
    kernels: Sizes = [7, 5, 3],  # noqa: B006
    activation: Activation = "ReLU",
    norm: Norm = "batch",
    dropout: Fraction = 0.0,
    initialization: Initialization = "default",
) -> nn.Module:
    """Series (B, T, channels) -> for each width convolution, norm, activation -> mean of all steps -> (B, outputs)."""
    if len(widths) != len(kernels) or not all(kernel % 2 for kernel in kernels):
        raise ValueError(f"kernels {kernels}: must be odd numbers, one for each of the {len(widths)} widths")
    layers: list[nn.Module] = []
    for width, kernel in zip(widths, kernels, strict=True):
        layers += [
            nn.Conv1d(channels, width, kernel, padding=kernel // 2, bias=norm == "none"),
            *make_norm(norm, width, axes=1),
            make_activation(activation),
        ]
        channels = width
    network = SeriesCNN(nn.Sequential(*layers), nn.Dropout(dropout), nn.Linear(channels, outputs))
    return initialize(network, initialization)


class SeriesCNN(nn.Module):
    def __init__(self, body: nn.Module, dropout: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.dropout, self.head = body, dropout, head

    def forward(self, series: Tensor) -> Tensor:
        features = self.body(series.transpose(1, 2)).mean(2)  # (B, width)
        answers: Tensor = self.head(self.dropout(features))
        return answers
