"""How well pixels are told apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.data.targets import IGNORED
from torchloom.problems.evaluation import smaller_batches
from torchloom.system.devices import enough_memory
from torchloom.system.progress import step_bar


@dataclass(frozen=True)
class Counts:
    """What `answers` counts, on the CPU, in memory that does not grow with the pixels."""

    pixels: Tensor  # (classes, classes) int64 how many there are, true classes down
    boundaries: Tensor  # (2, classes) int64 how many are at the boundary in both truth and answer, and in either
    ious: Tensor  # (N,) of each sample the mean IoU over the classes that it or the answer has


@torch.no_grad()
def answers(model: nn.Module, loader: Any, classes: int) -> Counts:
    """Count what a model makes of all pixels but those that are IGNORED."""
    model.eval()
    counts = torch.zeros((classes, classes), dtype=torch.int64)
    boundaries = torch.zeros((2, classes), dtype=torch.int64)
    ious = []
    with enough_memory(smaller_batches(loader.sampler.batch_size)), step_bar() as bar:
        task = bar.add_task("test", total=len(loader), status="")
        for images, masks in bar.track(loader, total=len(loader), task_id=task):
            truth, found = masks.long(), model(images).argmax(1)
            known = truth != IGNORED
            counts += pixel_counts(truth, found, classes).cpu()
            one, other = (_one_hot(each, known, classes) for each in (truth, found))
            ious.append(_ious(one.flatten(2), other.flatten(2)).cpu())
            boundaries += _shared(boundary(one) & known[:, None], boundary(other) & known[:, None]).sum(1).cpu()
    return Counts(counts, boundaries, torch.cat(ious))


def pixel_counts(truth: Tensor, found: Tensor, classes: int) -> Tensor:
    """(classes, classes) int64 how many pixels are of which class in `truth` and in `found`, without those IGNORED."""
    known = truth != IGNORED
    places = truth[known].long() * classes + found[known]
    return torch.bincount(places, minlength=classes * classes).reshape(classes, classes)


def mean_iou(counts: Tensor) -> float:
    """Over the classes that come up in counts (C, C) of pixels, what truth and answer have in common, of either."""
    both, either = counts.diag().double(), (counts.sum(0) + counts.sum(1) - counts.diag()).double()
    shares = (both / either)[either > 0]
    return shares.mean().item() if len(shares) else 0.0


def _one_hot(numbers: Tensor, known: Tensor, classes: int) -> Tensor:
    """(B, classes, H, W) bool of numbers (B, H, W); what is not known is in none."""
    return torch.stack([(numbers == number) & known for number in range(classes)], dim=1)


def boundary(masks: Tensor) -> Tensor:
    """Of masks (B, C, H, W) bool the pixels no further from their edge than 2 % of the diagonal, at least one.

    As in boundary IoU (Cheng et al. 2021, arXiv:2103.16562); beyond the picture there is nothing of any class.
    """
    height, width = masks.shape[2:]
    distance = max(1, round(0.02 * math.hypot(height, width)))
    outside = F.pad((~masks).float(), (distance,) * 4, value=1)
    near = F.max_pool2d(F.max_pool2d(outside, (2 * distance + 1, 1), 1), (1, 2 * distance + 1), 1) > 0
    return masks & near


def _shared(one: Tensor, other: Tensor) -> Tensor:
    """(2, B, classes): how many pixels both have, and how many either, from (B, classes, H, W) bool."""
    return torch.stack([(one & other).flatten(2).sum(2), (one | other).flatten(2).sum(2)])


def _ious(truth: Tensor, found: Tensor) -> Tensor:
    """The mean IoU (N,) of each sample, from (N, classes, pixels) bool."""
    both, either = _shared(truth, found)
    means: Tensor = (both / either.clamp(min=1)).sum(1) / (either > 0).sum(1).clamp(min=1)
    return means


def segmentation_metrics(
    counts: Tensor, boundaries: Tensor, classes: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Flat metrics, and a table by class, from the confusion matrix (C, C) of pixels and what boundaries share (2, C).

    All are fractions: `iou` is what truth and answer have in common, of what either has (Jaccard 1912), `dice` twice
    that of both together, and `boundary_iou` the first of pixels near the edge of a class, see `boundary`. The means
    are over the classes that come up.
    """
    both, true, found = counts.diag().double(), counts.sum(1).double(), counts.sum(0).double()
    iou, dice = (both / (true + found - both)).nan_to_num(), (2 * both / (true + found)).nan_to_num()
    edge = (boundaries[0] / boundaries[1]).nan_to_num()
    known = true + found > 0
    metrics = {
        "accuracy": (both.sum() / true.sum()).item(),
        "mean_iou": mean_iou(counts),
        "mean_dice": dice[known].mean().item(),
        "mean_boundary_iou": edge[known].mean().item(),
        "mean_iou_of_the_commonest": (true.max() / true.sum() / (true > 0).sum()).item(),
    }
    columns = {
        "iou": iou.tolist(),
        "dice": dice.tolist(),
        "boundary_iou": edge.tolist(),
        "pixels": true.long().tolist(),
    }
    return metrics, {name: {key: column[row] for key, column in columns.items()} for row, name in enumerate(classes)}
