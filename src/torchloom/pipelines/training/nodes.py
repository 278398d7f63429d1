"""The stages of a task, in the order of the graph; what differs from problem to problem is in torchloom/problems.

torch is imported inside the functions, so that commands which only look at the project stay quick.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from torchloom.config import (
    CompareConfig,
    DataConfig,
    DebuggingConfig,
    DistributedConfig,
    ExportConfig,
    ModelConfig,
    TrainConfig,
    own,
)
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError, telling
from torchloom.modalities import Info, check_suits, read_info, suited
from torchloom.problems.base import Objective, Problem
from torchloom.records.provenance import code_of, reads, strings
from torchloom.system.words import counted
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.debugging import adjusted, debugged
from torchloom.training.loaders import LoaderPlan, TensorFile
from torchloom.training.starting import Weights
from torchloom.training.state import TrainingStates

if TYPE_CHECKING:
    import torch
    from torch import nn

    from torchloom.training.distribution import Ranks

logger = logging.getLogger(__name__)


@reads(model=[], train=["batch_size", "seed", "whitening"], evaluate=["batch_size", "views", "beam"])
def build_dataloaders(
    train: Tensors,
    validation: Tensors,
    test: Tensors,
    info: dict[str, Any],
    data: DataConfig,
    training: Any,
    evaluation: Any,
    debugging: DebuggingConfig,
) -> LoaderPlan:
    """Plan the loaders and try them out: one batch of each split that is not empty.

    `training` and `evaluation` are the blocks of the problem: Kedro takes their types from `train` and `evaluate`.
    Raises InputError when one of them or `data` has keys for other kinds of data.
    """
    known = read_info(info)
    splits = {"train": train, "validation": validation, "test": test}
    given = {f"data.{key}" for key in data.model_fields_set}
    given |= {"train.whitening"} if training.whitening else set()
    given |= {"evaluate.views"} if getattr(evaluation, "views", "one") != "one" else set()
    for key in sorted(given & suited().keys()):
        check_suits(key, known)
    files = {name: [_file(tensors, known)] for name, tensors in splits.items()}
    if data.include_validation:
        files["train"], files["validation"] = [*files["train"], *files["validation"]], []
    if debugging.overfit:
        files["validation"] = files["train"]
    plan = LoaderPlan.model_validate(
        {
            "splits": files,
            "info": known.asked(data, evaluation),
            "data": data,
            "batch_size": training.batch_size,
            "evaluate_batch_size": evaluation.batch_size,
            "seed": training.seed,
            "batches": debugging.batches,
            "overfit": debugging.overfit and debugging.overfit.samples,
        }
    )
    for split in files:
        loader = plan.loader(split)
        if not len(loader) and split != "validation":
            raise InputError(f"there are no {split} data. Change the fractions in the block preprocess of these data")
        if len(loader):
            inputs, *_ = next(iter(loader))
            count, rest = counted(len(loader), "batch"), ""
            whole, left = divmod(len(plan.trained_numbers()), plan.size) if split == "train" else (0, 0)
            if left and whole == len(loader):
                rest = f"; {counted(left, 'sample')} more, which differ in each epoch, make no whole one"
            if split == "train" and plan.batch_size == "auto":
                rest = " at first sight; training finds out how many samples each is to have"
            logger.info("%s: %s of %s%s", split, count, tuple(inputs.shape), rest)
    return plan


def _file(tensors: Tensors, info: Info) -> TensorFile:
    assert tensors.path is not None  # they come from the catalog
    assert tensors.fingerprint is not None
    if info.counted not in tensors.arrays:
        raise InputError(
            f"{tensors.path}: holds no {info.counted}. Run the preprocess stage again: kedro run --tags preprocess"
        )
    return TensorFile(path=tensors.path, fingerprint=tensors.fingerprint, length=len(tensors.arrays[info.counted]))


class Trained(NamedTuple):
    """The best checkpoint (on validation; without one the last), the last one, a row for each epoch, and the files of
    a profile, if there is one."""

    best: Checkpoint
    last: Checkpoint
    history: list[dict[str, float]]
    profile: dict[str, bytes]


def train(
    loaders: LoaderPlan,
    network: Any,
    training: Any,
    distributed: DistributedConfig,
    debugging: DebuggingConfig,
    states: TrainingStates | None = None,
    start: Checkpoint | Weights | None = None,
    *,
    problem: Problem,
) -> Trained:
    """Train a network for the problem; see `train_network`."""
    problem.check(training, loaders)
    config = adjusted(problem.settled(training, loaders), debugging)
    objective = partial(problem.objective, config, loaders.info)
    return train_network(problem, loaders, network, config, distributed, debugging, objective, states, start)


def train_network(
    problem: Problem,
    loaders: LoaderPlan,
    network: ModelConfig | None,
    config: TrainConfig,
    distributed: DistributedConfig,
    debugging: DebuggingConfig,
    objective: partial[Objective],
    states: TrainingStates | None = None,
    start: Checkpoint | Weights | None = None,
    at_epoch: partial[Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Trained:
    """Train, and return what came of it.

    With `start` the weights are at first those of that checkpoint or file, but for the head where the classes or the
    vocabulary are others; without `network`, the model is that of `start`. `objective` makes what is minimised, and
    `at_epoch`, from the checkpoint to start from, the model and the loaders, what happens when an epoch begins: in each
    of the processes that train together. A training of the same recipe that was interrupted goes on from what is in
    `states`, unless it is one for `debugging`; `more` belongs to the recipe too.
    """
    from torchloom.training import pretrained
    from torchloom.training.distribution import ALONE, launch

    states = None if debugging.on else states
    if config.resume == "warm":
        if states is None:
            raise InputError(
                "train.resume: warm goes on with a training of the task, which debugging and sweeps do not"
            )
        states = states.warm()
    for key, made in {"batch_size": loaders.batch_size, "seed": loaders.seed}.items():
        if made != getattr(config, key):
            raise InputError(
                f"train.{key} is {getattr(config, key)}, but the loaders were made for {made}. Run from "
                "build_dataloaders on, to have them anew"
            )
    parts = [objective.func, *([at_epoch.func] if at_epoch else [])]
    network, loaders = pretrained.settled(network, loaders, start if isinstance(start, Checkpoint) else None)
    name = network.name if network else start.network if isinstance(start, Checkpoint) else ""
    names = [name, problem.name, loaders.info.kind, *strings(config.recipe())]
    code, packages = code_of(train_network, *parts, names=names)
    recipe = {
        "model": network.model_dump(mode="json") if network else None,
        "train": config.recipe(),
        "dataloaders": loaders.recipe(),
        "code": code,
        "packages": packages,
        **({"start": start.fingerprint()} if start else {}),
        **pretrained.fingerprint(network),
        **({"warm": states.ended.last.fingerprint()} if states and states.ended else {}),
        **({"debugging": debugging.model_dump(mode="json")} if debugging.on else {}),
        **(more or {}),
    }
    job = Job(problem, loaders, network, config, debugging, objective, states, start, at_epoch, recipe)
    if only_prepared.get():
        raise Prepared(job)
    trained: Trained = _train(ALONE, job) if distributed.alone else launch(_train, job, distributed, config.device)
    best, last = (problem.completed(checkpoint, loaders, config) for checkpoint in (trained.best, trained.last))
    return trained._replace(best=best, last=last)


@dataclass(frozen=True)
class Job:
    """What each process is told that trains; see `train_network`."""

    problem: Problem
    loaders: LoaderPlan
    network: ModelConfig | None
    config: TrainConfig
    debugging: DebuggingConfig
    objective: partial[Objective]
    states: TrainingStates | None
    start: Checkpoint | Weights | None
    at_epoch: partial[Any] | None
    recipe: Mapping[str, Any]

    def checkpoint(self) -> Checkpoint:
        """Of what is trained, still without weights."""
        if self.network is None:
            assert isinstance(self.start, Checkpoint)
            return self.start.model_copy(update={"info": self.loaders.info})
        return Checkpoint(
            network=self.network.name,
            arguments=self.network.arguments,
            problem=self.problem.name,
            info=self.loaders.info,
            training={},
            weights={},
        )


only_prepared: ContextVar[bool] = ContextVar("only_prepared", default=False)


class Prepared(Exception):  # noqa: N818  # nothing is wrong
    """A training that would begin, where it is only to be `looked_at`."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job


@contextmanager
def looked_at() -> Iterator[None]:
    """A training that would begin within raises Prepared instead."""
    token = only_prepared.set(True)
    try:
        yield
    finally:
        only_prepared.reset(token)


def settled(job: Job, ranks: Ranks) -> Job:
    """The job with its size of batches where that is yet to be found: the one that an interrupted training had, or the
    one that `found_size` tells. All processes have the same."""
    if job.config.batch_size != "auto":
        return job
    asked = job.states is not None and (job.config.resume != "never" or ranks.again)
    kept = ranks.gather((job.states.newest(), job.states.batch_size()) if asked and job.states else ("", None))
    size = max(kept, key=lambda state: state[0])[1] or found_size(job, ranks)
    update = {"batch_size": size}
    config, loaders = job.config.model_copy(update=update), job.loaders.model_copy(update=update)
    recipe = {**job.recipe, "train": config.recipe(), "dataloaders": loaders.recipe()}
    return replace(job, config=config, loaders=loaders, recipe=recipe)


def found_size(job: Job, ranks: Ranks) -> int:
    """The smallest size of batches that is nearly as fast as any, by a few steps of each; of all processes together.

    There are FEWEST steps in an epoch, or more.
    """
    from torchloom.training.batch_size import FEWEST, Trial, explore, together
    from torchloom.training.optimizers import rates_of, said_of_scaling

    samples = len(job.loaders.trained_numbers())
    most = samples // (FEWEST * job.config.accumulate * ranks.size)
    with at_hand(job, ranks) as (model, config, device, dtype):
        attempt = Trial(model, job.loaders, config, job.objective(), device, dtype, ranks.local_size)
        sizes = explore(together(attempt, ranks), max(1, most), seconds=1.0, patience=2)
    found, fastest = sizes.suggested(), sizes.fastest
    logger.info(
        "train.batch_size: auto takes %d samples, %s of them a second; the fastest was %d, with %s",
        *(found.batch_size * ranks.size, f"{found.rate * ranks.size:,.0f}"),
        *(fastest.batch_size * ranks.size, f"{fastest.rate * ranks.size:,.0f}"),
    )
    logger.info(
        "the learning rate stays %.2g; if it was chosen for batches of another size: %s, or see kedro tune lr",
        *(rates_of(job.config)[0], said_of_scaling(job.config.optimizer.name)),
    )
    return found.batch_size * ranks.size


@contextmanager
def at_hand(job: Job, ranks: Ranks) -> Iterator[tuple[nn.Module, TrainConfig, torch.device, torch.dtype]]:
    """What the job begins with, see `untrained`, and the host set up for it."""
    from torchloom.system.devices import choose_device, choose_precision, computable, seed_everything, tuned_host

    config = job.config
    device = choose_device(config.device)
    dtype = choose_precision(config.precision, device)
    seed_everything(config.seed, config.deterministic)
    with tuned_host(device, config.threads, config.keep_memory, ranks.local_size), computable(dtype, "train"):
        yield *untrained(job), device, dtype


def _train(ranks: Ranks, job: Job) -> Trained:
    """`train_network` in one process of `ranks`; what it returns is the same in all of them."""
    from torchloom.data.batches import seeded
    from torchloom.system.devices import enough_memory, seed_everything
    from torchloom.training.finetuning import merged
    from torchloom.training.loop import TIMES, fit

    job = settled(job, ranks)
    config, loaders = job.config, job.loaders
    if config.resume == "never" and ranks.again:
        job = replace(job, config=config.model_copy(update={"resume": "auto"}))
    if not job.debugging.on:
        say_if_one_step(config, len(loaders.trained_numbers()), "training samples")
    say_if_nothing_has_learnt(job)
    seed_everything(config.seed, config.deterministic)
    model, config = untrained(job)
    size = sum(parameter.numel() for parameter in model.parameters())
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    some = f", of which {learning:,} learn" if learning < size else ""
    name = job.network.name if job.network else "the same network"
    logger.info("%s with %s%s", name, counted(size, "parameter"), some)
    changes = job.at_epoch(job.start, model, loaders) if job.at_epoch else None
    if ranks.rank:  # the networks are the same; dropout is not
        seed_everything(seeded(config.seed, ranks.rank).initial_seed(), config.deterministic)
    first = ranks.rank == 0
    with enough_memory(smaller_batches(config)), debugged(model, job.debugging, first) as profile:
        open_loader = partial(loaders.loader, share=ranks.share)
        whole = job.problem.whole(config, loaders.info)
        result = fit(model, open_loader, config, job.objective(), job.states, job.recipe, changes, ranks, whole)

    def checkpoint(weights: dict[str, Any], epoch: int) -> Checkpoint:
        figures = {name: value for name, value in result.history[epoch - 1].items() if name not in TIMES}
        changes = {"changes": result.changes} if result.changes else {}
        training = {**figures, "parameters": job.config.recipe(), "computed": result.computed, **changes}
        return job.checkpoint().model_copy(update={"weights": merged(weights), "training": training})

    best = checkpoint(result.best, result.best_epoch)
    return Trained(best, checkpoint(result.last, len(result.history)), result.history, profile)


def untrained(job: Job) -> tuple[nn.Module, TrainConfig]:
    """The model as it is before the first step, and the block `train` as its recipe of fine-tuning has it."""
    from torchloom.models import build_model
    from torchloom.training import pretrained
    from torchloom.training.finetuning import finetuned
    from torchloom.training.recompute import recompute
    from torchloom.training.transfer import freeze, head_of, take_over
    from torchloom.training.whitening import whiten

    network, info, config = job.network, job.loaders.info, job.config
    if network:
        model = build_model(network.name, network.arguments, info, job.problem)
        _check_answer(model, network.name, job)
        pretrained.start(model, network, info, job.problem)
        if job.start:
            take_over(model, network, info, job.problem, job.start)
    else:
        assert isinstance(job.start, Checkpoint)
        model = job.start.build()
    freeze(model, config.freeze)
    if config.whitening:
        check_suits("train.whitening", info)
        whiten(model, job.loaders.trained(config.whitening.images)[0], config.whitening)
    if job.states and job.states.ended and network:
        take_over(model, network, info, job.problem, job.states.ended.last)
    recompute(model, config.recompute, compiled=config.compile)
    return model, finetuned(model, head_of(job.checkpoint()) if config.finetune else set(), config)


def _check_answer(model: nn.Module, name: str, job: Job) -> None:
    """InputError unless a network of the user's own gives what the problem asks for: more may train in silence."""
    import torch

    if not own.is_path(name):
        return
    inputs = job.loaders.samples("train", 2).values()
    with own.running("model.name", name):
        with torch.no_grad(), torch.random.fork_rng([]):
            answer = model.eval()(*inputs)
        with telling(f"model.name: {name}"):
            job.problem.check_answer(answer, job.loaders.info)
    model.train()


def say_if_one_step(config: TrainConfig, count: int, what: str) -> None:
    """Warn when so many samples make no more than one optimiser step an epoch, and that of fewer than it asks for."""
    assert isinstance(config.batch_size, int)
    batches = max(1, count // config.batch_size)
    if config.batch_size > count:
        said, taken = f"train.batch_size {config.batch_size} is more than the {count} {what}", count
    elif config.accumulate > batches:
        said = f"train.accumulate {config.accumulate} is more than the {counted(batches, 'batch')} of {count} {what}"
        taken = batches * config.batch_size
    else:
        return
    logger.warning("%s: each epoch is one step, on %s", said, "all of them" if taken == count else f"{taken} of them")


def say_if_nothing_has_learnt(job: Job) -> None:
    """Warn when a recipe of fine-tuning is to go on with weights that were only drawn."""
    network, recipe = job.network, job.config.finetune
    begun = job.start or (job.states and job.states.ended) or (network and (network.weights or network.pretrained))
    if recipe and recipe.name != "all" and not begun:
        logger.warning(
            "train.finetune: %s is for weights that have learnt before, and these are only drawn. Say where they are "
            "to come from: task: {start: …}, model.weights or model.pretrained",
            recipe.name,
        )


def smaller_batches(config: TrainConfig) -> str:
    """What to try when they do not fit into the memory."""
    assert isinstance(config.batch_size, int)
    if config.batch_size == 1:
        return "Try a smaller network"
    return (
        f"Try train.batch_size={config.batch_size // 2} with train.accumulate={config.accumulate * 2}, which leaves "
        "the steps as they are, and a smaller evaluate.batch_size, which validation uses"
    )


def evaluate(
    checkpoint: Checkpoint,
    loaders: LoaderPlan,
    history: list[dict[str, float]],
    evaluation: Any,
    *,
    problem: Problem,
) -> dict[str, Any]:
    """Measure the checkpoint on the test split: each of `problem.reports` by its name."""
    from torchloom.system.fonts import naming

    with naming(loaders.info.drawn_names()):
        return problem.evaluate(checkpoint, loaders, history, evaluation)


def export_onnx(checkpoint: Checkpoint, loaders: LoaderPlan, config: ExportConfig) -> tuple[bytes, dict[str, Any]]:
    """Export to ONNX, and hold ONNX Runtime's answers to PyTorch's on test data; for the graph see Problem.signature.

    Raises InputError, and leaves an earlier export as it was, when an output differs by more than the tolerance.
    """
    from torchloom.export.onnx import onnx_parity, signature, to_onnx
    from torchloom.system.progress import working

    model = checkpoint.exported()
    form = signature(model, loaders.samples("test", max(2, *config.batch_sizes)), checkpoint)
    with working("exporting to ONNX"):
        onnx_model = to_onnx(model, form, checkpoint, config.opset)
    with working("comparing with ONNX Runtime"):
        report = onnx_parity(model, onnx_model, form, config.batch_sizes)
    report |= {"tolerance": config.tolerance, "opset": config.opset, "bytes": len(onnx_model)}
    check_parity("the exported model", report, config)
    logger.info(
        "ONNX Runtime agrees to %.2g on %s", report["greatest_difference"], counted(report["samples"], "sample")
    )
    return onnx_model, report


def export_formats(
    checkpoint: Checkpoint, onnx_model: bytes, loaders: LoaderPlan, config: ExportConfig
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Export to each of `export.formats`, under the same rules as to ONNX.

    Returns the files by name and, when there are any, a report: size, time to load, latency of one sample and
    throughput, beside those of ONNX and of the model itself.
    """
    if not config.formats:
        return {}, {}
    from torchloom.compression.comparison import machine, onnx_side, pytorch_side, time_side_by_side
    from torchloom.datasets.onnx import open_session
    from torchloom.export import formats
    from torchloom.export.onnx import parity, signature
    from torchloom.system.progress import working

    model = checkpoint.exported()
    form = signature(model, loaders.samples("test", max(2, *config.batch_sizes)), checkpoint)
    files: dict[str, bytes] = {}
    sides = {"pytorch": pytorch_side(model)}
    report: dict[str, Any] = {"pytorch": {}, "onnx": {"bytes": len(onnx_model)}}
    session, report["onnx"]["load_ms"] = formats.timed(lambda: open_session(onnx_model, config.compare.threads))
    sides["onnx"] = onnx_side(session)
    for name in config.formats:
        logger.info("exporting to %s", name)
        with working(f"exporting to {name}"):
            saved = formats.save(name, model, form)
        program, load_ms = formats.reopen(name, saved)
        answers = parity(model, formats.runner(program), form, config.batch_sizes)
        check_parity(name, answers, config)
        files[formats.FILES[name]], sides[name] = saved, pytorch_side(program)
        report[name] = {"bytes": len(saved), "load_ms": load_ms, **answers}
    sizes = (1, config.compare.batch_size)
    one, many = (signature(model, loaders.samples("test", size), checkpoint).inputs for size in sizes)
    with working("timing the formats"):
        times = time_side_by_side(sides, one, many, config.compare)
    for name, figures in times.items():
        report[name] |= figures
    return files, {"machine": machine(config.compare.threads), "batch_size": config.compare.batch_size, **report}


def check_parity(what: str, report: dict[str, Any], config: ExportConfig) -> None:
    """InputError when an output differs from PyTorch's by more than the tolerance."""
    if not report["greatest_difference"] <= config.tolerance:  # NaN is not
        raise InputError(
            f"{what} differs from PyTorch by {report['greatest_difference']:.3g} in an output, more than "
            f"export.tolerance {config.tolerance:g}; nothing was written"
        )


def compare(
    before: Checkpoint,
    before_onnx: bytes,
    after_onnx: bytes,
    loaders: LoaderPlan,
    config: CompareConfig,
    after: Checkpoint | None = None,
) -> dict[str, Any]:
    """The report on two classifiers, the one after made of the one before; see comparison.compare_models."""
    from torchloom.compression.comparison import compare_models

    return compare_models((before, before_onnx), (after, after_onnx), loaders, config)
