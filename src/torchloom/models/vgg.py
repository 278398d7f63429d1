"""VGG networks with batch norm and, as usual on small images, a single linear layer for a head.

Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015 (arXiv:1409.1556).
"""

from typing import Literal

from torch import nn

from torchloom.config import Count
from torchloom.models._layers import Initialization, check_side, initialize

# 3x3 convolutions in each of the five stages (the paper's table 1, columns A, B, D and E)
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def build(
    shape: tuple[int, int, int],
    outputs: int,
    *,
    depth: Literal[11, 13, 16, 19] = 16,
    width: Count = 64,
    batch_norm: bool = True,
    initialization: Initialization = "default",
) -> nn.Module:
    """A VGG whose five stages have `width` times 1, 2, 4, 8 and 8 channels, with max pooling after each.

    `depth` counts layers as the paper does, with three dense ones, of which the one that gives the logits is left.
    Without batch norm, take `initialization: he`: with the layers' own, signals fade on their way through.
    """
    check_side(shape, 32, "vgg")
    layers: list[nn.Module] = []
    channels = shape[0]
    for factor, count in zip((1, 2, 4, 8, 8), CONVOLUTIONS[depth], strict=True):
        for _ in range(count):
            # torchvision's have a bias even before batch norm; its weights fit
            layers.append(nn.Conv2d(channels, factor * width, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(factor * width))
            layers.append(nn.ReLU(inplace=True))
            channels = factor * width
        layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs)]  # 32x32 is one pixel by now
    return initialize(nn.Sequential(*layers), initialization)
