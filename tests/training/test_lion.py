"""Lion against the two lines of its paper."""

from typing import Any

import pytest
import torch
from torch import nn

from torchloom.training.lion import Lion


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("settings", [{}, {"lr": 0.1}, {"lr": 0.01, "betas": (0.5, 0.8), "weight_decay": 0.3}])
def test_it_is_what_the_paper_writes_down(settings: dict[str, Any]) -> None:
    weights = [nn.Parameter(drawn(4, 3, seed=1)), nn.Parameter(drawn(5, seed=2))]
    optimizer = Lion(weights, **settings)
    full = {"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.0} | settings
    by_hand = [(weight.detach().double(), torch.zeros(weight.shape).double()) for weight in weights]
    for step in range(6):
        for number, weight in enumerate(weights):
            weight.grad = drawn(*weight.shape, seed=10 + 2 * step + number)
            w, m = by_hand[number]
            g = weight.grad.double()
            update = torch.sign(full["betas"][0] * m + (1 - full["betas"][0]) * g)
            w = w - full["lr"] * (update + full["weight_decay"] * w)
            by_hand[number] = w, full["betas"][1] * m + (1 - full["betas"][1]) * g
        optimizer.step()
    for weight, (w, _) in zip(weights, by_hand, strict=True):
        torch.testing.assert_close(weight.detach().double(), w, rtol=1e-5, atol=1e-6)


def test_every_weight_moves_as_far_and_what_has_no_gradient_stays() -> None:
    weight, idle = nn.Parameter(drawn(3, 3, seed=1)), nn.Parameter(torch.ones(2))
    before = weight.detach().clone()
    weight.grad = 1e-6 * drawn(3, 3, seed=2)
    Lion([{"params": [weight]}, {"params": [idle], "lr": 1.0}], lr=0.5, weight_decay=0.0).step()
    torch.testing.assert_close((weight.detach() - before).abs(), torch.full((3, 3), 0.5))
    assert torch.equal(idle, torch.ones(2))


@pytest.mark.parametrize(
    "settings", [{"lr": -1.0}, {"weight_decay": -0.1}, {"betas": (1.0, 0.9)}, {"betas": (0.9, -1)}]
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must not be negative, and both betas"):
        Lion([nn.Parameter(torch.ones(2))], **settings)
