"""Regression: a number that belongs to each sample, or several."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from torchloom.data.targets import Number, Numbers
from torchloom.errors import InputError
from torchloom.modalities import Info
from torchloom.problems.base import (
    FOLLOWED,
    STANDARDISED,
    Columns,
    Figures,
    Objective,
    Problem,
    check_count,
    in_unit_of,
    run,
)
from torchloom.problems.conformal import check_names, check_samples
from torchloom.problems.regression.config import RegressionTrainConfig, RegressorConfig
from torchloom.problems.regression.intervals import bounds, interval_scores, names_of, with_interval
from torchloom.system.words import counted, significant

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from torch import Tensor, nn

    from torchloom.config import AnswerConfig, EvaluateConfig
    from torchloom.inference.model import Model
    from torchloom.problems.summands import Loss, Summand
    from torchloom.training.checkpoint import Checkpoint
    from torchloom.training.loaders import LoaderPlan

logger = logging.getLogger(__name__)

FURTHEST = 1e30  # an error that counts in a mean by epoch; what untrained networks say on a log scale has no end
COUNTS = "PoissonNLLLoss"
CLOSED_FORM = 1 << 24  # numbers in the rows of a closed form, which takes several times their memory

REPORTS = {
    "metrics": "",
    "coefficients": "By how much the prediction changes when a feature grows by one standard deviation.",
    "learning_curves": "The loss is standardised: it is on the scale on which the numbers have mean 0 and deviation 1. "
    "The errors mae and rmse are in the unit of the target, of several numbers each in its own; r2 has none.",
    "residuals": "Predictions over true values, and what is left over the predictions.",
    "coefficient_plot": "The network's coefficients beside those of least squares in closed form.",
    "largest_residuals": "The test samples that the predictions miss by the most.",
}


class Regression(Problem):
    """A network gives K numbers (B, K) on their scales, where they have mean 0 and deviation 1; the model gives them in
    their units, and a single one as (B,)."""

    network = RegressorConfig
    training = RegressionTrainConfig
    target: ClassVar = (Number, Numbers)
    reports = REPORTS
    tag = "regression"
    answers = ("prediction",)
    card = "templates/regression.md"

    def sizes(self, info: Info) -> dict[str, Any]:
        return {"outputs": len(numbers_of(info))}

    def meanings(self, info: Info) -> dict[str, Any]:
        return {"outputs": _called(info)}

    def scaled(self, network: nn.Module, info: Info) -> nn.Module:
        from torchloom.problems.regression.scaling import InUnits

        return InUnits(network, numbers_of(info))

    def check_answer(self, answer: Any, info: Info) -> None:
        check_count(1 if answer.ndim == 1 else answer.shape[-1], len(numbers_of(info)))

    def check(self, config: RegressionTrainConfig, loaders: LoaderPlan) -> None:
        super().check(config, loaders)
        scales = {each.scale for each in numbers_of(loaders.info)}
        parts = [config.loss, *config.loss.plus]
        if any(part.name == COUNTS for part in parts) and scales != {"log"}:
            raise InputError(f"train.loss: {COUNTS} is for counts, which take preprocess.target_scale: log")
        if config.prediction_interval is not None:
            check_samples(config.prediction_interval, loaders.length("validation"), "validation sample")
            check_names([each.name for each in numbers_of(loaders.info)])

    def objective(self, config: RegressionTrainConfig, info: Info) -> Objective:
        return regression_objective(config.loss.name, config.loss.arguments, numbers_of(info))

    def validation(self, config: RegressionTrainConfig, info: Info) -> Figures:
        from torchloom.problems.regression.metrics import regression_metrics

        names = [each.name for each in numbers_of(info)]
        return lambda prediction, target: dict(islice(regression_metrics(prediction, target, names).items(), 3))

    def completed(self, checkpoint: Checkpoint, loaders: LoaderPlan, config: RegressionTrainConfig) -> Checkpoint:
        """With the intervals of the numbers."""
        if config.prediction_interval is None:
            return checkpoint
        numbers = _with_intervals(checkpoint, loaders, config.prediction_interval, config.device)
        target = checkpoint.info.target
        target = target.model_copy(update={"numbers": numbers}) if isinstance(target, Numbers) else numbers[0]
        return checkpoint.model_copy(update={"info": checkpoint.info.model_copy(update={"target": target})})

    def evaluate(
        self, checkpoint: Checkpoint, loaders: LoaderPlan, history: list[dict[str, float]], config: EvaluateConfig
    ) -> dict[str, Any]:
        """The metrics, of tables beside linear least squares on the rows that it was trained on, with coefficients."""
        from torchloom.problems.evaluation import own_metrics, predict
        from torchloom.problems.regression import metrics as measures
        from torchloom.system import figures
        from torchloom.system.devices import choose_device

        info, numbers = loaders.info, numbers_of(checkpoint.info)
        names = [each.name for each in numbers]
        device = choose_device(config.device)
        model = checkpoint.build()
        (prediction,), target = predict(model.to(device), loaders.loader("test", device))
        metrics = measures.regression_metrics(prediction, target, names)
        metrics |= interval_scores(numbers, _columns(target), _answered(numbers, prediction.numpy()))
        metrics |= own_metrics(config.metrics, prediction, target, metrics)
        closed, table = _beside_least_squares(checkpoint, model, loaders, target)
        metrics |= closed
        metrics |= {"epoch": int(checkpoint.training["epoch"]), "test_samples": len(target)}
        missed = measures.largest_residuals(prediction, target, numbers=numbers)
        more = info.columns(loaders, [row["test_sample"] for row in missed])
        beside = f", in closed form {metrics['closed_form_r2']:.4f}" if "closed_form_r2" in metrics else ""
        logger.info("%s R² %.4f%s", loaders.tested, metrics["r2"], beside)
        if doubt := self.doubt(metrics):
            logger.warning(doubt)
        return {
            "metrics": metrics,
            "coefficients": table,
            "learning_curves": figures.learning_curves(history, self.units(info)),
            "residuals": figures.residuals(prediction, target, *names),
            "coefficient_plot": figures.coefficient_plot(table) if table else b"",  # with words there are none
            "largest_residuals": [measures.joined(row, columns) for row, columns in zip(missed, more, strict=True)],
        }

    def answers_to(self, checkpoint: Checkpoint, loaders: LoaderPlan, config: EvaluateConfig) -> list[Columns]:
        from torchloom.problems.evaluation import predict
        from torchloom.system.devices import choose_device

        device = choose_device(config.device)
        (prediction,), target = predict(checkpoint.build().to(device), loaders.loader("test", device))
        numbers = numbers_of(checkpoint.info)
        named: dict[str, Any] = {}
        for each, truth, found in zip(numbers, _columns(target).T, _columns(prediction).T, strict=True):
            ends = zip(("low", "high"), bounds(each, found).values(), strict=False)
            of_it = {"true": truth, "predicted": found, **dict(ends)}
            named |= {f"{key} {each.name}" if len(numbers) > 1 else key: value for key, value in of_it.items()}
        rows = zip(*(map(significant, value.tolist()) for value in named.values()), strict=True)
        return [dict(zip(named, row, strict=True)) for row in rows]

    def doubt(self, metrics: Mapping[str, Any]) -> str | None:
        if metrics["r2"] > 0:
            return None
        return f"It is no better than always answering the mean, whose R² is 0: its R² is {metrics['r2']:.4f}."

    def units(self, info: Info) -> Mapping[str, str]:
        names = [each.name for each in numbers_of(info)]
        every = in_unit_of(names[0]) if len(names) == 1 else "mean over the numbers, each in its unit"
        own = dict(zip(_followed(names), map(in_unit_of, names), strict=False))
        return {"loss": STANDARDISED, "rmse": every, "mae": every, **own}

    # ---- for exported models ---------------------------------------------------------------------------------------

    def check_exported(self, model: Model) -> None:
        numbers, given = len(numbers_of(model.info)), model.session.get_outputs()[0].shape[1:] or [1]
        if [numbers] != given:
            raise ValueError(f"{numbers} numbers, {given} in the graph")

    def answering(
        self,
        model: Model,
        config: AnswerConfig,
    ) -> tuple[pyarrow.Schema, Callable[[list[Any]], Columns]]:
        """The numbers, by the names of the target's columns, each before the ends of its interval."""
        import pyarrow

        numbers = numbers_of(model.info)
        names = [name for each in numbers for name in (each.name, *names_of(each))]
        return pyarrow.schema(dict.fromkeys(names, pyarrow.float32())), partial(_regress, model, numbers)

    def truth(self, told: Sequence[Any], info: Info) -> Columns:
        """Named as in `answers_to`."""
        import pyarrow

        numbers = numbers_of(info)
        names = [f"true {each.name}" for each in numbers] if len(numbers) > 1 else ["true"]
        columns = zip(*(values or [None] * len(names) for values in told), strict=True) if told else [[]] * len(names)
        return {name: pyarrow.array(column, pyarrow.float64()) for name, column in zip(names, columns, strict=True)}

    def judged(self, answers: Mapping[str, Sequence[Any]], told: Sequence[Any], info: Info) -> dict[str, float]:
        import numpy as np

        from torchloom.problems.scores import numbers_scores

        numbers = numbers_of(info)
        names = [each.name for each in numbers]
        found = np.column_stack([np.asarray(answers[name], dtype=np.float64) for name in names])
        truth = np.asarray(told, dtype=np.float32).astype(np.float64)  # as it was learnt
        return numbers_scores(truth, found, names) | interval_scores(numbers, truth, answers)

    def caption(self, model: Model, row: dict[str, Any]) -> str:
        return ", ".join(_captioned(each, row) for each in numbers_of(model.info))

    def said(self, model: Model) -> dict[str, Any]:
        interval = numbers_of(model.info)[0].interval
        return {"target": _called(model.info), **({"interval": interval.share} if interval else {})}


PROBLEM = Regression


def target_of(info: Info) -> Number:
    """The one number that is to be predicted; InputError when the data have none, or several."""
    if not isinstance(info.target, Number):
        raise InputError(f"these data are of the kind {info.kind!r}, without a number to predict")
    return info.target


def numbers_of(info: Info) -> list[Number]:
    """What is to be predicted; InputError when the data have no numbers for that."""
    return info.target.numbers if isinstance(info.target, Numbers) else [target_of(info)]


def _called(info: Info) -> str | list[str]:
    names = [each.name for each in numbers_of(info)]
    return names if len(names) > 1 else names[0]


def _regress(model: Model, numbers: list[Number], samples: list[Any]) -> Columns:
    return _answered(numbers, run(model, "prediction", samples))


def _answered(numbers: Sequence[Number], found: np.ndarray) -> Columns:
    """The columns of answers (N,) or (N, K) to N samples."""
    columns: Columns = {}
    for each, values in zip(numbers, found.reshape(len(found), -1).T, strict=True):
        columns |= {each.name: values, **bounds(each, values)}
    return columns


def _columns(values: Tensor) -> np.ndarray:
    """(N,) or (N, K) -> (N, K)."""
    return values.numpy().reshape(len(values), -1)


def _captioned(number: Number, row: dict[str, Any]) -> str:
    ends = " to ".join(f"{row[name]:.5g}" for name in names_of(number))
    return f"{number.name} {row[number.name]:.5g}{f' ({ends})' if ends else ''}"


def _beside_least_squares(
    checkpoint: Checkpoint, model: nn.Module, loaders: LoaderPlan, target: Tensor
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """What least squares make of the test split, with the targets (N,) or (N, K), as metrics, and of numbers alone the
    coefficients beside those of the `model`; nothing of data that are no table."""
    from torchloom.problems.regression import metrics as measures

    info, numbers = loaders.info, numbers_of(checkpoint.info)
    table = info.as_numbers()
    if table is None:
        return {}, []
    numeric, as_numbers = table
    features, _ = loaders.first("test", len(target))
    most = max(1, CLOSED_FORM // len(numeric.features))  # rows at once
    rows, truth = loaders.trained(most)
    if len(rows) == most:
        logger.info("the closed form is that of %s, drawn at random", counted(most, "training sample"))
    l2 = checkpoint.training["parameters"]["l2"]
    found = measures.closed_form(as_numbers(rows), truth, map(as_numbers, features.split(most)), numeric, numbers, l2)  # type: ignore[no-untyped-call]
    linear = measures.regression_metrics(found, target, [each.name for each in numbers])
    metrics = {f"closed_form_{name}": value for name, value in linear.items()}
    if numeric is not info or [each.scale for each in numbers] != ["linear"]:
        return metrics, []
    solution = measures.least_squares(rows, truth, numeric, numbers[0], l2)
    return metrics, measures.coefficients(model.cpu(), features, numeric, solution)


def _with_intervals(checkpoint: Checkpoint, loaders: LoaderPlan, share: float, on: str) -> list[Number]:
    from torchloom.problems.evaluation import predict
    from torchloom.system.devices import choose_device

    device = choose_device(on)
    (found,), truth = predict(checkpoint.build().to(device), loaders.loader("validation", device))
    numbers = zip(numbers_of(checkpoint.info), _columns(truth).T, _columns(found).T, strict=True)
    return [with_interval(each, values, answers, share) for each, values, answers in numbers]


def _followed(names: Sequence[str]) -> list[str]:
    """What the mean absolute error of each of the numbers is called, by epoch; of many only the first are followed."""
    return ["mae"] if len(names) == 1 else [f"mae_{name}" for name in names[:FOLLOWED]]


def regression_objective(name: str, arguments: dict[str, Any], numbers: Sequence[Number]) -> Objective:
    """What a regressor is trained for: the mean loss on the scales where numbers have mean 0 and deviation 1.

    Beside it there is the mean absolute error of each number in its unit.
    """
    from torchloom.problems.losses import answer_by_answer
    from torchloom.problems.summands import added_up

    loss = added_up(name, arguments, partial(_on_scale, numbers))
    dimensions = 1 if len(numbers) == 1 else 2
    followed = _followed([each.name for each in numbers])

    def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        *inputs, target = batch
        prediction, target = answer_by_answer(model(*inputs).float(), target, dimensions)
        errors = (prediction.detach() - target).abs().clamp(max=FURTHEST)
        means = errors.reshape(len(errors), -1).mean(0)
        return loss(prediction, target), dict(zip(followed, means, strict=False))

    return objective


def _on_scale(numbers: Sequence[Number], part: Summand) -> Loss:
    """A loss of predictions and targets in their units, whose scales it takes them to.

    That of counts is one of 1 + number, as the logarithm that the scale log has is that of 1 + number: no count is too
    small for it, and it is least at the mean all the same.
    """
    import torch

    from torchloom.problems.losses import value_loss
    from torchloom.problems.regression.scaling import to_scale

    loss = value_loss(part)
    if part.name == COUNTS:
        return lambda prediction, target: loss(torch.log1p(prediction), 1 + target)
    return lambda prediction, target: loss(to_scale(prediction, numbers), to_scale(target, numbers))
