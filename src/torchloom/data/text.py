"""Texts as numbers and back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from torchloom.errors import InputError

LONGEST_TEXT = 10_000  # tokens of what a model is asked about; a batch takes memory by its longest text
PAD, UNKNOWN = "<pad>", "<unk>"  # no text holds these as words

_BREAK = re.compile(r"<br\s*/?>")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[.,!?]")


def split_words(text: str) -> list[str]:
    """The words of a text in lower case.

    Letters and digits with inner apostrophes make one word (`don't`), and so does each of . , ! ?; HTML line breaks
    and all other marks only separate.
    """
    return _WORD.findall(_BREAK.sub(" ", text.lower().replace("\u2019", "'")))


def read_number(text: str) -> float:
    """The number that a person has written; ValueError for what only Python takes for one, as 1_000 or digits of Thai.

    What `inf` and `nan` make of it is not finite.
    """
    plain = text.strip()
    if "_" in plain or not plain.isascii():
        raise ValueError(f"could not convert string to float: {text!r}")
    return float(plain)


class Tokenizer(BaseModel):
    """A vocabulary of characters or of words; a token is a place in it. JSON keeps all of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    kind: Literal["characters", "words"]
    vocabulary: list[str]

    @classmethod
    def of_characters(cls, text: str) -> Tokenizer:
        """Every character of `text`, in the order of their code points."""
        return cls(kind="characters", vocabulary=sorted(set(text)))

    @classmethod
    def of_words(cls, texts: Iterable[str], size: int, min_count: int) -> Tokenizer:
        """<pad>, <unk>, and up to `size - 2` words that occur `min_count` times or more.

        The more frequent come first, equally frequent ones in alphabetical order.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(split_words(text))
        known = sorted((word for word, count in counts.items() if count >= min_count), key=lambda w: (-counts[w], w))
        return cls(kind="words", vocabulary=[PAD, UNKNOWN, *known[: size - 2]])

    @cached_property
    def _tokens(self) -> dict[str, int]:
        return {entry: token for token, entry in enumerate(self.vocabulary)}

    def encode(self, text: str) -> np.ndarray:
        """The (N,) int64 tokens of `text`.

        Words that are not in the vocabulary become 1 (<unk>); characters that are not are an InputError.
        """
        if self.kind == "words":
            return np.array([self._tokens.get(word, 1) for word in split_words(text)], dtype=np.int64)
        unknown = sorted(set(text) - self._tokens.keys())
        if unknown:
            raise InputError(
                f"the vocabulary lacks {', '.join(map(repr, unknown))}; it has {''.join(self.vocabulary)!r}"
            )
        return np.array([self._tokens[character] for character in text], dtype=np.int64)

    def tokens(self, text: str, last: int | None = None) -> np.ndarray:
        """The (N,) int64 tokens of a text that a model is asked about, of more than `last` the last ones.

        InputError when it is empty, too long or has unknown characters.
        """
        tokens = self.encode(text)
        if not len(tokens):
            raise InputError(f"holds no {self.kind}")
        tokens = tokens[-last:] if last else tokens
        if len(tokens) > LONGEST_TEXT:
            raise InputError(f"holds {len(tokens):,} {self.kind}, more than {LONGEST_TEXT:,}")
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of (N,) tokens; words come in lower case with a space between them."""
        return (" " if self.kind == "words" else "").join(self.vocabulary[token] for token in tokens)
