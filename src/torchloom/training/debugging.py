"""Short trainings that show where something is wrong: what the block `debugging` makes of a training.

torch is imported inside the functions, so that commands which only look at the project stay quick.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torchloom.config import (
    DebuggingConfig,
    OptimizerConfig,
    OverfitConfig,
    ProfileConfig,
    SchedulerConfig,
    TrainConfig,
)
from torchloom.system.words import counted
from torchloom.training.callbacks import calling_back

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = logging.getLogger(__name__)

Config = TypeVar("Config", bound=TrainConfig)
NONE = 1e-3  # a loss that is as good as none, whatever it was at first
TRACE, TABLE = "trace.json.gz", "hot_spots.txt"  # the first opens in ui.perfetto.dev and chrome://tracing


# ---- the recipe ----------------------------------------------------------------------------------------------------


def adjusted(config: Config, debugging: DebuggingConfig) -> Config:
    """The recipe as `debugging` wants it; what it says of the length of a training wins over the task's own."""
    update: dict[str, Any] = {}
    if debugging.epochs:
        update["epochs"] = debugging.epochs
    if debugging.profile:  # which says itself when it is over
        update["epochs"] = debugging.profile.wait + debugging.profile.warmup + debugging.profile.active
    if debugging.overfit:
        update = _nothing_in_the_way(config, debugging.overfit)
    if debugging.detect_anomaly:
        update["compile"] = False  # hooks see each layer
    epochs = update.get("epochs", config.epochs)
    update.setdefault("warmup_epochs", min(config.warmup_epochs, epochs / 2))
    return config.model_copy(update=update) if debugging.on else config


def _nothing_in_the_way(config: TrainConfig, overfit: OverfitConfig) -> dict[str, Any]:
    """Without all that keeps a network from learning samples by heart; the optimiser stays.

    Its rate rises slowly and then falls to 0, so that one which is meant for large batches is not too great for few.
    """
    falling = SchedulerConfig.model_validate({"name": "LinearLR", "start_factor": 1.0, "end_factor": 0.0})
    free: dict[str, Any] = {"epochs": overfit.epochs, "monitor": "loss", "optimizer": _without_decay(config.optimizer)}
    free |= {"scheduler": falling, "warmup_epochs": overfit.epochs / 10, "accumulate": 1, "l1": 0.0, "l2": 0.0}
    free |= {"ema": None, "lookahead": None, "swa": None, "sam": None, "early_stopping": None}
    loss = getattr(config, "loss", None)
    if loss and "label_smoothing" in loss.arguments:
        free["loss"] = loss.model_copy(update={"label_smoothing": None})
    if hasattr(config, "divergence"):
        free["divergence"] = 0.0
    if hasattr(config, "distill"):
        free["distill"] = config.distill.model_copy(update={"mix": 0.0})
    return free


def _without_decay(optimizer: OptimizerConfig) -> OptimizerConfig:
    """Left out, the decay would be the optimiser's own default, which of AdamW is not 0."""
    from torchloom.training.optimizers import optimizer_arguments

    if "weight_decay" not in optimizer_arguments(optimizer.name).model_fields:
        return optimizer
    none = {"weight_decay": 0.0}
    groups = [group.model_copy(update=none) for group in optimizer.groups]
    return optimizer.model_copy(update={"groups": groups, **none})


def without_dropout(model: nn.Module) -> None:
    """Set the dropout of all layers to 0, in place."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif isinstance(module, nn.RNNBase):
            module.dropout = 0.0


# ---- learnt by heart -----------------------------------------------------------------------------------------------


class Overfitting:
    """Watches whether the samples are learnt by heart, and says so."""

    def __init__(self, config: OverfitConfig) -> None:
        self.config = config
        self.first = self.loss = self.epoch = 0.0

    def __call__(self, row: dict[str, float]) -> bool:
        self.loss, self.epoch = row["val_loss"], row["epoch"]
        self.first = self.first or row["train_loss"]
        return self.learnt()

    def learnt(self) -> bool:
        return self.loss <= max(self.config.share * self.first, NONE)

    def tell(self) -> None:
        went = f"the loss of {counted(self.config.samples, 'sample')} went from {self.first:.4g} to {self.loss:.2g}"
        epochs, share = counted(int(self.epoch), "epoch"), self.config.share
        if self.learnt():
            logger.info("learnt by heart: %s in %s", went, epochs)
        else:
            logger.warning("NOT learnt by heart: %s in %s, not to %g of it. %s", went, epochs, share, ADVICE)


ADVICE = (
    "Either the task forbids it (samples that are alike and have other answers, fewer weights than samples), or "
    "something is in the way: look at the labels, the loss, what is frozen, and try another train.optimizer.lr"
)


# ---- where numbers stop being finite -------------------------------------------------------------------------------


@contextmanager
def detecting_anomalies(model: nn.Module) -> Iterator[None]:
    """DivergedError that names the first layer or gradient which is not finite, of what `model` does within."""
    import torch

    from torchloom.training.loop import DivergedError

    said: list[str] = []

    def show(message: Warning | str, *rest: Any) -> None:
        if "Error detected in" in str(message):
            said.append(str(message))
        else:
            shown(message, *rest)

    hooks = [layer.register_forward_hook(_check(name)) for name, layer in model.named_modules() if name]
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message="Error detected in")  # whatever is shown else
        shown = warnings.showwarning
        warnings.showwarning = show  # type: ignore[assignment]
        try:
            with torch.autograd.set_detect_anomaly(True):
                yield
        except RuntimeError as error:
            if "returned nan values" not in str(error):
                raise
            raise DivergedError(f"a gradient is not finite: {error}{_place(said)}") from error
        finally:
            for hook in hooks:
                hook.remove()


def _check(name: str) -> Any:
    """A hook that holds what a layer gives to be finite."""

    def hook(layer: nn.Module, inputs: Any, outputs: Any) -> None:
        from torchloom.training.loop import DivergedError

        wrong = _not_finite(outputs)
        if wrong:
            spoilt = [key for key, weight in layer.named_parameters() if _not_finite(weight)]
            parts = [*(["its inputs"] if _not_finite(inputs) else []), *spoilt]
            cause = f"so are already {' and '.join(parts)}" if parts else "its inputs and its weights are finite"
            raise DivergedError(f"{name} ({type(layer).__name__}) gives {wrong} numbers that are not finite; {cause}")

    return hook


def _not_finite(value: Any) -> int:
    """How many of the numbers in a tensor, or in all of a tuple or list, are not finite."""
    if isinstance(value, tuple | list):
        return sum(map(_not_finite, value))
    if not hasattr(value, "isfinite") or not value.is_floating_point():
        return 0
    return int((~value.isfinite()).sum())


def _place(said: list[str]) -> str:
    """Where the forward pass made what the gradient is of, by torch's account of it."""
    frames = re.findall(r'File "(.+)", line (\d+), in \w+\n\s+(.+)', "".join(said))
    ours = [frame for frame in frames if f"{Path('torch')}/" not in frame[0].partition("site-packages/")[2]] or frames
    return ". It belongs to `{2}` ({0}, line {1})".format(*ours[-1]) if ours else ""


# ---- what takes the time -------------------------------------------------------------------------------------------


class Profiler:
    """torch.profiler around a training: counts optimiser steps, and ends the training when it has seen enough."""

    def __init__(self, config: ProfileConfig) -> None:
        self.config = config
        self.left = config.wait + config.warmup + config.active
        self.files: dict[str, bytes] = {}

    def __call__(self, row: dict[str, float]) -> bool:  # noqa: ARG002
        return self.left <= 0

    @contextmanager
    def running(self, first: bool) -> Iterator[None]:
        """Of several processes only the `first` is profiled; the others count, to end with it."""
        from torch.optim.optimizer import register_optimizer_step_post_hook
        from torch.profiler import profile, schedule

        steps = schedule(wait=self.config.wait, warmup=self.config.warmup, active=self.config.active, repeat=1)
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would say that it starts and stops, and lacks a GPU
        watching = profile(schedule=steps, on_trace_ready=self.keep, record_shapes=True)
        with watching if first else nullcontext() as profiler:

            def step(*_: Any) -> None:
                self.left -= 1
                if profiler and self.left >= 0:
                    profiler.step()

            hook = register_optimizer_step_post_hook(step)
            try:
                yield
            finally:
                hook.remove()

    def keep(self, profiler: torch.profiler.profile) -> None:
        """Keep the trace, and the table of the operators that take the most time themselves, and say the latter."""
        averages = profiler.key_averages()
        device = any(event.self_device_time_total for event in averages)
        order = "self_device_time_total" if device else "self_cpu_time_total"
        table = averages.table(sort_by=order, row_limit=self.config.rows, max_name_column_width=60)
        logger.info("%s under the profiler:\n%s", counted(self.config.active, "step"), table)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / TRACE
            profiler.export_chrome_trace(str(path))
            self.files = {TRACE: path.read_bytes(), TABLE: table.encode()}


# ---- all of it -----------------------------------------------------------------------------------------------------


@contextmanager
def debugged(model: nn.Module, debugging: DebuggingConfig, first: bool) -> Iterator[dict[str, bytes]]:
    """Train `model` within as `debugging` says; `first` is for one of several processes, which tells and profiles.

    What is yielded holds the files of the profile afterwards.
    """
    files: dict[str, bytes] = {}
    with ExitStack() as stack:
        if debugging.detect_anomaly:
            stack.enter_context(detecting_anomalies(model))
        if debugging.overfit:
            without_dropout(model)
            overfitting = Overfitting(debugging.overfit)
            stack.enter_context(calling_back(overfitting))
        if debugging.profile:
            profiler = Profiler(debugging.profile)
            stack.enter_context(calling_back(profiler))
            stack.enter_context(profiler.running(first))
        yield files
    if debugging.overfit and first:
        overfitting.tell()
    if debugging.profile:
        files |= profiler.files
