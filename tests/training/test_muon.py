"""Muon against singular value decompositions and, for what is no matrix, against torch.optim.AdamW and SGD."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.config import OptimizerConfig
from torchloom.training.muon import Muon, matrices_of, orthogonalize
from torchloom.training.optimizers import create_optimizer

SHAPES = [(6, 40), (40, 6), (24, 24), (1, 9), (9, 1)]
GROUPS: list[dict[str, Any]] = [
    {"momentum": 0.0, "nesterov": False},
    {"momentum": 0.9, "nesterov": False},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.85, "nesterov": True, "weight_decay": 0.3},
    {"momentum": 0.0, "nesterov": False, "weight_decay": 0.1},
]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def parameter(*shape: int, seed: int = 0) -> nn.Parameter:
    return nn.Parameter(drawn(*shape, seed=seed))


def step(optimizer: torch.optim.Optimizer, weight: nn.Parameter, gradient: Tensor) -> Tensor:
    """By what one step with this gradient changes `weight`."""
    before, weight.grad = weight.detach().clone(), gradient.clone()
    optimizer.step()
    return weight.detach() - before


# ---- orthogonalisation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_come_near_one(shape: tuple[int, int], scale: float) -> None:
    matrix = scale * drawn(*shape)
    values = torch.linalg.svdvals(orthogonalize(matrix))
    assert torch.linalg.cond(matrix) < 1000
    assert values.min() > 0.6
    assert values.max() < 1.3


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = drawn(*shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ orthogonalize(matrix) @ v.T  # diagonal in the singular vectors of the matrix
    assert (inner - inner.diag().diag()).abs().max() < 0.05  # bfloat16 has 8 bits
    assert inner.diag().min() > 0.6


def test_more_iterations_reach_smaller_singular_values() -> None:
    u, _, v = torch.linalg.svd(drawn(4, 9), full_matrices=False)
    matrix = u @ torch.tensor([1.0, 0.5, 0.1, 0.01]).diag() @ v
    least = [torch.linalg.svdvals(orthogonalize(matrix, steps)).min().item() for steps in (1, 3, 5)]
    assert 0.02 < least[0] < 0.05  # a slope of 3.4 at 0
    assert least[0] < least[1] < least[2]
    assert least[2] > 0.6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_type_and_the_matrix_stay(dtype: torch.dtype) -> None:
    matrix = drawn(5, 7).to(dtype)
    before = matrix.clone()
    assert orthogonalize(matrix).dtype is dtype
    assert torch.equal(matrix, before)


def test_nothing_stays_nothing() -> None:
    assert torch.equal(orthogonalize(torch.zeros(3, 4)), torch.zeros(3, 4))


# ---- the update ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "memory"),
    [
        ((6, 40), torch.contiguous_format),
        ((40, 6), torch.contiguous_format),
        ((8, 3, 2, 2), torch.contiguous_format),
        ((4, 8, 3, 3), torch.contiguous_format),
        ((4, 8, 3, 3), torch.channels_last),
    ],
)
def test_an_update_is_as_large_as_the_rate_whatever_the_gradient(
    shape: tuple[int, ...], memory: torch.memory_format
) -> None:
    for scale in (1e-2, 1e2):
        weight = nn.Parameter(drawn(*shape).to(memory_format=memory))
        gradient = scale * drawn(*shape, seed=1).to(memory_format=memory)
        change = step(Muon([weight], lr=0.02), weight, gradient)
        u, values, v = torch.linalg.svd(-change.flatten(1) / 0.02, full_matrices=False)
        assert values.min() > 0.6
        assert values.max() < 1.3
        against, _, along = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
        torch.testing.assert_close(u @ v, against @ along, atol=0.08, rtol=0)  # the nearest orthogonal matrix


@pytest.mark.parametrize("nesterov", [True, False])
def test_it_is_the_momentum_that_is_made_orthogonal(nesterov: bool) -> None:
    weight, buffer = parameter(5, 12), torch.zeros(5, 12)
    optimizer = Muon([weight], lr=0.1, momentum=0.8, nesterov=nesterov, ns_steps=3)
    for seed in range(1, 5):
        gradient = drawn(5, 12, seed=seed)
        buffer = 0.8 * buffer + gradient
        expected = orthogonalize(gradient + 0.8 * buffer if nesterov else buffer, 3)
        torch.testing.assert_close(step(optimizer, weight, gradient), -0.1 * expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("settings", GROUPS)
@pytest.mark.parametrize("shape", [(7,), (6, 4), (4, 2, 3, 3)])
def test_groups_that_ask_for_it_are_updated_as_by_sgd(shape: tuple[int, ...], settings: dict[str, Any]) -> None:
    ours, theirs = parameter(*shape), parameter(*shape)
    optimizer = Muon([ours], lr=0.1, orthogonalize=False, normalize=True, **settings)
    reference = torch.optim.SGD([theirs], lr=0.1, **settings)
    for seed in range(1, 6):
        gradient = drawn(*shape, seed=seed)
        step(optimizer, ours, gradient)
        step(reference, theirs, gradient)
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("settings", [{}, {"adamw_share": 0.5, "betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.3}])
def test_what_has_one_dimension_is_updated_as_by_adamw(settings: dict[str, Any]) -> None:
    ours, theirs = parameter(7), parameter(7)
    optimizer = Muon([ours], lr=0.2, normalize=True, **settings)
    full = {"adamw_share": 0.05, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.0} | settings
    reference = torch.optim.AdamW([theirs], lr=0.2 * full.pop("adamw_share"), **full)
    for seed in range(1, 6):
        gradient = drawn(7, seed=seed)
        step(optimizer, ours, gradient)
        step(reference, theirs, gradient)
        torch.testing.assert_close(ours, theirs)


class Reader(nn.Module):
    """With an embedding, positions, a recurrent layer, attention, a norm, and a layer that answers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(9, 8), nn.Parameter(torch.zeros(5, 8))
        self.recurrent = nn.GRU(8, 8, batch_first=True)
        self.attention, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.recurrent(self.embedding(x) + self.places)
        x, _ = self.attention(x, x, x)
        answers: Tensor = self.head(self.norm(x).mean(1))
        return answers


def test_it_knows_the_matrices_of_a_model() -> None:
    torch.manual_seed(0)
    model = Reader()
    config = OptimizerConfig.model_validate({"name": "Muon", "lr": 0.1})
    optimizer = create_optimizer(model, config)
    model(torch.arange(10).reshape(2, 5) % 9).square().sum().backward()
    optimizer.step()
    kept = {name: set(optimizer.state[weight]) for name, weight in model.named_parameters()}
    orthogonal = {name for name, names in kept.items() if names == {"momentum_buffer"}}
    assert orthogonal == {
        *("recurrent.weight_ih_l0", "recurrent.weight_hh_l0", "attention.in_proj_weight", "attention.out_proj.weight")
    }
    assert all(names == {"step", "exp_avg", "exp_avg_sq"} for name, names in kept.items() if name not in orthogonal)


def test_a_table_that_also_answers_is_no_matrix() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 9, bias=False), nn.Flatten())
    model[2].weight = model[0].weight
    assert matrices_of(model) == {model[1].weight}
    assert matrices_of(nn.Linear(2, 2)) == matrices_of(nn.LayerNorm(2)) == set()


def test_each_group_has_its_own_settings() -> None:
    matrix, other, bias = parameter(4, 6), parameter(4, 6), parameter(4)
    groups = [
        {"params": [matrix], "lr": 0.5},
        {"params": [other], "orthogonalize": False, "lr": 0.25, "momentum": 0.0, "nesterov": False},
        {"params": [bias], "lr": 1.0, "adamw_share": 0.5},
    ]
    starts = [weight.detach().clone() for weight in (matrix, other, bias)]
    optimizer = Muon(groups, lr=2.0, momentum=0.5, nesterov=True)
    matrix.grad, other.grad, bias.grad = drawn(4, 6, seed=1), drawn(4, 6, seed=1), drawn(4, seed=2)
    optimizer.step()
    torch.testing.assert_close(matrix, starts[0] - 0.5 * orthogonalize(1.5 * matrix.grad), atol=5e-3, rtol=0)
    torch.testing.assert_close(other, starts[1] - 0.25 * other.grad)
    torch.testing.assert_close(bias, starts[2] - 0.5 * bias.grad.sign())  # the first step of Adam


def test_weight_decay_of_what_is_orthogonal_is_decoupled() -> None:
    decayed, plain = parameter(4, 6), parameter(4, 6)
    start, gradient = plain.detach().clone(), drawn(4, 6, seed=1)
    step(Muon([decayed], lr=0.1, weight_decay=0.5), decayed, gradient)
    step(Muon([plain], lr=0.1), plain, gradient)
    torch.testing.assert_close(decayed - plain, -0.1 * 0.5 * start)


@pytest.mark.parametrize("shape", [(6, 10), (4, 3, 2, 2)])
def test_normalize_gives_rows_a_mean_square_of_one_before_the_update(shape: tuple[int, ...]) -> None:
    weight = nn.Parameter(7 * drawn(*shape))
    direction = weight.detach() / weight.detach().norm()
    step(Muon([weight], lr=0.0, normalize=True), weight, drawn(*shape, seed=1))
    assert weight.detach().flatten(1).square().sum(1).mean().item() == pytest.approx(1.0, rel=1e-5)
    torch.testing.assert_close(weight.detach(), direction * shape[0] ** 0.5)
    other = nn.Parameter(weight.detach().clone())
    change = step(Muon([weight], lr=0.1, normalize=True), weight, drawn(*shape, seed=1))
    torch.testing.assert_close(change, step(Muon([other], lr=0.1), other, drawn(*shape, seed=1)), atol=1e-5, rtol=0)


def test_what_has_no_gradient_stays() -> None:
    weight, idle = parameter(3, 4), parameter(3, 4)
    before = idle.detach().clone()
    optimizer = Muon([weight, idle], lr=1.0, weight_decay=0.5, normalize=True)
    step(optimizer, weight, drawn(3, 4, seed=1))
    assert torch.equal(idle, before)
    assert idle not in optimizer.state


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": -0.1},
        {"weight_decay": -1e-3},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"ns_steps": 0},
        {"momentum": 0.0},
        {"momentum": 0.0, "nesterov": True},
        {"adamw_share": -1.0},
        {"betas": (0.9, 1.0)},
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must not be negative|needs a momentum"):
        Muon([parameter(2, 2)], **settings)


def test_a_convolutional_network_learns() -> None:
    """Vertical, horizontal and diagonal stripes at any place, which no linear layer could tell apart."""
    torch.manual_seed(0)
    place, labels = torch.randint(4, (96, 1, 1)), torch.arange(96) % 3
    y, x = torch.arange(8)[:, None], torch.arange(8)[None, :]
    phase = torch.stack([x.expand(8, 8), y.expand(8, 8), x + y])[labels] + place
    images = ((phase % 4 < 2).float() + 0.3 * torch.randn(96, 8, 8)).unsqueeze(1)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    optimizer = Muon(network.parameters(), lr=0.05, momentum=0.6, ns_steps=3, normalize=True)
    losses = []
    for _ in range(40):
        loss = F.cross_entropy(network(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > 0.9
    assert losses[-1] < 0.1
    assert (network(images).argmax(1) == labels).float().mean() > 0.95
