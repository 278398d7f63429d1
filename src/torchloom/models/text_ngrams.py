"""Documents classified by their n-grams, and by a recurrent network over their words beside them.

Joulin, Grave, Bojanowski, Mikolov, "Bag of tricks for efficient text classification", EACL 2017 (arXiv:1607.01759).
That what is learnt by heart and what is learnt in general go together: Cheng et al., "Wide & deep learning for
recommender systems", DLRS 2016 (arXiv:1606.07792).
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._recurrent import Cell, make_rnn
from torchloom.models.text_rnn import TextRNN

FACTOR = 1_000_003  # a prime number, by which the n-grams are spread over the rows


def build(
    tokens: int,
    outputs: int,
    *,
    longest: Annotated[int, Field(ge=1, le=8)] = 3,
    rows: Annotated[int, Field(ge=1, le=1 << 24)] = 1 << 18,
    ngram_width: Count = 16,
    cell: Cell = "lstm",
    embedding: Count = 96,
    width: Annotated[int, Field(ge=0)] = 96,
    embedding_dropout: Fraction = 0.3,
    dropout: Fraction = 0.4,
) -> nn.Module:
    """The vectors, `ngram_width` wide, of all runs of up to `longest` tokens -> their sum -> linear to `outputs`; and
    added to it what a `text_rnn` says, unless its `width` is 0. The runs share a table of so many `rows` by chance."""
    deep = None
    if width:
        rnn = make_rnn(cell, embedding, width, 1, True, dropout)
        deep = TextRNN(tokens, outputs, rnn, embedding_dropout, dropout, "both")
    return TextNgrams(tokens, outputs, longest, rows, ngram_width, dropout, deep)


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
        logits: Tensor = self.head(self.dropout(found))
        return logits if self.deep is None else logits + self.deep(tokens, lengths)
