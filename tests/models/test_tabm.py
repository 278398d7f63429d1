"""TabM: several networks in one."""

import pytest
import torch
import torch.nn.functional as F

from torchloom.data.targets import Number
from torchloom.models import build_network
from torchloom.models.tabm import TabM
from torchloom.problems.classification import classification_objective
from torchloom.problems.losses import answer_by_answer
from torchloom.problems.regression import regression_objective
from torchloom.problems.regression.scaling import InUnits


def tabm(outputs: int, **arguments: object) -> TabM:
    network = build_network("tabm", {"features": 5, "outputs": outputs}, {"members": 4, "hidden": [8, 8], **arguments})
    assert isinstance(network, TabM)
    return network


def test_it_answers_with_the_mean_of_its_members() -> None:
    network, x = tabm(3, dropout=0.0), torch.randn(7, 5)
    each, mean = network.train()(x), network.eval()(x)
    assert (each.shape, mean.shape) == ((7, 4, 3), (7, 3))
    torch.testing.assert_close(mean, each.mean(1))
    assert (each.std(1) > 1e-3).all()  # they differ


def test_each_member_is_a_network_of_its_own() -> None:
    network, x = tabm(1, dropout=0.0).train(), torch.randn(7, 5)
    for member in range(4):
        hidden = x
        for layer in network.layers:
            weight = layer.scale_out[member, :, None] * layer.weight * layer.scale_in[member]  # type: ignore[index, operator]
            hidden = F.relu(F.linear(hidden, weight, layer.bias[member]))  # type: ignore[index]
        expected = hidden @ network.weight[member] + network.bias[member]
        torch.testing.assert_close(network(x)[:, member], expected)


def test_each_is_held_to_the_target() -> None:
    network, x, labels = tabm(3, dropout=0.0).train(), torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])
    loss, figures = classification_objective("CrossEntropyLoss", {})(network, (x, labels))
    each = [F.cross_entropy(network(x)[:, member], labels) for member in range(4)]
    torch.testing.assert_close(loss, torch.stack(each).mean())
    assert 0 <= figures["accuracy"] <= 1
    numbers, single = torch.randn(6), tabm(1, dropout=0.0).train()
    objective = regression_objective("MSELoss", {}, [Number(name="y", mean=0.0, std=1.0)])
    loss, _ = objective(lambda x: single(x).squeeze(-1), (x, numbers))  # type: ignore[arg-type]
    torch.testing.assert_close(loss, (single(x).squeeze(-1) - numbers[:, None]).square().mean())


@pytest.mark.parametrize(("shape", "dimensions"), [((6, 3), 2), ((6,), 1)])
def test_answers_of_one_network_stay(shape: tuple[int, ...], dimensions: int) -> None:
    answers, target = torch.randn(shape), torch.arange(6)
    same, unchanged = answer_by_answer(answers, target, dimensions)
    assert same is answers
    assert unchanged is target


def test_signs_of_the_inputs_tell_the_members_apart_at_first() -> None:
    first, second = (layer.scale_in for layer in tabm(1).layers)
    assert set(first.flatten().tolist()) == {-1.0, 1.0}  # type: ignore[operator, union-attr]
    assert (second == 1).all()  # type: ignore[union-attr]


def test_answers_in_16_bits_are_exact_in_large_units() -> None:
    scaled = InUnits(torch.nn.Linear(1, 1, bias=False), [Number(name="y", mean=200_000.0, std=100_000.0)])
    torch.nn.init.constant_(scaled.network.weight, 0.001)  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16):
        found = scaled(torch.ones(1, 1))
    assert found.dtype is torch.float32
    assert found.item() == pytest.approx(200_100, abs=1)
