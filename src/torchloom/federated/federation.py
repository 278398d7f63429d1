"""Federated learning: what a client does in a round, and what the server keeps between two.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-efficient learning of deep networks from decentralized
data", AISTATS 2017 (FedAvg). How the two sides reach each other is in flower.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchloom.config import OptimizerConfig, direction
from torchloom.models import build_model
from torchloom.problems.base import Objective, Problem
from torchloom.problems.classification.config import ClassifierConfig, FederatedTrainConfig
from torchloom.system.devices import choose_device, seed_everything
from torchloom.system.words import counted
from torchloom.training.callbacks import epoch_callbacks
from torchloom.training.loaders import LoaderPlan
from torchloom.training.loop import (
    Loader,
    fit,
    improves,
    measure,
    monitored,
    snapshot,
    stop_if_weights_not_finite,
)
from torchloom.training.optimizers import Schedule, create_optimizer
from torchloom.training.recompute import recompute
from torchloom.training.state import TrainingStates
from torchloom.training.transfer import freeze

logger = logging.getLogger(__name__)

Weights = dict[str, Tensor]  # parameters and buffers by name, on the CPU
STATE = ("weights", "history", "best", "best_round")  # of the server, between two rounds
SHOWN = ("train_", "val_", "test_")  # figures in the log


@dataclass(frozen=True)
class Federation:
    """What the server and all clients know. `shards` are, by client, the numbers of its samples in the train split."""

    problem: Problem
    loaders: LoaderPlan
    network: ClassifierConfig
    config: FederatedTrainConfig
    shards: list[np.ndarray]

    def objective(self) -> Objective:
        return self.problem.objective(self.config, self.loaders.info)

    def model(self) -> nn.Module:
        return build_model(self.network.name, self.network.arguments, self.loaders.info, self.problem)


# ---- clients -------------------------------------------------------------------------------------------------------


def train_client(
    federation: Federation, weights: Weights, client: int, number: int, scale: float, proximal_mu: float = 0.0
) -> tuple[Weights, dict[str, float]]:
    """Train on the client's own samples in round `number`, from the server's weights on; neither shares anything else.

    The learning rate is `scale` times that of `train.optimizer`. Returns the weights after the last epoch, and the last
    epoch's training figures. All randomness follows from the seed, the round and the client.
    """
    config, shard = federation.config, torch.tensor(federation.shards[client])
    seed = client_seed(config.seed, number, client)
    seed_everything(seed, config.deterministic)
    splits = {**federation.loaders.splits, "validation": []}
    plan = federation.loaders.model_copy(update={"seed": seed, "splits": splits})
    model = federation.model()
    model.load_state_dict(weights)
    freeze(model, config.freeze)
    recompute(model, config.recompute, compiled=config.compile)
    model.to(device=choose_device(config.device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = federation.objective()
    if proximal_mu:
        objective = proximal_objective(objective, model, proximal_mu)

    def open_loader(split: str, device: torch.device) -> Loader:
        loader = plan.loader(split, device)
        if split == "train":
            loader.sampler.samples = shard  # type: ignore[attr-defined]
        return loader

    optimizer = scaled(config.optimizer, create_optimizer(model, config.optimizer).defaults["lr"], scale)
    result = fit(model, open_loader, config.model_copy(update={"optimizer": optimizer, "scheduler": None}), objective)
    figures = {name: value for name, value in result.history[-1].items() if name.startswith("train_")}
    return result.last, figures


def client_seed(seed: int, number: int, client: int) -> int:
    """A seed of this client's and this round's own."""
    return int(np.random.SeedSequence((seed, number, client)).generate_state(1, np.uint64)[0] >> 2)


def scaled(optimizer: OptimizerConfig, rate: float, scale: float) -> OptimizerConfig:
    """The optimiser with `scale` times its learning rate, which is `rate`, and those of its groups."""
    groups = [
        group.model_copy(update={"lr": group.arguments["lr"] * scale}) if "lr" in group.arguments else group
        for group in optimizer.groups
    ]
    return optimizer.model_copy(update={"lr": rate * scale, "groups": groups})


def proximal_objective(objective: Objective, model: nn.Module, mu: float) -> Objective:
    """`objective` and mu / 2 * ||w - w_0||², over what learns of `model`, whose weights w_0 are those of this moment.

    Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated optimization in heterogeneous networks", MLSys 2020. The
    squared distance is reported as `distance`.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    start = [parameter.detach().clone() for parameter in learning]

    def held_near(trained: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        loss, figures = objective(trained, batch)
        apart = [(now - before).square().sum() for now, before in zip(learning, start, strict=True)]
        distance = torch.stack(apart).sum()
        return loss + mu / 2 * distance, {**figures, "distance": distance}

    return held_near


def _of_its_type(average: Tensor, before: Tensor) -> Tensor:
    """Whole numbers are rounded: their averages are hardly ever exact."""
    return (average if before.is_floating_point() else average.round()).to(before.dtype)


# ---- the server ----------------------------------------------------------------------------------------------------


class Server:
    """The common weights, the history with a row per round, and the best round on the validation split so far.

    Both are saved after each round; a training of the same `recipe` that was interrupted goes on after its last one.
    """

    def __init__(self, federation: Federation, states: TrainingStates, recipe: Mapping[str, Any]) -> None:
        self.federation, self.states = federation, states
        self.config = federation.config
        self.device = choose_device(self.config.device)
        self.recipe = {**recipe, "device": self.device.type}
        seed_everything(self.config.seed, self.config.deterministic)
        self.model = federation.model()
        self.weights = snapshot(self.model)
        self.history: list[dict[str, float]] = []
        self.best: Weights = {}
        self.best_round = 0
        state = states.load(self.recipe, self.config.resume)
        if state:
            vars(self).update(state)
        self.model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.callbacks = epoch_callbacks.get()  # Flower calls from another thread
        self.began = time.perf_counter()

    def begin_round(self) -> tuple[int, float]:
        """The round's number, counted from 1, and its learning rate as a share of that of `train.optimizer`."""
        self.began = time.perf_counter()
        rate, full = self.rates()
        return len(self.history) + 1, rate / full

    def rates(self) -> tuple[float, float]:
        """The learning rate by the schedule, which counts rounds, after those that are over; and the full one."""
        optimizer = create_optimizer(self.model, self.config.optimizer)
        better = direction(self.config.monitor, self.config.rising)
        schedule = Schedule(optimizer, self.config.scheduler, self.config.federated.rounds, 1, 0, better)
        for row in self.history:
            optimizer.step()
            schedule.step()
            schedule.end_epoch(monitored(row, self.config.monitor))
        return optimizer.param_groups[0]["lr"], optimizer.defaults["lr"]

    def end_round(self, weights: Weights, figures: Mapping[str, float], clients: list[int]) -> None:
        """Take the averaged weights over, and measure them; `figures` are the means of what the `clients` report.

        The test split is measured for the history only: no choice depends on it.
        """
        number = len(self.history) + 1
        fixed = dict(self.model.named_buffers(recurse=False))  # the scaling of the inputs, which averages would blur
        self.weights = {
            name: before if name in fixed else _of_its_type(weights[name], before)
            for name, before in self.weights.items()
        }
        stop_if_weights_not_finite(self.weights, number)
        self.model.load_state_dict(self.weights)
        row = {"epoch": number, "learning_rate": self.rates()[0], "clients": len(clients), **figures}
        row |= self.measure("validation", "val", number) | self.measure("test", "test", number)
        samples = self.config.epochs * sum(len(self.federation.shards[client]) for client in clients)
        seconds = time.perf_counter() - self.began
        self.history.append({**row, "samples_per_second": samples / seconds, "seconds": seconds})
        if "val_loss" not in row or improves(row, self.best_row(), self.config.monitor, self.config.rising):
            self.best, self.best_round = self.weights, number
        state = {name: vars(self)[name] for name in STATE}
        self.states.save(state, self.recipe, number, 0, self.config.keep_states)
        self.log(row, seconds)
        for callback in self.callbacks:
            callback(self.history[-1])

    def measure(self, split: str, name: str, number: int) -> dict[str, float]:
        """The objective's means over the split, in float32 as `evaluate` has them; nothing when the split is empty."""
        loader = self.federation.loaders.loader(split, self.device)
        if not len(loader):
            return {}
        whole = self.federation.problem.whole(self.config, self.federation.loaders.info)
        objective = self.federation.objective()
        means = measure(self.model, loader, self.device, torch.float32, objective, number, whole=whole)
        return {f"{name}_{figure}": value for figure, value in means.items()}

    def best_row(self) -> dict[str, float] | None:
        return self.history[self.best_round - 1] if self.best_round else None

    def log(self, row: dict[str, Any], seconds: float) -> None:
        figures = "  ".join(f"{name} {value:.4f}" for name, value in row.items() if name.startswith(SHOWN))
        rounds, rest = (
            self.config.federated.rounds,
            (counted(row["clients"], "client"), figures, row["learning_rate"], seconds),
        )
        logger.info("round %d/%d  %s  %s  lr %.2e  %.1f s", row["epoch"], rounds, *rest)
