"""The pictures in data/08_reporting. Figures are made without pyplot, so that nothing global is left behind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from torchloom.errors import InputError
from torchloom.system.fonts import drawable, illegible, shown
from torchloom.system.words import Said

if TYPE_CHECKING:
    from pyarrow import ChunkedArray, Table
    from torch import Tensor

drawable()  # before the first figure: it takes the fonts that there are when it is made

COLUMNS = 9  # of images in a grid
LEGEND = 20  # entries of a legend at most
NUMBERED, MATRIX = 30, 100  # classes of a confusion matrix at most, with its numbers and without
SERIES = 7  # columns of a series that are drawn
ACROSS, PANEL = 5, 2.5  # panels beside each other, and inches that each takes
BINS = 30  # of a histogram
PAIRS = 30  # that are shown of more classes
TITLE, LINE = 26, 130  # Latin letters of 8 points that there is room for, in a figure of texts, if they are needed
TITLE_LETTER, LINE_LETTER, TEXT_LINE = 0.092, 0.073, 0.15  # inches for each of both, and for a line of these
RESIDUALS = 6  # numbers of which they are shown
FEW = 10  # epochs that are all named at an axis
POINTS = 100_000  # of a curve or a cloud at most
KEY, LINE_HEIGHT = 1.5, 0.25  # inches for a name of a colour, and for a line of these
SCALE = 1.4  # times as large as others are images of which each pixel counts
CELL, CAPTION = 1.5, 0.4  # inches for an image, and above it for two lines of text
RIGHT, WRONG = "#2a7f3f", "#c1272d"


def confusion_matrix(counts: Tensor, classes: list[str]) -> Figure:
    """Counts (C, C), dense or sparse, true classes down; coloured by the share of the true class.

    Of more than MATRIX classes, the pairs that are most often confused.
    """
    if len(classes) > MATRIX:
        return _confused_pairs(counts, classes)
    counts = counts.to_dense()
    numbered = len(classes) <= NUMBERED
    size = max(4.0, 1.2 + (0.55 if numbered else 0.16) * len(classes))  # inches
    figure = Figure(figsize=(size + 1, size), layout="compressed")  # for axes whose proportions are fixed
    axes = figure.add_subplot()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class")
    axes.set(xlabel="predicted", ylabel="true", xticks=range(len(classes)), yticks=range(len(classes)))
    axes.set_xticklabels(map(_short, classes), rotation=45 if numbered else 90, ha="right" if numbered else "center")
    axes.set_yticklabels(map(_short, classes))
    if not numbered:
        axes.tick_params(labelsize=7)
        return figure
    for row in range(len(classes)):
        for column in range(len(classes)):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", color=colour, fontsize=8)
    return figure


def _confused_pairs(counts: Tensor, classes: list[str]) -> Figure:
    """A bar for each of the PAIRS most frequent mistakes by counts (C, C), which are sparse."""
    import torch

    counts = counts.to_sparse().coalesce()
    (true, predicted), number = counts.indices(), counts.values()
    samples = torch.zeros(len(classes), dtype=number.dtype).index_add_(0, true, number)
    wrong = (true != predicted).nonzero().flatten()
    worst = wrong[number[wrong].argsort(descending=True, stable=True)[:PAIRS]]
    figure = Figure(figsize=(9, 1.2 + 0.24 * max(len(worst), 1)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(range(len(worst)), number[worst].tolist(), color=WRONG)
    axes.bar_label(
        bars, [f"{int(number[each])} of {int(samples[true[each]])}" for each in worst], padding=3, fontsize=8
    )
    pairs = [f"{_short(classes[true[each]])} → {_short(classes[predicted[each]])}" for each in worst]
    axes.set_yticks(range(len(worst)), pairs, fontsize=8)
    title = f"true → predicted: the {len(worst)} most frequent of {len(wrong):,} pairs, of {len(classes):,} classes"
    axes.set(xlabel="test samples of the true class that are taken for the other", title=title)
    axes.title.set_fontsize(10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.1)
    axes.invert_yaxis()
    return figure


def learning_curves(history: list[dict[str, float]], units: Mapping[str, str] | None = None) -> Figure:
    """A panel for each figure that the history follows, training and validation together, and the learning rate.

    At most three of them stand side by side. `units` say in what a figure is measured, by its name without `train_` or
    `val_`, and stand at its axis.

    InputError when it is not what training writes.
    """
    if not isinstance(history, list) or not history or not all(isinstance(row, dict) for row in history):
        raise InputError("the history is empty or no history. Run the train stage again")
    needed = {"epoch", "learning_rate", "train_loss", *history[0]}
    if not all(needed <= row.keys() for row in history):
        raise InputError("the history lacks figures or epochs. Run the train stage again")
    followed = [name.partition("_") for name in history[0]]
    names = list(dict.fromkeys(name for part, _, name in followed if part in {"train", "val"}))
    columns = min(3, len(names) + 1)
    rows = -(-(len(names) + 1) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels[len(names) + 1 :]:
        axes.remove()
    panels = panels[: len(names) + 1]
    epochs = [row["epoch"] for row in history]
    for axes, name in zip(panels, names, strict=False):
        for part, label in (("train", "training"), ("val", "validation")):
            if f"{part}_{name}" in history[0]:
                axes.plot(epochs, [row[f"{part}_{name}"] for row in history], marker=_marker(epochs), label=label)
        axes.set(title=_short(name.replace("_", " ")), ylabel=_short((units or {}).get(name, "")))
        axes.legend()
    panels[-1].plot(epochs, [row["learning_rate"] for row in history], marker=_marker(epochs), color="grey")
    panels[-1].set(title="learning rate")
    for axes in panels:
        axes.set_xlabel("epoch")
        _by_epoch(axes, epochs)
    return figure


def _marker(epochs: Sequence[float]) -> str:
    """What a point of a curve is shown as: where there are few, it must be seen without a line."""
    return "o" if len(epochs) <= FEW else "."


def _by_epoch(axes: Axes, epochs: Sequence[float]) -> None:
    """Whole epochs to the right, or folds, of which there may be a single one."""
    axes.grid(alpha=0.3)
    if len(set(epochs)) > FEW:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    elif epochs:
        axes.set(xticks=sorted(set(epochs)), xlim=(min(epochs) - 0.5, max(epochs) + 0.5))


def roc_curves(answers: Tensor, labels: Tensor, classes: list[str], chosen: list[str]) -> Figure:
    """For each chosen class against the rest, the share found over the share of false alarms, with the area below.

    `answers` (N, classes) are on [0, 1], the higher, the likelier.
    """
    from torchmetrics.functional.classification import binary_auroc, binary_roc

    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.add_subplot()
    numbers = {name: index for index, name in enumerate(classes)}
    shown = chosen[1:] if len(classes) == 2 else chosen  # of two classes, one curve is the other's mirror image
    names = []
    for index in map(numbers.__getitem__, shown):
        scores, truth = answers[:, index], (labels == index).long()
        false_alarms, found, _ = binary_roc(scores, truth)
        some = _some(len(found))
        axes.plot(false_alarms[some], found[some], linewidth=1)
        names.append(f"{_short(classes[index])}  {binary_auroc(scores, truth):.4f}")
    _legend(axes, axes.lines, names, title="area", loc="lower right")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.5, linestyle="--")
    few = f"\nthe {len(shown)} hardest of {len(classes):,} classes" if len(chosen) < len(classes) else ""
    title = f"ROC, one class against the rest{few}"
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=title)
    return figure


def precision_recall(answers: np.ndarray, marks: np.ndarray, names: list[str], chosen: list[str]) -> Figure:
    """For each chosen label, how many of the samples that are said to have it do, over how many of those that do are.

    `answers` (N, K) are the higher, the likelier; `marks` (N, K) are above 0 where a label holds.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.add_subplot()
    places = [names.index(name) for name in chosen if marks[:, names.index(name)].any()]
    written = []
    for place in places:
        precision, recall, _ = precision_recall_curve(marks[:, place] > 0, answers[:, place])
        some = _some(len(recall))
        axes.step(recall[some], precision[some], where="post", linewidth=1)
        area = average_precision_score(marks[:, place] > 0, answers[:, place])
        written.append(f"{_short(names[place])}  {area:.4f}")
    _legend(axes, axes.lines, written, title="average precision", loc="lower left")
    few = f"\nthe {len(places)} hardest of {len(names):,} labels" if len(places) < len(names) else ""
    axes.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02), title=f"precision over recall{few}")
    return figure


def _legend(axes: Axes, drawn: Sequence[Any], names: list[str], **options: Any) -> None:
    """A legend of what was `drawn`; the names are a user's own, of which matplotlib leaves out those that begin with _.

    They come as `_short` makes them.
    """
    legend = axes.legend(list(drawn), ["name"] * len(names), fontsize=8, **options)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)


def calibration(bins: list[dict[str, float]], error: float) -> Figure:
    """Reliability diagram (Guo et al., "On calibration of modern neural networks", ICML 2017), over a histogram.

    `bins` are the rows of evaluation.reliability, `error` the calibration error.
    """
    figure = Figure(figsize=(5, 5.6), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    middle, width = [(row["low"] + row["high"]) / 2 for row in bins], bins[0]["high"] - bins[0]["low"]
    accuracy = [row["accuracy"] for row in bins]
    gaps = [row["confidence"] - row["accuracy"] for row in bins]
    axes.bar(middle, accuracy, width, edgecolor="white", label="accuracy")
    axes.bar(middle, gaps, width, accuracy, color="none", hatch="///", edgecolor=WRONG, label="gap to the confidence")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.7, linestyle="--")
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title=f"calibration error {error:.4f}")
    axes.legend(loc="upper left", fontsize=8)
    samples = [row["samples"] for row in bins]
    counts.bar(middle, [count / sum(samples) for count in samples], width, color="grey", edgecolor="white")
    counts.set(xlabel="confidence", ylabel="share")
    return figure


def prediction_grid(images: Tensor, verdicts: Sequence[tuple[str, bool]]) -> Figure:
    """Images (B, C, H, W) uint8, above each what is said of it: in red where that is wrong.

    There may be more verdicts than images.
    """
    figure, axes = _sheet(*_rows_and_columns(len(images)), caption=CAPTION)
    for index, (image, (title, right)) in enumerate(zip(images, verdicts, strict=False)):
        row, column = divmod(index, COLUMNS)
        _show(axes, row, column, _pixels(image / 255), CAPTION)
        _title(axes, row, column, _literal(title), RIGHT if right else WRONG)
    return figure


def spectrograms(
    sounds: Sequence[tuple[np.ndarray, float]],
    bands: int,
    frequencies: Mapping[int, float],
    captions: Sequence[tuple[str, str]],
) -> Figure:
    """Spectrograms as grey values (1, H, W) uint8, with how many seconds each takes, below a caption in a colour.

    `frequencies` are those in Hz that stand at the axis, with their places among the `bands`.
    """
    figure, panels = _panels(captions, "time in s", "frequency in Hz")
    for axes, (picture, seconds) in zip(panels, sounds, strict=False):
        axes.imshow(picture[0], cmap="gray", vmin=0, vmax=255, extent=(0, seconds, 0, bands), aspect="auto")
        axes.set_yticks(list(frequencies.values()), [f"{hertz:,}" for hertz in frequencies])
    return figure


def curves(
    series: Sequence[np.ndarray], channels: Sequence[str], captions: Sequence[tuple[str, str]], unit: str
) -> Figure:
    """Series (T, channels), step by step, below a caption in a colour; of many channels the first are drawn."""
    shown = channels[:SERIES] if len(channels) > 1 else ()  # in the legend
    beside = max(1, int(min(len(captions), ACROSS) * PANEL / KEY))
    figure, panels = _panels(captions, "step", unit, below=LINE_HEIGHT * -(-len(shown) // beside))
    for axes, values in zip(panels, series, strict=False):
        steps, marker = np.arange(1, len(values) + 1), "." if len(values) <= FEW else None
        for place in range(len(channels[:SERIES])):
            axes.plot(steps, values[:, place], linewidth=0.8, marker=marker)
    if shown and panels:
        look: dict[str, Any] = {"fontsize": 7, "loc": "lower center", "ncols": beside, "frameon": False}
        legend = figure.legend(panels[0].lines, ["name"] * len(shown), **look)
        for text, name in zip(legend.get_texts(), shown, strict=True):
            text.set_text(_literal(_wrapped(name, 16, 1)))
    return figure


def _panels(
    captions: Sequence[tuple[str, str]], xlabel: str, ylabel: str, below: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """A panel for each caption, ACROSS beside each other; what its axes are stands at the outer ones.

    There is room of so many inches `below` all of them.
    """
    rows, columns = -(-max(len(captions), 1) // ACROSS), min(max(len(captions), 1), ACROSS)
    width, height = 0.2 + PANEL * columns, 0.4 + 1.8 * rows + below
    figure = Figure(figsize=(width, height))  # to lay it out by what is in it takes seconds
    edges = 0.7 / width, (0.5 + below) / height, 1 - 0.1 / width, 1 - 0.45 / height
    figure.subplots_adjust(*edges, wspace=0.25, hspace=0.55)
    panels = list(figure.subplots(rows, columns, squeeze=False).flatten())
    for axes in panels[len(captions) :]:
        axes.remove()
    panels = panels[: len(captions)]
    for place, (axes, (caption, colour)) in enumerate(zip(panels, captions, strict=True)):
        axes.set_title(_literal(_to_the_end(caption, 36, 2)), color=colour, fontsize=8)
        axes.tick_params(labelsize=6)
        if place % columns == 0:
            axes.set_ylabel(_short(ylabel), fontsize=7)
        if place + columns >= len(panels):
            axes.set_xlabel(xlabel, fontsize=7)
    return figure, panels


def colour_of(right: bool | None) -> str:
    """What is said of a sample, by whether it is right, if that is known."""
    return "black" if right is None else RIGHT if right else WRONG


def coloured(caption: str) -> tuple[str, str]:
    """What is said of a sample and its colour, by whether that is `words.Said` to be right."""
    return caption, colour_of(caption.right if isinstance(caption, Said) else None)


def text_predictions(texts: Sequence[str], verdicts: Sequence[tuple[str, bool]], names: Sequence[str] = ()) -> Figure:
    """How each text begins, and beside it what is said of it: in red where that is wrong.

    Texts that people have written, and that are not what we say of a sample, have `names`: for those that no font has.
    """
    if names:
        legible = {name: text for name, text in zip(names, texts, strict=True) if not illegible(text)}
        texts = [legible.get(name, f"{name} {shown(text, free=True)}") for name, text in zip(names, texts, strict=True)]
    rows = [(title, RIGHT if right else WRONG) for title, right in verdicts]
    return _lines([(title, text, colour) for text, (title, colour) in zip(texts, rows, strict=False)], bool(names))


def _lines(rows: list[tuple[str, str, str]], free: bool) -> Figure:
    """A title in a colour, and beside it how a text begins; the figure is as large as they need."""
    title_width, line_width = _widths([title for title, *_ in rows], [_in_one_line(text) for _, text, _ in rows], free)
    titles = [_literal(_to_the_end(title, title_width, 3)) for title, *_ in rows]
    texts = [_literal(_wrapped(_in_one_line(text), line_width, 2, free), free) for _, text, _ in rows]
    left, right = TITLE_LETTER * title_width + 0.2, LINE_LETTER * line_width + 0.6
    height = TEXT_LINE * (1 + max((text.count("\n") + 1 for text in [*titles, *texts]), default=1))
    figure = Figure(figsize=(left + right, height * max(len(rows), 1) + 0.2))
    axes = figure.add_axes((0.01, 0, 0.98, 1))
    axes.set(xlim=(0, 1), ylim=(max(len(rows), 1), 0))
    axes.axis("off")
    for row, (title, text, (*_, colour)) in enumerate(zip(titles, texts, rows, strict=True)):
        axes.text(0, row + 0.5, title, color=colour, fontsize=8, va="center")
        axes.text(left / (left + right), row + 0.5, text, fontsize=8, va="center")
    return figure


def _widths(titles: Sequence[str], texts: Sequence[str], free: bool) -> tuple[int, int]:
    """For how many letters of titles and of texts there is room: of titles for more than TITLE where texts leave it, or
    where three lines of such are not enough."""
    from rich.cells import cell_len

    longest = max((cell_len(line) for title in titles for line in shown(title).split("\n")), default=1)
    line = min(LINE, max((cell_len(shown(text, free)) for text in texts), default=1))
    room = TITLE + LINE
    most = max(TITLE, room - line, room // 2 if longest > 3 * TITLE else 0)
    title = max(1, min(longest, most))
    return title, max(1, min(line, room - title))


def _wrapped(text: str, width: int, most: int, free: bool = False) -> str:
    """The text in lines, at most so many, of the `width` of so many Latin letters; Chinese ones take two."""
    from rich.console import Console
    from rich.text import Text

    def wrap(text: str, width: int) -> list[str]:
        return [line.plain.rstrip() for line in Text(text).wrap(Console(), width)]

    lines = wrap(shown(text, free)[: 3 * width * most], width)  # which is enough of any
    if len(lines) > most:
        lines[most - 1] = f"{wrap(lines[most - 1], width - 2)[0]} …"
    return "\n".join(lines[:most])


def _to_the_end(text: str, width: int, most: int) -> str:
    """The same of a text whose last line, such as what is true, is to be there, too."""
    before, _, last = text.rpartition("\n")
    if not before:
        return _wrapped(last, width, most)
    begun = _wrapped(before, width, most - 1)
    left = most - 1 - begun.count("\n")
    return f"{begun}\n{_wrapped(last, width, left)}"


Key = Sequence[tuple[str, Sequence[float]]]  # names of colours, which are shares of red, green and blue


def segmentations(samples: Sequence[tuple[str, Sequence[np.ndarray]]], headings: Sequence[str], key: Key) -> Figure:
    """Of each sample, down, what is said of it, and below that pictures (H, W, C) on [0, 1] under these headings."""
    figure, axes = _sheet(len(samples), len(headings), CAPTION, key, SCALE)
    for row, (title, pictures) in enumerate(samples):
        for column, (heading, pixels) in enumerate(zip(headings, pictures, strict=True)):
            left, top = _show(axes, row, column, pixels, CAPTION, SCALE)
            axes.text(left, top - 0.04, heading, fontsize=8, color="dimgrey", va="bottom")
            if not column:
                axes.text(left, top - 0.2, _short(title), fontsize=9, va="bottom")
    return figure


def contact_sheet(images: list[np.ndarray], captions: list[str], key: Key = ()) -> Figure:
    """Images (C, H, W) uint8, each below its caption, and a key to their colours where they have any.

    Captions that are `words.Said` to be right or wrong have colours.
    """
    figure, axes = _sheet(*_rows_and_columns(max(len(images), 1)), caption=CAPTION, key=key)
    if not images:
        _title(axes, 0, 0, "no pictures")
    for index, (image, caption) in enumerate(zip(images, captions, strict=False)):
        row, column = divmod(index, COLUMNS)
        _show(axes, row, column, image.transpose(1, 2, 0) / 255, CAPTION)
        _title(axes, row, column, _literal(_to_the_end(caption, 22, 2)), coloured(caption)[1])
    return figure


def spread_of(answers: Table) -> Figure:
    """Of each of the first columns of answers how they are spread: words by how often they come, numbers in bins."""
    import pyarrow

    names = answers.column_names[:RESIDUALS]
    figure = Figure(figsize=(1 + 4 * len(names), 3.6), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        if pyarrow.types.is_string(answers.schema.field(name).type):
            _counted(axes, answers[name])
        else:
            values = answers[name].to_numpy()
            axes.hist(values[np.isfinite(values)], bins=BINS, color="C0", edgecolor="white", linewidth=0.4)
            axes.set(xlabel=_short(name), ylabel="answers")
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(f"{len(answers):,} answers", fontsize=10)
    return figure


def _counted(axes: Axes, words: ChunkedArray) -> None:
    """A bar for each of the commonest words, the first on top."""
    rows = sorted(words.value_counts().to_pylist(), key=lambda row: (-row["counts"], str(row["values"])))
    shown, rest = rows[:LEGEND], sum(row["counts"] for row in rows[LEGEND:])
    names = [_short(row["values"] or "none") for row in shown] + ([f"{len(rows) - LEGEND:,} others"] if rest else [])
    counts = [row["counts"] for row in shown] + ([rest] if rest else [])
    bars = axes.barh(range(len(counts)), counts, color="C0")
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize=8)
    axes.set_yticks(range(len(counts)), names, fontsize=8)
    axes.set(xlabel="answers")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.15)
    axes.invert_yaxis()


def text_sheet(rows: list[tuple[str, str]], texts: Sequence[str] = ()) -> Figure:
    """What a text is called, and beside it what was said of it; below its name where the `texts` themselves are."""
    named = [(_in_one_line(name[-24:]), *coloured(caption)) for name, caption in rows]
    if texts:
        named = [(f"{name}\n{caption}", text, why) for (name, caption, why), text in zip(named, texts, strict=True)]
    return _lines(named, free=bool(texts))


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def _short(name: str) -> str:
    """A class as axes and legends have room for it: 40 Latin letters, or half as many Chinese ones."""
    from rich.text import Text

    text = Text(shown(name))
    text.truncate(40, overflow="ellipsis")
    return _literal(text.plain)


def _literal(text: str, free: bool = False) -> str:
    """Text as it is, where matplotlib takes what stands between two dollars for a formula, and a box for a letter."""
    return shown(text, free).replace("$", r"\$")


def reconstruction_grid(images: Tensor, reconstructions: Tensor) -> Figure:
    """Images (B, C, H, W) uint8 in the rows 1, 3, …, below each its reconstruction on [0, 1]."""
    rows, columns = _rows_and_columns(len(images))
    figure, axes = _sheet(2 * rows, columns)
    for index, (image, reconstruction) in enumerate(zip(images, reconstructions, strict=True)):
        row, column = divmod(index, COLUMNS)
        _show(axes, 2 * row, column, _pixels(image / 255))
        _show(axes, 2 * row + 1, column, _pixels(reconstruction))
    return figure


def image_grid(images: Tensor) -> Figure:
    """Images (B, C, H, W) on [0, 1]."""
    figure, axes = _sheet(*_rows_and_columns(len(images)))
    for index, image in enumerate(images):
        _show(axes, *divmod(index, COLUMNS), _pixels(image))
    return figure


def image_rows(rows: Sequence[tuple[str, Tensor]]) -> Figure:
    """Rows of images (B, C, H, W) on [0, 1], before each of them what it is called."""
    figure, axes = _sheet(len(rows), 1 + max(len(images) for _, images in rows))
    for row, (name, images) in enumerate(rows):
        text = _literal(_wrapped(name, 16, 3))
        axes.text(0.5 * CELL, (row + 0.5) * CELL, text, fontsize=10, ha="center", va="center")
        for column, image in enumerate(images, 1):
            _show(axes, row, column, _pixels(image))
    return figure


def latent_map(latents: Tensor, labels: Tensor, classes: list[str]) -> Figure:
    """Latents (N, L) projected on their two principal components, coloured by class (N,)."""
    import torch

    centred = latents - latents.mean(0)
    if centred.shape[1] > 1:
        _, directions = torch.linalg.eigh(centred.double().T @ centred.double())  # by rising variance
        centred = centred @ directions[:, [-1, -2]].float()
    else:
        centred = torch.cat([centred, torch.zeros_like(centred)], dim=1)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot()
    x, y = centred.T.numpy()
    if len(classes) > LEGEND:
        axes.scatter(x, y, s=2, c=labels.numpy(), cmap="turbo")
    else:
        for index in range(len(classes)):
            chosen = (labels == index).numpy()
            axes.scatter(x[chosen], y[chosen], s=2)
        _legend(axes, axes.collections, [_short(name) for name in classes], markerscale=4)
    axes.set(xlabel="first principal component", ylabel="second principal component", title="latent space")
    return figure


def residuals(prediction: Tensor, target: Tensor, *names: str) -> Figure:
    """Predictions over targets, (N,) or a row for each of (N, K), and what is left over predictions."""
    shown = names[:RESIDUALS]
    figure = Figure(figsize=(10, 4.5 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 2, squeeze=False)
    some = _some(len(target))
    if len(some) < len(target):
        figure.suptitle(f"{len(some):,} of {len(target):,} samples")
    columns = (values[some].reshape(len(some), -1).T for values in (prediction, target))
    for (left, right), name, one, truth in zip(panels, shown, *columns, strict=False):
        _residuals(left, right, one, truth, name)
    return figure


def _some(count: int) -> np.ndarray:
    """Places of so many points, all or POINTS of them evenly, with the first and the last."""
    return np.linspace(0, count - 1, min(count, POINTS)).astype(np.int64)


def _residuals(left: Axes, right: Axes, prediction: Tensor, target: Tensor, name: str) -> None:
    left.scatter(target, prediction, s=10)
    ends = [min(target.min(), prediction.min()), max(target.max(), prediction.max())]
    left.plot(ends, ends, color="grey", linewidth=0.7)
    name = _literal(name)
    left.set(xlabel=f"true {name}", ylabel=f"predicted {name}")
    right.scatter(prediction, target - prediction, s=10)
    right.axhline(0, color="grey", linewidth=0.7)
    right.set(xlabel=f"predicted {name}", ylabel="residual: true - predicted")


def forecasts(
    panels: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray | None]],
    columns: Sequence[str],
    within: np.ndarray | None = None,
) -> Figure:
    """Of each window, down, and of the first columns of its series, across: its end, what is forecast, what came.

    A panel has a title, the window (T, columns), the forecast (H, columns) and, where it is known, what came; an
    interval is `within` (H, columns) of the forecast.
    """
    shown = columns[:SERIES]
    rows = max(len(panels), 1)
    figure = Figure(figsize=(0.6 + 2.6 * len(shown), 0.5 + 1.9 * rows))
    axes = figure.subplots(rows, len(shown), squeeze=False)
    for row, (title, window, ahead, truth) in zip(axes, panels, strict=False):
        begins = min(len(window), 2 * len(ahead))
        before = window[len(window) - begins :]
        steps = np.arange(1, len(ahead) + 1)
        for place, panel in enumerate(row):
            panel.plot(np.arange(1 - begins, 1), before[:, place], color="grey", linewidth=0.8, label="window")
            if truth is not None:
                panel.plot(steps, truth[:, place], color="black", linewidth=0.8, label="what came")
            panel.plot(steps, ahead[:, place], color="C1", linewidth=1.2, label="forecast")
            if within is not None:
                ends = (ahead[:, place] + side * within[:, place] for side in (-1, 1))
                panel.fill_between(steps, *ends, color="C1", alpha=0.2, linewidth=0, label="interval")
            panel.axvline(0.5, color="grey", linewidth=0.5, linestyle=":")
            panel.tick_params(labelsize=6)
        row[0].set_title(_short(title), fontsize=7, loc="left")
    for panel, name in zip(axes[-1], shown, strict=True):
        panel.set_xlabel(f"{_short(name)}, by steps ahead", fontsize=8)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="upper right", ncols=4, fontsize=6, frameon=False)
    width, height = figure.get_size_inches()
    figure.subplots_adjust(0.4 / width, 0.35 / height, 1 - 0.05 / width, 1 - 0.35 / height, 0.25, 0.35)
    return figure


def error_by_step(errors: Mapping[str, Tensor]) -> Figure:
    """Mean squared errors (H,) of several forecasts, each column with deviation 1, by how many steps ahead they are."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, values in errors.items():
        axes.plot(range(1, len(values) + 1), values.numpy(), label=name.replace("_", " "))
    axes.set(xlabel="steps ahead", ylabel="mean squared error, standardised")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def coefficient_plot(rows: list[dict[str, Any]]) -> Figure:
    """The network's coefficients beside those of the closed form, in the target's unit per standard deviation."""
    figure = Figure(figsize=(7, 1 + 0.4 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for offset, column in ((-0.2, "network"), (0.2, "closed_form")):
        places = [index + offset for index in range(len(rows))]
        axes.barh(places, [row[column] for row in rows], height=0.38, label=column.replace("_", " "))
    axes.set(yticks=range(len(rows)), xlabel="change of the prediction per standard deviation of the feature")
    axes.set_yticklabels([_literal(row["feature"]) for row in rows])
    axes.axvline(0, color="grey", linewidth=0.7)
    axes.invert_yaxis()
    axes.legend()
    return figure


def runs(points: list[dict[str, Any]]) -> Figure:
    """The runs of a task: their test figure over the seconds of training, and their losses by epoch.

    Of each its `number`, the `name` and the `value` of the figure (None: not measured), `seconds`, and `curves` as the
    run's record has them.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    every = [epoch for point in points for epoch in point["curves"].get("epoch", [])]
    for index, point in enumerate(points):
        colour = colormaps["tab10"](index % 10)
        if point["value"] is not None:
            left.scatter(point["seconds"], point["value"], color=colour, s=30)
            left.annotate(str(point["number"]), (point["seconds"], point["value"]), (5, 4), textcoords="offset points")
        for part, style in (("val_loss", "-"), ("train_loss", ":")):
            if part in point["curves"]:
                label = f"{point['number']}, {'validation' if part == 'val_loss' else 'training'}"
                epochs, look = point["curves"]["epoch"], {"color": colour, "markersize": 3}
                right.plot(epochs, point["curves"][part], style, marker=_marker(epochs), label=label, **look)
    name = next((point["name"] for point in points if point["name"]), "figure")
    left.set(xlabel="seconds of training", ylabel=_short(f"test {name}".replace("_", " ")))
    left.margins(0.1)
    right.set(xlabel="epoch", ylabel="loss, as it is minimised")
    left.grid(alpha=0.3)
    _by_epoch(right, every)
    if 0 < len(right.lines) <= 20:
        right.legend(fontsize=8)
    return figure


def lr_range(rows: Sequence[Mapping[str, float]], suggestion: float | None) -> Figure:
    """The loss over the learning rate, as it was and without noise, and the rate that is suggested."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    rates = [row["learning_rate"] for row in rows]
    smooth = [row["smooth_loss"] for row in rows]
    axes.plot(rates, [row["loss"] for row in rows], color="0.75", label="loss of each step")
    axes.plot(rates, smooth, color="C0", label="smoothed")
    if suggestion is not None:
        axes.axvline(suggestion, color=RIGHT, linestyle="--", label=f"suggested: {suggestion:.2g}")
    low, high = min(smooth), max(smooth[: smooth.index(min(smooth)) + 1])
    margin = max(high - low, 1e-9) / 4
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(low - margin, high + 2 * margin))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def batch_sizes(rows: Sequence[Mapping[str, Any]], suggestion: int) -> Figure:
    """Speed and memory over the size of batches; the one that is suggested is marked."""
    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    sizes = [row["batch_size"] for row in rows]
    for axes, name, label in zip(panels, ("samples_per_second", "memory_MB"), ("samples/s", "MB"), strict=True):
        axes.plot(sizes, [row[name] for row in rows], marker="o")
        axes.axvline(suggestion, color=RIGHT, linestyle="--", label=f"suggested: {suggestion}")
        axes.set(xscale="log", xlabel="samples per step", ylabel=label, ylim=(0, None))
        axes.set_xticks(sizes, [str(size) for size in sizes], rotation=45, ha="right", fontsize=8)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].legend()
    return figure


def by_fold(metrics: Mapping[str, Sequence[float]], units: Mapping[str, str] | None = None) -> Figure:
    """A panel for each metric, with its value in each fold, and their mean and standard deviation.

    `units` are as in `learning_curves`.
    """
    figure = Figure(figsize=(3.4 * max(len(metrics), 1), 3.4), layout="constrained")
    panels = figure.subplots(1, max(len(metrics), 1), squeeze=False)[0]
    for axes, (name, values) in zip(panels, metrics.items(), strict=False):
        mean, deviation = np.mean(values), np.std(values, ddof=1)
        axes.axhspan(mean - deviation, mean + deviation, color="C0", alpha=0.15)
        axes.axhline(mean, color="C0", linewidth=1)
        axes.plot(range(1, len(values) + 1), values, "o", color="C0")
        title = _short(name.replace("_", " "))
        axes.set(title=f"{title}\n{mean:.4g} ± {deviation:.2g}", ylabel=_short((units or {}).get(name, "")))
        axes.title.set_fontsize(10)
        axes.set_xlabel("fold")
        _by_epoch(axes, range(1, len(values) + 1))
    return figure


def class_shares(counts: np.ndarray, classes: list[str]) -> Figure:
    """The samples of each client of a federation, by counts (clients, C): a bar for a client, a part for a class.

    Of more than LEGEND classes, the most frequent have parts of their own, and all others one.
    """
    if len(classes) > LEGEND:
        frequent = np.sort(counts.sum(0).argsort(kind="stable")[::-1][: LEGEND - 1])
        others = counts.sum(1) - counts[:, frequent].sum(1)
        counts = np.column_stack([counts[:, frequent], others])
        classes = [*(classes[index] for index in frequent), f"{len(classes) - len(frequent):,} others"]
    figure = Figure(figsize=(8, 1.2 + 0.28 * max(len(counts), len(classes) / 2)), layout="constrained")
    axes = figure.add_subplot()
    begins = np.cumsum(counts, axis=1) - counts
    for index in range(len(classes)):
        colour = colormaps["tab20"](index % 20)
        axes.barh(range(len(counts)), counts[:, index], left=begins[:, index], color=colour)
    axes.set(xlabel="training samples", ylabel="client")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.invert_yaxis()
    _legend(axes, axes.containers, [_short(name) for name in classes], loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def rounds(central: list[dict[str, float]], central_test: float, history: list[dict[str, float]]) -> Figure:
    """Accuracy of a federation by round beside that of central training by epoch, from both histories.

    The test accuracy of central training, a fraction, is known for its best epoch only: a line.
    """
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    styles = {"val": "--", "test": "-"}
    for part, name in (("val", "validation"), ("test", "test")):
        if f"{part}_accuracy" in history[0]:
            values = [row[f"{part}_accuracy"] for row in history]
            epochs = [row["epoch"] for row in history]
            label = f"federated, {name}"
            axes.plot(epochs, values, styles[part], marker=_marker(epochs), color="C0", label=label)
    if "val_accuracy" in central[0]:
        values, epochs = [row["val_accuracy"] for row in central], [row["epoch"] for row in central]
        axes.plot(epochs, values, "--", marker=_marker(epochs), color="C1", label="central, validation")
    axes.axhline(central_test, color="C1", linewidth=1, label="central, test")
    axes.set(xlabel="round, or epoch of central training", ylabel="accuracy")
    _by_epoch(axes, [row["epoch"] for row in [*history, *central]])
    axes.legend()
    return figure


# ---- sheets of images: one panel for all of them, of which a unit is an inch; a panel for each is slow to draw


def _rows_and_columns(count: int) -> tuple[int, int]:
    return math.ceil(count / COLUMNS), min(count, COLUMNS)


def _sheet(rows: int, columns: int, caption: float = 0.0, key: Key = (), scale: float = 1.0) -> tuple[Figure, Axes]:
    """Room for rows of images, each below a caption of such a height, and below all of them a key to colours."""
    width, begins = columns * scale * CELL, rows * (scale * CELL + caption)
    beside = max(1, int(width / KEY))
    height = begins + LINE_HEIGHT * -(-len(key) // beside)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    for place, (name, colour) in enumerate(key):
        x, y = 0.05 + place % beside * KEY, begins + LINE_HEIGHT * (place // beside + 0.5)
        axes.add_patch(Rectangle((x, y - 0.07), 0.14, 0.14, facecolor=colour, edgecolor="grey", linewidth=0.5))
        axes.text(x + 0.2, y, _literal(_wrapped(name, 22, 1)), fontsize=8, va="center")
    return figure, axes


def _show(
    axes: Axes, row: int, column: int, pixels: np.ndarray, caption: float = 0.0, scale: float = 1.0
) -> tuple[float, float]:
    """Pixels (H, W, C) on [0, 1] in a place of the sheet, in their own proportions; where they begin, x and y."""
    height, width = pixels.shape[:2]
    cell = scale * CELL
    half = 0.47 * cell / max(height, width)
    x, y = (column + 0.5) * cell, row * (cell + caption) + caption + 0.5 * cell
    extent = (x - half * width, x + half * width, y + half * height, y - half * height)
    grey = pixels.shape[-1] == 1
    axes.imshow(pixels.squeeze(-1) if grey else pixels, cmap="gray", vmin=0, vmax=1, extent=extent, aspect="auto")
    return extent[0], extent[3]


def _title(axes: Axes, row: int, column: int, text: str, colour: str = "black") -> None:
    """Up to two lines above an image."""
    x, y = (column + 0.5) * CELL, row * (CELL + CAPTION) + CAPTION
    axes.text(x, y, text, color=colour, fontsize=8, ha="center", va="bottom")


def _pixels(image: Tensor) -> np.ndarray:
    """(C, H, W) to (H, W, C)."""
    pixels: np.ndarray = image.permute(1, 2, 0).numpy()
    return pixels
