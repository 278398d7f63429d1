"""Wonderland: one book, read character by character; "Alice's Adventures in Wonderland" by Lewis Carroll, 1865.

The text is that of Project Gutenberg's ebook 11, 144,428 characters of plain ASCII.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import TextPreprocessConfig
from torchloom.data.download import write_sums
from torchloom.data.text import Tokenizer
from torchloom.datasets.raw import AGAIN, RawFiles
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError

FILE = "wonderland.txt"


def preprocess(raw: RawFiles, config: TextPreprocessConfig) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """The text in three pieces, and what is known about it.

    Each of the training, validation and test tensors holds `tokens` (N,) uint8; in a row they are the whole text. The
    vocabulary is that of the whole text: a character that only the end of the book has could not be encoded otherwise.
    """
    path = raw.path(FILE)
    text = read_text(path)
    tokenizer = Tokenizer.of_characters(text)
    if len(tokenizer.vocabulary) > 255:
        raise InputError(f"{path}: has {len(tokenizer.vocabulary)} different characters, but at most 255 are supported")
    tokens = tokenizer.encode(text).astype(np.uint8)
    end = len(tokens) - round(config.test_fraction * len(tokens))
    middle = end - round(config.validation_fraction * end)
    if not middle:
        raise InputError(
            f"{path}: test_fraction {config.test_fraction} and validation_fraction {config.validation_fraction} leave "
            f"nothing of its {len(tokens)} characters to train on"
        )
    train, validation, test = np.split(tokens, [middle, end])
    info = {
        "kind": "text",
        "tokenizer": tokenizer.model_dump(),
        "characters": {"train": len(train), "validation": len(validation), "test": len(test)},
    }
    return Tensors({"tokens": train}), Tensors({"tokens": validation}), Tensors({"tokens": test}), info


def read_text(path: Path) -> str:
    r"""The text of a UTF-8 file, without a byte order mark and with \n at the end of each line."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text in UTF-8 (byte {error.start}: {error.reason}). {AGAIN}") from error
    if not text.strip():
        raise InputError(f"{path}: holds no text. {AGAIN}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


# ---- a book of our own ---------------------------------------------------------------------------------------------

TITLES = ["", "", "", "Mister ", "Doctor ", "Captain ", "old ", "little "]
BEGINNINGS = ["Til", "Bram", "Ott", "Quill", "Wren", "Fern", "Pip", "Moss", "Lark", "Haz", "Jun", "Mar", "Dor", "Salv"]
ENDINGS = {"she": ["da", "oline", "ette", "ia", "wyn", "essa"], "he": ["bert", "ock", "mund", "iver", "o", "win"]}
KINDS = {  # of things and creatures: what they look like and what they do
    "kettle": (["copper", "dented", "singing"], ["whistled", "rattled", "steamed"]),
    "lantern": (["paper", "dusty", "green"], ["glowed", "flickered", "swung in the wind"]),
    "fox": (["red", "clever", "sleepy"], ["yawned", "listened", "trotted away"]),
    "goose": (["grey", "proud", "noisy"], ["hissed", "flapped its wings", "waddled off"]),
    "clock": (["tall", "broken", "golden"], ["struck seven", "ticked on", "stopped"]),
    "boat": (["little", "leaking", "blue"], ["drifted away", "rocked", "creaked"]),
    "letter": (["crumpled", "secret", "yellow"], ["rustled", "fell to the floor", "smelled of ink"]),
    "snail": (["patient", "silver", "tiny"], ["crept along", "hid in its shell", "waited"]),
    "umbrella": (["striped", "enormous", "torn"], ["opened by itself", "flew off", "dripped"]),
    "teapot": (["round", "chipped", "painted"], ["poured", "trembled", "cooled"]),
    "owl": (["white", "solemn", "old"], ["blinked", "hooted", "turned its head"]),
    "door": (["narrow", "wooden", "locked"], ["opened", "slammed", "would not move"]),
}
PLACES = [
    "on the bridge", "under the stairs", "in the orchard", "by the harbour", "behind the mill", "at the market",
    "in the attic", "near the well", "on the roof of the bakery", "beyond the hills",
]  # fmt: skip
TIMES = [
    "that morning", "after supper", "before the rain", "at midnight", "the next day", "on Sunday", "once more",
    "all at once", "a little later", "when the bell rang",
]  # fmt: skip
DEEDS = [
    "looked for", "found", "carried", "asked about", "dreamed of", "painted", "hid", "mended", "followed", "forgot",
    "polished", "talked to",
]  # fmt: skip
SPEAKING = ["said", "whispered", "cried", "answered", "muttered", "explained", "sighed", "laughed"]
MANNERS = ["slowly", "gravely", "at last", "with a smile", "in a low voice", "rather crossly", "without looking up"]
REASONS = [
    "there was nothing else to do", "the wind had turned", "nobody was looking", "it was far too quiet",
    "the days were growing short", "somebody had to", "it seemed only polite",
]  # fmt: skip
REMARKS = [
    "I never saw such {a} before", "who has taken {my}", "{my} is not what it was", "we must hide {the} at once",
    "do not touch {the}", "there is always {a} {place}", "I should like {a} of my own", "{the} knows the way",
    "nobody believes in {the} any more", "let us go and look {place}", "tell me about {the}", "I left it {place}",
]  # fmt: skip


def draw_sample(folder: Path, characters: int = 150_000, seed: int = 0) -> None:
    """Write a book of our own of that length, drawn from a small grammar, and a SHA256SUMS into `folder`.

    A chapter has its own few people, and a paragraph keeps to two of them, a thing and a place, so that there is
    something to remember beyond a word. The end of a name tells the pronoun.
    """
    generator = np.random.default_rng(seed)
    chapters: list[str] = []
    while sum(map(len, chapters)) < characters:
        chapters.append(_chapter(len(chapters) + 1, generator))
    text = "\n\n".join(chapters)[:characters].rpartition("\n\n")[0] + "\n"  # up to the last whole paragraph
    (folder / FILE).write_text(text, encoding="utf-8", newline="\n")
    write_sums(folder)


def _chapter(number: int, generator: np.random.Generator) -> str:
    noun = _pick(list(KINDS), generator)
    heading = f"CHAPTER {number}. The {_pick(KINDS[noun][0], generator).capitalize()} {noun.capitalize()}"
    people = dict(_person(generator) for _ in range(5))
    paragraphs = [_paragraph(people, generator) for _ in range(generator.integers(10, 16))]
    return "\n\n".join([heading, *(textwrap.fill(paragraph, 72) for paragraph in paragraphs)]) + "\n"


def _person(generator: np.random.Generator) -> tuple[str, str]:
    """A name and its pronoun."""
    pronoun = _pick(list(ENDINGS), generator)
    title = _pick(TITLES, generator).replace("Mister", "Mister" if pronoun == "he" else "Madam")
    return title + _pick(BEGINNINGS, generator) + _pick(ENDINGS[pronoun], generator), pronoun


def _paragraph(people: dict[str, str], generator: np.random.Generator) -> str:
    one = _pick(list(people), generator)
    two = _pick([name for name in people if name != one] or [one], generator)
    noun, place = _pick(list(KINDS), generator), _pick(PLACES, generator)
    sentences = [f"{_pick(TIMES, generator)} {one} {_pick(DEEDS, generator)} {_thing(noun, generator)} {place}."]
    last = one  # whom the sentence before was about
    for _ in range(generator.integers(1, 6)):
        subject = people[one] if one == last and generator.random() < 0.5 else one
        sentences.append(_sentence(one, two, subject, noun, place, generator))
        last = one
        if generator.random() < 0.3:
            one, two = two, one
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def _sentence(one: str, two: str, subject: str, noun: str, place: str, generator: np.random.Generator) -> str:
    """A sentence about `one`, here perhaps as `subject`, whom the paragraph spoke of before."""
    does = _pick(KINDS[noun][1], generator)
    match generator.integers(5):
        case 0:
            return f"the {noun} {does}, and {subject} {_pick(DEEDS, generator)} it {_pick(MANNERS, generator)}."
        case 1:
            return f'"{_remark(noun, generator)}," {_pick(SPEAKING, generator)} {one} {_pick(MANNERS, generator)}.'
        case 2:
            answer = _remark(noun, generator)
            return f'"{_remark(noun, generator)}!" {_pick(SPEAKING, generator)} {two}. "{answer}."'
        case 3:
            return f"{subject} {_pick(DEEDS, generator)} {_thing(noun, generator)}, for {_pick(REASONS, generator)}."
        case _:
            return f"{_pick(TIMES, generator)} the {noun} {does} {place}, but {two} did not notice."


def _remark(noun: str, generator: np.random.Generator) -> str:
    thing = f"{_pick(KINDS[noun][0], generator)} {noun}"
    remark = _pick(REMARKS, generator).format(
        a=_with_article(thing), the=f"the {noun}", my=f"my {thing}", place=_pick(PLACES, generator)
    )
    return remark[0].upper() + remark[1:]


def _thing(noun: str, generator: np.random.Generator) -> str:
    return f"the {noun}" if generator.random() < 0.4 else _with_article(f"{_pick(KINDS[noun][0], generator)} {noun}")


def _with_article(thing: str) -> str:
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def _pick(choices: list[str], generator: np.random.Generator) -> str:
    return choices[generator.integers(len(choices))]
