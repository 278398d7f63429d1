"""Recurrent language model: embedding, recurrent layers, and the next token's logits at every place.

Dropout: Zaremba, Sutskever, Vinyals, "Recurrent neural network regularization", arXiv:1409.2329, 2014. Tied weights:
Press & Wolf, "Using the output embedding to improve language models", EACL 2017 (arXiv:1608.05859).
"""

from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import Initialization, initialize
from torchloom.models._recurrent import Cell, make_rnn


def build(
    tokens: int,
    *,
    cell: Cell = "lstm",
    embedding: Count = 128,
    width: Count = 512,
    layers: Count = 2,
    embedding_dropout: Fraction = 0.2,
    dropout: Fraction = 0.5,
    tied: bool = False,
    initialization: Initialization = "default",
) -> nn.Module:
    """A language model over `tokens` different tokens.

    `dropout` is between the layers and before the output; `tied` shares one matrix between embedding and output.
    """
    rnn = make_rnn(cell, embedding, width, layers, bidirectional=False, dropout=dropout)
    return initialize(LanguageRNN(tokens, rnn, embedding_dropout, dropout, tied), initialization)


class LanguageRNN(nn.Module):
    """tokens (B, T) int64 -> logits (B, T, tokens) and the state after the last of them.

    The state is hidden, and for an LSTM cell too, each (layers, B, width) float32; left out, it is zero.
    """

    def __init__(self, tokens: int, rnn: nn.RNNBase, embedding_dropout: float, dropout: float, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, rnn.input_size)
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.dropout = nn.Dropout(dropout)
        self.rnn = rnn
        # a tied matrix has the width of the embedding
        project = tied and rnn.hidden_size != rnn.input_size
        self.projection = nn.Linear(rnn.hidden_size, rnn.input_size) if project else nn.Identity()
        self.head = nn.Linear(rnn.input_size if tied else rnn.hidden_size, tokens)
        if tied:
            nn.init.normal_(self.embedding.weight, std=rnn.input_size**-0.5)  # logits of the order of 1
            self.head.weight = self.embedding.weight

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("hidden", "cell") if isinstance(self.rnn, nn.LSTM) else ("hidden",)

    def forward(self, tokens: Tensor, hidden: Tensor | None = None, cell: Tensor | None = None) -> tuple[Tensor, ...]:
        x = self.embedding_dropout(self.embedding(tokens))  # (B, T, embedding)
        lstm = isinstance(self.rnn, nn.LSTM)
        before = (hidden, cell) if lstm and hidden is not None else hidden
        x, after = self.rnn(x, before)  # (B, T, width)
        logits = self.head(self.projection(self.dropout(x)))  # (B, T, tokens)
        return (logits, *after) if lstm else (logits, after)
