"""Texts as numbers and back."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from torchloom.errors import InputError, telling
from torchloom.system.words import extra, listed

if TYPE_CHECKING:
    from tokenizers import Tokenizer as HuggingFaceTokenizer

LONGEST_TEXT = 10_000  # tokens of what a model is asked about; a batch takes memory by its longest text
SPACE = "␣"
SHOWN = 200  # characters of a vocabulary, in a message
PAD, UNKNOWN = "<pad>", "<unk>"  # no text holds these as words
Kind = Literal["characters", "words", "subwords", "encoder"]


def _ranges(points: Iterable[int]) -> str:
    """Code points, in order, as a set of a regular expression has them."""
    runs = [[point for _, point in run] for _, run in groupby(enumerate(points), lambda pair: pair[1] - pair[0])]
    return "".join(f"\\U{run[0]:08x}-\\U{run[-1]:08x}" for run in runs)


# Thai, Lao, Tibetan, Burmese and Khmer, Chinese characters and what Japanese has beside them: no space parts words.
_UNSPACED = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
_UNSPACED += "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_MARKS = _ranges(point for point in range(0x300, 0x11000) if unicodedata.category(chr(point))[0] == "M")
_BREAK = re.compile(r"<br\s*/?>")
_LETTER = rf"(?:(?![{_UNSPACED}])[^\W_])"
_LETTERS = rf"{_LETTER}(?:{_LETTER}|[{_MARKS}])*"
_WORD = re.compile(rf"{_LETTERS}(?:'{_LETTERS})*|[{_UNSPACED}][{_MARKS}]*|[.,!?]")
_SPACED = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\S)+")
_PLAIN = str.maketrans("\u2019\uff0c\u3001\u3002\uff01\uff1f", "',,.!?")  # marks of other scripts as those of Latin


def split_words(text: str) -> list[str]:
    """The words of a text in lower case.

    Letters and digits with inner apostrophes make one word (`don't`), and so does each of . , ! ?; HTML line breaks
    and all other marks only separate. In scripts without spaces each character is a word, with the marks on it.
    """
    return _WORD.findall(_BREAK.sub(" ", text.lower().translate(_PLAIN)))


def spoken_words(text: str) -> list[str]:
    """What spaces part and letters are in, as they are; in scripts without spaces each letter."""
    return [word for word in _SPACED.findall(text) if any(map(str.isalpha, word))]


def check_text(text: str) -> None:
    """ValueError of what no file can hold: half a character, as UTF-16 has it."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{text[error.start]!r} is no character") from error


def read_number(text: str) -> float:
    """The number that a person has written; ValueError for what only Python takes for one, as 1_000 or digits of Thai.

    What `inf` and `nan` make of it is not finite.
    """
    plain = text.strip()
    if "_" in plain or not plain.isascii():
        raise ValueError(f"could not convert string to float: {text!r}")
    return float(plain)


class Tokenizer(BaseModel):
    """A vocabulary of characters, words or subwords; a token is a place in it. JSON keeps all of it.

    `merges` are what is put together to subwords, the first ones first. That of an encoder is its tokenizer.json, as
    `definition`; of texts of more than `longest` tokens it has the `opening` ones and the last.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    kind: Kind
    vocabulary: list[str]
    lower_case: bool = False  # whether texts are put into lower case before; those of words are
    merges: list[tuple[str, str]] = Field([])
    definition: str = ""
    longest: int | None = None
    opening: int = 0

    @classmethod
    def learnt(cls, kind: Kind, texts: Iterable[str], size: int, min_count: int, lower_case: bool = False) -> Tokenizer:
        """<pad>, <unk>, and up to `size - 2` tokens that the texts have `min_count` times or more.

        The more frequent come first, equally frequent ones in alphabetical order, but for subwords. InputError when the
        library for those is not there.
        """
        lower_case &= kind != "words"
        vocabulary, merges = KINDS[kind].learn(map(str.lower, texts) if lower_case else texts, size, min_count)
        return cls(kind=kind, vocabulary=vocabulary, lower_case=lower_case, merges=merges)

    @classmethod
    def of_encoder(cls, definition: str, longest: int | None) -> Tokenizer:
        """What a tokenizer.json defines; InputError when it cannot be read."""
        library = _read_definition(definition)
        known = library.get_vocab(with_added_tokens=True)
        names = {token: piece for piece, token in known.items()}
        vocabulary = [names.get(token, "") for token in range(max(names) + 1)]
        special = library.encode("a").special_tokens_mask
        opening = next((place for place, each in enumerate(special) if not each), 0)
        return cls(kind="encoder", vocabulary=vocabulary, definition=definition, longest=longest, opening=opening)

    @classmethod
    def of_characters(cls, text: str) -> Tokenizer:
        """Every character of `text`, in the order of their code points."""
        return cls(kind="characters", vocabulary=sorted(set(text)))

    @classmethod
    def of_words(cls, texts: Iterable[str], size: int, min_count: int) -> Tokenizer:
        return cls.learnt("words", texts, size, min_count)

    @cached_property
    def _pieces(self) -> Pieces:
        return Defined(self.definition) if self.definition else KINDS[self.kind](self.vocabulary, self.merges)

    def cut(self, tokens: np.ndarray, most: int | None) -> np.ndarray:
        """Of more than `most` tokens the last ones, and those that open a text."""
        if most is None or len(tokens) <= most:
            return tokens
        first = min(self.opening, most)
        return np.concatenate([tokens[:first], tokens[len(tokens) - (most - first) :]])

    def _in_case(self, text: str) -> str:
        return text.lower() if self.lower_case else text

    def encode(self, text: str) -> np.ndarray:
        """The (N,) int64 tokens of `text`.

        Words that are not in the vocabulary become 1 (<unk>), and so do characters where it has <unk>; else they are an
        InputError.
        """
        if UNKNOWN not in self._pieces.tokens:
            self.check_known(text)
        return self.cut(np.array(self._pieces.encode(self._in_case(text)), dtype=np.int64), self.longest)

    def check_known(self, text: str) -> None:
        """InputError when the text has characters that stand in no vocabulary of such."""
        if unknown := self._pieces.unknown(self._in_case(text)):
            known = "".join(each for each in self.vocabulary if each not in {PAD, UNKNOWN})
            more = f" and {len(known) - SHOWN:,} more" if len(known) > SHOWN else ""
            raise InputError(f"the vocabulary lacks {listed(list(map(repr, unknown)))}; it has {known[:SHOWN]!r}{more}")

    def tokens(self, text: str, last: int | None = None) -> np.ndarray:
        """The (N,) int64 tokens of a text that a model is asked about, of more than `last` the last ones.

        InputError when it is empty, too long or has unknown characters.
        """
        try:
            check_text(text)
        except ValueError as error:
            raise InputError(str(error)) from error
        tokens = self.encode(text)
        if not len(tokens):
            raise InputError(f"holds no {self.kind}")
        tokens = self.cut(tokens, last)
        if len(tokens) > LONGEST_TEXT:
            raise InputError(f"holds {len(tokens):,} {self.kind}, more than {LONGEST_TEXT:,}")
        return tokens

    def characters(self, tokens: np.ndarray) -> int:
        """For how many characters of a text (N,) tokens stand, where it can be put together again."""
        return self._pieces.characters(tokens.tolist())

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of (N,) tokens; words come in lower case with a space between them."""
        return self._pieces.decode(list(map(int, tokens)))

    def continued(self, text: str, tokens: Iterable[int]) -> str:
        """The text and after it that of (N,) tokens, which words are set apart from."""
        apart = self._pieces.joint if not text[-1:].isspace() else ""
        return text + apart + self.decode(tokens)

    @property
    def never_written(self) -> list[int]:
        """The tokens that stand for no text: those of words that are not known, which none can read."""
        return [self._pieces.tokens[each] for each in (PAD, UNKNOWN) if self.kind == "words"]

    def plain(self, text: str) -> str:
        """What tokens can say of a text: all of it, but for case where that counts for nothing; of words no more."""
        return self._pieces.plain(self._in_case(text))

    def readable(self) -> list[str]:
        """The vocabulary as a person reads it."""
        return self._pieces.readable()


# ---- what each kind of token is ------------------------------------------------------------------------------------

Learnt = tuple[list[str], list[tuple[str, str]]]  # the vocabulary, <pad> and <unk> first, and the merges


class Pieces:
    """What a text is cut into, as a vocabulary has it, and how it is put together again."""

    joint: ClassVar[str] = ""

    def __init__(self, vocabulary: list[str], merges: list[tuple[str, str]]) -> None:
        self.vocabulary, self.merges = vocabulary, merges
        self.tokens = {piece: token for token, piece in enumerate(vocabulary)}

    @staticmethod
    def cut(text: str) -> list[str]:
        raise NotImplementedError

    @classmethod
    def learn(cls, texts: Iterable[str], size: int, min_count: int) -> Learnt:
        counts = Counter(piece for text in texts for piece in cls.cut(text))
        known = sorted((each for each, count in counts.items() if count >= min_count), key=lambda e: (-counts[e], e))
        return [PAD, UNKNOWN, *known[: size - 2]], []

    def encode(self, text: str) -> list[int]:
        return [self.tokens.get(piece, 1) for piece in self.cut(text)]

    def unknown(self, text: str) -> list[str]:  # noqa: ARG002  (words may always be unknown, subwords never)
        """What must be known for a text to be put together from its tokens, and is not."""
        return []

    def decode(self, tokens: list[int]) -> str:
        return self.joint.join(self.vocabulary[token] for token in tokens)

    def plain(self, text: str) -> str:
        return text

    def characters(self, tokens: list[int]) -> int:
        return len(tokens)

    def readable(self) -> list[str]:
        return self.vocabulary


class Words(Pieces):
    joint = " "
    cut = staticmethod(split_words)

    def characters(self, tokens: list[int]) -> int:
        return len(self.decode(tokens))

    def plain(self, text: str) -> str:
        return self.joint.join(self.cut(text))


class Characters(Pieces):
    @staticmethod
    def cut(text: str) -> list[str]:
        return list(text)

    def unknown(self, text: str) -> list[str]:
        return sorted(set(text) - self.tokens.keys())


class Subwords(Pieces):
    """Made of the bytes of a text by byte pair encoding, so that there are none that it does not know.

    Sennrich, Haddow, Birch, arXiv:1508.07909.
    """

    def __init__(self, vocabulary: list[str], merges: list[tuple[str, str]]) -> None:
        super().__init__(vocabulary, merges)
        library = _tokenizers()
        try:
            model = library.models.BPE(vocab=self.tokens, merges=merges)
        except Exception as error:  # the library has no class of its own for what is wrong
            raise InputError(f"the subwords of the tokenizer do not belong together: {error}") from error
        self.library: HuggingFaceTokenizer = library.Tokenizer(model)
        self.library.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.library.decoder = library.decoders.ByteLevel()

    @classmethod
    def learn(cls, texts: Iterable[str], size: int, min_count: int) -> Learnt:
        library = _tokenizers()
        bytewise = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        empty = library.Tokenizer(library.models.BPE())
        empty.pre_tokenizer = bytewise
        trainer = library.trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=min_count,
            special_tokens=[PAD, UNKNOWN],
            initial_alphabet=sorted(bytewise.alphabet()),
            show_progress=False,
        )
        empty.train_from_iterator(texts, trainer)
        model = json.loads(empty.to_str())["model"]
        return sorted(model["vocab"], key=model["vocab"].get), [(one, other) for one, other in model["merges"]]

    def encode(self, text: str) -> list[int]:
        return list(self.library.encode(text).ids)

    def decode(self, tokens: list[int]) -> str:
        return str(self.library.decode(tokens))

    def characters(self, tokens: list[int]) -> int:
        return len(self.decode(tokens))

    def readable(self) -> list[str]:
        """A space as ␣, and � for what is no whole character."""
        return [self.decode([token]).replace(" ", SPACE) or piece for token, piece in enumerate(self.vocabulary)]


class Defined(Pieces):
    """As a tokenizer.json has it, with what stands around a text, such as [CLS] and [SEP]."""

    def __init__(self, definition: str) -> None:
        self.library = _read_definition(definition)
        super().__init__([], [])

    def encode(self, text: str) -> list[int]:
        """None of a text without a token of its own."""
        found = self.library.encode(text)
        return [] if all(found.special_tokens_mask) else list(found.ids)

    def decode(self, tokens: list[int]) -> str:
        return str(self.library.decode(tokens))


KINDS: dict[Kind, type[Pieces]] = {"characters": Characters, "words": Words, "subwords": Subwords}


SETTINGS = {"config.json": "max_position_embeddings", "tokenizer_config.json": "model_max_length"}
UNKNOWN_LENGTH = 10**9  # what is said to be more is not known


def read_tokenizer(folder: Path) -> Tokenizer:
    """That of an encoder in a folder of the Hugging Face hub, with how long texts its files say that it takes.

    InputError when it has none.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InputError(
            f"preprocess.tokenizer {folder}: holds no tokenizer.json. A folder of an older tokenizer gets one by "
            "transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    with telling(folder):
        found = Tokenizer.of_encoder(file.read_text(encoding="utf-8"), None)
        return found.model_copy(update={"longest": _longest(folder)})


def _longest(folder: Path) -> int | None:
    """The least that the files name; positions of the RoBERTa family begin after that of the filling."""
    lengths = []
    for name, key in SETTINGS.items():
        try:
            said = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise InputError(f"{name}: is no JSON: {error}") from error
        length = said.get(key)
        shift = said.get("pad_token_id", 0) + 1 if said.get("model_type") in SHIFTED else 0
        lengths += [int(length) - shift] if length and length < UNKNOWN_LENGTH else []
    return min(lengths, default=None)


SHIFTED = {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"}


def _read_definition(definition: str) -> HuggingFaceTokenizer:
    """Without cutting and filling up, which is done here."""
    try:
        library: HuggingFaceTokenizer = _tokenizers().Tokenizer.from_str(definition)
    except InputError:
        raise
    except Exception as error:  # the library has no class of its own for what is wrong
        raise InputError(f"tokenizer.json: is no tokenizer of the Hugging Face library: {error}") from error
    library.no_truncation()
    library.no_padding()
    return library


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError:
        raise InputError(
            f"subwords need the package tokenizers, which is not installed. Install the extra: {extra('subwords')}"
        ) from None
    return tokenizers
