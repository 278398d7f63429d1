"""The stages of a regression task, in the order of the graph.

torch is imported inside the functions, so that commands which only look at the project stay quick.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from torchloom.config import DebuggingConfig, DistributedConfig, EvaluateConfig, RegressionTrainConfig, RegressorConfig
from torchloom.data.loaders import LoaderPlan
from torchloom.modalities import TableInfo, expect
from torchloom.pipelines.stages import Trained, train_network
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.debugging import adjusted
from torchloom.training.state import TrainingStates

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any  # Kedro resolves these annotations when it looks for parameters; matplotlib takes a second to import

logger = logging.getLogger(__name__)


def train(
    loaders: LoaderPlan,
    network: RegressorConfig,
    config: RegressionTrainConfig,
    distributed: DistributedConfig,
    debugging: DebuggingConfig,
    states: TrainingStates | None = None,
    start: Checkpoint | None = None,
) -> Trained:
    """Train a regressor; see `train_network`."""
    from torchloom.training.losses import regression_objective

    info = expect(loaders.info, TableInfo)
    config = adjusted(config, debugging)
    objective = partial(
        regression_objective, config.loss.name, config.loss.arguments, info.target_mean, info.target_std
    )
    return train_network(loaders, network, config, distributed, debugging, objective, states, start)


def evaluate(
    checkpoint: Checkpoint, loaders: LoaderPlan, history: list[dict[str, float]], config: EvaluateConfig
) -> tuple[dict[str, Any], list[dict[str, Any]], Figure, Figure, Figure, list[dict[str, Any]]]:
    """Measure the checkpoint on the test split, beside linear least squares on the rows that it was trained on.

    Returns the metrics, the coefficients as a table, the figures: learning curves, residuals, coefficients; and the
    samples that are missed by the most as a table.
    """
    from torchloom import figures
    from torchloom.evaluation import coefficients, largest_residuals, least_squares, predict, regression_metrics
    from torchloom.training.devices import choose_device

    info = expect(loaders.info, TableInfo)
    device = choose_device(config.device)
    model = checkpoint.build()
    (prediction,), target = predict(model.to(device), loaders.loader("test", device))
    features, _ = loaders.first("test", len(target))
    rows, truth = loaders.trained()
    solution = least_squares(rows, truth, info, l2=checkpoint.training["parameters"]["l2"])
    metrics = regression_metrics(prediction, target)
    closed_form = regression_metrics(solution.predict(features), target)
    metrics |= {f"closed_form_{name}": value for name, value in closed_form.items()}
    metrics |= {"epoch": int(checkpoint.training["epoch"]), "test_samples": len(target)}
    table = coefficients(model.cpu(), features, info, solution)
    logger.info("test R² %.4f, in closed form %.4f", metrics["r2"], metrics["closed_form_r2"])
    return (
        metrics,
        table,
        figures.learning_curves(history),
        figures.residuals(prediction, target, info.target),
        figures.coefficient_plot(table),
        largest_residuals(prediction, target, features, info),
    )
