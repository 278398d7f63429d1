"""`kedro task new` looks at data and writes a file; `kedro task list` shows what there is."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from conftest import kedro, kedro_run
from tests.tables import hours, people, reviews, write
from torchloom.cli import new_task
from torchloom.data.readers import propose
from torchloom.errors import InputError


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = people(300)
    return write(
        tmp_path / "people.csv", [{**row, "rides": "often" if row["bike"] == "yes" else "never"} for row in rows]
    )


def test_a_table_becomes_a_file_that_trains(project: Path, table: Path) -> None:
    made = kedro(project, "task", "new", "bikes", "--data", str(table), "--target", "bike")
    assert made.returncode == 0, made.stderr
    for line in (
        "300 rows, 9 columns",
        "id: only counts the rows, left out",
        "town: category (3)",
        "income: number, 14.3% missing",
        "since: date",
        "note: has 300 different texts in 300 rows, left out",
        "rides: category (2), GIVES THE TARGET AWAY",
        "  kedro run --pipelines bikes",
    ):
        assert line in made.stdout.splitlines()
    assert "bike: one of 2 classes: " in made.stdout
    file = project / "conf/base/parameters/bikes.yml"
    text = file.read_text()
    assert "# town: category (3)" in text
    blocks: dict[str, Any] = yaml.safe_load(text)
    columns = {"id": "out", "age": "number", "town": "category", "income": "number", "since": "date", "note": "out"}
    assert blocks["bikes_data"]["preprocess"]["columns"] == {**columns, "country": "out", "rides": "category"}
    small = {"model": {"hidden": [8]}, "train": {"epochs": 30, "threads": 1}}
    catalog = kedro_run(project, "bikes", env="local", params={"bikes": small})
    assert catalog.load("bikes.metrics")["accuracy"] > 0.9
    again = kedro(project, "task", "new", "bikes", "--data", str(table), "--target", "bike")
    assert (again.returncode, file.read_text()) == (1, text)
    assert "Error: bikes: is there already" in again.stderr
    listed = kedro(project, "task", "list").stdout
    (mine,) = [line.split() for line in listed.splitlines() if line.startswith("bikes ")]
    assert mine[1:4] == ["classification", "bikes_data", "accuracy"]
    assert "not trained here" in listed


def test_a_number_is_told_by_a_regression(table: Path) -> None:
    proposal = propose(table, "income")
    assert proposal.problem == "regression"
    assert proposal.preprocess["columns"]["bike"] == "category"
    assert any(line.startswith("income: a number from ") for line in proposal.seen)


def test_rows_that_are_there_twice_are_counted(tmp_path: Path) -> None:
    rows = [{"a": number % 50, "b": "xy"[number % 2]} for number in range(200)]
    assert "150 rows are there more than once" in propose(write(tmp_path / "rows.csv", rows), "b").seen


def test_folders_of_pictures_are_classes(tmp_path: Path) -> None:
    for name, count in {"cat": 12, "dog": 20}.items():
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"pets/{name}/{number}.png")
    proposal = propose(tmp_path / "pets", None)
    assert proposal.problem == "classification"
    assert proposal.preprocess == {"reader": "folder", "folder": str(tmp_path / "pets"), "size": [64, 64]}
    assert list(proposal.seen[1:]) == ["2 classes:", "  cat: 12", "  dog: 20"]
    with pytest.raises(InputError, match=r"^--target cat: of pictures in folders the classes are the folders"):
        propose(tmp_path / "pets", "cat")


def test_what_cannot_be_is_answered(tmp_path: Path, table: Path) -> None:
    with pytest.raises(InputError, match=r"people\.csv: it must be said which column is to be told\. Say --target"):
        propose(table, None)
    with pytest.raises(InputError, match=r"people\.csv: there is no column 'bikes'\. Say --target with one of 'id'"):
        propose(table, "bikes")
    (tmp_path / "notes.bin").write_text("hello")
    with pytest.raises(
        InputError, match=r"notes\.bin: no reader knows what to make of it.* book, folder, series, table, texts$"
    ):
        propose(tmp_path / "notes.bin", None)


def test_texts_are_told_from_tables(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews.csv", [*reviews(60), *reviews(10)])
    proposal = propose(path, "verdict")
    assert (proposal.problem, proposal.blocks["model"]) == ("classification", {"name": "text_ngrams"})
    assert proposal.preprocess == {"reader": "texts", "files": str(path), "text": "review", "target": "verdict"}
    assert list(proposal.seen) == [
        "70 texts of 11 words on average, at most 11",
        "verdict: one of 2 classes: 好评 65.7%, 差评 34.3%",
        "10 texts are there more than once",
    ]
    assert propose(path, "stars").problem == "regression"
    with pytest.raises(InputError, match=r"reviews\.csv: it must be said which column is to be told"):
        propose(path, None)
    for row in reviews(8):
        (tmp_path / "meals" / row["verdict"]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "meals" / row["verdict"] / f"{row['review'][:12].replace(':', '')}.txt").write_text(row["review"])
    proposal = propose(tmp_path / "meals", None)
    assert proposal.preprocess == {"reader": "texts", "files": str(tmp_path / "meals")}
    assert "8 texts of 11 words on average, at most 11" in proposal.seen
    with pytest.raises(InputError, match=r"^--target verdict: of texts in folders the classes are the folders"):
        propose(tmp_path / "meals", "verdict")


def test_a_running_text_becomes_a_language_model(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "novel.txt"
    path.write_text("It was a bright cold day in April. " * 300)
    proposal = propose(path, None)
    assert proposal.preprocess == {"reader": "book", "files": str(path)}
    assert list(proposal.seen) == [
        "10,499 characters, 20 different ones",
        "it begins: 'It was a bright cold day in April. It was a bright cold day '",
    ]
    made = kedro(project, "task", "new", "novel", "--data", str(path))
    assert made.returncode == 0, made.stderr
    small = {"model": {"width": 16}, "train": {"epochs": 2, "batch_size": 8, "threads": 1}}
    catalog = kedro_run(project, "novel", env="local", params={"novel": small})
    assert catalog.load("novel.sample_text").splitlines()[1].startswith("It was a bright cold")
    with pytest.raises(InputError, match=r"^--target x: there is none in a running text"):
        propose(path, "x")
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/1.md").write_text(" ")
    with pytest.raises(InputError, match=r"pages: holds no text$"):
        propose(tmp_path / "pages", None)


def test_what_the_data_hold_stays_a_comment(project: Path, tmp_path: Path) -> None:
    rows = [{"text": row["review"], "label": f"{row['verdict']}\nevil: ["} for row in reviews(40)]
    pandas.DataFrame(rows).to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    made = kedro(project, "task", "new", "odd", "--data", str(tmp_path / "rows.jsonl"), "--target", "label")
    assert made.returncode == 0, made.stderr
    blocks = yaml.safe_load((project / "conf/base/parameters/odd.yml").read_text())
    assert blocks.keys() == {"odd", "odd_data"}


def test_an_empty_folder_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty/in").mkdir(parents=True)
    with pytest.raises(InputError, match=r"empty: no reader knows what to make of it"):
        propose(tmp_path / "empty", "x")


def test_a_table_by_time_becomes_a_forecast_when_that_is_asked_for(project: Path, tmp_path: Path) -> None:
    rows = hours(500)
    del rows[100:102], rows[300:310]
    path = write(tmp_path / "hours.csv", rows)
    made = kedro(project, "task", "new", "loads", "--data", str(path), "--problem", "forecasting")
    assert made.returncode == 0, made.stderr
    for line in (
        "488 rows by time, 1 hour apart, from 2024-01-01 00:00:00 to 2024-01-21 19:00:00",
        "12 rows missing, 6 values filled with the last before, 2 pieces without a longer gap",
        "not forecast: station",
        "  kedro run --pipelines loads",
    ):
        assert line in made.stdout.splitlines()
    assert "load: from " in made.stdout
    blocks: dict[str, Any] = yaml.safe_load((project / "conf/base/parameters/loads.yml").read_text())
    said = blocks["loads_data"]["preprocess"]
    assert said == {"reader": "series", "files": str(path), "time": "time", "window": 48, "horizon": 24} | {
        "columns": ["load", "heat", "plan"]
    }
    small = {"train": {"epochs": 3, "threads": 1}}
    data = {"preprocess": {"columns": ["load", "heat"], "known": ["plan"], "window": 24, "horizon": 6}}
    catalog = kedro_run(project, "loads", env="local", params={"loads": small, "loads_data": data})
    metrics = catalog.load("loads.metrics")
    assert metrics["mse"] < metrics["last_value_mse"]
    assert proposed_columns(path, "heat") == ["heat"]
    with pytest.raises(InputError, match=r"hours\.csv: there is no column 'heats' to forecast\. There are time, load"):
        propose(path, "heats", "forecasting")
    with pytest.raises(InputError, match=r"hours\.csv: it must be said which column is to be told"):
        propose(path, None)
    with pytest.raises(InputError, match=r"^--problem regression: .*hours\.csv looks like data for a classification$"):
        propose(path, "plan", "regression")
    with pytest.raises(InputError, match=r"people\.csv: no reader knows what to make of it.* are: series$"):
        propose(write(tmp_path / "people.csv", [{"a": 1, "b": 2}]), None, "forecasting")
    wrong = ["more", "--data", str(path), "--problem", "forcasting"]
    answered = CliRunner().invoke(new_task, wrong, obj=SimpleNamespace(project_path=project)).output
    assert "--problem forcasting: must be a problem or the dotted path of one of yours (did you mean forec" in answered


def proposed_columns(path: Path, target: str) -> Any:
    return propose(path, target, "forecasting").preprocess["columns"]
