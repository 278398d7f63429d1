"""How well pixels are told apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torchloom.problems.evaluation import smaller_batches
from torchloom.system.devices import enough_memory
from torchloom.system.progress import step_bar

COLOURS = [(0, 0, 0), (255, 166, 0), (0, 114, 255), (0, 200, 120), (220, 40, 160), (250, 230, 60), (130, 90, 220)]


@torch.no_grad()
def answers(model: nn.Module, loader: Any, classes: int) -> tuple[Tensor, Tensor]:
    """The confusion matrix (classes, classes) of all pixels, true classes down, and of each sample the mean IoU (N,).

    It is over the classes that the sample or the answer has. Both are on the CPU, in memory that does not grow with the
    pixels.
    """
    model.eval()
    counts = torch.zeros(classes * classes, dtype=torch.int64)
    ious = []
    with enough_memory(smaller_batches(loader.sampler.batch_size)), step_bar() as bar:
        task = bar.add_task("test", total=len(loader), status="")
        for images, masks in bar.track(loader, total=len(loader), task_id=task):
            truth, found = masks.long(), model(images).argmax(1)
            counts += torch.bincount((truth * classes + found).flatten(), minlength=classes * classes).cpu()
            ious.append(_ious(truth.flatten(1), found.flatten(1), classes).cpu())
    return counts.reshape(classes, classes), torch.cat(ious)


def _ious(truth: Tensor, found: Tensor, classes: int) -> Tensor:
    """The mean IoU (N,) of each sample, from class numbers (N, pixels)."""
    both, either = (
        torch.stack([operation(truth == number, found == number).sum(1) for number in range(classes)], dim=1)
        for operation in (torch.logical_and, torch.logical_or)
    )  # (N, classes)
    return (both / either.clamp(min=1)).sum(1) / (either > 0).sum(1)


def segmentation_metrics(counts: Tensor, classes: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Flat metrics, and a table by class, from the confusion matrix (C, C) of pixels; all are fractions.

    `iou` is what truth and answer have in common, of what either has (Jaccard 1912), `dice` twice that of both
    together, and the means are over the classes that come up.
    """
    both, true, found = counts.diag().double(), counts.sum(1).double(), counts.sum(0).double()
    iou, dice = (both / (true + found - both)).nan_to_num(), (2 * both / (true + found)).nan_to_num()
    known = true + found > 0
    metrics = {
        "accuracy": (both.sum() / true.sum()).item(),
        "mean_iou": iou[known].mean().item(),
        "mean_dice": dice[known].mean().item(),
    }
    rows = zip(classes, iou.tolist(), dice.tolist(), true.long().tolist(), strict=True)
    return metrics, {name: {"iou": one, "dice": two, "pixels": pixels} for name, one, two, pixels in rows}


def overlaid(images: Tensor, masks: Tensor) -> Tensor:
    """Images (B, C, H, W) uint8 under masks (B, H, W) in colours, on [0, 1]; the first class has none."""
    colours = torch.tensor(COLOURS, dtype=torch.float32)[masks.long() % len(COLOURS)].permute(0, 3, 1, 2) / 255
    pixels = images.float().expand(-1, 3, -1, -1) / 255
    return torch.where((masks > 0)[:, None], pixels / 2 + colours / 2, pixels)
