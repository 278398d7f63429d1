"""torchloom's side: its stages and its loaders, called as the pipeline calls them."""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.measure import synchronize
from benchmarks.stages import train
from torchloom.config import AugmentConfig, DataConfig, DebuggingConfig, DistributedConfig, EvaluateConfig
from torchloom.data.batches import start_epoch
from torchloom.datasets.tensors import TensorsDataset
from torchloom.modalities import ImageInfo
from torchloom.modalities.modules import NormalizedImages
from torchloom.pipelines.training.nodes import build_dataloaders
from torchloom.problems.classification.config import ClassificationTrainConfig, ClassifierConfig
from torchloom.system.devices import tuned_host
from torchloom.training.loaders import LoaderPlan

CROP_AND_FLIP = AugmentConfig(crop_padding=4, flip=True)


def config(device: str, batch_size: int, **more: Any) -> ClassificationTrainConfig:
    """The block `train`. Of two epochs the second is measured: what the first one sets up is left out."""
    given = {"epochs": 2, "optimizer": {"name": "Adam", "lr": 0.001}, "device": device, **more}
    return ClassificationTrainConfig.model_validate({"batch_size": batch_size, **given})


def plan_loaders(folder: Path, data: DataConfig, training: ClassificationTrainConfig) -> LoaderPlan:
    """The loaders of prepared data, without validation, so that only training is timed."""
    train_split, validation, test = (
        TensorsDataset(filepath=str(folder / f"{name}.safetensors")).load() for name in ("train", "validation", "test")
    )
    info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    plan = build_dataloaders(train_split, validation, test, info, data, training, EvaluateConfig(), DebuggingConfig())
    return plan.model_copy(update={"splits": {**plan.splits, "validation": []}})


def data_path(device: str) -> Callable[..., float]:
    """Measures images per second of one epoch of `count` images (None: all), augmented and normalised.

    On the host as the training loop sets it up.
    """
    epochs = itertools.count()

    @functools.cache
    def opened(folder: Path, batch_size: int, count: int | None) -> tuple[Any, nn.Module]:
        plan = plan_loaders(folder, DataConfig(augment=CROP_AND_FLIP, subset=count), config(device, batch_size))
        assert isinstance(plan.info, ImageInfo)
        return plan.loader("train", device), NormalizedImages(nn.Identity(), plan.info.mean, plan.info.std).to(device)

    @torch.no_grad()
    def measure(folder: Path, batch_size: int, count: int | None = None) -> float:
        loader, normalize = opened(folder, batch_size, count)
        seen, started = 0, time.perf_counter()
        start_epoch(loader, next(epochs))
        with tuned_host(torch.device(device), threads=None, keep_memory=True):
            for images, labels in loader:
                normalize(images)
                seen += len(labels)
            synchronize(device)
        return seen / (time.perf_counter() - started)

    return measure


def training(device: str) -> Callable[..., float]:
    """Measures images per second of the pipeline's `train` on `count` images, as the history has them."""

    def measure(
        folder: Path, network: dict[str, Any], optimizer: dict[str, Any], batch_size: int, count: int | None
    ) -> float:
        colour = network["name"] in {"resnet", "cnn"}
        data = DataConfig(augment=CROP_AND_FLIP if colour else AugmentConfig(), subset=count)
        compiled = device == "cuda" and network["name"] == "resnet"  # as in conf/gpu
        settings = config(device, batch_size, optimizer=optimizer, compile=compiled)
        plan, chosen = plan_loaders(folder, data, settings), ClassifierConfig.model_validate(network)
        trained = train(plan, chosen, settings, DistributedConfig(), DebuggingConfig())
        return trained.history[-1]["samples_per_second"]

    return measure
