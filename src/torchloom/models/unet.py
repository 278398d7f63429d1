"""U-Net: down to a small picture of many channels and up again, with what was there on the way down beside it.

Ronneberger, Fischer, Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015
(arXiv:1505.04597). With padding, so that what comes out is as large as what goes in, and a norm.
"""

from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.config import Count
from torchloom.models._layers import Activation, Initialization, Norm, convolution, initialize


def build(
    shape: tuple[int, int, int],
    maps: int,
    *,
    width: Count = 16,
    depth: Count = 3,
    activation: Activation = "ReLU",
    norm: Norm = "batch",
    initialization: Initialization = "default",
) -> nn.Module:
    """Images (B, C, H, W) -> `maps` for each pixel (B, maps, H, W).

    `width` channels at full size, twice as many after each of the `depth` halvings.
    """
    channels, rows, columns = shape
    if min(rows, columns) < 2**depth:
        raise ValueError(f"depth {depth} halves images of {rows}x{columns} to nothing")
    return initialize(UNet(channels, maps, width, depth, activation, norm), initialization)


class UNet(nn.Module):
    def __init__(self, channels: int, maps: int, width: int, depth: int, activation: Activation, norm: Norm) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            convolutions(before, after, activation, norm)
            for before, after in zip([channels, *widths[:-1]], widths, strict=True)
        )
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(2 * after, after, kernel_size=2, stride=2) for after in widths[-2::-1]
        )
        self.up = nn.ModuleList(convolutions(2 * after, after, activation, norm) for after in widths[-2::-1])
        self.head = nn.Conv2d(width, maps, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        on_the_way = []
        for level, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2) if level else x)  # (B, width 2^level, H / 2^level, W / 2^level)
            on_the_way.append(x)
        for grow, up, beside in zip(self.grow, self.up, on_the_way[-2::-1], strict=True):
            grown = grow(x)
            rows, columns = beside.shape[2] - grown.shape[2], beside.shape[3] - grown.shape[3]  # 1 of odd sizes
            x = up(torch.cat([beside, F.pad(grown, (0, columns, 0, rows))], dim=1))
        maps: Tensor = self.head(x)
        return maps


def convolutions(before: int, after: int, activation: Activation, norm: Norm) -> nn.Module:
    """Two 3x3 convolutions, each with norm and activation."""
    both = (convolution(inputs, after, 3, 1, activation=activation, norm=norm) for inputs in (before, after))
    return nn.Sequential(*chain.from_iterable(both))
