import itertools
import lzma
import math
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from torchloom.config import TextPreprocessConfig
from torchloom.data.download import SUMS
from torchloom.data.readers.wonderland import draw_sample, preprocess, read_text
from torchloom.datasets.raw import AGAIN, RawFiles
from torchloom.errors import InputError
from torchloom.modalities import TextInfo

TEXT = "Down, down, down.\n\nWould the fall NEVER come to an end?\n"  # 56 characters


def raw(folder: Path, content: bytes | str) -> RawFiles:
    folder.mkdir(exist_ok=True)
    (folder / "wonderland.txt").write_bytes(content.encode() if isinstance(content, str) else content)
    return RawFiles(folder, {"wonderland.txt": ""})


def test_a_text_is_cut_into_three_in_a_row(tmp_path: Path) -> None:
    config = TextPreprocessConfig(test_fraction=0.2, validation_fraction=0.25)
    *splits, info = preprocess(raw(tmp_path, TEXT), config)
    assert [split.arrays["tokens"].shape for split in splits] == [(34,), (11,), (11,)]
    assert info["characters"] == {"train": 34, "validation": 11, "test": 11}
    assert {split.arrays["tokens"].dtype for split in splits} == {np.dtype(np.uint8)}
    tokenizer = TextInfo.model_validate(info).tokenizer
    assert [tokenizer.decode(split.arrays["tokens"]) for split in splits] == [TEXT[:34], TEXT[34:45], TEXT[45:]]
    assert tokenizer.vocabulary == sorted(set(TEXT))  # with what only the test split has
    assert "?" not in TEXT[:45]


def test_tenths_by_default(tmp_path: Path) -> None:
    *_, info = preprocess(raw(tmp_path, TEXT * 100), TextPreprocessConfig())
    assert info["characters"] == {"train": 4536, "validation": 504, "test": 560}


def test_a_split_may_be_left_out(tmp_path: Path) -> None:
    config = TextPreprocessConfig(test_fraction=0.0, validation_fraction=0.0)
    *_, info = preprocess(raw(tmp_path, TEXT), config)
    assert info["characters"] == {"train": 56, "validation": 0, "test": 0}


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
    ],
)
def test_marks_and_line_ends_make_no_difference(tmp_path: Path, content: bytes) -> None:
    assert read_text(raw(tmp_path, content).path("wonderland.txt")) == TEXT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", f"holds no text. {AGAIN}"),
        (b"\xef\xbb\xbf \r\n", f"holds no text. {AGAIN}"),
        (b"caf\xe9!", f"not text in UTF-8 (byte 3: invalid continuation byte). {AGAIN}"),
        ("".join(map(chr, range(0x4E00, 0x4F00))), "has 256 different characters, but at most 255 are supported"),
        ("a", "test_fraction 0.6 and validation_fraction 0.1 leave nothing of its 1 characters to train on"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, content: bytes | str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        preprocess(raw(tmp_path, content), TextPreprocessConfig(test_fraction=0.6))
    assert caught.value.message == f"{tmp_path / 'wonderland.txt'}: {message}"


def test_255_characters_are_not_too_many(tmp_path: Path) -> None:
    train, *_ = preprocess(raw(tmp_path, "".join(map(chr, range(0x4E00, 0x4EFF)))), TextPreprocessConfig())
    assert train.arrays["tokens"].tolist() == list(range(206))


# ---- the drawn book ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("book")
    draw_sample(folder)
    return (folder / "wonderland.txt").read_text()


def test_the_book_depends_on_the_seed_alone(tmp_path: Path) -> None:
    books = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        draw_sample(tmp_path / name, characters=5_000, seed=seed)
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == [SUMS, "wonderland.txt"]
        books[name] = (tmp_path / name / "wonderland.txt").read_bytes()
    assert books["a"] == books["b"] != books["c"]


def test_the_book_looks_like_one(book: str) -> None:
    assert 145_000 < len(book) <= 150_000
    assert book.isascii()
    assert book.endswith(".\n") or book.endswith('."\n')
    assert max(map(len, book.splitlines())) <= 72
    assert len(re.findall(r"^CHAPTER \d+\. The [A-Z]", book, re.MULTILINE)) > 10
    assert not set("{}_|") & set(book)  # nothing of the templates
    assert book.count('"') % 2 == 0


def bits_per_character(text: str, order: int) -> float:
    """Of the last tenth, under a model of the next character after `order` others that has read the rest."""
    end = len(text) * 9 // 10
    counts = [defaultdict(Counter) for _ in range(order + 1)]
    for known, table in enumerate(counts):
        for i in range(known, end):
            table[text[i - known : i]][text[i]] += 1
    total, characters = 0.0, len(set(text))
    for i in range(end, len(text)):
        share = 1 / characters
        for known, table in enumerate(counts):
            seen = table.get(text[i - known : i])
            if seen:
                share = (seen[text[i]] + len(seen) * share) / (seen.total() + len(seen))
        total -= math.log2(share)
    return total / (len(text) - end)


def test_the_book_can_be_learnt_but_does_not_repeat_itself(book: str) -> None:
    assert math.log2(len(set(book))) > 5.5
    bits = [bits_per_character(book, order) for order in (0, 1, 2, 5)]
    assert bits[0] > 4
    assert all(one > other + 0.5 for one, other in itertools.pairwise(bits))  # there is something to learn each time
    assert 0.5 < bits[-1] < 1.5
    assert len(lzma.compress(book.encode())) > 0.1 * len(book)
    sentences = re.findall(r"[^.]+\.", book)
    assert len(set(sentences)) > 0.9 * len(sentences)


def test_pronouns_follow_names(book: str) -> None:
    flat = book.replace("\n", " ")
    she, he = r"[A-Z]\w+(?:da|oline|ette|ia|wyn|essa)", r"[A-Z]\w+(?:bert|ock|mund|iver|o|win)"
    for name, pronoun, other in ((she, "she", "he"), (he, "he", "she")):
        about = rf"{name} (?!did not notice)[a-z, ]+\. "  # the end of a sentence about one person
        follows = [rf"{about}(?:{word.capitalize()}|The [a-z ]+, and {word}) " for word in (pronoun, other)]
        assert len(re.findall(follows[0], flat)) > 20
        assert not re.search(follows[1], flat)
    assert not re.search(rf"Mister {she}\b|Madam {he}\b", flat)
