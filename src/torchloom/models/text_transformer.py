"""Documents classified by a transformer over their words.

Vaswani et al., "Attention is all you need", NeurIPS 2017 (arXiv:1706.03762), the encoder, with norms before the layers
and rotary positions (Su et al., arXiv:2104.09864).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import (
    Activation,
    DocumentPooling,
    Encoder,
    Initialization,
    check_heads,
    initialize,
    pooled,
)


def build(
    tokens: int,
    outputs: int,
    *,
    width: Count = 128,
    layers: Count = 2,
    heads: Count = 4,
    feedforward: Count | None = None,
    activation: Activation = "GELU",
    embedding_dropout: Fraction = 0.1,
    dropout: Fraction = 0.1,
    pooling: DocumentPooling = "mean",
    initialization: Initialization = "truncated_normal",
) -> nn.Module:
    """Embedding -> `layers` of attention in `heads` and two dense layers, of which the inner one is `feedforward` wide,
    four times `width` unless it is given -> `pooling` of each document's words -> linear to `outputs`."""
    check_heads(width, heads, rotary=True)
    encoder = Encoder(width, layers, heads, feedforward, activation, dropout, rotary=True)
    network = TextTransformer(tokens, outputs, width, encoder, embedding_dropout, pooling)
    return initialize(network, initialization)


class TextTransformer(nn.Module):
    """tokens (B, T) int64, 0 where a document has ended, and lengths (B,) -> logits (B, outputs)."""

    def __init__(
        self,
        tokens: int,
        outputs: int,
        width: int,
        encoder: nn.Module,
        embedding_dropout: float,
        pooling: DocumentPooling,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.embedding = nn.Embedding(tokens, width, padding_idx=0)
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.encoder = encoder
        self.head = nn.Linear(width * (1 + (pooling == "both")), outputs)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        x = self.embedding_dropout(self.embedding(tokens))  # (B, T, width)
        there = torch.arange(x.shape[1], device=x.device) < lengths.to(x.device).unsqueeze(1)
        logits: Tensor = self.head(pooled(self.encoder(x, there), lengths, self.pooling))  # (B, outputs)
        return logits
