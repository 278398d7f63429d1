"""A user's own labelled texts: a column of a table, or text files in a folder for each class.

The texts of a table may be in any script, and of any length; the label may be a word or a number.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torchloom.config import TextFilesPreprocessConfig
from torchloom.data.class_folders import class_roots, place_pictures
from torchloom.data.columns import Encoder
from torchloom.data.documents import lengths, pack
from torchloom.data.readers import Proposal
from torchloom.data.rows import (
    Row,
    are_classes,
    check_target,
    first_rows,
    groups_of,
    is_table,
    place_of,
    read_entry,
    read_files,
    say_duplicates,
    split_rows,
    target_lines,
    targets_of,
    text_column,
    with_target,
)
from torchloom.data.tables import SUFFIXES, opened_text
from torchloom.data.text import Tokenizer, split_words
from torchloom.datasets.listing import Listing, scan
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.system.progress import track
from torchloom.system.words import counted, listed

logger = logging.getLogger(__name__)

TEXTS = {".txt"}
LARGEST = 10_000_000  # characters of a text
LOOKED_AT = 1000  # rows of a table, to find the column of texts
FOLDER, TEXT = "class", "text"  # the columns of what lies in folders


def find(config: TextFilesPreprocessConfig) -> Listing:
    """List the table or tables, or the text files below the folder."""
    assert config.files is not None
    listing = scan(Path(config.files), "preprocess.files", TEXTS | SUFFIXES)
    listing.say_links()
    kinds = {Path(name).suffix.lower() in TEXTS for name in listing.names}
    if len(kinds) > 1:
        raise InputError(f"preprocess.files {config.files}: holds tables and text files. Name a folder of one of them")
    return listing


def preprocess(
    listing: Listing,
    config: TextFilesPreprocessConfig,
    scratch: Path,  # noqa: ARG001  (texts need none)
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Texts -> training, validation and test tensors and what is known about them.

    Each of the tensors holds documents, see documents.pack, and `labels` (N,) int64 or `target` (N,) float32. Raises
    InputError for what is wrong with a file, a column or a cell.
    """
    if Path(listing.names[0]).suffix.lower() not in TEXTS:
        return _prepare(read_files(listing), config)
    if config.target or config.text:
        raise InputError(f"{config.files}: of text files the folders are the classes; leave target and text out")
    return _prepare(_read_folders(listing, config), _of_folders(config), column=False)


def preprocess_entry(table: Any, config: TextFilesPreprocessConfig) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """The same of a table that the catalog holds."""
    return _prepare(read_entry(table, config), config)


def _of_folders(config: TextFilesPreprocessConfig) -> TextFilesPreprocessConfig:
    return config.model_copy(update={"target": FOLDER, "text": TEXT, "target_type": "classes"})


def _read_folders(listing: Listing, config: TextFilesPreprocessConfig) -> dict[str, list[Row]]:
    """A row for each file, of the split whose folder it lies in."""
    if listing.single:
        raise InputError(f"{config.files}: is one text, not a folder with a folder of texts for each class")
    roots = class_roots(listing, config.splits)
    found: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for path, name, place in zip(listing.paths, listing.names, place_pictures(listing.names, roots), strict=True):
        if place is None:
            raise InputError(f"{listing.folder}: {name} lies in no folder of a class")
        with opened_text(path) as file:
            found[roots[place[0]]].append({TEXT: file.read(LARGEST), FOLDER: place[1]})
    return found


def _prepare(
    read: dict[str, list[Row]], config: TextFilesPreprocessConfig, column: bool = True
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """`column` is whether a user's texts stand in a column of a table."""
    if not config.target:
        raise InputError(
            f"{place_of(config)}: preprocess.target must name the column that is to be told from the texts"
        )
    gaps = Encoder([], config.missing).gaps if column else frozenset()  # a folder's name is a name
    rows = {split: with_target(split, part, config, gaps) for split, part in read.items()}
    text = _text_column(rows["train"] or rows["test"], config)
    rows = {split: _with_text(split, part, text, config) for split, part in rows.items()}
    as_classes = are_classes([row[config.target] for part in rows.values() for row in part], config)
    parts = split_rows(rows, config, as_classes)
    say_duplicates(parts, [text])
    target, learnt = targets_of(parts, config, as_classes)
    texts = {split: [str(row[text]) for row in part] for split, part in parts.items()}
    tokenizer = Tokenizer.learnt(
        config.tokens, texts["train"], config.vocabulary_size, config.min_count, config.lower_case
    )
    tensors, groups = {}, groups_of(parts, config)
    for split, part in texts.items():
        tokens = [tokenizer.encode(each) for each in track(part, f"{split} texts")]
        tensors[split] = pack(tokens, part, {target.array: learnt[split], **groups[split]})
    info = {
        "kind": "documents",
        "target": target.model_dump(),
        "tokenizer": tokenizer.model_dump(),
        "column": text if column else None,
        "documents": {split: len(part) for split, part in parts.items()},
        "words": lengths(tensors["train"]),
    }
    return tensors["train"], tensors["validation"], tensors["test"], info


def _text_column(rows: Sequence[Row], config: TextFilesPreprocessConfig) -> str:
    names = [name for name in rows[0] if name != config.target] if rows else []
    if config.text:
        if config.text not in names:
            raise InputError(f"preprocess.text {config.text!r}: there is no such column; there are {listed(names)}")
        return config.text
    found = text_column(rows[:LOOKED_AT], config.target)
    if not found:
        raise InputError(
            f"{place_of(config)}: no column looks like texts. Name the one that is, as preprocess.text: there are "
            f"{listed(names)}"
        )
    return found


def _with_text(split: str, rows: list[Row], text: str, config: TextFilesPreprocessConfig) -> list[Row]:
    """The rows whose text has a token."""
    if any(text not in row for row in rows):
        raise InputError(
            f"{place_of(config)}: the {split} rows have no column {text!r}, which others have the texts in"
        )
    known = [row for row in rows if _has_token(row[text], config)]
    if len(known) < len(rows):
        left = counted(len(rows) - len(known), "row")
        logger.warning("%s: %s without a text in %r are left out", split, left, text)
    return known


def _has_token(text: Any, config: TextFilesPreprocessConfig) -> bool:
    if not isinstance(text, str):
        return text is not None and text == text
    return bool(split_words(text) if config.tokens == "words" else text.strip())


# ---- what there is -------------------------------------------------------------------------------------------------

STEPS, MOST_EPOCHS, LEAST_EPOCHS = 700, 20, 3  # of a training that is proposed


def takes(path: Path) -> bool:
    """Whether it is a table with a column of texts, or a folder with folders of text files."""
    if path.is_dir() and any(path.glob("*/**/*.txt")):
        return True
    return is_table(path) and text_column(first_rows(path, LOOKED_AT)) is not None


def propose(path: Path, target: str | None) -> Proposal:
    """A task on the texts, and what is doubtful about them."""
    listing = scan(path, "--data", TEXTS | SUFFIXES)
    config = TextFilesPreprocessConfig(files=str(path), target=target)
    if Path(listing.names[0]).suffix.lower() in TEXTS:
        if target:
            raise InputError(f"--target {target}: of texts in folders the classes are the folders; leave it out")
        read, config = _read_folders(listing, config), _of_folders(config)
        own: dict[str, Any] = {}
        gaps: frozenset[str] = frozenset()
    else:
        read = read_files(listing)
        check_target(path, read["train"] or read["test"], target)
        text = _text_column(read["train"] or read["test"], config)
        config, own = config.model_copy(update={"text": text}), {"text": text, "target": target}
        gaps = Encoder([], ()).gaps
    assert config.text
    assert config.target
    rows = [row for part in read.values() for row in part]
    rows = _with_text("all", with_target("all", rows, config, gaps), config.text, config)
    cells = [row[config.target] for row in rows]
    as_classes = are_classes(cells, config)
    counts = [len(split_words(str(row[config.text]))) for row in rows]
    seen = [
        f"{len(rows):,} texts of {np.mean(counts):.0f} words on average, at most {max(counts):,}",
        *target_lines(config.target, cells, as_classes),
    ]
    if again := len(rows) - len({str(row[config.text]) for row in rows}):
        seen.append(f"{counted(again, 'text')} are there more than once")
    batch = 64
    train = {
        "epochs": int(np.clip(round(STEPS * batch / len(rows)), LEAST_EPOCHS, MOST_EPOCHS)),
        "batch_size": batch,
        "optimizer": {"name": "AdamW", "lr": 0.003, "weight_decay": 0.01},
        "scheduler": {"name": "CosineAnnealingLR"},
        "warmup_epochs": 0.3,
        "gradient_clip": 1.0,
        "monitor": "loss",
    }
    preprocess = {"reader": "texts", "files": str(path), **own}
    blocks = {
        "data": {"max_tokens": 400},
        "model": {"name": "text_ngrams"},
        "train": train,
        "evaluate": {},
        "export": {},
    }
    return Proposal(preprocess, "classification" if as_classes else "regression", blocks, seen)
