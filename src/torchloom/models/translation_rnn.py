"""A recurrent encoder-decoder with attention: texts written anew in other tokens, such as a translation.

Bahdanau, Cho, Bengio, "Neural machine translation by jointly learning to align and translate", ICLR 2015
(arXiv:1409.0473): what is written next looks at all places of the source. As in Luong, Pham, Manning, EMNLP 2015
(arXiv:1508.04025), the state after the last token looks, and not that before it, so that a whole text is one call of
the recurrent layers in training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import Initialization, initialize, pooled
from torchloom.models._recurrent import Cell, make_rnn, run_packed


def build(
    tokens: int,
    written: int,
    *,
    cell: Cell = "gru",
    embedding: Count = 128,
    width: Count = 128,
    layers: Count = 1,
    embedding_dropout: Fraction = 0.1,
    dropout: Fraction = 0.2,
    attention: bool = True,
    initialization: Initialization = "default",
) -> nn.Module:
    """An encoder of `layers` in both directions over `tokens` different tokens, and a decoder that writes in `written`
    different ones. Without `attention` all that the decoder knows of a source is its first state (Sutskever, Vinyals,
    Le, NeurIPS 2014, arXiv:1409.3215)."""
    encoder = make_rnn(cell, embedding, width, layers, bidirectional=True, dropout=dropout)
    decoder = make_rnn(cell, embedding, width, layers, bidirectional=False, dropout=dropout)
    network = TranslationRNN(tokens, written, encoder, decoder, embedding_dropout, dropout, attention)
    return initialize(network, initialization)


class TranslationRNN(nn.Module):
    """As models.translation_transformer.TranslationTransformer, with another `memory` and `past`.

    They are what the encoder makes of a source, `encoded` (1, B, T, 2 width), with the places that are `there`,
    (1, B, T), and the decoder's state, `hidden` and for an LSTM `cell`, (layers, B, width).
    """

    memory_names = ("encoded", "there")

    def __init__(
        self,
        tokens: int,
        written: int,
        encoder: nn.RNNBase,
        decoder: nn.RNNBase,
        embedding_dropout: float,
        dropout: float,
        attention: bool,
    ) -> None:
        super().__init__()
        width = decoder.hidden_size
        self.embedding = nn.Embedding(tokens, encoder.input_size, padding_idx=0)
        self.written_embedding = nn.Embedding(written, decoder.input_size)
        self.embedding_dropout, self.dropout = nn.Dropout(embedding_dropout), nn.Dropout(dropout)
        self.encoder, self.decoder = encoder, decoder
        self.first = nn.Linear(2 * width, decoder.num_layers * width)
        self.looking = AdditiveAttention(width) if attention else None
        self.head = nn.Linear(3 * width if attention else width, written)

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("hidden", "cell") if isinstance(self.decoder, nn.LSTM) else ("hidden",)

    def forward(self, tokens: Tensor, lengths: Tensor, given: Tensor | None = None) -> Tensor:
        given = tokens.new_zeros(len(tokens), 1) if given is None else given
        logits, *_ = self.told(given, *self.encode(tokens, lengths))
        return logits

    def encode(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        x = self.embedding_dropout(self.embedding(tokens))  # (B, T, embedding)
        encoded = run_packed(self.encoder, x, lengths)  # (B, T, 2 width), zero after the end
        there = torch.arange(tokens.shape[1], device=tokens.device) < lengths.to(tokens.device).unsqueeze(1)
        first = self.first(pooled(encoded, lengths, "mean")).tanh()  # (B, layers x width)
        hidden = first.unflatten(1, (self.decoder.num_layers, -1)).transpose(0, 1).contiguous()
        state = (hidden, torch.zeros_like(hidden))[: len(self.state_names)]
        return (encoded[None], there[None].to(encoded.dtype), *state)

    def step(self, last: Tensor, encoded: Tensor, there: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        logits, *after = self.told(last[:, None], encoded, there, *state)
        return (logits[:, 0], *after)

    def told(self, given: Tensor, encoded: Tensor, there: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Logits (B, G, written) after each of the tokens (B, G), and the state after the last of them."""
        x = self.embedding_dropout(self.written_embedding(given))  # (B, G, embedding)
        x, after = self.decoder(x, state if len(state) > 1 else state[0])  # (B, G, width)
        if self.looking is not None:
            x = torch.cat([x, self.looking(x, encoded[0], there[0])], 2)
        return (self.head(self.dropout(x)), *(after if isinstance(after, tuple) else (after,)))


class AdditiveAttention(nn.Module):
    """States (B, G, width) -> the mean of what is at the places that are `there` (B, T) of a source (B, T, 2 width),
    by weights that a small network gives to each pair: (B, G, 2 width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.states, self.places = nn.Linear(width, width), nn.Linear(2 * width, width, bias=False)
        self.scores = nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor, encoded: Tensor, there: Tensor) -> Tensor:
        pairs = (self.states(x).unsqueeze(2) + self.places(encoded).unsqueeze(1)).tanh()  # (B, G, T, width)
        scores = self.scores(pairs).squeeze(3).masked_fill(there.unsqueeze(1) == 0, -torch.inf)
        seen: Tensor = scores.softmax(2).to(encoded.dtype) @ encoded
        return seen
