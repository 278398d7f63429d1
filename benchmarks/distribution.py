"""Part distribution: weak scaling of `train`, with as many images for each process of several as for one alone.

On CPUs two processes with a thread each are held to one process with one thread; on CUDA a process for each GPU, or the
only one, started like several, to a training in the process itself.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import inputs, ours
from benchmarks.measure import Comparison, Options, interleave
from benchmarks.stages import train
from torchloom.config import DataConfig, DebuggingConfig, DistributedConfig
from torchloom.problems.classification.config import ClassifierConfig

NETWORKS: dict[str, tuple[dict[str, Any], bool]] = {  # and whether batch norm is over all processes
    "LeNet-5, without batch norm": ({"name": "lenet", "batch_norm": False}, False),
    "ResNet-18, width 16, batch norm of each process": ({"name": "resnet", "width": 16}, False),
    "ResNet-18, width 16, batch norm over all processes": ({"name": "resnet", "width": 16}, True),
}
SGD = {"name": "SGD", "lr": 0.05, "momentum": 0.9}


def run(options: Options) -> list[Comparison]:
    env = inputs.environment("cifar10", options.quick)
    folder = inputs.prepared(env, "cifar10")
    size, images = (16, 64) if options.quick else (128, 2_048 if options.device == "cpu" else 40_960)
    several = 2 if options.device == "cpu" else torch.cuda.device_count()
    alone = DistributedConfig(processes=1)
    compared = []
    for title, (network, synchronized) in NETWORKS.items():
        count: Any = several if options.device == "cpu" else "auto"
        together = DistributedConfig(processes=count, sync_batch_norm=synchronized)
        sides = {
            "one process": partial(per_process, folder, network, options.device, alone, 1, size, images),
            f"started together: {several}": partial(
                per_process, folder, network, options.device, together, several, size, images
            ),
        }
        measured = interleave(sides, options.turns(5))
        data = inputs.describe(env, "cifar10")
        compared.append(Comparison(f"Training {title}", "images/s for each process", measured, data, "one process"))
    return compared


def per_process(
    folder: Path, network: dict[str, Any], device: str, config: DistributedConfig, count: int, size: int, images: int
) -> float:
    """Images per second that each of `count` processes trains with, of batches of `size` for each."""
    threads = 1 if device == "cpu" else None
    settings = ours.config(device, size * count, optimizer=SGD, threads=threads)
    plan = ours.plan_loaders(folder, DataConfig(augment=ours.CROP_AND_FLIP, subset=images * count), settings)
    trained = train(plan, ClassifierConfig.model_validate(network), settings, config, DebuggingConfig())
    return trained.history[-1]["samples_per_second"] / count
