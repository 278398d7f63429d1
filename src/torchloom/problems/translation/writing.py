"""Writing texts token by token, with a model in PyTorch or in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from torchloom.data.targets import Texts

States = list[Any]  # what a model keeps of the sources and of what it has written: arrays (…, B, …) with B second


class Writer(Protocol):
    """A model that writes."""

    def start(self, inputs: Mapping[str, Any]) -> tuple[np.ndarray, States]:
        """Sources -> the logits (B, V) of the first tokens, and what is kept."""

    def step(self, last: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        """The last tokens (B,) int64 -> the logits (B, V) of the next ones, and what is kept after them."""

    def take(self, states: States, rows: np.ndarray) -> States:
        """What is kept of these rows (N,)."""


class OnnxWriter:
    """The exported model, an onnxruntime.InferenceSession. Its graph has two parts, of which one is asked at a time."""

    def __init__(self, session: Any) -> None:
        import onnxruntime

        self.session, self.options = session, onnxruntime.RunOptions()
        self.options.only_execute_path_to_fetches = True
        self.inputs = {entry.name: entry for entry in session.get_inputs()}
        outputs = {entry.name for entry in session.get_outputs()}
        self.kept = [name for name in self.inputs if f"first_{name}" in outputs]
        self.changing = [name for name in self.kept if f"next_{name}" in outputs]

    def start(self, inputs: Mapping[str, Any]) -> tuple[np.ndarray, States]:
        names = [f"first_{name}" for name in ["logits", *self.kept]]
        logits, *states = self.run(names, dict(inputs), len(inputs["lengths"]))
        return logits, states

    def step(self, last: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        kept = dict(zip(self.kept, states, strict=True))
        names = ["logits", *(f"next_{name}" for name in self.changing)]
        logits, *after = self.run(names, {"last": last, **kept}, len(last))
        return logits, list((kept | dict(zip(self.changing, after, strict=True))).values())

    def take(self, states: States, rows: np.ndarray) -> States:
        return [state.take(rows, axis=1) for state in states]

    def run(self, names: list[str], given: dict[str, Any], batch: int) -> list[np.ndarray]:
        """The inputs of the other part are nothing, but must be there."""
        lacking = {name: entry for name, entry in self.inputs.items() if name not in given}
        answer: list[np.ndarray] = self.session.run(
            names, {**given, **{name: _nothing(entry, batch) for name, entry in lacking.items()}}, self.options
        )
        return answer


def _nothing(entry: Any, batch: int) -> np.ndarray:
    """An input of the graph with zeros, or ones among whole numbers, which may be lengths."""
    shape = [axis if isinstance(axis, int) else batch if axis == "batch" else 1 for axis in entry.shape]
    return np.ones(shape, np.int64) if "int64" in entry.type else np.zeros(shape, np.float32)


def write(writer: Writer, inputs: Mapping[str, Any], target: Texts) -> list[str]:
    """The answer to each of the sources."""
    found = search(writer, inputs, target.longest, target.beam, target.never)
    return [target.tokenizer.decode(tokens) for tokens in found]


def search(
    writer: Writer, inputs: Mapping[str, Any], longest: int, beam: int = 1, never: list[int] | None = None
) -> list[np.ndarray]:
    """The tokens (T,) written to each of N sources: 0 ends one, and after `longest` it has ended.

    Of all beginnings the `beam` likeliest are followed on, and the answer is that with the greatest mean log-likelihood
    of its tokens, the end among them: Wu et al., arXiv:1609.08144, section 7, with alpha 1. With a beam of 1 it is the
    likeliest token each time. Tokens in `never` are not written.
    """
    logits, states = writer.start(inputs)
    count = len(logits)
    scores, ended = np.zeros((count, 1)), np.zeros((count, 1), bool)
    written = np.zeros((count, 1, 0), np.int64)
    for _ in range(longest):
        shares = _log_softmax(logits, never or []).reshape(*scores.shape, -1)
        shares[ended] = -np.inf
        shares[ended, 0] = 0.0  # and so stays as it is
        total = (scores[:, :, None] + shares).reshape(count, -1)
        best = _greatest(total, beam)
        before, tokens = np.divmod(best, shares.shape[2])
        scores = np.take_along_axis(total, best, 1)
        written = np.concatenate([np.take_along_axis(written, before[:, :, None], 1), tokens[:, :, None]], 2)
        ended = tokens == 0
        if ended.all():
            break
        rows = (np.arange(count)[:, None] * shares.shape[1] + before).ravel()
        states = states if np.array_equal(rows, np.arange(len(logits))) else writer.take(states, rows)
        logits, states = writer.step(tokens.ravel(), states)
    lengths = (written != 0).sum(2)
    chosen = (scores / (lengths + 1)).argmax(1)
    return [written[row, place, : lengths[row, place]] for row, place in enumerate(chosen)]


def _log_softmax(logits: np.ndarray, never: list[int]) -> np.ndarray:
    """(N, V) float64 of the logits (N, V), as if there were no tokens `never`."""
    scores = logits.astype(np.float64)
    scores[:, never] = -np.inf
    scores -= scores.max(1, keepdims=True)
    found: np.ndarray = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    return found


def _greatest(values: np.ndarray, count: int) -> np.ndarray:
    """The places (N, count) of the greatest values of each row (N, M), the greatest first."""
    if count == 1:
        return values.argmax(1, keepdims=True)
    count = min(count, values.shape[1])
    places = np.argpartition(-values, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(values, places, 1), axis=1, kind="stable")
    return np.take_along_axis(places, order, 1)
