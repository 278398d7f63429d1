"""A user's own tables: how rows are read, what columns are, and what becomes of them."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
import torch
import yaml
from kedro.framework.project import pipelines
from kedro.io import AbstractDataset, MemoryDataset
from pyarrow import parquet
from torch import nn

from conftest import kedro_run
from tests.tables import Row, people, write
from torchloom.config import DataConfig, TableFilesPreprocessConfig
from torchloom.data.columns import Column, Encoder, kind_of
from torchloom.data.documents import FILE
from torchloom.data.readers.table import find, preprocess, preprocess_entry, takes
from torchloom.data.sequences import TableBatches
from torchloom.data.tables import opened_table, with_names
from torchloom.data.targets import Classes, Number
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.modalities import TableInfo, read_info
from torchloom.modalities.base import Use
from torchloom.modalities.modules import EncodedTable
from torchloom.records.provenance import records_of
from torchloom.runner import SkipUnchanged

Prepared = tuple[Tensors, Tensors, Tensors, dict[str, Any]]


def prepared(path: Path, target: str = "bike", **settings: Any) -> Prepared:
    config = TableFilesPreprocessConfig.model_validate({"files": str(path), "target": target, **settings})
    return preprocess(find(config), config, Path())


def encoding(info: dict[str, Any]) -> dict[str, str]:
    return {column["name"]: column["kind"] for column in info["encoding"]}


# ---- what columns are ----------------------------------------------------------------------------------------------


def test_columns_are_what_they_look_like(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        train, validation, test, known = prepared(write(tmp_path / "people.csv", people()))
    assert encoding(known) == {"age": "number", "town": "category", "income": "number", "since": "date"}
    for line in (
        "the column 'id' only counts the rows: it is left out",
        "the column 'note' has 144 different texts in 144 rows: it is left out",
        "the column 'country' is 'DE' in every row: it is left out",
        "columns: age: number, town: category (3), income: number, since: date",
    ):
        assert line in caplog.messages
    info = read_info(known)
    assert isinstance(info, TableInfo)
    assert info.target == Classes(classes=["no", "yes"], name="bike")
    assert info.encoding[1].values == ["Ulm", "Köln", "Bonn"]  # the most frequent first
    assert info.gaps == ["income"]
    assert info.features[:3] == ["age", "town", "income"]
    assert info.features[3:] == [f"since {part}" for part in ("year", "month", "day", "weekday", "hour")]
    assert [len(part.arrays["labels"]) for part in (train, validation, test)] == [144, 16, 40]
    shares = [np.asarray(part.arrays["labels"]).mean() for part in (train, validation, test)]
    assert np.ptp(shares) < 0.05  # of each class the same share
    features = np.asarray(train.arrays["features"])
    assert (features.dtype, features.shape) == (np.float32, (144, 8))
    assert np.isnan(features[:, 2]).any()
    assert not np.isnan(features[:, [0, 1, 3, 4, 5, 6, 7]]).any()
    assert set(features[:, 1]) == {1, 2, 3}


def test_what_a_row_becomes() -> None:
    columns = [Column(name="a"), Column(name="b", kind="category", values=["x", "1"]), Column(name="c", kind="date")]
    encode = Encoder(columns, missing=["unknown"])
    assert encode({"c": "2024-02-29 18:30", "b": 1.0, "a": " -2.5 ", "d": 7}) == [-2.5, 2, 2024, 2, 29, 3, 18.5]
    assert encode({"a": 3, "b": "y", "c": "2024-02-29"})[:3] == [3, 0, 2024]
    for gap in ("", " ", "?", "NA", "n/a", "NaN", "null", "None", "unknown", None, math.nan):
        assert all(map(math.isnan, encode({"a": gap, "b": gap, "c": gap})))
    with pytest.raises(InputError, match=r"^lacks 'a', 'c'$"):
        encode({"b": 1})
    for row, message in (
        ({"a": "1,5", "b": "", "c": ""}, "^a: '1,5' is not a number. It takes no comma"),
        ({"a": "1e39", "b": "", "c": ""}, "^a: '1e39' is not a finite number of 32 bits"),
        ({"a": "", "b": "", "c": "29.2.2024"}, "^c: '29.2.2024' is not a date such as 2024-01-31"),
    ):
        with pytest.raises(InputError, match=message):
            encode(row)


@pytest.mark.parametrize(
    ("cells", "kind", "why"),
    [
        (["1", "2.5", "1e3", "-4"], "number", ""),
        (["0", "1", "1", "0"], "number", ""),
        (["yes", "no", "no"], "category", ""),
        (["01", "x", "x"], "category", ""),
        (["2024-01-31", "2023-12-01T10:00"], "date", ""),
        (["5", "6", "7", "8"], None, "only counts the rows"),
        (["a", "a"], None, "is 'a' in every row"),
        ([], None, "is empty"),
        ([f"text {number}" for number in range(100)], None, "has 100 different texts in 100 rows"),
    ],
)
def test_which_kind_it_is(cells: list[Any], kind: str | None, why: str) -> None:
    assert kind_of("x", cells) == (kind, why)


def test_words_among_numbers_are_asked_about(tmp_path: Path) -> None:
    rows = people()
    for row in rows[::40]:
        row["age"] = "old"
    path = write(tmp_path / "people.csv", rows)
    with pytest.raises(InputError, match=r"the column 'age' holds numbers, but also 'old'\. If these are gaps, "):
        prepared(path)
    assert encoding(prepared(path, missing=["old"])[3])["age"] == "number"
    assert encoding(prepared(path, columns={"age": "category"})[3])["age"] == "category"
    assert "age" not in encoding(prepared(path, columns={"age": "out"})[3])


def test_rare_categories_are_as_new_ones(tmp_path: Path) -> None:
    rows = people()
    for number, row in enumerate(rows):
        row["town"] = row["town"] if number % 2 else f"village {number % 60}"
    path = write(tmp_path / "people.csv", rows)
    train, *_, known = prepared(path, most_categories=2)
    assert known["encoding"][1]["values"] == ["Ulm", "Köln"], known["encoding"][1]
    assert (np.asarray(train.arrays["features"])[:, 1] == 0).mean() > 0.5


def test_all_that_is_found_out_is_found_out_on_the_training_rows(tmp_path: Path) -> None:
    rows = people()
    write(tmp_path / "first/train.csv", rows[:150])
    write(tmp_path / "first/test.csv", rows[150:])
    other = [{**row, "age": 1000, "town": "Rom", "income": "", "since": "1900-01-01"} for row in rows[150:]]
    write(tmp_path / "other/train.csv", rows[:150])
    write(tmp_path / "other/test.csv", other)
    first, second = prepared(tmp_path / "first"), prepared(tmp_path / "other")
    assert first[3] == second[3]
    np.testing.assert_array_equal(first[0].arrays["features"], second[0].arrays["features"])
    assert encoding(second[3])["town"] == "category"
    assert set(np.asarray(second[2].arrays["features"])[:, first[3]["features"].index("town")]) == {0}
    assert first[3]["rows"] == {"train": 135, "validation": 15, "test": 50}


# ---- targets -------------------------------------------------------------------------------------------------------


def test_numbers_are_told_or_classes_are(tmp_path: Path) -> None:
    rows = [{**row, "children": number % 5, "car": number % 2} for number, row in enumerate(people())]
    path = write(tmp_path / "people.csv", rows)
    train, _, _, known = prepared(path, "children")
    numbers = np.asarray(train.arrays["target"])
    assert numbers.dtype == np.float32
    mean, std = float(numbers.mean()), float(numbers.std())
    target = read_info(known).target
    assert isinstance(target, Number)
    assert (target.name, target.mean, target.std) == ("children", pytest.approx(mean), pytest.approx(std))
    assert read_info(prepared(path, "children", target_type="classes")[3]).target == Classes(
        classes=list("01234"), name="children"
    )
    assert read_info(prepared(path, "car")[3]).target == Classes(classes=["0", "1"], name="car")
    assert isinstance(read_info(prepared(path, "car", target_type="number")[3]).target, Number)


def test_labels_are_as_they_are_written(tmp_path: Path) -> None:
    labels = ["01", "1", "好评", "True", "10", "9"]
    rows = [{**row, "bike": labels[number % 6]} for number, row in enumerate(people())]
    target = read_info(prepared(write(tmp_path / "people.csv", rows))[3]).target
    assert target == Classes(
        classes=["01", "1", "9", "10", "True", "好评"], name="bike"
    )  # numbers by their size, before words


def test_a_target_of_numbers_in_a_row_is_a_number_and_words_among_them_are_asked_about(tmp_path: Path) -> None:
    rows = [{**row, "price": 100 + number} for number, row in enumerate(people())]
    path = write(tmp_path / "people.csv", rows)
    assert isinstance(read_info(prepared(path, "price")[3]).target, Number)
    rows[7]["price"] = "free"
    write(path, rows)
    with pytest.raises(InputError, match=r"'price': holds numbers, but also 'free'\. If .* target_type: classes"):
        prepared(path, "price")
    assert prepared(path, "price", missing=["free"])[3]["rows"] == {"train": 143, "validation": 16, "test": 40}


def test_a_cell_that_is_wrong_is_named_with_its_row(tmp_path: Path) -> None:
    rows = people()
    write(tmp_path / "train.csv", rows[:150])
    write(tmp_path / "test.csv", [*rows[150:160], {**rows[160], "age": "old"}])
    with pytest.raises(InputError, match=r"^the test rows, number 11 of those with a target: age: 'old' is not"):
        prepared(tmp_path)


def test_a_column_without_a_value_is_left_out_whatever_it_is_said_to_be(tmp_path: Path) -> None:
    rows = [{**row, "empty": ""} for row in people()]
    path = write(tmp_path / "people.csv", rows)
    for kind in ("number", "category", "date", "out"):
        assert "empty" not in encoding(prepared(path, columns={"empty": kind})[3])


def test_rows_without_a_target_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = people()
    for row in rows[::4]:
        row["bike"] = "?"
    *parts, known = prepared(write(tmp_path / "people.csv", rows))
    assert sum(len(part.arrays["labels"]) for part in parts) == 150
    assert "train: 50 rows without 'bike' are left out" in caplog.messages
    assert known["target"]["classes"] == ["no", "yes"]


@pytest.mark.parametrize("word", ["none", "Missing", "NA", "null", "-"])
def test_a_class_may_be_called_as_a_gap_is(tmp_path: Path, word: str, caplog: pytest.LogCaptureFixture) -> None:
    """But not where it is named as one, and not among numbers."""
    rows = [{**row, "bike": word if number % 4 == 0 else row["bike"]} for number, row in enumerate(people())]
    path = write(tmp_path / "people.csv", rows)
    *parts, known = prepared(path)
    assert sorted(known["target"]["classes"]) == sorted([word, "no", "yes"])
    assert sum(len(part.arrays["labels"]) for part in parts) == 200
    said = f"taken for classes: {word!r} (50 rows). Where they are gaps, name them in preprocess.missing"
    assert said in caplog.messages
    caplog.clear()
    assert prepared(path, missing=[word.lower()])[3]["target"]["classes"] == ["no", "yes"]
    assert "train: 50 rows without 'bike' are left out" in caplog.messages
    numbers = [{**row, "income": word if number % 4 == 0 else number} for number, row in enumerate(people())]
    path = write(tmp_path / "numbers.csv", numbers)
    assert prepared(path, target="income")[3]["rows"]["train"] == 108
    assert word in prepared(path, target="income", target_type="classes", test_fraction=0.1)[3]["target"]["classes"]
    assert not any(message.startswith("taken for") for message in caplog.messages)


# ---- files ---------------------------------------------------------------------------------------------------------


def test_one_table_in_many_formats(tmp_path: Path) -> None:
    rows = people()
    expected = prepared(write(tmp_path / "plain.csv", rows))
    files = [
        write(tmp_path / "semicolons.csv", rows, ";"),
        write(tmp_path / "tabs.tsv", rows, "\t"),
        write(tmp_path / "spaces.csv", rows, ", "),
        write(tmp_path / "windows.csv", rows, encoding="utf-8-sig", end="\r\n"),
    ]
    typed = [{**row, "income": None if row["income"] == "" else row["income"]} for row in rows]
    parquet.write_table(pyarrow.Table.from_pylist(typed), tmp_path / "table.parquet")
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in typed))
    for path in [*files, tmp_path / "table.parquet", tmp_path / "lines.jsonl"]:
        *parts, known = prepared(path)
        assert known == expected[3], path
        for part, other in zip(parts, expected[:3], strict=True):
            for name in other.arrays.keys() - {FILE, f"{FILE}_starts"}:  # what samples are called
                np.testing.assert_array_equal(part.arrays[name], other.arrays[name], err_msg=str(path))


def test_files_of_a_folder_are_put_together_but_for_splits(tmp_path: Path) -> None:
    rows = people()
    for name, part in {"a": rows[:60], "b": rows[60:120], "Valid": rows[120:150], "test": rows[150:]}.items():
        write(tmp_path / f"{name}.csv", part)
    assert prepared(tmp_path)[3]["rows"] == {"train": 120, "validation": 30, "test": 50}


FEW = "a,b\n" + "3,x\n2,y\n9,x\n7,y\n" * 5


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("a,b\n1,x\n2,y\n", {"target": "c"}, r"preprocess\.target 'c': there is no such column in the train rows, whi"),
        ("a,b\n1,x\n2\n", {}, r"table\.csv: line 3 has 1 cells, but the first line names 2 columns"),
        ("a,a,b\n1,2,x\n", {}, r"table\.csv: its first line names 'a' more than once"),
        ("a,b\n", {}, r"table\.csv: holds no rows below its line of names"),
        ("", {}, r"table\.csv: holds no rows below"),
        ("a,b\n5,x\n2,x\n9,x\n7,x\n", {}, r"preprocess\.target 'b': is 'x' in every training row"),
        ("a,b\n1,x\n1,y\n1,x\n1,y\n1,x\n1,y\n", {}, r"no column is of use to tell 'b' from"),
        (FEW, {"columns": {"z": "number"}}, r"preprocess\.columns\.z: there is no such column; there are a"),
        (FEW, {"target_type": "number"}, r"'b': 'x' is not a number\. If these are classes, say target_type: classes"),
        (b"a,b\n\xff\xfe,x\n", {}, r"table\.csv: is not a text in UTF-8"),
    ],
    ids=["no target", "short row", "names", "no rows", "empty", "one class", "no use", "column", "words", "encoding"],
)
def test_what_is_wrong_is_answered(tmp_path: Path, content: Any, settings: dict[str, Any], message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        prepared(path, **{"target": "b", **settings})


def test_a_class_that_no_training_row_has_is_named(tmp_path: Path) -> None:
    rows = people()
    write(tmp_path / "train.csv", rows[:150])
    write(tmp_path / "test.csv", [{**row, "bike": "maybe"} for row in rows[150:]])
    with pytest.raises(InputError, match=r"'bike': the test rows have 'maybe', which no training row has"):
        prepared(tmp_path)


@pytest.mark.parametrize("name", ["table.parquet", "table.jsonl"])
def test_a_damaged_table_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"{nothing")
    with pytest.raises(InputError, match="cannot be read as a"), opened_table(tmp_path / name):
        pass


# ---- vectors -------------------------------------------------------------------------------------------------------


def vectors(rows: list[list[float]]) -> list[list[float]]:
    """Of a number with the bins 0 to 1 and 1 to 3, a category of three, and a number from 10 to 20 with gaps."""
    model = EncodedTable(nn.Identity(), [[0.0, 1.0, 3.0], [], [10.0, 20.0]], [0, 3, 0], [2])
    found: list[list[float]] = model(torch.tensor(rows)).tolist()
    return found


def test_a_number_comes_as_far_as_its_bins() -> None:
    expected = {-9.0: [-1, 0], -0.5: [-0.5, 0], 0.0: [0, 0], 0.5: [0.5, 0], 1.0: [1, 0], 2.0: [1, 0.5], 9.0: [1, 2]}
    found = vectors([[value, 0.0, 10.0] for value in expected])
    assert [row[:2] for row in found] == list(expected.values())
    assert [row[2] for row in vectors([[0, 0, -1e30], [0, 0, 15], [0, 0, 1e30]])] == [-1, 0.5, 2]


def test_gaps_and_categories_are_marked() -> None:
    gap = math.nan
    assert vectors([[gap, 2.0, gap]]) == [[0, 0, 0, 1, 0, 0, 1]]
    assert vectors([[0.5, gap, 15.0]]) == [[0.5, 0, 0.5, 0, 1, 0, 0]]
    assert vectors([[0.5, 0.0, 15.0]]) == [[0.5, 0, 0.5, 0, 1, 0, 0]]  # a new category
    assert vectors([[0.5, 1.0, 15.0]]) == [[0.5, 0, 0.5, 0, 0, 1, 0]]


def test_a_network_gets_so_many_numbers_as_it_is_told(tmp_path: Path) -> None:
    train, _, _, known = prepared(write(tmp_path / "people.csv", people()))
    info = read_info(known)
    model = info.scaled(nn.Identity())
    assert model(torch.from_numpy(np.asarray(train.arrays["features"]))).shape == (144, info.sizes()["features"])


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [0.0]},
        {"bins": []},
        {"bins": [[0.0, 1.0], [0.0, 1.0]]},
        {"bins": [[1.0, 0.0], []]},
        {"bins": [[1.0], []]},
        {"gaps": ["c"]},
        {"features": ["a", "c"]},
    ],
)
def test_what_does_not_belong_together_is_refused(change: dict[str, Any]) -> None:
    columns = [{"name": "a"}, {"name": "b", "kind": "category", "values": ["x"]}]
    good = {"kind": "table", "features": ["a", "b"], "mean": [0.0, 0.0], "std": [1.0, 1.0], "encoding": columns}
    good |= {"bins": [[0.0, 1.0], []], "gaps": ["a"]}
    assert read_info(good).sizes() == {"features": 1 + 1 + 2, "columns": [0, 0, 1, 1]}
    with pytest.raises(InputError, match="do not belong together"):
        read_info(good | change)


def test_in_training_some_categories_are_hidden() -> None:
    features, target = torch.full((2000, 3), 2.0), torch.zeros(2000)
    info = TableInfo(
        features=["a", "b", "c"],
        mean=[0.0] * 3,
        std=[1.0] * 3,
        encoding=[Column(name="a"), *(Column(name=name, kind="category", values=["x", "y"]) for name in "bc")],
        bins=[[0.0, 1.0], [], []],
        target=Number(name="n", mean=0.0, std=1.0),
    )
    arrays = {"features": features, "target": target}
    seen = {}
    for training in (True, False):
        use = Use(DataConfig(), 3, training, torch.device("cpu"), (0, 1))
        seen[training] = info.batches(arrays, use)[torch.arange(2000)][0]
    assert (seen[False] == 2).all()
    assert (seen[True][:, 0] == 2).all()
    hidden = (seen[True][:, 1:] == 0).float().mean()
    assert 0.5 * TableBatches.RATE < hidden < 2 * TableBatches.RATE
    assert ((seen[True] == 0) | (seen[True] == 2)).all()
    assert (features == 2).all()  # the data themselves stay


def test_a_category_of_a_single_row_is_as_a_new_one(tmp_path: Path) -> None:
    rows = people()
    rows[5]["town"] = "Rom"
    train, *_, known = prepared(write(tmp_path / "people.csv", rows))
    assert "Rom" not in known["encoding"][1]["values"]
    assert (np.asarray(train.arrays["features"])[:, 1] == 0).sum() <= 1


def test_cells_with_marks_in_them_are_quoted(tmp_path: Path) -> None:
    path = tmp_path / "quoted.csv"
    path.write_text('name, place, "a, b"\n"Doe, J.", "Ulm, DE" , 1\n')
    with opened_table(path) as (names, rows):
        assert names == ["name", "place", "a, b"]
        assert list(rows) == [(2, ["Doe, J.", "Ulm, DE", "1"])]


# ---- cells that are no single value ----


def test_lists_and_bytes_are_no_cells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{**row, "tags": [1, 2], "raw": b"abc"} for row in people()]
    *_, known = of_entry(rows)
    assert not {"tags", "raw"} & {column["name"] for column in known["encoding"]}
    assert (
        "the column 'tags' holds what is of no use: [1, 2] is of the type list, and no word, number or date: it is left"
        " out" in caplog.messages
    )
    with pytest.raises(InputError, match=r"^the train rows, number 1, column 'tags': \[1, 2\] is of the type list"):
        of_entry(rows, columns={"tags": "category"})
    rows[7]["bike"] = b"yes"
    with pytest.raises(InputError, match=r"^the train rows, number 8, column 'bike': b'yes' is of the type bytes"):
        of_entry(rows)
    encode = Encoder([Column(name="town", kind="category", values=["Ulm"])])
    with pytest.raises(InputError, match=r"^town: \['Ulm'\] is of the type list"):
        encode({"town": ["Ulm"]})


# ---- entries of the catalog ----------------------------------------------------------------------------------------


def of_entry(table: Any, target: str = "bike", **settings: Any) -> Prepared:
    return preprocess_entry(table, TableFilesPreprocessConfig(entry="people", target=target, **settings), Path())


def test_a_table_of_the_catalog_is_read_as_a_file_is(tmp_path: Path) -> None:
    rows: list[Row] = [{**row, "income": None if row["income"] == "" else row["income"]} for row in people()]
    expected = prepared(write(tmp_path / "people.csv", people()))
    arrow = pyarrow.Table.from_pylist(rows)
    nullable = pandas.DataFrame(rows).convert_dtypes()
    dates = pandas.DataFrame(rows).assign(since=lambda frame: pandas.to_datetime(frame["since"]))
    for table in (rows, arrow, pandas.DataFrame(rows), nullable, dates):
        *parts, known = of_entry(table)
        assert known == expected[3], type(table)
        for part, other in zip(parts, expected[:3], strict=True):
            np.testing.assert_array_equal(part.arrays["features"], other.arrays["features"])
    with pytest.raises(InputError, match=r"^preprocess\.entry people: is of the type dict, and no table of pandas"):
        of_entry({"a": 1})
    with pytest.raises(InputError, match=r"^preprocess\.entry people: holds no rows"):
        of_entry([])


def test_yes_and_no_are_categories_however_they_are_written(tmp_path: Path) -> None:
    rows = [{"open": number % 3 == 0, "n": number * 7 % 50, "target": "ab"[number % 2]} for number in range(60)]
    typed = of_entry(rows, "target")[3]
    assert typed["encoding"][0] == {"name": "open", "kind": "category", "values": ["False", "True"]}
    assert prepared(write(tmp_path / "rows.csv", rows), "target")[3]["encoding"] == typed["encoding"]
    encode = Encoder([Column.model_validate(column) for column in typed["encoding"]])
    assert encode({"open": True, "n": 1})[0] == encode({"open": "True", "n": "1"})[0] == 2


@pytest.mark.parametrize("places", [{}, {"files": "x", "entry": "y"}])
def test_rows_come_from_one_place(places: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must say where the rows are: either files or entry"):
        TableFilesPreprocessConfig(target="t", **places)


def test_an_entry_joins_the_graph(project: Path) -> None:
    """A task on it is trained; when the file behind it changes, what was made of it is stale."""
    path = write(project / "data/model_input.csv", people(160))
    with (project / "conf/base/catalog_sources.yml").open("a") as file:
        file.write(f"\nmodel_input:\n  type: pandas.CSVDataset\n  filepath: {path}\n")
    task = {"task": {"problem": "classification", "data": "riders"}, "data": {}, "evaluate": {}, "export": {}}
    task |= {"model": {"name": "linear"}, "train": {"epochs": 2, "optimizer": {"name": "AdamW", "lr": 0.01}}}
    blocks = {"riders": {"preprocess": {"reader": "table", "entry": "model_input", "target": "bike"}}, "rides": task}
    (project / "conf/base/parameters/rides.yml").write_text(yaml.safe_dump(blocks))
    catalog = kedro_run(project, "rides", to_nodes=["rides.train"])
    assert catalog.load("riders_info")["rows"]["train"] == 115
    assert pipelines["rides"].inputs() >= {"model_input"}
    write(path, people(80))
    again: Any = kedro_run(project, "rides", to_nodes=["rides.train"], runner=SkipUnchanged())
    again = again._catalog
    assert again.load("riders_info")["rows"]["train"] == 58
    records, (node,) = (
        records_of(again),
        [node for node in pipelines["rides"].nodes if node.name == "riders.preprocess"],
    )
    assert records.stale(node, again) == []
    again["model_input"] = MemoryDataset(people(80))
    unknown = "model_input: nothing tells whether it has changed"
    assert unknown in records.stale(node, again)
    for kind in (
        {"type": "pandas.CSVDataset", "filepath": str(project / "data/versions.csv"), "versioned": True},
        {"type": "pandas.CSVDataset", "filepath": "memory://people.csv"},
        {"type": "pandas.SQLQueryDataset", "filepath": str(path), "credentials": {"con": "sqlite://"}},
    ):
        again["model_input"] = AbstractDataset.from_config("model_input", kind, save_version=again._save_version)
        assert unknown in records.stale(node, again)
    blocks["riders"]["preprocess"]["reader"] = "folder"
    (project / "conf/base/parameters/rides.yml").write_text(yaml.safe_dump(blocks))
    with pytest.raises(
        InputError, match=r"riders\.preprocess\.entry: given 'model_input', but the reader folder takes no"
    ):
        kedro_run(project, "rides")


# ---- what Hugging Face's datasets saves ----------------------------------------------------------------------------


def saved(folder: Path, rows: list[dict[str, Any]], names: list[str], form: str = "stream") -> None:
    """As its save_to_disk does: numbers of classes, and their names in the schema."""
    features = {"age": {"dtype": "int64", "_type": "Value"}, "bike": {"names": names, "_type": "ClassLabel"}}
    table = pyarrow.table({"age": [row["age"] for row in rows], "bike": [names.index(row["bike"]) for row in rows]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    folder.mkdir(parents=True, exist_ok=True)
    writer = pyarrow.ipc.new_stream if form == "stream" else pyarrow.ipc.new_file
    with writer(folder / "data-00000-of-00001.arrow", table.schema) as file:
        file.write_table(table)
    for name in ("dataset_info.json", "state.json"):
        (folder / name).write_text("{}")


@pytest.mark.parametrize("form", ["stream", "file"])
def test_folders_of_arrow_files_are_splits_with_named_classes(tmp_path: Path, form: str) -> None:
    names = ["yes", "no"]
    saved(tmp_path / "own/train", people(80), names, form)
    saved(tmp_path / "own/test", people(30, seed=1), names, form)
    (tmp_path / "own/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    *_, test, known = prepared(tmp_path / "own", columns={"age": "number"})
    assert read_info(known).target == Classes(classes=["no", "yes"], name="bike")
    assert [["no", "yes"][label] for label in test.arrays["labels"]] == [row["bike"] for row in people(30, seed=1)]
    assert known["rows"] == {"train": 72, "validation": 8, "test": 30}
    assert takes(tmp_path / "own", "bike")


def test_a_class_below_nought_is_a_gap(tmp_path: Path) -> None:
    table = pyarrow.table({"label": [0, -1, 1]})
    said = {"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}}
    named = with_names(table.replace_schema_metadata({"huggingface": json.dumps(said)}))
    assert named["label"].to_pylist() == ["a", None, "b"]
    odd = table.replace_schema_metadata({"huggingface": "no json"})
    assert with_names(odd)["label"].to_pylist() == [0, -1, 1]


def test_what_is_no_arrow_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "rows.arrow").write_bytes(b"no such thing")
    with pytest.raises(InputError, match=r"rows\.arrow: cannot be read as a table"):
        prepared(tmp_path / "rows.arrow")
