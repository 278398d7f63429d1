"""Networks of a user's own."""

import math

from torch import nn

from guests.layers import Scale


def wide(shape: tuple[int, int, int], classes: int, *, width: int = 32) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), width), Scale(2.0), nn.Linear(width, classes))


def of_rows(features: int) -> nn.Module:
    return nn.Linear(features, 1)
