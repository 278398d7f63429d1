"""Muon: momentum whose update is made orthogonal, for matrices and kernels; AdamW for all else.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (kellerjordan.github.io/posts/muon, 2024). The
optimiser of the same name in torch.optim takes matrices only, not the kernels of convolutions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer

# p(x) = a x + b x³ + c x⁵ has a slope of 3.4 at 0; a few applications take all but the least of (0, 1] near to 1.
_QUINTIC = (3.4445, -4.7750, 2.0315)

MULTIPLYING = (nn.Linear, nn.Bilinear, _ConvNd, nn.RNNBase, nn.MultiheadAttention)  # whose weights are matrices


class Muon(Optimizer):
    """SGD with momentum, whose updates of matrices are made orthogonal; AdamW for what is no matrix.

    Kernels (O, I, H, W) count as matrices (O, I H W). Each such update has singular values near 1 whatever the size of
    the gradient, so that `lr` is on the scale of the weights. What has one dimension is updated by AdamW, with `betas`,
    `eps` and the learning rate `lr * adamw_share`; so are, after `know`, embeddings, the layer that gives the outputs
    and whatever is no weight of a dense, convolutional, recurrent or attention layer. Groups with `orthogonalize` false
    are updated as torch.optim.SGD does.

    `ns_steps` is the number of Newton-Schulz iterations. `normalize` scales each matrix to a root mean square row norm
    of 1 before it is updated. `weight_decay` is added to the gradient for SGD, and decoupled for the others.
    """

    matrices: set[Tensor] | None = None  # None: all with two dimensions or more

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
        adamw_share: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        if lr < 0 or weight_decay < 0 or not 0 <= momentum < 1 or ns_steps < 1:
            raise ValueError("lr and weight_decay must not be negative, momentum in [0, 1), ns_steps 1 or more")
        if nesterov and not momentum:
            raise ValueError("nesterov needs a momentum")
        if adamw_share < 0 or eps < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError("adamw_share and eps must not be negative, and both betas in [0, 1)")
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
                "adamw_share": adamw_share,
                "betas": betas,
                "eps": eps,
            },
        )

    def know(self, model: nn.Module) -> None:
        """Whose parameters they are, which tells the matrices among them."""
        self.matrices = matrices_of(model)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                if not group["orthogonalize"]:
                    self._by_sgd(weight, weight.grad, group)
                elif weight.ndim > 1 and (self.matrices is None or weight in self.matrices):
                    self._orthogonally(weight, weight.grad, group)
                else:
                    self._by_adamw(weight, weight.grad, group)

    def _by_sgd(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if group["weight_decay"]:
            gradient = gradient.add(weight, alpha=group["weight_decay"])
        weight.add_(self._momentum(weight, gradient, group), alpha=-group["lr"])

    def _orthogonally(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        update = self._momentum(weight, gradient, group)
        if group["normalize"]:
            weight.mul_(len(weight) ** 0.5 / weight.norm())
        weight.add_(orthogonalize(update.flatten(1), group["ns_steps"]).view_as(weight), alpha=-group["lr"])

    def _by_adamw(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, rate, betas = self.state[weight], group["lr"] * group["adamw_share"], group["betas"]
        if "exp_avg" not in state:
            state.update(step=0, exp_avg=torch.zeros_like(weight), exp_avg_sq=torch.zeros_like(weight))
        state["step"] += 1
        mean = state["exp_avg"].lerp_(gradient, 1 - betas[0])
        squares = state["exp_avg_sq"].mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        scale = (squares / (1 - betas[1] ** state["step"])).sqrt_().add_(group["eps"])
        weight.mul_(1 - rate * group["weight_decay"])
        weight.addcdiv_(mean, scale, value=-rate / (1 - betas[0] ** state["step"]))

    def _momentum(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        if not group["momentum"]:
            return gradient
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer: Tensor = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        return gradient.add(buffer, alpha=group["momentum"]) if group["nesterov"] else buffer


def matrices_of(model: nn.Module) -> set[Tensor]:
    """The weights of dense, convolutional, recurrent and attention layers, without those of the last such layer, which
    is taken for the one that gives the outputs, and without those that are embeddings, too."""
    layers = [layer for layer in model.modules() if isinstance(layer, MULTIPLYING)]
    others: set[Tensor] = set(layers[-1].parameters(recurse=False)) if layers else set()
    others |= {layer.weight for layer in model.modules() if isinstance(layer, nn.Embedding | nn.EmbeddingBag)}
    weights: set[Tensor] = {weight for layer in layers for weight in layer.parameters(recurse=False)}
    return {weight for weight in weights - others if weight.ndim > 1}


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
