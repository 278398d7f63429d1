"""A module with a `build`, as those of torchloom.models are."""

import math

from torch import nn


def build(shape: tuple[int, int, int], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), outputs))
