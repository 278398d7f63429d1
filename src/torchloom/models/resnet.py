"""Residual networks, by default in their form for small images: a 3x3 stem of stride 1 and no max pooling.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016 (arXiv:1512.03385). Preactivation: the
same, "Identity mappings in deep residual networks", ECCV 2016 (arXiv:1603.05027); wide ones: Zagoruyko & Komodakis,
"Wide residual networks", BMVC 2016 (arXiv:1605.07146).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import (
    Activation,
    Initialization,
    Norm,
    check_side,
    initialize,
    make_activation,
    make_norm,
)

BLOCKS = {  # residual blocks per stage
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
DEEP = 50  # layers from which on blocks are bottlenecks
EXPANSION = 4  # of a bottleneck
ONEDNN_BLOCK = 16  # channels; with AVX2 8
Counts = Annotated[list[Count], Field(min_length=1, max_length=6)]


def build(
    shape: tuple[int, int, int],
    outputs: int,
    *,
    depth: Literal[18, 34, 50, 101, 152] = 18,
    blocks: Counts | None = None,
    width: Count = 64,
    widen: Count = 1,
    bottleneck: bool | None = None,
    preactivation: bool = False,
    stem: Literal["small", "imagenet"] = "small",
    activation: Activation = "ReLU",
    norm: Norm = "batch",
    dropout: Fraction = 0.0,
    initialization: Initialization = "he",
) -> nn.Module:
    """A ResNet whose stages have `width`, 2, 4 and 8 times `width` channels, times `widen` but for the stem.

    `blocks` says how many there are in each stage, in place of what `depth` does: [3, 3, 3] with width 16 is ResNet-20
    of the paper's section 4.2, [4, 4, 4] with width 16, widen 10 and preactivation WRN-28-10. `bottleneck` blocks have
    four times as many channels outside as inside; not given, those of depth 50 and more are such. `dropout` is before
    the last convolution of each block. The `stem` for ImageNet has a 7x7 convolution and a max pooling, both of stride
    2.
    """
    if blocks and depth != 18:
        raise ValueError(f"depth {depth}: blocks {blocks} say how many layers there are; leave depth out")
    counts = blocks or BLOCKS[depth]
    if bottleneck is None:
        bottleneck = blocks is None and depth >= DEEP
    if stem == "imagenet":
        check_side(shape, 32, "resnet with the stem for imagenet")
    layers = Layers(activation, norm, dropout)
    return initialize(
        ResNet(shape[0], outputs, counts, width, widen, bottleneck, preactivation, stem, layers), initialization
    )


@dataclass(frozen=True)
class Layers:
    """What all blocks are made of."""

    activation: Activation
    norm: Norm
    dropout: float

    def normed(self, channels: int) -> list[nn.Module]:
        """Norm and activation."""
        return [*make_norm(self.norm, channels), self.activated()]

    def activated(self) -> nn.Module:
        return nn.ReLU(inplace=True) if self.activation == "ReLU" else make_activation(self.activation)

    def before_last(self) -> list[nn.Module]:
        return [nn.Dropout(self.dropout)] if self.dropout else []

    def conv(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
        bias = self.norm == "none"
        return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)


class ResNet(nn.Module):
    """Images (B, C, H, W) -> logits (B, outputs)."""

    def __init__(
        self,
        channels: int,
        outputs: int,
        counts: Sequence[int],
        width: int,
        widen: int,
        bottleneck: bool,
        preactivation: bool,
        stem: str,
        layers: Layers,
    ) -> None:
        super().__init__()
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        first = [layers.conv(channels, width, kernel, stride), *([] if preactivation else layers.normed(width))]
        pooled = [nn.MaxPool2d(3, stride=2, padding=1)] if stem == "imagenet" else []
        self.stem = nn.Sequential(*first, *pooled)
        block = PreactivatedBlock if preactivation else Block
        stages: list[nn.Module] = []
        inputs = width
        for stage, count in enumerate(counts):
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                stages.append(block(inputs, (width * widen) << stage, stride, bottleneck, layers))
                inputs = (width * widen << stage) * (EXPANSION if bottleneck else 1)
        self.stages = nn.Sequential(*stages)
        self.last = nn.Sequential(*(layers.normed(inputs) if preactivation else []))
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.stages(self.stem(x)))  # (B, width of the last stage, H / 8, W / 8) of four stages
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        logits: Tensor = self.head(x)  # (B, outputs)
        return logits


# What torchvision calls the parts of a block, and what they are here, where nothing is dropped out.
PARTS = {
    **{f"conv{number}": f"body.{3 * number - 3}" for number in (1, 2, 3)},
    **{f"bn{number}": f"body.{3 * number - 2}" for number in (1, 2, 3)},
    **{f"downsample.{number}": f"shortcut.{number}" for number in (0, 1)},
}
ENDS = {"conv1": "stem.0", "bn1": "stem.1", "fc": "head"}  # and those of the network


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state_dict of torchvision's ResNets as one of those here with the stem for ImageNet."""
    blocks = sorted({(int(stage), int(block)) for stage, block in re.findall(r"layer(\d+)\.(\d+)\.", " ".join(state))})
    places = {f"layer{stage}.{block}": f"stages.{place}" for place, (stage, block) in enumerate(blocks)}
    return {_renamed(name, places, PARTS, ENDS): weight for name, weight in state.items()}


def to_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back: the stages begin where blocks become wider."""
    ends = [name for name in state if re.fullmatch(r"stages\.\d+\.body\.0\.weight", name)]
    widths = [len(state[name]) for name in sorted(ends, key=lambda name: int(name.split(".")[1]))]
    firsts = [widths.index(width) for width in widths]
    stages = {first: number for number, first in enumerate(dict.fromkeys(firsts), 1)}
    places = {f"stages.{place}": f"layer{stages[first]}.{place - first}" for place, first in enumerate(firsts)}
    parts, ends_here = ({here: there for there, here in each.items()} for each in (PARTS, ENDS))
    return {_renamed(name, places, parts, ends_here): weight for name, weight in state.items()}


def _renamed(name: str, places: Mapping[str, str], parts: Mapping[str, str], ends: Mapping[str, str]) -> str:
    """The name of a weight, `what` of a part of a block or of the network, in the other's words; or as it is."""
    part, _, what = name.rpartition(".")
    place = ".".join(part.split(".")[:2])
    if place in places:
        inner = part.removeprefix(f"{place}.")
        return f"{places[place]}.{parts.get(inner, inner)}.{what}"
    return f"{ends.get(part, part)}.{what}"


def convolutions(inputs: int, width: int, stride: int, bottleneck: bool, layers: Layers) -> list[nn.Conv2d]:
    """Those of a block: two of 3x3 (figure 2), or 1x1, 3x3 and 1x1 (figure 5, right)."""
    if bottleneck:
        return [
            layers.conv(inputs, width, 1),
            layers.conv(width, width, 3, stride),
            layers.conv(width, width * EXPANSION, 1),
        ]
    return [layers.conv(inputs, width, 3, stride), layers.conv(width, width, 3)]


class Block(nn.Module):
    """Convolutions beside a shortcut, a projection where the shape changes (option B)."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool, layers: Layers) -> None:
        super().__init__()
        body: list[nn.Module] = []
        *before, last = convolutions(inputs, width, stride, bottleneck, layers)
        for each in before:
            body += [each, *layers.normed(each.out_channels)]
        self.body = nn.Sequential(*body, *layers.before_last(), last, *make_norm(layers.norm, last.out_channels))
        same = inputs == last.out_channels and stride == 1
        self.shortcut = nn.Identity() if same else shortcut(inputs, last.out_channels, stride, layers)
        self.activation = layers.activated()

    def forward(self, x: Tensor) -> Tensor:
        summed: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return summed


class PreactivatedBlock(nn.Module):
    """Norm and activation before each convolution, and none behind the sum; a projection sees what is activated."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool, layers: Layers) -> None:
        super().__init__()
        first, *others = convolutions(inputs, width, stride, bottleneck, layers)
        self.before = nn.Sequential(*make_norm(layers.norm, inputs), make_activation(layers.activation))
        body: list[nn.Module] = [first]
        for each in others:
            dropped = layers.before_last() if each is others[-1] else []
            body += [*layers.normed(each.in_channels), *dropped, each]
        self.body = nn.Sequential(*body)
        outputs = others[-1].out_channels
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else Projection(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.before(x)
        summed: Tensor = self.body(active) + (x if self.shortcut is None else self.shortcut(active))
        return summed


def shortcut(inputs: int, outputs: int, stride: int, layers: Layers) -> nn.Module:
    projected = Projection(inputs, outputs, 1, stride, bias=layers.norm == "none")
    return nn.Sequential(projected, *make_norm(layers.norm, outputs))


class Projection(nn.Conv2d):
    """A 1x1 convolution with a stride, whose gradient is right on CPUs with AVX2 too.

    With a stride and fewer channels than in one of its blocks, oneDNN 3.13 writes past its buffer in the
    gradient of the weights: wrong numbers, a crash or a hang, on CPUs with AVX2 (github.com/uxlfoundation/oneDNN,
    issue 6035). Narrow ones therefore pick the pixels themselves while they learn; the result is the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.device.type == "cpu" and self.in_channels < ONEDNN_BLOCK:
            rows, columns = self.stride
            return F.conv2d(x[:, :, ::rows, ::columns], self.weight, self.bias)
        return super().forward(x)
