"""AdamW without a schedule: an average of the weights takes the place of a rate that falls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class ScheduleFreeAdamW(Optimizer):
    """AdamW over z, a mean x of all z so far, which is the model, and gradients at y = (1 - b1) z + b1 x between both.

    Defazio et al., "The road less scheduled", NeurIPS 2024 (arXiv:2405.15682), algorithm 1. The parameters are y: it is
    y that is trained. What validation and the checkpoints see is x, which `average_of` gives. Each z counts with the
    square of its learning rate, so that a warm-up (`train.warmup_epochs`) counts little. A good `lr` is 1 to 10 times
    that of AdamW with a schedule.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.0025,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or weight_decay < 0 or eps < 0:
            raise ValueError("lr, eps and weight_decay must not be negative")
        if not 0 < betas[0] < 1 or not 0 <= betas[1] < 1:
            raise ValueError("betas must be in (0, 1) and [0, 1): with the first at 0 nothing would be averaged")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, rate, (between, beta) = self.state[weight], group["lr"], group["betas"]
        if not state:
            state.update(step=0, weight_sum=0.0, b1=between, z=weight.clone(), exp_avg_sq=torch.zeros_like(weight))
        if state["b1"] != between:  # where y lies between z and x has changed
            weight.copy_(state["z"].lerp(self.average_of(weight), between))
            state["b1"] = between
        state["step"] += 1
        state["weight_sum"] += rate**2
        share = rate**2 / state["weight_sum"] if state["weight_sum"] else 0.0
        squares = state["exp_avg_sq"].mul_(beta).addcmul_(gradient, gradient, value=1 - beta)
        scale = (squares / (1 - beta ** state["step"])).sqrt_().add_(group["eps"])
        update = (gradient / scale).add_(weight, alpha=group["weight_decay"])
        # y of the new z and x, written with the old ones
        weight.lerp_(state["z"], share).add_(update, alpha=-rate * (1 - between * (1 - share)))
        state["z"].add_(update, alpha=-rate)

    def average_of(self, weight: Tensor) -> Tensor:
        """The mean x that belongs to a parameter, which is y; the parameter itself where nothing was learnt yet."""
        state = self.state.get(weight)
        if not state:
            return weight.detach()
        # as y = z + b1 (x - z)
        mean: Tensor = state["z"] + (weight.detach() - state["z"]) / state["b1"]
        return mean
