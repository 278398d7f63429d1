"""Regression: a number that belongs to each sample."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torchloom.data.targets import Number
from torchloom.errors import InputError
from torchloom.modalities import Info, TableInfo
from torchloom.problems.base import Columns, Figures, Objective, Problem, check_count, run
from torchloom.problems.regression.config import RegressionTrainConfig, RegressorConfig

if TYPE_CHECKING:
    import pyarrow
    from torch import Tensor, nn

    from torchloom.config import AnswerConfig, EvaluateConfig
    from torchloom.inference.model import Model
    from torchloom.training.checkpoint import Checkpoint
    from torchloom.training.loaders import LoaderPlan

logger = logging.getLogger(__name__)

REPORTS = {
    "metrics": "",
    "coefficients": "By how much the prediction changes when a feature grows by one standard deviation.",
    "learning_curves": "",
    "residuals": "Predictions over true values, and what is left over the predictions.",
    "coefficient_plot": "The network's coefficients beside those of least squares in closed form.",
    "largest_residuals": "The test samples that the predictions miss by the most.",
}


class Regression(Problem):
    """A network gives one number (B, 1), where the target has mean 0 and deviation 1; the model it (B,) in its unit."""

    network = RegressorConfig
    training = RegressionTrainConfig
    target: ClassVar = Number
    reports = REPORTS
    tag = "regression"
    answers = ("prediction",)
    card = "templates/regression.md"

    def sizes(self, info: Info) -> dict[str, Any]:
        return {"outputs": 1}

    def meanings(self, info: Info) -> dict[str, Any]:
        return {"outputs": target_of(info).name}

    def scaled(self, network: nn.Module, info: Info) -> nn.Module:
        from torchloom.problems.regression.scaling import InUnits

        return InUnits(network, target_of(info).mean, target_of(info).std)

    def check_answer(self, answer: Any, info: Info) -> None:
        check_count(1 if answer.ndim == 1 else answer.shape[-1], 1)

    def objective(self, config: RegressionTrainConfig, info: Info) -> Objective:
        target = target_of(info)
        return regression_objective(config.loss.name, config.loss.arguments, target.mean, target.std)

    def validation(self, config: RegressionTrainConfig, info: Info) -> Figures:
        from torchloom.problems.regression.metrics import regression_metrics

        return regression_metrics

    def evaluate(
        self, checkpoint: Checkpoint, loaders: LoaderPlan, history: list[dict[str, float]], config: EvaluateConfig
    ) -> dict[str, Any]:
        """The metrics, of tables beside linear least squares on the rows that it was trained on, with coefficients."""
        from torchloom.problems.evaluation import own_metrics, predict
        from torchloom.problems.regression import metrics as measures
        from torchloom.system import figures
        from torchloom.system.devices import choose_device

        info, named = loaders.info, target_of(loaders.info)
        device = choose_device(config.device)
        model = checkpoint.build()
        (prediction,), target = predict(model.to(device), loaders.loader("test", device))
        metrics = measures.regression_metrics(prediction, target)
        metrics |= own_metrics(config.metrics, prediction, target, metrics)
        table: list[dict[str, Any]] = []
        if isinstance(info, TableInfo):
            features, _ = loaders.first("test", len(target))
            rows, truth = loaders.trained()
            numeric, numbers = info.as_numbers()
            l2 = checkpoint.training["parameters"]["l2"]
            solution = measures.least_squares(numbers(rows), truth, numeric, named, l2=l2)
            closed_form = measures.regression_metrics(solution.predict(numbers(features)), target)
            metrics |= {f"closed_form_{name}": value for name, value in closed_form.items()}
            table = measures.coefficients(model.cpu(), features, info, solution) if numeric is info else []
        metrics |= {"epoch": int(checkpoint.training["epoch"]), "test_samples": len(target)}
        missed = measures.largest_residuals(prediction, target)
        more = info.columns(loaders, [row["test_sample"] for row in missed])
        plot = figures.coefficient_plot(table) if table else figures.nothing("coefficients are those of numbers")
        beside = f", in closed form {metrics['closed_form_r2']:.4f}" if "closed_form_r2" in metrics else ""
        logger.info("test R² %.4f%s", metrics["r2"], beside)
        if doubt := self.doubt(metrics):
            logger.warning(doubt)
        return {
            "metrics": metrics,
            "coefficients": table,
            "learning_curves": figures.learning_curves(history),
            "residuals": figures.residuals(prediction, target, named.name),
            "coefficient_plot": plot,
            "largest_residuals": [measures.joined(row, columns) for row, columns in zip(missed, more, strict=True)],
        }

    def answers_to(self, checkpoint: Checkpoint, loaders: LoaderPlan, config: EvaluateConfig) -> list[Columns]:
        from torchloom.problems.evaluation import predict
        from torchloom.system.devices import choose_device

        device = choose_device(config.device)
        (prediction,), target = predict(checkpoint.build().to(device), loaders.loader("test", device))
        pairs = zip(target.tolist(), prediction.tolist(), strict=True)
        return [{"true": true, "predicted": found} for true, found in pairs]

    def doubt(self, metrics: Mapping[str, Any]) -> str | None:
        if metrics["r2"] > 0:
            return None
        return f"It is no better than always answering the mean, whose R² is 0: its R² is {metrics['r2']:.4f}."

    def answering(
        self,
        model: Model,
        config: AnswerConfig,
    ) -> tuple[pyarrow.Schema, Callable[[list[Any]], Columns]]:
        """The number, by the target's name."""
        import pyarrow

        name = target_of(model.info).name
        return pyarrow.schema({name: pyarrow.float32()}), partial(_regress, model, name)

    def caption(self, model: Model, row: dict[str, Any]) -> str:
        name = target_of(model.info).name
        return f"{name} {row[name]:.5g}"

    def said(self, model: Model) -> dict[str, Any]:
        return {"target": target_of(model.info).name}


PROBLEM = Regression


def target_of(info: Info) -> Number:
    """What is to be predicted; InputError when the data have no number for that."""
    if not isinstance(info.target, Number):
        raise InputError(f"these data are of the kind {info.kind!r}, without a number to predict")
    return info.target


def _regress(model: Model, name: str, samples: list[Any]) -> Columns:
    return {name: run(model, "prediction", samples)}


def regression_objective(name: str, arguments: dict[str, Any], mean: float, std: float) -> Objective:
    """What a regressor is trained for: the mean loss where targets have mean 0 and deviation 1, and the MSE."""
    import torch.nn.functional as F

    from torchloom.problems.losses import answer_by_answer, created_loss

    loss = created_loss(name, arguments)

    def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        *inputs, target = batch
        prediction, target = answer_by_answer(model(*inputs).float(), target, dimensions=1)
        figures = {"mse": F.mse_loss(prediction, target)}
        return loss((prediction - mean) / std, (target - mean) / std), figures

    return objective
