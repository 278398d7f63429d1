"""An encoder-decoder transformer: texts written anew in other tokens, such as a translation.

Vaswani et al., "Attention is all you need", NeurIPS 2017 (arXiv:1706.03762), with norms before the layers and rotary
positions (Su et al., arXiv:2104.09864). What is written is foretold token by token from the whole source and from what
is written already, so that it may be of any length.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import (
    Activation,
    Encoder,
    Initialization,
    check_heads,
    initialize,
    make_activation,
    rotated,
)


def build(
    tokens: int,
    written: int,
    *,
    width: Count = 128,
    layers: Count = 2,
    decoder_layers: Count | None = None,
    heads: Count = 4,
    feedforward: Count | None = None,
    activation: Activation = "GELU",
    embedding_dropout: Fraction = 0.1,
    dropout: Fraction = 0.1,
    tied: bool = True,
    initialization: Initialization = "truncated_normal",
) -> nn.Module:
    """An encoder of `layers` over `tokens` different tokens, and a decoder of as many, or of `decoder_layers`, that
    writes in `written` different ones; the inner dense layers are `feedforward` wide, four times `width` unless it is
    given. `tied` shares one matrix between the decoder's embedding and its output."""
    check_heads(width, heads, rotary=True)
    encoder = Encoder(width, layers, heads, feedforward, activation, dropout, rotary=True)
    inner = feedforward or 4 * width
    blocks = [DecoderBlock(width, heads, inner, activation, dropout) for _ in range(decoder_layers or layers)]
    network = TranslationTransformer(tokens, written, width, encoder, blocks, embedding_dropout, tied)
    initialize(network, initialization)
    if initialization != "default":
        std = 0.02 if initialization == "truncated_normal" else width**-0.5
        for embedding in (network.embedding, network.written_embedding):
            nn.init.normal_(embedding.weight, std=std)
    return network


class TranslationTransformer(nn.Module):
    """tokens (B, T) int64, 0 where a source has ended, lengths (B,) and what is written so far (B, G) int64, which
    begins with 0 -> logits (B, G, written) of the token after each of those; without anything written, of the first.

    For writing, `encode` and `step` do the same token by token. `memory` is what the decoder looks at in the source,
    keys and values side by side, (layers, B, heads, T, 2 width / heads), with the places that are `there`, (1, B, T);
    `past` is the same of what is written, (layers, B, heads, G, 2 width / heads); all float32.
    """

    memory_names = ("memory", "there")
    state_names = ("past",)

    def __init__(
        self,
        tokens: int,
        written: int,
        width: int,
        encoder: nn.Module,
        blocks: list[DecoderBlock],
        embedding_dropout: float,
        tied: bool,
    ) -> None:
        super().__init__()
        self.embedding, self.written_embedding = nn.Embedding(tokens, width), nn.Embedding(written, width)
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.encoder = encoder
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, written)
        if tied:
            self.head.weight = self.written_embedding.weight

    def forward(self, tokens: Tensor, lengths: Tensor, given: Tensor | None = None) -> Tensor:
        given = tokens.new_zeros(len(tokens), 1) if given is None else given
        memory, there, _ = self.encode(tokens, lengths)
        x = self.embedding_dropout(self.written_embedding(given))  # (B, G, width)
        for block, remembered in zip(self.blocks, memory, strict=True):
            x, _ = block(x, remembered, there[0], None)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def encode(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sources -> memory, there and a past of nothing."""
        there = torch.arange(tokens.shape[1], device=tokens.device) < lengths.to(tokens.device).unsqueeze(1)
        encoded = self.encoder(self.embedding_dropout(self.embedding(tokens)), there)  # (B, T, width)
        lookers: list[Any] = [block.looking for block in self.blocks]
        memory = torch.stack([looker.remembered(encoded) for looker in lookers])
        return memory, there[None].to(encoded.dtype), memory[:, :, :, :0]

    def step(self, last: Tensor, memory: Tensor, there: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """The last token (B,) -> logits (B, written) of the next, and the past with that token."""
        x, after = self.written_embedding(last)[:, None], []  # (B, 1, width)
        for block, remembered, seen in zip(self.blocks, memory.unbind(), past.unbind(), strict=True):
            x, seen = block(x, remembered, there[0], seen)
            after.append(seen)
        return self.head(self.norm(x))[:, 0], torch.stack(after)


class DecoderBlock(nn.Module):
    """Attention to what is written, then to the source, then two dense layers, with a norm before each: (B, G, width)
    and what it looks at in the source -> the same, and what the next places look back at."""

    def __init__(self, width: int, heads: int, feedforward: int, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.before_attention, self.attention = nn.LayerNorm(width), CausalAttention(width, heads, dropout)
        self.before_looking, self.looking = nn.LayerNorm(width), CrossAttention(width, heads, dropout)
        self.before_layers = nn.LayerNorm(width)
        layers = nn.Linear(width, feedforward), make_activation(activation), nn.Linear(feedforward, width)
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, there: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        seen, after = self.attention(self.before_attention(x), past)
        x = x + self.dropout(seen)
        x = x + self.dropout(self.looking(self.before_looking(x), memory, there))
        return x + self.dropout(self.layers(self.before_layers(x))), after


class CausalAttention(nn.Module):
    """Each place of (B, G, width) -> what it gathers from itself and all places before it, also those of a `past`,
    (B, heads, P, 2 width / heads), and the past after the last of them. After a past there is one place."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.queries_keys_values, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        three = self.queries_keys_values(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = three.unbind()  # each (B, heads, G, width / heads)
        first = 0 if past is None else past.shape[2]
        places = torch.arange(first + x.shape[1], device=x.device)[first:]
        queries, after = rotated(queries, places), torch.cat([rotated(keys, places), values], 3)
        after = after if past is None else torch.cat([past, after], 2)
        keys, values = after.chunk(2, 3)
        dropout = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout, is_causal=past is None)
        return mixed_from(seen, self.mixed), after


class CrossAttention(nn.Module):
    """Each place of (B, G, width) -> what it gathers from the places of a source that are `there`, (B, T)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.queries, self.keys_values = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.mixed = nn.Linear(width, width)

    def remembered(self, encoded: Tensor) -> Tensor:
        """Keys and values of a source (B, T, width), side by side: (B, heads, T, 2 width / heads)."""
        two = self.keys_values(encoded).unflatten(2, (2, self.heads, -1))  # (B, T, 2, heads, width / heads)
        side_by_side: Tensor = two.permute(0, 3, 1, 2, 4).flatten(3)
        return side_by_side

    def forward(self, x: Tensor, memory: Tensor, there: Tensor) -> Tensor:
        queries = self.queries(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        keys, values = memory.chunk(2, 3)
        dropout = self.dropout if self.training else 0.0
        mask = (there > 0)[:, None, None]
        seen = F.scaled_dot_product_attention(queries, keys, values, mask, dropout_p=dropout)
        return mixed_from(seen, self.mixed)


def mixed_from(seen: Tensor, mixed: nn.Module) -> Tensor:
    """What the heads have gathered, (B, heads, G, width / heads), together: (B, G, width)."""
    # a copy, as torch.export takes how this lies in memory from one kernel of attention, and runs another
    whole = seen.transpose(1, 2).clone(memory_format=torch.contiguous_format)
    together: Tensor = mixed(whole.flatten(2))
    return together
