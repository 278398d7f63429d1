"""A user's own pairs of texts, in two columns of a table: sources, and what is to be written of each.

Such as translations, corrected spellings, dates in one form, or answers to questions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import PairsPreprocessConfig
from torchloom.data.columns import written
from torchloom.data.documents import packed_texts
from torchloom.data.readers import Proposal
from torchloom.data.readers.texts import prepare, source_column, with_text
from torchloom.data.row_targets import Asked, check_split, check_target, named_targets
from torchloom.data.rows import (
    LOOKED_AT,
    Row,
    check_cells,
    find_tables,
    first_rows,
    is_table,
    read_entry,
    read_files,
    some,
    text_column,
    writing_of,
)
from torchloom.data.tables import SUFFIXES
from torchloom.data.targets import Texts, empty_of
from torchloom.data.text import Tokenizer
from torchloom.datasets.listing import Listing, scan
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.system.words import counted, listed, meant

logger = logging.getLogger(__name__)

SURE_OF = frozenset({"translation"})

Prepared = tuple[Tensors, Tensors, Tensors, dict[str, Any]]


def find(config: PairsPreprocessConfig) -> Listing:
    return find_tables(config)


def preprocess(
    listing: Listing,
    config: PairsPreprocessConfig,
    scratch: Path,  # noqa: ARG001  (texts need none)
) -> Prepared:
    """Tables -> training, validation and test tensors and what is known about them.

    Each of the tensors holds the sources as documents, see documents.pack, and of what is to be written the array of a
    targets.Texts, and the texts themselves as `text_told`.
    """
    return pairs(read_files(listing, writing_of(config)), config)


def preprocess_entry(table: Any, config: PairsPreprocessConfig) -> Prepared:
    """The same of a table that the catalog holds."""
    return pairs(read_entry(table, config), config)


def pairs(read: dict[str, list[Row]], config: PairsPreprocessConfig) -> Prepared:
    """The same of rows, by the splits that their files have."""
    for split, rows in read.items():
        for there in {tuple(row) for row in rows}:
            if config.target not in there:
                raise InputError(
                    f"preprocess.target {config.target!r}: there is no such column in the {split} rows"
                    f"{meant(config.target, there)}, which have {listed(list(map(repr, there)))}"
                )
        check_cells(split, rows, config.target)
    return prepare(read, config, AskedTexts(config))


class AskedTexts(Asked):
    """A text, which is to be written."""

    problem = "translation"
    config: PairsPreprocessConfig

    def __init__(self, config: PairsPreprocessConfig) -> None:
        super().__init__(config, empty_of(config.missing))

    def held(self, row: Row) -> list[str]:  # noqa: ARG002
        return []

    def targets(
        self, parts: Mapping[str, Sequence[Row]], *, quiet: bool = False
    ) -> tuple[Texts, dict[str, np.ndarray]]:
        config, texts = self.config, {split: self._texts(part) for split, part in parts.items()}
        tokenizer = Tokenizer.learnt(
            config.target_tokens or config.tokens,
            texts["train"],
            config.vocabulary_size,
            config.min_count,
            config.lower_case,
        )
        tokens = {split: [tokenizer.encode(text) for text in part] for split, part in texts.items()}
        longest = min(max(map(len, tokens["train"])), config.longest)
        target = Texts(name=self.columns[0], missing=config.missing, tokenizer=tokenizer, longest=max(longest, 1))
        if not quiet:
            self._say_long(tokens, target)
        return target, {split: target.encoded(part) for split, part in tokens.items()}

    def _say_long(self, tokens: Mapping[str, Sequence[np.ndarray]], target: Texts) -> None:
        for split, part in tokens.items():
            if long := sum(len(each) > target.longest for each in part):
                logger.warning(
                    "%s: %s of %s have more than %d %s, as answers never do; preprocess.longest may be more",
                    *(split, counted(long, "text"), repr(target.name), target.longest, target.tokenizer.kind),
                )

    def _texts(self, rows: Sequence[Row]) -> list[str]:
        return [written(row[self.columns[0]]) for row in rows]

    def beside(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        return packed_texts(self._texts(rows), "text_told")

    def lines(self, rows: Sequence[Row]) -> list[str]:
        texts = self._texts(rows)
        lengths = list(map(len, texts))
        different = f"{len(set(texts)):,} different ones"
        return [
            f"{self.columns[0]}: texts to be written, {different} of {np.mean(lengths):.0f} characters on average, "
            f"at most {max(lengths):,}"
        ]


# ---- what there is -------------------------------------------------------------------------------------------------

WORDS = 2  # of a text that is to be written, on average, at least: fewer are names of classes
STEPS, MOST_EPOCHS, LEAST_EPOCHS = 6000, 60, 3  # of a training that is proposed
SHORT = 40  # characters of a text, on average, that are written one by one; of longer ones parts of words
READ = 1000  # texts whose letters are looked at


def takes(path: Path, target: str | None) -> bool:
    """Whether it is a table with a column of texts, and one of other texts, most of them different, to be told."""
    rows = first_rows(path, LOOKED_AT) if target and is_table(path) else []
    names = named_targets(rows, target)
    if len(names) != 1 or not rows or names[0] not in rows[0]:
        return False
    cells = [row.get(names[0]) for row in rows]
    texts = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
    are_texts = len(set(texts)) > len(rows) / 2 and sum(len(text.split()) for text in texts) >= WORDS * len(rows)
    return are_texts and text_column(rows, names) is not None


def _source(rows: Sequence[Row], config: PairsPreprocessConfig) -> str:
    """The column of texts or, where none looks like such, that with the most different values."""
    names = [name for name in rows[0] if name != config.target]
    if len(names) < 2 or text_column(rows[:LOOKED_AT], config.targets):
        return source_column(rows, config)
    return max(names, key=lambda name: len({str(row[name]) for row in rows}))


def propose(path: Path, target: str | None) -> Proposal:
    """A task on the pairs, and what is doubtful about them."""
    read = read_files(scan(path, "--data", SUFFIXES))
    names = check_target(path, some(read), target)
    if len(names) > 1:
        raise InputError(f"--target {target}: one column of texts can be written, and not several")
    own: dict[str, Any] = {"files": str(path), "target": names[0]}
    config = PairsPreprocessConfig(**own)
    text = _source(some(read), config)
    asked = AskedTexts(config)
    known = {split: with_text(split, asked.known(split, part), text, config) for split, part in read.items()}
    rows = [row for part in known.values() for row in part]
    tokens: dict[str, Any] = {
        key: "characters" if np.mean([len(str(row[name])) for row in rows]) <= SHORT else "subwords"
        for key, name in {"tokens": text, "target_tokens": names[0]}.items()
    }
    config = PairsPreprocessConfig(**own, text=text, **tokens)
    check_split(known, config, asked)
    sources = [str(row[text]) for row in rows]
    seen = [
        f"{len(rows):,} sources in {text!r} of {np.mean(list(map(len, sources))):.0f} characters on average, at most "
        f"{max(map(len, sources)):,}",
        *asked.lines(rows),
    ]
    if again := len(sources) - len(set(sources)):
        seen.append(f"{counted(again, 'source')} there more than once")
    batch = 64
    train = {
        "epochs": int(np.clip(round(STEPS * batch / len(rows)), LEAST_EPOCHS, MOST_EPOCHS)),
        "batch_size": batch,
        "optimizer": {"name": "AdamW", "lr": 0.001, "weight_decay": 0.01},
        "scheduler": {"name": "CosineAnnealingLR"},
        "warmup_epochs": 1.0,
        "gradient_clip": 1.0,
        "loss": {"name": "CrossEntropyLoss", "label_smoothing": 0.1},
    }
    preprocess = {"reader": "pairs", **own, "text": text, **tokens}
    blocks = {
        "data": {"max_tokens": 400},
        "model": {"name": "translation_transformer", "width": 128, "layers": 2},
        "train": train,
        "evaluate": {},
        "export": {},
    }
    letters = "".join(dict.fromkeys("".join(f"{row[text]}{row[names[0]]}" for row in rows[:READ])))
    return Proposal(preprocess, asked.problem, blocks, seen, letters)
