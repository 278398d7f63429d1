import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kedro.config import OmegaConfigLoader

from torchloom.config import TablePreprocessConfig
from torchloom.data.download import download
from torchloom.data.readers.diabetes import FEATURES, preprocess, read_numbers
from torchloom.data.targets import Number
from torchloom.datasets.raw import AGAIN, RawFiles, Source, SourceDataset
from torchloom.errors import InputError
from torchloom.modalities import TableInfo

FILES = ["diabetes_data_raw.csv", "diabetes_target.csv"]
ROWS = np.random.default_rng(0).normal(50, 20, (20, 10)).round(3)
TARGET = np.arange(20.0) * 10 + 25


def lines(values: np.ndarray) -> str:
    return "".join(" ".join(map(str, np.atleast_1d(row).tolist())) + "\n" for row in values)


def raw(folder: Path, data: np.ndarray | str = ROWS, target: np.ndarray | str = TARGET) -> RawFiles:
    for name, content in zip(FILES, (data, target), strict=True):
        (folder / name).write_text(content if isinstance(content, str) else lines(content))
    return RawFiles(folder, dict.fromkeys(FILES, ""))


def test_rows_become_splits(tmp_path: Path) -> None:
    *splits, info = preprocess(raw(tmp_path), TablePreprocessConfig(test_fraction=0.3, validation_fraction=0.2))
    assert [split.arrays["features"].shape for split in splits] == [(11, 10), (3, 10), (6, 10)]
    assert [split.arrays["target"].shape for split in splits] == [(11,), (3,), (6,)]
    assert {values.dtype for split in splits for values in split.arrays.values()} == {np.dtype(np.float32)}
    rows = [((split.arrays["target"] - 25) / 10).astype(int) for split in splits]
    assert sorted(np.concatenate(rows)) == list(range(20))  # each row once
    assert all((np.diff(part) > 0).all() for part in rows)  # in their old order
    assert not (np.diff(rows[2]) == 1).all()  # but not in a row: drawn
    for split, part in zip(splits, rows, strict=True):  # raw values, beside their own target
        np.testing.assert_array_equal(split.arrays["features"], ROWS[part].astype(np.float32))
    assert info["kind"] == "table"
    assert info["rows"] == {"train": 11, "validation": 3, "test": 6}
    known = TableInfo.model_validate(info)
    assert known.features == FEATURES
    assert isinstance(known.target, Number)
    assert known.target.name == "disease progression"
    np.testing.assert_allclose(known.mean, ROWS[rows[0]].mean(0))  # of the training rows alone
    np.testing.assert_allclose(known.std, ROWS[rows[0]].std(0))
    assert known.target.mean == pytest.approx(TARGET[rows[0]].mean())
    assert known.target.std == pytest.approx(TARGET[rows[0]].std())


def test_the_split_is_drawn_by_the_seed(tmp_path: Path) -> None:
    tests = [
        preprocess(raw(tmp_path), TablePreprocessConfig(seed=seed))[2].arrays["target"].tolist() for seed in (0, 0, 1)
    ]
    assert tests[0] == tests[1] != tests[2]


def test_splits_may_be_left_out(tmp_path: Path) -> None:
    config = TablePreprocessConfig(test_fraction=0.0, validation_fraction=0.0)
    train, validation, test, info = preprocess(raw(tmp_path), config)
    assert info["rows"] == {"train": 20, "validation": 0, "test": 0}
    assert validation.arrays["features"].shape == test.arrays["features"].shape == (0, 10)
    np.testing.assert_array_equal(train.arrays["target"], TARGET.astype(np.float32))


def test_a_column_of_one_value_gets_the_deviation_one(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[:, 3] = 0.1  # whose computed deviation is not exactly 0
    *_, info = preprocess(raw(tmp_path, rows, np.full(20, 0.1)), TablePreprocessConfig())
    assert info["std"][3] == info["target"]["std"] == 1.0
    assert info["mean"][3] == pytest.approx(0.1)
    assert info["std"][2] > 10


@pytest.mark.parametrize(
    ("data", "target", "message"),
    [
        (lines(ROWS[:2]) + "1 2 3 4 5 6 7 8 9\n", TARGET, "{0}, line 3: has 9 columns, but should have 10"),
        (lines(ROWS) + "\n", TARGET, "{0}, line 21: has 0 columns, but should have 10"),
        (ROWS, "1 2\n", "{1}, line 1: has 2 columns, but should have 1"),
        ("1 2 nan 4 5 6 7 8 9 10\n", TARGET, "{0}, line 1: holds a number that is not finite in 32 bits"),
        (ROWS, "1\n-inf\n", "{1}, line 2: holds a number that is not finite in 32 bits"),
        (ROWS, "1\n1e39\n", "{1}, line 2: holds a number that is not finite in 32 bits"),
        (ROWS, "1\n2,5\n", "{1}, line 2: holds something else than numbers (could not convert string to float: '2,5')"),
        (ROWS, "1\n1_0\n", "{1}, line 2: holds something else than numbers (could not convert string to float: '1_0')"),
        ("\x1f\ufffd", TARGET, "{0}, line 1: holds something else than numbers (could not convert string to float: "
         "'\ufffd')"),
        ("", TARGET, "{0}: holds no rows"),
        (ROWS, "", "{1}: holds no rows"),
        (ROWS, TARGET[:-1], "{0}: has 20 rows, but diabetes_target.csv has 19"),
        (ROWS[:1], TARGET[:1], "{0}: test_fraction 0.9 and validation_fraction 0.1 leave nothing of its 1 rows to "
         "train on"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(tmp_path: Path, data: Any, target: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        preprocess(raw(tmp_path, data, target), TablePreprocessConfig(test_fraction=0.9))
    again = "" if "leave nothing" in message else f". {AGAIN}"
    assert caught.value.message == message.format(*(tmp_path / name for name in FILES)) + again


def source(env: str, folder: Path, **changes: Any) -> Source:
    conf = Path(__file__).parents[2] / "conf"
    catalog = OmegaConfigLoader(str(conf), base_env="base", default_run_env=env, env=env)["catalog"]
    entry = {key: value for key, value in catalog["diabetes_source"].items() if key != "type"}
    return SourceDataset(**entry | {"filepath": str(folder / "diabetes")} | changes).load()


def test_the_real_table_comes_with_scikit_learn(tmp_path: Path) -> None:
    from sklearn.datasets import load_diabetes

    for env in ("base", "sample"):
        files = download(source(env, tmp_path / env))
        features, target = load_diabetes(return_X_y=True, scaled=False)
        np.testing.assert_array_equal(read_numbers(files.path(FILES[0]), 10), features)
        np.testing.assert_array_equal(read_numbers(files.path(FILES[1]), 1)[:, 0], target)
        *_, info = preprocess(files, TablePreprocessConfig())
        assert info["rows"] == {"train": 319, "validation": 35, "test": 88}


def test_the_table_of_another_scikit_learn_is_taken_too(tmp_path: Path) -> None:
    """Before 1.8 a few of its numbers had more digits."""
    digits = {"4.804": "4.803999999999999", "5.247": "5.247000000000001"}
    digits |= {"5.366": "5.3660000000000005", "5.451": "5.4510000000000005"}
    here = download(source("base", tmp_path / "here"))
    table = here.path(FILES[0]).read_text()
    older = "4.803999999999999" in table
    for new, old in digits.items():
        table = table.replace(f" {old} ", f" {new} ") if older else table.replace(f" {new} ", f" {old} ")
    for name, text in zip(FILES, (table, here.path(FILES[1]).read_text()), strict=True):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    there = download(source("base", tmp_path / "there", places=[str(tmp_path)]))
    assert there.path(FILES[0]).read_bytes() != here.path(FILES[0]).read_bytes()
    ours, theirs = (read_numbers(files.path(FILES[0]), 10).astype(np.float32) for files in (here, there))
    np.testing.assert_array_equal(ours, theirs)
