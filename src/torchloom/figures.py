"""The pictures in data/08_reporting. Figures are made without pyplot, so that nothing global is left behind."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from torch import Tensor

RIGHT, WRONG = "#2a7f3f", "#c1272d"


def confusion_matrix(counts: Tensor, classes: list[str]) -> Figure:
    """Counts (C, C), true classes down; coloured by the share of the true class."""
    size = max(4.0, 1.2 + 0.55 * len(classes))
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.add_subplot()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class")
    axes.set(xlabel="predicted", ylabel="true", xticks=range(len(classes)), yticks=range(len(classes)))
    axes.set_xticklabels(classes, rotation=45, ha="right")
    axes.set_yticklabels(classes)
    if len(classes) <= 30:
        for row in range(len(classes)):
            for column in range(len(classes)):
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(
                    column, row, str(int(counts[row, column])), ha="center", va="center", color=colour, fontsize=8
                )
    return figure


def learning_curves(history: list[dict[str, float]]) -> Figure:
    """A panel for each figure that the history follows, training and validation together, and the learning rate."""
    names = [name.removeprefix("train_") for name in history[0] if name.startswith("train_")]
    figure = Figure(figsize=(4.2 * (len(names) + 1), 3.4), layout="constrained")
    panels = figure.subplots(1, len(names) + 1)
    epochs = [row["epoch"] for row in history]
    for axes, name in zip(panels, names, strict=False):
        for part, label in (("train", "training"), ("val", "validation")):
            if f"{part}_{name}" in history[0]:
                axes.plot(epochs, [row[f"{part}_{name}"] for row in history], marker=".", label=label)
        axes.set(xlabel="epoch", title=name)
        axes.legend()
    panels[-1].plot(epochs, [row["learning_rate"] for row in history], marker=".", color="grey")
    panels[-1].set(xlabel="epoch", title="learning rate")
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    return figure


def prediction_grid(images: Tensor, labels: Tensor, logits: Tensor, classes: list[str]) -> Figure:
    """Images (B, C, H, W) uint8 with predicted names; the wrong ones in red, with the true name below."""
    columns = min(len(images), 9)
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(1.5 * columns, 1.9 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    confidences, predicted = logits.softmax(1).max(1)
    for index, axes in enumerate(panels):
        axes.axis("off")
        if index < len(images):
            _show(axes, images[index])
            name, truth = classes[predicted[index]], classes[labels[index]]
            title = f"{name} {confidences[index]:.0%}"
            axes.set_title(
                title if name == truth else f"✗ {title}\nis {truth}",
                color=RIGHT if name == truth else WRONG,
                fontsize=8,
            )
    return figure


def _show(axes: Axes, image: Tensor) -> None:
    pixels = image.permute(1, 2, 0).numpy()
    axes.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
