"""The learning-rate range test: the rate rises from step to step until the loss grows.

Smith, "Cyclical learning rates for training neural networks", WACV 2017 (arXiv:1506.01186); that the rate rises
exponentially, and where to stop, as in fastai.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from torchloom.config import TrainConfig
from torchloom.errors import InputError
from torchloom.problems.base import Batch, Objective
from torchloom.training.batch_size import endless
from torchloom.training.optimizers import create_optimizer, rates_of
from torchloom.training.steps import Steps
from torchloom.training.transfer import training_mode

LAG = 0.9  # of itself that the running mean keeps at a step: it decides when to stop, and nothing else
GROWN = 4.0  # times the least running mean is a loss that has grown for good
WIDTH = 0.03  # of all steps: the deviation of the weights by which the curve is smoothed
FALLS = 2.0  # times the noise that a loss must fall by, or it has not fallen

Watch = Callable[[int, float, float], None]  # of a step: its number, counted from 1, its rate and its loss


@dataclass(frozen=True)
class RangeTest:
    """The loss of each step, before it was taken, and the rate that it was taken with.

    `smooth` are the losses without noise, and without the lag that a running mean has.
    """

    rates: np.ndarray
    losses: np.ndarray
    diverged: bool

    @property
    def smooth(self) -> np.ndarray:
        finite = self.losses[np.isfinite(self.losses)]
        return smoothed(finite, max(1.0, WIDTH * len(self.rates)))

    def suggestion(self) -> float | None:
        """The middle of the valley, on the scale of factors: between the rate at which the loss falls the most for each
        factor of the rate and the one at which it is the lowest. None when it does not fall.

        Both ends belong to the training and not to where the test begins. The steepest descent alone is far too low, as
        all steps before it have their part in it, the more of them there are; the lowest loss is where it is about to
        grow. On a quadratic loss the middle is a few times below 2 / λ, from which on descent does not converge, where
        λ is the greatest eigenvalue of its second derivatives.
        """
        curve = self.smooth
        lowest = int(np.argmin(curve)) if len(curve) else 0
        if lowest < 2:
            return None
        noise = float(np.std(self.losses[: lowest + 1] - curve[: lowest + 1]))
        if float(np.max(curve[:lowest])) - float(curve[lowest]) <= FALLS * noise:
            return None
        steepest = int(np.argmin(np.gradient(curve)[: lowest + 1]))
        return float(np.sqrt(self.rates[steepest] * self.rates[lowest]))

    def rows(self) -> list[dict[str, float]]:
        """A table with a row for each step."""
        curve = self.smooth
        table = zip(self.rates.tolist(), self.losses.tolist(), curve.tolist(), strict=False)
        return [
            {"step": step, "learning_rate": rate, "loss": loss, "smooth_loss": smooth}
            for step, (rate, loss, smooth) in enumerate(table, 1)
        ]


def smoothed(values: np.ndarray, deviation: float) -> np.ndarray:
    """Means by the weights of a Gauss curve around each value, of so many values' deviation."""
    place = np.arange(len(values))
    weights = np.exp(-0.5 * ((place[:, None] - place) / deviation) ** 2)
    return (weights @ values) / weights.sum(1)  # type: ignore[no-any-return]


def rates_between(start: float, end: float, steps: int) -> np.ndarray:
    """So many rates, each by the same factor above the one before."""
    return np.geomspace(start, end, steps)


def range_test(
    model: nn.Module,
    loader: Any,
    config: TrainConfig,
    objective: Objective,
    device: torch.device,
    dtype: torch.dtype,
    rates: np.ndarray,
    watch: Watch = lambda *_: None,
) -> RangeTest:
    """Take a step with each of the `rates`, of as many batches as the training accumulates, until the loss diverges.

    `model` is changed in place. The rates are those of `train.optimizer.lr`; groups that have a rate of their own keep
    their distance from it. Schedule, warm-up and averages of weights have no part in it. InputError when the optimiser
    has no rate.
    """
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    training_mode(model)
    optimizer = create_optimizer(model, config.optimizer)
    base = optimizer.defaults.get("lr")
    if not isinstance(base, float | int) or not base > 0:
        raise InputError(f"train.optimizer: {config.optimizer.name} has no learning rate above 0 that could be tried")
    rates_now = rates_of(config)
    shares = [rate / (rates_now[0] or 1.0) for rate in rates_now]
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    steps = Steps(model, model, objective, optimizer, scaler, config, device, dtype)
    batches, losses, growing = endless(loader), list[float](), Growing()
    for number, rate in enumerate(rates, 1):
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = float(rate) * share
        losses.append(_step(steps, list(islice(batches, config.accumulate))))
        watch(number, float(rate), losses[-1])
        if growing.over(losses[-1]):
            break
    return RangeTest(rates[: len(losses)], np.array(losses), growing.diverged)


def _step(steps: Steps, group: list[Batch]) -> float:
    """The mean loss of the batches, after which the step is taken."""
    found = [steps.backward(batch, len(group), number == len(group))[0] for number, batch in enumerate(group, 1)]
    steps.update()
    steps.optimizer.zero_grad(set_to_none=True)
    return float(torch.stack(found).detach().float().mean())


class Growing:
    """Watches the running mean of the loss."""

    def __init__(self) -> None:
        self.mean, self.weight, self.least, self.diverged = 0.0, 0.0, math.inf, False

    def over(self, loss: float) -> bool:
        """Whether the loss has grown for good, or is not finite."""
        self.mean = LAG * self.mean + (1 - LAG) * loss
        self.weight = LAG * self.weight + (1 - LAG)
        mean = self.mean / self.weight
        self.diverged = not math.isfinite(loss) or mean - self.least > (GROWN - 1) * abs(self.least)
        self.least = min(self.least, mean)
        return self.diverged
