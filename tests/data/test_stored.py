"""Rows of tables that lie on the disk: what is found out of them is what is found out of rows in a list."""

import datetime
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
from pyarrow import parquet

from tests.tables import films, people, write
from torchloom.config import TableFilesPreprocessConfig
from torchloom.data import rows as rows_module
from torchloom.data import stored as stored_module
from torchloom.data import tables
from torchloom.data.columns import Encoder, count_different, gaps_of, given_cells
from torchloom.data.readers import table
from torchloom.data.rows import hashes, read_files, store_entry, store_files
from torchloom.data.stored import Cells, Rows, array_of, coded, layouts, of_each, of_rows, together, where
from torchloom.errors import InputError

Prepared = tuple[Any, Any, Any, dict[str, Any]]


def stored_rows(path: Path, scratch: Path, split: str = "train") -> Rows:
    config = TableFilesPreprocessConfig(files=str(path), target="bike")
    rows = store_files(table.find(config), scratch)[split]
    assert isinstance(rows, Rows)
    return rows


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are read a few rows at a time."""
    for module, name in ((stored_module, "BLOCK"), (rows_module, "BLOCK"), (tables, "AT_ONCE")):
        monkeypatch.setattr(module, name, 7)


@pytest.mark.usefixtures("small_blocks")
def test_stored_rows_are_those_of_the_files(tmp_path: Path) -> None:
    """CSV and Parquet in one folder: their cells are of different types, and so are those of one column."""
    first, second = people(40), [{**row, "more": number} for number, row in enumerate(people(30, seed=1))]
    write(tmp_path / "files/a.csv", first)
    parquet.write_table(
        pyarrow.Table.from_pylist([{**row, "income": 1.5} for row in second]), tmp_path / "files/b.parquet"
    )
    config = TableFilesPreprocessConfig(files=str(tmp_path / "files"), target="bike")
    expected = read_files(table.find(config))["train"]
    rows = stored_rows(tmp_path / "files", tmp_path)
    assert len(rows) == 70
    assert len(rows.blocks) > 10
    assert list(rows) == expected
    assert [rows[0], rows[39], rows[40], rows[-1]] == [expected[place] for place in (0, 39, 40, -1)]
    assert rows[38:42] == expected[38:42]
    with pytest.raises(IndexError):
        rows[70]
    assert layouts(rows) == layouts(expected)
    mask = np.random.default_rng(0).random(70) < 0.4
    chosen, plain = where(rows, mask), where(expected, mask)
    assert list(chosen) == plain
    again = np.arange(len(plain)) % 3 == 0
    assert list(where(chosen, again)) == where(plain, again)
    assert list(together([chosen, rows, []])) == plain + expected
    assert list(Cells(chosen, "more")) == [row.get("more") for row in plain]
    assert list(of_rows(tuple, chosen, ["age", "town"])) == [("age", "town")] * len(plain)
    same = [hashes(each, ["age", "income"], lambda cell: hash(str(cell))) for each in (chosen, plain)]
    np.testing.assert_array_equal(*same)


def test_words_are_asked_once_and_no_value_is_taken_for_another() -> None:
    asked: list[Any] = []

    def read(cell: Any) -> str:
        asked.append(cell)
        return repr(cell)

    assert list(of_each(read, ["a", "b", None, "a", 1, "1"] * 5)) == ["'a'", "'b'", "None", "'a'", "1", "'1'"] * 5
    assert asked == ["a", "b", None, 1, "1"]
    for mixed in ([1, True, 1.0, "1"], [1, [1]], [datetime.datetime(2024, 1, 1), datetime.date(2024, 1, 1), None]):
        assert list(of_each(repr, mixed * 5)) == list(map(repr, mixed)) * 5
    codes, names = coded(["b", "a", "b", "c"], 4)
    assert (codes.tolist(), names) == ([0, 1, 0, 2], ["b", "a", "c"])
    assert count_different(iter(["a", "b", "a"]), 3) == 2
    np.testing.assert_array_equal(array_of(len, ["ab", "c"], np.int64), [2, 1])


def prepared(path: Path, scratch: Path, **settings: Any) -> Prepared:
    config = TableFilesPreprocessConfig.model_validate({"files": str(path), **settings})
    return table.preprocess(table.find(config), config, scratch)


CASES: list[tuple[str, dict[str, Any]]] = [
    ("people", {"target": "bike"}),
    ("people", {"target": "income", "missing": ["DE"]}),
    ("people", {"target": "bike", "split_by": {"group": "town"}, "columns": {"id": "category"}}),
    ("people", {"target": "age", "split_by": {"time": "since"}}),
    ("people", {"target": "age", "split_by": {"column": "town", "test": ["Bonn"]}}),
    ("films", {"target": "tags", "separator": ";"}),
    ("films", {"target": ["lat", "minutes"]}),
]


@pytest.mark.parametrize(("name", "settings"), CASES)
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_it_is_the_same_however_many_rows_are_looked_at_at_once(
    tmp_path: Path,
    name: str,
    settings: dict[str, Any],
    form: str,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = {"people": people(), "films": films()}[name]
    path = write(tmp_path / "rows.csv", rows)
    if form == "parquet":
        path = tmp_path / "rows.parquet"
        parquet.write_table(
            pyarrow.Table.from_pylist([{**row, "income": row.get("income") or None} for row in rows]), path
        )
    with caplog.at_level(logging.INFO):
        expected = prepared(path, tmp_path, **settings)
        said = list(caplog.messages)
        caplog.clear()
        request.getfixturevalue("small_blocks")
        found = prepared(path, tmp_path, **settings)
    assert found[3] == expected[3]
    assert caplog.messages == said
    for part, other in zip(found[:3], expected[:3], strict=True):
        assert part.arrays.keys() == other.arrays.keys()
        for array in part.arrays:
            np.testing.assert_array_equal(part.arrays[array], other.arrays[array])


@pytest.mark.usefixtures("small_blocks")
def test_many_rows_are_encoded_as_one_is(tmp_path: Path) -> None:
    train, *_, known = prepared(write(tmp_path / "people.csv", people()), tmp_path, target="bike")
    encode = Encoder([table.Column.model_validate(column) for column in known["encoding"]])
    rows = stored_rows(tmp_path / "people.csv", tmp_path)
    many = encode.table(rows)
    assert many.dtype == np.float32
    np.testing.assert_array_equal(many, np.array([encode(row) for row in rows], dtype=np.float32))
    assert {tuple(row) for row in np.nan_to_num(train.arrays["features"])} <= {
        tuple(row) for row in np.nan_to_num(many)
    }


@pytest.mark.usefixtures("small_blocks")
def test_the_first_cell_that_is_wrong_is_named(tmp_path: Path) -> None:
    rows = people()
    write(tmp_path / "files/train.csv", rows[:150])
    wrong = {20: {"age": "old"}, 15: {"since": "never"}, 30: {"age": "young"}}
    write(tmp_path / "files/test.csv", [{**row, **wrong.get(number, {})} for number, row in enumerate(rows[150:])])
    with pytest.raises(InputError, match=r"^the test rows, number 16 of those with a target: since: 'never' is not"):
        prepared(tmp_path / "files", tmp_path, target="bike")


def test_lists_among_the_test_rows_alone_are_told(tmp_path: Path) -> None:
    rows = people()
    write(tmp_path / "files/train.csv", rows[:150])
    lists = [{**row, "town": [row["town"]], "income": 1.0} for row in rows[150:]]
    parquet.write_table(pyarrow.Table.from_pylist(lists), tmp_path / "files/test.parquet")
    with pytest.raises(InputError, match=r"^the test rows, number 1 .*: town: \['\w+'\] is of the type list"):
        prepared(tmp_path / "files", tmp_path, target="bike")


def test_tables_of_the_catalog_are_looked_at_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**row, "income": row["income"] or None} for row in people(30)]
    frame = pandas.DataFrame(rows).set_index("age", drop=False)
    monkeypatch.setattr(rows_module, "BLOCK", 7)
    config = TableFilesPreprocessConfig(entry="people", target="bike")
    for given in (frame, pyarrow.Table.from_pandas(frame, preserve_index=False)):
        found = store_entry(given, config)["train"]
        assert isinstance(found, Rows)
        assert len(found.blocks) == 5
        assert [{**row, "income": 0} for row in found] == [{**row, "income": 0} for row in rows]
    twice = pyarrow.table([[1], [2]], names=["a", "a"])
    with pytest.raises(InputError, match=r"^preprocess\.entry people: has more than one column 'a'"):
        store_entry(twice, config)
    assert len(given_cells(store_entry(frame, config)["train"], "income", gaps_of(()))) == 25


def test_a_long_table_is_proposed_by_its_first_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "people.csv", people())
    assert table.propose(path, "bike").seen[0] == "200 rows, 8 columns"
    monkeypatch.setattr(table, "LOOKED_THROUGH", 120)
    proposal = table.propose(path, "bike")
    assert proposal.seen[0].startswith("120 rows, 8 columns, of the first ")
    rows = people()[:120]
    assert f"income: number, {sum(row['income'] == '' for row in rows) / 120:.1%} missing" in proposal.seen


PEAK = """
import re, sys
from pathlib import Path
import numpy, pyarrow
from torchloom.config import TableFilesPreprocessConfig
from torchloom.data.readers import table

path, scratch = map(Path, sys.argv[1:])
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
config = TableFilesPreprocessConfig(files=str(path), target="y")
before = peak()
*_, known = table.preprocess(table.find(config), config, scratch)
print(known["rows"]["train"], peak() - before)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of the process")
def test_a_long_table_takes_little_memory(tmp_path: Path) -> None:
    """It is about 100 MB; rows held as dicts took 216."""
    generator = np.random.default_rng(0)
    count = 300_000
    columns = {
        **{name: generator.random(count).round(4) for name in "abc"},
        "day": np.datetime64("2020-01-01") + generator.integers(0, 2000, count),
        "word": generator.choice([f"word {number}" for number in range(50)], count),
        "y": generator.choice(["yes", "no"], count),
    }
    pandas.DataFrame(columns).to_csv(tmp_path / "rows.csv", index=False)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "rows.csv"), str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    trained, peak = map(float, done.stdout.split())
    assert trained == 216_000
    assert peak < 160
