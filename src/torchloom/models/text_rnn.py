"""Documents classified by a recurrent network over their words, pooled over all places.

Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997; both directions: Graves &
Schmidhuber, "Framewise phoneme classification with bidirectional LSTM", Neural Networks 18, 2005.
"""

from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import DocumentPooling, Initialization, initialize, pooled
from torchloom.models._recurrent import Cell, make_rnn, run_packed


def build(
    tokens: int,
    outputs: int,
    *,
    cell: Cell = "lstm",
    embedding: Count = 100,
    width: Count = 128,
    layers: Count = 1,
    bidirectional: bool = True,
    embedding_dropout: Fraction = 0.3,
    dropout: Fraction = 0.5,
    pooling: DocumentPooling = "both",
    initialization: Initialization = "default",
) -> nn.Module:
    """Embedding -> `layers` of recurrent cells -> `pooling` of each document's words, mean, max or both -> linear to
    `outputs`."""
    rnn = make_rnn(cell, embedding, width, layers, bidirectional, dropout)
    return initialize(TextRNN(tokens, outputs, rnn, embedding_dropout, dropout, pooling), initialization)


class TextRNN(nn.Module):
    """tokens (B, T) int64, 0 where a document has ended, and lengths (B,) -> logits (B, outputs)."""

    def __init__(
        self,
        tokens: int,
        outputs: int,
        rnn: nn.RNNBase,
        embedding_dropout: float,
        dropout: float,
        pooling: DocumentPooling,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.embedding = nn.Embedding(tokens, rnn.input_size, padding_idx=0)
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.rnn = rnn
        self.dropout = nn.Dropout(dropout)
        features = rnn.hidden_size * (1 + rnn.bidirectional) * (1 + (pooling == "both"))
        self.head = nn.Linear(features, outputs)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        x = self.embedding_dropout(self.embedding(tokens))  # (B, T, embedding)
        x = run_packed(self.rnn, x, lengths)  # (B, T, width x directions), zero after the end
        logits: Tensor = self.head(self.dropout(pooled(x, lengths, self.pooling)))  # (B, outputs)
        return logits
