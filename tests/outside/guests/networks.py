"""Networks of a user's own."""

import math

from torch import nn

from guests.layers import Scale


def wide(shape: tuple[int, int, int], outputs: int, *, width: int = 32) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), width), Scale(2.0), nn.Linear(width, outputs))


def too_wide(shape: tuple[int, int, int], outputs: int, *, width: int = 32) -> nn.Module:
    return wide(shape, outputs + 1, width=width)


def of_rows(features: int) -> nn.Module:
    return nn.Linear(features, 1)


def counter(length: int, outputs: int, *, width: int = 8) -> nn.Module:
    """What looks like a pulse is found wherever it stands, and all of it added up."""
    look = nn.Conv1d(1, width, 5, padding=2)
    return nn.Sequential(
        nn.Unflatten(1, (1, length)), look, nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, outputs)
    )
