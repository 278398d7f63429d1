"""Writing text, token by token, with a model in PyTorch or in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from torchloom.data.text import Tokenizer
from torchloom.errors import telling
from torchloom.problems.language_model.config import GenerateConfig

# Tokens (T,) int64 and the state before them -> the logits (V,) of the next token and the state after them.
Step = Callable[[np.ndarray, list[Any]], tuple[np.ndarray, list[Any]]]
PART = 500  # tokens of a prompt that are read at once: attention takes memory by their square


def stepper(model: Any) -> Step:
    """A step of a language model in PyTorch."""
    import torch

    @torch.no_grad()
    def step(tokens: np.ndarray, state: list[Any]) -> tuple[np.ndarray, list[Any]]:
        logits, *after = model(torch.from_numpy(tokens)[None], *state)
        return logits[0, -1].float().numpy(), after

    return step


def onnx_stepper(session: Any) -> Step:
    """A step of the exported model: an onnxruntime.InferenceSession."""
    tokens_input, *state_inputs = session.get_inputs()

    def step(tokens: np.ndarray, state: list[Any]) -> tuple[np.ndarray, list[Any]]:
        before = state or [np.zeros([_length(axis) for axis in entry.shape], np.float32) for entry in state_inputs]
        names = [tokens_input.name, *(entry.name for entry in state_inputs)]
        logits, *after = session.run(None, dict(zip(names, [tokens[None], *before], strict=True)))
        return logits[0, -1], after

    return step


def _length(axis: int | str) -> int:
    """Of an axis of the graph's inputs; that of the batch has a name."""
    return axis if isinstance(axis, int) else 1


def continue_text(step: Step, tokenizer: Tokenizer, config: GenerateConfig, seed: int) -> str:
    """The prompt and `config.length` more tokens, each drawn by the probabilities that `step` gives.

    Raises InputError when the prompt has characters that the model does not know, or no word.
    """
    with telling("generate.prompt"):
        tokenizer.check_known(config.prompt)
        tokens = tokenizer.tokens(config.prompt)
    generator = np.random.default_rng(seed)
    state: list[Any] = []
    for part in np.split(tokens, range(PART, len(tokens), PART)):
        logits, state = step(part, state)
    written = []
    for _ in range(config.length):
        logits[tokenizer.never_written] = -np.inf
        token = choose(logits, config.temperature, config.top_k, generator)
        written.append(token)
        logits, state = step(np.array([token]), state)
    return tokenizer.continued(config.prompt, written)


def choose(logits: np.ndarray, temperature: float, top_k: int | None, generator: np.random.Generator) -> int:
    """One token by the softmax of logits (V,) / temperature over the `top_k` likeliest; the likeliest at temperature 0.

    One random number is used for each token whatever the settings.
    """
    point = generator.random()
    if temperature == 0:
        return int(np.argmax(logits))
    with np.errstate(over="ignore"):  # a temperature near 0 leaves the likeliest alone
        scaled = (logits.astype(np.float64) - np.max(logits)) / temperature
    if top_k is not None and top_k < len(scaled):
        scaled[scaled < np.sort(scaled)[-top_k]] = -np.inf
    shares = np.exp(scaled).cumsum()
    return int(np.searchsorted(shares, point * shares[-1], side="right"))
