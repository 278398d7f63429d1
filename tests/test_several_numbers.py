"""Several numbers at once, and the scales on which numbers are learnt."""

import numpy as np
import pytest
import torch
from torch import nn

from torchloom.data.targets import Number, Numbers, Scale
from torchloom.modalities import TableInfo
from torchloom.problems import problem_of
from torchloom.problems.regression import regression_objective
from torchloom.problems.regression.metrics import closed_form, largest_residuals, regression_metrics
from torchloom.problems.regression.scales import LINEAR
from torchloom.problems.regression.scaling import InUnits, from_scale, to_scale
from torchloom.system.figures import residuals

NUMBERS = [Number(name="a", mean=5.0, std=2.0), Number(name="b", mean=100.0, std=10.0)]


@pytest.mark.parametrize("scale", ["linear", "log", "robust"])
def test_scales_lead_there_and_back(scale: Scale) -> None:
    values = torch.tensor([-0.99, -0.5, 0.0, 1.0, 7.0, 250.0, 1e4, 1e9], dtype=torch.float64)
    number = [Number(name="y", mean=3.0, std=2.0, scale=scale)]
    scaled = to_scale(values, number)
    assert (scaled.diff() > 0).all()
    torch.testing.assert_close(from_scale(scaled, number), values)
    both = torch.stack([values, values], 1)  # each by its own
    mixed = to_scale(both, [number[0], Number(name="z", mean=0.0, std=10.0)])
    torch.testing.assert_close(mixed, torch.stack([scaled, values / 10], 1))


def test_the_robust_scale_is_linear_among_most_and_flat_far_beyond() -> None:
    number = [Number(name="y", mean=10.0, std=2.0, scale="robust")]
    near = torch.linspace(10 - 2 * LINEAR, 10 + 2 * LINEAR, 21)
    torch.testing.assert_close(to_scale(near, number), (near - 10) / 2)
    assert to_scale(torch.tensor([1e9, -1e9]), number).abs().max() < 20


@pytest.mark.parametrize("scale", ["log", "robust"])
def test_no_answer_is_beyond_what_32_bits_hold(scale: Scale) -> None:
    number = [Number(name="y", mean=3.0, std=2.0, scale=scale)]
    answers = torch.tensor([[-1e6], [-50.0], [50.0], [1e6]], requires_grad=True)
    found = InUnits(nn.Identity(), number)(answers)
    assert found.shape == (4,)
    assert found.isfinite().all()
    assert to_scale(found, number).isfinite().all()
    to_scale(found, number).sum().backward()
    assert answers.grad is not None
    assert answers.grad.isfinite().all()


def test_each_number_is_learnt_on_its_own_scale() -> None:
    answers = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    model = InUnits(nn.Identity(), NUMBERS)
    assert model(answers).tolist() == [[7.0, 80.0], [5.0, 130.0]]
    target = torch.tensor([[5.0, 100.0], [9.0, 100.0]])
    loss, figures = regression_objective("MSELoss", {}, NUMBERS)(model, (answers, target))
    assert loss.item() == pytest.approx((1 + 4 + 4 + 9) / 4)
    errors = {name: value.item() for name, value in figures.items()}
    assert errors == {"mae_a": (2 + 4) / 2, "mae_b": (20 + 30) / 2}  # each in its unit
    members = torch.stack([answers, answers + 1], 1)
    loss, _ = regression_objective("MSELoss", {}, NUMBERS)(model, (members, target))
    assert loss.item() == pytest.approx((1 + 4 + 4 + 9 + 4 + 1 + 1 + 16) / 8)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_errors_by_epoch_are_in_units_and_the_loss_is_said_to_be_standardised(count: int) -> None:
    numbers = [Number(name=f"n{place}", mean=0.0, std=2.0, scale="log") for place in range(count)]
    info = TableInfo(
        features=["x"], mean=[0.0], std=[1.0], target=Numbers(numbers=numbers) if count > 1 else numbers[0]
    )
    units = problem_of("regression").units(info)
    single = torch.full((3, count), 1e38).squeeze(-1) if count == 1 else torch.full((3, count), 1e38)
    _, errors = regression_objective("MSELoss", {}, numbers)(nn.Identity(), (single, torch.zeros_like(single)))
    assert all(value.item() == pytest.approx(1e30) for value in errors.values())  # which has a sum
    assert units["loss"] == "standardised"
    if count == 1:
        assert list(errors) == ["mae"]
        assert {units["mae"], units["rmse"]} == {"in the unit of n0"}
    else:
        assert list(errors) == [f"mae_n{place}" for place in range(min(count, 7))]
        assert {name: units[name] for name in errors} == {
            f"mae_n{at}": f"in the unit of n{at}" for at in range(len(errors))
        }
        assert units["mae"] == "mean over the numbers, each in its unit"


def test_figures_are_of_each_in_its_unit_and_means() -> None:
    target = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 60.0]])
    found = target + torch.tensor([[1.0, 0.0], [-1.0, 10.0], [0.0, -10.0]])
    metrics = regression_metrics(found, target, ["a", "b"])
    alone = [regression_metrics(found[:, place], target[:, place]) for place in (0, 1)]
    assert metrics == {
        **{name: pytest.approx((alone[0][name] + alone[1][name]) / 2) for name in ("r2", "rmse", "mae")},
        **{f"{name}_{column}": alone[place][name] for place, column in enumerate("ab") for name in alone[place]},
    }
    rows = largest_residuals(found, target, 2, NUMBERS)
    assert [row["test_sample"] for row in rows] == [1, 2]  # off by 1/2 and 10/10, and by 0 and 10/10
    assert rows[0] == {
        "test_sample": 1,
        **{"true a": 2.0, "predicted a": 1.0, "residual a": 1.0},
        **{"true b": 20.0, "predicted b": 30.0, "residual b": -10.0},
    }
    figure = residuals(found, target, "a", "b")
    assert [axes.get_xlabel() for axes in figure.axes] == ["true a", "predicted a", "true b", "predicted b"]


def test_the_closed_form_of_each() -> None:
    generator = np.random.default_rng(0)
    features = torch.from_numpy(generator.normal(size=(50, 3)))
    truth = features @ torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]], dtype=torch.float64)
    info = TableInfo(features=["x", "y", "z"], mean=[0.0] * 3, std=[1.0] * 3)
    torch.testing.assert_close(closed_form(features, truth, features.split(7), info, NUMBERS, 0.0), truth)
    logs = [Number(name="a", mean=0.5, std=2.0, scale="log")]
    single = closed_form(features, truth[:, 0].expm1(), [features], info, logs, 0.0)
    torch.testing.assert_close(single, truth[:, 0].expm1())
