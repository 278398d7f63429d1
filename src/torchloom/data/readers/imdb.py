"""IMDB: 50,000 film reviews, positive or negative, half of them to train and half to test.

Maas, Daly, Pham, Huang, Ng, Potts, "Learning word vectors for sentiment analysis", Proc. ACL-HLT 2011.

They are published as one archive with a file for each review, which is read as it is and never unpacked, and as two
tables, train.tsv.xz and test.tsv.xz. Both give the same tensors.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from torchloom.config import DocumentPreprocessConfig
from torchloom.data.archives import open_packed, walk_tar
from torchloom.data.documents import lengths, pack
from torchloom.data.download import write_sums
from torchloom.data.folds import dealt
from torchloom.data.splits import choose_validation, log_classes
from torchloom.data.targets import Classes
from torchloom.data.text import Tokenizer
from torchloom.datasets.raw import AGAIN, RawFiles
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.system.progress import track

CLASSES = ["negative", "positive"]
ARCHIVE = "aclImdb_v1.tar.gz"
TABLES = {"train": "train.tsv.xz", "test": "test.tsv.xz"}
LONGEST_REVIEW = 1 << 20  # bytes; the longest in truth has 14 kB
LARGEST, MOST_REVIEWS = 1 << 30, 200_000  # bytes of an unpacked file, and reviews of a split


class Review(NamedTuple):
    label: int  # its place in CLASSES
    number: int  # tells the reviews of a split and label apart
    text: str
    origin: str  # file and line or member, for messages


def preprocess(raw: RawFiles, config: DocumentPreprocessConfig) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Raw reviews -> training, validation and test tensors, and what is known about them.

    Each of the tensors holds N documents in the order of label and number, see documents.pack, and `labels` (N,) int64.
    The vocabulary is that of the training split alone.
    """
    reviews = read_archive(raw.path(ARCHIVE)) if ARCHIVE in raw.checksums else read_tables(raw)
    for split in TABLES:
        reviews[split] = _in_order(split, reviews[split])
    labels = np.array([review.label for review in reviews["train"]])
    chosen = choose_validation(labels, config)
    splits = {
        "train": [review for review, taken in zip(reviews["train"], chosen, strict=True) if not taken],
        "validation": [review for review, taken in zip(reviews["train"], chosen, strict=True) if taken],
        "test": reviews["test"],
    }
    splits = dealt(splits, config)
    log_classes(CLASSES, {name: np.array([review.label for review in part], int) for name, part in splits.items()})
    texts = (review.text for review in splits["train"])
    tokenizer = Tokenizer.of_words(texts, config.vocabulary_size, config.min_count)
    train, validation, test = (_tensors(part, tokenizer) for part in splits.values())
    info = {
        "kind": "documents",
        "target": Classes(classes=CLASSES).model_dump(),
        "tokenizer": tokenizer.model_dump(),
        "documents": {
            split: {name: sum(review.label == label for review in part) for label, name in enumerate(CLASSES)}
            for split, part in splits.items()
        },
        "words": lengths(train),  # of the training documents
    }
    return train, validation, test, info


def _in_order(split: str, reviews: list[Review]) -> list[Review]:
    """By label and number, whatever the order in the files; InputError unless every class is there, and once each."""
    reviews = sorted(reviews, key=lambda review: review[:2])
    for label, name in enumerate(CLASSES):
        if not any(review.label == label for review in reviews):
            raise InputError(f"the {'training' if split == 'train' else split} data hold no {name} review")
    for one, other in pairwise(reviews):
        if one[:2] == other[:2]:
            raise InputError(f"{other.origin}: the number {other.number} is that of {one.origin} too")
    return reviews


def _tensors(reviews: list[Review], tokenizer: Tokenizer) -> Tensors:
    tokens = [tokenizer.encode(review.text).astype(np.int32) for review in track(reviews, "reviews")]
    for review, encoded in zip(reviews, tokens, strict=True):
        if not len(encoded):
            raise InputError(f"{review.origin}: holds no word")
    labels = np.array([review.label for review in reviews], dtype=np.int64)
    return pack(tokens, [review.text for review in reviews], {"labels": labels})


# ---- reading -------------------------------------------------------------------------------------------------------

_FOLDER = re.compile(r"aclImdb/(train|test)/(neg|pos)/(.*)")
_NAME = re.compile(r"(\d{1,9})_(?:[1-9]|10)\.txt", re.ASCII)  # number and stars
_LINE = re.compile(rb'([01])\t(?:[1-9]|10)\t(\d{1,9})\t(".*")')  # label, stars, number, text as JSON


def read_archive(path: Path) -> dict[str, list[Review]]:
    """The reviews of each split from aclImdb/{train,test}/{neg,pos}/<number>_<stars>.txt; nothing is unpacked."""
    reviews: dict[str, list[Review]] = {split: [] for split in TABLES}
    try:
        with open_packed(path) as packed:
            for member, file in walk_tar(packed, LARGEST):
                match = _FOLDER.fullmatch(member.name)
                if match:
                    split, folder, name = match.groups()
                    review = _from_member(file, member, name, int(folder == "pos"), f"{path}, {member.name}")
                    reviews[split].append(review)
            while packed.read(LONGEST_REVIEW):  # to the end, where gzip's checksum is
                if packed.tell() > LARGEST:
                    raise tarfile.ReadError("it never ends")
    except InputError:
        raise
    except Exception as error:  # what reads archives answers damage with almost anything
        raise InputError(f"{path}: damaged ({error}). {AGAIN}") from error
    return reviews


def _from_member(file: IO[bytes] | None, member: tarfile.TarInfo, name: str, label: int, origin: str) -> Review:
    match = _NAME.fullmatch(name)
    if not match:
        raise InputError(f"{origin}: not named <number>_<stars>.txt")
    if file is None or member.size > LONGEST_REVIEW:
        raise InputError(f"{origin}: not a plain file of at most {LONGEST_REVIEW} bytes")
    return Review(label, int(match[1]), _decoded(file.read(), origin), origin)


def _decoded(data: bytes, origin: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{origin}: not text in UTF-8 (byte {error.start}: {error.reason})") from error


def read_tables(raw: RawFiles) -> dict[str, list[Review]]:
    """The reviews of each split from train.tsv.xz and test.tsv.xz."""
    return {split: list(_read_table(raw.path(name))) for split, name in TABLES.items()}


def _read_table(path: Path) -> Iterator[Review]:
    size = 0
    try:
        with open_packed(path) as file:
            lines = iter(lambda: file.readline(LONGEST_REVIEW + 1), b"")  # they end with \n alone
            for number, line in enumerate(lines, 1):
                size += len(line)
                if size > LARGEST or number > MOST_REVIEWS:
                    raise InputError(f"{path}: has more than {LARGEST} bytes or {MOST_REVIEWS} lines. {AGAIN}")
                yield _from_line(line.removesuffix(b"\n"), f"{path}, line {number}")
    except InputError:
        raise
    except Exception as error:  # what reads archives answers damage with almost anything
        raise InputError(f"{path}: damaged ({error}). {AGAIN}") from error


def _from_line(line: bytes, origin: str) -> Review:
    match = _LINE.fullmatch(line)
    if not match or len(line) > LONGEST_REVIEW:
        raise InputError(f"{origin}: not label (0, 1), stars (1 to 10), number and JSON string, separated by tabs")
    try:
        text = json.loads(_decoded(match[3], origin))
        text.encode()
    except ValueError as error:  # broken JSON, or half of a surrogate pair
        raise InputError(f"{origin}: its text is no JSON string ({error})") from error
    return Review(int(match[1]), int(match[2]), text, origin)


# ---- reviews of our own --------------------------------------------------------------------------------------------

ADJECTIVES = [  # by label
    [
        "dull", "awful", "clumsy", "boring", "silly", "flat", "tedious", "predictable", "weak", "cheap", "lazy",
        "forgettable", "tiresome", "noisy",
    ],
    [
        "superb", "moving", "clever", "funny", "gripping", "charming", "honest", "warm", "fresh", "delightful",
        "memorable", "graceful", "brave", "lovely",
    ],
]  # fmt: skip
VERBS = [["hated", "regretted", "endured", "disliked"], ["loved", "enjoyed", "admired", "liked"]]
DEGREES = ["", "", "really ", "quite ", "truly ", "rather ", "so "]
ASPECTS = [
    "the acting", "the plot", "the ending", "the music", "the dialogue", "the camera work", "the pacing", "the humour",
    "the first half", "the leading couple", "the costume design", "the final chase",
]  # fmt: skip
PLAIN = [  # what anybody could say
    "{name} plays the {role} and {name} the {other}.", "It was shot in {place}.", "The story begins in {place}.",
    "My {role} and I saw it in {place} last week.", "I had read the book by {name} before.",
    "There are {count} songs and {count} chases in it.", "It runs for {count} minutes.",
    "The {role} meets the {other} in {place}, and they travel to {place}.", "{name}'s last film came out years ago.",
    "You may know {name} from the one about the {role}.",
]  # fmt: skip
ROLES = [
    "captain", "detective", "neighbour", "sister", "baker", "pilot", "teacher", "thief", "gardener", "nurse",
    "painter", "brother",
]  # fmt: skip
PARTS = [
    "al", "ber", "cor", "dan", "el", "fin", "gor", "hul", "is", "jo", "kar", "lem", "mor", "ner", "os", "pel", "rin",
    "sol", "tam", "ul", "vor", "wes",
]  # fmt: skip
VERDICTS = ["All in all,", "In the end", "To sum it up,", "When the lights went on,"]
CONSISTENT, NEGATED, MARKED = 0.85, 0.25, 0.15  # shares of opinions


def draw_sample(folder: Path, train: int = 2000, test: int = 500, seed: int = 0) -> None:
    """Write reviews of our own as an archive of the public layout, and a SHA256SUMS, into `folder`.

    Each mixes plain sentences with opinions, of which most agree with the label; the last, the verdict, always does.
    An opinion may be put as the denial of its opposite, so counting words gets far, but not all the way.
    """
    generator = np.random.default_rng(seed)
    with gzip.GzipFile(folder / ARCHIVE, "wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for split, count in (("train", train), ("test", test)):
            for index in range(count):
                label, stars = index % 2, int(generator.integers(1, 5)) + 6 * (index % 2)
                data = _review(label, generator).encode()
                member = tarfile.TarInfo(f"aclImdb/{split}/{('neg', 'pos')[label]}/{index // 2}_{stars}.txt")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    write_sums(folder)


def _review(label: int, generator: np.random.Generator) -> str:
    text = ""
    for _ in range(generator.integers(1, 10)):
        if generator.random() < 0.4:
            sentence = _plain(generator)
        else:
            meant = label if generator.random() < CONSISTENT else 1 - label
            sentence = _opinion(meant, _pick(ASPECTS, generator), generator)
        text += sentence[0].upper() + sentence[1:] + ("<br /><br />" if generator.random() < 0.15 else " ")
    return f"{text}{_pick(VERDICTS, generator)} {_opinion(label, 'the film', generator)}"


def _opinion(meant: int, aspect: str, generator: np.random.Generator) -> str:
    """A sentence, without its capital, that is positive about `aspect` when `meant` is 1 and negative when it is 0."""
    denied = generator.random() < NEGATED
    adjective, verb = (_pick(words[1 - meant if denied else meant], generator) for words in (ADJECTIVES, VERBS))
    end = "!" if generator.random() < MARKED else "."
    if denied:
        forms = [
            f"{aspect} is not {_pick(DEGREES, generator)}{adjective} at all",
            f"{aspect} wasn't {adjective}",
            f"there is nothing {adjective} about {aspect}",
            f"I never {verb} {aspect}",
        ]
    else:
        forms = [
            f"{aspect} is {_pick(DEGREES, generator)}{adjective}",
            f"I found {aspect} {_pick(DEGREES, generator)}{adjective}",
            f"I {_pick(DEGREES, generator)}{verb} {aspect}".replace("so ", "simply "),
            f"{aspect} was {adjective} and {_pick(ADJECTIVES[meant], generator)}",
        ]
    return _pick(forms, generator) + end


def _plain(generator: np.random.Generator) -> str:
    sentence = _pick(PLAIN, generator)
    while "{" in sentence:
        sentence = sentence.replace("{name}", _name(2, generator) + " " + _name(3, generator), 1)
        sentence = sentence.replace("{place}", _name(2, generator), 1)
        sentence = sentence.replace("{role}", _pick(ROLES, generator), 1).replace("{other}", _pick(ROLES, generator), 1)
        sentence = sentence.replace("{count}", str(generator.integers(2, 200)), 1)
    return sentence


def _name(syllables: int, generator: np.random.Generator) -> str:
    return "".join(_pick(PARTS, generator) for _ in range(syllables)).capitalize()


def _pick(choices: list[str], generator: np.random.Generator) -> str:
    return choices[generator.integers(len(choices))]
