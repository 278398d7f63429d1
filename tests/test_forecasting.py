"""How good forecasts are, by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.tables import hours, write
from torchloom.config import DataConfig, DebuggingConfig, SeriesPreprocessConfig
from torchloom.data.readers.series import find, preprocess
from torchloom.datasets.tensors import TensorsDataset
from torchloom.errors import InputError
from torchloom.modalities import SeriesInfo
from torchloom.models import build_model
from torchloom.pipelines.prediction.nodes import unrolled
from torchloom.pipelines.training.nodes import build_dataloaders
from torchloom.problems import problem_of
from torchloom.problems.base import spread
from torchloom.problems.forecasting.config import EvaluateForecasterConfig, ForecastingTrainConfig
from torchloom.reporting.report import headline, results, training
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan

FORECASTING: Any = problem_of("forecasting")
HISTORY = [{"epoch": 1, "learning_rate": 0.1, "train_loss": 1.0}]


@pytest.fixture
def plan(tmp_path: Path) -> LoaderPlan:
    return prepared(tmp_path, hours(400))


def prepared(tmp_path: Path, rows: list[dict[str, Any]], **settings: int) -> LoaderPlan:
    config = SeriesPreprocessConfig(
        files=str(write(tmp_path / "hours.csv", rows)), columns=["load", "heat"], window=30, horizon=5, **settings
    )
    *parts, info = preprocess(find(config), config, tmp_path)
    datasets = [TensorsDataset(filepath=str(tmp_path / f"{number}.safetensors")) for number in range(3)]
    for dataset, part in zip(datasets, parts, strict=True):
        dataset.save(part)
    train = ForecastingTrainConfig.model_validate({"epochs": 1, "optimizer": {"name": "SGD", "lr": 0.1}})
    loaded = [dataset.load() for dataset in datasets]
    return build_dataloaders(*loaded, info, DataConfig(), train, EvaluateForecasterConfig(), DebuggingConfig())


@pytest.fixture
def checkpoint(plan: LoaderPlan) -> Checkpoint:
    torch.manual_seed(0)
    weights = dict(build_model("dlinear", {}, plan.info, FORECASTING).state_dict())
    training = {"epoch": 1.0}
    return Checkpoint(
        network="dlinear", arguments={}, problem="forecasting", info=plan.info, training=training, weights=weights
    )


def test_errors_are_those_of_all_test_windows(plan: LoaderPlan, checkpoint: Checkpoint) -> None:
    reports = FORECASTING.evaluate(checkpoint, plan, HISTORY, EvaluateForecasterConfig(pictures=3))
    assert list(reports) == list(FORECASTING.reports)
    metrics, info = reports["metrics"], plan.info
    assert isinstance(info, SeriesInfo)
    values = np.array([[row["load"], row["heat"]] for row in hours(400)], np.float32)
    scaled = (values - info.mean) / info.std
    windows = [(scaled[end - 30 : end], scaled[end : end + 5]) for end in range(320, 396)]
    x, truth = (np.stack(part).astype(np.float32) for part in zip(*windows, strict=True))
    assert metrics["test_windows"] == 76
    network: Any = checkpoint.build()
    with torch.no_grad():
        forecast = network.network.network(torch.from_numpy(x)).numpy()  # without the scaling of both ends
    expected = {"": forecast, "last_value_": x[:, -1:], "seasonal_": x[:, 30 - 24 : 30 - 24 + 5]}
    for name, ahead in expected.items():
        assert metrics[f"{name}mse"] == pytest.approx(((ahead - truth) ** 2).mean(), rel=1e-4)
        assert metrics[f"{name}mae"] == pytest.approx(np.abs(ahead - truth).mean(), rel=1e-4)
    assert metrics["season"] == 24
    assert metrics["seasonal_mse"] < metrics["last_value_mse"]
    off = (forecast - truth) * info.std
    load, heat = reports["by_column"]
    assert load["model mae"] == pytest.approx(np.abs(off[..., 0]).mean(), rel=1e-4)
    assert heat["model rmse"] == pytest.approx(np.sqrt((off[..., 1] ** 2).mean()), rel=1e-4)
    assert list(heat) == [
        "column",
        *(f"{who} {what}" for who in ("model", "last_value", "seasonal") for what in ("rmse", "mae")),
    ]
    lines = {line.get_label(): line.get_ydata() for line in reports["error_by_step"].axes[0].lines}
    np.testing.assert_allclose(lines["model"], ((forecast - truth) ** 2).mean((0, 2)), rtol=1e-4)
    picture = reports["predictions"].axes
    assert len(picture) == 3 * 2
    assert picture[0].get_title(loc="left") == hours(400)[320]["time"]
    assert [text.get_text() for text in reports["predictions"].legends[0].get_texts()] == [
        "window",
        "what came",
        "forecast",
    ]
    assert picture[4].get_xlabel() == "load, by steps ahead"
    np.testing.assert_allclose(picture[5].lines[1].get_ydata(), values[395:400, 1], rtol=1e-5)  # what came, last window
    np.testing.assert_allclose(
        picture[5].lines[2].get_ydata(), forecast[-1, :, 1] * info.std[1] + info.mean[1], rtol=1e-4
    )


def test_no_season_is_repeated_that_is_longer_than_a_window(plan: LoaderPlan, checkpoint: Checkpoint) -> None:
    metrics = FORECASTING.evaluate(checkpoint, plan, HISTORY, EvaluateForecasterConfig(season=31))["metrics"]
    assert not any(name.startswith("seasonal") for name in metrics)
    metrics = FORECASTING.evaluate(checkpoint, plan, HISTORY, EvaluateForecasterConfig(season=2))["metrics"]
    assert metrics["seasonal_mse"] != metrics["last_value_mse"]


def test_the_loss_is_of_columns_with_deviation_1(plan: LoaderPlan, checkpoint: Checkpoint) -> None:
    config = ForecastingTrainConfig.model_validate(
        {"epochs": 1, "optimizer": {"name": "SGD", "lr": 0.1}, "loss": {"name": "L1Loss"}}
    )
    batch = plan.first("test", 8)
    loss, figures = FORECASTING.objective(config, plan.info)(checkpoint.build(), batch)
    off = ((checkpoint.build()(batch[0]) - batch[1]) / torch.tensor(plan.info.std)).detach()  # type: ignore[attr-defined]
    torch.testing.assert_close(loss.detach(), off.abs().mean())
    torch.testing.assert_close(figures["mae"].detach(), off.abs().mean())
    torch.testing.assert_close(figures["mse"].detach(), off.square().mean())
    own = off.abs().mean((0, 1)) * torch.tensor(plan.info.std)  # type: ignore[attr-defined]
    torch.testing.assert_close(torch.stack([figures["mae_load"], figures["mae_heat"]]), own)


def test_no_figure_that_is_standardised_is_taken_for_one_in_a_unit(plan: LoaderPlan, checkpoint: Checkpoint) -> None:
    history = [{**HISTORY[0], **dict.fromkeys(("train_mse", "train_mae", "train_mae_load", "val_mae_load"), 1.0)}]
    reports = FORECASTING.evaluate(checkpoint, plan, history, EvaluateForecasterConfig(pictures=1))
    panels = {axes.get_title(): axes.get_ylabel() for axes in reports["learning_curves"].axes}
    scaled = dict.fromkeys(["loss", "mse", "mae"], "standardised")
    assert panels == {**scaled, "mae load": "in the unit of load", "learning rate": ""}
    assert reports["error_by_step"].axes[0].get_ylabel() == "mean squared error, standardised"
    subject: Any = SimpleNamespace(
        problem=FORECASTING, loaders=plan, metrics=reports["metrics"], smaller=None, made={}, parameters=1
    )
    assert list(headline(subject)) == ["test mse, standardised", "parameters"]
    subject.made = {"metrics": reports["metrics"], "history": history, "learning_curves": b""}
    facts, picture, rows = next(results(subject)), *training(subject)
    assert "standardised" in facts.caption
    assert "standardised" in picture.caption
    assert "standardised" in rows.caption


def test_what_was_never_measured_is_neither_learnt_nor_judged(tmp_path: Path, checkpoint: Checkpoint) -> None:
    """A batch with filled values has the loss, the gradient and the errors of the others alone."""
    rows: list[dict[str, Any]] = hours(400)
    for row in [*rows[60:62], *rows[340:343], rows[370]]:
        row["load"] = ""
    plan = prepared(tmp_path, rows)
    batch = plan.chosen("train", [28, 29, 200])
    missing = batch[1].isnan()
    assert 0 < missing.sum() < missing.numel()
    config = ForecastingTrainConfig.model_validate({"epochs": 1, "optimizer": {"name": "SGD", "lr": 0.1}})
    for name in ("MSELoss", "L1Loss"):
        loss_of = config.model_copy(update={"loss": config.loss.model_copy(update={"name": name})})
        model: Any = checkpoint.build()
        loss, figures = FORECASTING.objective(loss_of, plan.info)(model, batch)
        loss.backward()
        found = [parameter.grad.clone() for parameter in model.parameters()]
        model.zero_grad()
        off = ((model(batch[0]) - batch[1]) / torch.tensor(plan.info.std))[~missing]  # type: ignore[attr-defined]
        expected = off.square().mean() if name == "MSELoss" else off.abs().mean()
        expected.backward()
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(found, [parameter.grad for parameter in model.parameters()])
        torch.testing.assert_close(figures["mae"], off.abs().mean())
    metrics = FORECASTING.evaluate(checkpoint, plan, HISTORY, EvaluateForecasterConfig())["metrics"]
    batch = plan.chosen("test", range(plan.length("test")))
    off = ((checkpoint.build()(batch[0]) - batch[1]) / torch.tensor(plan.info.std)).detach()  # type: ignore[attr-defined]
    assert off.isnan().sum() == 4 * 5
    assert metrics["mse"] == pytest.approx(off.square().nanmean().item(), rel=1e-2)
    np.testing.assert_allclose(metrics["mse"], off.square().nanmean(0).mean().item(), rtol=1e-4)


def test_an_interval_holds_its_share_of_what_came_at_each_step(tmp_path: Path, checkpoint: Checkpoint) -> None:
    """What was never measured does not count."""
    rows: list[dict[str, Any]] = hours(400)
    for row in [*rows[300:302], *rows[360:362]]:
        row["load"] = ""
    plan = prepared(tmp_path, rows)
    train = {"epochs": 1, "optimizer": {"name": "SGD", "lr": 0.1}, "prediction_interval": 0.7}
    config = ForecastingTrainConfig.model_validate(train)
    FORECASTING.check(config, plan)
    model = FORECASTING.completed(checkpoint, plan, config)
    assert model.info.target.share == 0.7
    offs = {}
    for split in ("validation", "test"):
        window, truth = plan.chosen(split, range(plan.length(split)))
        offs[split] = (checkpoint.build()(window).detach() - truth).abs().numpy()
    off = np.sort(offs["validation"][:, :, 0], 0)  # NaN come last
    known = np.isfinite(off).sum(0)
    assert known.min() < len(off)
    places = np.ceil((known + 1) * 0.7).astype(int) - 1
    within = np.array(model.info.target.within)
    assert within.shape == (5, 2)
    np.testing.assert_allclose(within[:, 0], off[places, range(5)], rtol=1e-5)
    reports = FORECASTING.evaluate(model, plan, HISTORY, EvaluateForecasterConfig(pictures=2))
    held = offs["test"] <= within
    assert reports["metrics"]["interval_coverage"] == pytest.approx(held[np.isfinite(offs["test"])].mean())
    assert reports["metrics"]["interval_width_heat"] == pytest.approx(2 * within[:, 1].mean())
    panel = reports["predictions"].axes[1]  # of heat
    (band,) = panel.collections
    _, high = band.get_datalim(panel.transData).intervaly
    (line,) = [line for line in panel.lines if line.get_label() == "forecast"]
    assert high == pytest.approx(max(line.get_ydata() + within[:, 1]), rel=1e-5)


def test_so_many_values_are_needed_at_each_step(tmp_path: Path, checkpoint: Checkpoint) -> None:
    """Windows without a value say nothing of how far off a forecast is."""
    rows: list[dict[str, Any]] = hours(400)
    for row in rows[290:313]:
        row["load"] = ""
    plan = prepared(tmp_path, rows, longest_gap=40)
    window, truth = plan.chosen("validation", range(plan.length("validation")))
    fewest = int(truth.isfinite().sum(0)[:, 0].min())
    assert 1 < fewest < len(window) - 10
    train = {"epochs": 1, "optimizer": {"name": "SGD", "lr": 0.1}}
    enough = ForecastingTrainConfig.model_validate({**train, "prediction_interval": fewest / (fewest + 1) - 1e-6})
    assert FORECASTING.completed(checkpoint, plan, enough).info.target.within
    more = ForecastingTrainConfig.model_validate({**train, "prediction_interval": (fewest + 1) / (fewest + 2)})
    FORECASTING.check(more, plan)
    with pytest.raises(InputError, match=f"takes {fewest + 1} validation windows or more with a value of 'load' at"):
        FORECASTING.completed(checkpoint, plan, more)


def test_what_can_have_no_interval_is_refused(tmp_path: Path, checkpoint: Checkpoint) -> None:
    plan = prepared(tmp_path, hours(400))
    train = {"epochs": 1, "optimizer": {"name": "SGD", "lr": 0.1}, "prediction_interval": 0.99}
    with pytest.raises(
        InputError, match=r"^train\.prediction_interval: 0\.99 takes 99 validation windows or more, and there are \d+"
    ):
        FORECASTING.check(ForecastingTrainConfig.model_validate(train), plan)
    rows: list[dict[str, Any]] = hours(400)
    for row in rows[288:320]:
        row["heat"] = ""
    config = ForecastingTrainConfig.model_validate({**train, "prediction_interval": 0.5})
    message = r"0\.5 takes 1 validation window or more with a value of 'heat' at each step ahead, and there are 0"
    with pytest.raises(InputError, match=message):
        FORECASTING.completed(checkpoint, prepared(tmp_path / "gaps", rows, longest_gap=40), config)


@pytest.mark.parametrize("network", ["dlinear", "patchtst", "tcn", "series_lstm", "series_transformer"])
def test_a_column_of_one_value_does_no_harm(tmp_path: Path, network: str) -> None:
    plan = prepared(tmp_path, [{**row, "heat": 5.0} for row in hours(400)])
    torch.manual_seed(0)
    model = build_model(network, {}, plan.info, FORECASTING)
    config = ForecastingTrainConfig.model_validate({"epochs": 1, "optimizer": {"name": "SGD", "lr": 0.1}})
    loss, _ = FORECASTING.objective(config, plan.info)(model, plan.first("train", 8))
    loss.backward()
    assert 0 < loss < 10
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


def test_what_is_shown_is_spread_over_the_test_rows() -> None:
    assert spread(101, 5) == [0, 25, 50, 75, 100]
    assert spread(3, 6) == [0, 1, 2]
    assert spread(9, 1) == [0]


def test_a_row_for_each_entry_of_a_list() -> None:
    import pyarrow

    batches = [
        pyarrow.record_batch({"file": ["a", "b"], "day": [["1", "2"], ["3"]], "x": [[1.0, 2.0], [3.0]]}),
        pyarrow.record_batch({"file": ["c"], "day": [["4"]], "x": [[4.0]]}),
    ]
    table = unrolled(pyarrow.Table.from_batches(batches))
    assert table.to_pydict() == {"file": ["a", "a", "b", "c"], "day": ["1", "2", "3", "4"], "x": [1.0, 2.0, 3.0, 4.0]}
    assert unrolled(table) is table
