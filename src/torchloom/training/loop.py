"""The training loop, in full view. What it calls does one thing each and lives in the modules beside it."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from torchloom.config import TrainConfig, direction, own
from torchloom.data.batches import start_epoch
from torchloom.errors import InputError
from torchloom.problems.base import WEIGHT, Batch, Kept, Objective, Whole
from torchloom.system.devices import (
    autocast,
    choose_device,
    choose_precision,
    compile_network,
    computable,
    tuned_host,
    used_memory,
)
from torchloom.system.progress import CLOCK, duration, step_bar
from torchloom.system.words import counted
from torchloom.training.averaging import create_average, settled
from torchloom.training.callbacks import create_callbacks, over
from torchloom.training.distribution import ALONE, Ranks
from torchloom.training.optimizers import Lookahead, Schedule, create_optimizer, say_if_momentum_moves
from torchloom.training.passes import create_pass
from torchloom.training.state import Saver, TrainingState, TrainingStates
from torchloom.training.transfer import all_begin, learn, training_mode

logger = logging.getLogger(__name__)

Loader = DataLoader[Batch]
AtEpoch = Callable[[nn.Module, int], None]  # the model and the number of the epoch that begins, from 1
TIMES = ("seconds", "seconds_waiting", "samples_per_second")  # what differs from run to run in a row of the history
LOGGED = 100  # lines about epochs that a log holds at most, or one a minute
SOME = 10  # training batches that show whether averaged weights have kept up
GLANCE = 0.5  # seconds between two looks at the running figures; each waits for the device


class DivergedError(InputError):
    """The loss or a weight is no longer a finite number."""


@dataclass(frozen=True)
class Outcome:
    """The outcome: weights (on the CPU) of the best and the last epoch, and one history row per epoch.

    `computed` says on what: `device`, `precision`, `threads` of each process and `processes`.
    """

    best: dict[str, Tensor]
    best_epoch: int
    last: dict[str, Tensor]
    history: list[dict[str, float]]
    computed: dict[str, Any]
    changes: list[str] = field(default_factory=list)  # of its settings, where it was gone on with under others


def fit(
    model: nn.Module,
    open_loader: Callable[[str, torch.device], Loader],
    config: TrainConfig,
    objective: Objective,
    states: TrainingStates | None = None,
    recipe: Mapping[str, Any] | None = None,
    at_epoch: AtEpoch | None = None,
    ranks: Ranks = ALONE,
    whole: Whole | None = None,
) -> Outcome:
    """Train `model` in place and return what came of it: `train_epochs` with the host set up for it.

    `open_loader("train", device)` and `("validation", device)` give the data. With an empty validation split the last
    epoch counts as the best. With `states`, the state is saved there now and then, and a training of the same `recipe`
    that was interrupted goes on, and ends as if it had not been. `at_epoch` may change parameters and buffers of the
    model in place when an epoch, counted from 1, begins. `ranks` are the processes that train it together: the loaders
    give each its part, and what comes of it is the same in all of them. `whole` measures the validation split
    beside the means of the objective. Raises InputError when the loss stops being a finite number, and
    KeyboardInterrupt when the run is told to stop.
    """
    device = choose_device(config.device)
    dtype = choose_precision(config.precision, device)
    with tuned_host(device, config.threads, config.keep_memory, ranks.local_size), computable(dtype, "train"):
        try:
            return train_epochs(
                model, open_loader, config, objective, device, states, recipe or {}, at_epoch, ranks, whole
            )
        except DivergedError:
            if states:
                states.clear()  # to go on from one would lead there again
            raise


def train_epochs(
    model: nn.Module,
    open_loader: Callable[[str, torch.device], Loader],
    config: TrainConfig,
    objective: Objective,
    device: torch.device,
    states: TrainingStates | None,
    recipe: Mapping[str, Any],
    at_epoch: AtEpoch | None = None,
    ranks: Ranks = ALONE,
    whole: Whole | None = None,
) -> Outcome:
    """The loop itself."""
    dtype = choose_precision(config.precision, device)
    train_loader, validation_loader = open_loader("train", device), open_loader("validation", device)
    validated = any(ranks.gather(len(validation_loader)))
    if config.early_stopping and not validated:
        raise InputError("train.early_stopping needs a validation split (preprocess.validation_fraction above 0)")
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ranks.prepare(model)
    optimizer = create_optimizer(model, config.optimizer, together=all_begin(config.freeze))
    steps_per_epoch = -(-len(train_loader) // config.accumulate)
    averaged = create_average(model, optimizer, config, steps_per_epoch)
    lengths = config.epochs, steps_per_epoch, config.warmup_epochs
    schedule = Schedule(optimizer, config.scheduler, *lengths, direction(config.monitor, config.rising), config.swa)
    say_if_momentum_moves(schedule, config)
    lookahead = Lookahead(model, config.lookahead, config.epochs * steps_per_epoch) if config.lookahead else None
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    compiled = compile_network(model, device, config.accumulate == 1 and not config.sam) if config.compile else model
    trained = ranks.parallel(compiled)
    forward_and_backward = create_pass(model, objective, config, scaler, device, dtype, ranks)
    judged = averaged.module if averaged else model  # the model that validation and the checkpoints see
    settle = partial(settled, averaged, model, optimizer, config, train_loader, device, dtype, objective, ranks)
    epochs, steps = counted(config.epochs, "epoch"), counted(steps_per_epoch, "step")
    logger.info("training on %s in %s: %s of %s", device, dtype, epochs, steps)

    callbacks = create_callbacks(config.callbacks)
    progress = Progress()
    parts: dict[str, Any] = {"model": model, "averaged": averaged, "optimizer": optimizer, "schedule": schedule}
    parts |= {"lookahead": lookahead, "scaler": scaler, "progress": progress}
    recipe = {**recipe, "device": device.type, "precision": str(dtype), "processes": ranks.size}
    ranks.check_same(recipe)
    state = TrainingState(parts, train_loader, device, recipe, ranks)
    saver = Saver(state, states, config)
    saver.resume()
    with saver.listening():
        for epoch in range(len(progress.history) + 1, config.epochs + 1):
            if config.early_stopping and should_stop(progress.history, config):
                waited = counted(config.early_stopping.patience, "epoch")
                logger.info("stopping early: no better %s in %s", config.monitor, waited)
                break
            rate = optimizer.param_groups[0]["lr"]
            running = Running(len(train_loader), device, {"epoch": epoch, "learning_rate": rate})
            start_epoch(train_loader, epoch - 1)
            state.begin_epoch(running)
            if learn(model, optimizer, config, epoch):
                trained = ranks.parallel(compiled)
            if at_epoch and not running.steps:  # else what is gone on with has had it
                at_epoch(model, epoch)
            training_mode(model)
            with step_bar() as bar:
                task = bar.add_task(f"epoch {epoch}/{config.epochs}", total=len(train_loader), status="")
                for step, batch in running.timed(train_loader):
                    group_start = step - step % config.accumulate
                    group = min(config.accumulate, len(train_loader) - group_start)
                    last_of_group = step + 1 == group_start + group
                    loss, figures = forward_and_backward(trained, batch, group, last_of_group)
                    if last_of_group:
                        if config.gradient_clip:
                            scaler.unscale_(optimizer)
                            nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
                        with own.running("train.optimizer", config.optimizer.name):
                            scaler.step(optimizer)
                        scaler.update()
                        for callback in callbacks:
                            number = (epoch - 1) * steps_per_epoch + group_start // config.accumulate + 1
                            callback.on_step(number, model, loss.detach())
                        optimizer.zero_grad(set_to_none=True)
                        if lookahead:
                            lookahead.step()
                        if averaged:
                            averaged.update_parameters(model)
                        schedule.step()
                    running.add(len(batch[-1]), loss, figures)
                    if running.seconds_since_glance() > GLANCE:
                        running.stop_if_not_finite(f"in epoch {epoch}, {describe_rate(optimizer)}")
                        left = seconds_left(running, progress.history, config.epochs)
                        bar.update(task, completed=step + 1, status=describe(running, optimizer, device, left))
                    if last_of_group:
                        saver.step_done()
            running.stop_if_not_finite(f"in epoch {epoch}, {describe_rate(optimizer)}")

            row = running.row | {f"train_{name}": value for name, value in running.means(ranks).items()}
            row |= {"samples_per_second": running.rate(ranks), "seconds_waiting": running.waited}
            if validated:
                settle(epoch)
                given = judged, validation_loader, device, dtype, objective
                measured = measure(*given, epoch, saver.step_done, ranks, whole)
                row |= {f"val_{name}": value for name, value in measured.items()}
            row["seconds"] = running.seconds()
            if epoch % -(-config.epochs // LOGGED) == 0 or CLOCK.line_is_due():
                log_row(row, config.epochs)
            schedule.end_epoch(monitored(row, config.monitor))
            progress.history.append(row)
            if not validated:
                progress.best_epoch = epoch
            elif improves(row, progress.best_row(), config.monitor, config.rising):
                progress.best, progress.best_epoch = snapshot(judged), epoch
            state.end_epoch()
            if over(row, callbacks):
                break
            if epoch < config.epochs:
                saver.epoch_done()
        saver.training_done()
    settle(len(progress.history))
    last = snapshot(judged)
    best = progress.best if validated else last
    stop_if_weights_not_finite(best, progress.best_epoch)
    if averaged or lookahead:
        kept = copy.deepcopy(judged)
        kept.load_state_dict(best)
        start_epoch(train_loader, config.epochs)
        some = list(islice(train_loader, SOME))
        found = run_through(kept, some, device, dtype, objective, "training data").means(ranks)
        say_if_far_worse(found, progress.history[progress.best_epoch - 1])
    computed: dict[str, Any] = {"device": str(device), "precision": str(dtype).removeprefix("torch.")}
    computed |= {"threads": torch.get_num_threads(), "processes": ranks.size}
    return Outcome(best, progress.best_epoch, last, progress.history, computed, progress.changes)


@dataclass
class Progress:
    """What has come of a training so far: a row per epoch, and the best epoch's weights on the CPU."""

    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)  # empty without a validation split
    best_epoch: int = 0
    changes: list[str] = field(default_factory=list)

    def best_row(self) -> dict[str, float] | None:
        return self.history[self.best_epoch - 1] if self.best_epoch else None

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class Running:
    """The figures of one epoch, kept on the device; reading them waits for it. `row` is what is known of it before."""

    def __init__(self, steps: int, device: torch.device, row: dict[str, float] | None = None) -> None:
        self.row = row or {}
        self.losses = torch.zeros(steps, device=device)
        self.sums: dict[str, Tensor] = {}
        self.steps = self.count = 0
        self.waited = 0.0  # seconds in which the host did nothing but get batches
        self.started = self.glanced = time.perf_counter()

    def timed(self, loader: Loader) -> Iterator[tuple[int, Batch]]:
        """The number of each step and its batch, with the time that it takes to get them."""
        batches = iter(loader)
        for step in range(self.steps, len(loader)):
            asked = time.perf_counter()
            batch = next(batches)
            self.waited += time.perf_counter() - asked
            yield step, batch

    def add(self, count: int, loss: Tensor, figures: dict[str, Tensor]) -> None:
        """Take in the figures of a batch of so many samples; with a WEIGHT among them, the loss counts for that."""
        self.losses[self.steps] = loss.detach()
        weight = figures.get(WEIGHT, count)
        for name, value in {"loss": loss.detach() * weight, **figures}.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach() * (1 if name in {"loss", WEIGHT} else count)
        self.steps += 1
        self.count += count

    def means(self, ranks: Ranks = ALONE) -> dict[str, float]:
        """The means over all samples so far, those of all `ranks`; the loss's is by its weights."""
        sums = {name: float(value) for name, value in self.sums.items()}
        totals = ranks.total({**sums, "": self.count})
        weight = totals.pop(WEIGHT, totals[""]) or 1.0  # of nothing but what is ignored the loss is 0
        return {name: total / (weight if name == "loss" else totals[""]) for name, total in totals.items() if name}

    def rate(self, ranks: Ranks = ALONE) -> float:
        """Samples per second."""
        return ranks.total({"count": self.count})["count"] / self.seconds()

    def seconds(self) -> float:
        """How long the epoch has been going on, without interruptions."""
        return time.perf_counter() - self.started

    def state_dict(self) -> dict[str, Any]:
        names = ("row", "steps", "count", "waited")
        on_host = {"losses": self.losses.cpu(), "sums": {name: value.cpu() for name, value in self.sums.items()}}
        return {**{name: getattr(self, name) for name in names}, **on_host, "seconds": self.seconds()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.losses.device
        self.row, self.steps, self.count, self.waited = (state[name] for name in ("row", "steps", "count", "waited"))
        self.losses = state["losses"].to(device)
        self.sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.started = time.perf_counter() - state["seconds"]

    def seconds_since_glance(self) -> float:
        return time.perf_counter() - self.glanced

    def stop_if_not_finite(self, where: str) -> None:
        self.glanced = time.perf_counter()
        wrong = (~self.losses[: self.steps].isfinite()).nonzero()
        if len(wrong):
            step = int(wrong[0])
            raise DivergedError(
                f"the loss became {float(self.losses[step])} at step {step + 1} of {len(self.losses)} {where}. "
                "Try a lower train.optimizer.lr, train.warmup_epochs, train.gradient_clip or train.precision=fp32."
            )


def measure(
    model: nn.Module,
    loader: Loader,
    device: torch.device,
    dtype: torch.dtype,
    objective: Objective,
    epoch: int,
    step_done: Callable[[], None] = lambda: None,
    ranks: Ranks = ALONE,
    whole: Whole | None = None,
) -> dict[str, float]:
    """The objective's means over all of `loader`, in evaluation mode, and what `whole` makes of all answers.

    Of `ranks` each has its part of the samples.
    """
    alone = step_done if ranks.size == 1 else lambda: None  # others may have fewer batches, and would wait for this one
    answers = Answers(whole.kept) if whole else None
    heard = answers.heard(objective) if answers else objective
    running = run_through(model, loader, device, dtype, heard, f"validation {epoch}", alone)
    running.stop_if_not_finite(f"of the validation data in epoch {epoch}")
    return running.means(ranks) | (whole.figures(*answers.of_all(ranks)) if whole and answers else {})


class Answers:
    """What a model answers, with what would have been right, or what `keep` makes of both batch by batch: it is kept on
    the device until all of it is there."""

    def __init__(self, keep: Kept) -> None:
        self.keep = keep
        self.kept: list[tuple[Tensor, Tensor]] = []

    def heard(self, objective: Objective) -> Objective:
        """The same objective, whose model's answers are kept."""

        def listening(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            with model.register_forward_hook(lambda *call: self.kept.append(self.keep(call[-1], batch[-1]))):
                return objective(model, batch)

        return listening

    def of_all(self, ranks: Ranks) -> tuple[Tensor, Tensor]:
        """What was kept of answers and targets in all processes, by rank, on the CPU."""
        own = [torch.cat(parts).cpu() for parts in zip(*self.kept, strict=True)]
        every = [parts for parts in ranks.gather(own) if parts]  # one may have no batches
        answers, targets = (torch.cat(parts) for parts in zip(*every, strict=True))
        return answers, targets


@torch.no_grad()
def run_through(
    model: nn.Module,
    batches: Any,
    device: torch.device,
    dtype: torch.dtype,
    objective: Objective,
    title: str,
    step_done: Callable[[], None] = lambda: None,
) -> Running:
    """The objective's figures over `batches`, a loader or a list, in evaluation mode."""
    model.eval()
    running = Running(len(batches), device)
    with step_bar() as bar:
        task = bar.add_task(title, total=len(batches), status="")
        for batch in bar.track(batches, task_id=task):
            with autocast(device, dtype):
                running.add(len(batch[-1]), *objective(model, batch))
            step_done()
    return running


def say_if_far_worse(kept: dict[str, float], row: dict[str, float]) -> None:
    """Warn when averaged weights have lost what was learnt: ten points of accuracy or, without one, twice the loss.

    `kept` are figures of the weights that are kept on training data, `row` has those of the epoch's training.
    """
    name = "accuracy" if "accuracy" in kept else "loss"
    found, trained = kept[name], row[f"train_{name}"]
    if not (found >= trained - 0.1 if name == "accuracy" else found <= 2 * trained):  # NaN is worse, too
        logger.warning(
            "the weights that are kept, those of epoch %d, are far worse than the trained ones that they are an "
            "average of: %s %.4g on training data, where training had %.4g. They, or the statistics of batch norm, "
            "have not kept up: take more steps, or a lower train.ema or train.lookahead.decay",
            *(row["epoch"], name, found, trained),
        )


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights and buffers on the CPU, in the default memory layout."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in model.state_dict().items()}


def stop_if_weights_not_finite(weights: dict[str, Tensor], epoch: int) -> None:
    """The last step of a run can spoil weights that no loss is computed with any more."""
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise DivergedError(f"{name} is no longer finite after epoch {epoch}. Try a lower train.optimizer.lr.")


def monitored(row: dict[str, float], monitor: str) -> float:
    """The figure of an epoch that is monitored: of the validation data or, without any, of the training."""
    validated = f"val_{monitor}"
    return row[validated if validated in row else f"train_{monitor}"]


def improves(
    row: dict[str, float], best: dict[str, float] | None, monitor: str, rising: Collection[str] = ("accuracy",)
) -> bool:
    """Whether the epoch's validation figure is better than the best so far; of equal ones the loss decides."""
    if best is None:
        return True
    gain = gained(row, best, monitor, rising)
    return gain > 0 or (gain == 0 and row["val_loss"] < best["val_loss"])


def gained(row: dict[str, float], best: dict[str, float], monitor: str, rising: Collection[str]) -> float:
    """By how much the epoch's validation figure is better."""
    gain = row[f"val_{monitor}"] - best[f"val_{monitor}"]
    return gain if direction(monitor, rising) == "max" else -gain


def should_stop(history: list[dict[str, float]], config: TrainConfig) -> bool:
    """Whether the last `patience` epochs brought nothing better than the best before them."""
    stopping = config.early_stopping
    assert stopping is not None
    best, waited = history[:1], 0
    for row in history[1:]:
        if gained(row, best[0], config.monitor, config.rising) > stopping.min_delta:
            best, waited = [row], 0
        else:
            waited += 1
    return waited >= stopping.patience


def describe_rate(optimizer: torch.optim.Optimizer) -> str:
    return f"lr {optimizer.param_groups[0]['lr']:.2e}"


def seconds_left(running: Running, history: list[dict[str, float]], epochs: int) -> float:
    """Until the last epoch is over, if all take as long as the one before this one, or as this one so far."""
    done = running.steps / len(running.losses)
    epoch = history[-1]["seconds"] if history else running.seconds() / done
    return max(0.0, (epochs - len(history) - done) * epoch)


def describe(running: Running, optimizer: torch.optim.Optimizer, device: torch.device, left: float) -> str:
    first = islice(running.means().items(), 3)  # those that there is room for
    figures = "  ".join(f"{name} {value:.4f}" for name, value in first)
    return (
        f"{figures}  {describe_rate(optimizer)}  {running.rate():,.0f} samples/s  {used_memory(device) / 1e9:.2f} GB  "
        f"all epochs {duration(left)}"
    )


def log_row(row: dict[str, Any], epochs: int) -> None:
    """One plain line per epoch."""
    skipped = {"epoch", "learning_rate", *TIMES}
    figures = "  ".join(f"{name} {value:.4f}" for name, value in row.items() if name not in skipped)
    logger.info(
        "epoch %d/%d  %s  lr %.2e  %.1f s, data %.1f s  %s samples/s",
        *(row["epoch"], epochs, figures, row["learning_rate"], row["seconds"], row["seconds_waiting"]),
        f"{row['samples_per_second']:,.0f}",
    )
