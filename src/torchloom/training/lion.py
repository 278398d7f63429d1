"""Lion: the sign of a momentum, as large for each weight."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lion(Optimizer):
    """Each weight moves by `lr` in the direction of an average of gradients; the decay of weights is decoupled.

    Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023 (arXiv:2302.06675), algorithm 2: the
    update is sign(b1 m + (1 - b1) g), and then m <- b2 m + (1 - b2) g. As every weight moves by all of `lr`, that is
    to be 3 to 10 times smaller than AdamW's, and the decay as many times greater. It keeps one number per weight, where
    Adam keeps two.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError("lr and weight_decay must not be negative, and both betas in [0, 1)")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._update(weights, group)

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        momenta = [self._momentum(weight) for weight in weights]
        now, later = group["betas"]
        updates = torch._foreach_lerp(momenta, gradients, 1 - now)
        torch._foreach_sign_(updates)
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(weights, updates, alpha=-group["lr"])
        torch._foreach_lerp_(momenta, gradients, 1 - later)

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer: Tensor = state["momentum_buffer"]
        return buffer
