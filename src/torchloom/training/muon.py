"""Muon: momentum whose update is made orthogonal, for matrices and kernels; plain SGD for all else.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (kellerjordan.github.io/posts/muon, 2024). The
optimiser of the same name in torch.optim takes matrices only, not the kernels of convolutions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# p(x) = a x + b x³ + c x⁵ has a slope of 3.4 at 0; a few applications take all but the least of (0, 1] near to 1.
_QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(Optimizer):
    """SGD with momentum, whose updates of weights with two or more dimensions are made orthogonal.

    Kernels (O, I, H, W) count as matrices (O, I H W). Each such update has singular values near 1 whatever the size of
    the gradient, so that `lr` is on the scale of the weights. What has one dimension, and groups with `orthogonalize`
    false, are updated as torch.optim.SGD does.

    `ns_steps` is the number of Newton-Schulz iterations. `normalize` scales each such weight to a root mean square row
    norm of 1 before it is updated. `weight_decay` is added to the gradient for SGD, and decoupled for the others.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        ns_steps: int = 5,
        orthogonalize: bool = True,
        normalize: bool = False,
    ) -> None:
        if lr < 0 or weight_decay < 0 or not 0 <= momentum < 1 or ns_steps < 1:
            raise ValueError("lr and weight_decay must not be negative, momentum in [0, 1), ns_steps 1 or more")
        if nesterov and not momentum:
            raise ValueError("nesterov needs a momentum")
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "nesterov": nesterov,
                "weight_decay": weight_decay,
                "ns_steps": ns_steps,
                "orthogonalize": orthogonalize,
                "normalize": normalize,
            },
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                orthogonal = group["orthogonalize"] and weight.ndim > 1
                gradient = weight.grad
                if group["weight_decay"]:
                    if orthogonal:
                        weight.mul_(1 - group["lr"] * group["weight_decay"])
                    else:
                        gradient = gradient.add(weight, alpha=group["weight_decay"])
                update = self._momentum(weight, gradient, group)
                if orthogonal:
                    if group["normalize"]:
                        weight.mul_(len(weight) ** 0.5 / weight.norm())
                    update = orthogonalize(update.flatten(1), group["ns_steps"]).view_as(weight)
                weight.add_(update, alpha=-group["lr"])

    def _momentum(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        if not group["momentum"]:
            return gradient
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer: Tensor = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        return gradient.add(buffer, alpha=group["momentum"]) if group["nesterov"] else buffer


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """A matrix (N, M) with the singular vectors of `matrix` and singular values near 1, in its type.

    Newton-Schulz iterations with a quintic polynomial, in bfloat16, which they are made for.
    """
    a, b, c = _QUINTIC
    wide = len(matrix) <= matrix.shape[1]
    x = matrix.to(torch.bfloat16)
    x = x / (x.norm() + 1e-7)
    x = x if wide else x.T  # the product with itself is then the smaller one
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    orthogonal: Tensor = (x if wide else x.T).to(matrix.dtype)
    return orthogonal
