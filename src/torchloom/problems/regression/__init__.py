"""Regression: a number that belongs to each sample, or several."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from torchloom.data.targets import Number, Numbers
from torchloom.errors import InputError
from torchloom.modalities import Info, TableInfo
from torchloom.problems.base import Columns, Figures, Objective, Problem, check_count, run
from torchloom.problems.regression.config import RegressionTrainConfig, RegressorConfig
from torchloom.system.words import counted

if TYPE_CHECKING:
    import pyarrow
    from torch import Tensor, nn

    from torchloom.config import AnswerConfig, EvaluateConfig
    from torchloom.inference.model import Model
    from torchloom.training.checkpoint import Checkpoint
    from torchloom.training.loaders import LoaderPlan

logger = logging.getLogger(__name__)

CLOSED_FORM = 1 << 24  # numbers in the rows of a closed form, which takes several times their memory

REPORTS = {
    "metrics": "",
    "coefficients": "By how much the prediction changes when a feature grows by one standard deviation.",
    "learning_curves": "The loss is on the scale on which the numbers have mean 0 and deviation 1; r2 has no unit, and "
    "all else is in that of the target.",
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

    def objective(self, config: RegressionTrainConfig, info: Info) -> Objective:
        return regression_objective(config.loss.name, config.loss.arguments, numbers_of(info))

    def validation(self, config: RegressionTrainConfig, info: Info) -> Figures:
        from torchloom.problems.regression.metrics import regression_metrics

        names = [each.name for each in numbers_of(info)]
        return lambda prediction, target: dict(islice(regression_metrics(prediction, target, names).items(), 3))

    def evaluate(
        self, checkpoint: Checkpoint, loaders: LoaderPlan, history: list[dict[str, float]], config: EvaluateConfig
    ) -> dict[str, Any]:
        """The metrics, of tables beside linear least squares on the rows that it was trained on, with coefficients."""
        from torchloom.problems.evaluation import own_metrics, predict
        from torchloom.problems.regression import metrics as measures
        from torchloom.system import figures
        from torchloom.system.devices import choose_device

        info, numbers = loaders.info, numbers_of(loaders.info)
        names = [each.name for each in numbers]
        device = choose_device(config.device)
        model = checkpoint.build()
        (prediction,), target = predict(model.to(device), loaders.loader("test", device))
        metrics = measures.regression_metrics(prediction, target, names)
        metrics |= own_metrics(config.metrics, prediction, target, metrics)
        table: list[dict[str, Any]] = []
        if isinstance(info, TableInfo):
            features, _ = loaders.first("test", len(target))
            numeric, as_numbers = info.as_numbers()
            most = max(1, CLOSED_FORM // len(numeric.features))  # rows at once
            rows, truth = loaders.trained(most)
            l2 = checkpoint.training["parameters"]["l2"]
            parts = map(as_numbers, features.split(most))  # type: ignore[no-untyped-call]
            found = measures.closed_form(as_numbers(rows), truth, parts, numeric, numbers, l2)
            if len(rows) == most:
                logger.info("the closed form is that of %s, drawn at random", counted(most, "training sample"))
            linear = measures.regression_metrics(found, target, names)
            metrics |= {f"closed_form_{name}": value for name, value in linear.items()}
            if numeric is info and [each.scale for each in numbers] == ["linear"]:
                solution = measures.least_squares(rows, truth, info, numbers[0], l2)
                table = measures.coefficients(model.cpu(), features, info, solution)
        metrics |= {"epoch": int(checkpoint.training["epoch"]), "test_samples": len(target)}
        missed = measures.largest_residuals(prediction, target, numbers=numbers)
        more = info.columns(loaders, [row["test_sample"] for row in missed])
        plot = figures.coefficient_plot(table) if table else figures.nothing("coefficients are those of numbers")
        beside = f", in closed form {metrics['closed_form_r2']:.4f}" if "closed_form_r2" in metrics else ""
        logger.info("%s R² %.4f%s", loaders.tested, metrics["r2"], beside)
        if doubt := self.doubt(metrics):
            logger.warning(doubt)
        return {
            "metrics": metrics,
            "coefficients": table,
            "learning_curves": figures.learning_curves(history),
            "residuals": figures.residuals(prediction, target, *names),
            "coefficient_plot": plot,
            "largest_residuals": [measures.joined(row, columns) for row, columns in zip(missed, more, strict=True)],
        }

    def answers_to(self, checkpoint: Checkpoint, loaders: LoaderPlan, config: EvaluateConfig) -> list[Columns]:
        from torchloom.problems.evaluation import predict
        from torchloom.system.devices import choose_device

        device = choose_device(config.device)
        (prediction,), target = predict(checkpoint.build().to(device), loaders.loader("test", device))
        named = {"true": target, "predicted": prediction}
        names = [each.name for each in numbers_of(loaders.info)]
        if len(names) > 1:
            named = {f"{key} {name}": value[:, at] for at, name in enumerate(names) for key, value in named.items()}
        rows = zip(*(value.tolist() for value in named.values()), strict=True)
        return [dict(zip(named, row, strict=True)) for row in rows]

    def doubt(self, metrics: Mapping[str, Any]) -> str | None:
        if metrics["r2"] > 0:
            return None
        return f"It is no better than always answering the mean, whose R² is 0: its R² is {metrics['r2']:.4f}."

    def captions(self, made: Mapping[str, Any]) -> Mapping[str, str | None]:
        """Of tables with words there are no coefficients to be drawn."""
        return self.reports if made.get("coefficients") else {**self.reports, "coefficient_plot": None}

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
        """The numbers, by the names of the target's columns."""
        import pyarrow

        names = [each.name for each in numbers_of(model.info)]
        return pyarrow.schema(dict.fromkeys(names, pyarrow.float32())), partial(_regress, model, names)

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

        names = [each.name for each in numbers_of(info)]
        found = np.column_stack([np.asarray(answers[name], dtype=np.float64) for name in names])
        truth = np.asarray(told, dtype=np.float32).astype(np.float64)  # as it was learnt
        return numbers_scores(truth, found, names)

    def caption(self, model: Model, row: dict[str, Any]) -> str:
        return ", ".join(f"{each.name} {row[each.name]:.5g}" for each in numbers_of(model.info))

    def said(self, model: Model) -> dict[str, Any]:
        return {"target": _called(model.info)}


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


def _regress(model: Model, names: list[str], samples: list[Any]) -> Columns:
    found = run(model, "prediction", samples)
    return {name: found.reshape(len(found), -1)[:, place] for place, name in enumerate(names)}


def regression_objective(name: str, arguments: dict[str, Any], numbers: Sequence[Number]) -> Objective:
    """What a regressor is trained for: the mean loss on the scales where numbers have mean 0 and deviation 1.

    Beside it, of a single number on a linear scale, there is the MSE in its unit.
    """
    from torchloom.problems.losses import answer_by_answer, created_loss
    from torchloom.problems.regression.scaling import to_scale

    loss = created_loss(name, arguments)
    dimensions = 1 if len(numbers) == 1 else 2

    def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        *inputs, target = batch
        prediction, target = answer_by_answer(model(*inputs).float(), target, dimensions)
        return loss(to_scale(prediction, numbers), to_scale(target, numbers)), _in_unit(prediction, target, numbers)

    return objective


def _in_unit(prediction: Tensor, target: Tensor, numbers: Sequence[Number]) -> dict[str, Tensor]:
    import torch.nn.functional as F

    linear = [each.scale for each in numbers] == ["linear"]
    return {"mse": F.mse_loss(prediction, target)} if linear else {}
