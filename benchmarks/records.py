"""Part gpu: times to an accuracy, as claims about them are made: means and deviations over many seeds.

    python -m benchmarks gpu --env gpu --runs cifar_speedrun=20 cifar_speedrun96=5 cifar_resnet=3 --minutes 9

Of each task first two whole `kedro run`s (the second finds compiled code), then trainings in one process.
Each run's model and reports replace those of the run before.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks import inputs
from benchmarks.measure import Comparison, Options, Worker
from benchmarks.trainings import trainings

RUNS = {"cifar_speedrun": 20, "cifar_speedrun96": 5, "cifar_resnet": 3}  # seeds of each task, in this order
Record = dict[str, float]


def run(options: Options) -> list[Comparison]:
    env = options.env or ("sample" if options.quick else "gpu" if torch.cuda.is_available() else "base")
    wanted = {"cifar_speedrun": 2} if options.quick else RUNS
    if options.runs:
        wanted = {task: int(count or 1) for task, _, count in (given.partition("=") for given in options.runs)}
    ends = time.perf_counter() + options.minutes * 60
    found: dict[str, list[Record]] = {}
    for task, count in wanted.items():
        records = list(repeat(partial(_whole, task, env), 1 if options.quick else 2, ends))
        found[f"{task}, whole kedro run"] = records
        if records:
            found[f"{task}, in one process"] = train_seeds(task, env, count, ends)
        for name in list(found)[-2:]:
            print(name, *(_line(one) for one in found[name]), sep="\n  ", flush=True)
    figures = list(dict.fromkeys(figure for records in found.values() for one in records for figure in one))
    return [
        Comparison(
            title=figure.replace("_", " "),
            unit="s" if figure.endswith("seconds") else "1/s" if figure.endswith("per_second") else "share",
            sides={name: [one[figure] for one in some] for name, some in found.items() if some and figure in some[0]},
            data=f"environment {env}",
        )
        for figure in figures
    ]


def _line(record: Record) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in record.items())


def _whole(task: str, env: str, _: int) -> Record:
    return record(task, env)


def train_seeds(task: str, env: str, count: int, ends: float) -> list[Record]:
    """Trainings with the seeds 0, 1, … in a process of its own."""
    with Worker(trainings, task, env) as train:
        if time.perf_counter() < ends:
            train(0)  # compiles
        names = ("seconds_to_the_last_prediction", "accuracy", "samples_per_second")
        return [dict(zip(names, figures, strict=True)) for figures in repeat(train, count, ends)]


def repeat(measure: Callable[[int], Any], count: int, ends: float) -> Iterator[Any]:
    """measure(0), measure(1), …; none is begun that would not be done in time if it took as long as the one before."""
    last = 0.0
    for number in range(count):
        started = time.perf_counter()
        if started + last >= ends:
            print(f"{number} of {count}; the time is up", flush=True)
            return
        yield measure(number)
        last = time.perf_counter() - started


def record(task: str, env: str, *params: str) -> Record:
    """One run in a new process: accuracies on the test data, seconds of training and of all, samples per second."""
    given = ["--params", ",".join(f"{task}.{param}" for param in params)] if params else []
    started = time.perf_counter()
    inputs.kedro("run", "--env", env, "--pipelines", task, *given)
    wall = time.perf_counter() - started
    folder = inputs.data_folder(env)
    metrics = json.loads((folder / "08_reporting" / task / "metrics.json").read_text(encoding="utf-8"))
    history = json.loads((folder / "07_model_output" / task / "history.json").read_text(encoding="utf-8"))
    return {
        **{name: value for name, value in metrics.items() if "accuracy" in name},
        "training_seconds": sum(row["seconds"] for row in history),
        "samples_per_second": statistics.median(row["samples_per_second"] for row in history),
        "wall_seconds": wall,
    }
