"""A language model of transformer blocks: each place looks back at the `context` last ones, itself among them.

Vaswani et al., "Attention is all you need", NeurIPS 2017 (arXiv:1706.03762), with norms before the layers as GPT-2 has
them (Radford et al., "Language models are unsupervised multitask learners", 2019).
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import Activation, Initialization, check_heads, initialize, make_activation, rotated

Positions = Literal["rotary", "learned"]
State = tuple[Tensor, Tensor, Tensor]


def build(
    tokens: int,
    *,
    width: Count = 128,
    layers: Count = 4,
    heads: Count = 4,
    feedforward: Count | None = None,
    context: Count = 128,
    positions: Positions = "rotary",
    activation: Activation = "GELU",
    embedding_dropout: Fraction = 0.1,
    dropout: Fraction = 0.2,
    tied: bool = True,
    initialization: Initialization = "truncated_normal",
) -> nn.Module:
    """A language model over `tokens` different tokens, of blocks of attention in `heads` and two dense layers, of which
    the inner one is `feedforward` wide, four times `width` unless it is given.

    A place knows how far back another one is by rotary positions (Su et al., arXiv:2104.09864), or by a vector that is
    learnt for each distance (Shaw et al., arXiv:1803.02155). `tied` shares one matrix between embedding and output.
    """
    check_heads(width, heads, rotary=positions == "rotary")
    block = (width, heads, feedforward or 4 * width, context, positions, activation, dropout)
    blocks = [Block(*block) for _ in range(layers)]
    network = LanguageTransformer(tokens, blocks, width, context, embedding_dropout, tied)
    initialize(network, initialization)
    if initialization != "default":
        nn.init.normal_(network.embedding.weight, std=0.02 if initialization == "truncated_normal" else width**-0.5)
    return network


class LanguageTransformer(nn.Module):
    """tokens (B, T) int64 -> logits (B, T, tokens) and the state after the last of them.

    The state is what the next places look back at: keys and values of the last `context` - 1 places, (layers, B, heads,
    context - 1, width / heads) float32, and how many of them there are, (B,) float32; left out, there are none.
    """

    state_names = ("keys", "values", "filled")

    def __init__(
        self, tokens: int, blocks: list[Block], width: int, context: int, embedding_dropout: float, tied: bool
    ) -> None:
        super().__init__()
        self.places = context - 1
        self.embedding = nn.Embedding(tokens, width)
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, tokens)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(
        self, tokens: Tensor, keys: Tensor | None = None, values: Tensor | None = None, filled: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        x = self.embedding_dropout(self.embedding(tokens))  # (B, T, width)
        after = []
        for number, block in enumerate(self.blocks):
            past = None
            if keys is not None and values is not None and filled is not None:
                past = (keys[number], values[number], filled)
            x, *seen = block(x, past)
            after.append(seen)
        before = tokens.new_zeros(len(tokens), dtype=torch.float32) if filled is None else filled
        held = (before + tokens.shape[1]).clamp(max=self.places)
        logits = self.head(self.norm(x))  # (B, T, tokens)
        return (logits, *(torch.stack(each) for each in zip(*after, strict=True)), held)


class Block(nn.Module):
    """(B, T, width) and what it looks back at -> the same, and keys and values of the last places."""

    def __init__(
        self,
        width: int,
        heads: int,
        feedforward: int,
        context: int,
        positions: Positions,
        activation: Activation,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention = Attention(width, heads, context, positions, dropout)
        self.before_attention, self.before_layers = nn.LayerNorm(width), nn.LayerNorm(width)
        layers = nn.Linear(width, feedforward), make_activation(activation), nn.Linear(feedforward, width)
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, past: State | None) -> State:
        seen, keys, values = self.attention(self.before_attention(x), past)
        x = x + self.dropout(seen)
        return x + self.dropout(self.layers(self.before_layers(x))), keys, values


class Attention(nn.Module):
    """Each place of a sequence (B, T, width) -> what it gathers from itself and the `context` - 1 places before it."""

    def __init__(self, width: int, heads: int, context: int, positions: Positions, dropout: float) -> None:
        super().__init__()
        self.heads, self.context, self.places, self.dropout = heads, context, context - 1, dropout
        self.queries_keys_values, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.distances = nn.Parameter(torch.zeros(context, width // heads)) if positions == "learned" else None

    def forward(self, x: Tensor, past: State | None) -> State:
        three = self.queries_keys_values(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = three.unbind()  # each (B, heads, T, width / heads)
        if past is not None:
            keys, values = (
                torch.cat([past[0].to(keys.dtype), keys], 2),
                torch.cat([past[1].to(values.dtype), values], 2),
            )
        seen = self.looked_back(queries, keys, values, None if past is None else past[2])
        # a copy, as torch.export takes how this lies in memory from one kernel of attention, and runs another
        seen = seen.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        mixed: Tensor = self.mixed(seen.flatten(2))
        last = partial(self.last, count=x.shape[1], with_past=past is not None)
        return mixed, last(keys).float(), last(values).float()

    def looked_back(self, queries: Tensor, keys: Tensor, values: Tensor, filled: Tensor | None) -> Tensor:
        """`filled` (B,) says how many of the first `context` - 1 keys are there, if these are of places before."""
        dropout = self.dropout if self.training else 0.0
        here = torch.arange(queries.shape[2], device=queries.device)
        there = here if filled is None else torch.cat([torch.arange(-self.places, 0, device=here.device), here])
        if self.distances is None:
            queries, keys = rotated(queries, here), rotated(keys, there)
            if filled is None and queries.shape[2] <= self.context:
                return F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout, is_causal=True)
        far = here[:, None] - there  # (T, S), below 0 where a key comes later
        seen = (far >= 0) & (far < self.context)
        if filled is not None:
            seen = seen & (there >= -filled[:, None])[:, None, None]  # (B, 1, T, S)
        mask = seen if self.distances is None else self.by_distance(queries, far).masked_fill(~seen, -torch.inf)
        return F.scaled_dot_product_attention(queries, keys, values, mask, dropout_p=dropout)

    def by_distance(self, queries: Tensor, far: Tensor) -> Tensor:
        """What the distances (T, S) add to the scores of queries and keys, (B, heads, T, S)."""
        assert self.distances is not None
        scores = queries @ self.distances.to(queries.dtype).T * queries.shape[3] ** -0.5  # (B, heads, T, context)
        added: Tensor = scores.gather(3, far.clamp(0, self.context - 1).expand(*scores.shape[:2], *far.shape))
        return added

    def last(self, x: Tensor, count: int, with_past: bool) -> Tensor:
        """Keys or values of the last places; before the beginning they are nought."""
        if with_past:
            return x[:, :, count:]
        return F.pad(x, (0, 0, max(0, self.places - count), 0))[:, :, -self.places or count :]
