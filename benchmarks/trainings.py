"""Trainings of a task in one process, timed as the published records are."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from benchmarks.measure import synchronize
from benchmarks.stages import CLASSIFICATION
from torchloom.modalities.modules import Views
from torchloom.models import build_model
from torchloom.problems.classification import classification_objective
from torchloom.problems.classification.config import (
    ClassificationTrainConfig,
    ClassifierConfig,
    EvaluateClassifierConfig,
)
from torchloom.problems.evaluation import predict
from torchloom.system.devices import choose_device, choose_precision, seed_everything
from torchloom.training.loop import fit
from torchloom.training.whitening import whiten


def trainings(task: str, env: str) -> Callable[..., Any]:
    """A function of a seed that trains the task as in `env` and gives seconds, test accuracy and samples per second.

    The seconds go from data on the device and compiled code (call it once before) to the last prediction for the test
    data. The steps are those of the nodes train and evaluate without Kedro, checkpoints and figures; the network is
    made once, so that what was compiled for it serves all seeds.
    """
    bootstrap_project(".")
    with KedroSession.create(env=env) as session:
        catalog = session.load_context().catalog  # type: ignore[attr-defined]
    plan = catalog.load(f"{task}.dataloaders")
    blocks = {name: catalog.load(f"params:{task}.{name}") for name in ("model", "train", "evaluate")}
    network = ClassifierConfig.model_validate(blocks["model"])
    config = ClassificationTrainConfig.model_validate(blocks["train"])
    evaluation = EvaluateClassifierConfig.model_validate(blocks["evaluate"])
    device = choose_device(config.device)
    objective = classification_objective(config.loss.name, config.loss.arguments)
    model = build_model(network.name, network.arguments, plan.info, CLASSIFICATION).to(device)

    def train(seed: int) -> tuple[float, float, float]:
        seeded = plan.model_copy(update={"seed": seed})
        loaders = {split: seeded.loader(split, device) for split in ("train", "validation", "test")}
        pixels = seeded.trained(config.whitening.images)[0].to(device) if config.whitening else None
        seed_everything(seed)
        fresh = build_model(network.name, network.arguments, plan.info, CLASSIFICATION)
        model.load_state_dict(fresh.state_dict())
        for weight, drawn in zip(model.parameters(), fresh.parameters(), strict=True):
            weight.requires_grad_(drawn.requires_grad)
        synchronize(device.type)
        started = time.perf_counter()
        if config.whitening and pixels is not None:
            whiten(model, pixels, config.whitening)
        fitted = fit(model, lambda split, _: loaders[split], config, objective)
        judge = model if evaluation.views == "one" else Views(model, evaluation.views)
        (logits,), labels = predict(judge, loaders["test"], choose_precision(evaluation.precision, device))
        seconds = time.perf_counter() - started
        rate = statistics.median(row["samples_per_second"] for row in fitted.history)
        return seconds, (logits.argmax(1) == labels).double().mean().item(), rate

    return train
