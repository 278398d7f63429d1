"""Sharpness-aware steps against the formulas of their papers, and within the loop."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import CROSS_ENTROPY, assert_same_weights, classifier, fresh, run, timeless, toy
from test_state import SELDOM, PowerCut, assert_equal, cut, train, uninterrupted
from torch import Tensor, nn

from torchloom.config import SamConfig
from torchloom.data.batches import Batches
from torchloom.training import loop
from torchloom.training.passes import climbed
from torchloom.training.state import TrainingStates

normed = partial(classifier, norm="batch")
CURVES = torch.tensor([1.0, 4.0, 9.0])


@pytest.mark.parametrize("scale", [1.0, 65536.0])
@pytest.mark.parametrize("adaptive", [False, True])
def test_the_place_that_is_climbed_to(adaptive: bool, scale: float) -> None:
    """Of the loss sum c w² / 2 the gradient is c w; what it is scaled by, as in fp16, does not matter."""
    weight = nn.Parameter(torch.tensor([2.0, -1.0, 0.5]))
    other = nn.Parameter(torch.tensor([0.1]))
    start = torch.cat([weight.detach(), other.detach()])
    slope = torch.cat([CURVES * weight.detach(), torch.tensor([0.3])])
    size = start.abs() if adaptive else torch.ones(4)
    expected = start + 0.2 * size**2 * slope / (size * slope).norm()
    with climbed([weight, other], [scale * slope[:3], scale * slope[3:]], SamConfig(rho=0.2, adaptive=adaptive)):
        torch.testing.assert_close(torch.cat([weight, other]).detach(), expected)
    assert torch.equal(torch.cat([weight, other]).detach(), start)


def test_what_has_no_gradient_stays_and_an_error_leaves_all_as_it_was() -> None:
    weight, idle = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    seen: list[Tensor] = []

    def fail() -> None:
        with climbed([weight, idle], [torch.ones(2), None], SamConfig(rho=1.0)):
            seen.extend([weight.detach().clone(), idle.detach().clone()])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    torch.testing.assert_close(seen, [torch.full((2,), 1 + 0.5**0.5), torch.ones(2)])
    assert torch.equal(weight.detach(), torch.ones(2))


def by_hand(model: nn.Module, batches: list[list[tuple[Tensor, Tensor]]], rho: float, clip: float | None) -> None:
    """SGD over steps of several batches, each of which looks for its own place nearby."""
    parameters = list(model.parameters())
    for step in batches:
        total = [torch.zeros_like(parameter) for parameter in parameters]
        for batch in step:
            there = copy.deepcopy(model)
            slopes = torch.autograd.grad(CROSS_ENTROPY(model, batch)[0], parameters)
            norm = torch.cat([slope.flatten() for slope in slopes]).norm()
            for parameter, slope in zip(there.parameters(), slopes, strict=True):
                parameter.data += rho * slope / norm
            found = torch.autograd.grad(CROSS_ENTROPY(there, batch)[0], list(there.parameters()))
            total = [one + other / len(step) for one, other in zip(total, found, strict=True)]
        whole = torch.cat([gradient.flatten() for gradient in total]).norm()
        factor = min(1.0, clip / (float(whole) + 1e-6)) if clip else 1.0
        for parameter, gradient in zip(parameters, total, strict=True):
            parameter.data -= 0.1 * factor * gradient


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}, {"gradient_clip": 0.1}], ids=str)
def test_a_training_takes_the_gradients_from_there(settings: dict[str, Any]) -> None:
    images, labels = toy()
    model = fresh()
    order = [(images[indices].permute(0, 3, 1, 2), labels[indices]) for indices in Batches(96, 16, shuffle_seed=0)]
    size = settings.get("accumulate", 1)
    by_hand(model, [order[i : i + size] for i in range(0, 6, size)], rho=0.5, clip=settings.get("gradient_clip"))
    _, result = run(epochs=1, sam={"rho": 0.5}, **settings)
    expected = dict(model.state_dict())
    assert_same_weights(result.last, expected, tolerance=1e-6)
    _, plain = run(epochs=1, **settings)
    assert not torch.allclose(plain.last["network.1.weight"], expected["network.1.weight"], atol=1e-4)


def test_a_radius_of_almost_nothing_is_no_other_training() -> None:
    """Statistics of batch norm, which see each batch once, are those of the plain training too."""
    (_, sharp), (_, plain) = run(normed, sam={"rho": 1e-9}), run(normed)
    assert_same_weights(sharp.last, plain.last, tolerance=1e-6)
    for ours, theirs in zip(timeless(sharp.history), timeless(plain.history), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_statistics_are_those_of_the_weights_and_not_of_the_place_nearby() -> None:
    """With a learning rate of 0 the network stays what it is, however far it looks."""
    still = {"optimizer": {"name": "SGD", "lr": 0.0}}
    (_, sharp), (_, plain) = run(normed, sam={"rho": 50.0}, **still), run(normed, **still)
    assert_same_weights(sharp.last, plain.last)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_it_learns_in_half_precision(precision: str) -> None:
    _, result = run(epochs=6, sam={"rho": 0.1, "adaptive": False}, precision=precision)
    assert result.history[-1]["val_accuracy"] == 1.0


def test_compiled_it_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "compile_network", lambda network, *_: torch.compile(network, backend="aot_eager"))
    compiled, eager = (run(normed, epochs=2, compile=choice, sam={"rho": 0.5})[1] for choice in (True, False))
    assert_same_weights(compiled.last, eager.last, tolerance=1e-5)


def test_it_goes_on_to_the_bit(tmp_path: Path) -> None:
    states, settings = TrainingStates(tmp_path / "states"), {"sam": {"rho": 0.2}, "accumulate": 2}
    with pytest.raises(PowerCut):
        train(states, cut(15), **settings)  # type: ignore[arg-type]
    assert states.files()
    assert_equal(train(states, **settings, **SELDOM), uninterrupted(**settings))  # type: ignore[arg-type]
