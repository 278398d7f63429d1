"""What is to be told of a user's rows: labels, of which several may hold, and several numbers."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
from pyarrow import parquet

from tests.tables import Row, as_columns, films, reviews, write
from torchloom.config import TableFilesPreprocessConfig, TextFilesPreprocessConfig
from torchloom.data.readers import table, texts
from torchloom.data.splits import choice_of_labels
from torchloom.data.targets import Classes, Labels, Number, Numbers
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.modalities import read_info

TAGS = ["19th century", "Komödie", "drama", "horror"]
Prepared = tuple[Tensors, Tensors, Tensors, dict[str, Any]]


def prepared(path: Path, **settings: Any) -> Prepared:
    config = TableFilesPreprocessConfig.model_validate({"files": str(path), **settings})
    return table.preprocess(table.find(config), config, Path())


def marks(part: Tensors) -> np.ndarray:
    return np.asarray(part.arrays["labels"])


# ---- labels --------------------------------------------------------------------------------------------------------


def test_labels_apart_by_a_separator(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = films(300)
    rows[0] |= {"tags": " ; horror;;horror ; ", "laughs": 0}
    with caplog.at_level(logging.INFO):
        *parts, known = prepared(write(tmp_path / "films.csv", rows), target="tags", separator=";")
    target = read_info(known).target
    assert isinstance(target, Labels)
    assert target.labels == TAGS
    assert (target.column, target.separator, target.least) == ("tags", ";", [0.5] * 4)
    assert "tags" not in known["features"]
    assert [len(marks(part)) for part in parts] == pytest.approx([216, 24, 60], abs=3)
    assert sum(len(marks(part)) for part in parts) == 300  # a film without a tag is one of which none holds
    assert marks(parts[0]).dtype == np.uint8
    features = np.asarray(parts[0].arrays["features"])
    held = dict(zip(TAGS, marks(parts[0]).T, strict=True))
    np.testing.assert_array_equal(held["Komödie"], features[:, known["features"].index("laughs")] > 5)
    share = [marks(part).mean(0) for part in (parts[0], parts[2])]
    np.testing.assert_allclose(share[0], share[1], atol=0.03)
    assert any("with labels: 19th century" in line and "none of them" in line for line in caplog.messages)


def test_columns_of_yes_and_no_are_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = as_columns(films(120), TAGS)
    spellings = {"yes": ["yes", "TRUE", "1", "1.0"], "no": ["no", "False", "0", "0.0"]}
    for number, row in enumerate(rows):
        row["horror"] = spellings[row["horror"]][number % 4]
    rows[5]["drama"] = rows[7]["horror"] = "?"
    *parts, known = prepared(write(tmp_path / "films.csv", rows), target=["horror", "drama"])
    target = read_info(known).target
    assert isinstance(target, Labels)
    assert (target.labels, target.column) == (["horror", "drama"], None)
    assert "train: 2 rows without 'horror', 'drama' are left out" in caplog.messages
    assert sum(len(marks(part)) for part in parts) == 118
    features = np.asarray(parts[0].arrays["features"])
    np.testing.assert_array_equal(marks(parts[0])[:, 0], features[:, known["features"].index("deaths")] > 6)


def test_lists_of_a_file_are_labels(tmp_path: Path) -> None:
    rows: list[Row] = [{**row, "tags": [tag for tag in row["tags"].split(";") if tag]} for row in films(120)]
    rows[3]["tags"] = None  # not known
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "films.parquet")
    pandas.DataFrame(rows).to_json(tmp_path / "films.jsonl", orient="records", lines=True)
    plain = [{**row, "tags": ";".join(row["tags"] or [])} for number, row in enumerate(rows) if number != 3]
    expected = prepared(write(tmp_path / "films.csv", plain), target="tags", separator=";")
    for name in ("films.parquet", "films.jsonl"):
        found = prepared(tmp_path / name, target="tags")
        assert found[3]["target"] == {**expected[3]["target"], "separator": None}
        np.testing.assert_array_equal(marks(found[0]), marks(expected[0]))
    arrays = pandas.read_parquet(tmp_path / "films.parquet")  # with an array of numpy in each cell
    config = TableFilesPreprocessConfig(entry="films", target="tags")
    np.testing.assert_array_equal(marks(table.preprocess_entry(arrays, config)[0]), marks(expected[0]))


def test_labels_of_texts(tmp_path: Path) -> None:
    rows = [{**row, "about": ";".join(w for w in ("soup", "rice") if w in row["review"])} for row in reviews(100)]
    config = TextFilesPreprocessConfig(
        files=str(write(tmp_path / "reviews.csv", rows)), target="about", separator=";", text="review"
    )
    train, *_, known = texts.preprocess(texts.find(config), config, tmp_path)
    assert known["target"]["labels"] == ["rice", "soup"]
    assert marks(train).shape == (known["documents"]["train"], 2)
    toxic = [{**row, **dict.fromkeys("abcdef", number % 2)} for number, row in enumerate(reviews(60))]
    assert texts.takes(write(tmp_path / "toxic.csv", toxic), None)  # many columns of yes and no beside it


def test_labels_that_no_training_row_has_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "films/train.csv", films(100))
    write(tmp_path / "films/test.csv", [{**row, "tags": "horror;western"} for row in films(20, 1)])
    *_, test, known = prepared(tmp_path / "films", target="tags", separator=";")
    assert known["target"]["labels"] == TAGS
    assert marks(test).sum(0).tolist() == [0, 0, 0, 20]
    assert "test: 20 rows have labels that no training row has, and are judged without: 'western'" in caplog.messages


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "tags", "target_type": "labels"}, r"'tags': '.*' is neither yes nor no.*say preprocess\.separator"),
        (
            {"target": ["laughs", "tags"]},
            r"'tags': holds '.*'\. Several columns can be told at once",
        ),
        ({"target": ["flag", "never"]}, r"preprocess\.target: 'never' holds of no training row.*Leave it out"),
        ({"target": ["laughs", "lost"]}, r"preprocess\.target 'lost': there is no such column in the train rows"),
        ({"target": "empty", "separator": ";"}, r"preprocess\.target 'empty': no training row has a label"),
    ],
)
def test_what_cannot_be_labels(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    rows = [{**row, "flag": number % 2, "never": "no", "empty": ""} for number, row in enumerate(films(60))]
    with pytest.raises(InputError, match=message):
        prepared(write(tmp_path / "films.csv", rows), **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"target": ["a", "b"], "separator": ";"},
        {"target": ["a", "b"], "target_type": "classes"},
        {"target": "a", "separator": ";", "target_type": "number"},
        {"target": ["a", "a"]},
        {"target": []},
        {"target": ""},
    ],
)
def test_what_the_block_cannot_say(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|should"):
        TableFilesPreprocessConfig.model_validate({"files": "x", **settings})


def test_each_label_gives_its_share_and_keeps_a_row() -> None:
    generator = np.random.default_rng(0)
    labels = generator.random((1000, 6)) < [0.5, 0.3, 0.1, 0.02, 0.01, 0.003]
    chosen = choice_of_labels(labels, 0.2, 0)
    assert chosen.mean() == pytest.approx(0.2, abs=0.02)
    np.testing.assert_allclose(labels[chosen].sum(0), 0.2 * labels.sum(0), atol=4)
    for fraction in (0.2, 0.5, 0.9):
        assert labels[~choice_of_labels(labels, fraction, 1)].any(0).all()
    shared = np.array([[1, 0, 1], [1, 0, 0], [0, 1, 1], [0, 1, 0]], dtype=bool)  # the last label in half of both others
    for seed in range(20):
        assert shared[~choice_of_labels(shared, 0.5, seed)].any(0).all()


# ---- numbers -------------------------------------------------------------------------------------------------------


def test_several_numbers(tmp_path: Path) -> None:
    train, *_, known = prepared(write(tmp_path / "films.csv", films(100)), target=["lat", "minutes"])
    target = read_info(known).target
    assert isinstance(target, Numbers)
    numbers = np.asarray(train.arrays["target"])
    assert (numbers.shape, numbers.dtype) == ((72, 2), np.float32)
    assert [each.name for each in target.numbers] == ["lat", "minutes"]
    np.testing.assert_allclose([each.mean for each in target.numbers], numbers.mean(0), rtol=1e-6)
    np.testing.assert_allclose([each.std for each in target.numbers], numbers.std(0), rtol=1e-4)
    assert known["features"] == ["laughs", "deaths", "tears", "tags"]


def test_columns_of_0_and_1_are_numbers_where_it_is_said(tmp_path: Path) -> None:
    rows = [{**row, "a": number % 2, "b": number % 3 % 2} for number, row in enumerate(films(60))]
    path = write(tmp_path / "films.csv", rows)
    assert isinstance(read_info(prepared(path, target=["a", "b"])[3]).target, Labels)
    assert isinstance(read_info(prepared(path, target=["a", "b"], target_type="number")[3]).target, Numbers)


def test_a_scale_of_logarithms(tmp_path: Path) -> None:
    rows = [{**row, "price": 10.0 ** (number % 6) - 1} for number, row in enumerate(films(60))]
    path = write(tmp_path / "films.csv", rows)
    train, *_, known = prepared(path, target="price", target_scale="log")
    logs = np.log1p(np.asarray(train.arrays["target"], dtype=np.float64))
    assert (known["target"]["mean"], known["target"]["std"]) == pytest.approx((logs.mean(), logs.std()), rel=1e-6)
    rows[7]["price"] = -1.0
    with pytest.raises(InputError, match=r"^preprocess\.target_scale: 'price' holds -1, and log takes numbers above"):
        prepared(write(path, rows), target="price", target_scale="log")


def test_a_few_numbers_far_beyond_all_others_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = films(400)
    assert prepared(write(tmp_path / "films.csv", rows), target="minutes")[3]["target"]["scale"] == "linear"
    for row in rows[::200]:
        row["minutes"] = 1e9
    path = write(tmp_path / "films.csv", rows)
    found = prepared(path, target="minutes", test_fraction=0.01)[3]["target"]
    assert found["scale"] == "robust"
    assert found["mean"] == pytest.approx(105, abs=10)
    assert found["std"] < 50
    assert "'minutes': a few numbers lie far beyond all others" in caplog.text
    assert prepared(path, target="minutes", target_scale="linear")[3]["target"]["scale"] == "linear"


# ---- what a row says -----------------------------------------------------------------------------------------------


def test_what_a_row_tells() -> None:
    classes = Classes(classes=["a", "1"], name="x", missing=["unknown"])
    assert [classes.told({"x": cell}) for cell in ("a", 1.0, "new", "", None, "Unknown")] == [
        "a", "1", "new", None, None, None,
    ]  # fmt: skip
    assert classes.told({}) is Classes(classes=["a", "b"]).told({"x": "a"}) is None
    apart = Labels(labels=["a", "b"], column="x", separator=";")
    assert [apart.told({"x": cell}) for cell in ("a; c", "", None)] == [{"a", "c"}, set(), set()]
    assert apart.told({"a": 1}) is None
    columns = Labels(labels=["a", "b"])
    assert columns.told({"a": "yes", "b": 0}) == {"a"}
    assert columns.told({"a": "yes"}) is columns.told({"a": "yes", "b": ""}) is None
    with pytest.raises(ValueError, match="'perhaps' is neither yes nor no"):
        columns.told({"a": "yes", "b": "perhaps"})
    listed = Labels(labels=["a", "b"], column="x")
    assert [listed.told({"x": cell}) for cell in (["a", "b"], [], None)] == [{"a", "b"}, set(), None]
    number = Number(name="x", mean=0.0, std=1.0)
    numbers = Numbers(numbers=[number, Number(name="y", mean=0.0, std=1.0)])
    assert number.told({"x": "0"}) == [0.0]
    assert numbers.told({"x": "0", "y": 2}) == [0.0, 2.0]
    assert numbers.told({"x": "0", "y": "?"}) is None


def test_lists_hold_labels_and_nothing_else(tmp_path: Path) -> None:
    rows = [{"x": number, "tags": [["a"], ["b", None], ["a", "b"]][number % 3]} for number in range(30)]
    config = TableFilesPreprocessConfig(entry="rows", target="tags", columns={"x": "number"})
    assert table.preprocess_entry(rows, config)[3]["target"]["labels"] == ["a", "b"]
    rows[3]["tags"] = [["a"]]
    with pytest.raises(InputError, match=r"preprocess\.target 'tags': .* is of the type list"):
        table.preprocess_entry(rows, config)
