"""DLinear: the trend of a window and what is left of it, each by one linear layer.

Zeng, Chen, Zhang, Xu, "Are transformers effective for time series forecasting?", AAAI 2023 (arXiv:2205.13504).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.config import Count
from torchloom.models._windows import Normalization, normalized


def build(
    window: int,
    channels: int,
    horizon: int,
    *,
    kernel: Count = 25,
    normalization: Normalization = "none",
) -> nn.Module:
    """Windows (B, window, channels) -> (B, horizon, channels): each column by itself, all by the same two layers.

    The trend is the mean over `kernel` steps, an odd number. `normalization` is one of _windows.normalized.
    """
    if kernel % 2 == 0:
        raise ValueError(f"kernel {kernel}: must be odd, as the mean is taken over as many steps before as after")
    return normalized(DLinear(window, horizon, kernel), channels, normalization)


class DLinear(nn.Module):
    def __init__(self, window: int, horizon: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.trend, self.rest = nn.Linear(window, horizon), nn.Linear(window, horizon, bias=False)  # one is enough
        for layer in (self.trend, self.rest):
            nn.init.constant_(layer.weight, 1 / window)  # at first the mean of the window

    def forward(self, windows: Tensor) -> Tensor:
        x = windows.transpose(1, 2)  # (B, channels, window)
        sides = self.kernel // 2
        trend = F.avg_pool1d(F.pad(x, (sides, sides), mode="replicate"), self.kernel, stride=1)
        ahead: Tensor = self.trend(trend) + self.rest(x - trend)  # (B, channels, horizon)
        return ahead.transpose(1, 2)
