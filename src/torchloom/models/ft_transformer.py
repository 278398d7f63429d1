"""FT-Transformer: a transformer over the columns of a table, each of which is a token.

Gorishniy, Rubachev, Khrulkov, Babenko, "Revisiting deep learning models for tabular data", NeurIPS 2021
(arXiv:2106.11959). A number is the sum of its bins' vectors, as in Gorishniy, Rubachev, Babenko, "On embeddings for
numerical features in tabular deep learning", NeurIPS 2022 (arXiv:2203.05556).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import Attention


def build(
    columns: Sequence[int],
    outputs: int,
    *,
    width: Count = 192,
    heads: Count = 8,
    layers: Count = 3,
    feedforward: Count = 256,
    attention_dropout: Fraction = 0.2,
    dropout: Fraction = 0.1,
    residual_dropout: Fraction = 0.0,
) -> nn.Module:
    """Features (B, F), of which each is of one of the `columns` (F,) -> (B, `outputs`).

    The defaults are those that the paper has for where nothing is tuned; there AdamW trains them with a learning rate
    of 0.0001 and a weight decay of 0.00001.
    """
    if width % heads:
        raise ValueError(f"heads {heads}: must divide the width {width}")
    body = [
        Layer(width, heads, feedforward, (attention_dropout, dropout, residual_dropout), first=number == 0)
        for number in range(layers)
    ]
    return FTTransformer(ColumnTokens(columns, width), body, width, outputs)


class FTTransformer(nn.Module):
    """What a first token, which stands for no column, has gathered from all others is what a row comes to."""

    def __init__(self, tokens: nn.Module, layers: list[Layer], width: int, outputs: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.row = nn.Parameter(torch.empty(1, 1, width).uniform_(-(width**-0.5), width**-0.5))
        self.layers = nn.ModuleList(layers)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, features: Tensor) -> Tensor:
        x = torch.cat([self.row.expand(features.shape[0], -1, -1), self.tokens(features)], 1)  # (B, 1 + columns, width)
        *others, last = self.layers
        for layer in others:
            x = layer(x)
        answers: Tensor = self.head(last(x, asking=1)[:, 0])
        return answers


class ColumnTokens(nn.Module):
    """Features (B, F) -> of each column the sum of its features' vectors, each as often as it says, and of a bias
    (B, columns, width)."""

    places: Tensor

    def __init__(self, columns: Sequence[int], width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(len(columns), width).uniform_(-(width**-0.5), width**-0.5))
        self.bias = nn.Parameter(torch.empty(max(columns) + 1, width).uniform_(-(width**-0.5), width**-0.5))
        of_each = [[place for place, of in enumerate(columns) if of == column] for column in range(max(columns) + 1)]
        longest = max(map(len, of_each))
        filled = [places + [len(columns)] * (longest - len(places)) for places in of_each]  # by one that is always 0
        self.register_buffer("places", torch.tensor(filled).flatten(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        count, width = self.bias.shape
        given = F.pad(features, (0, 1)).index_select(1, self.places).reshape(features.shape[0], count, -1)
        vectors = F.pad(self.weight, (0, 0, 0, 1)).index_select(0, self.places).reshape(count, -1, width)
        return torch.bmm(given.transpose(0, 1), vectors).transpose(0, 1) + self.bias


class Layer(nn.Module):
    """Attention and a dense layer with ReGLU (N, tokens, width), layer norm before each but the very first attention.

    `dropouts` are those of the attention, of the dense layer and of what both add.
    """

    def __init__(
        self, width: int, heads: int, feedforward: int, dropouts: tuple[float, float, float], first: bool
    ) -> None:
        super().__init__()
        attention, dense, residual = dropouts
        self.attention_norm = nn.Identity() if first else nn.LayerNorm(width)
        self.attention = Attention(width, heads, attention)
        self.dense_norm = nn.LayerNorm(width)
        self.dense = nn.Sequential(
            nn.Linear(width, 2 * feedforward), ReGLU(), nn.Dropout(dense), nn.Linear(feedforward, width)
        )
        self.dropout = nn.Dropout(residual)

    def forward(self, x: Tensor, asking: int | None = None) -> Tensor:
        """With `asking` only of so many first tokens."""
        x = x[:, :asking] + self.dropout(self.attention(self.attention_norm(x), asking))
        whole: Tensor = x + self.dropout(self.dense(self.dense_norm(x)))
        return whole


class ReGLU(nn.Module):
    """(…, 2 width) -> (…, width): one half where the other one lets it through (Shazeer 2020, arXiv:2002.05202)."""

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, -1)
        return value * F.relu(gate)
