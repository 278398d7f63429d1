"""A user's own series with what is to be told of each, in rows or in a row for each step."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project
from pydantic import ValidationError

from conftest import ROOT, kedro_run
from tests.tables import steps, waves, write
from tests.test_docs import commands
from torchloom.cli import new_task
from torchloom.config import AnswerConfig, LabelledSeriesPreprocessConfig
from torchloom.data.readers import propose
from torchloom.data.readers.labelled_series import find, preprocess, preprocess_entry
from torchloom.data.series import of_length
from torchloom.data.targets import Classes, Number
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.modalities import LabelledSeriesInfo, read_info

COLUMNS = [f"t{step}" for step in range(20)]
LONG: dict[str, Any] = {"series": "wave", "time": "step", "columns": ["x", "y"]}


def prepared(path: Path, target: Any = "kind", **settings: Any) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
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


def in_arrays(rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """The series (N, 20, 2), of which the second channel says it twice over and NaN is a gap, and their kinds (N,)."""
    values = np.array([[np.nan if row[name] == "" else row[name] for name in COLUMNS] for row in rows], np.float32)
    return np.stack([values, 2 * values], 2), np.array([row["kind"] for row in rows])


def saved(folder: Path, form: str, given: dict[str, np.ndarray]) -> Path:
    """In a file of NumPy, in files of a folder, or in folders of the splits."""
    folder.mkdir(parents=True)
    if form == "file":
        np.savez_compressed(folder / "own.npz", **given)  # type: ignore[arg-type]
        return folder / "own.npz"
    for name, array in given.items():
        path = folder / f"{name}.npy" if form == "folder" else folder / name.partition("_")[2] / f"{name[0]}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, array)
    return folder


@pytest.mark.parametrize("form", ["file", "folder", "splits"])
@pytest.mark.parametrize("axes", ["last", "first", "none"])
def test_series_in_arrays_are_those_of_tables(tmp_path: Path, form: str, axes: str) -> None:
    rows, others = waves(60), waves(20, seed=1)
    for name, part in {"train": rows, "test": others}.items():
        write(tmp_path / f"rows/{name}.csv", part)
    given = {}
    for name, part in {"train": rows, "test": others}.items():
        x, y = in_arrays(part)
        x = x[:, :, 0] if axes == "none" else x.transpose(0, 2, 1) if axes == "first" else x
        given |= {f"x_{name}": x, f"y_{name}": y[:, None] if form == "file" else y}
    expected = prepared(tmp_path / "rows", columns=COLUMNS)
    path = saved(tmp_path / "own", form, given)
    found = prepared(path, target="y", array="x", channels_first=axes == "first")
    assert found[3]["channels"] == (["x"] if axes == "none" else ["x0", "x1"])
    for one, other in zip(expected[:3], found[:3], strict=True):
        series = np.asarray(other.arrays["series"])
        np.testing.assert_array_equal(one.arrays["series"][..., 0], series[..., 0])
        np.testing.assert_array_equal(series[..., -1], series[..., 0] * series.shape[2])
        np.testing.assert_array_equal(one.arrays["labels"], other.arrays["labels"])
    assert (found[3]["mean"][0], found[3]["length"]) == (pytest.approx(expected[3]["mean"][0]), 20)
    proposal = propose(path, "y")
    assert dict(proposal.preprocess) == {
        "reader": "labelled_series",
        "files": str(path),
        "target": "y",
        "array": "x",
    } | ({"channels_first": True} if axes == "first" else {})
    channels = "1 channel" if axes == "none" else "2 channels"
    assert proposal.seen[0] == f"80 series of 15 to 20 steps, {channels}, in the array x"
    taken, _, otherwise = proposal.seen[1].partition("; ")
    shape = {"none": "steps", "last": "steps, channels", "first": "channels, steps"}[axes]
    assert taken == f"x is taken for series (N, {shape})"
    if axes == "none":
        assert otherwise == "of a table say --reader table"
    else:
        other = "false" if axes == "first" else "true"
        assert otherwise == f"else say channels_first: {other}, of pictures --reader arrays"


def test_what_is_not_split_is_split_and_more_is_said_of_it(tmp_path: Path) -> None:
    x, y = in_arrays(waves(60))
    who = np.repeat(np.arange(20), 3)
    path = saved(tmp_path / "own", "folder", {"X": x, "y": y, "who": who})
    found = prepared(path, target="y", array="X", split_by={"group": "who"})
    assert sum(found[3]["counts"].values()) == 60
    groups = [set(np.asarray(part.arrays["groups"]).tolist()) for part in found[:3]]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 20
    heights = np.linspace(1, 3, 60)
    number = prepared(saved(tmp_path / "number", "file", {"x": x, "height": heights}), target="height", array="x")
    assert isinstance(info_of(number[3]).target, Number)
    both = saved(tmp_path / "both", "file", {"x": x, "y": np.stack([heights, -heights], 1)})
    assert len(prepared(both, target=["y0", "y1"], array="x")[3]["target"]["numbers"]) == 2


def test_lists_in_cells_are_series(tmp_path: Path) -> None:
    rows = waves(60)
    x, y = in_arrays(rows)
    lists = [[[None if value != value else value for value in step] for step in each.tolist()] for each in x]
    pandas.DataFrame({"x": lists, "y": y}).to_parquet(tmp_path / "own.parquet")
    found = prepared(tmp_path / "own.parquet", target="y", array="x")
    expected = prepared(saved(tmp_path / "own", "file", {"x": x, "y": y}), target="y", array="x")
    assert found[3] == expected[3]
    np.testing.assert_array_equal(found[0].arrays["series"], expected[0].arrays["series"])


CURVES = np.cumsum(np.random.default_rng(0).normal(size=(60, 30, 4)), 1)
KINDS_OF_60 = np.arange(60) % 3


@pytest.mark.parametrize(
    ("given", "target", "expected"),
    [
        ({"x": CURVES, "y": KINDS_OF_60}, None, {"target": "y", "target_type": "classes", "array": "x"}),
        ({"x": CURVES, "y": KINDS_OF_60 + 1.0}, "y", {"target": "y", "target_type": "classes", "array": "x"}),
        ({"x": CURVES, "y": KINDS_OF_60 / 2}, None, {"target": "y", "array": "x"}),
        ({"x": CURVES[..., :3].astype(int), "y": np.arange(60)}, None, {"target": "y", "array": "x"}),
        ({"x": CURVES[..., 0], "y": KINDS_OF_60}, "y", {"target": "y", "target_type": "classes", "array": "x"}),
        (
            {"data": CURVES[:, :, None, 0].transpose(0, 2, 1), "kind": KINDS_OF_60, "more": CURVES[..., 0]},
            "kind",
            {"target": "kind", "target_type": "classes", "array": "data", "channels_first": True},
        ),
    ],
)
def test_arrays_that_look_like_series_become_a_task(
    tmp_path: Path, given: dict[str, np.ndarray], target: str | None, expected: dict[str, Any]
) -> None:
    path = saved(tmp_path / "own", "file", given)
    proposal = propose(path, target)
    assert dict(proposal.preprocess) == {"reader": "labelled_series", "files": str(path), **expected}
    assert proposal.problem == ("classification" if "target_type" in expected else "regression")
    config = LabelledSeriesPreprocessConfig.model_validate({**proposal.preprocess, "reader": None})
    assert preprocess(find(config), config, tmp_path)[3]["length"] == 30


def test_what_arrays_are_taken_for_can_be_said(tmp_path: Path) -> None:
    """Of whole numbers of 8 bits and of shares that could be pixels they are pictures, unless it is said."""
    generator = np.random.default_rng(0)
    pixels = saved(
        tmp_path / "pixels", "file", {"x": generator.integers(0, 256, (60, 28, 28)).astype(np.uint8), "y": KINDS_OF_60}
    )
    found = propose(pixels, None)
    assert found.preprocess["reader"] == "arrays"
    assert "x: taken for pictures; of series, (N, steps, channels), say --reader labelled_series" in found.seen
    assert propose(pixels, "y", by="labelled_series").preprocess["array"] == "x"
    shares = saved(tmp_path / "shares", "file", {"x": generator.random((60, 28, 28)), "y": KINDS_OF_60})
    with pytest.raises(
        InputError, match=r"pixels are uint8 here.* Of series, \(N, steps, channels\), say --reader lab"
    ):
        propose(shares, None)
    assert propose(shares, None, by="labelled_series").preprocess["array"] == "x"
    narrow = saved(tmp_path / "narrow", "file", {"x": generator.random((60, 28, 9)), "y": KINDS_OF_60})
    assert propose(narrow, None).preprocess["array"] == "x"
    curves = saved(tmp_path / "curves", "file", {"x": CURVES, "y": KINDS_OF_60})
    assert propose(curves, None).seen[2] == "y is taken for classes; of numbers say target_type: number"
    apart = saved(tmp_path / "apart", "file", {"x": generator.normal(size=(60, 30)), "y": KINDS_OF_60})
    assert propose(apart, "y").preprocess["reader"] == "table"
    with pytest.raises(InputError, match=r"^--reader serie: is none of those that look at files: arrays, book, "):
        propose(apart, "y", by="serie")


@pytest.mark.long
def test_a_file_of_arrays_becomes_a_task(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's own line; what it writes is trained, and answers about files."""
    (command,) = (each for each in commands(ROOT / "docs/how-to/own-series.md") if "gestures" in each)
    for place, count in enumerate((200, 40)):
        x, y = in_arrays(waves(count, seed=place))
        given = {"x_train": x, "y_train": y} if count == 200 else {"x_test": x, "y_test": y}
        saved(project / f"parts{place}", "file", given)
    parts = [dict(np.load(project / f"parts{place}/own.npz")) for place in range(2)]
    np.savez(project / "gestures.npz", **parts[0], **parts[1])
    monkeypatch.chdir(project)
    bootstrap_project(project)
    words = command.removeprefix("uv run kedro task new ").split()
    made = CliRunner().invoke(new_task, words, obj=SimpleNamespace(project_path=project), catch_exceptions=False)
    assert "240 series of 15 to 20 steps, 2 channels, in the array x" in made.output
    others = ["pixels", *words[1:], "--reader", "arrays"]
    refused = CliRunner().invoke(new_task, others, obj=SimpleNamespace(project_path=project)).output
    assert "gestures.npz: x holds float32: pixels are uint8 here" in refused
    small = {"model": {"widths": [8, 8], "kernels": [5, 3]}, "train": {"epochs": 12, "threads": 1}}
    catalog = kedro_run(project, "gestures", env="local", params={"gestures": small})
    assert catalog.load("gestures.metrics")["accuracy"] > 0.95
    (project / "asked").mkdir()
    np.save(project / "asked/x.npy", parts[1]["x_test"])
    (project / "asked/odd.npy").write_bytes(b"nothing")
    asked = {"model": "gestures", "files": "asked", "threads": 1}
    answers = kedro_run(project, "predict", env="local", params={"predict": asked})
    rows = answers.load("predict.predictions_parquet").to_pylist()
    told = np.mean([row["class_1"] == kind for row, kind in zip(rows, parts[1]["y_test"], strict=True)])
    assert told == catalog.load("gestures.metrics")["accuracy"]
    (wrong,) = answers.load("predict.unreadable").to_pylist()
    assert (wrong["file"], "is no file of NumPy" in wrong["reason"]) == ("odd.npy", True)


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (
            {},
            {"array": "X"},
            r"own\.npz: preprocess\.array 'X': there is no such array \(did .*; there are x \(60 x 20 x 2\)",
        ),
        ({}, {"target": "z"}, r"own\.npz: there is no column 'z'; there are x, y$"),
        ({"x_test": np.zeros((3, 20, 2))}, {}, r"preprocess\.target 'y': there is no such column in the test rows"),
        (
            {"x_test": np.zeros((3, 20, 3)), "y_test": np.array(["slow", "quick", "slow"])},
            {},
            r"own\.npz: series of different numbers of channels: 2, 3\. Make them alike",
        ),
        ({"x": np.full((60, 20), np.nan)}, {}, r"own\.npz: the train row 1: has no value in x$"),
        ({"x": np.full((60, 20), np.inf)}, {}, r"the train row 1: x: holds inf, which is no number of 32 bits"),
        (
            {"x": np.full((60, 20), "a")},
            {},
            r"the train row 1: x: holds no series: a number for each step, or for each",
        ),
        ({"x": np.zeros((60, 5, 2, 2))}, {}, r"the train row 1: x: holds no series"),
        ({"x": np.zeros((60, 5), complex)}, {}, r"the train row 1: x: holds no series"),
        ({"x": np.array([{}] * 60)}, {}, r"own\.npz: cannot be read .*Python's objects, which are not unpickled here"),
    ],
)
def test_arrays_that_are_refused(
    tmp_path: Path, change: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    x, y = in_arrays(waves(60))
    path = saved(tmp_path / "own", "file", {"x": x, "y": y, **change})
    with pytest.raises(InputError, match=message):
        prepared(path, **{"target": "y", "array": "x", **settings})


def test_texts_in_arrays_are_read_as_those_in_tables(tmp_path: Path) -> None:
    """By the same writing before training and after it."""
    x, y = in_arrays(waves(60))
    path = saved(tmp_path / "own", "file", {"x": x, "y": np.where(y == "slow", "1,5", "2,5")})
    info = info_of(prepared(path, target="y", array="x", decimal=",", target_type="classes")[3])
    assert isinstance(info.target, Classes)
    assert info.target.classes == ["1.5", "2.5"]
    assert info.said_of(x[0], {"y": "1,5"}) == "1.5"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"array": "x", "columns": ["a"]}, "must have neither series nor columns where an array holds whole series"),
        ({"channels_first": True}, "must name the array whose channels come first"),
    ],
)
def test_an_array_is_all_of_a_series(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LabelledSeriesPreprocessConfig.model_validate({"files": "a.npz", "target": "y", **settings})


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (None, r"^x: holds no series"),
        ([[1, 2], [3]], r"^x: holds no series"),
        ([[1, "high"]], r"^x: holds no series"),
        ([1, 2, 3], r"^x: has 1 channel, and not 2$"),
        ([[1, None]], r"^has no value in x1$"),
        ([[1, 10**400]], r"^x: holds no series"),
        ([[1, 1e39]], r"^x: holds 1e\+39, which is no number of 32 bits"),
        ([], r"^x: holds no series"),
    ],
)
def test_cells_that_cannot_be_asked(tmp_path: Path, cell: Any, message: str) -> None:
    x, y = in_arrays(waves(60))
    info = info_of(prepared(saved(tmp_path / "own", "file", {"x": x, "y": y}), target="y", array="x")[3])
    read = info.reader(AnswerConfig(models=""))
    np.testing.assert_array_equal(read({"x": [[1, 2], [None, 4]]})[-2:], [[1, 2], [1, 4]])
    with pytest.raises(InputError, match=message):
        read({"x": cell})
    with pytest.raises(InputError, match=r"^lacks 'x'$"):
        read({"y": cell})


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
