"""How many samples a batch can have, and how many pay: measured by a few steps of each size, which change no weight."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal

import torch
from torch import nn

from torchloom.config import TrainConfig
from torchloom.data.batches import start_epoch
from torchloom.problems.base import Batch, Objective
from torchloom.system.devices import NoMemoryError, enough_memory, give_memory_back, room_for_memory, used_memory
from torchloom.training.distribution import Ranks
from torchloom.training.loaders import LoaderPlan
from torchloom.training.optimizers import create_optimizer
from torchloom.training.steps import Steps
from torchloom.training.transfer import training_mode

logger = logging.getLogger(__name__)

FIRST = 2  # samples: batch norm cannot do with one
FEWEST = 10  # steps of an epoch that a size found by itself leaves
NEARLY = 0.95  # of the greatest speed is nearly as fast
USUAL = 64  # samples: of smaller batches the next is nearly always faster, and they are soon tried
CLOSE = 8  # the largest that fits is known to one part in so many
SPENT = 0.3  # seconds of steps that are timed of each size, or one step
BLOCKS = 3  # in which they are timed; the fastest counts, as others may use the machine
LOOK = 0.002  # seconds between two looks at the memory
Ended = Literal["memory", "samples", "time", "speed"]


@dataclass(frozen=True)
class Tried:
    """A size of batches at work: samples per second, the seconds of a step, and the most bytes of memory."""

    batch_size: int
    rate: float
    seconds: float
    memory: float


@dataclass
class Sizes:
    """The sizes that were tried and fit, in order, and why there are no larger ones."""

    tried: list[Tried] = field(default_factory=list)
    ended: Ended = "samples"
    too_large: int | None = None  # the smallest that is known not to fit

    @property
    def fastest(self) -> Tried:
        return max(self.tried, key=lambda each: each.rate)

    def also(self, attempt: Attempt, size: int) -> Tried | None:
        """A size between those that were tried, tried as well."""
        smaller = [each for each in self.tried if each.batch_size < size]
        if found := next((each for each in self.tried if each.batch_size == size), None):
            return found
        found = attempt(size, smaller) if len(smaller) < len(self.tried) else None
        self.tried[len(smaller) : len(smaller)] = [found] if found else []
        return found

    def suggested(self, most: int | None = None) -> Tried:
        """The smallest that is nearly as fast as the fastest, of those that have so many samples at `most`: of sizes
        that are alike in speed, it is the one that makes the most steps of an epoch."""
        allowed = [each for each in self.tried if most is None or each.batch_size <= most] or self.tried[:1]
        best = max(each.rate for each in allowed)
        return next(each for each in allowed if each.rate >= NEARLY * best)


# ---- which sizes to try --------------------------------------------------------------------------------------------


def explore(attempt: Attempt, most: int, seconds: float = 5.0, patience: int | None = None) -> Sizes:
    """Try sizes, each twice the one before, and then between the last that fit and the first that did not.

    They have `most` samples at most. None is tried after one whose step takes longer than so many `seconds`, nor, with
    `patience`, after so many that were hardly faster than any before. Raises NoMemoryError when not one sample fits.
    """
    sizes, size = Sizes(), min(FIRST, most)
    while True:
        found = attempt(size, sizes.tried)
        if found is None and size > 1 and not sizes.tried:
            sizes.too_large, size = size, 1
            continue
        if found is None:
            sizes.too_large, sizes.ended = size, "memory"
            break
        sizes.tried.append(found)
        if ended := _over(sizes, most, seconds, patience):
            sizes.ended = ended
            break
        size = min(2 * size, most)
    if not sizes.tried:
        raise NoMemoryError("the memory is not enough for a step with one sample. Try a smaller network")
    if sizes.ended == "memory":
        _between(attempt, sizes)
    return sizes


def _over(sizes: Sizes, most: int, seconds: float, patience: int | None) -> Ended | None:
    last = sizes.tried[-1]
    if last.batch_size >= most:
        return "samples"
    if sizes.too_large is not None:  # one sample fits, and two do not
        return "memory"
    if last.seconds > seconds:
        return "time"
    before = [each.rate for each in sizes.tried[: -(patience or 0)]]
    if before and last.batch_size >= USUAL and NEARLY * sizes.fastest.rate < max(before):
        return "speed"
    return None


def _between(attempt: Attempt, sizes: Sizes) -> None:
    """Halve the gap between the largest that fits and the smallest that does not, until it is small."""
    assert sizes.too_large is not None
    while sizes.too_large - sizes.tried[-1].batch_size > max(1, sizes.tried[-1].batch_size // CLOSE):
        middle = (sizes.too_large + sizes.tried[-1].batch_size) // 2
        found = attempt(middle, sizes.tried)
        if found is None:
            sizes.too_large = middle
        else:
            sizes.tried.append(found)


def predicted(tried: list[Tried], size: int, idle: float) -> float:
    """Bytes that a step with so many samples takes, by the growth between the last two sizes; `idle` are those before
    the first."""
    known = [(0, idle), *((each.batch_size, each.memory) for each in tried)]
    if len(known) == 1:
        return idle
    (fewer, less), (more, most) = known[-2:]
    return most + max(0.0, most - less) / (more - fewer) * (size - more)


def together(attempt: Attempt, ranks: Ranks) -> Attempt:
    """The same sizes in all processes at the same time; the slowest counts, and whether all have the memory."""

    def tried(size: int, before: list[Tried]) -> Tried | None:
        found = [each for each in ranks.gather(attempt(size, before)) if each is not None]
        if len(found) < ranks.size:
            return None
        slowest: Tried = max(found, key=lambda each: each.seconds)
        return replace(slowest, memory=max(each.memory for each in found))

    return tried


# ---- one of them ---------------------------------------------------------------------------------------------------

# A size, and what those before it took -> what it took; None where the memory is not enough.
Attempt = Callable[[int, list[Tried]], Tried | None]


class Trial:
    """Steps of a training whose learning rate is 0, with batches of one size after another: an Attempt.

    On CPUs, where a process that takes too much is killed, what would take more than there is is not tried. `share` is
    how many processes share the machine's memory.
    """

    def __init__(
        self,
        model: nn.Module,
        loaders: LoaderPlan,
        config: TrainConfig,
        objective: Objective,
        device: torch.device,
        dtype: torch.dtype,
        share: int = 1,
    ) -> None:
        model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        training_mode(model)
        optimizer = create_optimizer(model, config.optimizer)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
        self.steps = Steps(model, model, objective, optimizer, scaler, config, device, dtype)
        self.loaders, self.device = loaders, device
        give_memory_back()
        self.idle = float(used_memory(device))
        self.room = self.idle + room_for_memory(device) / share

    def __call__(self, size: int, before: list[Tried]) -> Tried | None:
        if predicted(before, size, self.idle) > self.room:
            return None
        self._free()
        found: Tried | None = None
        with suppress(NoMemoryError), enough_memory(""):
            found = self._tried(size)
        return found

    def _free(self) -> None:
        self.steps.optimizer.zero_grad(set_to_none=True)
        gc.collect()  # what an error before has held
        if self.device.type == "cpu":
            give_memory_back()  # else its growth would not be seen
        else:
            torch.get_device_module(self.device).empty_cache()

    def _tried(self, size: int) -> Tried:
        loader = self.loaders.model_copy(update={"batch_size": size}).loader("train", self.device)
        with peak_memory(self.device) as peak:
            largest = _largest(loader, size)
            for _ in range(2):  # the first makes the optimiser's moments
                self._step(largest, 1 + (self.steps.config.accumulate > 1))
        seconds = self._seconds(endless(loader))
        logger.debug("batches of %d samples: %.3g s a step, %.2f GB", size, seconds, peak[0] / 1e9)
        return Tried(size, len(largest[-1]) / seconds, seconds, peak[0])

    def _step(self, batch: Batch, passes: int = 1) -> None:
        for number in range(passes):
            self.steps.backward(batch, passes, number + 1 == passes)
        self.steps.update()
        self.steps.optimizer.zero_grad(set_to_none=True)

    def _seconds(self, batches: Iterator[Batch]) -> float:
        """Those of a step, with the time that it takes to get its batch."""
        once = self._timed(batches, 1)
        steps = max(1, int(SPENT / BLOCKS / max(once, 1e-6)))
        blocks = BLOCKS if steps > 1 else max(1, int(SPENT / once))
        return min(self._timed(batches, steps) for _ in range(blocks))

    def _timed(self, batches: Iterator[Batch], steps: int) -> float:
        self._wait()
        began = time.perf_counter()
        for _ in range(steps):
            self._step(next(batches))
        self._wait()
        return (time.perf_counter() - began) / steps

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)


def _largest(loader: Any, size: int) -> Batch:
    """Of samples of several lengths a batch of the longest ones, which take the most memory."""
    lengths = getattr(loader.dataset, "lengths", None)
    if lengths is None:
        return next(iter(loader))
    samples = loader.sampler.samples
    return loader.dataset[samples[lengths[samples].argsort(descending=True)[:size]]]  # type: ignore[no-any-return]


def endless(loader: Any) -> Iterator[Batch]:
    """Batches, epoch after epoch."""
    for epoch in count():
        start_epoch(loader, epoch)
        yield from loader


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[float]]:
    """The most bytes that are held within, when it is over: of CUDA's memory, or by this process."""
    peak = [0.0]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak[0] = float(torch.cuda.max_memory_reserved(device))
        return
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK):
            peak[0] = max(peak[0], used_memory(device))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()
        peak[0] = max(peak[0], used_memory(device))
