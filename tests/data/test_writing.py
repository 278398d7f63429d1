"""Numbers with a comma before their decimals, and dates that are not written as 2024-01-31."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tables import hours, people, write
from tests.test_as_tested import Trained
from torchloom.config import SeriesPreprocessConfig, ServeConfig, TableFilesPreprocessConfig, TablePlace
from torchloom.data.documents import FILE
from torchloom.data.readers import propose, series, table
from torchloom.data.writing import Writing, writing_in
from torchloom.errors import InputError
from torchloom.inference.model import open_model
from torchloom.inference.serving import answerer

GERMAN = {"decimal": ",", "date_format": "%d.%m.%Y"}


def in_german(row: dict[str, Any]) -> dict[str, Any]:
    """1234.5 as 1.234,50 and 2024-01-31 as 31.01.2024."""
    written = dict(row)
    for name, cell in row.items():
        if isinstance(cell, float):
            written[name] = f"{cell:,.2f}".translate(str.maketrans(",.", ".,"))
        elif name == "since":
            written[name] = ".".join(reversed(cell.split("-")))
    return written


@pytest.mark.parametrize(
    ("cell", "plain"),
    [
        ("1,5", "1.5"),
        ("-1.234.567,25", "-1234567.25"),
        ("1 234,5", "1234.5"),
        ("1\u202f234", "1234"),
        ("1.234", "1234"),
        (",5", ".5"),
        ("3e5", "3e5"),
        ("1,5e-3", "1.5e-3"),
        ("1.5", "1.5"),
        ("12.34,5", "12.34,5"),
        ("1,2,3", "1,2,3"),
        ("31.01.2024", "2024-01-31T00:00:00"),
        ("31.31.2024", "31.31.2024"),
        ("Ulm, Bonn", "Ulm, Bonn"),
        (1.5, 1.5),
        (None, None),
    ],
)
def test_cells_are_written_as_usual(cell: Any, plain: Any) -> None:
    assert Writing(**GERMAN).plain(cell) == plain
    assert Writing().plain(cell) == cell


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"a": ["1,5", "2,25", "3"]}, Writing(decimal=",")),
        ({"a": ["1,234", "2,345"]}, Writing()),  # either
        ({"a": ["1,5", "2,25"], "b": ["1.5", "2"]}, Writing()),  # both
        ({"a": ["1,5", "x"]}, Writing()),
        ({"a": ["31.01.2024", "01.02.2024"]}, Writing(date_format="%d.%m.%Y")),
        ({"a": ["01/02/2024", "03/04/2024"]}, Writing()),  # either
        ({"a": ["01/31/2024 18:30", "", "03/04/2024 06:00"]}, Writing(date_format="%m/%d/%Y %H:%M")),
        ({"a": ["Jan 31, 2024", "Feb 1, 2024"]}, Writing(date_format="%b %d, %Y")),
        ({"a": ["2024-01-31", "2024-02-01"]}, Writing()),
        ({"a": ["31.01.2024"], "b": ["01/31/2024"]}, Writing()),  # two forms
    ],
)
def test_what_is_certain_of_them_is_seen(columns: dict[str, list[str]], found: Writing) -> None:
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    assert writing_in(rows, {""}) == found


def test_a_table_in_german_is_the_table(tmp_path: Path) -> None:
    """In training, from a file and an entry, in predict, and over HTTP; also the target; `kedro task new` sees it."""
    rows = [{**row, "price": round(row["age"] * 100 + (row["income"] or 0.0), 2)} for row in people(200)]
    paths = write(tmp_path / "usual.csv", rows), write(tmp_path / "german.csv", list(map(in_german, rows)), ";")
    usual = TableFilesPreprocessConfig(files=str(paths[0]), target="price")
    german = TableFilesPreprocessConfig(files=str(paths[1]), target="price", **GERMAN)  # type: ignore[arg-type]
    with paths[1].open() as file:
        entry = [dict(row) for row in csv.DictReader(file, delimiter=";")]
    prepared = [
        table.preprocess(table.find(usual), usual, tmp_path),
        table.preprocess(table.find(german), german, tmp_path),
        table.preprocess_entry(entry, german.model_copy(update={"files": None, "entry": "german"})),
    ]
    for split in range(3):
        for name in prepared[0][split].arrays.keys() - {FILE, f"{FILE}_starts"}:  # what samples are called
            for other in prepared[1:]:
                np.testing.assert_array_equal(prepared[0][split].arrays[name], other[split].arrays[name])
    found = propose(paths[1], "price")
    assert {key: found.preprocess[key] for key in GERMAN} == GERMAN
    assert (found.problem, found.seen) == ("regression", propose(paths[0], "price").seen)
    task = Trained(tmp_path / "task", prepared[1], {"name": "tabular_mlp", "hidden": [8]}, "regression")
    task.tested()
    answers = [[row["price"] for row in task.asked(path)] for path in paths[1:]]
    again = Trained(tmp_path / "again", prepared[0], {"name": "tabular_mlp", "hidden": [8]}, "regression")
    again.tested()
    assert answers[0] == [row["price"] for row in again.asked(paths[0])]
    assert task.scores == again.scores
    assert task.scores["samples"] == 200
    model = open_model(tmp_path / "task/model.onnx", threads=1)
    asked = answerer(model, ServeConfig(models=""))([in_german(rows[3])])
    assert asked[0]["price"] == pytest.approx(answers[0][3])


def test_a_series_in_german_is_the_series(tmp_path: Path) -> None:
    rows = hours(800)
    german = [
        {**row, "time": f"{row['time'][8:10]}.{row['time'][5:7]}.{row['time'][:4]} {row['time'][11:16]}"}
        | {name: str(row[name]).replace(".", ",") for name in ("load", "heat")}
        for row in rows
    ]
    paths = write(tmp_path / "usual.csv", rows), write(tmp_path / "german.csv", german, ";")
    found = [dict(propose(path, None, "forecasting").preprocess) for path in paths]
    assert {key: found[1].pop(key) for key in ("decimal", "date_format")} == {
        "decimal": ",",
        "date_format": "%d.%m.%Y %H:%M",
    }
    assert {**found[0], "files": ""} == {**found[1], "files": ""}
    config = SeriesPreprocessConfig(files=str(paths[0]), window=24, horizon=6, columns=["load"])
    other = config.model_copy(update={"files": str(paths[1]), "decimal": ",", "date_format": "%d.%m.%Y %H:%M"})
    prepared = [series.preprocess(series.find(each), each, tmp_path) for each in (config, other)]
    for split in range(3):
        for name, array in prepared[0][split].arrays.items():
            np.testing.assert_array_equal(array, prepared[1][split].arrays[name])


def test_numbers_with_a_comma_are_asked_about(tmp_path: Path) -> None:
    path = write(tmp_path / "german.csv", list(map(in_german, people(60))), ";")
    config = TableFilesPreprocessConfig(files=str(path), target="bike")
    with pytest.raises(
        InputError,
        match=r"'income' holds numbers with a comma, such as '[\d.]+,\d\d'\. .* say preprocess\.decimal: ','; ",
    ):
        table.preprocess(table.find(config), config, tmp_path)
    assert TablePlace(files="x").decimal == "."
