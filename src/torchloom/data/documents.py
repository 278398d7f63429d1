"""Documents as prepared data have them: the tokens of all in a row, and the texts themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from torchloom.datasets.tensors import Tensors

FILE = "text_file"  # the array that has what each sample is called, as in `predict`


def pack(tokens: Sequence[np.ndarray], texts: Sequence[str], targets: Mapping[str, np.ndarray]) -> Tensors:
    """N documents, each with its (T,) tokens and its text, and what is to be told of them, (N,) by name.

    `tokens` (int32) are those of all documents, of which document i has tokens[starts[i]:starts[i + 1]], `starts` being
    (N + 1,) int64; and in the same way `text` (uint8) with `text_starts` is the originals as UTF-8.
    """
    arrays = {
        "tokens": np.concatenate([np.empty(0, np.int32), *tokens], dtype=np.int32, casting="same_kind"),
        "starts": starts(tokens),
        **targets,
        **packed_texts(texts),
    }
    return Tensors(arrays)


def packed_texts(texts: Sequence[str], name: str = "text") -> dict[str, np.ndarray]:
    """`text` (uint8), all texts in a row as UTF-8, of which text i has text[text_starts[i]:text_starts[i + 1]]; or
    called by another `name`, which begins with text."""
    return _packed([texts], name)


def packed_names(parts: Iterable[Sequence[str]]) -> dict[str, np.ndarray]:
    """What samples are called, in the same way as FILE; so many at once are in memory as a part has."""
    return _packed(parts, FILE)


def _packed(parts: Iterable[Sequence[str]], name: str) -> dict[str, np.ndarray]:
    encoded, lengths = [np.empty(0, np.uint8)], [np.zeros(1, np.int64)]
    for texts in parts:
        each = [text.encode() for text in texts]
        encoded.append(np.frombuffer(b"".join(each), np.uint8))
        lengths.append(np.fromiter(map(len, each), np.int64, len(each)))
    return {name: np.concatenate(encoded), f"{name}_starts": np.cumsum(np.concatenate(lengths))}


def starts(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Where each of N arrays begins when they lie in a row, and where the last one ends: (N + 1,) int64."""
    return np.cumsum([0, *map(len, parts)], dtype=np.int64)


def lengths(tensors: Tensors) -> dict[str, float]:
    """How many tokens a document has."""
    counts = np.diff(tensors.arrays["starts"])
    return {"mean": float(counts.mean()), "median": float(np.median(counts)), "longest": int(counts.max())}
