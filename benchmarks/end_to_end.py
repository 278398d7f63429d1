"""Part end_to_end: from the command to a network 784-512-10 that reaches a test accuracy.

The plain script looks at the test data after each epoch and stops once the accuracy is there. `kedro run` trains as
many epochs as its recipe has, chooses the best on validation, measures it on the test data once, draws its reports and
exports it; its outputs replace those of an earlier run.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import inputs
from benchmarks.measure import Comparison, Options, interleave
from benchmarks.records import Record, record

TASK = "mnist_mlp"


def run(options: Options) -> list[Comparison]:
    env = inputs.environment("mnist", options.quick)
    goal = options.goal or (0.983 if env == "base" else 0.9)
    turns = options.repeats or (1 if options.quick else 3)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "MNIST" / "raw"
        raw.parent.mkdir()
        raw.symlink_to((inputs.data_folder(env) / "01_raw" / "mnist").resolve())
        sides: dict[str, Callable[[], Record]] = {
            "plain script": lambda: plain_script(folder, goal),
            f"kedro run --pipelines {TASK}": lambda: record(TASK, env),
        }
        runs = interleave(sides, turns, warm_up=False)
    failed = [side for side, found in runs.items() if any(one["accuracy"] < goal for one in found)]
    note = f"goal {goal}: " + (f"MISSED at least once by {' and '.join(failed)}" if failed else "reached by all runs")
    data, baseline = inputs.describe(env, "mnist"), "plain script"

    def of(figure: str) -> dict[str, list[float]]:
        return {side: [one[figure] for one in found] for side, found in runs.items()}

    return [
        Comparison("Wall time", "s", of("wall_seconds"), data, baseline, less_is_better=True, note=note),
        Comparison("Training with its evaluations", "s", of("training_seconds"), data, baseline, less_is_better=True),
        Comparison("Test accuracy", "share", of("accuracy"), data),
    ]


def plain_script(root: str, goal: float) -> Record:
    started = time.perf_counter()
    printed = inputs.run_python("-m", "benchmarks.plain_mnist", root, "--goal", str(goal))
    wall = time.perf_counter() - started
    found = json.loads(printed.splitlines()[-1])
    return {"wall_seconds": wall, "training_seconds": found["training_seconds"], "accuracy": found["accuracy"]}
