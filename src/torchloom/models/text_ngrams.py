"""Documents classified by their n-grams, and by another network over their words beside them.

Joulin, Grave, Bojanowski, Mikolov, "Bag of tricks for efficient text classification", EACL 2017 (arXiv:1607.01759).
That what is learnt by heart and what is learnt in general go together: Cheng et al., "Wide & deep learning for
recommender systems", DLRS 2016 (arXiv:1606.07792). That several of them, which begin differently, err less together:
Lakshminarayanan, Pritzel, Blundell, "Simple and scalable predictive uncertainty estimation using deep ensembles",
NeurIPS 2017 (arXiv:1612.01474).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models import text_cnn, text_rnn

FACTOR = 1_000_003  # a prime number, by which the n-grams are spread over the rows


def build(
    tokens: int,
    outputs: int,
    *,
    longest: Annotated[int, Field(ge=1, le=8)] = 2,
    rows: Annotated[int, Field(ge=1, le=1 << 24)] = 1 << 18,
    ngram_width: Count = 16,
    beside: Literal["text_cnn", "text_rnn", "nothing"] = "text_cnn",
    embedding: Count = 64,
    width: Count = 64,
    embedding_dropout: Fraction = 0.4,
    dropout: Fraction = 0.5,
    members: Count = 1,
) -> nn.Module:
    """The sum of vectors, `ngram_width` wide, of all runs of up to `longest` tokens, and beside it what the network
    `beside`, of that `embedding` and `width`, has before its last layer -> linear to `outputs`. The runs share a table
    of so many `rows` by chance. The answer is the mean of what `members` such networks say."""
    same: dict[str, Any] = {
        "embedding": embedding,
        "width": width,
        "embedding_dropout": embedding_dropout,
        "dropout": dropout,
    }
    networks = {"text_cnn": text_cnn, "text_rnn": text_rnn}

    def member() -> nn.Module:
        deep = networks[beside].build(tokens, outputs, **same) if beside in networks else None
        return TextNgrams(tokens, outputs, longest, rows, ngram_width, dropout, deep)

    return member() if members == 1 else Members([member() for _ in range(members)])


class Members(nn.Module):
    """In training the answers are those of each member (B, members, outputs), to be held to the target each."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        answers = torch.stack([member(tokens, lengths) for member in self.members], dim=1)
        return answers if self.training else answers.mean(1)


class TextNgrams(nn.Module):
    """tokens (B, T) int64, 0 where a document has ended, and lengths (B,) -> logits (B, outputs)."""

    def __init__(
        self, tokens: int, outputs: int, longest: int, rows: int, width: int, dropout: float, deep: nn.Module | None
    ) -> None:
        super().__init__()
        self.longest, self.rows, self.deep = longest, rows, deep
        self.single = nn.Embedding(tokens, width, padding_idx=0)
        self.several = nn.Embedding(rows + 1, width, padding_idx=0)
        for table in (self.single, self.several):
            nn.init.normal_(table.weight, std=0.1)
            with torch.no_grad():
                table.weight[0] = 0
        self.dropout = nn.Dropout(dropout)
        if deep is not None:
            last: Any = deep.head  # its place is taken by that of both
            width, deep.head = width + last.in_features, nn.Identity()
        self.head = nn.Linear(width, outputs)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        found = self.single(tokens).sum(1)  # (B, width)
        key, following = tokens, nn.functional.pad(tokens, (0, self.longest))
        for size in range(1, self.longest):
            last = following[:, size : size - self.longest]  # of the n-gram that begins at each place
            key = (key * FACTOR + last) % self.rows
            found = found + self.several(torch.where(last > 0, key + 1, 0)).sum(1)
        # by the root, so that a long document counts for more than a short one
        found = found / lengths.to(found.device).unsqueeze(1).to(found.dtype).sqrt()
        found = self.dropout(found)
        if self.deep is not None:
            found = torch.cat([found, self.deep(tokens, lengths)], dim=1)
        logits: Tensor = self.head(found)
        return logits
