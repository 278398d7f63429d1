"""A user's own labelled texts: a column of a table, or text files in a folder for each class.

The texts of a table may be in any script, and of any length; the label may be a word or a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np

from torchloom.config import TextFilesPreprocessConfig
from torchloom.data.class_folders import check_none_empty, class_roots, place_pictures
from torchloom.data.columns import is_number
from torchloom.data.documents import lengths, pack
from torchloom.data.readers import Proposal
from torchloom.data.row_splits import groups_of, split_rows
from torchloom.data.row_targets import Asked, asked_here, asked_of, check_split, check_target, named_targets
from torchloom.data.rows import (
    LOOKED_AT,
    Row,
    check_cells,
    first_rows,
    is_table,
    names_of,
    read_entry,
    read_files,
    say_duplicates,
    say_left_out,
    some,
    text_column,
    writing_of,
)
from torchloom.data.stored import Line
from torchloom.data.tables import LARGEST_TEXT, SUFFIXES, read_text
from torchloom.data.text import Tokenizer, read_tokenizer, split_words
from torchloom.datasets.listing import Listing, readable, scan
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError, telling
from torchloom.system.progress import track
from torchloom.system.words import are, listed, meant

TEXTS = {".txt"}
READ = 1000  # texts whose letters are looked at
FOLDER, TEXT, FILE = "class", "text", "file"  # the columns of what lies in folders


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

    Each of the tensors holds documents, see documents.pack, and the array of a data.targets.Target. Raises InputError
    for what is wrong with a file, a column or a cell.
    """
    if Path(listing.names[0]).suffix.lower() not in TEXTS:
        _check_table(config)
        read = read_files(listing, writing_of(config))
        return prepare(read, config, asked_of(read, config))
    if config.target or config.text:
        raise InputError(f"{config.files}: of text files the folders are the classes; leave target and text out")
    read, config = _read_folders(listing, config), _of_folders(config)
    return prepare(read, config, asked_of(read, config), column=False)


def preprocess_entry(table: Any, config: TextFilesPreprocessConfig) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """The same of a table that the catalog holds."""
    _check_table(config)
    read = read_entry(table, config)
    return prepare(read, config, asked_of(read, config))


def _check_table(config: TextFilesPreprocessConfig) -> None:
    if not config.targets:
        raise InputError(f"{config.place}: preprocess.target must name the column that is to be told from the texts")
    if config.splits is not None:
        raise InputError(
            f"preprocess.splits: says which folders of texts are splits, and {config.place} is a table. Leave it "
            "out; files of tables are splits by their names, such as train.csv and test.csv"
        )


def _of_folders(config: TextFilesPreprocessConfig) -> TextFilesPreprocessConfig:
    return config.model_copy(update={"target": FOLDER, "text": TEXT, "target_type": "classes"})


def _read_folders(listing: Listing, config: TextFilesPreprocessConfig) -> dict[str, list[Row]]:
    """A row for each file, of the split whose folder it lies in."""
    if listing.single:
        raise InputError(f"{config.files}: is one text, not a folder with a folder of texts for each class")
    roots = class_roots(listing, config.splits)
    found: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    placed = place_pictures(listing.names, roots)
    check_none_empty(listing, roots, placed, bool(config.splits and config.splits.train), "text")
    for path, name, place in zip(listing.paths, listing.names, placed, strict=True):
        if place is None:
            raise InputError(f"{listing.folder}: {name} lies in no folder of a class")
        with telling(path):
            row = {TEXT: read_text(path), FOLDER: place[1], FILE: name}
            found[roots[place[0]]].append(Line(row, readable(name), ""))
    return found


def prepare(
    read: dict[str, list[Row]], config: TextFilesPreprocessConfig, asked: Asked, column: bool = True
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """The same of rows of which that is `asked`; `column` is whether a user's texts stand in a column of a table."""
    rows = {split: asked.known(split, part) for split, part in read.items()}
    text = source_column(some(rows), config)
    rows = {split: with_text(split, part, text, config) for split, part in rows.items()}
    parts = split_rows(rows, config, asked.held)
    say_duplicates(parts, [text], _plain, None if column else FILE)
    target, learnt = asked.targets(parts)
    target = target if column else target.model_copy(update={"folders": True})
    texts = {split: [str(row[text]) for row in part] for split, part in parts.items()}
    tokenizer = _tokenizer(texts["train"], config)
    tensors, groups, names = {}, groups_of(parts, config), names_of(parts)
    for split, part in texts.items():
        tokens = [tokenizer.encode(each) for each in track(part, f"{split} texts")]
        tensors[split] = pack(
            tokens, part, {target.array: learnt[split], **asked.beside(parts[split]), **groups[split], **names[split]}
        )
    info = {
        "kind": "documents",
        "target": target.model_dump(),
        "tokenizer": tokenizer.model_dump(),
        "column": text if column else None,
        **({"writing": writing_of(config).model_dump()} if column else {}),
        "documents": {split: len(part) for split, part in parts.items()},
        "words": lengths(tensors["train"]),
    }
    return tensors["train"], tensors["validation"], tensors["test"], info


def _tokenizer(texts: list[str], config: TextFilesPreprocessConfig) -> Tokenizer:
    if config.tokenizer:
        return read_tokenizer(Path(config.tokenizer).expanduser())
    return Tokenizer.learnt(config.tokens, texts, config.vocabulary_size, config.min_count, config.lower_case)


def _plain(text: str) -> str:
    """What copies of a text have in common that differ in spaces, in case, or in how Unicode writes a letter."""
    return "".join(normalize("NFKC", text).split()).casefold()


def source_column(rows: Sequence[Row], config: TextFilesPreprocessConfig) -> str:
    names = [name for name in rows[0] if name not in config.targets] if rows else []
    if config.text:
        if config.text not in names:
            near = meant(config.text, names)
            raise InputError(
                f"preprocess.text {config.text!r}: there is no such column{near}; there are {listed(names)}"
            )
        return config.text
    found = text_column(rows[:LOOKED_AT], config.targets)
    if not found and len(names) == 1 and not all(is_number(row[names[0]]) for row in rows):
        return names[0]
    if not found:
        raise InputError(
            f"{config.place}: no column looks like texts. Name the one that is, as preprocess.text: there are "
            f"{listed(names)}"
        )
    return found


def with_text(split: str, rows: list[Row], text: str, config: TextFilesPreprocessConfig) -> list[Row]:
    """The rows whose text has a token."""
    if any(text not in row for row in rows):
        raise InputError(f"{config.place}: the {split} rows have no column {text!r}, which others have the texts in")
    check_cells(split, rows, text)
    long = next((place for place, row in enumerate(rows, 1) if len(str(row[text])) > LARGEST_TEXT), None)
    if long:
        raise InputError(f"the {split} rows, number {long}: {text!r} has more than {LARGEST_TEXT:,} characters")
    known = [row for row in rows if _has_token(row[text], config)]
    say_left_out(split, len(rows) - len(known), f"without a text in {text!r}")
    return known


def _has_token(text: Any, config: TextFilesPreprocessConfig) -> bool:
    if not isinstance(text, str):
        return text is not None and text == text
    whole = config.tokenizer or config.tokens != "words"
    return bool(text.strip() if whole else split_words(text))


# ---- what there is -------------------------------------------------------------------------------------------------

STEPS, MOST_EPOCHS, LEAST_EPOCHS = 700, 20, 3  # of a training that is proposed
MEMBERS, FEW = 3, 5_000_000  # networks that answer together, where the texts have fewer words than that


def takes(path: Path, target: str | None) -> bool:
    """Whether it is a table with a column of texts, or a folder with folders of text files."""
    if path.is_dir() and any(file.suffix.lower() in TEXTS for file in path.glob("*/**/*")):
        return True
    rows = first_rows(path, LOOKED_AT) if is_table(path) else []
    return bool(rows) and text_column(rows, named_targets(rows, target)) is not None


def propose(path: Path, target: str | None) -> Proposal:
    """A task on the texts, and what is doubtful about them."""
    listing = scan(path, "--data", TEXTS | SUFFIXES)
    config = TextFilesPreprocessConfig(files=str(path))
    if Path(listing.names[0]).suffix.lower() in TEXTS:
        if target:
            raise InputError(f"--target {target}: of texts in folders the classes are the folders; leave it out")
        read, config = _read_folders(listing, config), _of_folders(config)
        own: dict[str, Any] = {}
    else:
        read = read_files(listing)
        told = asked_here([row for part in read.values() for row in part], check_target(path, some(read), target))
        config = TextFilesPreprocessConfig(files=str(path), **told)
        own = {"text": source_column(some(read), config), **told}
        config = config.model_copy(update={"text": own["text"]})
    assert config.text
    asked = asked_of(read, config)
    known = {split: with_text(split, asked.known(split, part), config.text, config) for split, part in read.items()}
    check_split(known, config, asked)
    rows = [row for part in known.values() for row in part]
    counts = [len(split_words(str(row[config.text]))) for row in rows]
    seen = [
        f"{len(rows):,} texts of {np.mean(counts):.0f} words on average, at most {max(counts):,}",
        *asked.lines(rows),
    ]
    if again := len(rows) - len({str(row[config.text]) for row in rows}):
        seen.append(f"{are(again, 'text')} there more than once")
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
        "model": {"name": "text_ngrams", **({"members": MEMBERS} if sum(counts) < FEW else {})},
        "train": train,
        "evaluate": {},
        "export": {},
    }
    letters = "".join(dict.fromkeys("".join(str(row[config.text]) for row in rows[:READ])))
    return Proposal(preprocess, asked.problem, blocks, seen, letters)
