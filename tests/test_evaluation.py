import io
import json
import math
from typing import Any

import pytest
import rich
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader

from torchloom.data.batches import Batches, ImageBatches
from torchloom.evaluation import classification_metrics, predict

# Images as (true, predicted). By class: a has 2 right and 1 wrongly called so, b 1 right and 1 called so, c 1 right.
PAIRS = [(0, 0), (0, 0), (1, 1), (2, 1), (2, 2), (1, 0)]


def sure_of(predicted: list[int], classes: int, logit: float = 2.0) -> Tensor:
    """Logits that are 0 but for the predicted class."""
    return logit * nn.functional.one_hot(torch.tensor(predicted), classes).float()


def confident(confidence: float, right: int, wrong: int) -> tuple[Tensor, Tensor]:
    """Logits of two classes that give class 0 this probability, and labels of which so many are 0."""
    logits = torch.tensor([[confidence, 1 - confidence]]).log().expand(right + wrong, 2)
    return logits, torch.tensor([0] * right + [1] * wrong)


def indexed_images(count: int) -> tuple[Tensor, Tensor]:
    """Images (N, 2, 2, 3) filled with their own number, and it as the label."""
    labels = torch.arange(count)
    return labels.to(torch.uint8)[:, None, None, None].expand(count, 2, 2, 3), labels


def loader(count: int, batch_size: int) -> DataLoader[Any]:
    return DataLoader(ImageBatches(*indexed_images(count)), sampler=Batches(count, batch_size), batch_size=None)


class Corner(nn.Module):
    """Logits that are the image's first pixel and its negative; dropout in training would spoil them."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.9)

    def forward(self, images: Tensor) -> Tensor:
        pixel = self.dropout(images[:, 0, 0, :1].float())
        return torch.cat([pixel, -pixel], dim=1).bfloat16()


def test_figures_counted_by_hand() -> None:
    truth, predicted = zip(*PAIRS, strict=True)
    logits, labels = sure_of(list(predicted), 3), torch.tensor(truth)
    metrics, per_class, confusion = classification_metrics(logits, labels, ["a", "b", "c"])
    f1 = {"a": 0.8, "b": 0.5, "c": 2 / 3}
    everything = math.exp(2) + 2
    assert metrics == pytest.approx(
        {
            "accuracy": 4 / 6,
            "top5_accuracy": 1.0,
            "loss": math.log(everything) - 4 / 6 * 2,
            "macro_f1": sum(f1.values()) / 3,
            "macro_precision": (2 / 3 + 1 / 2 + 1) / 3,
            "macro_recall": (1 + 1 / 2 + 1 / 2) / 3,
            "calibration_error": math.exp(2) / everything - 4 / 6,
        },
        abs=1e-6,
    )
    expected = {"a": (2 / 3, 1.0, 2), "b": (1 / 2, 1 / 2, 2), "c": (1.0, 1 / 2, 2)}
    assert per_class.keys() == expected.keys()
    for name, (precision, recall, images) in expected.items():
        assert per_class[name] == pytest.approx(
            {"precision": precision, "recall": recall, "f1": f1[name], "images": images}
        )
    assert confusion.tolist() == [[2, 0, 0], [1, 1, 0], [0, 1, 1]]


def test_top5_takes_the_fifth_and_not_the_sixth() -> None:
    logits = torch.arange(7, 0, -1).float().expand(7, 7)  # class 0 first, class 6 last
    metrics, _, _ = classification_metrics(logits, torch.arange(7), list("abcdefg"))
    assert metrics["top5_accuracy"] == pytest.approx(5 / 7)
    assert metrics["accuracy"] == pytest.approx(1 / 7)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_top5_of_at_most_five_classes_is_one(count: int) -> None:
    logits = sure_of([0] * count, count)
    metrics, _, confusion = classification_metrics(logits, torch.arange(count), list("abcde")[:count])
    assert metrics["top5_accuracy"] == 1.0
    assert metrics["accuracy"] == pytest.approx(1 / count)
    assert confusion.shape == (count, count)


@pytest.mark.parametrize(
    ("groups", "error"),
    [
        ([(0.8, 8, 2)], 0.0),
        ([(0.7, 7, 3), (0.9, 9, 1)], 0.0),
        ([(1 - 1e-7, 5, 5)], 0.5),
        ([(0.55, 1, 3), (0.95, 4, 0)], (4 * 0.30 + 4 * 0.05) / 8),
        ([(0.6, 10, 0)], 0.4),
    ],
    ids=["calibrated", "calibrated in two bins", "overconfident", "two bins", "underconfident"],
)
def test_calibration_error(groups: list[tuple[float, int, int]], error: float) -> None:
    logits, labels = zip(*(confident(*group) for group in groups), strict=True)
    metrics, _, _ = classification_metrics(torch.cat(logits), torch.cat(labels), ["a", "b"])
    assert metrics["calibration_error"] == pytest.approx(error, abs=1e-5)


@pytest.mark.parametrize("predicted", [[0, 0, 1, 1], [0, 0, 1, 2]], ids=["never seen", "only guessed"])
def test_a_class_without_images_gives_zeros_and_no_nan(predicted: list[int]) -> None:
    metrics, per_class, confusion = classification_metrics(
        sure_of(predicted, 3), torch.tensor([0, 0, 1, 1]), ["a", "b", "c"]
    )
    assert json.dumps([metrics, per_class, confusion.tolist()], allow_nan=False)
    assert per_class["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "images": 0}
    assert per_class["a"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "images": 2}
    assert confusion[2].tolist() == [0, 0, 0]


@pytest.mark.parametrize("batch_size", [1, 4, 10, 100])
def test_predictions_keep_the_order(batch_size: int) -> None:
    model = Corner().train()
    logits, labels = predict(model, loader(10, batch_size))
    assert labels.tolist() == list(range(10))
    assert logits[:, 0].tolist() == list(range(10))
    assert logits.dtype is torch.float32
    assert not logits.requires_grad
    assert not model.training


def test_predicting_shows_a_bar_to_who_watches(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "torchloom")
    shown = io.StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=shown, force_terminal=True))
    logits, _ = predict(Corner(), loader(10, 4))
    assert len(logits) == 10
    assert "test" in shown.getvalue()
    assert "3/3" in shown.getvalue()
