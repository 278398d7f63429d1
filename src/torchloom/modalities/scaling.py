"""The scaling of inputs, as a part of the model: training, evaluation and the exported graph cannot differ in it."""

from typing import Any

import torch
from torch import Tensor, nn


class NormalizedImages(nn.Module):
    """uint8 images (B, C, H, W) -> what the network makes of (pixel / 255 - mean) / std per channel.

    The normalisation is part of the model, so that training, evaluation and the exported graph cannot differ in it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", _per_channel(mean) * 255)
        self.register_buffer("std", _per_channel(std) * 255)

    def forward(self, images: Tensor) -> Any:
        return self.network(self.normalize(images))

    def normalize(self, images: Tensor) -> Tensor:
        """As it says, and quickly: row by row as they lie in memory, in place, without temporaries of their size."""
        if torch.compiler.is_compiling():  # fused there; and a simple graph in exports
            return (images.float() - self.mean) / self.std
        count, channels, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).flatten(2).to(torch.float32, copy=True)  # (B, H, W C)
        scale = (1 / self.std).flatten()
        rows.mul_(scale.repeat(width)).sub_((self.mean.flatten() * scale).repeat(width))
        return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


def _per_channel(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1)


class StandardizedTable(nn.Module):
    """Features (B, F) float32 in their own units -> predictions (B,) in the target's unit.

    The network sees features of mean 0 and standard deviation 1 and answers on that scale too.
    """

    mean: Tensor
    std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self, network: nn.Module, mean: list[float], std: list[float], target_mean: float, target_std: float
    ) -> None:
        super().__init__()
        self.network = network
        given = {"mean": mean, "std": std, "target_mean": target_mean, "target_std": target_std}
        for name, value in given.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32))

    def forward(self, features: Tensor) -> Tensor:
        prediction: Tensor = self.network((features - self.mean) / self.std) * self.target_std + self.target_mean
        return prediction
