"""What stands around a network of forecasts as a part of the model."""

import torch
from torch import Tensor, nn

from torchloom.modalities.modules import Scaling


class ColumnsInUnits(Scaling):
    """Forecasts (B, horizon, columns) where each column has mean 0 and deviation 1 -> in the columns' own units.

    Of more columns, which windows have and that are not forecast, nothing is told.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, *inputs: Tensor) -> Tensor:
        ahead: Tensor = self.network(*inputs)[:, :, : len(self.mean)]
        return ahead.float() * self.std + self.mean  # 16 bits are not enough for units


class WithKnown(nn.Module):
    """A `network` of forecasts that sees what is left of a window when the effect of what is known is taken off.

    The effect of a step is what two layers make of its known numbers (K,), by column: a regression whose errors are a
    series, as in Hyndman & Athanasopoulos, "Forecasting: principles and practice", chapter 10.
    """

    def __init__(self, network: nn.Module, known: int, channels: int, width: int = 64) -> None:
        super().__init__()
        self.network = network
        self.effect = nn.Sequential(nn.Linear(known, width), nn.ReLU(), nn.Linear(width, channels))

    def forward(self, windows: Tensor, known: Tensor) -> Tensor:
        effect = self.effect(known)  # (B, window + horizon, columns)
        window = windows.shape[1]
        ahead: Tensor = self.network(windows - effect[:, :window]) + effect[:, window:]
        return ahead


class Naive(nn.Module):
    """Windows (B, window, columns) -> the last `season` steps again and again, (B, horizon, targets): of the first
    columns."""

    def __init__(self, season: int, horizon: int, targets: int) -> None:
        super().__init__()
        self.season, self.targets = season, targets
        self.places = torch.arange(horizon) % season

    def forward(self, windows: Tensor, *known: Tensor) -> Tensor:
        return windows[:, -self.season :, : self.targets].index_select(1, self.places.to(windows.device))
