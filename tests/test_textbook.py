"""What textbooks teach beside the classes: numbers from pictures and texts by convolutions, and the next word."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tables import reviews, write
from tests.test_as_tested import Trained
from torchloom.config import BookPreprocessConfig, DataConfig, TextFilesPreprocessConfig
from torchloom.data.readers import book, texts
from torchloom.data.targets import Number, Numbers
from torchloom.data.text import Tokenizer
from torchloom.errors import InputError
from torchloom.modalities import ImageInfo
from torchloom.models import build_model, network_names
from torchloom.problems import problem_of
from torchloom.problems.language_model import generate
from torchloom.problems.language_model.config import GenerateConfig
from torchloom.problems.language_model.generation import continue_text
from torchloom.problems.regression import regression_objective

REGRESSION = problem_of("regression")
ONE = Number(name="y", mean=100.0, std=20.0)
SMALL: dict[str, dict[str, Any]] = {
    "airbench": {"widths": [8, 8, 8]},
    "alexnet": {"width": 4},
    "cnn": {"width": 4, "hidden": 16},
    "densenet": {"depth": 10, "growth": 4},
    "resnet": {"width": 4},
    "vgg": {"depth": 11, "width": 4},
    "vit": {"width": 16, "heads": 2, "layers": 1, "patch": 8},
}
OF_IMAGES = [name for name in network_names(("outputs",), ("shape",)) if name != "autoencoder"]


TWO = Numbers(numbers=[ONE, ONE.model_copy(update={"name": "z"})])


@pytest.mark.parametrize(
    ("name", "target"),
    [
        *(pytest.param(name, ONE, id=name) for name in OF_IMAGES),
        *(pytest.param(name, TWO, id=f"{name}, two", marks=pytest.mark.long) for name in OF_IMAGES),
    ],
)
def test_each_network_of_images_learns_numbers(name: str, target: Any) -> None:
    """In their units, and its loss falls along its gradient."""
    torch.manual_seed(0)
    side = 64 if name == "alexnet" else 32
    info = ImageInfo(target=target, shape=[3, side, side], mean=[0.5] * 3, std=[0.25] * 3)
    model = build_model(name, SMALL.get(name, {}), info, REGRESSION).train()
    images = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8)
    truth = 100 + 20 * torch.randn(4, len(target.numbers)).squeeze(1)
    objective = regression_objective("HuberLoss", {}, target.numbers)
    assert model(images).shape == truth.shape
    model.eval()
    before, _ = objective(model, (images, truth))
    before.backward()
    slope = sum(weight.grad.square().sum() for weight in model.parameters() if weight.grad is not None)
    assert slope > 0
    with torch.no_grad():
        for weight in model.parameters():
            if weight.grad is not None:
                weight -= 1e-3 * weight.grad / slope.sqrt()  # type: ignore[union-attr]
    assert objective(model, (images, truth))[0] < before


@pytest.mark.usefixtures("exporter")
@pytest.mark.parametrize(
    ("target", "problem"), [pytest.param("verdict", "classification", marks=pytest.mark.long), ("stars", "regression")]
)
def test_convolutions_over_words(tmp_path: Path, target: str, problem: str) -> None:
    """Classes and numbers; those over series are in test_as_tested."""
    write(tmp_path / "reviews/train.csv", reviews(80))
    write(tmp_path / "reviews/test.csv", reviews(30, seed=1))
    config = TextFilesPreprocessConfig(files=str(tmp_path / "reviews"), target=target)
    found = texts.preprocess(texts.find(config), config, tmp_path)
    network = {"name": "text_cnn", "embedding": 8, "width": 8}
    task = Trained(
        tmp_path, found, network, problem, settings={"epochs": 20, "optimizer": {"name": "Adam", "lr": 0.02}}
    )
    told = [str(row["review"]) for row in reviews(30, seed=1)]
    rows, served = task.asked(tmp_path / "reviews/test.csv"), task.served(told)
    if problem == "classification":
        task.classified(rows)
        task.classified(served)
        assert task.measured()["accuracy"] > 0.8
        return
    (expected,) = task.tested()
    for answers in (rows, served):
        np.testing.assert_allclose([row["stars"] for row in answers], expected, rtol=1e-3)
    assert task.measured()["r2"] > 0.3


LINES = ["the cat sat on the mat .", "the dog ran to the cat .", "a cat and a dog ran .", "the mat is on a dog !"]
WRITERS: dict[str, dict[str, Any]] = {
    "language_rnn": {"embedding": 8, "width": 16, "layers": 1},
    "language_transformer": {"width": 16, "heads": 2, "layers": 1},
}


def test_no_word_is_written_that_nobody_can_read() -> None:
    """Though it is the likeliest; characters and subwords have all that they were given."""
    vocabulary = ["<pad>", "<unk>", "a", "b"]
    config = GenerateConfig(prompt="a", length=2, temperature=0.0)
    for kind, expected in {"words": "a b b", "characters": "a<unk><unk>"}.items():
        tokenizer = Tokenizer.model_validate({"kind": kind, "vocabulary": vocabulary})
        text = continue_text(lambda *_: (np.array([8.0, 9.0, 1.0, 2.0]), []), tokenizer, config, 0)
        assert text == expected


@pytest.mark.usefixtures("exporter")
@pytest.mark.parametrize(
    ("tokens", "network"),
    [
        ("words", "language_rnn"),
        pytest.param("subwords", "language_transformer", marks=pytest.mark.long),
        pytest.param("words", "language_transformer", marks=pytest.mark.long),
        pytest.param("subwords", "language_rnn", marks=pytest.mark.long),
    ],
)
def test_the_next_word_and_the_next_part_of_one(tmp_path: Path, tokens: str, network: str) -> None:
    """What the exported model goes on with is the likeliest token after the text, as `evaluate` has it."""
    generator = np.random.default_rng(0)
    (tmp_path / "book.txt").write_text(" ".join(LINES[number] for number in generator.integers(0, 4, 300)))
    config = BookPreprocessConfig.model_validate(
        {"files": str(tmp_path / "book.txt"), "tokens": tokens, "vocabulary_size": 300}
    )
    found = book.preprocess(book.find(config), config, tmp_path)
    settings = {"epochs": 6, "optimizer": {"name": "Adam", "lr": 0.02}}
    task = Trained(
        tmp_path, found, {"name": network, **WRITERS[network]}, "language_model", DataConfig(window=16), settings
    )
    tokenizer = task.plan.info.tokenizer  # type: ignore[union-attr]
    metrics = task.measured()
    assert metrics["perplexity"] < len(tokenizer.vocabulary) / 3
    assert metrics["test_characters"] == len(tokenizer.decode(task.plan.tokens("test")[1:].tolist()))
    (tmp_path / "files").mkdir()
    prompts = ["the cat sat on", "a cat and a", "the dog"]
    for number, prompt in enumerate(prompts):
        (tmp_path / f"files/{number}.txt").write_text(prompt)
    rows = task.asked(tmp_path / "files", generate={"length": 1, "temperature": 0.0})
    model = task.checkpoint.build()
    for prompt, row in zip(prompts, rows, strict=True):
        with torch.no_grad():
            logits = model(torch.from_numpy(tokenizer.encode(prompt))[None])[0][0, -1]
        apart = " " if tokens == "words" else ""
        assert row["continuation"] == apart + tokenizer.decode([int(logits.argmax())])
    written = generate(task.checkpoint, GenerateConfig(prompt="the cat", length=40, samples=1))
    assert "the cat" in written
    assert tokens == "subwords" or not {"<unk>", "<pad>"} & set(written.split())
    if tokens == "words":
        with pytest.raises(InputError, match=r"^generate\.prompt: holds no words"):
            generate(task.checkpoint, GenerateConfig())
