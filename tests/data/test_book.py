"""A user's own running text: how it is put together and cut, and what a language model makes of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchloom.config import BookPreprocessConfig
from torchloom.data.readers.book import find, preprocess
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.modalities import TextInfo, read_info

LINE = "床前明月光\uff0c疑是地上霜\u3002 and so on\n"
Prepared = tuple[Tensors, Tensors, Tensors, dict[str, Any]]


def prepared(path: Path, **settings: Any) -> Prepared:
    config = BookPreprocessConfig.model_validate({"files": str(path), **settings})
    return preprocess(find(config), config, Path())


def texts(found: Prepared) -> list[str]:
    info = read_info(found[3])
    assert isinstance(info, TextInfo)
    return [info.tokenizer.decode(part.arrays["tokens"].tolist()) for part in found[:3]]


@pytest.mark.parametrize("tokens", ["characters", "subwords"])
def test_one_file_is_cut_in_two_places(tmp_path: Path, tokens: str) -> None:
    text = LINE * 100
    (tmp_path / "poems.html").write_text(text.replace("\n", "\r\n"), encoding="utf-8-sig", newline="")
    found = prepared(tmp_path / "poems.html", tokens=tokens)
    test = len(text) * 9 // 10
    validation = test * 9 // 10
    assert texts(found) == [text[:validation], text[validation:test], text[test:]]
    assert found[3]["characters"] == {"train": validation, "validation": test - validation, "test": len(text) - test}
    info = read_info(found[3])
    assert info.unit == tokens.removesuffix("s")
    assert next(iter(info.facts()))[1] == f"{len(info.tokenizer.vocabulary)} {tokens}"  # type: ignore[attr-defined]
    assert found[0].arrays["tokens"].dtype == (np.uint8 if tokens == "characters" else np.int32)
    if tokens == "subwords":
        assert len(found[0].arrays["tokens"]) < 1000  # parts of words, learnt


def test_words_are_in_lower_case_and_rare_ones_unknown(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("The cat sat. The dog; the Cat!\n" * 40 + "a zebra sat.\n")
    found = prepared(tmp_path / "one.txt", tokens="words", test_fraction=0.01, validation_fraction=0.5)
    info = read_info(found[3])
    assert isinstance(info, TextInfo)
    assert info.unit == "word"
    assert info.tokenizer.vocabulary[:3] == ["<pad>", "<unk>", "the"]
    train, _, test = texts(found)
    assert train.startswith("the cat sat . the dog the cat ! the cat")
    assert test == "<unk> <unk> sat ."
    assert info.tokenizer.characters(found[2].arrays["tokens"]) == len(test)
    assert info.tokenizer.continued("the", [2]) == "the the"
    assert info.tokenizer.continued("the ", [2]) == "the the"


def test_many_files_in_order_and_those_of_splits(tmp_path: Path) -> None:
    for name, text in {"2.md": "two\n", "1.txt": "one\n", "test/3.txt": "three", "notes.csv": "no"}.items():
        path = tmp_path / "books" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = prepared(tmp_path / "books", validation_fraction=0.1, min_count=1)
    assert found[3]["characters"] == {"train": 9, "validation": 1, "test": 5}
    assert texts(found) == ["one\n\n\ntwo", "\n", "t<unk><unk>ee"]  # of what the training text has


def test_what_is_known_is_of_the_training_text(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("abab " * 100 + "xyz" * 20)
    (tmp_path / "other.txt").write_text("abab " * 100 + "水" * 60)
    one, other = (prepared(tmp_path / f"{name}.txt", test_fraction=60 / 560) for name in ("one", "other"))
    assert one[3] == other[3]
    assert one[3]["tokenizer"]["vocabulary"] == ["<pad>", "<unk>", "a", "b", " "]


def test_files_that_are_wrong(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes("Köln".encode("latin-1"))
    with pytest.raises(InputError, match=r"empty\.txt: leaves no text to train\."):
        prepared(tmp_path / "empty.txt")
    with pytest.raises(InputError, match=r"latin\.txt: is not a text in UTF-8"):
        prepared(tmp_path / "latin.txt")
    with pytest.raises(InputError, match=r"preprocess\.files .*nowhere: there is no such file or folder"):
        prepared(tmp_path / "nowhere")
