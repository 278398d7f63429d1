"""One table in several formats: the same categories, classes, dates and answers."""

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow
import pytest
from pyarrow import parquet

from tests.tables import write
from tests.test_as_tested import Trained
from torchloom.config import TableFilesPreprocessConfig
from torchloom.data.columns import Column, Encoder
from torchloom.data.readers import table
from torchloom.data.rows import read_files, read_rows, store_files
from torchloom.data.targets import Classes
from torchloom.datasets.listing import scan
from torchloom.errors import InputError
from torchloom.inference.kept import Kept

Row = dict[str, Any]


def rows(count: int = 120) -> list[Row]:
    """A yes or no on which all hangs, and dates with a zone."""
    return [
        {"flag": number % 3 == 0, "when": f"2024-06-{1 + number % 28:02}T01:00:00+02:00", "y": "ab"[number % 3 == 0]}
        for number in range(count)
    ]


def files(folder: Path, given: list[Row]) -> dict[str, Path]:
    lower = [{**row, "flag": str(row["flag"]).lower()} for row in given]
    lines = folder / "a.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in given))
    parquet.write_table(pyarrow.Table.from_pylist(given), folder / "a.parquet")
    polars.DataFrame(given).write_ipc(folder / "a.arrow")
    return {
        "lower": write(folder / "lower.csv", lower),
        "capitals": write(folder / "capitals.csv", given),
        **{each: folder / f"a.{each}" for each in ("jsonl", "parquet", "arrow")},
    }


def test_a_model_answers_the_same_whatever_the_format(tmp_path: Path) -> None:
    paths = files(tmp_path, rows())
    config = TableFilesPreprocessConfig(files=str(paths["lower"]), target="y")
    prepared = table.preprocess(table.find(config), config, tmp_path)
    assert prepared[3]["encoding"][0]["values"] == ["false", "true"]
    task = Trained(tmp_path, prepared, {"name": "tabular_mlp", "hidden": [8]})
    task.tested()
    first = [(row["class_1"], row["remarks"]) for row in task.asked(paths["lower"])]
    assert {remarks for _, remarks in first} == {""}
    for path in paths.values():
        assert [(row["class_1"], row["remarks"]) for row in task.asked(path)] == first, path.name


def test_texts_of_json_lines_stay_as_they_are_written(tmp_path: Path) -> None:
    path = files(tmp_path, rows(3))["jsonl"]
    assert [row["when"] for row in read_rows(path)] == [row["when"] for row in rows(3)]


def test_a_table_of_polars_is_looked_at_in_part(tmp_path: Path) -> None:
    config = TableFilesPreprocessConfig(entry="rows", target="y")
    for given in (polars.DataFrame(rows()), polars.DataFrame(rows()).lazy()):
        prepared = table.preprocess_entry(given, config)
        assert sum(len(part.arrays["features"]) for part in prepared[:3]) == 120


def test_what_is_true_and_1_has_several_spellings() -> None:
    encode = Encoder([Column(name="x", kind="category", values=["True", "1.0", "2", "true love"])])
    cells = ["True", "true", True, "TRUE", "1.0", "1", 1, 1.0, "2", 2.0, "2.0", "true love", "True love", "01"]
    assert [encode({"x": cell})[0] for cell in cells] == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 0, 0]
    target = Classes(classes=["false", "true", "1.0"], name="y")
    assert [target.told({"y": cell}) for cell in (True, "False", 1, "maybe")] == ["true", "false", "1.0", "maybe"]
    assert Classes(classes=["1", "1.0"], name="y").told({"y": "1.0"}) == "1.0"


def test_columns_that_some_files_lack_are_told_whichever_comes_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for first, folder in (("0", tmp_path / "a"), ("2", tmp_path / "b")):
        write(folder / f"{first}.csv", [{"x": number % 7, "y": "ab"[number % 2]} for number in range(40)])
        write(folder / "1.csv", [{"x": number % 5, "gold": number, "y": "ab"[number % 2]} for number in range(40)])
        config = TableFilesPreprocessConfig(files=str(folder), target="y")
        caplog.clear()
        info = table.preprocess(table.find(config), config, tmp_path)[3]
        assert [column["name"] for column in info["encoding"]] == ["x"]
        assert "some rows, of a file or split, have no 'gold': left out" in caplog.messages
        assert "gold: not in all rows, left out" in table.propose(folder, "y").seen or first == "0"


def test_cells_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    column = pyarrow.array(np.full(30, 2**58), pyarrow.timestamp("ms"))  # long after the year 9999
    parquet.write_table(pyarrow.table({"x": column, "y": pyarrow.array(["a", "b"] * 15)}), path)
    config = TableFilesPreprocessConfig(files=str(path), target="y")
    with pytest.raises(InputError, match=r"the column 'x' has a cell that cannot be read \("):
        table.preprocess(table.find(config), config, tmp_path)


def test_a_file_of_excel_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(InputError, match=r"rows\.xlsx: is a file of Excel\. Save it as CSV, or name an entry"):
        read_files(scan(tmp_path / "rows.xlsx", "preprocess.files"))


def test_a_disk_that_is_full_at_the_last_bytes_is_told(tmp_path: Path) -> None:
    """A limit of the size of files stands for it: what is written so late that no buffer is left."""
    listing = scan(write(tmp_path / "rows.csv", rows()), "preprocess.files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Kept(pyarrow.schema([("x", pyarrow.int64())]), tmp_path) as kept:
        kept.add(pyarrow.record_batch({"x": range(200)}, schema=kept.schema))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            with pytest.raises(InputError, match=r": rows cannot be written \(File too large\)\. Make room there"):
                store_files(listing, tmp_path)
            with pytest.raises(InputError, match=r": rows cannot be written \(File too large\)\. Make room there"):
                kept.table()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
