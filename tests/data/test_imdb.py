import gzip
import io
import json
import lzma
import tarfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchloom.config import DocumentPreprocessConfig
from torchloom.data.download import SUMS
from torchloom.data.readers import imdb
from torchloom.data.readers.imdb import ARCHIVE, draw_sample, preprocess, read_archive
from torchloom.data.text import split_words
from torchloom.datasets.raw import RawFiles
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.modalities import DocumentInfo

pytestmark = pytest.mark.xdist_group("imdb")  # in one process, for the sake of the reviews that the tests share

Row = tuple[str, int, int, int, str]  # split, label, stars, number, text

ROWS: list[Row] = [
    ("train", 0, 1, 0, "Bad film.<br /><br />Bad!"),
    ("train", 0, 4, 1, ' "Dull" café \x96\n\tfilm '),
    ("train", 0, 2, 2, "A bad plot, a bad film"),
    ("train", 0, 3, 10, "it is bad, bad, bad."),
    ("train", 1, 10, 0, "Good film. It's good, good!"),
    ("train", 1, 7, 1, "北京 good"),
    ("train", 1, 8, 2, "A good plot."),
    ("train", 1, 9, 10, "it is good \\ \x85 film"),
    ("test", 0, 1, 0, "worse film"),
    ("test", 1, 10, 3, "GOOD rare film"),
]


def member(name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[Any, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data) if kind == tarfile.REGTYPE else 0
    return info, data


def members(rows: list[Row]) -> list[tuple[Any, bytes]]:
    return [
        member(f"aclImdb/{split}/{('neg', 'pos')[label]}/{number}_{stars}.txt", text.encode())
        for split, label, stars, number, text in rows
    ]


def archive(folder: Path, *content: tuple[Any, bytes]) -> RawFiles:
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / ARCHIVE, "w:gz") as packed:
        for info, data in content:
            packed.addfile(info, io.BytesIO(data))
    return RawFiles(folder, {ARCHIVE: ""})


def line(row: Row) -> bytes:
    _, label, stars, number, text = row
    return f"{label}\t{stars}\t{number}\t{json.dumps(text, ensure_ascii=number == 1)}\n".encode()


def tables(folder: Path, train: bytes, test: bytes) -> RawFiles:
    folder.mkdir(exist_ok=True)
    for name, content in (("train.tsv.xz", train), ("test.tsv.xz", test)):
        (folder / name).write_bytes(lzma.compress(content, preset=0))
    return RawFiles(folder, {"train.tsv.xz": "", "test.tsv.xz": ""})


def tables_of(folder: Path, rows: list[Row]) -> RawFiles:
    return tables(folder, *(b"".join(line(row) for row in rows if row[0] == split) for split in ("train", "test")))


def config(**changes: Any) -> DocumentPreprocessConfig:
    return DocumentPreprocessConfig(**{"validation_fraction": 0.25, **changes})


def texts(split: Tensors) -> list[str]:
    text, starts = split.arrays["text"], split.arrays["text_starts"]
    return [bytes(text[i:j]).decode() for i, j in pairwise(starts)]


def words(split: Tensors, info: dict[str, Any]) -> list[str]:
    tokens, starts = split.arrays["tokens"], split.arrays["starts"]
    tokenizer = DocumentInfo.model_validate(info).tokenizer
    return [tokenizer.decode(tokens[i:j]) for i, j in pairwise(starts)]


# ---- both published forms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffled", [False, True])
def test_both_forms_give_the_same(tmp_path: Path, shuffled: bool) -> None:
    other = [ROWS[i] for i in np.random.default_rng(0).permutation(len(ROWS))] if shuffled else ROWS
    *splits, info = preprocess(archive(tmp_path / "archive", *members(other)), config())
    *same, same_info = preprocess(tables_of(tmp_path / "tables", ROWS), config())
    assert info == same_info
    for one, two in zip(splits, same, strict=True):
        assert one.arrays.keys() == two.arrays.keys()
        for name, values in one.arrays.items():
            assert values.dtype == two.arrays[name].dtype
            np.testing.assert_array_equal(values, two.arrays[name])


def test_reviews_become_tensors(tmp_path: Path) -> None:
    raw = tables_of(tmp_path, ROWS)
    train, validation, test, info = preprocess(raw, config(validation_fraction=0.0))
    assert {name: values.dtype.name for name, values in train.arrays.items()} == {
        "tokens": "int32", "starts": "int64", "labels": "int64", "text": "uint8", "text_starts": "int64"
    }  # fmt: skip
    assert texts(train) == [row[4] for row in ROWS[:8]]  # by label, then number: 10 after 2
    assert texts(test) == ["worse film", "GOOD rare film"]
    assert train.arrays["labels"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert test.arrays["labels"].tolist() == [0, 1]
    # bad 7 times, good 6, film 5, comma and point 4, a 3, the others twice; what stands there once is unknown
    vocabulary = info["tokenizer"]["vocabulary"]
    assert vocabulary == ["<pad>", "<unk>", "bad", "good", "film", ",", ".", "a", "!", "is", "it", "plot"]
    assert words(train, info)[:2] == ["bad film . bad !", "<unk> <unk> film"]
    assert words(test, info) == ["<unk> film", "good <unk> film"]
    assert train.arrays["starts"].tolist() == [0, 5, 8, 15, 23, 31, 34, 38, 42]
    assert validation.arrays["labels"].shape == (0,)
    assert validation.arrays["starts"].tolist() == validation.arrays["text_starts"].tolist() == [0]
    assert validation.arrays["tokens"].dtype == np.int32
    assert info["kind"] == "documents"
    assert info["target"]["classes"] == ["negative", "positive"]
    assert info["documents"] == {
        "train": {"negative": 4, "positive": 4},
        "validation": {"negative": 0, "positive": 0},
        "test": {"negative": 1, "positive": 1},
    }
    assert info["words"] == {"mean": 42 / 8, "median": 4.5, "longest": 8}


def test_the_validation_split_is_stratified_and_drawn_by_the_seed(tmp_path: Path) -> None:
    raw = tables_of(tmp_path, ROWS)
    chosen = set()
    for seed in range(6):
        train, validation, _, info = preprocess(raw, config(seed=seed))
        assert info["documents"]["validation"] == {"negative": 1, "positive": 1}
        assert sorted(texts(train) + texts(validation)) == sorted(row[4] for row in ROWS[:8])
        chosen.add(tuple(texts(validation)))
    assert len(chosen) > 1


def test_the_vocabulary_is_that_of_the_training_split(tmp_path: Path) -> None:
    rows = [("train", 0, 1, 0, "alpha alpha"), ("train", 0, 1, 1, "beta beta"), *ROWS[4:]]
    for seed in range(4):
        train, validation, _, info = preprocess(tables_of(tmp_path, rows), config(validation_fraction=0.5, seed=seed))
        seen = " ".join(texts(train))
        assert ("alpha" in info["tokenizer"]["vocabulary"]) == ("alpha" in seen)
        assert ("beta" in info["tokenizer"]["vocabulary"]) == ("beta" in seen)
        assert "<unk> <unk>" in words(validation, info)


def test_a_fold_has_a_vocabulary_of_its_own(tmp_path: Path) -> None:
    fold = {"train": [0, 1, 4, 5], "validation": [2, 6], "test": [3, 7]}
    raw = tables_of(tmp_path, ROWS)
    made = preprocess(raw, config(validation_fraction=0.0).of_fold(fold))
    for split, numbers in zip(made[:3], fold.values(), strict=True):
        assert texts(split) == [ROWS[number][4] for number in numbers]
    assert "plot" not in made[3]["tokenizer"]["vocabulary"]


def test_the_size_of_the_vocabulary(tmp_path: Path) -> None:
    raw = tables_of(tmp_path, ROWS)
    *_, small = preprocess(raw, config(validation_fraction=0.0, vocabulary_size=4))
    assert small["tokenizer"]["vocabulary"] == ["<pad>", "<unk>", "bad", "good"]
    *_, often = preprocess(raw, config(validation_fraction=0.0, min_count=5))
    assert often["tokenizer"]["vocabulary"] == ["<pad>", "<unk>", "bad", "good", "film"]


def test_what_else_the_archive_holds_is_left_out(tmp_path: Path) -> None:
    others = [
        member("aclImdb/train/pos/", kind=tarfile.DIRTYPE),
        member("aclImdb/train/unsup/0_0.txt"),
        member("aclImdb/train/labeledBow.feat", b"\xff"),
        member("aclImdb/README"),
        member("../../outside"),
        member("/aclImdb/train/pos/77_9.txt"),
        member("aclImdb/link", kind=tarfile.SYMTYPE, link="/etc/passwd"),
    ]
    reviews = read_archive(archive(tmp_path / "raw", *others, *members(ROWS)).path(ARCHIVE))
    assert {split: len(part) for split, part in reviews.items()} == {"train": 8, "test": 2}
    assert [path.name for path in tmp_path.rglob("*")] == ["raw", ARCHIVE]  # nothing was unpacked


# ---- damage --------------------------------------------------------------------------------------------------------

LINE = "not label (0, 1), stars (1 to 10), number and JSON string, separated by tabs"
NAME = "not named <number>_<stars>.txt"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", LINE),
        (b"0\t1\t5", LINE),
        (b'0 1 5 "text"', LINE),
        (b'2\t1\t5\t"text"', LINE),
        (b'-1\t1\t5\t"text"', LINE),
        (b'0\t11\t5\t"text"', LINE),
        (b'0\t0\t5\t"text"', LINE),
        (b'0\t1\t5.0\t"text"', LINE),
        (b'0\t1\t\t"text"', LINE),
        (b'0\t1\t-5\t"text"', LINE),
        (b'0\t1\t12345678901\t"text"', LINE),
        ('0\t1\t\u0665\t"text"'.encode(), LINE),  # an Arabic five
        (b"0\t1\t5\ttext", LINE),
        (b"0\t1\t5\t[" + b"[" * 100_000, LINE),
        (b'0\t1\t5\t{"a": "text"}', LINE),
        (b'0\t1\t5\t"text"\t', LINE),
        (b'0\t1\t5\t"text"\r', LINE),
        (b'0\t1\t5\t"text', LINE),
        (b'0\t1\t5\t"' + b"x" * (1 << 20) + b'"', LINE),
        (b'0\t1\t5\t"te"xt"', "its text is no JSON string (Extra data: line 1 column 5 (char 4))"),
        (b'0\t1\t5\t"te\\xt"', "its text is no JSON string (Invalid \\escape: line 1 column 4 (char 3))"),
        (b'0\t1\t5\t"a\tb"', "its text is no JSON string (Invalid control character at: line 1 column 3 (char 2))"),
        (b'0\t1\t5\t"\\ud800"', "its text is no JSON string ('utf-8' codec can't encode character '\\ud800' in "
         "position 0: surrogates not allowed)"),
        (b'0\t1\t5\t"caf\xe9!"', "not text in UTF-8 (byte 4: invalid continuation byte)"),
        (b'0\t1\t5\t""', "holds no word"),
        (b'0\t1\t5\t" <br /> *** "', "holds no word"),
    ],
)  # fmt: skip
def test_a_damaged_line_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    lines = [line(row) for row in ROWS[:8]]
    raw = tables(tmp_path, b"".join([*lines[:3], content + b"\n", *lines[3:]]), line(ROWS[8]) + line(ROWS[9]))
    with pytest.raises(InputError) as caught:
        preprocess(raw, config(validation_fraction=0.0))
    assert caught.value.message == f"{tmp_path / 'train.tsv.xz'}, line 4: {message}"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("aclImdb/test/neg/5.txt", b"text", NAME),
        ("aclImdb/test/neg/x_1.txt", b"text", NAME),
        ("aclImdb/test/neg/5_0.txt", b"text", NAME),
        ("aclImdb/test/neg/5_11.txt", b"text", NAME),
        ("aclImdb/test/neg/-5_1.txt", b"text", NAME),
        ("aclImdb/test/neg/5_1.html", b"text", NAME),
        ("aclImdb/test/neg/1234567890_1.txt", b"text", NAME),
        ("aclImdb/test/neg/\u0665_1.txt", b"text", NAME),
        ("aclImdb/test/neg/more/5_1.txt", b"text", NAME),
        ("aclImdb/test/neg/../../../5_1.txt", b"text", NAME),
        ("aclImdb/test/neg/5_1.txt", b"caf\xe9!", "not text in UTF-8 (byte 3: invalid continuation byte)"),
        ("aclImdb/test/neg/5_1.txt", b"", "holds no word"),
        ("aclImdb/test/neg/5_1.txt", b" --- ", "holds no word"),
        ("aclImdb/test/neg/5_1.txt", b"x" * (1048576 + 1), "not a plain file of at most 1048576 bytes"),
    ],
)
def test_a_damaged_member_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    raw = archive(tmp_path, *members(ROWS), member(name, data))
    with pytest.raises(InputError) as caught:
        preprocess(raw, config())
    assert caught.value.message == f"{tmp_path / ARCHIVE}, {name}: {message}"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_link_or_device_is_no_review(tmp_path: Path, kind: bytes) -> None:
    name = "aclImdb/train/pos/5_9.txt"
    raw = archive(tmp_path, *members(ROWS), member(name, kind=kind, link="aclImdb/train/pos/0_10.txt"))
    with pytest.raises(InputError, match=r"pos/5_9\.txt: not a plain file of at most"):
        preprocess(raw, config())


@pytest.mark.parametrize("form", ["archive", "tables"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, "all but 2", "with a wrong byte", "half garbage", "another format"])
def test_a_damaged_file_is_named(tmp_path: Path, form: str, kept: Any) -> None:
    rows = [(*row[:4], row[4] + f" {np.random.default_rng(row[3]).bytes(50_000).hex()}") for row in ROWS]
    raw = archive(tmp_path, *members(rows)) if form == "archive" else tables_of(tmp_path, rows)
    path = raw.path(ARCHIVE if form == "archive" else "test.tsv.xz")
    data = path.read_bytes()
    match kept:
        case "all but 2":
            path.write_bytes(data[:-2])
        case "with a wrong byte":
            path.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :])
        case "half garbage":
            path.write_bytes(data[: len(data) // 2] + np.random.default_rng(0).bytes(50_000))
        case "another format":
            path.write_bytes(b"<!doctype html>" + bytes(2_000))
        case share:
            path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError) as caught:
        preprocess(raw, config())
    assert caught.value.message.startswith(f"{path}: damaged (")
    assert caught.value.message.endswith(f"). {imdb.AGAIN}")


@pytest.mark.parametrize("form", ["archive", "tables"])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row for row in ROWS if row[0] == "train"], "the test data hold no negative review"),
        ([row for row in ROWS if row[0] == "test"], "the training data hold no negative review"),
        ([row for row in ROWS if row[:2] != ("train", 1)], "the training data hold no positive review"),
        ([row for row in ROWS if row[:2] != ("test", 1)], "the test data hold no positive review"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, form: str, rows: list[Row], message: str) -> None:
    raw = archive(tmp_path, *members(rows)) if form == "archive" else tables_of(tmp_path, rows)
    with pytest.raises(InputError) as caught:
        preprocess(raw, config())
    assert caught.value.message == message


def test_a_number_that_comes_twice_is_refused(tmp_path: Path) -> None:
    again = ("train", 0, 3, 2, "again")
    with pytest.raises(InputError) as caught:
        preprocess(tables_of(tmp_path, [*ROWS, again]), config())
    path = tmp_path / "train.tsv.xz"
    assert caught.value.message == f"{path}, line 9: the number 2 is that of {path}, line 3 too"
    with pytest.raises(InputError, match=r"neg/2_3\.txt: the number 2 is that of .*neg/2_2\.txt too"):
        preprocess(archive(tmp_path, *members([*ROWS, again])), config())


def test_something_of_each_class_is_left_to_train_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = tables_of(tmp_path, [row for row in ROWS if row[3] == 0 or row[0] == "test"])
    *_, info = preprocess(raw, config(validation_fraction=0.9))
    assert info["documents"]["train"] == {"negative": 1, "positive": 1}
    assert "train: 2 in 2 classes: negative 1, positive 1" in caplog.messages


def test_a_file_that_has_gone_is_named(tmp_path: Path) -> None:
    raw = tables_of(tmp_path, ROWS)
    (tmp_path / "test.tsv.xz").unlink()
    with pytest.raises(InputError, match=r"test\.tsv\.xz: missing\. Run the download stage again"):
        preprocess(raw, config())


# ---- drawn reviews -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_sample(folder)
    return folder


@pytest.fixture(scope="module")
def reviews(drawn: Path) -> dict[str, list[imdb.Review]]:
    return read_archive(drawn / ARCHIVE)


def test_drawn_reviews_depend_on_the_seed_alone(tmp_path: Path) -> None:
    archives = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        draw_sample(tmp_path / name, train=20, test=10, seed=seed)
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == sorted([SUMS, ARCHIVE])
        archives[name] = (tmp_path / name / ARCHIVE).read_bytes()
        assert archives[name][4:8] == bytes(4)  # not even on the time
    assert archives["a"] == archives["b"] != archives["c"]


def test_drawn_reviews_lie_as_the_published_ones(drawn: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress((drawn / ARCHIVE).read_bytes()))) as packed:
        names = packed.getnames()
    stars: dict[str, set[str]] = {"neg": set(), "pos": set()}
    for name in names:
        _, _, label, file = name.split("/")
        stars[label].add(file.removesuffix(".txt").partition("_")[2])
    assert stars == {"neg": set("1234"), "pos": {"7", "8", "9", "10"}}
    counts = Counter(name.rpartition("/")[0] for name in names)
    assert counts == {
        "aclImdb/train/neg": 1000, "aclImdb/train/pos": 1000, "aclImdb/test/neg": 250, "aclImdb/test/pos": 250
    }  # fmt: skip


def test_drawn_reviews_are_of_all_lengths_and_all_different(reviews: dict[str, list[imdb.Review]]) -> None:
    everything = [review.text for part in reviews.values() for review in part]
    assert len(set(everything)) > 0.99 * len(everything)
    lengths = [len(text.split()) for text in everything]
    assert min(lengths) >= 10
    assert max(lengths) <= 120
    assert np.percentile(lengths, 95) > 3 * np.percentile(lengths, 5)
    assert not set("{}") & set("".join(everything))
    assert any("<br />" in text for text in everything)


def test_drawn_reviews_can_be_learnt_but_not_from_one_word_and_not_by_counting_alone(
    reviews: dict[str, list[imdb.Review]],
) -> None:
    counts = [Counter[str](), Counter[str]()]
    for review in reviews["train"]:
        counts[review.label].update(set(split_words(review.text)))
    each = len(reviews["train"]) / 2
    best = max(0.5 + abs(counts[1][word] - counts[0][word]) / (4 * each) for word in counts[0] | counts[1])
    assert best < 0.6  # "the word is there" as the whole rule
    weights = {word: np.log((counts[1][word] + 1) / (counts[0][word] + 1)) for word in counts[0] | counts[1]}
    right = [
        (sum(weights.get(word, 0.0) for word in set(split_words(review.text))) > 0) == review.label
        for review in reviews["test"]
    ]
    assert 0.7 < np.mean(right) < 0.85


def test_the_verdict_of_a_drawn_review_always_tells(reviews: dict[str, list[imdb.Review]]) -> None:
    good, bad = (set(imdb.ADJECTIVES[label] + imdb.VERBS[label]) for label in (1, 0))
    denials = {"not", "wasn't", "nothing", "never"}
    for review in reviews["train"] + reviews["test"]:
        verdict = split_words(review.text[max(review.text.rfind(start) for start in imdb.VERDICTS) :])
        said = [word in good for word in verdict if word in good | bad]
        assert len(set(said)) == 1
        assert (said[0] != bool(denials & set(verdict))) == review.label


def test_drawn_reviews_pass_through(drawn: Path) -> None:
    train, _, test, info = preprocess(RawFiles(drawn, {ARCHIVE: ""}), DocumentPreprocessConfig())
    assert info["documents"]["validation"] == {"negative": 100, "positive": 100}
    assert len(train.arrays["labels"]) == 1800
    assert 300 < len(info["tokenizer"]["vocabulary"]) < 2000
    assert 0 < (test.arrays["tokens"] == 1).mean() < 0.1  # names that the training data lack
