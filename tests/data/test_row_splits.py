"""Which rows are to train, to validate and to test."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.tables import Row, people, write
from torchloom.config import RowsPreprocessConfig, TableFilesPreprocessConfig
from torchloom.data.readers.table import find, preprocess, preprocess_entry
from torchloom.data.row_splits import Parts, split_rows
from torchloom.errors import InputError


def config(**settings: Any) -> RowsPreprocessConfig:
    return RowsPreprocessConfig.model_validate({"files": "rows.csv", "target": "answer", **settings})


def visits(count: int = 100) -> list[Row]:
    """Of 20 patients, in no order of time."""
    return [
        {
            "patient": f"p{number % 20}",
            "day": (date(2024, 1, 1) + timedelta(days=number * 37 % 50)).isoformat(),
            "hospital": ["Ulm", "Köln", "3"][number % 3],
            "subset": ["Training", "val", "test"][number % 10 // 4 if number % 10 < 8 else 2],
            "answer": "yes" if number % 4 else "no",
        }
        for number in range(count)
    ]


def cut(rows: list[Row], **settings: Any) -> Parts:
    return split_rows({"train": rows, "validation": [], "test": []}, config(**settings), lambda row: [row["answer"]])


def values(parts: Parts, column: str) -> dict[str, set[str]]:
    return {split: {row[column] for row in part} for split, part in parts.items()}


def test_by_chance_each_class_gives_the_same_share() -> None:
    parts = cut(visits())
    assert {split: len(part) for split, part in parts.items()} == {"train": 72, "validation": 8, "test": 20}
    assert [row["answer"] for row in parts["test"]].count("no") == 5


def test_no_group_is_in_two_splits() -> None:
    parts = cut(visits(), split_by={"group": "patient"})
    found = values(parts, "patient")
    assert sum(map(len, found.values())) == 20
    assert {split: len(part) for split, part in parts.items()} == {"train": 70, "validation": 10, "test": 20}
    assert values(cut(visits(), split_by={"group": "patient"}, seed=1), "patient") != found
    assert sum(map(len, parts.values())) == 100


def test_groups_of_files_of_two_splits_are_told() -> None:
    rows = {"train": visits(), "validation": [], "test": visits(1)}
    with pytest.raises(InputError, match="patient: 'p0' has train rows and test rows"):
        split_rows(rows, config(split_by={"group": "patient"}), lambda row: [row["answer"]])


def test_the_latest_are_to_test() -> None:
    rows = visits()
    parts = cut(rows, split_by={"time": "day"})
    days = {split: sorted(row["day"] for row in part) for split, part in parts.items()}
    assert days["train"][-1] < days["validation"][0]
    assert days["validation"][-1] < days["test"][0]
    assert {split: len(part) for split, part in parts.items()} == {"train": 72, "validation": 8, "test": 20}


def test_those_of_one_time_stay_together() -> None:
    rows = [{"day": day, "answer": "yes"} for day in [1, 2, 3, 4, 5, 5, 5, 6, 7, 8]]
    parts = cut(rows, split_by={"time": "day"}, test_fraction=0.4, validation_fraction=0)
    assert [row["day"] for row in parts["test"]] == [6, 7, 8]
    numbers = cut([{**row, "day": str(10 * row["day"])} for row in rows], split_by={"time": "day"}, test_fraction=0.4)
    assert [row["day"] for row in numbers["test"]] == ["60", "70", "80"]  # and not by their letters


def test_dates_and_numbers_are_not_compared() -> None:
    rows = [{"day": day, "answer": "yes"} for day in ["2024-01-05", "20240106", "2024-01-07", "2024-01-08"]]
    with pytest.raises(InputError, match=r"split_by\.time day: holds dates, but also numbers"):
        cut(rows, split_by={"time": "day"}, test_fraction=0.5)


def test_the_values_of_a_column_that_are_named() -> None:
    parts = cut(visits(), split_by={"column": "hospital", "test": ["Köln"], "validation": [3]})
    assert values(parts, "hospital") == {"train": {"Ulm"}, "validation": {"3"}, "test": {"Köln"}}
    drawn = cut(visits(), split_by={"column": "hospital", "test": ["Köln"]})
    assert values(drawn, "hospital") == {"train": {"Ulm", "3"}, "validation": {"Ulm", "3"}, "test": {"Köln"}}


def test_a_column_of_splits() -> None:
    parts = cut(visits(), split_by={"column": "subset"})
    assert values(parts, "subset") == {"train": {"Training"}, "validation": {"val"}, "test": {"test"}}


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ({"column": "ward"}, "no column 'ward'; there are 'patient', 'day'"),
        ({"column": "hospital"}, "'Ulm' is no name of a split"),
        ({"column": "hospital", "test": ["Bonn"]}, "no row has 'Bonn' in 'hospital'; it has '3', 'Köln', 'Ulm'"),
        ({"time": "hospital"}, "'Ulm' is not a date"),
    ],
)
def test_what_is_no_such_column(by: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cut(visits(), split_by=by)


def test_a_gap() -> None:
    with pytest.raises(InputError, match="the column 'patient' is empty in a row"):
        cut([*visits(), {**visits(1)[0], "patient": " "}], split_by={"group": "patient"})


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ({"column": "a", "group": "b"}, "one of column, group and time"),
        ({"test": ["a"]}, "of which column"),
        ({"column": "a", "validation": ["b"]}, "to test, too"),
        ({"column": "a", "validation": ["b"], "test": ["b"]}, "'b' both"),
    ],
)
def test_what_the_block_says(by: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(split_by=by)


def test_what_splits_a_table_is_not_learnt_from(tmp_path: Path) -> None:
    path = write(tmp_path / "visits.csv", visits())
    given = {
        "files": str(path),
        "target": "answer",
        "columns": {"day": "category", "subset": "out", "patient": "category"},
    }
    cases = {("group", "patient"): ["day", "hospital"], ("time", "day"): ["patient", "day", "hospital"]}
    for by, columns in cases.items():
        block = TableFilesPreprocessConfig.model_validate({**given, "split_by": dict([by])})
        assert [column["name"] for column in preprocess(find(block), block, tmp_path)[3]["encoding"]] == columns


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (
            {"target": "bikes"},
            r"preprocess\.target 'bikes': there is no such column .* \(did you mean 'bike'\?\), which",
        ),
        (
            {"target": "bike", "split_by": {"group": "Town"}},
            r"split_by: there is no column 'Town' \(did you mean 'town'",
        ),
        (
            {"target": "bike", "columns": {"ages": "number"}},
            r"columns\.ages: there is no such column \(did you mean 'a",
        ),
    ],
)
def test_the_column_that_is_likely_meant_is_named(tmp_path: Path, block: dict[str, Any], said: str) -> None:
    given = TableFilesPreprocessConfig(files=str(write(tmp_path / "people.csv", people(30))), **block)
    with pytest.raises(InputError, match=said):
        preprocess(find(given), given, tmp_path)


def test_labels_of_a_row_each_are_named_as_what_leaves_nothing_to_test() -> None:
    rows = [{"n": number, "tags": ";".join(f"t{8 * number + place}" for place in range(8))} for number in range(120)]
    given = TableFilesPreprocessConfig(entry="rows", target="tags", separator=";", columns={"n": "number"})
    with pytest.raises(
        InputError, match=r"no test rows\. 120 of 120 rows hold a class or a label that no other row"
    ) as said:
        preprocess_entry(rows, given)
    assert "kedro task new --problem translation" in str(said.value)  # dates to be written look like rare classes
