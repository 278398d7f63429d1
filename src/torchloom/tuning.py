"""`kedro tune`: a task's training is made ready as for a run, and a few of its steps say how to set it.

Nothing of the task changes on the disk, but for what the tuning itself finds: tables and pictures among its reports.
"""

from __future__ import annotations

import inspect
import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.context import KedroContext
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from torchloom.config.checks import unknown
from torchloom.config.loader import as_yaml, newest_loader
from torchloom.errors import InputError
from torchloom.pipelines.training.nodes import Job, Prepared, at_hand, looked_at, settled, smaller_batches
from torchloom.records.provenance import Records, records_of
from torchloom.records.runs import as_text, flat
from torchloom.runner import SkipUnchanged
from torchloom.system.progress import step_bar
from torchloom.system.words import counted
from torchloom.tasks import Task, tasks_of

if TYPE_CHECKING:
    from torchloom.config import TrainConfig
    from torchloom.training.batch_size import Sizes, Tried

logger = logging.getLogger(__name__)

SPARED = {"judge"}  # parameters of stages that train: what they judge whole epochs by


# ---- the training that is tuned ------------------------------------------------------------------------------------


class Tuned:
    """A task whose training is ready to begin: `job` is what it would be told."""

    def __init__(self, name: str, env: str | None, params: Mapping[str, Any]) -> None:
        self.name, self.env, self.params = name, env, params
        with KedroSession.create(env=env, runtime_params=dict(params)) as session:
            self.context: KedroContext = session.load_context()  # type: ignore[attr-defined]
            self.conf = newest_loader()
            self.task = _tunable(name)
            self.catalog = self.context.catalog
            self.records: Records = records_of(self.catalog)
            self.pipeline: Pipeline = pipelines[name]
            _prepare(self, session)
        self.job = self._job()

    def _job(self) -> Job:
        nodes = {node.name: node for node in self.pipeline.nodes}
        build, train = (nodes[f"{self.name}.{stage}"] for stage in ("build_dataloaders", "train"))
        plan = build.func(*self._inputs(build))
        given = {f"{self.name}.dataloaders": plan, f"{self.name}.training_states": None}
        try:
            with looked_at():
                train.func(*self._inputs(train, given))
        except Prepared as prepared:
            return prepared.job
        raise AssertionError("a stage that trains asks for a training")

    def _inputs(self, node: Node, given: Mapping[str, Any] | None = None) -> list[Any]:
        given = {**dict.fromkeys(_spared(node)), **(given or {})}
        return [given[name] if name in given else self._load(name) for name in node.inputs]

    def _load(self, name: str) -> Any:
        value, kind = self.catalog.load(name), self.records.kinds.get(name.removeprefix("params:"))
        return kind.model_validate(value) if kind and isinstance(value, dict) else value

    def save(self, name: str, table: list[dict[str, Any]], figure: Any) -> str:
        """Write both to where the catalog has them; a line that says where."""
        self.catalog.save(f"{self.name}.{name}", table)
        self.catalog.save(f"{self.name}.{name}_plot", figure)
        places = [self.catalog.get(f"{self.name}.{each}")._filepath for each in (f"{name}_plot", name)]
        return f"written to {places[0]} and {places[1]}"

    def commands(self, settings: Mapping[str, Any]) -> list[str]:
        """The lines that train with these settings of the block `train`, those of which that are lists from a file."""
        block = {self.name: {"train": settings}}
        given, found = dict(flat(self.params)), dict(flat(block))
        if not any(isinstance(value, list) for value in found.values()):
            return [self._command({**given, **found})]
        file = f"{Path(self.conf.conf_source).name}/{self.conf.env or self.conf.default_run_env}/parameters"
        return [
            f"--params has no room for lists; these lines go into {file}/{self.name}.yml:",
            "",
            as_yaml(block),
            self._command({key: value for key, value in given.items() if key not in found}),
        ]

    def _command(self, params: Mapping[str, Any]) -> str:
        where = f" --env {self.env}" if self.env else ""
        said = shlex.quote(",".join(f"{key}={_in_yaml(value)}" for key, value in params.items()))
        return f"  kedro run{where} --pipelines {self.name}" + (f" --params {said}" if params else "")


def _in_yaml(value: Any) -> Any:
    return "null" if value is None else value


def _tunable(name: str) -> Task:
    tasks = tasks_of(newest_loader())
    if name not in tasks:
        raise InputError(f"{name}: {unknown(name, tasks, 'task')}")
    task = tasks[name]
    if not task.recipe.tunable:
        other = next((f"; tune {base}" for key, base in task.sources if key != "data"), "")
        raise InputError(f"{name}: {task.choice} is not one training whose settings could be looked for{other}")
    return task


def _prepare(tuned: Tuned, session: Any) -> None:
    """Run the stages before `build_dataloaders` where what they would make is not there; InputError where others make
    it."""
    build = f"{tuned.name}.build_dataloaders"
    before = Pipeline([node for node in tuned.pipeline.to_nodes(build).nodes if node.name != build])
    if any(tuned.records.stale(node, tuned.catalog) for node in before.nodes):
        last = [node.name for node in before.nodes if node.outputs and set(node.outputs) & before.outputs()]
        logger.info("the data come first: kedro run --pipelines %s --to-nodes %s", tuned.name, ",".join(last))
        session.run(pipeline_names=[tuned.name], to_nodes=last, runner=SkipUnchanged())
    nodes = {node.name: node for node in tuned.pipeline.nodes}
    made = {name for node in tuned.pipeline.nodes for name in node.outputs} - before.all_outputs()
    train = nodes[f"{tuned.name}.train"]
    for name in sorted({*nodes[build].inputs, *train.inputs} - made - _spared(train)):
        if not name.startswith("params:") and not tuned.catalog.exists(name):
            maker = name.partition(".")[0]
            where = f" --env {tuned.env}" if tuned.env else ""
            raise InputError(f"{name}: is not there yet. Make it first: kedro run{where} --pipelines {maker}")


def _spared(node: Node) -> set[str]:
    """The inputs of a stage that its first steps can do without."""
    return {
        name
        for name, parameter in zip(node.inputs, inspect.signature(node.func).parameters, strict=False)
        if parameter in SPARED
    }


# ---- the learning rate ---------------------------------------------------------------------------------------------


def tune_rate(task: str, env: str | None, params: Mapping[str, Any], start: float, end: float, steps: int) -> str:
    """The learning-rate range test of a task: what it has found, in words. See training/range_test.py."""
    from torchloom.system.devices import enough_memory
    from torchloom.system.figures import lr_range
    from torchloom.training.distribution import ALONE
    from torchloom.training.range_test import range_test, rates_between

    tuned = Tuned(task, env, params)
    job = settled(tuned.job, ALONE)
    advice = smaller_batches(job.config)
    with step_bar() as bar, enough_memory(advice), at_hand(job, ALONE) as (model, config, device, dtype):
        shown = bar.add_task("learning rate", total=steps, status="")

        def watch(step: int, rate: float, loss: float) -> None:
            bar.update(shown, completed=step, status=f"lr {rate:.2e}  loss {loss:.4g}")

        loader, rates = job.loaders.loader("train", device), rates_between(start, end, steps)
        found = range_test(model, loader, config, job.objective(), device, dtype, rates, watch)
    suggestion, rows = found.suggestion(), found.rows()
    place = tuned.save("lr_range", rows, lr_range(rows, suggestion))
    last = f"{found.rates[-1]:.2g}"
    ended = f"the loss diverged at {last}" if found.diverged else f"the loss did not diverge up to {last}"
    lines = [f"{task}: {counted(len(rows), 'step')} from {start:.2g} on; {ended}"]
    return "\n".join([*lines, *_suggested_rate(tuned, suggestion), place])


def _suggested_rate(tuned: Tuned, rate: float | None) -> list[str]:
    from torchloom.training.optimizers import rates_of, with_rate

    if rate is None:
        return ["there is no rate at which it fell by more than its noise: try more --steps, or a lower --start"]
    config = tuned.job.config
    now, *others = rates_of(config)
    said = f"suggested: {rate:.2g}, the middle between the steepest descent of the loss and its lowest place"
    apart = "; groups with rates of their own were at their distance from it" if set(others) - {now} else ""
    return [f"{said}; now it is {now:.2g}{apart}", *tuned.commands(with_rate(config, float(f"{rate:.2g}")))]


# ---- the size of batches -------------------------------------------------------------------------------------------


def tune_batches(task: str, env: str | None, params: Mapping[str, Any], most: int | None, seconds: float) -> str:
    """The largest batches of a task that fit, the fastest and those to take, in words. See training/batch_size.py."""
    from torchloom.system.figures import batch_sizes
    from torchloom.training.batch_size import FEWEST, Trial, explore
    from torchloom.training.distribution import ALONE

    tuned = Tuned(task, env, params)
    job, config = tuned.job, tuned.job.config
    samples = len(job.loaders.trained_numbers())
    most = min(most or samples, samples)
    with step_bar() as bar, at_hand(job, ALONE) as (model, tuned_config, device, dtype):
        shown = bar.add_task("batches", total=None, status="")
        trial = Trial(model, job.loaders, tuned_config, job.objective(), device, dtype)

        def attempt(size: int, before: list[Tried]) -> Tried | None:
            last = f"{before[-1].rate:,.0f} samples/s" if before else ""
            bar.update(shown, completed=len(before), status=f"of {size}  {last}")
            return trial(size, before)

        sizes = explore(attempt, most, seconds)
        now = sizes.also(attempt, min(config.batch_size, samples)) if config.batch_size != "auto" else None
    effective = config.batch_size * config.accumulate if isinstance(config.batch_size, int) else None
    limit, what = max(1, samples // (FEWEST * config.accumulate)), "leaves ten steps an epoch"
    if effective and config.accumulate > 1:
        limit, what, now = effective, "has no more samples than a step now", None
    found = sizes.suggested(limit)
    words = [_why(sizes, found, limit, what), *_said_if_slower(found, now, samples // config.accumulate)]
    rows = [row_of(each) for each in sizes.tried]
    place = tuned.save("batch_sizes", rows, batch_sizes(rows, found.batch_size))
    table = as_text([{name: f"{value:,}" for name, value in row.items()} for row in rows])
    return "\n".join([table, "", *_said_of_sizes(sizes), *_suggested_size(tuned, found, effective, words), place])


def row_of(tried: Tried) -> dict[str, Any]:
    return {
        "batch_size": tried.batch_size,
        "samples_per_second": round(tried.rate),
        "step_ms": round(1000 * tried.seconds, 2),
        "memory_MB": round(tried.memory / 1e6),
    }


def _said_of_sizes(sizes: Sizes) -> list[str]:
    largest, fastest = sizes.tried[-1].batch_size, sizes.fastest
    reasons = {
        "memory": f"the largest that fits into the memory; {sizes.too_large} did not",
        "samples": "the largest that was to be tried, and fits",
        "time": "the largest that was tried, as its step took long",
    }
    return [f"{largest}: {reasons[sizes.ended]}", f"{fastest.batch_size}: the fastest"]


def _why(sizes: Sizes, found: Tried, limit: int, what: str) -> str:
    """Why that is the size to take, which may be far from the fastest of all where there is a limit."""
    from torchloom.training.batch_size import NEARLY

    if found.batch_size > limit:
        return f"the fewest samples that were tried; none {what}"
    if found.rate >= NEARLY * sizes.fastest.rate:
        return "the fewest samples at 95 % of that speed or more"
    return f"at {_share(found, sizes.fastest)} of that speed, the fewest samples at 95 % of the fastest that {what}"


def _said_if_slower(found: Tried, now: Tried | None, samples: int) -> list[str]:
    """What the size that was found loses, and what that is for; nothing where it loses nothing."""
    if now is None or found.rate >= now.rate:
        return []
    steps = [counted(max(1, samples // each.batch_size), "step") for each in (found, now)]
    speeds = f"{_share(found, now)} of the speed of {now.batch_size}, which it is now"
    return [f"{found.batch_size}: slower, at {speeds}; an epoch has {steps[0]}, now {steps[1]}"]


def _share(one: Tried, other: Tried) -> str:
    return f"{100 * one.rate / other.rate:.0f} %"


def _suggested_size(tuned: Tuned, found: Tried, effective: int | None, words: list[str]) -> list[str]:
    """The size to take, with as many batches accumulated as make up the samples of a step that there were before."""
    config, size, groups = tuned.job.config, found.batch_size, 1
    if effective and config.accumulate > 1:
        groups = next(each for each in range(1, effective + 1) if effective % each == 0 and effective // each <= size)
        size = effective // groups
    about = "" if size == found.batch_size else f"close to {found.batch_size}: "
    lines = [f"{size}: suggested, {about}{words[0]}", *words[1:]]
    settings: dict[str, Any] = {"batch_size": size}
    if effective and config.accumulate > 1:
        settings["accumulate"] = groups
    lines += tuned.commands(settings)
    if effective and size * groups != effective:
        lines.append(f"a hint: {_scaled(config, size * groups / effective)}, or see kedro tune lr")
    return lines


def _scaled(config: TrainConfig, times: float) -> str:
    """The rate for steps of so many times the samples, in words."""
    from torchloom.training.optimizers import rates_of, said_of_scaling, scaled_rate, with_rate

    said, (rate, *others) = said_of_scaling(config.optimizer.name), rates_of(config)
    scaled = scaled_rate(config.optimizer.name, rate, times)
    if not scaled:
        return said
    key, value = next(flat(with_rate(config, float(f"{scaled:.2g}"))))
    alike = ", and those of its groups alike" if set(others) - {rate} and not isinstance(value, list) else ""
    return f"{said}: train.{key}={value}{alike}"
