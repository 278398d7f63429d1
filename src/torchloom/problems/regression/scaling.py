"""The scales on which numbers are learnt, and their units, as a part of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from torchloom.data.targets import Number, Scale
from torchloom.modalities.modules import Scaling

LINEAR, FLAT = 5.0, 2.0  # deviations from the middle up to which the robust scale is linear; how flat it is beyond
LOWEST, HIGHEST = -15.9, 80.0  # log(1 + number) that 32 bits can take back
FURTHEST = 60.0  # logarithm of the deviations beyond LINEAR

Numeric = float | Tensor


def _to_linear(values: Tensor, mean: Numeric, std: Numeric) -> Tensor:
    return (values - mean) / std


def _from_linear(scaled: Tensor, mean: Numeric, std: Numeric) -> Tensor:
    return scaled * std + mean


def _to_log(values: Tensor, mean: Numeric, std: Numeric) -> Tensor:
    return (values.log1p() - mean) / std


def _from_log(scaled: Tensor, mean: Numeric, std: Numeric) -> Tensor:
    return (scaled * std + mean).clamp(LOWEST, HIGHEST).expm1()


def _to_robust(values: Tensor, middle: Numeric, deviation: Numeric) -> Tensor:
    """As many deviations from the middle as there are up to LINEAR, and further ones as their logarithm."""
    far = (values - middle) / deviation
    return far.clamp(-LINEAR, LINEAR) + far.sign() * (far.abs() - LINEAR).clamp(min=0.0).log1p() / FLAT


def _from_robust(scaled: Tensor, middle: Numeric, deviation: Numeric) -> Tensor:
    beyond = (FLAT * (scaled.abs() - LINEAR)).clamp(0.0, FURTHEST).expm1()
    return (scaled.clamp(-LINEAR, LINEAR) + scaled.sign() * beyond) * deviation + middle


TO: dict[Scale, Callable[[Tensor, Numeric, Numeric], Tensor]] = {
    "linear": _to_linear,
    "log": _to_log,
    "robust": _to_robust,
}
FROM: dict[Scale, Callable[[Tensor, Numeric, Numeric], Tensor]] = {
    "linear": _from_linear,
    "log": _from_log,
    "robust": _from_robust,
}


def to_scale(values: Tensor, numbers: Sequence[Number]) -> Tensor:
    """Numbers (…), or several (…, K), in their units -> the same on the scales where they have mean 0 and deviation 1.

    The robust scale is linear up to LINEAR deviations and logarithmic beyond, so that a few numbers far beyond all
    others do not decide what is learnt of these.
    """
    return _each(TO, values, [each.scale for each in numbers], [(each.mean, each.std) for each in numbers])


def from_scale(scaled: Tensor, numbers: Sequence[Number]) -> Tensor:
    """What `to_scale` makes something of."""
    return _each(FROM, scaled, [each.scale for each in numbers], [(each.mean, each.std) for each in numbers])


def _each(
    functions: dict[Scale, Callable[[Tensor, Numeric, Numeric], Tensor]],
    values: Tensor,
    scales: Sequence[Scale],
    statistics: Sequence[tuple[Numeric, Numeric]],
) -> Tensor:
    if len(scales) == 1:
        return functions[scales[0]](values, *statistics[0])
    columns = [functions[scale](values[..., place], *statistics[place]) for place, scale in enumerate(scales)]
    return torch.stack(columns, -1)


class InUnits(Scaling):
    """Answers (B, K), or of several networks (B, members, K), on the scales of K numbers -> predictions in the numbers'
    units of the same shape; of a single number without the last axis."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, numbers: Sequence[Number]) -> None:
        super().__init__()
        self.network = network
        self.scales = [each.scale for each in numbers]
        single = len(numbers) == 1
        for name in ("mean", "std"):
            values = [getattr(each, name) for each in numbers]
            self.register_buffer(name, torch.tensor(values[0] if single else values, dtype=torch.float32))

    def forward(self, *inputs: Tensor) -> Tensor:
        answers: Tensor = self.network(*inputs).float()  # 16 bits are not enough for units
        if set(self.scales) == {"linear"}:
            prediction = answers * self.std + self.mean
        else:
            statistics = list(zip(self.mean.reshape(-1), self.std.reshape(-1), strict=True))
            prediction = _each(FROM, answers, self.scales, statistics)
        return prediction if self.mean.ndim else prediction.squeeze(-1)
