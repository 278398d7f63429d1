import io
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from sklearn.decomposition import PCA
from sklearn.metrics import auc, roc_auc_score
from torch import Tensor

from torchloom.datasets.reports import FigureDataset
from torchloom.errors import InputError
from torchloom.modalities import AudioInfo
from torchloom.modalities.series import LabelledSeriesInfo
from torchloom.problems.classification.metrics import verdicts
from torchloom.system.figures import (
    CELL,
    COLUMNS,
    RIGHT,
    WRONG,
    calibration,
    class_shares,
    coefficient_plot,
    coloured,
    confusion_matrix,
    contact_sheet,
    image_grid,
    latent_map,
    learning_curves,
    prediction_grid,
    reconstruction_grid,
    residuals,
    roc_curves,
    rounds,
    runs,
    segmentations,
    spectrograms,
    spread_of,
    text_predictions,
    text_sheet,
)
from torchloom.system.words import Said


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
    return torch.randint(256, (count, channels, 6, 5), dtype=torch.uint8)


def history(*columns: str) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "learning_rate": 0.1 / epoch, "seconds": 1.0, "images_per_second": 9.0}
        | {column: position + epoch / 10 for position, column in enumerate(columns)}
        for epoch in (1, 2, 3)
    ]


@pytest.mark.parametrize(("count", "numbered"), [(1, True), (2, True), (10, True), (30, True), (40, False)])
def test_confusion_matrix(count: int, numbered: bool) -> None:
    counts = torch.randint(50, (count, count))
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


@pytest.mark.parametrize("sparse", [True, False])
def test_of_many_classes_the_most_confused_pairs(sparse: bool) -> None:
    counts = torch.eye(500, dtype=torch.long) * 5
    counts[7, 8], counts[400, 2] = 4, 9
    counts[range(100, 140), range(40)] = 1
    figure = confusion_matrix(counts.to_sparse() if sparse else counts, names(500))
    assert png(figure).startswith(b"\x89PNG")
    (axes,) = figure.axes
    pairs = [label.get_text() for label in axes.get_yticklabels()]
    assert pairs[:3] == ["class 400 → class 2", "class 7 → class 8", "class 100 → class 0"]
    assert [text.get_text() for text in axes.texts][:3] == ["9 of 14", "4 of 9", "1 of 6"]
    assert [bar.get_width() for bar in axes.patches] == [9, 4, *28 * [1]]
    assert axes.get_title() == "true → predicted: the 30 most frequent of 42 pairs, of 500 classes"


def test_no_pair_of_many_classes_is_confused() -> None:
    assert png(confusion_matrix(torch.eye(500).to_sparse(), names(500))).startswith(b"\x89PNG")


def test_long_names_are_cut_off() -> None:
    axes = confusion_matrix(torch.eye(2), ["x" * 41, "y" * 40]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x" * 39 + "…", "y" * 40]


def test_clients_with_many_classes() -> None:
    counts = np.ones((3, 500), dtype=int)
    counts[0, 100:119] = 30
    figure = class_shares(counts, names(500))
    assert png(figure).startswith(b"\x89PNG")
    (axes,) = figure.axes
    assert legend(axes) == [*names(119)[100:], "481 others"]
    others = axes.containers[-1]
    assert [bar.get_width() for bar in others] == [481, 481, 481]


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


@pytest.mark.parametrize("count", [1, 2])
def test_learning_curves_of_few_epochs_have_whole_ones_and_points_that_are_seen(count: int) -> None:
    figure = learning_curves(history("train_loss")[:count])
    assert png(figure).startswith(b"\x89PNG")
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2"][:count]
        assert axes.get_xlim() == (0.5, count + 0.5)
        assert axes.lines[0].get_marker() == "o"


def test_learning_curves_say_in_what_they_are_measured() -> None:
    rows = history("train_loss", "train_mae_$x_1", "val_loss", "val_mae_$x_1")
    figure = learning_curves(rows, {"loss": "standardised", "mae_$x_1": "in the unit of $x_1"})
    assert [axes.get_ylabel() for axes in figure.axes] == ["standardised", r"in the unit of \$x_1", ""]
    assert figure.axes[1].get_title() == r"mae \$x 1"


def test_figures_of_a_single_epoch_have_points() -> None:
    row = {"epoch": 1, "val_accuracy": 0.5}
    point = {"number": 1, "name": None, "value": None, "seconds": 1.0, "curves": {"epoch": [1], "val_loss": [1.0]}}
    for axes in (rounds([row], 0.5, [row]).axes[0], runs([point]).axes[1]):
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1"]
        assert all(line.get_marker() == "o" for line in axes.lines if len(line.get_xdata()) == 1)


@pytest.mark.parametrize(("count", "name"), [(2, "a"), (10, "ab"), (31, "ab"), (100, "x" * 40)])
def test_the_labels_of_a_confusion_matrix_are_within_it_as_it_is_kept(tmp_path: Path, count: int, name: str) -> None:
    figure = confusion_matrix(torch.eye(count), [f"{number}{name}" for number in range(count)])
    FigureDataset(filepath=str(tmp_path / "matrix.png")).save(figure)
    axes = figure.axes[0]
    for text in (axes.xaxis.label, axes.yaxis.label, *axes.get_yticklabels()):
        box = text.get_window_extent()
        assert min(box.x0, box.y0) > 0
        assert (box.x1, box.y1) < tuple(figure.bbox.size)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "classes"), [(1, 1), (4, 2), (9, 10), (11, 40)])
def test_prediction_grid(channels: int, count: int, classes: int) -> None:
    images = random_images(count, channels)
    labels = torch.randint(classes, (count,))
    figure = prediction_grid(images, verdicts(labels, torch.randn(count, classes), names(classes), "softmax"))
    assert png(figure).startswith(b"\x89PNG")
    (axes,) = figure.axes
    for picture, image in zip(pictures(axes), images, strict=True):
        np.testing.assert_allclose(picture.get_array(), image.permute(1, 2, 0).squeeze() / 255)
    for picture, title in zip(pictures(axes), axes.texts, strict=True):
        left, right, bottom, top = picture.get_extent()
        x, y = title.get_position()
        assert x == pytest.approx((left + right) / 2)
        assert top - 0.1 < y < top  # above its image
        assert (right - left) / (bottom - top) == pytest.approx(5 / 6)  # as the image is


def test_wrong_predictions_are_marked() -> None:
    logits = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]).log()
    figure = prediction_grid(random_images(3, 3), verdicts(torch.tensor([0, 0, 1]), logits, ["cat", "dog"], "softmax"))
    titles = [(text.get_text(), to_hex(text.get_color())) for text in figure.axes[0].texts]
    assert titles == [("cat 90%", RIGHT), ("✗ dog 80%\nis cat", WRONG), ("✗ cat 70%\nis dog", WRONG)]
    assert RIGHT != WRONG


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    return [text.get_text() for text in found.get_texts()] if found else []


@pytest.mark.parametrize("classes", [2, 3, 20])
def test_roc_curves(classes: int) -> None:
    labels = torch.arange(120) % classes
    logits = torch.randn(120, classes) + 1.5 * torch.nn.functional.one_hot(labels, classes)
    figure = roc_curves(logits.softmax(1), labels, names(classes), names(classes))
    assert png(figure).startswith(b"\x89PNG")
    (axes,) = figure.axes
    shown = [1] if classes == 2 else list(range(classes))
    areas = [roc_auc_score(labels == index, logits.softmax(1)[:, index]) for index in shown]
    entries = [entry.rsplit("  ", 1) for entry in legend(axes)]
    assert [name for name, _ in entries] == [f"class {index}" for index in shown]
    assert [float(area) for _, area in entries] == pytest.approx(areas, abs=0.000051)
    *curves, chance = axes.lines
    assert (list(chance.get_xdata()), list(chance.get_ydata())) == ([0, 1], [0, 1])
    for curve, area in zip(curves, areas, strict=True):
        assert auc(curve.get_xdata(), curve.get_ydata()) == pytest.approx(area, abs=1e-6)


def test_roc_curves_of_chosen_classes() -> None:
    labels = torch.arange(60) % 30
    figure = roc_curves(torch.randn(60, 30).softmax(1), labels, names(30), ["class 7", "class 2"])
    assert [entry.rsplit("  ", 1)[0] for entry in legend(figure.axes[0])] == ["class 7", "class 2"]
    assert figure.axes[0].get_title().endswith("the 2 hardest of 30 classes")


def test_a_perfect_roc_curve_goes_through_the_corner() -> None:
    logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    axes = roc_curves(logits.softmax(1), torch.tensor([0, 0, 1]), ["a", "b"], ["a", "b"]).axes[0]
    assert [0.0, 1.0] in axes.lines[0].get_xydata().tolist()
    assert legend(axes) == ["b  1.0000"]


def test_classes_that_begin_with_an_underscore_stand_in_every_legend() -> None:
    """Which matplotlib leaves out; and what stands between dollars is no formula."""
    classes = ["_a", "b", "__c$x$"]
    labels, shown = torch.arange(30) % 3, ["_a", "b", r"__c\$x\$"]
    roc = roc_curves(torch.randn(30, 3).softmax(1), labels, classes, classes)
    latents = latent_map(torch.randn(30, 2), labels, classes)
    shares = class_shares(np.array([[3, 1, 2], [1, 4, 1]]), classes)
    for figure in (roc, latents, shares):
        assert png(figure).startswith(b"\x89PNG")
        (axes,) = figure.axes
        assert [name.split("  ")[0] for name in legend(axes)] == shown
    for axes, drawn in ((roc.axes[0], "lines"), (shares.axes[0], "patches")):
        handles = getattr(axes.get_legend(), f"get_{drawn}")()
        colours = [getattr(handle, "get_color" if drawn == "lines" else "get_facecolor")() for handle in handles]
        assert len(set(colours)) == 3
    figure = roc_curves(torch.randn(30, 2).softmax(1), torch.arange(30) % 2, ["b", "_a"], ["b", "_a"])
    assert len(legend(figure.axes[0])) == 1
    table = coefficient_plot([{"feature": "_x $a$", "network": 2.0, "closed_form": 1.5}])
    assert [label.get_text() for label in table.axes[0].get_yticklabels()] == [r"_x \$a\$"]


def test_calibration() -> None:
    bins = [
        {"low": 0.4, "high": 0.6, "samples": 1, "confidence": 0.55, "accuracy": 0.0},
        {"low": 0.8, "high": 1.0, "samples": 3, "confidence": 0.9, "accuracy": 1.0},
    ]
    figure = calibration(bins, 0.2125)
    assert png(figure).startswith(b"\x89PNG")
    axes, counts = figure.axes
    assert axes.get_title() == "calibration error 0.2125"
    right, gap = axes.containers
    assert [(bar.get_x(), bar.get_height()) for bar in right] == [
        (pytest.approx(0.4), 0.0),
        (pytest.approx(0.8), 1.0),
    ]
    ends = [bar.get_y() + bar.get_height() for bar in gap]  # from the accuracy to the confidence
    assert ends == pytest.approx([0.55, 0.9])
    assert [bar.get_height() for bar in counts.containers[0]] == [0.25, 0.75]


def test_runs_side_by_side() -> None:
    curves = {"epoch": [1.0, 2.0], "train_loss": [2.0, 1.0], "val_loss": [3.0, 1.5]}
    points = [
        {"number": 3, "name": "r2", "value": 0.5, "seconds": 10.0, "curves": curves},
        {"number": 5, "name": None, "value": None, "seconds": 20.0, "curves": {}},
        {"number": 8, "name": "r2", "value": 0.7, "seconds": 30.0, "curves": {"epoch": [1.0], "train_loss": [1.0]}},
    ]
    figure = runs(points)
    assert png(figure).startswith(b"\x89PNG")
    left, right = figure.axes
    assert [text.get_text() for text in left.texts] == ["3", "8"]
    assert [cloud.get_offsets().tolist() for cloud in left.collections] == [[[10.0, 0.5]], [[30.0, 0.7]]]
    assert left.get_ylabel() == "test r2"
    assert {line.get_label(): list(line.get_ydata()) for line in right.lines} == {
        "3, validation": [3.0, 1.5],
        "3, training": [2.0, 1.0],
        "8, training": [1.0],
    }


# ---- texts ---------------------------------------------------------------------------------------------------------

EVEN = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log()


def written(texts: list[str]) -> list[str]:
    """What is shown of the texts beside their verdicts."""
    labels, logits = torch.zeros(len(texts), dtype=torch.int64), EVEN[:1].expand(len(texts), 2)
    figure = text_predictions(texts, verdicts(labels, logits, ["bad", "good"], "softmax"))
    assert png(figure).startswith(b"\x89PNG")
    return [text.get_text() for text in figure.axes[0].texts[1::2]]


def test_texts_stand_beside_their_verdicts() -> None:
    figure = text_predictions(
        ["one", "two"], verdicts(torch.tensor([0, 0, 1]), EVEN[[0, 1, 1]], ["bad", "good"], "softmax")
    )
    assert png(figure).startswith(b"\x89PNG")
    shown = [(text.get_text(), to_hex(text.get_color())) for text in figure.axes[0].texts]
    assert shown == [
        ("bad 90%", RIGHT),
        ("one", "#000000"),
        ("✗ good 80%\nis bad", WRONG),
        ("two", "#000000"),
    ]
    heights = [text.get_position()[1] for text in figure.axes[0].texts]
    assert heights == [0.5, 0.5, 1.5, 1.5]


def test_of_long_texts_two_lines_are_shown() -> None:
    long, longest = written(["word " * 1000, "x" * 5000])
    assert long == " ".join(["word"] * 26) + "\n" + " ".join(["word"] * 25) + " …"
    assert longest == "x" * 130 + "\n" + "x" * 128 + " …"


def test_a_figure_of_texts_is_as_large_as_these_need() -> None:
    """What is written of short texts stands in one line, and that of long ones has half of the width."""
    short = text_predictions(["4 May 98"] * 9, [("1998-05-12, not 1998-05-04, but the day before", False)] * 9)
    short.draw_without_rendering()
    boxes = [text.get_window_extent() for text in short.axes[0].texts]
    assert max(box.x1 for box in boxes) > 0.6 * short.bbox.x1
    assert sum(box.height for box in boxes[::2]) > 0.3 * short.bbox.height
    assert not [text for text in short.axes[0].texts if "\n" in text.get_text()]
    source, answer = "word " * 40, "Wort " * 40
    titles = text_predictions([source], [(answer.strip(), True)]).axes[0].texts[0].get_text()
    assert titles.replace("\n", " ") == answer.strip()


SCRIPTS = {
    "Chinese": "很好吃" * 100,
    "mixed": "good 很好吃" * 100,
    "Thai": "ที่นี่ดี" * 100,
    "words": "word " * 100,
    "a word": "x" * 400,
    "none that a font has": "\U00013000" * 300,
}


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_texts_stay_within_the_figure_and_apart(text: str) -> None:
    """In whatever script, and whatever the classes are called."""
    labels, logits = torch.tensor([0, 1]), EVEN[[0, 0]]
    classes = ["餐馆和外卖的评价都不错" * 3, "x" * 60]
    for figure in (
        text_predictions([text, text], verdicts(labels, logits, classes, "softmax")),
        text_sheet([("a/long/way/to/the/file/1.txt", "x" * 60)] * 2, [text, text]),
        text_sheet([("w" * 40, text)] * 2),
    ):
        figure.draw_without_rendering()
        boxes = [each.get_window_extent() for each in figure.axes[0].texts]
        assert max(box.x1 for box in boxes) <= figure.bbox.x1
        assert all(title.x1 < beside.x0 for title, beside in zip(boxes[::2], boxes[1::2], strict=True))
        assert all(above.y0 >= below.y1 for above, below in zip(boxes[:2], boxes[2:], strict=True))


@pytest.mark.parametrize(
    "text", ["$", "it cost $5", "$5 or $10?", r"$\frac{1}$ and \$", "$$x^2$$", "a_b^c {d} % & # ~ \\", r"\$a\$"]
)
def test_no_text_is_taken_for_a_formula(text: str) -> None:
    (shown,) = written([text])
    assert Text(text=shown)._preprocess_math(shown) == (text, False)  # type: ignore[attr-defined]


def test_white_space_is_one_space_and_an_empty_text_is_none() -> None:
    assert written(["a\nb\r\n\n\tc\x0b\x85d", "", " \n "]) == ["a b c d", "", ""]


def test_what_the_font_lacks_is_shown_as_such() -> None:
    assert written(["caf\xe9 \u2013 \x97 \U000e0ffe\U000e0fff \U0001f600!"]) == ["caf\xe9 \u2013 … … \U0001f600!"]


# ---- images --------------------------------------------------------------------------------------------------------


def pictures(axes: Axes) -> list[AxesImage]:
    """The images of a sheet: beside each other, in rows of COLUMNS, and not stretched to their own range."""
    assert not axes.axison
    assert {image.get_clim() for image in axes.images} == {(0, 1)}
    return list(axes.images)


def middles(axes: Axes) -> list[tuple[int, int]]:
    """Row and column of each image of a sheet without captions."""
    extents = [image.get_extent() for image in axes.images]
    return [(int((top + bottom) / 2 / CELL), int((left + right) / 2 / CELL)) for left, right, bottom, top in extents]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 4, 9, 20])
def test_reconstruction_grid(channels: int, count: int) -> None:
    images = random_images(count, channels)
    answers = torch.rand(images.shape)
    figure = reconstruction_grid(images, answers)
    assert png(figure).startswith(b"\x89PNG")
    (axes,) = figure.axes
    shown = [image.get_array() for image in pictures(axes)]
    for above, below, image, answer in zip(shown[::2], shown[1::2], images, answers, strict=True):
        np.testing.assert_allclose(above, image.permute(1, 2, 0).squeeze() / 255)
        np.testing.assert_allclose(below, answer.permute(1, 2, 0).squeeze())
    places = [divmod(index, COLUMNS) for index in range(count)]
    assert middles(axes) == [(2 * row + below, column) for row, column in places for below in (0, 1)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 5, COLUMNS, COLUMNS + 2])
def test_image_grid(channels: int, count: int) -> None:
    images = torch.rand(count, channels, 6, 5)
    figure = image_grid(images)
    assert png(figure).startswith(b"\x89PNG")
    (axes,) = figure.axes
    for picture, image in zip(pictures(axes), images, strict=True):
        np.testing.assert_allclose(picture.get_array(), image.permute(1, 2, 0).squeeze())
    assert middles(axes) == [divmod(index, COLUMNS) for index in range(count)]


# ---- latents and regression ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 32])
def test_latent_map(size: int) -> None:
    latents = 5 + torch.randn(60, size) @ torch.randn(size, size)
    labels = torch.arange(60) % 3
    figure = latent_map(latents, labels, [*names(3), "without samples"])
    assert png(figure).startswith(b"\x89PNG")
    (axes,) = figure.axes
    assert legend(axes) == [*names(3), "without samples"]
    points = [cloud.get_offsets() for cloud in axes.collections]
    assert [len(cloud) for cloud in points] == [20, 20, 20, 0]
    expected = PCA(min(size, 2)).fit_transform(latents.double().numpy())
    for index in range(3):
        for component in range(expected.shape[1]):  # whose signs are free
            found, wanted = points[index][:, component], expected[labels == index, component]
            assert min(abs(found - wanted).max(), abs(found + wanted).max()) < 1e-3
    if size == 1:
        assert not points[0][:, 1].any()


def test_the_latent_map_of_many_classes_has_no_legend() -> None:
    axes = latent_map(torch.randn(60, 3), torch.arange(60), names(60)).axes[0]
    assert axes.get_legend() is None
    assert len(axes.collections) == 1


def test_residuals() -> None:
    target, prediction = torch.tensor([100.0, 200.0, 300.0]), torch.tensor([110.0, 180.0, 350.0])
    figure = residuals(prediction, target, "price")
    assert png(figure).startswith(b"\x89PNG")
    left, right = figure.axes
    assert left.collections[0].get_offsets().tolist() == [[100, 110], [200, 180], [300, 350]]
    assert right.collections[0].get_offsets().tolist() == [[110, -10], [180, 20], [350, -50]]
    assert left.lines[0].get_xydata().tolist() == [[100, 100], [350, 350]]
    assert (left.get_xlabel(), left.get_ylabel()) == ("true price", "predicted price")
    assert (right.get_xlabel(), right.get_ylabel()) == ("predicted price", "residual: true - predicted")


def test_coefficient_plot() -> None:
    rows = [
        {"feature": "age", "network": 2.0, "closed_form": 1.5},
        {"feature": "blood pressure", "network": -3.0, "closed_form": 0.0},
        {"feature": "sex", "network": 0.5, "closed_form": -1.0},
    ]
    figure = coefficient_plot(rows)
    assert png(figure).startswith(b"\x89PNG")
    (axes,) = figure.axes
    assert legend(axes) == ["network", "closed form"]
    for bars, column in zip(axes.containers, ("network", "closed_form"), strict=True):
        assert [bar.get_width() for bar in bars] == [row[column] for row in rows]
        nearest = [round(bar.get_y() + bar.get_height() / 2) for bar in bars]
        assert nearest == [0, 1, 2]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["age", "blood pressure", "sex"]
    bottom, top = axes.get_ylim()
    assert bottom > top  # the first feature stands at the top


def test_a_dollar_in_a_name_is_no_formula() -> None:
    classes = ["a$\\frac$", "$b$", "c$"]
    labels, logits = torch.tensor([0, 1, 2]), torch.eye(3)[[0, 0, 2]]
    images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    for figure in (
        confusion_matrix(torch.eye(3, dtype=torch.long), classes),
        roc_curves(logits.softmax(1), labels, classes, classes),
        prediction_grid(images, verdicts(labels, logits, classes, "softmax")),
        text_predictions(["x", "y", "z"], verdicts(labels, logits, classes, "softmax")),
        latent_map(torch.randn(3, 2), labels, classes),
    ):
        figure.savefig(io.BytesIO(), format="png")


@pytest.mark.parametrize(
    "history", [{}, [], ["row"], [{"epoch": 1}], [{"epoch": 1, "learning_rate": 0.1, "train_loss": 1.0}, {"epoch": 2}]]
)
def test_a_history_that_is_none_is_refused(history: Any) -> None:
    with pytest.raises(InputError, match="Run the train stage again"):
        learning_curves(history)


# ---- of a user's own files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_the_contact_sheet_shows_each_picture_below_its_caption(channels: int) -> None:
    images = [image.numpy() for image in random_images(COLUMNS + 2, channels)]
    figure = contact_sheet(images, [f"$x_{number}$ 映 {number}%" for number in range(len(images))])
    (axes,) = figure.axes
    titles = [text.get_text() for text in axes.texts]
    assert titles == [f"\\$x_{number}\\$ … {number}%" for number in range(len(images))]
    for picture, image in zip(pictures(axes), images, strict=True):
        np.testing.assert_allclose(picture.get_array(), image.transpose(1, 2, 0).squeeze() / 255)


def test_a_long_caption_takes_two_lines_and_no_more() -> None:
    figure = contact_sheet([np.zeros((1, 4, 8), np.uint8)], ["photos/a/long/name.png: a cat 97% " * 3])
    (caption,) = (text.get_text() for text in figure.axes[0].texts)
    assert caption.count("\n") == 1
    assert caption.endswith("…")
    assert png(figure).startswith(b"\x89PNG")


def test_answers_to_rows_are_shown_by_how_they_are_spread() -> None:
    classes = ["no", "_yes", "no", "", "no"]
    table = pyarrow.table({"class_1": classes, "fare": pyarrow.array([1.0, 2.0, 2.0, 9.0, float("nan")])})
    figure = spread_of(table)
    assert png(figure).startswith(b"\x89PNG")
    counted, bins = figure.axes
    assert [label.get_text() for label in counted.get_yticklabels()] == ["no", "none", "_yes"]
    assert [bar.get_width() for bar in counted.patches] == [3, 1, 1]
    assert sum(bar.get_height() for bar in bins.patches) == 4
    assert (bins.get_xlabel(), bins.get_ylabel()) == ("fare", "answers")
    many = spread_of(pyarrow.table({"class_1": [str(place) for place in range(30)]})).axes[0]
    assert [label.get_text() for label in many.get_yticklabels()][-1] == "10 others"
    assert png(spread_of(table.slice(0, 0))).startswith(b"\x89PNG")


def test_sounds_have_axes_of_seconds_and_hertz() -> None:
    info = AudioInfo(rate=8000, mean=[-6.0] * 40, std=[3.0] * 40)
    waves = [
        np.sin(2 * np.pi * hertz * np.arange(4000 * (1 + place)) / 8000) for place, hertz in enumerate((250, 2000))
    ]
    figure = info.sheet([("a.wav", wave.astype(np.float32), f"{place}$ 90%") for place, wave in enumerate(waves)])
    assert png(figure).startswith(b"\x89PNG")
    for axes, seconds, hertz in zip(figure.axes, (0.5, 1.0), ("250", "2,000"), strict=True):
        assert axes.get_xlim() == (0, seconds)
        places = dict(zip((label.get_text() for label in axes.get_yticklabels()), axes.get_yticks(), strict=True))
        assert list(places) == ["250", "1,000", "2,000", "4,000"]
        grey = np.asarray(axes.images[0].get_array(), dtype=float).mean(1)[::-1]  # from below
        loudest = np.flatnonzero(grey == grey.max()).mean()
        assert (loudest + 0.5) * 40 / len(grey) == pytest.approx(places[hertz], abs=1)
    assert [axes.get_title() for axes in figure.axes] == [r"0\$ 90%", r"1\$ 90%"]
    assert (figure.axes[0].get_ylabel(), figure.axes[0].get_xlabel()) == ("frequency in Hz", "time in s")


@pytest.mark.parametrize("channels", [["mV"], ["_a", "b"]])
def test_labelled_series_are_drawn_with_their_answers(channels: list[str]) -> None:
    count = len(channels)
    info = LabelledSeriesInfo(channels=channels, series="id", length=4, mean=[1.0] * count, std=[2.0] * count)
    series = [np.arange(4.0 * count).reshape(4, count) + place for place in range(7)]
    loaders: Any = SimpleNamespace(chosen=lambda split, numbers: (torch.tensor(np.stack(series)), None))
    figures = [
        info.predictions(loaders, range(7), [("✗ walk 80%\nis run", False), *[("run 90%", True)] * 6]),
        info.sheet([(f"{place}", each, "run 90%") for place, each in enumerate(series)]),
    ]
    for figure in figures:
        assert png(figure).startswith(b"\x89PNG")
        assert len(figure.axes) == 7
        for axes, values in zip(figure.axes, series, strict=True):
            for line, drawn in zip(axes.lines, values.T, strict=True):
                assert list(line.get_xdata()) == [1, 2, 3, 4]
                np.testing.assert_allclose(line.get_ydata(), drawn if count == 1 else (drawn - 1) / 2)
        assert figure.axes[0].get_ylabel() == ("mV" if count == 1 else "standardised")
        assert [text.get_text() for each in figure.legends for text in each.get_texts()] == (
            channels if count > 1 else []
        )
    assert figures[0].axes[0].get_title() == "✗ walk 80%\nis run"
    assert [to_hex(axes.title.get_color()) for axes in figures[0].axes[:2]] == [WRONG, RIGHT]


def test_a_contact_sheet_of_nothing_says_so() -> None:
    figure = contact_sheet([], [])
    assert [text.get_text() for text in figure.axes[0].texts] == ["no pictures"]
    assert png(figure).startswith(b"\x89PNG")
    assert png(text_sheet([])).startswith(b"\x89PNG")


def test_the_sheet_of_texts_names_each_and_what_was_said_of_it() -> None:
    rows = [("a.txt:1", "good 97%"), ("a/very/long/way/to/the/file $1$.txt", "cost $5 " * 100)]
    figure = text_sheet(rows)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[:2] == ["a.txt:1", "good 97%"]
    assert texts[2].endswith("\\$1\\$.txt")
    shown = text_sheet(rows, ["a fine film", "dull"]).axes[0].texts
    assert [text.get_text() for text in shown][:2] == ["a.txt:1\ngood 97%", "a fine film"]
    assert texts[3].startswith("cost \\$5 cost")
    assert texts[3].endswith("…")
    assert png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "sheet",
    [
        lambda said: contact_sheet([np.zeros((1, 4, 4), np.uint8)] * 3, said).axes[0].texts,
        lambda said: text_sheet([("a", each) for each in said], ["x", "y", "z"]).axes[0].texts[::2],
        lambda said: [
            axes.title for axes in spectrograms([(np.zeros((1, 8, 9)), 1.0)] * 3, 8, {}, list(map(coloured, said))).axes
        ][:3],
    ],
)
def test_sheets_say_in_colour_what_is_right(sheet: Callable[[list[str]], Any]) -> None:
    """The truth is there as well where the answer is long."""
    said = [Said("a 90%", True), Said(f"✗ {'long ' * 20}\nis b", False), "c 80%"]
    found = [(text.get_text(), to_hex(text.get_color())) for text in sheet(said)]
    assert [colour for _, colour in found] == [RIGHT, WRONG, "#000000"]
    assert found[1][0].split("\n")[-1] == "is b"


def test_segmentations_have_titles_and_a_key_to_the_colours() -> None:
    """Also where classes have names of any script or sign, and are more than a line has room for."""
    samples = [(f"sample {number}: $5", [np.full((6, 9, 3), 0.2 * part) for part in range(4)]) for number in range(3)]
    key = [(f"_class {number}", (number / 9, 0.5, 0.1)) for number in range(9)]
    figure = segmentations(samples, ("picture", "mask", "answer", "wrong"), key)
    (axes,) = figure.axes
    assert len(axes.images) == 12
    texts = [text.get_text() for text in axes.texts]
    assert texts[:9] == [name for name, _ in key]
    assert texts.count("answer") == 3
    assert texts[10] == "sample 0: \\$5"
    assert [patch.get_facecolor()[:3] for patch in axes.patches] == [colour for _, colour in key]
    height = axes.get_ylim()[0]
    places = [text.get_position() for text in axes.texts]
    assert len(set(places)) == len(places)
    assert all(0 <= y <= height for _, y in places)
    assert max(image.get_extent()[2] for image in axes.images) < min(y for _, y in places[:9])
    assert png(figure).startswith(b"\x89PNG")


def test_of_very_many_samples_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchloom.system.figures.POINTS", 100)
    truth = torch.arange(1001.0)
    figure = residuals(truth + 1, truth, "height")
    assert figure.get_suptitle() == "100 of 1,001 samples"
    left, right = (axes.collections[0].get_offsets() for axes in figure.axes)
    assert (len(left), left[0, 0], left[-1, 0], len(right)) == (100, 0.0, 1000.0, 100)
    assert residuals(truth[:90], truth[:90], "height").get_suptitle() == ""
    shares = torch.rand(1001, 2, generator=torch.Generator().manual_seed(0))
    curve = roc_curves(shares, torch.arange(1001) % 2, ["a", "b"], ["a", "b"]).axes[0].lines[0].get_xydata()
    assert curve.shape == (100, 2)
    assert curve[[0, -1]].tolist() == [[0, 0], [1, 1]]
