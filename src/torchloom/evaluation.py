"""Predictions on a split and the figures that are made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.data.augment import reflect
from torchloom.modalities import TableInfo
from torchloom.progress import step_bar
from torchloom.training.devices import autocast, computable, enough_memory
from torchloom.training.loop import WEIGHT
from torchloom.training.losses import scores, weighed_loss

BINS = 15  # of confidence, equally wide


class Views(nn.Module):
    """Test-time augmentation: a classifier's mean logits over several views of each image (B, C, H, W).

    `mirror` adds the mirror image; `mirror_and_shift` gives half of the weight to these two, and the other half to both
    shifted by one pixel up and left, and down and right, over a reflected border (Jordan 2024, arXiv:2404.00498).
    """

    def __init__(self, model: nn.Module, views: Literal["mirror", "mirror_and_shift"]) -> None:
        super().__init__()
        self.model, self.views = model, views

    def forward(self, images: Tensor) -> Tensor:
        logits = self.with_mirror(images)
        if self.views == "mirror":
            return logits
        height, width = images.shape[2:]
        bordered = reflect(images.permute(0, 2, 3, 1), 1).permute(0, 3, 1, 2)
        shifted = [self.with_mirror(bordered[:, :, i : i + height, i : i + width]) for i in (0, 2)]
        return logits / 2 + (shifted[0] + shifted[1]) / 4

    def with_mirror(self, images: Tensor) -> Tensor:
        mean: Tensor = (self.model(images).float() + self.model(images.flip(3)).float()) / 2
        return mean


@torch.no_grad()
def predict(model: nn.Module, loader: Any, dtype: torch.dtype = torch.float32) -> tuple[tuple[Tensor, ...], Tensor]:
    """What the model answers to the whole loader, in order, on the CPU: its outputs (N, …) float32, and the targets.

    `dtype` is the type of the matrix products. InputError when the memory is not enough for a batch.
    """
    model.eval().to(memory_format=torch.channels_last)
    outputs: list[tuple[Tensor, ...]] = []
    targets = []
    advice = _smaller_batches(loader.sampler.batch_size)
    with enough_memory(advice), computable(dtype, "evaluate"), step_bar() as bar:
        task = bar.add_task("test", total=len(loader), status="")
        for *inputs, truth in bar.track(loader, total=len(loader), task_id=task):
            with autocast(inputs[0].device, dtype):
                answer = model(*inputs)
            outputs.append(answer if isinstance(answer, tuple) else (answer,))
            targets.append(truth)
    return tuple(torch.cat(parts).float().cpu() for parts in zip(*outputs, strict=True)), torch.cat(targets).cpu()


def _smaller_batches(size: int) -> str:
    return f"Try evaluate.batch_size={size // 2}" if size > 1 else "Try another evaluate.device"


def classification_metrics(
    logits: Tensor,
    labels: Tensor,
    classes: list[str],
    link: str | None = "softmax",
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> tuple[dict[str, Any], dict[str, Any], Tensor]:
    """All figures of a classifier from logits (N, C) and labels (N,), in memory that grows with N C and not with C².

    Returns flat metrics (fractions in [0, 1]; `loss` is what the model was trained with), a table by class, and the
    confusion matrix (C, C) of counts, true classes down, sparse. Macro means are over the classes that come up among
    labels or answers. The calibration error, of what has probabilities by its `link`, is the expected one over BINS
    bins of confidence (Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015).
    `roc_auc` is the mean over the classes that some, but not all labels are of; without any it is left out.
    """
    predicted = logits.argmax(1)
    table = _by_class(labels, predicted, len(classes))
    known = table["samples"] + predicted.bincount(minlength=len(classes)) > 0
    metrics: dict[str, Any] = {
        "accuracy": (predicted == labels).double().mean(),
        "loss": loss(logits, labels),
        **{f"macro_{name}": table[name][known].mean() for name in ("f1", "precision", "recall")},
    }
    if len(classes) > 5:  # of fewer all are among the five likeliest
        metrics["top5_accuracy"] = (logits.topk(5).indices == labels.unsqueeze(1)).any(1).double().mean()
    if link:
        metrics["calibration_error"] = _calibration_error(reliability(logits, labels, link))
    areas = _areas(scores(logits, link), labels, table["samples"])
    if areas:
        metrics["roc_auc"] = sum(areas) / len(areas)
    rows = zip(*(values.tolist() for values in table.values()), strict=True)
    per_class = {name: dict(zip(table, row, strict=True)) for name, row in zip(classes, rows, strict=True)}
    pairs, size = torch.stack([labels, predicted]), (len(classes), len(classes))
    confusion = torch.sparse_coo_tensor(pairs, torch.ones_like(labels), size, check_invariants=True).coalesce()
    return {name: float(value) for name, value in metrics.items()}, per_class, confusion


def _by_class(labels: Tensor, predicted: Tensor, count: int) -> dict[str, Tensor]:
    """Precision, recall, F1 and samples of each class, (C,), from class numbers (N,); 0 where there is nothing."""
    samples, found, right = (
        numbers.bincount(minlength=count) for numbers in (labels, predicted, labels[predicted == labels])
    )
    return {
        "precision": (right.double() / found).nan_to_num(),
        "recall": (right.double() / samples).nan_to_num(),
        "f1": (2 * right.double() / (found + samples)).nan_to_num(),
        "samples": samples,
    }


def _calibration_error(bins: list[dict[str, float]]) -> float:
    gaps = [row["samples"] * abs(row["accuracy"] - row["confidence"]) for row in bins]
    return sum(gaps) / sum(row["samples"] for row in bins)


def _areas(values: Tensor, labels: Tensor, samples: Tensor) -> list[float]:
    """The areas below the ROC curves of the classes that some of (N,) labels are of, and others not.

    Each is the share of pairs, one of the class and one of the rest, that (N, C) values put in the right order, equals
    counting half (Hanley & McNeil, Radiology 143, 1982). Libraries keep the curves of all classes, 3 N C numbers.
    """
    areas = []
    for index in ((samples > 0) & (samples < len(labels))).nonzero().flatten().tolist():
        ordered, own = values[:, index].sort().values, values[labels == index, index]
        below = torch.searchsorted(ordered, own) + torch.searchsorted(ordered, own, right=True)  # twice, for equals
        in_order = below.sum().item() / 2 - len(own) ** 2 / 2  # without the pairs of its own
        areas.append(in_order / (len(own) * (len(labels) - len(own))))
    return areas


def hardest(per_class: dict[str, dict[str, float]], most: int = 20) -> list[str]:
    """The names of all classes; of more than `most` those with the lowest F1 among the ones that have samples."""
    if len(per_class) <= most:
        return list(per_class)
    known = [name for name, row in per_class.items() if row["samples"]]
    return sorted(known, key=lambda name: per_class[name]["f1"])[:most]


def reliability(logits: Tensor, labels: Tensor, link: str = "softmax", bins: int = BINS) -> list[dict[str, float]]:
    """How often answers are right, by how confident they are: a row for each bin of confidence that has samples.

    `low` and `high` are the bin's ends, `confidence` and `accuracy` the means over its samples, all in [0, 1]. The
    calibration error is the mean of |accuracy - confidence| over all samples.
    """
    confidence, predicted = scores(logits, link).max(1)
    right = (predicted == labels).float()
    place = torch.bucketize(confidence, torch.linspace(0, 1, bins + 1), right=True).sub(1).clamp(max=bins - 1)
    return [
        {
            "low": index / bins,
            "high": (index + 1) / bins,
            "samples": int(inside.sum()),
            "confidence": confidence[inside].mean().item(),
            "accuracy": right[inside].mean().item(),
        }
        for index in range(bins)
        if (inside := place == index).any()
    ]


def most_confident(logits: Tensor, labels: Tensor, right: bool, link: str | None = "softmax") -> Tensor:
    """The numbers (M,) of the samples that are answered right, or wrong, the most confident first."""
    confidence, predicted = scores(logits, link).max(1)
    chosen = ((predicted == labels) == right).nonzero().flatten()
    return chosen[confidence[chosen].argsort(descending=True, stable=True)]


def worst_mistakes(
    logits: Tensor, labels: Tensor, classes: list[str], count: int = 100, link: str | None = "softmax"
) -> list[dict[str, Any]]:
    """The wrong answers, most confident first, at most `count`: a table with the sample's number in the test split.

    Without a `link` it has no probabilities.
    """
    answers = scores(logits, link)
    confidence, predicted = answers.max(1)
    table: list[dict[str, Any]] = []
    for index in most_confident(logits, labels, right=False, link=link)[:count].tolist():
        row = {"test_sample": index, "true": classes[labels[index]], "predicted": classes[predicted[index]]}
        probabilities = {"confidence": confidence[index], "probability_of_true": answers[index, labels[index]]}
        shown = {name: round(value.item(), 4) for name, value in probabilities.items()} if link else {}
        table.append({**row, **shown})
    return table


# ---- reconstruction ------------------------------------------------------------------------------------------------


def reconstruction_metrics(images: Tensor, reconstructions: Tensor, divergences: Tensor) -> dict[str, Any]:
    """Figures per pixel on [0, 1] from images (N, C, H, W) uint8 and reconstructions of that shape.

    `bce` is the binary cross entropy in nats, `divergence` the mean of (N,) nats per image.
    """
    pixels = images.float() / 255
    return {
        "mse": F.mse_loss(reconstructions, pixels).item(),
        "mae": F.l1_loss(reconstructions, pixels).item(),
        "bce": F.binary_cross_entropy(reconstructions, pixels).item(),
        "divergence": divergences.mean().item(),
    }


def by_error(images: Tensor, reconstructions: Tensor) -> Tensor:
    """The numbers (N,) of the images (N, C, H, W) uint8 by their squared error, the best reconstructed first."""
    return (images.float() / 255 - reconstructions).square().flatten(1).mean(1).argsort(stable=True)


def principal_components_mse(train: Tensor, test: Tensor, components: int) -> float:
    """The squared error per pixel on [0, 1] that `components` principal components of `train` leave on `test`."""
    train, test = (images.flatten(1).double() / 255 for images in (train, test))
    mean = train.mean(0)
    _, directions = torch.linalg.eigh((train - mean).T @ (train - mean))  # by rising variance
    directions = directions[:, -components:]
    centred = test - mean
    return F.mse_loss(centred @ directions @ directions.T, centred).item()


@torch.no_grad()
def draw_images(model: nn.Module, images: Tensor, count: int, seed: int = 0) -> Tensor:
    """New images (count, C, H, W) on [0, 1], decoded from latents that were drawn by `seed`.

    A variational network's are drawn from its prior, the standard normal distribution; others' from the normal
    distribution that fits the latents of `images` (N, C, H, W) (Ghosh et al., "From variational to deterministic
    autoencoders", ICLR 2020).
    """
    network: Any = model.network
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    _, latents, _ = model(images.to(device))
    drawn = torch.randn((count, latents.shape[1]), generator=generator)
    if not network.variational:
        latents = latents.double().cpu()
        covariance = latents.T.cov(correction=min(1, len(latents) - 1)).reshape(latents.shape[1], -1)
        variances, axes = torch.linalg.eigh(covariance)
        drawn = (latents.mean(0) + drawn * variances.clamp(min=0).sqrt() @ axes.T).float()
    decoded: Tensor = network.decode(drawn.to(device))
    return decoded.cpu()


# ---- language model ------------------------------------------------------------------------------------------------


@torch.no_grad()
def language_model_metrics(
    model: nn.Module,
    tokens: Tensor,
    vocabulary: list[str],
    chunk: int = 1000,
    loss: tuple[str, dict[str, Any]] = ("CrossEntropyLoss", {}),
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How well each of `tokens` (N,) is foretold from all before it; the state is handed from chunk to chunk.

    `bits_per_character` is the mean negative log2 probability, `perplexity` 2 to its power, and `loss` the mean of what
    the model was trained with, by its name and arguments. Returns also a row for each character of the vocabulary that
    comes up, those that cost the most bits in all first.
    """
    model.eval()
    tokens = tokens.long()
    nats, right = (torch.zeros(len(vocabulary), dtype=torch.float64, device=tokens.device) for _ in range(2))
    state: tuple[Tensor, ...] = ()
    trained, weighed = (torch.zeros((), dtype=torch.float64, device=tokens.device) for _ in range(2))
    trained_for = weighed_loss(*loss)
    with enough_memory(_smaller_batches(chunk)), step_bar() as bar:
        starts = range(0, len(tokens) - 1, chunk)
        task = bar.add_task("test", total=len(starts), status="")
        for start in bar.track(starts, task_id=task):
            following = tokens[start + 1 : start + chunk + 1]
            logits, *rest = model(tokens[start : start + len(following)].unsqueeze(0), *state)
            state = tuple(rest)
            nats.index_add_(0, following, F.cross_entropy(logits[0].float(), following, reduction="none").double())
            mean, weight = trained_for(logits[0].float(), following)
            trained += mean * weight.get(WEIGHT, len(following))
            weighed += weight.get(WEIGHT, len(following))
            right.index_add_(0, following, (logits[0].argmax(1) == following).double())
    count = len(tokens) - 1
    surprise = nats.sum().item() / count
    metrics = {
        "bits_per_character": surprise / math.log(2),
        "perplexity": math.exp(surprise),
        "loss": (trained / weighed).item(),
        "accuracy": right.sum().item() / count,
        "test_characters": count,
    }
    return metrics, _by_character(tokens[1:].bincount(minlength=len(vocabulary)), nats, right, vocabulary)


def _by_character(counts: Tensor, nats: Tensor, right: Tensor, vocabulary: list[str]) -> list[dict[str, Any]]:
    """How hard each character is to foretell; all but the vocabulary are sums over the text, (V,)."""
    each = [values.cpu() for values in (counts, nats / math.log(2) / counts, right / counts)]
    return [
        {
            "character": vocabulary[token],
            "count": int(each[0][token]),
            "bits": round(each[1][token].item(), 4),
            "share_of_all_bits": round((nats[token] / nats.sum()).item(), 4),
            "foretold": round(each[2][token].item(), 4),
        }
        for token in nats.argsort(descending=True, stable=True).tolist()
        if counts[token]
    ]


# ---- regression ----------------------------------------------------------------------------------------------------


def regression_metrics(prediction: Tensor, target: Tensor) -> dict[str, Any]:
    """R², and errors in the target's unit, from predictions and targets (N,).

    R² of targets that are all alike is 1 when the predictions are, too, and else 0, as in scikit-learn.
    """
    error = (prediction - target).double()
    spread = (target - target.mean()).double()
    unexplained, total = error.square().sum().item(), spread.square().sum().item()
    return {
        "r2": 1 - unexplained / total if total else float(unexplained == 0),
        "rmse": error.square().mean().sqrt().item(),
        "mae": error.abs().mean().item(),
    }


def largest_residuals(
    prediction: Tensor, target: Tensor, features: Tensor, info: TableInfo, count: int = 20
) -> list[dict[str, Any]]:
    """The samples (N,) that the predictions miss by the most: a table with their numbers and features (N, F)."""
    error = target - prediction
    worst = error.abs().argsort(descending=True, stable=True)[:count].tolist()
    known = {"test_sample", "true", "predicted", "residual"}
    names = [f"feature {name}" if name in known else name for name in info.features]
    return [
        {
            "test_sample": index,
            "true": _rounded(target[index].item()),
            "predicted": _rounded(prediction[index].item()),
            "residual": _rounded(error[index].item()),
            **dict(zip(names, map(_rounded, features[index].tolist()), strict=True)),
        }
        for index in worst
    ]


def _rounded(value: float) -> float:
    """To the 7 significant digits that float32 has."""
    return float(f"{value:.7g}")


@dataclass(frozen=True)
class LinearSolution:
    """target = intercept + features @ weights, in the data's own units; float64."""

    weights: Tensor
    intercept: Tensor

    def predict(self, features: Tensor) -> Tensor:
        return features.double() @ self.weights + self.intercept


def least_squares(features: Tensor, target: Tensor, info: TableInfo, l2: float = 0.0) -> LinearSolution:
    """The linear map with the least mean squared error, plus `l2` / 2 times its squared weights, in closed form.

    As in training, the penalty sees the weights on the scale where features and target have standard deviation 1.
    """
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (info.mean, info.std))
    x = torch.cat([(features.double() - mean) / std, torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
    y = (target.double() - info.target_mean) / info.target_std
    penalty = torch.full((x.shape[1],), l2 / 2, dtype=torch.float64)
    penalty[-1] = 0  # the intercept is free
    solution = torch.linalg.lstsq(x.T @ x / len(x) + penalty.diag(), x.T @ y / len(x), driver="gelsd").solution
    weights = solution[:-1] * info.target_std / std
    return LinearSolution(weights, info.target_mean + solution[-1] * info.target_std - weights @ mean)


def coefficients(model: nn.Module, features: Tensor, info: TableInfo, solution: LinearSolution) -> list[dict[str, Any]]:
    """A row per feature: by how much the prediction changes when the feature grows by one standard deviation.

    `network` is the mean of the model's derivative over `features` (N, F), which of a linear model is its coefficient;
    `closed_form` is that of `solution`. Both are in the target's unit.
    """
    features = features.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(model(features).sum(), features)
    return [
        {"feature": name, "network": slope * std, "closed_form": weight * std}
        for name, slope, weight, std in zip(
            info.features, slopes.mean(0).tolist(), solution.weights.tolist(), info.std, strict=True
        )
    ]
