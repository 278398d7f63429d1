import json

import numpy as np
import pytest
from pydantic import ValidationError

from torchloom.data.text import Tokenizer, read_number, split_words
from torchloom.errors import InputError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A Film I didn't LIKE.", ["a", "film", "i", "didn't", "like", "."]),
        ("It\u2019s fine", ["it's", "fine"]),  # a typographic apostrophe
        ("the actors' 'best' rock'n'roll '", ["the", "actors", "best", "rock'n'roll"]),
        ("What?! No, never...", ["what", "?", "!", "no", ",", "never", ".", ".", "."]),
        ("one<br /><br />two<br>three<BR/>four", ["one", "two", "three", "four"]),
        ('well-made (9/10) _so_ \x96 "good"; $5:', ["well", "made", "9", "10", "so", "good", "5"]),
        ("Amélie 北京 Ünal", ["amélie", "北", "京", "ünal"]),
        ("味道不错\uff0c很快\uff01", ["味", "道", "不", "错", ",", "很", "快", "!"]),
        ("東京へ行くabc", ["東", "京", "へ", "行", "く", "abc"]),
        ("ที่นี่ดี", ["ที่", "นี่", "ดี"]),  # a letter with its marks
        ("हिन्दी में ১২", ["हिन्दी", "में", "১২"]),
        ("cafe\u0301 한국어 שלום", ["cafe\u0301", "한국어", "שלום"]),
        ("<pad> <unk>", ["pad", "unk"]),  # a text cannot name the special words
        (" \n\t --- * ", []),
        ("", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_characters_are_ordered_and_round_trip() -> None:
    tokenizer = Tokenizer.of_characters("bca\nab'É")
    assert tokenizer.kind == "characters"
    assert tokenizer.vocabulary == ["\n", "'", "a", "b", "c", "É"]
    tokens = tokenizer.encode("cab\nÉ")
    assert tokens.tolist() == [4, 2, 3, 0, 5]
    assert tokens.dtype == np.int64
    assert tokenizer.decode(tokens) == "cab\nÉ"
    assert tokenizer.decode(tokens.tolist()) == "cab\nÉ"


def test_unknown_characters_are_named() -> None:
    with pytest.raises(InputError) as caught:
        Tokenizer.of_characters("ab\n").encode("az\tbz")
    assert caught.value.message == r"the vocabulary lacks '\t', 'z'; it has '\nab'"


def test_words_come_by_frequency_then_alphabet() -> None:
    texts = ["b a c", "A b, d", "b c e"]  # b 3; a, c 2; , d e 1
    assert Tokenizer.of_words(texts, 100, 1).vocabulary == ["<pad>", "<unk>", "b", "a", "c", ",", "d", "e"]
    assert Tokenizer.of_words(texts, 100, 2).vocabulary == ["<pad>", "<unk>", "b", "a", "c"]
    assert Tokenizer.of_words(texts, 100, 3).vocabulary == ["<pad>", "<unk>", "b"]
    assert Tokenizer.of_words(iter(texts), 4, 1).vocabulary == ["<pad>", "<unk>", "b", "a"]
    assert Tokenizer.of_words([], 4, 1).vocabulary == ["<pad>", "<unk>"]


def test_unknown_words_become_one() -> None:
    tokenizer = Tokenizer.of_words(["Good film, good."], 5, 1)
    assert tokenizer.vocabulary == ["<pad>", "<unk>", "good", ",", "."]
    tokens = tokenizer.encode("A GOOD film.")
    assert tokens.tolist() == [1, 2, 1, 4]
    assert tokens.dtype == np.int64
    assert tokenizer.decode(tokens) == "<unk> good <unk> ."


@pytest.mark.parametrize("tokenizer", [Tokenizer.of_characters("ab"), Tokenizer.of_words(["ab"], 9, 1)])
def test_nothing_is_no_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.encode("").dtype == np.int64
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("tokenizer", [Tokenizer.of_characters("a'\"\nß\\"), Tokenizer.of_words(["ab Ö"], 9, 1)])
def test_a_tokenizer_survives_json(tokenizer: Tokenizer) -> None:
    tokenizer.encode("a")  # what it remembers from encoding is no part of it
    assert Tokenizer.model_validate(json.loads(json.dumps(tokenizer.model_dump()))) == tokenizer
    kept = {"kind", "vocabulary", "lower_case", "merges", "definition", "longest", "opening"}
    assert set(tokenizer.model_dump()) == kept


def test_subwords_as_a_person_reads_them() -> None:
    tokenizer = Tokenizer.learnt("subwords", ["the lower", "the lowest", "床前"] * 9, 300, 2)
    shown = dict(zip(tokenizer.vocabulary, tokenizer.readable(), strict=True))
    assert (shown["\u0120lowe"], shown["the"], shown["<unk>"]) == ("␣lowe", "the", "<unk>")
    assert "床前" in shown.values()
    assert not any("\u0120" in each for each in shown.values())
    assert Tokenizer.of_characters("a b").readable() == [" ", "a", "b"]


@pytest.mark.parametrize(
    "fields", [{"kind": "letters", "vocabulary": []}, {"kind": "words"}, {"kind": "words", "vocabulary": [], "x": 1}]
)
def test_another_description_is_refused(fields: dict) -> None:
    with pytest.raises(ValidationError):
        Tokenizer.model_validate(fields)
    with pytest.raises(ValidationError):
        Tokenizer.of_characters("a").vocabulary = []


@pytest.mark.parametrize(
    ("text", "number"),
    [("5", 5), (" -2.50\t", -2.5), ("+.5", 0.5), ("1.", 1), ("6e1", 60), ("1E-3", 0.001), ("007", 7), ("5\xa0", 5)],
)
def test_a_number(text: str, number: float) -> None:
    assert read_number(text) == number


@pytest.mark.parametrize(
    "text", ["1_000", "_1", "1e1_0", "\u0e51", "\uff11", "\u0661.5", "1,5", "1 000", "0x10", "", "x"]
)
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match="could not convert string to float"):
        read_number(text)
