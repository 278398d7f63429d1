"""Files of NumPy: as tables, and as pictures with their classes."""

import io
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow
import pytest
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project

from conftest import ROOT, kedro_run
from tests.test_docs import commands
from torchloom.cli import new_task
from torchloom.config import ArraysPreprocessConfig
from torchloom.data.arrays import MAGIC, pictures_in, read_table, series_in, stacked
from torchloom.data.readers import propose
from torchloom.data.readers.arrays import find, preprocess
from torchloom.data.rows import read_rows
from torchloom.data.tables import opened_table
from torchloom.errors import InputError

# ---- tables --------------------------------------------------------------------------------------------------------

RECORDS = np.array([(1, "a", 2.5), (2, "ü", np.nan)], [("n", ">i4"), ("word", "U3"), ("value", "f4")])


def saved(path: Path, array: Any = None, **arrays: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if arrays:
        np.savez_compressed(path, **arrays)
    else:
        np.save(path, array)
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return read_rows(path)


def test_an_array_is_a_table(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert rows_of(saved(tmp_path / "rows.npy", numbers)) == [
        {"x0": float(2 * row), "x1": float(2 * row + 1)} for row in range(3)
    ]
    assert rows_of(saved(tmp_path / "column.npy", np.array([True, False]))) == [{"x": True}, {"x": False}]
    assert rows_of(saved(tmp_path / "records.npy", RECORDS))[0] == {"n": 1, "word": "a", "value": 2.5}
    dates = np.array(["2024-01-31", "NaT"], "datetime64[D]")
    many = saved(tmp_path / "many.npz", x=numbers[:2], y=np.array([b"no", b"yes"]), when=dates, seed=np.int64(3))
    rows = rows_of(many)
    assert [{name: str(cell) for name, cell in row.items()} for row in rows] == [
        {"x0": "0.0", "x1": "1.0", "y": "no", "when": "2024-01-31"},
        {"x0": "2.0", "x1": "3.0", "y": "yes", "when": "None"},
    ]
    assert rows_of(saved(tmp_path / "one.npz", x=np.ones((2, 1)), y=np.arange(2)))[1] == {"x": 1.0, "y": 1}
    with many.open("rb") as file:
        assert read_table(pyarrow.BufferReader(file.read())).num_rows == 2  # out of a .gz


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.arange(3), "b": np.arange(4)}, r"is no table, whose columns are equally long: a 3, b 4\. Save one"),
        (
            {"a": np.zeros((3, 4, 5))},
            r"has 3 x 4 x 5 values in a, and is no table\. Pictures are for",
        ),
        ({"a": np.zeros(3, complex)}, r"a holds complex128, of which there is no column"),
        ({"a": np.zeros((3, 2)), "a0": np.zeros(3)}, r"has two columns 'a0'\. Rename one"),
        ({"a": np.float64(3)}, r"is no table, .*: nothing"),
    ],
)
def test_what_is_no_table(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message), opened_table(saved(tmp_path / "x.npz", **arrays)):
        pass


class Trap:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_nothing_is_unpickled(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trap = np.array([Trap(), 1], dtype=object)
    path = saved(Path(name), **({"x": trap} if name == "x.npz" else {"array": trap}))
    with (
        pytest.raises(InputError, match=r"it holds Python's objects, which are not unpickled"),
        opened_table(path),
    ):
        pass
    assert not Path("sprung").exists()


def bomb() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(60_000_000))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", b"", r"is no file of NumPy: \.npy with an array, or \.npz with several"),
        ("x.npy", b"\x80\x04K\x01.", r"is no file of NumPy"),  # a pickle
        ("x.npy", MAGIC + b"\x01\x00v\x00nonsense", r"cannot be read as arrays of NumPy \("),
        ("x.npz", b"PK\x03\x04 and no more", r"cannot be read as arrays of NumPy \("),
        ("x.npz", bomb(), r"unpacks to 60,000,000 bytes, far more than it has"),
    ],
    ids=["empty", "pickle", "nonsense", "cut", "bomb"],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message), opened_table(tmp_path / name):
        pass


# ---- pictures ------------------------------------------------------------------------------------------------------


def pictures(count: int = 60, seed: int = 0, size: tuple[int, ...] = (8, 6)) -> tuple[np.ndarray, np.ndarray]:
    """Dark ones and light ones, and which they are: 3 and 7."""
    generator = np.random.default_rng(seed)
    labels = np.array([3, 7] * (count // 2))
    light = (labels == 7).reshape(-1, *(1 for _ in size))
    return (generator.integers(0, 120, (count, *size)) + 100 * light).astype(np.uint8), labels


def prepared(path: Path, **settings: Any) -> Any:
    config = ArraysPreprocessConfig(files=str(path), **settings)
    return preprocess(find(config), config, path.parent)


@pytest.mark.parametrize("form", ["mnist", "medmnist", "folder", "splits", "alone"])
def test_arrays_by_all_sorts_of_names(tmp_path: Path, form: str) -> None:
    x, y = pictures()
    path = tmp_path / "own"
    if form == "mnist":
        path = saved(tmp_path / "x.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    elif form == "medmnist":
        parts = {"train": slice(0, 36), "val": slice(36, 40), "test": slice(40, 60)}
        arrays = {f"{name}_images": x[part] for name, part in parts.items()}
        arrays |= {f"{name}_labels": y[part, None] for name, part in parts.items()}
        path = saved(tmp_path / "x.npz", **arrays)
    elif form == "folder":
        for name, array in {"X_train": x[:40], "y_train": y[:40], "X_test": x[40:], "y_test": y[40:]}.items():
            saved(path / f"{name}.npy", array)
    elif form == "splits":
        saved(path / "train.npz", x=x[:40], y=y[:40])
        saved(path / "test.npz", x=x[40:], y=y[40:])
    else:
        path = saved(tmp_path / "x.npz", pictures=x, kinds=y, mean=x.mean())
    train, validation, test, info = prepared(path)
    assert (info["shape"], info["target"]["classes"]) == ([1, 8, 6], ["3", "7"])
    counts = [len(part.arrays["labels"]) for part in (train, validation, test)]
    assert counts == ([48, 6, 6] if form == "alone" else [36, 4, 20])
    if form != "alone":
        np.testing.assert_array_equal(test.arrays["images"][..., 0], x[40:])
        np.testing.assert_array_equal(test.arrays["labels"], y[40:] == 7)
        assert np.isclose(info["mean"][0], np.asarray(train.arrays["images"]).mean() / 255)
    assert propose(path, None).preprocess == {"reader": "arrays", "files": str(path)}


def test_channels_come_last_or_first() -> None:
    x, _ = pictures(4, size=(8, 6, 3))
    np.testing.assert_array_equal(stacked("x", x), x)
    np.testing.assert_array_equal(stacked("x", x.transpose(0, 3, 1, 2)), x)
    np.testing.assert_array_equal(stacked("x", x[..., 0] > 100)[..., 0], 255 * (x[..., 0] > 100))


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({"x": None}, {}, r"has no array of pictures, .* to train on\. Say which is, preprocess\.pictures: y \(60\)$"),
        ({"z": np.arange(60)}, {}, r"has more than one array with a class for each .*preprocess\.target: x \(60 x 8 x"),
        (
            {},
            {"target": "z"},
            r"^preprocess\.target z: is no array with a class for each picture in .*; there are",
        ),
        ({"y": np.linspace(0, 1, 60)}, {}, r"y holds float64, and no classes: whole numbers, or words"),
        ({"x": np.zeros((60, 8, 6))}, {}, r"x holds float64: pixels are uint8 here.*\(255 \* x\)\.round\(\)"),
        ({"x": np.zeros((60, 8, 6, 2), np.uint8)}, {}, r"x has 60 x 8 x 6 x 2 values: pictures are \(N, H, W\)"),
        ({"x_test": np.zeros((4, 8, 6), np.uint8)}, {}, r"the test pictures have no y with a class for each$"),
        ({"train_x": np.zeros(3)}, {}, r"has two arrays 'x' to train, one of them train_x"),
        ({"y": np.arange(60) // 59}, {}, r"the test data hold no image of '1'; every class needs at least one"),
    ],
)
def test_what_is_wrong_with_arrays_is_told(
    tmp_path: Path, change: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    x, y = pictures()
    arrays = {name: array for name, array in {"x": x, "y": y, **change}.items() if array is not None}
    with pytest.raises(InputError, match=message):
        prepared(saved(tmp_path / "x.npz", **arrays), **settings)


def test_pictures_of_a_file_are_samples(tmp_path: Path) -> None:
    x, y = pictures(4)
    found = list(pictures_in(saved(tmp_path / "x.npz", x_test=x, y_test=y), len))  # type: ignore[arg-type]
    assert [(name, row) for name, _, row in found] == [(f"x_test:{place}", {"y": y[place]}) for place in range(4)]
    with pytest.raises(InputError, match=r"^holds no pictures$"):
        list(pictures_in(saved(tmp_path / "y.npz", y=y), len))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "dimensions", "found"),
    [
        ({"x": (2, 9), "y": (2,)}, 2, {"x": [0, 1]}),
        ({"X": (2, 9), "Y": (2,)}, 2, {"X": [0, 1]}),
        (
            {"monday/x": (2, 9), "monday/y": (2,), "b_c/x": (2, 9), "b_c/y": (2, 1)},
            2,
            {"monday/x": [0, 1], "b_c/x": [0, 1]},
        ),
        ({"x": (2, 9), "y": (2,), "delta_x": (2, 9)}, 2, {"x": [0, 1]}),
        ({"series": (2, 9), "y": (2,), "other_y": (3,)}, 2, {"series": [0, 1]}),
        ({"p/series": (2, 9), "p/y": (2,), "q/series": (1, 9)}, 2, {"p/series": [0, 1], "q/series": [None]}),
        ({"x": (9,), "y": ()}, 2, {"x": [0]}),
        ({"x": (9,), "y": (1,)}, 2, {"x": [0]}),
        ({"x": (9, 2), "y": (1, 1)}, 3, {"x": [0]}),
        ({"a": (9,), "b": (8,), "y": (1,)}, 2, {"a": [None], "b": [None]}),
        ({"x": (2, 9, 1), "y": (3,)}, 2, {"x": [None, None]}),
    ],
)
def test_series_and_what_is_told_of_them_are_found_by_their_names(
    given: dict[str, tuple[int, ...]], dimensions: int, found: dict[str, list[int | None]]
) -> None:
    """Case aside, in one file or in a place of their own; the target is the number of the series."""
    arrays = {name: np.arange(np.prod(shape, dtype=int)).reshape(shape) for name, shape in given.items()}
    told: dict[str, list[Any]] = {name: [] for name in found}
    for name, number, row in series_in(arrays, "x", ["y"], dimensions):
        one = len(given[name]) < dimensions
        assert (number is None) == one
        np.testing.assert_array_equal(row["x"], arrays[name] if one else arrays[name][number])
        told[name].append(row.get("y"))
    assert told == found


@pytest.mark.parametrize(
    ("given", "dimensions"),
    [
        ({"series": (5, 9), "label": (5,)}, 2),
        ({"x_new": (5, 9), "y_new": (5,)}, 2),
        ({"series": (5, 9, 2), "label": (5,)}, 3),
        ({"y": (5,)}, 2),
        ({"y0": (5,), "y1": (5,)}, 2),
    ],
)
def test_arrays_of_which_it_is_unclear_whether_they_are_series_are_none(
    given: dict[str, tuple[int, ...]], dimensions: int
) -> None:
    arrays = {name: np.zeros(shape) for name, shape in given.items()}
    with pytest.raises(InputError, match=r"^holds no series, neither in an array x nor clearly in .*\)\. Call it x$"):
        list(series_in(arrays, "x", ["y0", "y1"] if "y0" in given else ["y"], dimensions))


def test_a_file_of_arrays_becomes_a_task(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's own line; what it writes is trained."""
    (command,) = (each for each in commands(ROOT / "docs/how-to/own-images.md") if "task new" in each)
    x, y = pictures(80)
    saved(project / "mnist.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    monkeypatch.chdir(project)
    bootstrap_project(project)
    given = command.removeprefix("uv run kedro task new ").split()
    made = CliRunner().invoke(new_task, given, obj=SimpleNamespace(project_path=project), catch_exceptions=False)
    assert "train: 60 pictures of 8 x 6 x 1, test: 20 pictures of 8 x 6 x 1" in made.output
    small = {"model": {"name": "mlp", "hidden": [8], "width": None}, "train": {"epochs": 8, "threads": 1}}
    catalog = kedro_run(project, "numerals", env="local", params={"numerals": small}, to_nodes=["numerals.train"])
    assert catalog.load("numerals.history")[-1]["val_accuracy"] == 1.0
