"""What networks over series have in common: what they put out, and how the level and scale of each window are taken
out."""

from typing import Literal

import torch
from torch import Tensor, nn

Normalization = Literal["none", "last", "instance"]


def answers(channels: int, horizon: int | None, outputs: int | None) -> tuple[int, ...]:
    """The shape of what a network puts out for a window: steps ahead of each channel, or so many `outputs`."""
    if outputs is not None:
        return (outputs,)
    assert horizon is not None
    return horizon, channels


def normalized(network: nn.Module, channels: int, name: Normalization | None, *, ahead: bool = True) -> nn.Module:
    """`network`, (B, window, channels) -> (B, horizon, channels), on windows whose level and scale are taken out.

    Where what it puts out is not what is `ahead` of a window, they are not put back.

    - None: instance for what is ahead, and else none
    - none: as they are
    - last: the last value of each window is taken off, and put back on (Zeng et al., arXiv:2205.13504: NLinear)
    - instance: each window has mean 0 and deviation 1 in each column, which is taken back, with a scale and a shift
      that are learnt (Kim et al., "Reversible instance normalization", ICLR 2022)
    """
    name = name or ("instance" if ahead else "none")
    if name == "none":
        return network
    return FromLast(network, ahead) if name == "last" else ReversibleNorm(network, channels, ahead)


class FromLast(nn.Module):
    def __init__(self, network: nn.Module, back: bool) -> None:
        super().__init__()
        self.network, self.back = network, back

    def forward(self, windows: Tensor) -> Tensor:
        last = windows[:, -1:]
        ahead: Tensor = self.network(windows - last)
        return ahead + last if self.back else ahead


class ReversibleNorm(nn.Module):
    def __init__(self, network: nn.Module, channels: int, back: bool, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.network, self.back, self.epsilon = network, back, epsilon
        self.scale, self.shift = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, windows: Tensor) -> Tensor:
        mean = windows.mean(1, keepdim=True).detach()  # (B, 1, channels)
        centred = windows - mean
        std = (centred.square().mean(1, keepdim=True) + self.epsilon).sqrt().detach()
        ahead: Tensor = self.network(centred / std * self.scale + self.shift)
        if not self.back:
            return ahead
        scale = self.scale + self.epsilon**2  # which may come to be 0
        return (ahead.float() - self.shift) / scale * std + mean
