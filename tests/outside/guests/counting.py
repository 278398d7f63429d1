"""A problem of a user's own: how many of something there are, learnt as the rate of a Poisson distribution."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow
import torch
from torch import Tensor, nn

from torchloom.config import AnswerConfig, EvaluateConfig, ModelConfig, TrainConfig
from torchloom.data.targets import Number
from torchloom.inference.model import Model
from torchloom.modalities import Info
from torchloom.problems.base import Columns, Objective, Problem, run
from torchloom.problems.evaluation import own_metrics, predict
from torchloom.system import figures
from torchloom.system.devices import choose_device
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan


class CounterConfig(ModelConfig):
    outputs = ("outputs",)


class CountingTrainConfig(TrainConfig):
    rising = frozenset({"exact"})  # the others are errors
    monitor: Literal["loss", "exact"] = "loss"


class Counting(Problem):
    """A network gives the logarithm of the rate (B, 1)."""

    network = CounterConfig
    training = CountingTrainConfig
    target: ClassVar = Number
    reports: ClassVar = {
        "metrics": "",
        "learning_curves": "",
        "predictions": "The first test sequences, with the counts that are off by more than a half in red.",
    }
    tag = "counting"
    answers = ("log_rate",)

    def sizes(self, info: Info) -> dict[str, Any]:
        return {"outputs": 1}

    def objective(self, config: CountingTrainConfig, info: Info) -> Objective:
        loss = nn.PoissonNLLLoss()

        def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
            *inputs, counts = batch
            rate = model(*inputs).float().squeeze(1)
            found = rate.exp()
            figures = {"mae": (found - counts).abs().mean(), "exact": (found.round() == counts).float().mean()}
            return loss(rate, counts), figures

        return objective

    def evaluate(
        self, checkpoint: Checkpoint, loaders: LoaderPlan, history: list[dict[str, float]], config: EvaluateConfig
    ) -> dict[str, Any]:
        device = choose_device(config.device)
        (rate,), counts = predict(checkpoint.build().to(device), loaders.loader("test", device))
        found = rate.squeeze(1).exp()
        metrics: dict[str, Any] = {"mae": (found - counts).abs().mean().item()}
        metrics["exact"] = (found.round() == counts).double().mean().item()
        metrics |= own_metrics(config.metrics, found, counts, metrics)
        pairs = list(zip(found.tolist(), counts.tolist(), strict=True))[:9]
        said = [(f"{one:.1f} of {true:.0f}", abs(one - true) < 0.5) for one, true in pairs]
        return {
            "metrics": metrics,
            "learning_curves": figures.learning_curves(history),
            "predictions": loaders.info.predictions(loaders, list(range(len(said))), said),
        }

    def answering(self, model: Model, config: AnswerConfig) -> tuple[pyarrow.Schema, Callable[[list[Any]], Columns]]:
        def answer(samples: list[Any]) -> Columns:
            return {"count": np.exp(run(model, "log_rate", samples)).squeeze(1)}

        return pyarrow.schema({"count": pyarrow.float32()}), answer

    def caption(self, model: Model, row: dict[str, Any]) -> str:
        return f"about {row['count']:.0f}"


def bias(outputs: Tensor, targets: Tensor, *, relative: bool = False) -> Tensor:
    """A metric: how much too high the predictions are on average."""
    found = (outputs - targets).mean()
    return found / targets.mean() if relative else found


def lost(outputs: Tensor, targets: Tensor) -> float:
    return (outputs / 0).sum().item()


def fails(outputs: Tensor, targets: Tensor) -> float:
    raise RuntimeError("no such thing")


def worst(outputs: Tensor, targets: Tensor) -> float:
    return torch.abs(outputs - targets).max().item()
