"""Forecasting: what comes next in the columns of a series."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torchloom.data.targets import Horizon
from torchloom.modalities import Info, SeriesInfo
from torchloom.problems.base import (
    FOLLOWED,
    STANDARDISED,
    Columns,
    Objective,
    Problem,
    in_unit_of,
    run,
    spread,
)
from torchloom.problems.conformal import check_names, check_samples, ends, half_width
from torchloom.problems.forecasting.config import EvaluateForecasterConfig, ForecasterConfig, ForecastingTrainConfig
from torchloom.system.words import counted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from torchloom.config import AnswerConfig
    from torchloom.inference.model import Model
    from torchloom.training.checkpoint import Checkpoint
    from torchloom.training.loaders import LoaderPlan

logger = logging.getLogger(__name__)

REPORTS = {
    "metrics": "Errors (mse, mae) are standardised: each column has mean 0 and deviation 1.",
    "by_column": "Errors of each column in its own unit, beside those of forecasts that go on with the last value or "
    "repeat the last season.",
    "learning_curves": "Loss, mse and mae are standardised: each column has mean 0 and deviation 1. The mae of a "
    "column is in the unit of that column.",
    "predictions": "Forecasts of test windows, in colour, and what came; before them the end of the window.",
    "error_by_step": "Mean squared error by how far ahead it is, each column with deviation 1.",
}


class Forecasting(Problem):
    """A network gives (B, horizon, columns), where columns have mean 0 and deviation 1; the model in their units."""

    network = ForecasterConfig
    training = ForecastingTrainConfig
    evaluation = EvaluateForecasterConfig
    modalities: ClassVar = (SeriesInfo,)
    target: ClassVar = Horizon
    reports = REPORTS
    tag = "forecasting"
    answers = ("forecast",)
    card = "templates/forecasting.md"

    def sizes(self, info: Info) -> dict[str, Any]:
        return {"horizon": series_of(info).steps}

    def scaled(self, network: nn.Module, info: Info) -> nn.Module:
        from torchloom.problems.forecasting.scaling import ColumnsInUnits, WithKnown

        series = series_of(info)
        if series.known_width:
            network = WithKnown(network, series.known_width, len(series.seen))
        return ColumnsInUnits(network, series.mean, series.std)

    def objective(self, config: ForecastingTrainConfig, info: Info) -> Objective:
        series = series_of(info)
        return forecasting_objective(config.loss.name, config.loss.arguments, series.std, series.channels)

    def check(self, config: ForecastingTrainConfig, loaders: LoaderPlan) -> None:
        super().check(config, loaders)
        if config.prediction_interval is not None:
            info = series_of(loaders.info)
            check_samples(config.prediction_interval, loaders.length("validation"), "validation window")
            check_names([info.time, *([info.series] if info.series else []), *info.channels])

    def completed(self, checkpoint: Checkpoint, loaders: LoaderPlan, config: ForecastingTrainConfig) -> Checkpoint:
        """With the intervals of each step and column."""
        if config.prediction_interval is None:
            return checkpoint
        within = _within(checkpoint, loaders, config.prediction_interval, config.device)
        target = horizon_of(checkpoint.info).model_copy(
            update={"share": config.prediction_interval, "within": within.tolist()}
        )
        return checkpoint.model_copy(update={"info": checkpoint.info.model_copy(update={"target": target})})

    def evaluate(
        self,
        checkpoint: Checkpoint,
        loaders: LoaderPlan,
        history: list[dict[str, float]],
        config: EvaluateForecasterConfig,
    ) -> dict[str, Any]:
        """The errors on all test windows, beside those of naive forecasts, as metrics, by column and by step."""
        from torchloom.problems.evaluation import own_metrics, predict
        from torchloom.problems.forecasting.metrics import Errors, by_column
        from torchloom.problems.forecasting.scaling import Naive
        from torchloom.system import figures
        from torchloom.system.devices import choose_device

        info, device = series_of(loaders.info), choose_device(config.device)
        season = config.season or info.clock.season
        naive = {"last_value": Naive(1, info.steps, len(info.channels))}
        if 1 < season <= info.window:
            naive["seasonal"] = Naive(season, info.steps, len(info.channels))
        errors = {}
        for name, model in {"model": checkpoint.build(), **naive}.items():
            (forecast,), truth = predict(model.to(device), loaders.loader("test", device))
            errors[name] = Errors.of(forecast, truth, info.std)
            if name == "model":
                metrics: dict[str, Any] = errors[name].metrics()
                whole = truth.isfinite().all(2).all(1)  # measured from one end to the other
                off = (forecast - truth).abs().double().numpy()
                metrics |= _interval_scores(horizon_of(checkpoint.info), off, info.channels)
                metrics |= own_metrics(config.metrics, forecast[whole], truth[whole], metrics) if whole.any() else {}
                count = len(truth)
                unmeasured = int(truth.isnan().sum())
                chosen = spread(count, config.pictures)
                shown = forecast[chosen].numpy()
        for name in naive:
            metrics |= errors[name].metrics(f"{name}_")
        metrics |= {"season": season, "epoch": int(checkpoint.training["epoch"]), "test_windows": count}
        if unmeasured:
            logger.info("%s of test windows are missing, and not judged", counted(unmeasured, "value"))
        beside = ", ".join(f"{name.replace('_', ' ')} {metrics[f'{name}_mse']:.4f}" for name in naive)
        logger.info("test MSE %.4f, MAE %.4f; naive forecasts' MSE: %s", metrics["mse"], metrics["mae"], beside)
        return {
            "metrics": metrics,
            "by_column": by_column(errors, info),
            "learning_curves": figures.learning_curves(history, self.units(info)),
            "predictions": _picture(loaders, series_of(checkpoint.info), chosen, shown),
            "error_by_step": figures.error_by_step({name: each.squared.nanmean(1) for name, each in errors.items()}),
        }

    def units(self, info: Info) -> Mapping[str, str]:
        own = {f"mae_{name}": in_unit_of(name) for name in series_of(info).channels[:FOLLOWED]}
        return {**dict.fromkeys(("loss", "mse", "mae"), STANDARDISED), **own}

    # ---- for exported models ---------------------------------------------------------------------------------------

    def answering(self, model: Model, config: AnswerConfig) -> tuple[pyarrow.Schema, Callable[[list[Any]], Columns]]:
        """The moments ahead, and by column as many numbers with their intervals; of one of several series its name."""
        import pyarrow

        info = series_of(model.info)
        name = {info.series: pyarrow.string()} if info.series else {}
        lists = {
            info.time: pyarrow.list_(pyarrow.string()),
            **dict.fromkeys(_columns(info), pyarrow.list_(pyarrow.float32())),
        }
        return pyarrow.schema({**name, **lists}), partial(_forecast, model, info)

    def truth(self, told: Sequence[Any], info: Info) -> Columns:
        """A number for each step ahead, NaN where nothing was measured."""
        import pyarrow

        series = series_of(info)
        nothing = [[math.nan] * len(series.channels)] * series.steps
        lists = {
            f"true {name}": [[step[place] for step in steps or nothing] for steps in told]
            for place, name in enumerate(series.channels)
        }
        return {name: pyarrow.array(column, pyarrow.list_(pyarrow.float32())) for name, column in lists.items()}

    def judged(self, answers: Mapping[str, Sequence[Any]], told: Sequence[Any], info: Info) -> dict[str, float]:
        import numpy as np

        from torchloom.problems.scores import forecast_scores

        series = series_of(info)
        std = np.array(series.std, dtype=np.float32)
        truth = np.array(told, dtype=np.float32)  # (N, horizon, columns)
        found = np.stack([np.stack(list(answers[name])) for name in series.channels], axis=2)
        if not np.isfinite(truth).any():
            return {}
        within = _interval_scores(horizon_of(info), np.abs(truth - found, dtype=np.float64), series.channels)
        return forecast_scores(truth / std, found / std) | within

    def caption(self, model: Model, row: dict[str, Any]) -> str:
        info = series_of(model.info)
        first = ", ".join(f"{name} {row[name][0]:.5g}" for name in info.channels)
        return f"{row[info.time][0]}: {first}"

    def sheet(self, model: Model, shown: list[tuple[str, Any, dict[str, Any]]]) -> Figure:
        """The end of each window, and the forecast."""
        import numpy as np

        from torchloom.system.figures import forecasts

        info = series_of(model.info)
        panels = []
        for name, window, row in shown[:MOST_SHOWN]:
            ahead = np.array([row[column] for column in info.channels], dtype=np.float32).T
            panels.append((f"{name}, {row[info.time][0]}", window.series, ahead, window.truth))
        return forecasts(panels, info.channels, _wide(info))

    def said(self, model: Model) -> dict[str, Any]:
        share = horizon_of(model.info).share
        return {"steps": series_of(model.info).steps, **({"interval": share} if share else {})}


PROBLEM = Forecasting
MOST_SHOWN = 12  # windows on a sheet


def series_of(info: Info) -> SeriesInfo:
    assert isinstance(info, SeriesInfo)  # as check_data has seen to
    return info


def horizon_of(info: Info) -> Horizon:
    assert isinstance(info.target, Horizon)  # as check_data has seen to
    return info.target


def _picture(loaders: LoaderPlan, info: SeriesInfo, chosen: list[int], shown: np.ndarray) -> Figure:
    from torchloom.system.figures import forecasts

    series, *_, truth = (part.numpy() for part in loaders.chosen("test", chosen))
    times = loaders.array("test", "times")[chosen]
    titles = [info.clock.written(int(moment)) for moment in times]
    return forecasts(list(zip(titles, series, shown, truth, strict=True)), info.channels, _wide(info))


def _forecast(model: Model, info: SeriesInfo, samples: list[Any]) -> Columns:
    import numpy as np

    forecast = run(model, "forecast", samples)  # (B, horizon, columns)
    name = {info.series: [each.name for each in samples]} if info.series else {}
    times = [[info.clock.written(int(moment)) for moment in each.ahead] for each in samples]
    wide = _wide(info)
    values = [forecast] if wide is None else [forecast, forecast - wide, forecast + wide]
    found = np.stack(values, -1).reshape(*forecast.shape[:2], -1)  # (B, horizon, columns of answers)
    return {**name, info.time: times, **{column: list(found[:, :, at]) for at, column in enumerate(_columns(info))}}


def _wide(info: SeriesInfo) -> np.ndarray | None:
    """Half of the widths of its intervals (horizon, columns), if there are any."""
    import numpy as np

    return np.array(horizon_of(info).within) if horizon_of(info).share else None


def _columns(info: SeriesInfo) -> list[str]:
    """Of answers: each column of the series, before the ends of its interval."""
    also = ends if horizon_of(info).share else lambda _: ()
    return [name for column in info.channels for name in (column, *also(column))]


def _within(checkpoint: Checkpoint, loaders: LoaderPlan, share: float, on: str) -> np.ndarray:
    """(horizon, columns), in the columns' units."""
    from torchloom.problems.evaluation import predict
    from torchloom.system.devices import choose_device

    device = choose_device(on)
    (forecast,), truth = predict(checkpoint.build().to(device), loaders.loader("validation", device))
    known = truth.isfinite().sum(0).min(0).values.tolist()  # of each column, at the step with the fewest
    for name, count in zip(series_of(checkpoint.info).channels, known, strict=True):
        check_samples(share, count, "validation window", f" with a value of {name!r} at each step ahead")
    return half_width((forecast - truth).abs().double().numpy(), share)


def _interval_scores(horizon: Horizon, off: np.ndarray, columns: list[str]) -> dict[str, float]:
    """The share of what came that was in its interval, beside what was asked for, and how wide these are on average, by
    column in its unit; `off` (N, horizon, columns) is how far it was from the forecast, NaN where nobody knows."""
    import numpy as np

    if horizon.share is None:
        return {}
    within, known = np.array(horizon.within), np.isfinite(off)
    wide = {f"interval_width_{name}": 2 * float(mean) for name, mean in zip(columns, within.mean(0), strict=True)}
    return {"interval_coverage": float((off <= within)[known].mean()), "interval_asked": horizon.share, **wide}


def forecasting_objective(
    name: str, arguments: dict[str, Any], std: Sequence[float], columns: Sequence[str]
) -> Objective:
    """What a forecast is trained for: the mean loss where columns have deviation 1, and with it MSE and MAE.

    Beside them there is the mean absolute error of each of the first columns in its own unit. What was never measured,
    NaN in the batch, is left out.
    """
    import torch
    import torch.nn.functional as F

    from torchloom.problems.losses import created_loss

    loss = created_loss(name, arguments)
    followed = [f"mae_{column}" for column in columns[:FOLLOWED]]

    def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        *inputs, truth = batch
        scale = torch.tensor(std, device=truth.device)
        forecast, truth = model(*inputs) / scale, truth / scale
        missing = truth.isnan()
        truth = torch.where(missing, forecast.detach(), truth)  # which costs nothing, and weighs nothing in the mean
        share = (~missing).float().mean().clamp(min=1 / missing.numel())
        figures = {"mse": F.mse_loss(forecast, truth) / share, "mae": F.l1_loss(forecast, truth) / share}
        known = (~missing).sum((0, 1)).clamp(min=1)
        own = (forecast.detach() - truth).abs().sum((0, 1)) / known * scale
        return loss(forecast, truth) / share, {**figures, **dict(zip(followed, own, strict=False))}

    return objective
