"""Part streaming: data three times as large as the memory, which a control group limits, against data that fit.

What is limited is all memory of the process, that of the system's file cache for it included. Needs Linux and the right
to make control groups. Each turn takes other images, so that the cache holds few of them.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import inputs, ours
from benchmarks.measure import Comparison, Options, Worker, interleave
from benchmarks.stages import train
from torchloom.config import DataConfig, DebuggingConfig, DistributedConfig
from torchloom.data.batches import start_epoch
from torchloom.modalities import ImageInfo
from torchloom.modalities.modules import NormalizedImages
from torchloom.problems.classification.config import ClassifierConfig
from torchloom.system.devices import tuned_host

SHAPE = (64, 64, 3)
MEMORY = 1 << 30
BATCH = 128
NETWORKS: dict[str, dict[str, Any]] = {
    "LeNet-5": {"name": "lenet"},
    "ResNet-18, width 16": {"name": "resnet", "width": 16},
}
SGD = {"name": "SGD", "lr": 0.01}
IN_MEMORY, STREAMED, FAULTS = "in memory", "larger than memory", "the same, rows not read ahead"


def run(options: Options) -> list[Comparison]:
    count = 600 if options.quick else 3 * MEMORY // math.prod(SHAPE)
    images, of_each = (512, 256) if options.quick else (20_480, 5_120)
    options.output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=options.output) as name, memory_group(MEMORY) as group:
        small, large = Path(name) / "small", Path(name) / "large"
        inputs.random_images(small, count, SHAPE)
        shutil.copytree(small, large)
        for file in large.iterdir():
            forget(file)
        with Worker(prepare) as free, Worker(prepare, group) as limited:
            streamed = False if options.quick else None  # which is how it comes about
            contests: dict[str, dict[str, Callable[[], float]]] = {
                "Data path": {
                    IN_MEMORY: partial(free, small, None, images),
                    STREAMED: partial(limited, large, streamed, images),
                    FAULTS: partial(limited, large, True, 512),  # takes long where a disk is read in large pieces
                }
            }
            for title, network in NETWORKS.items():
                contests[f"Training {title}"] = {
                    IN_MEMORY: partial(free, small, None, of_each, network),
                    STREAMED: partial(limited, large, streamed, of_each, network),
                }
            size = f"{count * math.prod(SHAPE) / 1e9:.1f} GB of random images of 64 x 64"
            note = f"memory limited to {MEMORY / 1e9:.2f} GB; batches of {BATCH}, random crop, flip, normalisation"
            return [
                Comparison(title, "images/s", interleave(sides, options.turns(5)), size, IN_MEMORY, note=note)
                for title, sides in contests.items()
            ]


@contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """A control group whose processes together may take `limit` bytes of memory, and the file that takes their numbers.

    Raises OSError without the right to make one.
    """
    first = Path("/sys/fs/cgroup/memory")  # version 1
    top, name = (first, "memory.limit_in_bytes") if first.is_dir() else (first.parent, "memory.max")
    group = top / f"torchloom-{os.getpid()}"
    group.mkdir()
    try:
        (group / name).write_text(str(limit))
        yield group / "cgroup.procs"
    finally:
        deadline = time.monotonic() + 10
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        group.rmdir()


def forget(file: Path) -> None:
    """Have the system drop what it has cached of the file, which else counted as the memory of who wrote it."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def prepare(group: Path | None = None) -> Callable[..., float]:
    """Measures images per second, of loading `count` images or of training a network on them; see `LoaderPlan`."""
    if group is not None:
        group.write_text(str(os.getpid()))
    turns = itertools.count()

    @torch.no_grad()
    def load(folder: Path, on_device: bool | None, count: int) -> float:
        data = DataConfig(augment=ours.CROP_AND_FLIP, on_device=on_device)
        plan = ours.plan_loaders(folder, data, ours.config("cpu", BATCH))
        assert isinstance(plan.info, ImageInfo)
        loader = plan.loader("train")
        normalize = NormalizedImages(torch.nn.Identity(), plan.info.mean, plan.info.std)
        start_epoch(loader, next(turns))
        with tuned_host(torch.device("cpu"), threads=None, keep_memory=True):
            batches = iter(loader)
            normalize(next(batches)[0])
            started = time.perf_counter()
            for images, _ in itertools.islice(batches, count // BATCH - 1):
                normalize(images)
        return (count - BATCH) / (time.perf_counter() - started)

    def measure(folder: Path, on_device: bool | None, count: int, network: dict[str, Any] | None = None) -> float:
        if network is None:
            return load(folder, on_device, count)
        settings = ours.config("cpu", BATCH, epochs=1, optimizer=SGD, seed=next(turns))
        data = DataConfig(augment=ours.CROP_AND_FLIP, on_device=on_device, subset=count)
        plan = ours.plan_loaders(folder, data, settings)
        trained = train(
            plan, ClassifierConfig.model_validate(network), settings, DistributedConfig(), DebuggingConfig()
        )
        return trained.history[-1]["samples_per_second"]

    return measure
