"""What networks that forecast series have in common: how the level and scale of each window are taken out."""

from typing import Literal

import torch
from torch import Tensor, nn

Normalization = Literal["none", "last", "instance"]


def normalized(network: nn.Module, channels: int, name: Normalization) -> nn.Module:
    """`network`, (B, window, channels) -> (B, horizon, channels), on windows whose level and scale are taken out.

    - none: as they are
    - last: the last value of each window is taken off, and put back on (Zeng et al., arXiv:2205.13504: NLinear)
    - instance: each window has mean 0 and deviation 1 in each column, which is taken back, with a scale and a shift
      that are learnt (Kim et al., "Reversible instance normalization", ICLR 2022)
    """
    if name == "none":
        return network
    return FromLast(network) if name == "last" else ReversibleNorm(network, channels)


class FromLast(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, windows: Tensor) -> Tensor:
        last = windows[:, -1:]
        ahead: Tensor = self.network(windows - last) + last
        return ahead


class ReversibleNorm(nn.Module):
    def __init__(self, network: nn.Module, channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.network, self.epsilon = network, epsilon
        self.scale, self.shift = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, windows: Tensor) -> Tensor:
        mean = windows.mean(1, keepdim=True).detach()  # (B, 1, channels)
        centred = windows - mean
        std = (centred.square().mean(1, keepdim=True) + self.epsilon).sqrt().detach()
        ahead = self.network(centred / std * self.scale + self.shift).float()
        scale = self.scale + self.epsilon**2  # which may come to be 0
        back: Tensor = (ahead - self.shift) / scale * std + mean
        return back
