"""Writing text: the drawing of tokens, and the same text from PyTorch and ONNX Runtime."""

from typing import Any

import numpy as np
import pytest
import torch

from torchloom.data.text import Tokenizer
from torchloom.datasets.onnx import open_session
from torchloom.errors import InputError
from torchloom.export.onnx import signature, to_onnx
from torchloom.modalities import TextInfo
from torchloom.models import build_model
from torchloom.problems import problem_of
from torchloom.problems.language_model import generation
from torchloom.problems.language_model.config import GenerateConfig
from torchloom.problems.language_model.generation import choose, continue_text, onnx_stepper, stepper
from torchloom.training.checkpoint import Checkpoint

TOKENIZER = Tokenizer.of_characters("the quick brown fox jumps over the lazy dog.\n")
LOGITS = np.log(np.array([0.5, 0.3, 0.15, 0.05]))


def shares(temperature: float, top_k: int | None, draws: int = 4000) -> np.ndarray:
    generator = np.random.default_rng(0)
    tokens = [choose(LOGITS, temperature, top_k, generator) for _ in range(draws)]
    return np.bincount(tokens, minlength=4) / draws


@pytest.mark.parametrize(
    ("temperature", "top_k", "expected"),
    [
        (1.0, None, [0.5, 0.3, 0.15, 0.05]),
        (1.0, 4, [0.5, 0.3, 0.15, 0.05]),
        (1.0, 2, [0.625, 0.375, 0, 0]),
        (0.5, None, np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365),
        (2.0, 3, np.sqrt([0.5, 0.3, 0.15, 0]) / np.sqrt([0.5, 0.3, 0.15]).sum()),
        (0.0, None, [1, 0, 0, 0]),
        (1.0, 1, [1, 0, 0, 0]),
        *[(near_0, top_k, [1, 0, 0, 0]) for near_0 in (1e-40, 1e-308, 5e-324) for top_k in (None, 2)],
    ],
)
def test_tokens_are_drawn_by_their_probabilities(temperature: float, top_k: int | None, expected: Any) -> None:
    found = shares(temperature, top_k)
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert not found[np.array(expected) == 0].any()


RECURRENT = {"embedding": 8, "width": 24, "layers": 2}
NETWORKS: dict[str, dict[str, Any]] = {
    **{cell: {"name": "language_rnn", "cell": cell, **RECURRENT} for cell in ("lstm", "gru", "rnn")},
    **{
        positions: {"name": "language_transformer", "width": 16, "heads": 2, "layers": 2, "context": 9}
        | {"positions": positions, "tied": False}
        for positions in ("rotary", "learned")
    },
}
STATES = {"lstm": ["hidden", "cell"], "gru": ["hidden"], "rnn": ["hidden"]}


def language_model(kind: str) -> tuple[Any, Checkpoint]:
    torch.manual_seed(0)
    arguments = dict(NETWORKS[kind])
    name, info = arguments.pop("name"), TextInfo(tokenizer=TOKENIZER)
    model = build_model(name, arguments, info, problem_of("language_model"))
    with torch.no_grad():
        for parameter in model.parameters() if name == "language_transformer" else ():
            parameter.normal_(std=0.3)  # distances too, which begin with nought
        model.head.weight.mul_(20)  # so that some characters are much likelier than others
    weights = dict(model.state_dict())
    return model.eval(), Checkpoint(
        network=name,
        arguments=arguments,
        problem="language_model",
        info=info,
        training={"epoch": 1},
        weights=weights,
    )


@pytest.mark.usefixtures("exporter")
@pytest.mark.parametrize("kind", NETWORKS)
def test_pytorch_and_onnx_runtime_write_the_same_text(kind: str) -> None:
    model, checkpoint = language_model(kind)
    form = signature(model, {"tokens": torch.zeros((2, 6), dtype=torch.int64)}, checkpoint)
    assert list(form.inputs) == ["tokens", *STATES.get(kind, ["keys", "values", "filled"])]
    serialised = to_onnx(model, form, checkpoint, opset=20)
    config = GenerateConfig(prompt="the fox", length=200, temperature=0.8, top_k=10)
    for seed in (0, 1):
        ours = continue_text(stepper(model), TOKENIZER, config, seed)
        theirs = continue_text(onnx_stepper(open_session(serialised)), TOKENIZER, config, seed)
        assert ours == theirs
        assert ours.startswith("the fox")
        assert len(ours) == 207
        assert len(set(ours)) > 5
    assert ours != continue_text(stepper(model), TOKENIZER, config, seed=0)


@pytest.mark.parametrize("kind", ["lstm", "rotary", "learned"])
def test_the_state_is_carried_on(kind: str) -> None:
    model, _ = language_model(kind)
    config = GenerateConfig(prompt="the fox", length=50, temperature=0.0)
    text = continue_text(stepper(model), TOKENIZER, config, seed=0)
    tokens = torch.from_numpy(TOKENIZER.encode(text))
    with torch.no_grad():
        likeliest = model(tokens[None])[0][0].argmax(1)
    assert torch.equal(likeliest[6:-1], tokens[7:])


@pytest.mark.parametrize("kind", ["lstm", "rotary", "learned"])
def test_a_long_prompt_is_read_in_parts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention to all of it at once would take memory by its square; the text is the same."""
    model, _ = language_model(kind)
    step, lengths = stepper(model), []

    def measured(tokens: np.ndarray, state: list[Any]) -> tuple[np.ndarray, list[Any]]:
        lengths.append(len(tokens))
        return step(tokens, state)

    config = GenerateConfig(prompt="the lazy dog. " * 100, length=20)
    text = continue_text(measured, TOKENIZER, config, seed=0)
    assert lengths == [generation.PART] * 2 + [400] + [1] * 20
    monkeypatch.setattr(generation, "PART", 10_000)
    assert text == continue_text(step, TOKENIZER, config, seed=0)


def test_a_prompt_that_the_model_cannot_read_is_refused() -> None:
    model, _ = language_model("gru")
    with pytest.raises(InputError, match=r"^generate\.prompt: .*Ü"):
        continue_text(stepper(model), TOKENIZER, GenerateConfig(prompt="Übung"), seed=0)
