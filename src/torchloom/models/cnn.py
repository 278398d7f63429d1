"""Small convolutional networks for small colour images, in the three forms that introductions use.

After LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 86(11), 1998 (form lenet), and
Simonyan & Zisserman, "Very deep convolutional networks …", ICLR 2015 (pairs of 3x3 convolutions in form six_conv).
"""

from typing import Literal

from torch import nn

from torchloom.config import Count, Fraction
from torchloom.models import lenet
from torchloom.models._layers import (
    Activation,
    Initialization,
    Norm,
    Pooling,
    check_side,
    check_unused,
    convolution,
    dense,
    initialize,
    make_pooling,
)


def build(
    shape: tuple[int, int, int],
    outputs: int,
    *,
    form: Literal["two_conv", "lenet", "six_conv"] = "two_conv",
    width: Count = 32,
    hidden: Count = 512,
    activation: Activation = "ReLU",
    norm: Norm | None = None,
    pooling: Pooling = "max",
    dropout: Fraction = 0.0,
    initialization: Initialization = "default",
) -> nn.Module:
    """Convolutions with pooling between, then a dense head.

    - two_conv: two 3x3 convolutions of `width` and 2 `width` channels, a pooling after each, `hidden` units, `outputs`
    - lenet: 5x5 convolutions of 6 and 16 channels, 120 and 84 units, which are fixed (LeNet-5 in its modern form)
    - six_conv: three stages of two 3x3 convolutions, with `width`, 2 `width` and 4 `width` channels; head as two_conv

    A `norm` follows every layer but the last; not given, form six_conv has that of batches. `dropout` follows each
    hidden dense layer, and outside lenet each pooling as well.
    """
    if form == "lenet":
        check_unused(form, width=(width, 32), hidden=(hidden, 512))
        return initialize(lenet.modern(shape, outputs, 1, activation, norm or "none", pooling, dropout), initialization)
    widths, convolutions = ([width, 2 * width], 1) if form == "two_conv" else ([width, 2 * width, 4 * width], 2)
    check_side(shape, 2 ** len(widths), f"cnn in form {form}")
    norm = norm or ("batch" if form == "six_conv" else "none")
    layers: list[nn.Module] = []
    channels, rows, columns = shape
    for stage_width in widths:
        for _ in range(convolutions):
            layers += convolution(channels, stage_width, 3, 1, activation=activation, norm=norm)
            channels = stage_width
        layers.append(make_pooling(pooling, 2))
        if dropout:
            layers.append(nn.Dropout(dropout))
        rows, columns = rows // 2, columns // 2
    layers.append(nn.Flatten())
    units = channels * rows * columns
    layers += dense(units, hidden, activation=activation, norm=norm, dropout=dropout)
    layers.append(nn.Linear(hidden, outputs))
    return initialize(nn.Sequential(*layers), initialization)
