"""Vision transformer: images as sequences of patches.

Dosovitskiy et al., "An image is worth 16x16 words: transformers for image recognition at scale", ICLR 2021
(arXiv:2010.11929); the convolutional stem: Xiao et al., "Early convolutions help transformers see better", NeurIPS 2021
(arXiv:2106.14881).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import Activation, Encoder, Initialization, check_heads, check_side, initialize


def build(
    shape: tuple[int, int, int],
    outputs: int,
    *,
    patch: Count = 4,
    width: Count = 192,
    layers: Count = 6,
    heads: Count = 3,
    feedforward: Count | None = None,
    stem: Literal["convolutional", "patches"] = "convolutional",
    pooling: Literal["mean", "token"] = "mean",
    activation: Activation = "GELU",
    dropout: Fraction = 0.0,
    initialization: Initialization = "truncated_normal",
) -> nn.Module:
    """Patches of `patch` x `patch` pixels -> `layers` of attention in `heads` and two dense layers, of which the inner
    one is `feedforward` wide, four times `width` unless it is given -> linear to `outputs`.

    The `convolutional` stem learns from little data: 3x3 convolutions that halve the image until a patch is a pixel, so
    that `patch` must be a power of 2; `patches` are cut out, as published. What they come to is their mean, or a
    further `token` that learns to gather it, as published. ViT-B/16 is patch 16, width 768, 12 layers and heads, stem
    patches and pooling token. Patches leave out what a side has more than a multiple of the patch.
    """
    check_heads(width, heads, rotary=False)
    check_side(shape, patch, f"vit with patches of {patch}")
    if stem == "convolutional":
        first, sides = convolutions(shape[0], patch, width), [math.ceil(side / patch) for side in shape[1:]]
    else:
        first, sides = nn.Conv2d(shape[0], width, patch, patch), [side // patch for side in shape[1:]]
    encoder = Encoder(width, layers, heads, feedforward, activation, dropout)
    return initialize(
        ViT(first, math.prod(sides), width, encoder, outputs, dropout, pooling == "token"), initialization
    )


NAMES = {  # what torchvision calls the parts, and what they are here
    r"class_token": "token",
    r"encoder\.pos_embedding": "places",
    r"conv_proj\.(.*)": r"stem.\1",
    r"encoder\.layers\.encoder_layer_(\d+)\.(.*)": r"encoder.blocks.\1.\2",
    r"encoder\.ln\.(.*)": r"encoder.norm.\1",
    r"heads\.head\.(.*)": r"head.\1",
}
PARTS = {
    "ln_1": "before_attention",
    "self_attention.in_proj_": "attention.queries_keys_values.",
    "self_attention.out_proj": "attention.mixed",
    "ln_2": "before_layers",
    "mlp.0": "layers.0",
    "mlp.3": "layers.2",
    "mlp.linear_1": "layers.0",  # as files of old have it
    "mlp.linear_2": "layers.2",
}


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state_dict of torchvision's vision transformers as one of those here with patches and a token."""
    return {_here(name): weight for name, weight in state.items()}


def _here(name: str) -> str:
    for there, here in NAMES.items():
        if match := re.fullmatch(there, name):
            name = match.expand(here)
    for part, here in PARTS.items():
        name = name.replace(f".{part}", f".{here}")
    return name


def convolutions(channels: int, patch: int, width: int) -> nn.Module:
    halvings = patch.bit_length() - 1
    if patch != 2**halvings:
        raise ValueError(f"patch {patch}: must be a power of 2 for the convolutional stem, or take stem: patches")
    layers: list[nn.Module] = []
    for left in range(halvings - 1, -1, -1):
        outputs = max(width >> left, 8)
        convolution = nn.Conv2d(channels, outputs, 3, stride=2, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        channels = outputs
    return nn.Sequential(*layers, nn.Conv2d(channels, width, 1))


class ViT(nn.Module):
    """Images (B, C, H, W) -> logits (B, outputs)."""

    def __init__(
        self, stem: nn.Module, count: int, width: int, encoder: nn.Module, outputs: int, dropout: float, token: bool
    ) -> None:
        super().__init__()
        self.stem, self.encoder, self.dropout = stem, encoder, nn.Dropout(dropout)
        self.token = nn.Parameter(torch.zeros(1, 1, width)) if token else None
        self.places = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, count + token, width), std=0.02))
        self.head = nn.Linear(width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)  # (B, patches, width)
        if self.token is not None:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = self.encoder(self.dropout(x + self.places))
        logits: Tensor = self.head(x.mean(1) if self.token is None else x[:, 0])
        return logits
