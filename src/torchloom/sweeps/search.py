"""Sweeps: a task is trained with other values of its parameters again and again, and Optuna chooses which.

A trial is the task's own train stage. What comes of it is kept in a study, in a SQLite file that several processes
share and that later runs go on with.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import AbstractDataset
from kedro.pipeline.node import Node
from kedro.utils import find_kedro_project
from kedro.validation.type_extractor import TypeExtractor
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import BaseModel, Field, model_validator
from sqlalchemy.exc import DatabaseError

from torchloom.config import (
    DataConfig,
    DebuggingConfig,
    DimensionConfig,
    Named,
    PrunerConfig,
    SamplerConfig,
    SweepConfig,
    TrainConfig,
    direction,
)
from torchloom.config.checks import mistakes, one_of, refuse, unknown
from torchloom.errors import InputError
from torchloom.modalities import check_suits, suited
from torchloom.records.provenance import plain
from torchloom.runner import SkipUnchanged
from torchloom.system.devices import NoMemoryError, usable_cores
from torchloom.system.processes import Say, run_processes
from torchloom.system.progress import step_bar
from torchloom.system.words import counted
from torchloom.tasks import Task, pipeline_of, read_tasks
from torchloom.training.callbacks import calling_back
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan
from torchloom.training.loop import DivergedError

logger = logging.getLogger(__name__)

SWEPT = ("data", "model", "train")  # the blocks whose keys a sweep may draw
# Keys that would change what trials are compared by; all but the first only where that is the loss.
JUDGES = ("train.monitor", "train.loss", "train.divergence", "train.distill")
EXHAUSTED = "exhausted"  # of a study: by which sampler
WAIT = 60  # seconds for another process that writes into the study

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # such as metric names


@dataclass(frozen=True)
class Sweep:
    """A sweep as its processes need it: `parameters` are all of the project, `inputs` what else the train stage reads.

    `folder` is where the study lies, `study` its name.
    """

    config: SweepConfig
    parameters: Mapping[str, Any]
    folder: Path
    inputs: Mapping[str, AbstractDataset[Any, Any]]
    study: str = ""

    @property
    def task(self) -> str:
        return self.config.task


def search(config: SweepConfig, parameters: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Go on with the study of this sweep until it has all its trials; return them as rows, which name the study."""
    parameters = as_written(parameters)
    check(config, parameters)
    sweep = Sweep(config, parameters, folder, _prepare(config, parameters))
    sweep = replace(sweep, study=_study_name(sweep))
    with _stored(folder):
        study = _begin(sweep)
        with step_bar() as bar:
            told = _Teller(sweep, study, bar)
            if config.workers == 1:
                work(sweep, study, told)
            else:
                arguments = [(_shared(sweep),)] * min(config.workers, config.trials)
                with closing(run_processes(_work_in_process, arguments)) as numbers:
                    for number in numbers:
                        told(number)
        return _rows(sweep, study)


# ---- what the user wrote -------------------------------------------------------------------------------------------


def as_written(value: Any) -> Any:
    """Parameters as they were written: those that Kedro has made blocks of are mappings again."""
    if isinstance(value, Mapping):
        return {name: as_written(item) for name, item in value.items()}
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value


class _Sampler(SamplerConfig):
    @model_validator(mode="after")
    def _exists(self) -> _Sampler:
        names = [name for name in optuna.samplers.__all__ if name not in {"BaseSampler", "BaseGASampler"}]
        one_of(self.name, names, "a sampler of optuna.samplers")
        _create(optuna.samplers, self)
        return self


class _Pruner(PrunerConfig):
    @model_validator(mode="after")
    def _exists(self) -> _Pruner:
        one_of(self.name, set(optuna.pruners.__all__) - {"BasePruner"}, "a pruner of optuna.pruners")
        _create(optuna.pruners, self)
        return self


class _CheckedConfig(SweepConfig):
    """The block `sweep`, held to the Optuna that is installed."""

    sampler: _Sampler = Field(default_factory=_Sampler)
    pruner: _Pruner = Field(default_factory=_Pruner)


def _create(module: Any, choice: Named, **more: Any) -> Any:
    """The named sampler or pruner; `more` are arguments that it gets where it has them and the user gives none."""
    kind = getattr(module, choice.name)
    allowed = list(inspect.signature(kind).parameters)
    for name in choice.arguments:
        if name not in allowed:
            raise ValueError(f"{name}: {unknown(name, allowed)}")
    more = {name: value for name, value in more.items() if name in allowed}
    try:
        return kind(**{**more, **choice.arguments})
    except (TypeError, ValueError, ImportError) as error:
        raise ValueError(f"{choice.name} cannot be made: {error}") from error


def check(config: SweepConfig, parameters: Mapping[str, Any]) -> None:
    """InputError with all that is wrong with the block `sweep`, each end of a range and each choice included."""
    if DebuggingConfig.model_validate(parameters.get("debugging", {})).on:
        raise InputError("a sweep compares whole trainings: leave the block debugging, or its environment, out")
    refuse(mistakes({"sweep": as_written(config)}, {"sweep": _CheckedConfig}, set()))
    tasks = {name: task for name, task in read_tasks(parameters).items() if f"{name}.train" in _types(task)}
    if config.task not in tasks:
        raise InputError(f"sweep.task: given {config.task!r}; {unknown(config.task, tasks, 'task to train')}")
    expected = _types(tasks[config.task])
    problems = []
    for key, dimension in config.dimensions.items():
        block, _, rest = key.partition(".")
        place = f"sweep.space.{key}"
        known = [name for name in SWEPT if f"{config.task}.{name}" in expected]
        if not rest or block not in known:
            problems.append(f"{place}: must be a key in the blocks {', '.join(known)} of {config.task}")
        elif reason := _unsuited(key, expected[f"{config.task}.train"], parameters[config.task]):
            problems.append(f"{place}: {reason}")
        else:
            problems += _refused(place, key, dimension, tasks[config.task], parameters[config.task])
    refuse(problems)


def _unsuited(key: str, model: type[BaseModel], blocks: Mapping[str, Any]) -> str | None:
    """Why this key cannot be drawn although it is one; `model` is that of the block `train`."""
    if key == "data.include_validation":
        return "cannot be drawn: trials are compared on the validation split"
    training = model.model_validate(blocks["train"])
    assert isinstance(training, TrainConfig)
    judges = JUDGES if training.monitor == "loss" else JUDGES[:1]
    if any(f"{key}.".startswith(f"{judge}.") for judge in judges):
        return f"cannot be drawn: it would change what trials are compared by (train.monitor: {training.monitor})"
    return None


def _refused(place: str, key: str, dimension: DimensionConfig, task: Task, blocks: Mapping[str, Any]) -> Iterator[str]:
    """What the schema says against the values that `dimension` can take."""
    values = {f"choices.{number}": value for number, value in enumerate(dimension.choices or [])}
    for name, value in (values or {"low": dimension.low, "high": dimension.high}).items():
        try:
            changed = put(blocks, {key: value})
        except InputError as error:
            yield f"{place}: {error.message}"
            return
        for problem in _own_mistakes(task, changed):
            yield f"{place}.{name}: {problem}"


def put(blocks: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a task's blocks with other values, by their keys; InputError where a key leads through no mapping."""
    copy: dict[str, Any] = json.loads(json.dumps(blocks))
    for key, value in values.items():
        *path, last = key.split(".")
        block = copy
        for part in path:
            if isinstance(block, dict) and block.get(part) is None:
                block[part] = {}
            block = block[_place(block, part)]
        block[_place(block, last)] = value
    return copy


def _place(block: Any, part: str) -> Any:
    """What a part of a key is in a block: of a list the number of an entry. InputError where there can be none."""
    if isinstance(block, list) and part.isdecimal() and int(part) < len(block):
        return int(part)
    if isinstance(block, dict):
        return part
    what = part if isinstance(block, list) else f"keys such as {part}"
    raise InputError(f"{block!r} has no {what}")


# ---- what a trial runs ---------------------------------------------------------------------------------------------


@cache
def train_node(task: Task) -> Node:
    """The train stage of a task; KeyError of one that trains nothing."""
    return {node.name: node for node in pipeline_of(task).nodes}[f"{task.name}.train"]


@cache
def _types(task: Task) -> dict[str, type[BaseModel]]:
    """The model of each typed block of the task, by its full key."""
    types: dict[str, Any] = TypeExtractor({task.name: pipeline_of(task)}).extract_types_from_pipelines()
    return {f"{task.name}.task": task.block, **types}


def _own_mistakes(task: Task, blocks: Mapping[str, Any]) -> list[str]:
    own = {name: model for name, model in _types(task).items() if name.startswith(f"{task.name}.")}
    return mistakes({task.name: blocks}, own, set())


def project_folder() -> Path:
    """The folder of the project that the process runs in."""
    folder: Path | None = find_kedro_project(Path.cwd())
    if folder is None:
        raise InputError("a sweep must be run in the project's folder")
    return folder


def _prepare(config: SweepConfig, parameters: Mapping[str, Any]) -> dict[str, AbstractDataset[Any, Any]]:
    """Make the task's data ready, in a process of its own; return what the train stage reads besides parameters."""
    arguments = (project_folder(), config.environment, config.task, parameters)
    with closing(run_processes(_prepare_in_process, [arguments])) as messages:
        return dict(next(messages))


def _prepare_in_process(
    project: Path, environment: str | None, task: str, parameters: Mapping[str, Any], say: Say
) -> None:
    bootstrap_project(project)
    given = {name: value for name, value in parameters.items() if name != "sweep"}
    for name in read_tasks(given):  # which no run can change
        given[name] = {key: value for key, value in given[name].items() if key != "task"}
    with KedroSession.create(project, env=environment, runtime_params=given) as session:
        session.run(  # type: ignore[call-arg]
            pipeline_names=[task], to_nodes=[f"{task}.build_dataloaders"], runner=SkipUnchanged()
        )
        catalog = session.load_context().catalog  # type: ignore[attr-defined]
        node = train_node(read_tasks(parameters)[task])
        names = [name for name in node.inputs if not name.startswith("params:")]
        say({name: catalog.get(name) for name in names})


@dataclass(frozen=True)
class Blocks:
    """The parameters of one trial: `inputs` by the names that the train stage has for them, `data` for its loaders."""

    inputs: dict[str, Any]
    data: DataConfig | None

    @property
    def training(self) -> TrainConfig:
        return next(block for block in self.inputs.values() if isinstance(block, TrainConfig))


def blocks_of(sweep: Sweep, values: Mapping[str, Any]) -> Blocks:
    """The parameters with these values; InputError when they do not go together."""
    name = sweep.task
    # several trials at once are what a sweep does with several processes
    parameters = {**sweep.parameters, name: put(sweep.parameters[name], values), "distributed": {}, "debugging": {}}
    task = read_tasks(parameters)[name]
    refuse(_own_mistakes(task, parameters[name]))
    types = _types(task)

    def block(key: str) -> Any:
        value: Any = parameters
        for part in key.split("."):
            value = value[part]
        return types[key].model_validate(value) if key in types else value

    names = [key for key in train_node(task).inputs if key.startswith("params:")]
    data = block(f"{name}.data") if f"{name}.data" in types else None
    return Blocks({key: block(key.removeprefix("params:")) for key in names}, data)


def train(sweep: Sweep, values: Mapping[str, Any]) -> Checkpoint:
    """Train with these values, and return the checkpoint that the task would keep."""
    blocks = blocks_of(sweep, values)
    inputs = dict(blocks.inputs)
    for name, dataset in sweep.inputs.items():
        inputs[name] = None if name.endswith("training_states") else dataset.load()
    plan = f"{sweep.task}.dataloaders"
    inputs[plan] = _planned(inputs[plan], blocks)
    task = read_tasks(sweep.parameters)[sweep.task]
    checkpoint: Checkpoint = train_node(task).run(inputs)[f"{sweep.task}.checkpoint"]
    return checkpoint


def _planned(plan: LoaderPlan, blocks: Blocks) -> LoaderPlan:
    """The loaders as they would be planned with these blocks, but always with a split to validate on."""
    update: dict[str, Any] = {"batch_size": blocks.training.batch_size, "seed": blocks.training.seed}
    update["data"] = (blocks.data or plan.data).model_copy(update={"include_validation": False})
    if plan.data.include_validation:
        *training, validation = plan.splits["train"]
        update["splits"] = {**plan.splits, "train": training, "validation": [validation]}
    return plan.model_copy(update=update)


# ---- the study -----------------------------------------------------------------------------------------------------


@contextmanager
def _stored(folder: Path) -> Iterator[None]:
    """InputError when the file of the studies cannot be read or written."""
    try:
        yield
    except (DatabaseError, StorageInternalError) as error:
        cause = getattr(error if isinstance(error, DatabaseError) else error.__cause__, "orig", error)
        advice = "Make room or change its rights; if it is damaged, move it away, and the sweep starts anew"
        if "is locked" in str(cause):
            advice = "Another process holds it: end that, and repeat the command. What is finished is kept"
        raise InputError(f"{folder / 'study.db'}: cannot be used ({cause}). {advice}") from error


def open_study(folder: Path, name: str, direction: Any = None) -> Study:
    """The study of this name; with a direction, it is made when it is not there."""
    url = f"sqlite:///{folder / 'study.db'}"
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": WAIT}})
    except RuntimeError as error:  # its tables are those of another version
        older = "storage upgrade" in str(error)
        mend = f"Convert it: optuna storage upgrade --storage {url}" if older else "Update it: pip install -U optuna"
        raise InputError(
            f"{folder / 'study.db'}: is of {'an older' if older else 'a newer'} Optuna than {optuna.__version__}, "
            f"which is installed. {mend}; or move the file away, and the sweep starts anew"
        ) from error
    if direction is None:
        return optuna.load_study(study_name=name, storage=storage)
    return optuna.create_study(study_name=name, storage=storage, direction=direction, load_if_exists=True)


def _study_name(sweep: Sweep) -> str:
    """The task, and a digest of what makes its trials comparable: the space, the data and all other parameters."""
    blocks = blocks_of(sweep, {})
    plan: LoaderPlan = sweep.inputs[f"{sweep.task}.dataloaders"].load()
    _check_data(sweep.config, plan)
    planned = _planned(plan, blocks)
    if not planned.length("validation"):
        raise InputError(
            f"a sweep compares trials on a validation split, which the data of {sweep.task} do not have. "
            "Give preprocess.validation_fraction a value above 0"
        )
    fixed = {name.removeprefix(f"params:{sweep.task}."): plain(block) for name, block in blocks.inputs.items()}
    fixed["data"] = plain(planned.data)
    for key in sweep.config.dimensions:
        _leave_out(fixed, key)
    starts = [name for name in sweep.inputs if not name.startswith(f"{sweep.task}.")]
    recipe = {
        "space": {key: dimension.model_dump() for key, dimension in sweep.config.dimensions.items()},
        "fixed": fixed,
        "files": planned.recipe()["splits"],
        "starts": {name: sweep.inputs[name].load().fingerprint() for name in starts},
    }
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return f"{sweep.task}-{digest[:8]}"


def _check_data(config: SweepConfig, plan: LoaderPlan) -> None:
    """InputError when a key of the space is for other kinds of data."""
    for key in suited():
        if any(f"{name}.".startswith(f"{key}.") for name in config.dimensions):
            try:
                check_suits(key, plan.info)
            except InputError as error:
                raise InputError(f"sweep.space.{error.message}") from None
    if plan.data.include_validation:
        logger.info("data.include_validation is false in the trials, which are compared on the validation split")


def _leave_out(blocks: dict[str, Any], key: str) -> None:
    """What the task's own settings say of a key that is drawn does not matter."""
    *path, last = key.split(".")
    inner: Any = blocks
    for part in path:
        inner = inner.get(part) if isinstance(inner, dict) else None
    if isinstance(inner, dict):
        inner.pop(last, None)


def _begin(sweep: Sweep) -> Study:
    """The study, in which nothing is running: what an earlier run has left unfinished will be tried again."""
    training = blocks_of(sweep, {}).training
    monitor = training.monitor
    folder = sweep.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}). Make room or change its rights") from error
    better = f"{direction(monitor, training.rising)}imize"
    study = open_study(folder, sweep.study, better)
    study.set_metric_names([f"val_{monitor}"])
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)
    done = sum(map(_counts, study.get_trials(deepcopy=False)))
    logger.info("study %s in %s: trials done: %d of %d", sweep.study, folder, done, sweep.config.trials)
    return study


def _counts(trial: FrozenTrial) -> bool:
    """Whether the trial has come to an end of its own; what an interruption has ended is not counted."""
    return trial.state in {TrialState.COMPLETE, TrialState.PRUNED} or "reason" in trial.user_attrs


# ---- the trials ----------------------------------------------------------------------------------------------------


def work(sweep: Sweep, study: Study, say: Say) -> None:
    """Run trials until the study has all that it is to have, and say the number of each that has ended."""
    study.pruner = _create(optuna.pruners, sweep.config.pruner)
    # samplers that try all there is call it at the end, which Optuna takes from its own loop only
    study.stop = lambda: study.set_user_attr(EXHAUSTED, repr(sweep.config.sampler))  # type: ignore[method-assign]
    while trial := _ask(sweep, study):
        _run(sweep, study, trial)
        say(trial.number)


def _work_in_process(sweep: Sweep, say: Say) -> None:
    bootstrap_project(project_folder())  # for its logging
    with _stored(sweep.folder):
        work(sweep, open_study(sweep.folder, sweep.study), say)


def _shared(sweep: Sweep) -> Sweep:
    """The sweep for one of several workers: it takes its share of the cores, unless train.threads says otherwise."""
    if blocks_of(sweep, {}).training.threads:
        return sweep
    share = max(1, usable_cores() // sweep.config.workers)
    return replace(
        sweep, parameters={**sweep.parameters, sweep.task: put(sweep.parameters[sweep.task], {"train.threads": share})}
    )


def _ask(sweep: Sweep, study: Study) -> Trial | None:
    """The next trial; None when all have been tried or are being tried.

    The sampler is seeded anew for each trial, by how many there are before it: what it draws does not depend on
    whether the sweep was stopped in between.
    """
    distributions = {key: _distribution(dimension) for key, dimension in sweep.config.dimensions.items()}
    with FileLock(sweep.folder / "study.lock"):
        trials = study.get_trials(deepcopy=False)
        taken = sum(_counts(trial) or trial.state is TrialState.RUNNING for trial in trials)
        if taken >= sweep.config.trials:
            return None
        if study.user_attrs.get(EXHAUSTED) == repr(sweep.config.sampler):
            logger.info("the %s has nothing left to try", sweep.config.sampler.name)
            return None
        seed = int(np.random.SeedSequence([sweep.config.seed, taken]).generate_state(1)[0])
        study.sampler = _create(optuna.samplers, sweep.config.sampler, seed=seed)
        try:
            return study.ask(distributions)
        except ImportError as error:
            raise InputError(f"{sweep.config.sampler.name} needs {error.name}, which is not installed") from error


def _distribution(dimension: DimensionConfig) -> BaseDistribution:
    if dimension.choices is not None:
        return CategoricalDistribution(dimension.labels())
    low: Any
    high: Any
    low, high, step = dimension.low, dimension.high, dimension.step
    if dimension.whole:
        return IntDistribution(low, high, dimension.log, step or 1)
    return FloatDistribution(low, high, dimension.log, step)


def values_of(config: SweepConfig, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """What a trial has drawn, as the parameters have it: choices instead of their labels."""
    values = {}
    for key, value in drawn.items():
        dimension = config.dimensions[key]
        values[key] = dimension.choices[dimension.labels().index(value)] if dimension.choices is not None else value
    return values


class _UnfitError(InputError):
    """Values that do not go together."""


def _run(sweep: Sweep, study: Study, trial: Trial) -> None:
    """Train, and tell the study how it ended. InputError when it ended for what other values would not mend."""
    values = values_of(sweep.config, trial.params)
    try:
        value = _value(sweep, trial, values)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except (DivergedError, NoMemoryError, _UnfitError) as error:
        trial.set_user_attr("reason", error.message)
        study.tell(trial, state=TrialState.FAIL)
    except InputError as error:
        raise InputError(f"the sweep ends, as its trial with {_described(values)} did: {error.message}") from error
    else:
        study.tell(trial, value)


def _value(sweep: Sweep, trial: Trial, values: Mapping[str, Any]) -> float:
    """The validation figure of the checkpoint that the task would keep."""
    try:
        training = blocks_of(sweep, values).training
    except InputError as error:
        raise _UnfitError(error.message) from error
    with _quiet(), calling_back(partial(_watch, trial, training)):
        return float(train(sweep, values).training[f"val_{training.monitor}"])


def _watch(trial: Trial, training: TrainConfig, row: dict[str, float]) -> None:
    """The study sees each epoch of the training, and may end it unless it was the last."""
    trial.report(row[f"val_{training.monitor}"], int(row["epoch"]) - 1)  # pruners count from 0
    if row["epoch"] < training.epochs and trial.should_prune():
        raise optuna.TrialPruned


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what a training says of its epochs: a trial is one line."""
    levels = {"torchloom": logging.WARNING, "kedro.pipeline.node": logging.CRITICAL}
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


# ---- what is said of them ------------------------------------------------------------------------------------------


class _Teller:
    """Says how each trial has ended, in a line and on the bar."""

    def __init__(self, sweep: Sweep, study: Study, bar: Any) -> None:
        self.sweep, self.study, self.bar = sweep, study, bar
        done = sum(map(_counts, study.get_trials(deepcopy=False)))
        self.line = bar.add_task("sweep", total=sweep.config.trials, completed=done, status="")

    def __call__(self, number: int) -> None:
        trials = self.study.get_trials(deepcopy=False)
        done, best = sum(map(_counts, trials)), _best(self.study)
        status = f"best {best.value:.4f}, trial {best.number}" if best else "none has finished yet"
        logger.info(
            "%d of %d: trial %d %s  %s  (%s)",
            *(done, self.sweep.config.trials, number, _outcome(self.study, trials[number])),
            *(_described(values_of(self.sweep.config, trials[number].params)), status),
        )
        self.bar.update(self.line, completed=done, status=status)


def _best(study: Study) -> FrozenTrial | None:
    finished = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    return study.best_trial if finished else None


def _outcome(study: Study, trial: FrozenTrial) -> str:
    if trial.state is TrialState.FAIL:
        return f"failed: {trial.user_attrs.get('reason')}"
    ended = f"pruned after epoch {len(trial.intermediate_values)} at" if trial.state is TrialState.PRUNED else ""
    value = math.nan if trial.value is None else trial.value
    return " ".join([*filter(None, [ended]), *(study.metric_names or []), f"{value:.4f}"])


def _described(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()
    )


def _rows(sweep: Sweep, study: Study) -> list[dict[str, Any]]:
    """A row for each trial that has come to an end; InputError when not one of them has finished."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if _counts(trial)]
    if not _best(study):
        reasons = sorted({str(trial.user_attrs["reason"]) for trial in trials if "reason" in trial.user_attrs})
        raise InputError(
            f"of {counted(len(trials), 'trial')} of the study {sweep.study} none has finished: "
            + "; ".join([f"pruned: {sum(trial.state is TrialState.PRUNED for trial in trials)}", *reasons])
        )
    return [
        {
            "study": sweep.study,
            "trial": trial.number,
            "state": trial.state.name.lower(),
            (study.metric_names or ["value"])[0]: trial.value,
            "epochs": len(trial.intermediate_values),
            "seconds": round(trial.duration.total_seconds(), 2) if trial.duration else None,
            **{key: trial.params.get(key) for key in sweep.config.dimensions},
            "reason": trial.user_attrs.get("reason", ""),
        }
        for trial in trials
    ]
