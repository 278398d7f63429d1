"""AlexNet, fitted to images of about 32x32 pixels.

Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012.
"""

from typing import Literal

from torch import nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import (
    Activation,
    Initialization,
    Norm,
    Pooling,
    check_side,
    convolution,
    dense,
    initialize,
    make_pooling,
)

CONVOLUTIONS = [(3, 3, True), (8, 5, True), (12, 3, False), (12, 3, False), (8, 3, True)]  # widths, kernels, pooled
LOCAL = 2  # convolutions that local response normalisation follows


def build(
    shape: tuple[int, int, int],
    outputs: int,
    *,
    width: Count = 32,
    activation: Activation = "ReLU",
    last_activation: Activation | None = None,
    norm: Norm | Literal["local_response"] = "batch",
    pooling: Pooling = "max",
    global_pooling: bool = False,
    dropout: Fraction = 0.5,
    initialization: Initialization = "default",
) -> nn.Module:
    """Five convolutions of 3, 8, 12, 12 and 8 times `width` channels, two hidden layers of 128 `width` units.

    Width 32 is the paper's 96-256-384-384-256-4096-4096. What differs from it, and why:

    - The first kernel is 3x3 with stride 1, not 11x11 with stride 4: that covers as large a part of 32 pixels as 11 do
      of 224, and the three poolings, 3x3 with stride 2 as published, then leave 3x3 pixels (6x6 in the paper).
    - The second to fifth convolutions connect all maps: their halves were two GPUs.
    - Batch norm after every convolution takes the place of what the paper has after the first two, which is `norm:
      local_response`.

    `last_activation` is that of the last hidden layer, where it is another. With `global_pooling` the hidden layers see
    the mean of each map. `dropout` comes before each hidden layer. The paper draws the weights as `initialization:
    normal` does.
    """
    check_side(shape, 15, "alexnet")
    layers: list[nn.Module] = []
    channels, rows, columns = shape
    for number, (multiple, kernel, pooled) in enumerate(CONVOLUTIONS):
        own: Norm = "none" if norm == "local_response" else norm
        layers += convolution(channels, multiple * width, kernel, kernel // 2, activation=activation, norm=own)
        channels = multiple * width
        if norm == "local_response" and number < LOCAL:
            layers.append(nn.LocalResponseNorm(5, alpha=5e-4, k=2.0))  # 1e-4 for each of five: here it is of their mean
        if pooled:
            layers.append(make_pooling(pooling, 3, stride=2))  # neighbours overlap by one pixel
            rows, columns = (rows - 1) // 2, (columns - 1) // 2
    if global_pooling:
        layers.append(nn.AdaptiveAvgPool2d(1))
        rows = columns = 1
    layers += [nn.Flatten(), nn.Dropout(dropout)]
    layers += dense(channels * rows * columns, 128 * width, activation=activation, dropout=dropout)
    layers += dense(128 * width, 128 * width, activation=last_activation or activation)
    layers.append(nn.Linear(128 * width, outputs))
    return initialize(nn.Sequential(*layers), initialization)
