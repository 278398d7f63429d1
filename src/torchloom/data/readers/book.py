"""A user's own running text, in one file or many, for a language model: in any script, of any length."""

from __future__ import annotations

from collections import Counter
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import BookPreprocessConfig
from torchloom.data.class_folders import split_of
from torchloom.data.readers import Proposal
from torchloom.data.rows import is_table
from torchloom.data.tables import opened_text
from torchloom.data.text import Tokenizer
from torchloom.datasets.listing import Listing, is_users, scan
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError, telling

SUFFIXES = {".txt", ".md", ".text"}
MOST_CHARACTERS = 5000  # different ones; of more it is cut into subwords
BETWEEN = "\n\n"  # two files


def find(config: BookPreprocessConfig) -> Listing:
    """List the file, whatever its name, or the text files below the folder."""
    listing = scan(Path(config.files), "preprocess.files", SUFFIXES)
    listing.say_links()
    return listing


def preprocess(
    listing: Listing,
    config: BookPreprocessConfig,
    scratch: Path,  # noqa: ARG001  (a text needs none)
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """The files, by name, as one text in three pieces, and what is known about it.

    Each of the training, validation and test tensors holds `tokens` (N,), uint8 where there are at most 255 different
    ones, or else int32. The vocabulary is that of the training text.
    """
    texts = _texts(listing)
    if not texts["test"]:
        texts["train"], texts["test"] = _cut(texts["train"], config.test_fraction)
    if not texts["validation"]:
        texts["train"], texts["validation"] = _cut(texts["train"], config.validation_fraction)
    for split, text in texts.items():
        if not text.strip() and split != "validation":
            raise InputError(f"{config.files}: leaves no text to {split}. Change preprocess.test_fraction, or add text")
    tokenizer = Tokenizer.learnt(config.tokens, [texts["train"]], config.vocabulary_size, config.min_count)
    dtype = np.uint8 if len(tokenizer.vocabulary) <= 255 else np.int32
    train, validation, test = (tokenizer.encode(text).astype(dtype) for text in texts.values())
    info = {
        "kind": "text",
        "tokenizer": tokenizer.model_dump(),
        "characters": {split: len(text) for split, text in texts.items()},
    }
    return Tensors({"tokens": train}), Tensors({"tokens": validation}), Tensors({"tokens": test}), info


# ---- what there is -------------------------------------------------------------------------------------------------

STEPS, MOST_EPOCHS, LEAST_EPOCHS = 1500, 60, 3  # of a training that is proposed


def takes(path: Path, target: str | None) -> bool:  # noqa: ARG001  (a running text has none)
    """Whether it is a text file, or a folder with text files in it, and none in folders, which would be classes; among
    more files of other kinds they only say what these are."""
    if path.is_file():
        return path.suffix.lower() in SUFFIXES
    files = [each for each in path.rglob("*.*") if is_users(each.name) and each.is_file()]
    others = {each.stem for each in files if not _is_text(each)}
    texts = [each for each in files if _is_text(each) and each.stem not in others]  # else it is about the other
    return {each.parent for each in texts} == {path} and 2 * len(texts) > len(files) and not is_table(path)


def _is_text(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and is_users(path.name)


def propose(path: Path, target: str | None) -> Proposal:
    """A language model of the text."""
    if target:
        raise InputError(f"--target {target}: there is none in a running text; leave it out")
    text = BETWEEN.join(_texts(scan(path, "--data", SUFFIXES)).values()).strip()
    if not text:
        raise InputError(f"{path}: holds no text")
    different = len(set(text))
    seen = [f"{len(text):,} characters, {different:,} different ones", f"it begins: {text[:60]!r}"]
    window, batch = 64, 64
    train = {
        "epochs": int(np.clip(round(STEPS * window * batch / len(text)), LEAST_EPOCHS, MOST_EPOCHS)),
        "batch_size": batch,
        "optimizer": {"name": "AdamW", "lr": 0.005, "weight_decay": 0.01},
        "scheduler": {"name": "CosineAnnealingLR"},
        "gradient_clip": 1.0,
    }
    tokens = {} if different <= MOST_CHARACTERS else {"tokens": "subwords"}
    blocks = {
        "data": {"window": window},
        "model": {"name": "language_rnn", "width": 256},
        "train": train,
        "evaluate": {},
        "generate": {"prompt": _prompt(text), "length": 500, "temperature": 0.7},
        "export": {},
    }
    return Proposal({"reader": "book", "files": str(path), **tokens}, "language_model", blocks, seen)


def _prompt(text: str) -> str:
    """How the text begins, as far as a model knows the characters, and a file of parameters can have them."""
    counts = Counter(text[: len(text) // 2])
    known = {character for character, count in counts.items() if count > 1} - {"{"}
    return "".join(takewhile(known.__contains__, text[:20])) or max(known or text[0], key=lambda each: counts[each])


def _texts(listing: Listing) -> dict[str, str]:
    r"""The texts by the split that the name of a file or a folder says, with \n at the end of each line."""
    found: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for path, name in zip(listing.paths, listing.names, strict=True):
        with telling(path), opened_text(path) as file:
            found[split_of(listing, name)].append(file.read())
    return {split: BETWEEN.join(part) for split, part in found.items()}


def _cut(text: str, fraction: float) -> tuple[str, str]:
    end = len(text) - round(fraction * len(text))
    return text[:end], text[end:]
