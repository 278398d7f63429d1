"""A transformer over the steps of a series, whose mean says what comes, or what the whole of it is.

Vaswani et al., "Attention is all you need", NeurIPS 2017 (arXiv:1706.03762), the encoder, with norms before the layers
and rotary positions (Su et al., arXiv:2104.09864); on series: Zerveas et al., "A transformer-based framework for
multivariate time series representation learning", KDD 2021 (arXiv:2010.02803).
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import Activation, Encoder, Initialization, check_heads, initialize
from torchloom.models._windows import Normalization, answers, normalized


def build(
    channels: int,
    horizon: int | None = None,
    outputs: int | None = None,
    *,
    stride: Count = 1,
    width: Count = 64,
    layers: Count = 2,
    heads: Count = 4,
    feedforward: Count | None = None,
    activation: Activation = "GELU",
    dropout: Fraction = 0.1,
    normalization: Normalization | None = None,
    initialization: Initialization = "truncated_normal",
) -> nn.Module:
    """Windows (B, window, channels) -> one place for each `stride` steps -> `layers` of attention in `heads` and two
    dense layers, of which the inner one is `feedforward` wide, four times `width` unless it is given -> linear to
    (B, horizon, channels) or (B, outputs).

    A place sees `stride` steps before and after its own, by a convolution. `normalization` is one of
    _windows.normalized.
    """
    check_heads(width, heads, rotary=True)
    encoder = Encoder(width, layers, heads, feedforward, activation, dropout, rotary=True)
    network = SeriesTransformer(channels, width, stride, encoder, answers(channels, horizon, outputs), dropout)
    return normalized(initialize(network, initialization), channels, normalization, ahead=outputs is None)


class SeriesTransformer(nn.Module):
    def __init__(
        self, channels: int, width: int, stride: int, encoder: nn.Module, shape: tuple[int, ...], dropout: float
    ) -> None:
        super().__init__()
        self.stem = nn.Conv1d(channels, width, 2 * stride + 1, stride, padding=stride)
        self.encoder, self.dropout, self.shape = encoder, nn.Dropout(dropout), shape
        self.head = nn.Linear(width, math.prod(shape))

    def forward(self, windows: Tensor) -> Tensor:
        x = self.stem(windows.transpose(1, 2)).transpose(1, 2)  # (B, places, width)
        found: Tensor = self.head(self.dropout(self.encoder(x).mean(1))).unflatten(1, self.shape)
        return found
