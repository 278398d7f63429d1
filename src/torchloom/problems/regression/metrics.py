"""How far predictions are from the truth, and what least squares would say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchloom.data.targets import Number
from torchloom.modalities import TableInfo
from torchloom.problems.regression.scaling import from_scale, to_scale
from torchloom.problems.scores import numbers_scores
from torchloom.system.words import significant


def regression_metrics(prediction: Tensor, target: Tensor, names: Sequence[str] = ("",)) -> dict[str, Any]:
    """R², and errors in the target's unit, from predictions and targets (N,); or (N, K), by `names` of the columns."""
    truth, found = (values.double().numpy().reshape(len(values), -1) for values in (target, prediction))
    return dict(numbers_scores(truth, found, names))


def largest_residuals(
    prediction: Tensor, target: Tensor, count: int = 20, numbers: Sequence[Number] = ()
) -> list[dict[str, Any]]:
    """The samples (N,) that the predictions miss by the most: a table with their numbers in the test split.

    Of several numbers, (N, K), the errors count in standard deviations.
    """
    error = target - prediction
    far = error.abs() if error.ndim == 1 else (error / torch.tensor([each.std for each in numbers])).norm(dim=1)
    worst = far.argsort(descending=True, stable=True)[:count].tolist()
    values = {"true": target, "predicted": prediction, "residual": error}
    if error.ndim > 1:
        names = [each.name for each in numbers]
        values = {f"{key} {name}": value[:, at] for at, name in enumerate(names) for key, value in values.items()}
    return [
        {"test_sample": index, **{name: significant(value[index].item()) for name, value in values.items()}}
        for index in worst
    ]


def joined(row: dict[str, Any], columns: dict[str, Any]) -> dict[str, Any]:
    """A row of such a table with what the data say of the sample, whose names may be the same."""
    return {**row, **{f"feature {name}" if name in row else name: value for name, value in columns.items()}}


@dataclass(frozen=True)
class LinearSolution:
    """target = intercept + features @ weights, in the data's own units; float64."""

    weights: Tensor
    intercept: Tensor

    def predict(self, features: Tensor) -> Tensor:
        return features.double() @ self.weights + self.intercept


def least_squares(features: Tensor, target: Tensor, info: TableInfo, named: Number, l2: float = 0.0) -> LinearSolution:
    """The linear map with the least mean squared error, plus `l2` / 2 times its squared weights, in closed form.

    As in training, the penalty sees the weights on the scale where features and target have standard deviation 1.
    """
    from sklearn.linear_model import LinearRegression, Ridge

    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (info.mean, info.std))
    x, y = (features.double() - mean) / std, (target.double() - named.mean) / named.std
    model = Ridge(alpha=len(x) * l2 / 2) if l2 else LinearRegression()  # whose losses are sums, not means
    model.fit(x.numpy(), y.numpy())
    weights = torch.from_numpy(model.coef_) * named.std / std
    return LinearSolution(weights, named.mean + torch.tensor(model.intercept_) * named.std - weights @ mean)


def closed_form(
    rows: Tensor, truth: Tensor, features: Iterable[Tensor], info: TableInfo, numbers: Sequence[Number], l2: float
) -> Tensor:
    """What least squares on `rows` (N, F), on the scales of the numbers, say of `features`, (M, F) each, float64."""
    learnt = to_scale(truth.double(), numbers).reshape(len(truth), -1)
    scaled = [Number(name=each.name, mean=0.0, std=1.0) for each in numbers]
    solved = [least_squares(rows, learnt[:, place], info, each, l2) for place, each in enumerate(scaled)]
    found = torch.cat([torch.stack([each.predict(part) for each in solved], 1) for part in features])
    return from_scale(found[:, 0] if len(numbers) == 1 else found, numbers)


def coefficients(model: nn.Module, features: Tensor, info: TableInfo, solution: LinearSolution) -> list[dict[str, Any]]:
    """A row per feature: by how much the prediction changes when the feature grows by one standard deviation.

    `network` is the mean of the model's derivative over `features` (N, F), which of a linear model is its coefficient;
    `closed_form` is that of `solution`. Both are in the target's unit.
    """
    features = features.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(model(features).sum(), features)
    return [
        {"feature": name, "network": slope * std, "closed_form": weight * std}
        for name, slope, weight, std in zip(
            info.features, slopes.mean(0).tolist(), solution.weights.tolist(), info.std, strict=True
        )
    ]
