"""AlexNet, fitted to images of about 32x32 pixels.

Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012.
"""

from torch import nn

from torchloom.config import Count, Fraction
from torchloom.models._layers import Activation, Initialization, check_side, convolution, dense, initialize


def build(
    shape: tuple[int, int, int],
    outputs: int,
    *,
    width: Count = 32,
    activation: Activation = "ReLU",
    batch_norm: bool = True,
    dropout: Fraction = 0.5,
    initialization: Initialization = "default",
) -> nn.Module:
    """Five convolutions of 3, 8, 12, 12 and 8 times `width` channels, two hidden layers of 128 `width` units.

    Width 32 is the paper's 96-256-384-384-256-4096-4096. What differs from it, and why:

    - The first kernel is 3x3 with stride 1, not 11x11 with stride 4: that covers as large a part of 32 pixels as 11 do
      of 224, and the three poolings, 3x3 with stride 2 as published, then leave 3x3 pixels (6x6 in the paper).
    - The second to fifth convolutions connect all maps: their halves were two GPUs.
    - `batch_norm` after every convolution takes the place of local response normalisation.

    `dropout` comes before each hidden dense layer. The paper draws the weights as `initialization: normal` does.
    """
    check_side(shape, 15, "alexnet")
    layers: list[nn.Module] = []
    channels, rows, columns = shape
    for multiple, kernel, pooled in [(3, 3, True), (8, 5, True), (12, 3, False), (12, 3, False), (8, 3, True)]:
        padding = kernel // 2  # keeps the size
        layers += convolution(channels, multiple * width, kernel, padding, activation=activation, batch_norm=batch_norm)
        channels = multiple * width
        if pooled:
            layers.append(nn.MaxPool2d(3, stride=2))  # neighbours overlap by one pixel
            rows, columns = (rows - 1) // 2, (columns - 1) // 2
    layers += [nn.Flatten(), nn.Dropout(dropout)]
    layers += dense(channels * rows * columns, 128 * width, activation=activation, dropout=dropout)
    layers += [*dense(128 * width, 128 * width, activation=activation), nn.Linear(128 * width, outputs)]
    return initialize(nn.Sequential(*layers), initialization)
