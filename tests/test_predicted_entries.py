"""The pipeline `predict` on an entry of the catalog: each kind of model that is trained from such."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import polars
import pyarrow
import pytest
import yaml
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline

import exported
from tests.sounds import whistles
from tests.tables import hours, people, reviews, steps, waves, write
from tests.test_as_tested import Trained, draw
from torchloom import pipeline_registry
from torchloom.config import (
    LabelledSeriesPreprocessConfig,
    PicturesPreprocessConfig,
    PredictConfig,
    SeriesPreprocessConfig,
    SoundFilesPreprocessConfig,
    TableFilesPreprocessConfig,
    TextFilesPreprocessConfig,
)
from torchloom.data.entries import keep
from torchloom.data.readers import labelled_series, pictures, series, sounds, table, texts
from torchloom.data.tables import opened_table
from torchloom.datasets.remote import Remote
from torchloom.errors import InputError
from torchloom.pipelines.prediction.nodes import find_model, predict_entry

pytestmark = [pytest.mark.xdist_group("export"), pytest.mark.usefixtures("exporter")]

Rows = list[dict[str, Any]]


def answered(path: Path, given: Any, scratch: Path, **settings: Any) -> tuple[Rows, Rows, dict[str, float]]:
    """The answers, what was unreadable, and how good they are."""
    config = PredictConfig(model=str(path), entry="asked", models="", **settings)
    found = predict_entry(find_model(config), given, config, Remote(scratch / "brought"), scratch)
    assert not list(scratch.glob(".*"))  # the rows lie there no longer
    return found[0].to_pylist(), found[3].to_pylist(), found[4]


def of_table(folder: Path) -> tuple[Trained, Rows]:
    rows = [{**row, "income": row["income"] or None} for row in people(80)]
    config = TableFilesPreprocessConfig(entry="people", target="bike")
    prepared = table.preprocess_entry(pandas.DataFrame(rows), config)
    return Trained(folder, prepared, {"name": "tabular_mlp", "hidden": [8]}), rows[:20]


def of_texts(folder: Path) -> tuple[Trained, Rows]:
    config = TextFilesPreprocessConfig(entry="reviews", target="verdict", text="review")
    prepared = texts.preprocess_entry(polars.DataFrame(reviews()), config)
    return Trained(folder, prepared, {"name": "text_ngrams", "width": 8}), reviews()[:20]


def of_series(folder: Path) -> tuple[Trained, Rows]:
    config = SeriesPreprocessConfig(entry="hours", columns=["load", "heat"], known=["plan"], window=12, horizon=4)
    prepared = series.preprocess_entry(hours(200), config)
    rows = [{**row, "load": None, "heat": None} if place > 55 else row for place, row in enumerate(hours(60))]
    return Trained(folder, prepared, {"name": "dlinear", "kernel": 3}, problem="forecasting"), rows


def of_labelled_series(folder: Path) -> tuple[Trained, Rows]:
    config = LabelledSeriesPreprocessConfig(
        entry="waves", target="kind", series="wave", time="step", columns=["x", "y"], length=16
    )
    prepared = labelled_series.preprocess_entry(pyarrow.Table.from_pylist(steps(waves(60))), config)
    return Trained(folder, prepared, {"name": "series_cnn", "widths": [4, 4, 4]}), steps(waves(10))


def of_pictures(folder: Path) -> tuple[Trained, Rows]:
    draw(folder / "own", "8", 9)
    names = sorted(str(path.relative_to(folder / "own")) for path in folder.glob("own/*/*"))
    rows = [{"path": name, "kind": Path(name).parent.name} for name in names]
    config = PicturesPreprocessConfig(entry="photos", folder=str(folder / "own"), target="kind", size=[8, 8])
    prepared = pictures.preprocess_entry(rows, config, folder)
    return Trained(folder, prepared, {"name": "mlp", "hidden": [8]}), rows


def of_sounds(folder: Path) -> tuple[Trained, Rows]:
    whistles(folder / "own", 18)
    names = sorted(path.name for path in folder.glob("own/*.wav"))
    rows = [{"path": name, "kind": name.split("_")[0]} for name in names]
    config = SoundFilesPreprocessConfig(entry="calls", folder=str(folder / "own"), target="kind")
    prepared = sounds.preprocess_entry(rows, config, folder)
    return Trained(folder, prepared, {"name": "audio_cnn", "widths": [4]}), rows


KINDS = [of_table, of_series, of_labelled_series, of_pictures]
KINDS += [pytest.param(kind, marks=pytest.mark.long) for kind in (of_texts, of_sounds)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_rows_of_the_catalog_are_answered_as_those_of_a_file(kind: Any, tmp_path: Path) -> None:
    trained, rows = kind(tmp_path)
    written = [{name: "" if cell is None else cell for name, cell in row.items()} for row in rows]
    expected = trained.asked(write(tmp_path / "asked.csv", written))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for given in (rows, pandas.DataFrame(rows), polars.DataFrame(rows).lazy()):
        found, unreadable, _ = answered(tmp_path / "model.onnx", given, scratch)
        assert unreadable == []
        for row, other in zip(found, expected, strict=True):
            assert row.keys() == other.keys()
            for name in row.keys() - {"file"}:
                near = isinstance(row[name], float)
                assert row[name] == (pytest.approx(other[name], rel=1e-5) if near else other[name])
    first = found[0]["file"]
    assert first == rows[0]["path"] if "path" in rows[0] else first.startswith("asked")


def test_the_target_is_judged_and_odd_rows_are_told(tmp_path: Path) -> None:
    rows: list[Any] = [{"age": 40, "bmi": 20, "glucose": 90}, {"age": "old", "bmi": 20.5}, {"age": 50, "bmi": 25}]
    found, unreadable, scores = answered(exported.write("table", tmp_path), rows, tmp_path)
    assert [row["file"] for row in found] == ["asked:1", "asked:3"]
    assert unreadable == [{"file": "asked:2", "reason": "age: 'old' is not a number"}]
    assert scores["samples"] == 1
    assert scores["mae"] == pytest.approx(abs(found[0]["glucose"] - 90), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("table", 5, r"^predict\.entry asked: is of the type int, and no table of pandas, Polars"),
        ("table", [], r"^predict\.entry asked: holds no rows"),
        ("images", [{"file": "a.png"}], "this model has learnt from no table with paths, and answers none"),
        ("text", [{"text": "abc"}], "a language model goes on from texts in files, and not in tables"),
    ],
)
def test_what_cannot_be_answered_is_one_message(kind: str, given: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        answered(exported.write(kind, tmp_path), given, tmp_path)


def test_cells_of_several_types_are_what_they_were_in_training(tmp_path: Path) -> None:
    """Which reads them as they are, and predict from a file."""
    towns = [1.0, "Ulm", 7, None, True] * 12
    rows = [{"town": town, "x": place, "bike": "yes" if town == "Ulm" else "no"} for place, town in enumerate(towns)]
    prepared = table.preprocess_entry(rows, TableFilesPreprocessConfig(entry="asked", target="bike"))
    Trained(tmp_path, prepared, {"name": "linear"}).asked(write(tmp_path / "some.csv", [rows[1]]))
    found, _, _ = answered(tmp_path / "model.onnx", [*rows[:5], {**rows[0], "town": "Bonn"}], tmp_path)
    assert [row["remarks"] for row in found] == ["", "", "", "town is missing", "", "town is new"]


def test_tables_in_chunks_are_put_together(tmp_path: Path) -> None:
    """Whose types may differ, as their library has guessed them one by one."""
    chunks: list[list[Any]] = [
        [pandas.DataFrame({"a": [1, 2]}), pandas.DataFrame({"a": ["w", None]})],
        [polars.DataFrame({"a": [1]}), polars.DataFrame({"a": ["w"]}), polars.DataFrame({"a": [2.0]})],
        [pandas.DataFrame({"a": pandas.Categorical(names)}) for names in (["x", "y"], ["z", "y"])],
        [[{"a": 1}, {"b": ["u", "v"]}], [{"a": None}]],
    ]
    expected = [["1", "2", "w", None], ["1", "w", "2"], ["x", "y", "z", "y"], [1, None, None]]
    for given, cells in zip(chunks, expected, strict=True):
        with opened_table(keep(iter(given), tmp_path / "rows.arrow")) as (names, rows):
            assert [row[0] for _, row in rows] == cells
            assert names in (["a"], ["a", "b"])


# ---- through Kedro -------------------------------------------------------------------------------------------------


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline of a user's own, whose node makes what is to be answered."""
    registered = pipeline_registry.register_pipelines
    made = Pipeline([Node(_made, inputs="params:predict", outputs="model_input_table", name="own")])
    monkeypatch.setattr(
        pipeline_registry,
        "register_pipelines",
        lambda: pipeline_registry.Pipelines({**registered(), "own": made, "both": made + registered()["predict"]}),
    )


def _made(parameters: dict[str, Any]) -> pandas.DataFrame:
    return pandas.DataFrame({"age": [40, 60], "bmi": [20.0, 30.0], "glucose": [100.0, 120.0]})


@pytest.mark.usefixtures("own")
def test_predict_joins_the_graph_of_the_entry(
    run: Callable[..., DataCatalog], project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = exported.write("table", project)
    asked = {"predict": {"model": str(model), "entry": "model_input_table"}}
    catalog = run("both", params=asked)
    rows = catalog.load("predict.predictions_parquet").to_pylist()
    assert [row["file"] for row in rows] == ["model_input_table:1", "model_input_table:2"]
    expected = [float(row["glucose"]) for row in rows]
    folder = project / "data/sample/07_model_output/predict"
    assert {path.name for path in folder.iterdir()} == {
        *("model.json", "predictions.csv", "predictions.parquet"),
        *("contact_sheet.png", "unreadable.csv", "metrics.json"),
    }
    with pytest.raises(InputError, match=r"make it in one run: kedro run --env sample --pipelines own,predict$"):
        run("predict", params=asked)
    entry = {"model_input_table": {"type": "pandas.CSVDataset", "filepath": "data/rows.csv"}}
    (project / "conf/base/catalog_own.yml").write_text(yaml.safe_dump(entry))
    with pytest.raises(
        InputError, match=r"^model_input_table: is not there yet\. Make it first: kedro run .*--pipelines own$"
    ):
        run("predict", params=asked)
    run("own", params=asked)
    again = run("predict", params=asked).load("predict.predictions_parquet").to_pylist()
    assert [row["glucose"] for row in again] == pytest.approx(expected, rel=1e-6)


def test_either_files_or_an_entry_that_is_there(run: Callable[..., DataCatalog], tmp_path: Path) -> None:
    model = str(exported.write("table", tmp_path))
    with pytest.raises(InputError, match="either files or entry, and leave the other out"):
        run("predict", params={"predict": {"model": model, "files": "rows.csv", "entry": "rows"}})
    with pytest.raises(
        InputError, match=r"^predict: say what is to be answered: predict\.files=<a file or a folder>, or"
    ):
        run("predict", params={"predict": {"model": model}})
    with pytest.raises(
        InputError,
        match=r"^predict\.entry diabetes_sorce: the catalog has no such entry \(did you mean 'diabetes_source'",
    ):
        run("predict", params={"predict": {"model": model, "entry": "diabetes_sorce"}})
