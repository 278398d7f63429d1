"""Documents classified by a convolutional network over their words.

Kim, "Convolutional neural networks for sentence classification", EMNLP 2014 (arXiv:1408.5882).
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from torchloom.config import Count, Fraction

Kernels = Annotated[list[Annotated[int, Field(ge=1, le=20)]], Field(min_length=1)]


def build(
    tokens: int,
    outputs: int,
    *,
    embedding: Count = 64,
    width: Count = 64,
    kernels: Kernels = [1, 2, 3],  # noqa: B006  (never changed)
    embedding_dropout: Fraction = 0.3,
    dropout: Fraction = 0.3,
) -> nn.Module:
    """Embedding -> for each of the `kernels`, which are so many words long, a convolution of `width` channels, ReLU and
    the maximum over all places -> linear to `outputs`."""
    return TextCNN(tokens, outputs, embedding, width, kernels, embedding_dropout, dropout)


class TextCNN(nn.Module):
    """tokens (B, T) int64, 0 where a document has ended, and lengths (B,) -> logits (B, outputs)."""

    def __init__(
        self,
        tokens: int,
        outputs: int,
        embedding: int,
        width: int,
        kernels: list[int],
        embedding_dropout: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, embedding, padding_idx=0)
        self.kernels = kernels
        self.convolutions = nn.ModuleList(nn.Conv1d(embedding, width, kernel) for kernel in kernels)
        self.embedding_dropout, self.dropout = nn.Dropout(embedding_dropout), nn.Dropout(dropout)
        self.head = nn.Linear(width * len(kernels), outputs)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        x = self.embedding_dropout(self.embedding(tokens)).transpose(1, 2)  # (B, embedding, T)
        over = torch.arange(tokens.shape[1], device=x.device) >= lengths.to(x.device).unsqueeze(1)  # (B, T)
        found = []
        for kernel, convolution in zip(self.kernels, self.convolutions, strict=True):  # of the words from each place on
            y = convolution(nn.functional.pad(x, (0, kernel - 1))).relu()
            # not amax, which does not know its place any more when it comes to gradients (see airbench)
            found.append(y.masked_fill(over.unsqueeze(1), 0.0).max(2).values)
        logits: Tensor = self.head(self.dropout(torch.cat(found, dim=1)))
        return logits
