"""A user's own labelled texts: where they are, what they are cut into, and what becomes of them."""

import gzip
import json
import logging
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from tests.tables import reviews, write
from torchloom.config import TextFilesPreprocessConfig
from torchloom.data.documents import FILE
from torchloom.data.readers.texts import find, preprocess, preprocess_entry
from torchloom.data.targets import Classes, Number
from torchloom.data.text import Tokenizer
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.modalities import DocumentInfo, read_info

Prepared = tuple[Tensors, Tensors, Tensors, dict[str, Any]]


def prepared(path: Path, target: str | None = "verdict", **settings: Any) -> Prepared:
    config = TextFilesPreprocessConfig.model_validate({"files": str(path), "target": target, **settings})
    return preprocess(find(config), config, Path())


def texts_in(part: Tensors) -> list[str]:
    text, starts = np.asarray(part.arrays["text"]).tobytes(), np.asarray(part.arrays["text_starts"])
    return [text[start:end].decode() for start, end in pairwise(starts)]


def tokens_in(part: Tensors) -> list[list[int]]:
    starts = np.asarray(part.arrays["starts"])
    return [each.tolist() for each in np.split(np.asarray(part.arrays["tokens"]), starts[1:-1])]


# ---- where they are ------------------------------------------------------------------------------------------------


def test_a_column_of_a_table(tmp_path: Path) -> None:
    rows = reviews(100)
    train, validation, test, known = prepared(write(tmp_path / "reviews.csv", rows))
    info = read_info(known)
    assert isinstance(info, DocumentInfo)
    assert info.target == Classes(classes=["好评", "差评"], name="verdict")
    assert info.column == "review"
    assert known["documents"] == {"train": 72, "validation": 8, "test": 20}
    labels = {row["review"]: row["verdict"] for row in rows}
    found = [text for part in (train, validation, test) for text in texts_in(part)]
    assert sorted(found) == sorted(labels)
    for part in (train, validation, test):
        assert part.arrays["tokens"].dtype == np.int32
        assert [labels[text] for text in texts_in(part)] == [
            info.target.classes[label] for label in part.arrays["labels"]
        ]
        assert [info.tokenizer.encode(text).tolist() for text in texts_in(part)] == tokens_in(part)


@pytest.mark.parametrize("kind", ["tsv", "jsonl", "parquet", "zip", "gz", "entry"])
def test_the_same_in_other_files(tmp_path: Path, kind: str) -> None:
    rows = reviews(60)
    plain = prepared(write(tmp_path / "plain/reviews.csv", rows))
    path, frame = tmp_path / f"reviews.{kind}", pandas.DataFrame(rows)
    csv = write(tmp_path / "csv/reviews.csv", rows)
    if kind == "tsv":
        write(path, rows, mark="\t")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    elif kind == "parquet":
        frame.to_parquet(path)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(csv, "all/reviews.csv")
            archive.writestr("__MACOSX/all/._reviews.csv", b"\0")
            archive.writestr("readme.txt", "reviews of meals")
    elif kind == "gz":
        path = path.with_name("reviews.csv.gz")
        path.write_bytes(gzip.compress(csv.read_bytes()))
    if kind == "entry":
        found = preprocess_entry(frame, TextFilesPreprocessConfig(entry="reviews", target="verdict"))
    else:
        found = prepared(path)
    assert found[3] == plain[3]
    for one, other in zip(found[:3], plain[:3], strict=True):
        for name, array in other.arrays.items():
            if not name.startswith(FILE):  # what samples are called
                np.testing.assert_array_equal(one.arrays[name], array)


def test_files_with_the_names_of_splits(tmp_path: Path) -> None:
    write(tmp_path / "reviews/train.csv", reviews(40))
    write(tmp_path / "reviews/test.csv", reviews(12, seed=1))
    _, _, test, known = prepared(tmp_path / "reviews")
    assert known["documents"] == {"train": 36, "validation": 4, "test": 12}
    assert texts_in(test) == [row["review"] for row in reviews(12, seed=1)]


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    for split, count in {"train": 20, "test": 6}.items():
        for number, row in enumerate(reviews(count)):
            path = tmp_path / f"meals/{split}/{row['verdict']}/{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(row["review"], encoding="utf-8")
    _, _, test, known = prepared(tmp_path / "meals", target=None)
    info = read_info(known)
    assert isinstance(info, DocumentInfo)
    assert (info.target, info.column) == (
        Classes(classes=["好评", "差评"], name="class", folders=True),
        None,
    )
    assert known["documents"]["test"] == 6
    assert sorted(texts_in(test)) == sorted(row["review"] for row in reviews(6))
    with pytest.raises(InputError, match=r"of text files the folders are the classes; leave target and text out"):
        prepared(tmp_path / "meals", target="verdict")
    with pytest.raises(InputError, match=r"preprocess\.target must name the column"):
        prepared(write(tmp_path / "reviews.csv", reviews(10)), target=None)


# ---- what they are -------------------------------------------------------------------------------------------------


def test_labels_are_what_the_file_says(tmp_path: Path) -> None:
    names = ["0", "1", "01", "True", "好评"]
    rows = [{"label": names[number % 5], "text": f"text number {number} of many"} for number in range(50)]
    assert prepared(write(tmp_path / "a.csv", rows), target="label")[3]["target"]["classes"] == [
        "0", "01", "1", "True", "好评",
    ]  # fmt: skip


def test_texts_and_labels_that_are_missing_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = reviews(60)
    rows[3]["verdict"] = ""
    rows[4]["review"] = rows[7]["review"] = " "
    rows[8]["review"] = "-- ;"  # no word
    with caplog.at_level(logging.WARNING):
        known = prepared(write(tmp_path / "reviews.csv", rows))[3]
    assert "train: 1 row without 'verdict' is left out" in caplog.messages
    assert "train: 3 rows without a text in 'review' are left out" in caplog.messages
    assert sum(known["documents"].values()) == 56


def test_a_number_that_is_told_from_a_text(tmp_path: Path) -> None:
    train, _, _, known = prepared(write(tmp_path / "reviews.csv", reviews(100)), target="stars")
    info = read_info(known)
    assert isinstance(info.target, Number)
    stars = {row["review"]: row["stars"] for row in reviews(100)}
    numbers = np.asarray(train.arrays["target"])
    assert numbers.dtype == np.float32
    assert numbers.tolist() == [stars[text] for text in texts_in(train)]
    assert info.target.mean == pytest.approx(numbers.mean())


@pytest.mark.parametrize("tokens", ["words", "characters", "subwords"])
def test_what_is_known_is_of_the_training_texts(tmp_path: Path, tokens: str) -> None:
    """Other test texts change nothing of it."""
    for name, seed in {"one": 1, "other": 2}.items():
        write(tmp_path / f"{name}/train.csv", reviews(40))
        write(tmp_path / f"{name}/test.csv", [{**row, "review": f"ωβ {row['review']}"} for row in reviews(12, seed)])
    one, other = (prepared(tmp_path / name, tokens=tokens) for name in ("one", "other"))
    assert one[3] == other[3]
    for name, array in one[0].arrays.items():
        np.testing.assert_array_equal(array, other[0].arrays[name])
    assert texts_in(one[2]) != texts_in(other[2])


@pytest.mark.parametrize("tokens", ["words", "characters", "subwords"])
@pytest.mark.parametrize("lower_case", [True, False])
def test_tokens(tokens: Any, lower_case: bool) -> None:
    texts = ["Good food, GOOD people", "很好吃\uff0c很快", "good food again"]
    tokenizer = Tokenizer.learnt(tokens, texts, 400, 2, lower_case)
    assert tokenizer.vocabulary[:2] == ["<pad>", "<unk>"]
    assert Tokenizer.learnt(tokens, texts, 400, 2, lower_case) == tokenizer
    assert Tokenizer.model_validate_json(tokenizer.model_dump_json()) == tokenizer
    same = tokenizer.encode("GOOD").tolist() == tokenizer.encode("good").tolist()
    assert same == (lower_case or tokens == "words")
    encoded = tokenizer.encode("good 很 zebra")
    assert encoded.dtype == np.int64
    expected = {"words": "good 很 <unk>", "characters": "good 很 <unk>e<unk><unk>a", "subwords": "good 很 zebra"}
    if lower_case or tokens != "characters":
        assert tokenizer.decode(encoded) == expected[tokens]


def test_subwords_are_learnt_and_lose_nothing() -> None:
    tokenizer = Tokenizer.learnt("subwords", ["low lower lowest", "new newer newest"] * 9, 300, 2, False)
    assert len(tokenizer.encode(" lower")) < len(" lower")
    for text in ("Lower!\n\tnewest  ", "北京 🚀 é", "<pad> <unk>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert not {0, 1} & set(tokenizer.encode("<pad> <unk>").tolist())
    broken = Tokenizer(kind="subwords", vocabulary=["a", "b"], merges=[("a", "z")])
    with pytest.raises(InputError, match=r"the subwords of the tokenizer do not belong together"):
        broken.encode("a")


def test_without_the_library_for_subwords_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(
        InputError,
        match=r"subwords need the package tokenizers.*uv sync --extra subwords, .*pip install 'torchloom\[subwords\]'",
    ):
        Tokenizer.learnt("subwords", ["a text"], 300, 1, True)


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_the_column_of_texts_is_found_or_asked_for(tmp_path: Path) -> None:
    two = [{**row, "name": f"guest {number}"} for number, row in enumerate(reviews(40))]
    path = write(tmp_path / "two.csv", two)
    assert prepared(path)[3]["column"] == "review"
    assert prepared(path, text="name")[3]["column"] == "name"
    with pytest.raises(
        InputError, match=r"^preprocess\.text 'reviews': there is no such column .did you mean 'review'"
    ):
        prepared(path, text="reviews")
    none = [{"verdict": "ab"[number % 2], "age": number} for number in range(20)]
    with pytest.raises(InputError, match=r"none\.csv: no column looks like texts\. Name the one that is.* age$"):
        prepared(write(tmp_path / "none.csv", none))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"reviews\.csv: holds no rows"),
        ("verdict,review\n好,很好吃很好吃很好吃\n".encode("gbk"), r"reviews\.csv: is not a text in UTF-8"),
        (b"verdict,review\ngood,one,two\n", r"reviews\.csv: line 2 has 3 cells"),
        (b"verdict,review\n" + b"good,a text of many words\n" * 9, r"preprocess\.target 'verdict': is 'good' in every"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "reviews.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        prepared(tmp_path / "reviews.csv", text="review")


def test_packed_files_that_are_wrong(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "x")
    (tmp_path / "no.zip").write_bytes(b"no zip")
    (tmp_path / "no.csv.gz").write_bytes(gzip.compress(b"verdict,review\n" * 999)[:-9])
    (tmp_path / "broken.csv.gz").write_bytes(gzip.compress(b"verdict,review\n" * 999)[:20] + b"\xff" * 40)
    for name, message in {
        "broken.csv.gz": "cannot be unpacked",
        "two.zip": "packs 2 CSV files, and must pack one",
        "no.zip": "cannot be unpacked",
        "no.csv.gz": "cannot be unpacked",
    }.items():
        with pytest.raises(InputError, match=rf"{name}: {message}"):
            prepared(tmp_path / name)


def test_tables_and_text_files_in_one_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "mixed/reviews.csv", reviews(10))
    (tmp_path / "mixed/readme.txt").write_text("reviews")
    with pytest.raises(InputError, match=r"mixed: holds tables and text files"):
        prepared(tmp_path / "mixed")


def test_a_folder_may_be_called_as_a_gap_is(tmp_path: Path) -> None:
    for number, row in enumerate(reviews(30)):
        path = tmp_path / "meals" / ("none" if row["verdict"] == "差评" else "some") / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(row["review"])
    known = prepared(tmp_path / "meals", target=None)[3]
    assert known["target"]["classes"] == ["none", "some"]
    assert sum(known["documents"].values()) == 30


def test_a_split_without_the_column_of_texts_is_named(tmp_path: Path) -> None:
    write(tmp_path / "reviews/train.csv", reviews(40))
    write(tmp_path / "reviews/test.csv", [{"verdict": row["verdict"], "said": row["review"]} for row in reviews(12)])
    with pytest.raises(InputError, match=r"the test rows have no column 'review', which others have the texts in"):
        prepared(tmp_path / "reviews")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (b"bytes", r"b'bytes' is of the type bytes, and no word"),
        (["a", "list"], r"\['a', 'list'\] is of the type list"),
        ("half \ud83d", r"'\\ud83d' is no character"),
    ],
)
def test_cells_that_are_no_texts_are_named(cell: Any, message: str) -> None:
    rows: list[dict[str, Any]] = reviews(40)
    rows[6]["review"] = cell
    with pytest.raises(InputError, match=rf"^the train rows, number 7, column 'review': {message}"):
        preprocess_entry(rows, TextFilesPreprocessConfig(entry="reviews", target="verdict", text="review"))


def test_a_very_long_text_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = reviews(40)
    rows[6]["review"] = "x" * 101
    for place, row in enumerate(rows):
        path = tmp_path / f"meals/{row['verdict']}/{place}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(row["review"])
    for module in ("readers.texts", "tables"):
        monkeypatch.setattr(f"torchloom.data.{module}.LARGEST_TEXT", 100)
    with pytest.raises(InputError, match=r"^the train rows, number 7: 'review' has more than 100 characters"):
        prepared(write(tmp_path / "reviews.csv", rows))
    with pytest.raises(InputError, match=r"meals/\S+/6\.txt: holds more than 100 characters"):
        prepared(tmp_path / "meals", target=None)


def test_splits_are_those_of_folders_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews.csv", reviews(40))
    with pytest.raises(InputError, match=r"^preprocess\.splits: says which folders .*reviews\.csv is a table\. Leave"):
        prepared(path, splits={"train": "a", "test": "b"})
    with pytest.raises(InputError, match=r"^preprocess\.splits: .*preprocess\.entry meals is a table"):
        preprocess_entry(reviews(40), TextFilesPreprocessConfig(entry="meals", target="verdict", splits={}))


def test_the_only_column_is_that_of_the_texts(tmp_path: Path) -> None:
    """Whatever it looks like: somebody says that there are texts."""
    rows = [{"label": "ab"[number % 2], "word": f"w{number}"} for number in range(40)]
    assert prepared(write(tmp_path / "words.csv", rows), target="label")[3]["column"] == "word"


def test_a_text_that_is_no_text_cannot_be_asked_about() -> None:
    for tokens in ("words", "characters", "subwords"):
        tokenizer = Tokenizer.learnt(tokens, ["a text", "another text"] * 5, 300, 1)
        with pytest.raises(InputError, match=r"^'\\ud83d' is no character$"):
            tokenizer.tokens("a text \ud83d")
