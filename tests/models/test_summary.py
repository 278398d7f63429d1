from typing import Any

import pytest
import torch
from torch import nn

from tests.exported import LETTERS as TOKENIZER
from tests.exported import REVIEWS, TABLE
from tests.models.test_networks import SMALL
from tests.stages import CLASSIFICATION
from torchloom.data.targets import Classes
from torchloom.modalities import ImageInfo, Info, TextInfo
from torchloom.models import build_model
from torchloom.models.summary import layers
from torchloom.problems import problem_of
from torchloom.problems.base import Problem

TEXT = TextInfo(tokenizer=TOKENIZER)
LETTERS = TOKENIZER.vocabulary
LANGUAGE_MODEL = problem_of("language_model")


def images(shape: list[int]) -> ImageInfo:
    return ImageInfo(shape=shape, target=Classes(classes=list("abc")), mean=[0.5] * shape[0], std=[0.25] * shape[0])


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_lenets_layers_are_those_of_the_paper() -> None:
    model = build_model("lenet", {"form": "classic"}, images([1, 28, 28]), CLASSIFICATION)
    rows = [row for row in layers(model, images([1, 28, 28])) if row["parameters"]]
    assert [(row["type"], row["output_shape"], row["parameters"]) for row in rows] == [
        ("Conv2d", [6, 28, 28], 156),  # C1: 28x28 of 32x32, to which the images are framed
        ("Subsampling", [6, 14, 14], 12),
        ("Conv2d", [6, 10, 10], 456),  # C3 with its 1,516 connections, by the number of inputs
        ("Conv2d", [9, 10, 10], 909),
        ("Conv2d", [1, 10, 10], 151),
        ("Subsampling", [16, 5, 5], 32),
        ("Linear", [120], 48_120),
        ("Linear", [84], 10_164),
        ("Linear", [3], 255),
    ]
    assert rows[-1]["name"] == "network.14"


@pytest.mark.parametrize(("name", "shape", "arguments"), SMALL)
def test_every_parameter_counts_once_and_the_logits_come_last(
    name: str, shape: list[int], arguments: dict[str, Any]
) -> None:
    model = build_model(name, arguments, images(shape), CLASSIFICATION).train()
    rows = layers(model, images(shape))
    assert sum(row["parameters"] for row in rows) == parameters(model)
    assert rows[-1]["output_shape"] == [3]
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("name", "arguments", "info", "problem", "shapes"),
    [
        (
            "language_rnn",
            {"embedding": 4, "width": 8},
            TEXT,
            LANGUAGE_MODEL,
            [["time", 4], ["time", 8], ["time", len(LETTERS)]],
        ),
        (
            "text_rnn",
            {"embedding": 4, "width": 8, "cell": "gru"},
            REVIEWS,
            CLASSIFICATION,
            [["time", 4], ["time", 16], [2]],
        ),
        ("linear", {}, TABLE, problem_of("regression"), [[1]]),
    ],
)
def test_shapes_of_texts_are_as_long_as_the_text(
    name: str, arguments: dict[str, Any], info: Info, problem: Problem, shapes: list[Any]
) -> None:
    model = build_model(name, arguments, info, problem)
    rows = layers(model, info)
    assert [row["output_shape"] for row in rows if row["parameters"]] == shapes
    assert sum(row["parameters"] for row in rows) == parameters(model)


def test_a_shared_matrix_counts_where_it_comes_first() -> None:
    model = build_model("language_rnn", {"tied": True, "embedding": 8, "width": 16, "layers": 1}, TEXT, LANGUAGE_MODEL)
    counts = {row["name"]: row["parameters"] for row in layers(model, TEXT)}
    assert (counts["embedding"], counts["head"]) == (len(LETTERS) * 8, len(LETTERS))
    assert counts["projection"] == 16 * 8 + 8


class Scaled(nn.Module):
    """A parameter beside a layer, and a layer of which only the weights are used."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.used, self.taken = nn.Linear(2, 3), nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.used(x.float().mean((2, 3))), self.taken.weight) * self.scale


def test_parameters_outside_of_leaves_and_layers_that_are_not_called() -> None:
    rows = layers(Scaled(), images([2, 4, 4]))
    assert [(row["name"], row["output_shape"], row["parameters"]) for row in rows] == [
        ("used", [3], 9),
        ("taken", None, 16),
        ("", [4], 1),
    ]
