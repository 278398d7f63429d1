"""Residual networks in their form for small images: a 3x3 stem of stride 1 and no max pooling.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016 (arXiv:1512.03385).
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.config import Count
from torchloom.models._layers import Initialization, initialize

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}  # residual blocks per stage
ONEDNN_BLOCK = 16  # channels; with AVX2 8


def build(
    shape: tuple[int, int, int],
    outputs: int,
    *,
    depth: Literal[18, 34, 50] = 18,
    width: Count = 64,
    initialization: Initialization = "he",
) -> nn.Module:
    """A ResNet whose four stages have `width`, 2, 4 and 8 times `width` channels (times 4 inside depth 50)."""
    return initialize(ResNet(shape[0], outputs, depth, width), initialization)


class ResNet(nn.Module):
    """Images (B, C, H, W) -> logits (B, outputs)."""

    def __init__(self, channels: int, outputs: int, depth: int, width: int) -> None:
        super().__init__()
        block = Bottleneck if depth >= 50 else BasicBlock
        self.stem = nn.Sequential(conv(channels, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        stages: list[nn.Module] = []
        inputs = width
        for stage, count in enumerate(BLOCKS[depth]):
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                stages.append(block(inputs, width << stage, stride))
                inputs = (width << stage) * block.expansion
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.stem(x))  # (B, 8 width [x 4], H/8, W/8)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)  # (B, 8 width [x 4])
        logits: Tensor = self.head(x)  # (B, outputs)
        return logits


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (figure 2; a projection where the shape changes, option B)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(inputs, width, 3, stride),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            conv(width, width, 3),
            nn.BatchNorm2d(width),
        )
        self.shortcut = shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (figure 5, right)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.body = nn.Sequential(
            conv(inputs, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            conv(width, width, 3, stride),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            conv(width, outputs, 1),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(Projection(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


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
