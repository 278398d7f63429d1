"""The scales on which numbers are learnt, and their units, as a part of the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchloom.data.targets import Number
from torchloom.modalities.modules import Scaling
from torchloom.problems.regression import scales


def to_scale(values: Tensor, numbers: Sequence[Number]) -> Tensor:
    """A number (…), or several (…, K), in their units -> the same on their scales."""
    if len(numbers) == 1:
        return scales.to_scale(torch, numbers[0], values)  # type: ignore[no-any-return]
    return torch.stack([scales.to_scale(torch, each, values[..., at]) for at, each in enumerate(numbers)], -1)


def from_scale(scaled: Tensor, numbers: Sequence[Number]) -> Tensor:
    """What `to_scale` makes something of."""
    if len(numbers) == 1:
        return scales.from_scale(torch, numbers[0], scaled)  # type: ignore[no-any-return]
    return torch.stack([scales.from_scale(torch, each, scaled[..., at]) for at, each in enumerate(numbers)], -1)


class InUnits(Scaling):
    """Answers (B, K), or of several networks (B, members, K), on the scales of K numbers -> predictions in the numbers'
    units of the same shape; of a single number without the last axis."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, numbers: Sequence[Number]) -> None:
        super().__init__()
        self.network, self.numbers = network, list(numbers)
        single = len(numbers) == 1
        for name in ("mean", "std"):
            values = [getattr(each, name) for each in numbers]
            self.register_buffer(name, torch.tensor(values[0] if single else values, dtype=torch.float32))

    def forward(self, *inputs: Tensor) -> Tensor:
        answers: Tensor = self.network(*inputs).float()  # 16 bits are not enough for units
        if {each.scale for each in self.numbers} == {"linear"}:
            prediction = answers * self.std + self.mean
        else:
            measured = zip(self.numbers, self.mean.reshape(-1), self.std.reshape(-1), strict=True)
            columns = [
                scales.from_scale(torch, each, answers[..., at], mean, std)
                for at, (each, mean, std) in enumerate(measured)
            ]
            prediction = torch.stack(columns, -1)
        return prediction if self.mean.ndim else prediction.squeeze(-1)
