import io
import warnings
from typing import Any

import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from torch import Tensor

from torchloom.figures import RIGHT, WRONG, confusion_matrix, learning_curves, prediction_grid

GENERATOR = torch.Generator().manual_seed(0)


def png(figure: Figure) -> bytes:
    """The drawn figure; a warning, such as of a missing glyph, is an error."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(buffer, format="png", dpi=40)
    return buffer.getvalue()


def names(count: int) -> list[str]:
    return [f"class {number}" for number in range(count)]


def random_images(count: int, channels: int) -> Tensor:
    return torch.randint(256, (count, channels, 6, 5), dtype=torch.uint8, generator=GENERATOR)


def history(*columns: str) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "learning_rate": 0.1 / epoch, "seconds": 1.0, "images_per_second": 9.0}
        | {column: position + epoch / 10 for position, column in enumerate(columns)}
        for epoch in (1, 2, 3)
    ]


@pytest.mark.parametrize(("count", "numbered"), [(1, True), (2, True), (10, True), (30, True), (40, False)])
def test_confusion_matrix(count: int, numbered: bool) -> None:
    counts = torch.randint(50, (count, count), generator=GENERATOR)
    counts[0] = 0  # a class without images
    figure = confusion_matrix(counts, names(count))
    assert png(figure).startswith(b"\x89PNG")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == names(count)
    assert [label.get_text() for label in axes.get_yticklabels()] == names(count)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    texts = [int(text.get_text()) for text in axes.texts]
    assert texts == (counts.flatten().tolist() if numbered else [])


def test_confusion_matrix_is_coloured_by_the_share_of_the_true_class() -> None:
    axes = confusion_matrix(torch.tensor([[30, 10], [1, 4]]), names(2)).axes[0]
    torch.testing.assert_close(torch.tensor(axes.images[0].get_array()), torch.tensor([[0.75, 0.25], [0.2, 0.8]]))
    assert [text.get_color() for text in axes.texts] == ["white", "black", "black", "white"]
    assert [text.get_position() for text in axes.texts] == [(0, 0), (1, 0), (0, 1), (1, 1)]


@pytest.mark.parametrize("validated", [True, False])
def test_learning_curves(validated: bool) -> None:
    columns = ["train_loss", "train_accuracy"] + (["val_loss", "val_accuracy"] if validated else [])
    rows = history(*columns)
    figure = learning_curves(rows)
    assert png(figure).startswith(b"\x89PNG")
    loss, accuracy, rate = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy", "learning rate"]
    for axes, figure_name in ((loss, "loss"), (accuracy, "accuracy")):
        parts = {"training": "train", "validation": "val"} if validated else {"training": "train"}
        assert [line.get_label() for line in axes.lines] == list(parts)
        for line, part in zip(axes.lines, parts.values(), strict=True):
            assert list(line.get_xdata()) == [1, 2, 3]
            assert list(line.get_ydata()) == [row[f"{part}_{figure_name}"] for row in rows]
    assert list(rate.lines[0].get_ydata()) == [row["learning_rate"] for row in rows]


def test_learning_curves_of_a_single_epoch() -> None:
    assert png(learning_curves(history("train_loss")[:1])).startswith(b"\x89PNG")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "classes", "grid"), [(1, 1, 1), (4, 2, 4), (9, 10, 9), (11, 40, 18)])
def test_prediction_grid(channels: int, count: int, classes: int, grid: int) -> None:
    images = random_images(count, channels)
    labels = torch.randint(classes, (count,), generator=GENERATOR)
    figure = prediction_grid(images, labels, torch.randn(count, classes, generator=GENERATOR), names(classes))
    assert png(figure).startswith(b"\x89PNG")
    assert len(figure.axes) == grid
    shown = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(shown) == count
    for picture, image in zip(shown, images, strict=True):
        pixels: Any = picture.get_array()
        assert (pixels == image.permute(1, 2, 0).numpy().squeeze()).all()
        assert picture.get_clim() == (0, 255)  # not stretched to the image's own range


def test_wrong_predictions_are_marked() -> None:
    logits = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]).log()
    figure = prediction_grid(random_images(3, 3), torch.tensor([0, 0, 1]), logits, ["cat", "dog"])
    titles = [(axes.title.get_text(), to_hex(axes.title.get_color())) for axes in figure.axes]
    assert titles == [("cat 90%", RIGHT), ("✗ dog 80%\nis cat", WRONG), ("✗ cat 70%\nis dog", WRONG)]
    assert RIGHT != WRONG
