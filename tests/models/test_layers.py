from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from torchloom.models import _layers, build_network

# name: the variance by fan-in and fan-out, and the greatest distance from zero in standard deviations where limited
WIDE = {
    "he": (lambda fan_in, fan_out: 2 / fan_out, None),
    "he_uniform": (lambda fan_in, fan_out: 2 / fan_out, 3**0.5),
    "xavier": (lambda fan_in, fan_out: 2 / (fan_in + fan_out), 3**0.5),
    "xavier_normal": (lambda fan_in, fan_out: 2 / (fan_in + fan_out), None),
    "normal": (lambda fan_in, fan_out: 0.01**2, None),
    "truncated_normal": (lambda fan_in, fan_out: 0.02**2 * 0.774, 2 / 0.774**0.5),  # 0.774: cut off at 2 deviations
    "uniform": (lambda fan_in, fan_out: 1 / (3 * fan_in), 3**0.5),
}


def drawn(layer: nn.Module, name: str) -> Any:
    torch.manual_seed(0)
    return _layers.initialize(layer, name)  # type: ignore[arg-type]


def fits(weight: Tensor, name: str, fan_in: int, fan_out: int) -> bool:
    """Whether many weights have the mean, the variance and the kind of distribution that the name stands for."""
    variance, limit = WIDE[name][0](fan_in, fan_out), WIDE[name][1]
    if name.startswith("he") and weight.ndim == 2:
        variance = 2 / fan_in
    assert weight.var().item() == pytest.approx(variance, rel=0.04)
    assert weight.mean().item() == pytest.approx(0, abs=0.02 * variance**0.5)
    extreme = weight.abs().max().item() / variance**0.5
    assert 0.99 * limit < extreme <= limit + 1e-6 if limit else extreme > 3.5
    return True


def test_every_name_is_tested() -> None:
    assert {*WIDE, "default", "orthogonal"} == set(get_args(_layers.Initialization)) == {*_layers._DRAW, "default"}


@pytest.mark.parametrize("name", WIDE)
def test_weights_by_name(name: str) -> None:
    linear = drawn(nn.Linear(500, 300), name)
    assert fits(linear.weight, name, 500, 300)
    assert not linear.bias.any()
    kernel = drawn(nn.Conv2d(40, 60, (3, 5), bias=False), name).weight
    assert fits(kernel, name, 40 * 15, 60 * 15)


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize(("cell", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_each_gate_of_a_recurrent_layer_is_drawn_as_a_matrix_of_its_own(cell: Any, gates: int, name: str) -> None:
    rnn = drawn(cell(300, 200, 2, bidirectional=True), name)
    weights = {key: value for key, value in rnn.named_parameters() if key.startswith("weight")}
    assert len(weights) == 8
    for weight in weights.values():
        assert weight.shape[0] == gates * 200
        for gate in weight.split(200):
            assert fits(gate, name, weight.shape[1], 200)
    assert not any(value.any() for key, value in rnn.named_parameters() if key.startswith("bias"))
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in rnn.parameters())


def orthonormal(matrix: Tensor) -> bool:
    small = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    return torch.allclose(small @ small.T, torch.eye(len(small)), atol=1e-5)


def matrices() -> Iterator[Tensor]:
    yield drawn(nn.Linear(50, 30), "orthogonal").weight
    yield drawn(nn.Linear(30, 50), "orthogonal").weight
    yield drawn(nn.Conv2d(4, 60, 3), "orthogonal").weight.flatten(1)
    rnn = drawn(nn.LSTM(20, 32), "orthogonal")
    yield from rnn.weight_hh_l0.split(32)
    yield from rnn.weight_ih_l0.split(32)


def test_orthogonal_matrices() -> None:
    assert all(orthonormal(matrix) for matrix in matrices())
    assert not orthonormal(nn.Linear(50, 30).weight)


def test_other_layers_keep_what_they_have() -> None:
    layers: Any = nn.Sequential(nn.BatchNorm2d(3), nn.Embedding(4, 5), nn.Linear(2, 2))
    with torch.no_grad():
        layers[0].bias.fill_(7)
    embedding = layers[1].weight.clone()
    drawn(layers, "he")
    assert layers[0].bias.tolist() == [7, 7, 7]
    assert layers[0].weight.tolist() == [1, 1, 1]
    assert torch.equal(layers[1].weight, embedding)


@pytest.mark.parametrize("layer", [nn.Linear(16, 8), nn.Conv2d(3, 4, 3), nn.LSTM(5, 6)])
def test_default_keeps_what_the_layers_drew(layer: nn.Module) -> None:
    before = [parameter.clone() for parameter in layer.parameters()]
    drawn(layer, "default")
    assert all(torch.equal(old, new) for old, new in zip(before, layer.parameters(), strict=True))


def test_he_counts_the_kernel_of_a_network() -> None:
    torch.manual_seed(0)
    network: Any = build_network("resnet", {"shape": [3, 8, 8], "outputs": 10}, {"width": 32})
    kernel = network.stages[-1].body[3].weight
    assert kernel.shape == (256, 256, 3, 3)
    assert kernel.var().item() == pytest.approx(2 / (256 * 9), rel=0.02)
    assert not network.head.bias.any()
