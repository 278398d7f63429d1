"""A run of a pipeline, from its beginning to its end: locks are taken, records kept, the outcome summed up.

All of it is about our own nodes; those of a user's own run as Kedro runs them, beside ours or alone.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.project import pipelines
from kedro.io import AbstractDataset, DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from torchloom.config import DebuggingConfig, TrackingConfig
from torchloom.datasets.exports import ExportsDataset
from torchloom.errors import InputError
from torchloom.problems import problem_of
from torchloom.records.provenance import RecordFolders, Records, fingerprint, records_of
from torchloom.records.runs import RunRecord, device, flat, in_words, peak_memory, seeds, shown_figures, training_rate
from torchloom.records.tracking import Tracking
from torchloom.system.files import NOTHING, Stamp, put, remove, stamp
from torchloom.system.locks import Locks
from torchloom.system.words import meant, times
from torchloom.training.callbacks import epoch_callbacks
from torchloom.training.state import TrainingStates

logger = logging.getLogger(__name__)

PARAMETERS = ("params:", "parameters")  # how inputs begin that are such
ANSWERS = "predict.predict"  # the node whose outputs are answers about a user's own data
PREVIOUS = "previous"  # the folder beside them with those of the run before, until there are new ones
BEFORE = {"build_dataloaders", "partition"}  # stages of a task in which there is nothing to track yet


class Run:
    """A run of a pipeline: its locks, its record, and the records of the nodes that it runs."""

    def __init__(
        self,
        run_params: dict[str, Any],
        pipeline: Pipeline,
        catalog: DataCatalog,
        context: KedroContext,
    ) -> None:
        self.started = time.perf_counter()
        self.id, self.catalog = str(run_params["run_id"]), catalog
        self.env, self.names = run_params["env"], run_params["pipeline_names"] or ["__default__"]
        self.records: Records = records_of(catalog)
        self.pipeline = self.records.ours(pipeline.nodes)
        self.taken = self.pipeline.inputs() & pipeline.inputs()  # what they take that no node of this run makes
        self.descriptions: dict[str, dict[str, Any]] = {}
        self.node_started: dict[str, float] = {}
        self.answers: dict[str, str | None] = {}  # of this run, as far as they are saved
        self.aside: dict[str, Stamp] = {}  # those of the run before that are put away, by their paths
        self.whole = self.records.ours(node for each in pipelines.values() for node in each.nodes)
        self.readers = _readers(self.whole)
        self.tasks = sorted({node.namespace for node in self.pipeline.nodes if node.namespace} - self.readers.keys())
        folders = self.records.folders
        _check_debugging(self.records.parameters, folders)
        tracking = TrackingConfig.model_validate(self.records.parameters["tracking"])
        self.tracking = Tracking(tracking, _path(catalog, "tracking"), context)
        self.locks = Locks(folders.data / "locks")
        # a run whose results lie elsewhere does not wait for one that may take hours
        apart = f"@{folders.results.parent.name}" if folders.results != folders.data else ""
        self.own_locks = [f"{task}{apart}" for task in self.tasks]
        try:
            for name in self.own_locks:
                self.locks.wait_for(name)
            try:
                self._check_made()
            except InputError:
                self._make_way()  # as after each run of `predict` that fails
                raise
            self._warn_of_stale()
            self.record = RunRecord(folders.results / "runs", self.id, self._asked(run_params))
        except BaseException:
            self.locks.release()
            raise

    def _asked(self, run_params: dict[str, Any]) -> dict[str, Any]:
        """What the record says of a run that has only begun."""
        names = {name for name in self.taken if not name.endswith(".lineage")}  # which the run itself makes
        parameters = self.records.parameters
        used = {name.partition(":")[2].partition(".")[0] for name in names if name.startswith("params:")}
        settings = {name: parameters[name] for name in sorted(used) if name in parameters}
        return {
            "environment": run_params["env"],
            "pipelines": run_params["pipeline_names"] or ["__default__"],
            "tasks": self.tasks,
            "parameters": settings,
            "inputs": {
                name: fingerprint(self.catalog, name) for name in sorted(names) if not name.startswith("params:")
            },
            "seeds": dict(seeds(settings)),
        }

    def _warn_of_stale(self) -> None:
        """Say so when this run builds upon what the project would now make otherwise."""
        lines = dict(self.records.stale_before(self.pipeline, self.whole, self.catalog))
        if lines:
            first = next(iter(lines))
            logger.warning(
                "this run builds upon files that are not what the project would make now:\n%s\nTo make them anew, %s",
                "\n".join(f"  {node}: {'; '.join(reasons)}" for node, reasons in lines.items()),
                self._anew(first),
            )

    def _anew(self, node: str) -> str:
        """How to run the node and what comes after it: in the pipelines of this run, or in those of their own."""
        if any(node in {each.name for each in pipelines[name].nodes} for name in self.names):
            return f"run from there: --from-nodes {node}"
        return f"run {self._run_of(_pipeline_of(node))} first"

    def _run_of(self, pipeline: str) -> str:
        return " ".join(["kedro run", *(["--env", self.env] if self.env else []), "--pipelines", pipeline])

    def _check_made(self) -> None:
        """InputError when what another pipeline makes, and this run takes, is not there, or what nothing makes."""
        made_here = {node.namespace for node in self.pipeline.nodes if node.namespace} | self.readers.keys()
        makers = {name: node for each in pipelines.values() for node in each.nodes for name in node.outputs}
        for name in sorted(name for name in self.taken if not name.startswith(PARAMETERS)):
            maker = makers.get(name)
            if name not in self.catalog:
                asked = (f"{key} " for key, value in flat(self.records.parameters) if value == name)
                key = next((each for each in asked if each.endswith("entry ")), "")
                raise InputError(f"{key}{name}: {self._not_kept(name, maker)}")
            if maker and maker.namespace not in made_here and not self._is_there(name):
                raise InputError(f"{name}: is not there yet. Make it first: {self._run_of(_pipeline_of(maker.name))}")
            if check := getattr(self.catalog.get(name), "check", None):  # of a file that the user names
                check()

    def _is_there(self, name: str) -> bool:
        """Whether there is something to load, as far as the entry can tell."""
        entry: Any = self.catalog.get(name)
        cannot_tell = type(entry)._exists is AbstractDataset._exists
        return cannot_tell or self.catalog.exists(name)

    def _not_kept(self, name: str, maker: Node | None) -> str:
        """Why an entry that the catalog does not have is not there, and what to do."""
        if maker is None:
            known = [each for each in self.catalog.keys() if not each.startswith(PARAMETERS)]
            return f"the catalog has no such entry{meant(name, known)}. Add it to a catalog.yml, or name another one"
        together = self._run_of(",".join([_pipeline_of(maker.name), *self.names]))
        return f"is not kept: the catalog has no such entry. Add it to a catalog.yml, or make it in one run: {together}"

    def begin(self, node: Node) -> None:
        if node.namespace not in self.records.namespaces:
            return
        self.node_started[node.name] = time.perf_counter()
        if node.namespace in self.readers:
            self.locks.wait_for(node.namespace)
            self._reserve(node)
        if node.namespace == "predict":
            self._make_way()
        self.descriptions[node.name] = self.records.describe(node, self.catalog)
        task = str(node.namespace)
        if self.tracking.tracker and task in self.records.tasks and not node.tags & BEFORE:
            self._track(node)

    def _track(self, node: Node) -> None:
        """Show the tracker the task whose stage begins; a training that goes on has the run that it had."""
        task, parameters = str(node.namespace), self.records.parameters
        data = [name for name, tasks in self.readers.items() if task in tasks]
        states = self.catalog.load(f"{task}.training_states")
        begun = isinstance(states, TrainingStates) and bool(states.newest())
        known = {**parameters[task], **{name: parameters[name] for name in data}}
        anew = bool(node.tags & {"train", "quantize"}) and not begun
        self.tracking.begin(task, anew, _as_strings(known), _as_strings(self._tags(task)))
        if "train" in node.tags:
            epoch_callbacks.set((*epoch_callbacks.get(), self.tracking.watch))

    def _tags(self, task: str) -> dict[str, Any]:
        """What a tracker's run of the task is told of where it comes from."""
        names = {name for node in self.whole.nodes if node.namespace == task for name in node.inputs}
        outside = {name for name in names if not name.startswith(("params:", f"{task}."))}
        record = self.record.values
        return {
            **{name: record[name] for name in ("environment", "command", "run", "git")},
            "data": {name: fingerprint(self.catalog, name) for name in sorted(outside)},
        }

    def _reserve(self, node: Node) -> None:
        """Before prepared data change, take the locks of all tasks that read them; InputError when one is running."""
        if not any(fingerprint(self.catalog, name) for name in node.outputs):
            return
        reasons = self.records.stale(node, self.catalog)
        for task in self.readers[str(node.namespace)] if reasons else ():
            for name in [task, *self.locks.known(f"{task}@*")]:
                if not self.locks.take(name):
                    raise InputError(
                        f"{node.name} would change data that {name} is being run on, by {self.locks.holder(name)}. "
                        f"Wait until it is over. What would change them: {'; '.join(reasons)}"
                    )

    def _make_way(self) -> None:
        """See to it that no answers of another run lie where this run has not made its own.

        Those of the run before are put into a folder beside them, halves of a run that did not end well go, and what
        somebody has worked on is kept under another name.
        """
        node = next((node for node in self.pipeline.nodes if node.name == ANSWERS), None)
        if node is None or len(self.answers) == len(node.outputs):
            return
        record = self.records.read(node) or {"outputs": {}}
        self.aside = {path: tuple(stamped) for path, stamped in record.get("aside", {}).items()}
        for name, path, found in self._there(node):
            aside = path.parent / PREVIOUS / path.name
            try:
                if found != record["outputs"].get(name):
                    path.rename(kept := _free(path))
                    logger.warning("%s: is not as it was written, and is kept as %s", path, kept.name)
                elif record.get("begun"):
                    remove(path)
                else:
                    self._keep_if_worked_on(aside)
                    put(path, aside)
                    self.aside[str(aside)] = stamp(aside)
            except OSError as error:
                raise InputError(
                    f"{path}: cannot be put away into {aside.parent} ({error.strerror}). Rename what is in its way, or "
                    "change the rights of the folder"
                ) from error
        self.records.begin(node, {}, self.aside)

    def _there(self, node: Node) -> Iterator[tuple[str, Path, str]]:
        """The outputs of the node that lie on the disk, with what their contents are told by."""
        for name in node.outputs:
            path = getattr(self.catalog.get(name), "_filepath", None)
            if path and (found := fingerprint(self.catalog, name)) not in {None, NOTHING}:
                yield name, Path(str(path)), found

    def _keep_if_worked_on(self, path: Path) -> None:
        """Keep under another name what lies where answers are put away, if it is not as it was put there."""
        if os.path.lexists(path) and self.aside.get(str(path)) != stamp(path):
            path.rename(kept := _free(path))
            logger.warning("%s: is not as it was put away, and is kept as %s", path, kept.name)

    def _forget_previous(self) -> None:
        """Remove the answers of the run before, but not what somebody has worked on, nor anything else there."""
        for path in map(Path, self.aside):
            self._keep_if_worked_on(path)
            remove(path)
            with suppress(OSError):  # of others' files
                path.parent.rmdir()
        self.aside = {}

    def saved(self, name: str, node: Node) -> None:
        """One output of the node is."""
        if node.namespace not in self.records.namespaces:
            return
        if node.name == ANSWERS:
            self.answers[name] = fingerprint(self.catalog, name)
            whole = len(self.answers) == len(node.outputs)
            self.end(node) if whole else self.records.begin(node, self.answers, self.aside)
        elif name == node.outputs[-1]:
            self.end(node)

    def end(self, node: Node) -> None:
        """All outputs are saved."""
        seconds = round(time.perf_counter() - self.node_started[node.name], 3)
        self.record.values["nodes"][node.name] = seconds
        end = datetime.now().astimezone().isoformat(timespec="milliseconds")
        circumstances = {"run": self.id, "end": end, "seconds": seconds, "device": device(), "peak": peak_memory()}
        self.records.write(node, self.catalog, self.descriptions.pop(node.name), circumstances)
        for name in node.inputs:
            if not name.startswith("params:"):
                states = self.catalog.load(name) if name.endswith("training_states") else None
                if isinstance(states, TrainingStates):
                    # the training is over, and what came of it is safe
                    states.clear(keep=int(self._keeps_state(str(node.namespace))))
        if node.name == ANSWERS:
            self._forget_previous()
        self._stop_watching()
        if self.tracking.task == node.namespace:
            self._show(node)
        if node.namespace in self.readers:
            self.locks.release(*(self.locks.held.keys() - set(self.own_locks)))

    def _keeps_state(self, task: str) -> bool:
        key = f"params:{task}.train"  # which a task of folds does not have
        return key in self.catalog and bool(getattr(self.catalog.load(key), "keep_state", False))

    def _show(self, node: Node) -> None:
        """Show the tracker what the stage has left: its files, and the figures on the test split."""
        for name in node.outputs:
            dataset, short = self.catalog.get(name), name.partition(".")[2]
            if isinstance(dataset, ExportsDataset):
                for path in dataset.load().values():
                    self.tracking.keep(short, path)
            elif short != "last_checkpoint":
                self.tracking.keep(short, _path(self.catalog, name))
            if short == "metrics":
                self.tracking.results(self.catalog.load(name))
            elif short == "history":  # of which a run that was killed may have kept some to itself
                for row in self.catalog.load(name):
                    self.tracking.watch(row)

    def _stop_watching(self) -> None:
        epoch_callbacks.set(tuple(callback for callback in epoch_callbacks.get() if callback != self.tracking.watch))

    def summary(self) -> list[str]:
        """What the run made and where it lies."""
        lines = [f"finished in {time.perf_counter() - self.started:.0f} s"]
        made = self.pipeline.all_outputs()
        for task in sorted({name.partition(".")[0] for name in made if "." in name}):
            lines += _summary(task, made, self.catalog)
        return lines

    def finish(self, ended: str, **more: Any) -> None:
        self._stop_watching()
        if ended != "finished":
            try:
                self._make_way()
            except InputError as error:  # on a full disk, say; why the run failed matters more
                logger.warning("answers of a run before may be left: %s", error.message)
        self.tracking.end(ended)
        done = self.record.values["nodes"]
        outputs = {name for node in self.pipeline.nodes if node.name in done for name in node.outputs}
        try:
            self.record.finish(
                ended,
                outputs={name: fingerprint(self.catalog, name) for name in sorted(outputs)},
                results={task: _results(task, outputs, self.catalog) for task in self.tasks},
                curves={task: _curves(task, outputs, self.catalog) for task in self.tasks},
                **more,
            )
        except InputError as error:  # on a full disk; what else the run came to matters more
            logger.warning("the record of this run lacks its end: %s", error.message)
        finally:
            self.locks.release()


def _pipeline_of(node: str) -> str:
    """The smallest pipeline that has the node of that name."""
    with_it = {name: each for name, each in pipelines.items() if node in {one.name for one in each.nodes}}
    return str(min(with_it, key=lambda name: len(with_it[name].nodes)))


def _check_debugging(parameters: Mapping[str, Any], folders: RecordFolders) -> None:
    """InputError when models for debugging would take the places of trained ones."""
    if folders.results == folders.data and DebuggingConfig.model_validate(parameters["debugging"]).on:
        raise InputError(
            f"debugging: what a short run leaves would overwrite the results in {folders.results.parent}. Take "
            "--env debug, overfit or profile, or an environment whose globals.yml has a folder `results` of its own"
        )


def _as_strings(values: Mapping[str, Any]) -> dict[str, str]:
    """Nested values by their full keys, as a tracker shows them."""
    return {name: value if isinstance(value, str) else json.dumps(value, default=str) for name, value in flat(values)}


def _readers(whole: Pipeline) -> dict[str, list[str]]:
    """The data sets, and the tasks that read what their preprocessing makes."""
    data = {node.namespace for node in whole.nodes if "preprocess" in node.tags}
    makers = {name: node.namespace for node in whole.nodes if node.namespace in data for name in node.outputs}
    readers: dict[str, set[str]] = {}
    for node in whole.nodes:
        for name in node.inputs:
            maker = makers.get(name)
            if maker and node.namespace and maker != node.namespace:
                readers.setdefault(maker, set()).add(node.namespace)
    return {maker: sorted(names) for maker, names in readers.items()}


def _results(task: str, made: set[str], catalog: DataCatalog) -> dict[str, Any]:
    """The test figures of a task and the speed of its training, as far as the run has made them."""
    results: dict[str, Any] = {}
    if f"{task}.comparison" in made:
        results["accuracy"] = catalog.load(f"{task}.comparison")["after"]["accuracy"]
    if f"{task}.metrics" in made:
        results |= catalog.load(f"{task}.metrics")
    if f"{task}.history" in made:
        results["samples_per_second"] = training_rate(catalog.load(f"{task}.history"))
    return results


def _curves(task: str, made: set[str], catalog: DataCatalog) -> dict[str, list[float]]:
    """The losses by epoch, if the run has trained the task; of very long trainings not each epoch."""
    history = catalog.load(f"{task}.history") if f"{task}.history" in made else []
    rows = history[:: len(history) // 200 + 1]
    names = [name for name in ("epoch", "train_loss", "val_loss") if rows and name in rows[0]]
    return {name: [float(f"{row[name]:.5g}") for row in rows] for name in names}


def _summary(task: str, made: set[str], catalog: DataCatalog) -> list[str]:
    """The lines about one task: its test figures, then the files by kind."""
    lines = [task]
    if f"{task}.metrics" in made:
        metrics = json.loads(_path(catalog, f"{task}.metrics").read_text())
        lines[0] = "  ".join([task, *in_words(metrics)])
        lines += [f"  {remark}" for remark in _remarks(task, metrics, catalog)]
    scores = catalog.load(f"{task}.scores") if f"{task}.scores" in made else {}
    if scores:  # of answers that come with the truth
        lines[0] = "  ".join([task, *(f"{name} {value}" for name, value in shown_figures(scores).items())])
    if f"{task}.unreadable" in made and (lost := len(catalog.load(f"{task}.unreadable"))):
        lines.append(f"  {lost:,} unreadable, see {_relative(_path(catalog, f'{task}.unreadable'))}")
    if f"{task}.comparison" in made:
        lines.append(f"  {_compared(catalog.load(f'{task}.comparison'))}")
    formats = catalog.load(f"{task}.formats") if f"{task}.formats" in made else {}
    profile = catalog.load(f"{task}.profile") if f"{task}.profile" in made else {}
    unwritten = {f"{task}.formats", f"{task}.profile"}
    own = [name for name in sorted(made - unwritten) if name.startswith(f"{task}.")]
    paths = [_path(catalog, name) for name in own if hasattr(catalog.get(name), "_filepath")]  # a user's may have none
    paths = [path for path in paths if path.exists()]  # what has nothing to say is not written
    kinds = {
        "page": [path for path in paths if path.suffix == ".html"],
        "card": [path for path in paths if path.suffix == ".md"],
        "answers": [path for path in paths if path.parent.name == "predict" and path.suffix in {".csv", ".parquet"}],
        "metrics": [_path(catalog, f"{task}.scores")] if scores else [],
        "model": [
            *(path for path in paths if path.parent.parent.name == "06_models" and path.suffix != ".md"),
            *formats.values(),
        ],
        "reports": [path for path in paths if path.suffix in {".json", ".csv", ".txt"} and _is_report(path)],
        "pictures": [path for path in paths if path.suffix == ".png"],
        "profile": [*profile.values()],
    }
    for kind, found in kinds.items():
        if found:
            lines.append(f"  {kind + ':':<10}" + "  ".join(_relative(path) for path in found))
    return lines


def _remarks(task: str, metrics: dict[str, Any], catalog: DataCatalog) -> Iterator[str]:
    """What must be said first of the task's model and its figures; where there are several, as of folds, nothing."""
    if catalog.exists(f"{task}.checkpoint"):
        problem = problem_of(catalog.load(f"{task}.checkpoint").problem)
        scale = problem.scale(metrics, catalog.load(f"{task}.lineage").judges)
        yield from filter(None, [problem.doubt(metrics), scale])


def _compared(report: dict[str, Any]) -> str:
    """What a smaller model has lost and won."""
    before, after, change = report["before"], report["after"], report["change"]
    parts = [
        f"test accuracy {before['accuracy']:.4f} -> {after['accuracy']:.4f}",
        times(change["times_smaller"], "smaller", "larger", "the same size"),
    ]
    if round(after.get("zeros", 0) - before.get("zeros", 0), 3) > 0:
        compressed = times(change["times_smaller_compressed"], "smaller", "larger", "the same size")
        parts.append(f"{100 * after['zeros']:.1f} % of the weights zero, compressed {compressed}")
    parts += [
        times(change["times_fewer_multiply_adds"], "fewer", "more", "as many") + " multiply-adds",
        "latency " + times(change["times_lower_latency"], "lower", "higher", "as before"),
        "throughput " + times(change["times_higher_throughput"], "higher", "lower", "as before"),
    ]
    return ", ".join(parts)


def _is_report(path: Path) -> bool:
    return path.parent.parent.name == "08_reporting"


def _path(catalog: DataCatalog, name: str) -> Path:
    return Path(str(catalog.get(name)._filepath))  # type: ignore[union-attr]


def _free(path: Path) -> Path:
    """The first place beside the file where nothing is, by a number before its suffix."""
    names = (path.with_name(f"{path.stem}.kept-{number}{path.suffix}") for number in count(1))
    return next(name for name in names if not name.exists())


def _relative(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
