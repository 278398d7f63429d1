"""The state of a training: all that the rest of it depends on, in files that an interrupted run goes on from.

What is saved is data, not code: tensors and JSON, sealed with a fingerprint (torchloom/datasets/tensors.py).
"""

from __future__ import annotations

import copy
import json
import logging
import random
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from kedro.io import AbstractDataset, DatasetError

from torchloom.config.checks import differences
from torchloom.datasets.tensors import read_tensors, write_tensors
from torchloom.errors import InputError
from torchloom.system.words import counted

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.optim import Optimizer

    from torchloom.config import TrainConfig
    from torchloom.training.checkpoint import Checkpoint
    from torchloom.training.distribution import Ranks

logger = logging.getLogger(__name__)

AGREE = 0.5  # seconds, about, between two steps at which several processes agree on whether to save or to stop
SHARE = 0.01  # of the time, at most, goes into the states that are saved when epochs end
State = dict[str, Any]  # nested dictionaries, lists and tuples of tensors, numbers, strings and None

FOUND_BY = ("train.monitor: *", "train.loss*", "train.divergence: *")  # what the best epoch so far was found by
# Differences of two recipes, as `differences` says them, over which no training goes on, and those that are exempt.
FIXED = (
    *("model.name: *", "start: *", "train.freeze: *", "train.finetune*", "train.whitening*"),  # how the weights began
    *("train.optimizer.name: *", "train.optimizer.groups: *", "train.optimizer.groups.*.parameters: *"),  # the moments
    *("train.ema: None, *", "train.lookahead: None, *"),  # nothing of the kind was kept
    *FOUND_BY,
    *("train.seed: *", "train.batch_size: *", "train.accumulate: *", "dataloaders.*", "processes: *"),  # the batches
)
MORE_EPOCHS = ("train.epochs: *",)  # after which a training is the same, where nothing in it hangs on its length
FREE = ("dataloaders.data.augment*", "dataloaders.data.on_device: *", "dataloaders.evaluate_batch_size: *")


class Ended(NamedTuple):
    """What a training has left: two checkpoints and a row for each epoch."""

    best: Checkpoint
    last: Checkpoint
    history: list[dict[str, float]]


class TrainingStates:
    """The saved states of one task's training, in a folder of their own; the newest is the one to go on from.

    `recipe` is all that decides how a training goes on. A state of another recipe is not continued without being asked.
    `changes` says in what the state that was loaded last differs from it, `resume` is the full key of `train.resume`.
    `results` are the files of what the task's training leaves, by their names in the catalog.
    """

    def __init__(self, folder: Path, task: str = "<task>", results: Mapping[str, Path] | None = None) -> None:
        self.folder = folder
        self.resume = f"{task}.train.resume"
        self.results = results or {}
        self.changes: list[str] = []
        self.ended: Ended | None = None  # what the training is to go on from where there is no state

    def files(self) -> list[Path]:
        """The oldest first."""
        return sorted(self.folder.glob("epoch-*.safetensors"))

    def save(self, state: State, recipe: Mapping[str, Any], epoch: int, step: int, keep: int) -> Path:
        """Save a state after `epoch` whole epochs and `step` steps, and remove all but the newest `keep`."""
        path = self.folder / f"epoch-{epoch:05d}-step-{step:09d}.safetensors"
        tensors: dict[str, Tensor] = {}
        write_tensors(path, tensors, {"state": _pack(state, "", tensors), "recipe": recipe})
        for old in self.files()[:-keep]:
            old.unlink()
        return path

    def warm(self) -> TrainingStates:
        """The same, but to go on from the weights that the task's training has left, when no state does so already.

        Raises InputError when it has left none.
        """
        from torchloom.training.checkpoint import CheckpointDataset

        names = ("checkpoint", "last_checkpoint", "history")
        missing = [name for name in names if name not in self.results or not self.results[name].is_file()]
        if missing:
            where = self.results.get(missing[0], "its entry training_states in the catalog does not say where")
            raise InputError(
                f"{self.resume}: warm goes on from what a training of this task has left, and there is no {missing[0]} "
                f"({where}). Use auto, or begin from another task's weights with task: {{start: OTHER}}"
            )
        best, last = (CheckpointDataset(filepath=str(self.results[name])).load() for name in names[:2])
        warm = copy.copy(self)
        warm.ended = Ended(best, last, json.loads(self.results["history"].read_text(encoding="utf-8")))
        return warm

    def load(self, recipe: Mapping[str, Any], mode: str, free: tuple[str, ...] = ()) -> State | None:
        """The newest state that is whole, or None when there is nothing to go on from; `mode` is `train.resume`.

        Differences that fit `free` make no other training. Raises InputError when it is of another recipe and mode is
        not `must`, or the difference is one of `FIXED`, and when there is none and it is `must`. With `warm`, states
        of another recipe are given up.
        """
        if mode == "never":
            self.clear()
        for path, state, saved in self._whole():
            self.changes = list(differences(saved, recipe))
            fixed = [line for line in self.changes if _fits(line, FIXED) and not _fits(line, FREE)]
            if self.changes and mode == "warm":
                break
            if mode != "must" and not all(_fits(line, free) for line in self.changes):
                raise InputError(_another_recipe(path, self.changes, self.resume))
            if fixed:
                raise InputError(_cannot_go_on(path, fixed, self.resume))
            for line in self.changes:
                if mode == "must":
                    logger.warning("going on although it differs: %s", line)
                else:
                    logger.info("going on with %s", line)
            logger.info("going on from %s", path)
            return state
        if mode == "warm":
            self.clear()
            self.changes = []
        if mode == "must":
            raise InputError(f"{self.folder}: no state to go on from, but {self.resume} is must. Use auto or never.")
        return None

    def _whole(self) -> Iterator[tuple[Path, State, Mapping[str, Any]]]:
        """Those that can be read, and of which recipe each is; the newest first."""
        for path in reversed(self.files()):
            try:
                tensors, description = read_tensors(path, "Going on from the state before it, if there is one")
                state: State = _unpack(description["state"], tensors)
                saved = description["recipe"]
            except (InputError, KeyError, TypeError, AttributeError) as error:
                logger.warning("%s", error if isinstance(error, InputError) else f"{path}: not a state of ours")
                continue
            yield path, state, saved

    def batch_size(self) -> int | None:
        """That of the training whose state would be gone on with, if there is one."""
        for _, _, recipe in self._whole():
            size = recipe.get("train", {}).get("batch_size")
            return size if isinstance(size, int) else None
        return None

    def newest(self) -> str:
        """The name of the newest file, empty when there is none; later ones are greater."""
        return next((path.name for path in reversed(self.files())), "")

    def clear(self, keep: int = 0) -> None:
        """Remove all states but the newest `keep`."""
        for path in self.files()[: -keep or None]:
            path.unlink(missing_ok=True)
        with suppress(OSError):  # it is not there, or holds something else
            self.folder.rmdir()


def _fits(line: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(line, pattern) for pattern in patterns)


def _cannot_go_on(path: Path, changes: list[str], resume: str) -> str:
    return "\n".join(
        [
            f"{path}: a training cannot go on from here with these differences, also with {resume}=must:",
            *(f"  {line}" for line in changes),
            f"Undo them, or start anew with --params {resume}=never.",
        ]
    )


def _another_recipe(path: Path, changes: list[str], resume: str) -> str:
    return "\n".join(
        [
            f"{path}: a training that was interrupted or kept its state could go on from here, but it had another "
            "recipe:",
            *(f"  {line}" for line in changes),
            f"To start anew and give it up, add --params {resume}=never; to go on from it under the new "
            "recipe, =must; to finish it as it was begun, undo the differences.",
        ]
    )


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON can hold it; its tensors go into `tensors`, by where they were found."""
    if hasattr(value, "untyped_storage"):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"items": [[key, _pack(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [_pack(item, f"{name}/{number}", tensors) for number, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    return value


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]].clone()  # not of the file, which will be removed
    if "tuple" in value:
        return tuple(_unpack(item, tensors) for item in value["tuple"])
    return {key: _unpack(item, tensors) for key, item in value["items"]}


class TrainingStatesDataset(AbstractDataset[None, TrainingStates]):
    """Where the states of a training lie, for the catalog: the train stage itself saves and removes them."""

    def __init__(
        self,
        *,
        filepath: str,
        task: str,
        results: dict[str, dict[str, str]] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Each of `results`, which `train.resume: warm` goes on from, is a block with a `filepath`."""
        paths = {name: Path(place["filepath"]) for name, place in (results or {}).items()}
        self._states = TrainingStates(Path(filepath), task, paths)
        self.metadata = metadata

    def load(self) -> TrainingStates:
        return self._states

    def save(self, data: None) -> None:  # noqa: ARG002
        raise DatasetError("states are saved by the training itself")

    def fingerprint(self) -> str:
        return "no matter"  # a training ends the same, whether or not it is interrupted

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"folder": str(self._states.folder)}


class TrainingState:
    """All that a training depends on: what has `state_dict` and `load_state_dict`, the epoch that runs, randomness."""

    def __init__(
        self,
        parts: Mapping[str, Any],
        train_loader: Any,
        device: torch.device,
        recipe: Mapping[str, Any],
        ranks: Ranks,
    ) -> None:
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.train_loader, self.device, self.recipe, self.ranks = train_loader, device, recipe, ranks
        self.running: Any = None  # the figures of the epoch that runs, None between two
        self.interrupted: State | None = None  # an epoch that was interrupted and has not begun again

    def begin_epoch(self, running: Any) -> None:
        """Go on within an epoch that was interrupted, if there is one; the loader must have been set to the epoch."""
        from torchloom.data.batches import continue_epoch

        self.running = running
        if self.interrupted:
            running.load_state_dict(self.interrupted["running"])
            continue_epoch(self.train_loader, running.steps, self.interrupted["drawn"])
            self.interrupted = None

    def end_epoch(self) -> None:
        self.running = None

    def state_dict(self) -> State:
        from torchloom.data.batches import drawn

        epoch = {"running": self.running.state_dict(), "drawn": drawn(self.train_loader)} if self.running else None
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        own = {"epoch": epoch, "random": random_state(self.device)}
        return {"parts": parts, "ranks": self.ranks.gather(own)}

    def load_state_dict(self, state: State) -> None:
        for name, part in self.parts.items():
            if name == "optimizer":
                restore_optimizer(part, state["parts"][name])
            elif state["parts"][name]:  # empty is what a scaler saves that scales nothing
                part.load_state_dict(state["parts"][name])
        if len(state["ranks"]) != self.ranks.size:
            raise ValueError(f"it is of {len(state['ranks'])} processes, and these are {self.ranks.size}")
        own = state["ranks"][self.ranks.rank]
        self.interrupted = own["epoch"]
        set_random_state(own["random"], self.device)


class Saver:
    """Saves the state of a training when it is time to, and when the run is told to stop; without `states` never."""

    def __init__(self, state: TrainingState, states: TrainingStates | None, config: TrainConfig) -> None:
        self.state, self.states, self.config, self.ranks = state, states, config, state.ranks
        self.saved, self.cost = time.perf_counter(), 0.0
        self.count, self.spent = 0, 0.0
        self.stop_asked = False
        self.agreed, self.steps, self.until = time.perf_counter(), 0, 1  # several processes agree after `until` steps

    def resume(self) -> None:
        """Go on from the newest state, if there is one; InputError when it does not fit the network."""
        from torchloom.training.optimizers import hangs_on_length

        if self.states is None:
            return
        # each machine has a disk of its own, and another one may have saved the newest
        newest = self.ranks.gather(self.states.newest())
        holder = newest.index(max(newest))
        free = () if hangs_on_length(self.config) else MORE_EPOCHS
        state = self.states.load(self.state.recipe, self.config.resume, free) if self.ranks.rank == holder else None
        state, changes = self.ranks.one((state, self.states.changes), holder)
        if state is None and self.config.resume in {"never", "warm"} and self.ranks.local_rank == 0:
            self.states.clear()
        if state is None and self.states.ended:
            self._go_on_after(self.states.ended)
        if state is None:
            return
        try:
            self.state.load_state_dict(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"the saved state does not fit this training ({error}). What differs: "
                f"{'; '.join(changes) or 'nothing'}. Undo that, or use --params {self.states.resume}=never"
            ) from error
        begun = len(self.state.parts["progress"].history) + (self.state.interrupted is not None)
        if begun > self.config.epochs:
            raise InputError(
                f"train.epochs {self.config.epochs}: the saved state is of epoch {begun}. Give as many at least, or "
                f"use --params {self.states.resume}=never"
            )
        self._note([line for line in changes if not line.startswith(("code.", "packages."))])

    def _note(self, changes: list[str]) -> None:
        """What is otherwise in the epochs from now on."""
        progress = self.state.parts["progress"]
        progress.changes += [f"from epoch {len(progress.history) + 1} on, {line}" for line in changes]

    def _go_on_after(self, ended: Ended) -> None:
        """The model has the weights of a training that is over; let the epochs be counted on, and nothing else."""
        from torchloom.training.finetuning import unmerged
        from torchloom.training.loop import monitored

        assert self.states is not None
        done = len(ended.history)
        if done >= self.config.epochs:
            raise InputError(
                f"train.epochs {self.config.epochs}: the last checkpoint is of epoch {done}, and {self.states.resume} "
                "is warm. Give more epochs"
            )
        changes = list(
            differences({"train": ended.last.training.get("parameters", {})}, {"train": self.config.recipe()})
        )
        fixed = [line for line in changes if _fits(line, FOUND_BY)]
        if fixed:
            raise InputError(_cannot_go_on(self.states.results["last_checkpoint"], fixed, self.states.resume))
        steps = -(-len(self.state.train_loader) // self.config.accumulate)
        ends = [(steps * number, monitored(row, self.config.monitor)) for number, row in enumerate(ended.history, 1)]
        self.state.parts["schedule"].load_state_dict({"taken": steps * done, "ends": ends})
        for name in ("averaged", "lookahead"):
            if hasattr(self.state.parts.get(name), "taken"):
                self.state.parts[name].taken = steps * done
        progress = self.state.parts["progress"]
        validated = "val_loss" in ended.history[-1]
        best = unmerged(ended.best.weights, self.state.parts["model"]) if validated else {}
        best_epoch = int(ended.best.training["epoch"]) if validated else 0
        before = list(ended.last.training.get("changes", []))
        progress.load_state_dict({"history": ended.history, "best": best, "best_epoch": best_epoch, "changes": before})
        self._note([f"a new optimiser and the weights of epoch {done}", *changes])
        logger.info("going on from the weights of epoch %d with a new optimiser", done)

    def step_done(self) -> None:
        """Call it where the state can be saved: after an optimiser step, or in validation.

        Raises KeyboardInterrupt once the state is saved, when the run was told to stop.
        """
        self.steps += 1
        if self.states is None or (self.ranks.size > 1 and self.steps < self.until):
            return
        stop, save = self._agree(self.stop_asked, time.perf_counter() - self.saved > self.config.save_minutes * 60)
        if stop:
            path = self._save()
            logger.warning("stopped; the state is saved in %s", path)
            raise KeyboardInterrupt
        if save:
            self._save()

    def epoch_done(self) -> None:
        due = time.perf_counter() - self.saved > self.cost / SHARE
        if self.states is not None and self.ranks.one(due):
            self._save()

    def training_done(self) -> None:
        """After the last epoch."""
        if self.states is not None and self.config.keep_state:
            self._save()

    def _agree(self, stop: bool, save: bool) -> tuple[bool, bool]:
        """Whether any process wants to stop, and whether the first wants to save; and when to ask again."""
        if self.ranks.size == 1:
            return stop, save
        seconds = time.perf_counter() - self.agreed
        later = min(10 * self.steps, max(1, round(AGREE * self.steps / max(seconds, 1e-6))))
        wishes = self.ranks.gather((stop or self.ranks.told_to_stop(), save, later))
        self.until, self.steps, self.agreed = wishes[0][2], 0, time.perf_counter()
        return any(wish[0] for wish in wishes), wishes[0][1]

    def _save(self) -> Path:
        """The states of all processes go into one file, which the first one writes."""
        assert self.states is not None
        started = time.perf_counter()
        running = self.state.running
        steps = running.steps if running else 0
        epochs = len(self.state.parts["progress"].history)
        state, path = self.state.state_dict(), self.states.folder
        if self.ranks.rank == 0:
            path = self.states.save(state, self.state.recipe, epochs, steps, self.config.keep_states)
        self.saved = time.perf_counter()
        self.cost = self.saved - started
        self.count, self.spent = self.count + 1, self.spent + self.cost
        return path

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM ask for a stop; asked a second time it comes at once."""

        def ask(*_: Any) -> None:
            if self.stop_asked:
                raise KeyboardInterrupt
            self.stop_asked = True
            logger.warning("stopping after this step, to save the state; once more to stop at once")

        if self.states is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
            if self.stop_asked:
                self.step_done()
            logger.info("saved %s of the training, which took %.2f s", counted(self.count, "state"), self.spent)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def random_state(device: torch.device) -> State:
    """The states of all global random generators that a step on `device` may draw from."""
    import torch

    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.array(keys, dtype=np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "device": None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device),
    }


def set_random_state(state: State, device: torch.device) -> None:
    import torch

    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["device"] is not None and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state["device"], device)


def restore_optimizer(optimizer: Optimizer, state: State) -> None:
    """Load moments and step counts; the arguments, learning rates and all, stay those of `optimizer`.

    Each tensor is laid out in memory as its parameter, which fused kernels take for granted. Raises ValueError when the
    arguments need other moments.
    """
    import torch

    arguments = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, arguments, strict=True):
        parameters = group["params"]
        group.clear()
        group.update(params=parameters, **own)
        try_step(optimizer, group)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if name != "step" and isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def try_step(optimizer: Optimizer, group: dict[str, Any]) -> None:
    """Raise ValueError when `group` lacks moments for a step, which is tried on a copy of its smallest parameter."""
    known = [parameter for parameter in group["params"] if optimizer.state.get(parameter)]
    if not known:
        return
    parameter = min(known, key=lambda parameter: parameter.numel())
    copied = parameter.detach().clone().requires_grad_()
    copied.grad = copied.detach() * 0
    kind: Any = type(optimizer)
    trial = kind([{**group, "params": [copied]}])
    trial.state[copied] = copy.deepcopy(optimizer.state[parameter])
    try:
        trial.step()
    except KeyError as error:
        raise ValueError(f"{kind.__name__} with these arguments needs {error}, which was not kept before") from error
