"""A user's own series with what is to be told of each, in rows or in a row for each step."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from pydantic import ValidationError

from tests.tables import steps, waves, write
from torchloom.config import AnswerConfig, LabelledSeriesPreprocessConfig
from torchloom.data.readers.labelled_series import find, preprocess, preprocess_entry
from torchloom.data.series import of_length
from torchloom.data.targets import Classes, Number
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.modalities import LabelledSeriesInfo, read_info

COLUMNS = [f"t{step}" for step in range(20)]
LONG: dict[str, Any] = {"series": "wave", "time": "step", "columns": ["x", "y"]}


def prepared(path: Path, target: str = "kind", **settings: Any) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    config = LabelledSeriesPreprocessConfig.model_validate({"files": str(path), "target": target, **settings})
    return preprocess(find(config), config, Path())


def info_of(known: dict[str, Any]) -> LabelledSeriesInfo:
    info = read_info(known)
    assert isinstance(info, LabelledSeriesInfo)
    return info


def test_a_series_in_each_row(tmp_path: Path) -> None:
    rows = waves(60)
    train, validation, test, known = prepared(write(tmp_path / "waves.csv", rows), columns=COLUMNS)
    info = info_of(known)
    assert info.target == Classes(classes=["quick", "slow"], name="kind")
    assert (info.channels, info.length, known["counts"]) == (["value"], 20, {"train": 44, "validation": 4, "test": 12})
    whole = {str(row["t0"]): row for row in rows if row["t19"] != ""}
    found = 0
    for part in (train, validation, test):
        assert part.arrays["series"].dtype == np.float32
        for values, label in zip(np.asarray(part.arrays["series"]), np.asarray(part.arrays["labels"]), strict=True):
            row = next((row for start, row in whole.items() if np.float32(start) == values[0, 0]), None)
            if row and row["t1"] != "" and np.float32(row["t1"]) == values[1, 0]:
                np.testing.assert_array_equal(values[:, 0], np.array([row[name] for name in COLUMNS], np.float32))
                assert info.target.classes[label] == row["kind"]
                found += 1
    assert found == len(whole) > 3
    values = np.asarray(train.arrays["series"]).astype(np.float64)
    assert (info.mean, info.std) == (pytest.approx([values.mean()]), pytest.approx([values.std()]))


def test_a_row_for_each_step_is_the_same(tmp_path: Path) -> None:
    rows = waves(60)
    wide = prepared(write(tmp_path / "waves.csv", rows), columns=COLUMNS, length=18)
    long = prepared(
        write(tmp_path / "steps.csv", sorted(steps(rows), key=lambda row: int(row["wave"][5:]))), **LONG, length=18
    )
    assert long[3]["channels"] == ["x", "y"]
    for one, other in zip(wide[:3], long[:3], strict=True):
        np.testing.assert_array_equal(one.arrays["series"][..., 0], other.arrays["series"][..., 0])
        np.testing.assert_allclose(2 * other.arrays["series"][..., 0], other.arrays["series"][..., 1])
        np.testing.assert_array_equal(one.arrays["labels"], other.arrays["labels"])


def test_a_number_may_be_told(tmp_path: Path) -> None:
    rows = waves(60)
    info = info_of(prepared(write(tmp_path / "waves.csv", rows), target="height", columns=COLUMNS)[3])
    assert isinstance(info.target, Number)
    entry = LabelledSeriesPreprocessConfig(entry="waves", target="height", columns=COLUMNS)
    frame = pandas.DataFrame(rows).replace("", None)
    assert preprocess_entry(frame, entry)[3]["target"] == info.target.model_dump()


def test_nothing_is_learnt_from_test_rows(tmp_path: Path) -> None:
    for name, seed in {"one": 1, "other": 2}.items():
        write(tmp_path / f"{name}/train.csv", waves(40))
        write(tmp_path / f"{name}/test.csv", waves(12, seed))
    one, other = (prepared(tmp_path / name, columns=COLUMNS) for name in ("one", "other"))
    assert one[3] == other[3]
    assert not np.array_equal(one[2].arrays["series"], other[2].arrays["series"])


def test_folds_know_which_series_belong_together(tmp_path: Path) -> None:
    rows = [{**row, "person": f"p{place // 3}"} for place, row in enumerate(waves(60))]
    path = write(tmp_path / "waves.csv", rows)
    parts = prepared(path, columns=COLUMNS, split_by={"group": "person"})[:3]
    groups = [set(np.asarray(part.arrays["groups"]).tolist()) for part in parts]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 20
    assert [len(part.arrays["groups"]) for part in parts] == [len(part.arrays["labels"]) for part in parts]


def test_lengths_and_gaps() -> None:
    nan = np.nan
    values = np.array([[nan, 1], [2, nan], [nan, nan], [3, 4], [nan, nan]], np.float32)
    np.testing.assert_array_equal(of_length(values, None, "ab"), [[2, 1], [2, 1], [2, 1], [3, 4]])
    np.testing.assert_array_equal(of_length(values, 2, "ab"), [[2, 1], [3, 4]])
    np.testing.assert_array_equal(of_length(values[3:4], 3, "ab"), [[3, 4]] * 3)
    with pytest.raises(InputError, match=r"^has no value in b$"):
        of_length(values[1:3], None, "ab")


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (
            {},
            {"columns": ["t99"]},
            r"waves\.csv: there is no column 't99' \(did you mean 't9'\?\); there are name, kind",
        ),
        ({}, {"target": "kinds"}, r"there is no column 'kinds'"),
        ({}, {"series": "wave"}, r"there is no column 'wave'"),
        ({"t3": "high"}, {"columns": COLUMNS}, r"waves\.csv: the train row 6: t3: 'high' is not a number"),
        (dict.fromkeys(COLUMNS, ""), {"columns": COLUMNS}, r"the train row 6: has no value in value"),
        (
            {"name": "wave 6"},
            {"series": "name", "columns": ["height"]},
            r"waves\.csv: series wave 6 has several of 'kind': quick, slow",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, change: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    rows = waves(40)
    rows[5] |= change
    with pytest.raises(InputError, match=message):
        prepared(write(tmp_path / "waves.csv", rows), **settings)


def test_a_time_needs_series() -> None:
    with pytest.raises(ValidationError, match="must say by series which rows belong together"):
        LabelledSeriesPreprocessConfig(files="a.csv", target="kind", time="step")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "must be rows of a table"),
        ([{"step": 1, "x": 1}], "^lacks 'y'$"),
        ([{"step": 1, "x": 1, "y": None}], "^has no value in y$"),
        ([{"step": 1, "x": "a", "y": 1}], "^x: 'a' is not a number"),
        ([{"step": "soon", "x": 1, "y": 1}], "^step: 'soon' is not a date"),
    ],
)
def test_what_cannot_be_asked(tmp_path: Path, rows: Any, message: str) -> None:
    info = info_of(prepared(write(tmp_path / "steps.csv", steps(waves(40))), **LONG)[3])
    with pytest.raises(InputError, match=message):
        info.reader(AnswerConfig(models=""))(rows)
