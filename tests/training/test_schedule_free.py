"""AdamW without a schedule against the algorithm of its paper, and a training that judges x and trains y."""

from typing import Any

import pytest
import torch
from test_loop import CROSS_ENTROPY, run
from torch import Tensor, nn

from torchloom.training.schedule_free import ScheduleFreeAdamW


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "settings",
    [{}, {"betas": (0.7, 0.9), "weight_decay": 0.2, "eps": 1e-3}, {"betas": (0.95, 0.0)}],
)
def test_it_is_algorithm_1(settings: dict[str, Any]) -> None:
    """With x, y and z each in a variable of its own, as the paper has them, and a rate that rises at first."""
    full = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0} | settings
    (b1, b2), eps, decay = full["betas"], full["eps"], full["weight_decay"]
    weight = nn.Parameter(drawn(4, 3, seed=0))
    optimizer = ScheduleFreeAdamW([weight], **settings)
    x = z = weight.detach().double()
    v, total = torch.zeros_like(x), 0.0
    for step in range(1, 9):
        rate = 0.1 * min(1, step / 4)
        optimizer.param_groups[0]["lr"] = rate
        y = (1 - b1) * z + b1 * x
        torch.testing.assert_close(weight.detach().double(), y, rtol=1e-5, atol=1e-5)
        weight.grad = drawn(4, 3, seed=step)
        g = weight.grad.double()
        v = b2 * v + (1 - b2) * g**2
        z = z - rate * g / ((v / (1 - b2**step)).sqrt() + eps) - rate * decay * y
        total += rate**2
        x = (1 - rate**2 / total) * x + rate**2 / total * z
        optimizer.step()
        torch.testing.assert_close(optimizer.average_of(weight).double(), x, rtol=1e-5, atol=1e-5)
    assert (optimizer.average_of(weight) - weight.detach()).abs().max() > 1e-2


def test_a_steady_rate_makes_x_the_mean_of_all_z() -> None:
    weight = nn.Parameter(torch.zeros(5))
    optimizer = ScheduleFreeAdamW([weight], lr=0.3)
    seen = []
    for step in range(7):
        weight.grad = drawn(5, seed=step)
        optimizer.step()
        seen.append(optimizer.state[weight]["z"].clone())
    torch.testing.assert_close(optimizer.average_of(weight), torch.stack(seen).mean(0), rtol=1e-4, atol=1e-5)


def test_what_has_not_learnt_is_its_own_mean() -> None:
    weight = nn.Parameter(drawn(3, seed=0))
    assert torch.equal(ScheduleFreeAdamW([weight]).average_of(weight), weight.detach())


def test_another_first_beta_on_the_way_leaves_x_where_it_is() -> None:
    weight = nn.Parameter(torch.zeros(5))
    optimizer = ScheduleFreeAdamW([weight], lr=0.3)
    for step in range(3):
        weight.grad = drawn(5, seed=step)
        optimizer.step()
    before = optimizer.average_of(weight)
    optimizer.param_groups[0].update(betas=(0.5, 0.999), lr=0.0)
    optimizer.step()
    torch.testing.assert_close(optimizer.average_of(weight), before)
    torch.testing.assert_close(weight.detach(), (before + optimizer.state[weight]["z"]) / 2)


@pytest.mark.parametrize("settings", [{"lr": -1.0}, {"betas": (0.0, 0.9)}, {"betas": (0.9, 1.0)}, {"eps": -1.0}])
def test_what_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        ScheduleFreeAdamW([nn.Parameter(torch.ones(2))], **settings)


def test_the_checkpoints_have_x_and_the_training_y() -> None:
    trained: dict[str, Tensor] = {}
    optimizers: list[Any] = []
    judged: list[Tensor] = []
    plain = ScheduleFreeAdamW.step

    def objective(model: nn.Module, batch: Any) -> Any:
        if not model.training:
            judged.append(model.state_dict()["network.1.weight"].clone())
        else:
            trained.update(model.named_parameters())
        return CROSS_ENTROPY(model, batch)

    def step(self: ScheduleFreeAdamW, closure: Any = None) -> None:
        optimizers[:] = [self]
        plain(self, closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScheduleFreeAdamW, "step", step)
        _, result = run(epochs=3, objective=objective, optimizer={"name": "ScheduleFreeAdamW", "lr": 0.05})
    for name, y in trained.items():
        x = optimizers[0].average_of(y)
        assert torch.equal(result.last[name], x)
    y = trained["network.1.weight"].detach()
    assert not torch.allclose(result.last["network.1.weight"], y, atol=1e-4)
    assert torch.equal(judged[-1], result.last["network.1.weight"])
    assert result.history[-1]["val_loss"] < result.history[0]["val_loss"]
