"""Part overhead: what Kedro itself costs. `kedro run` against a script of the same functions, each a new process.

Raw files are there and are verified by both; the outputs of an earlier run are there and are replaced by both.
"""

import statistics
import tempfile
import time

from benchmarks import inputs
from benchmarks.measure import Comparison, Options, interleave

GOAL = 2.5  # seconds


def run(options: Options) -> list[Comparison]:
    env = inputs.environment("mnist", options.quick)
    with tempfile.TemporaryDirectory() as folder:
        sides = {
            "script without Kedro": lambda: seconds("-m", "benchmarks.without_kedro", env, folder),
            "kedro run --pipelines mnist_mlp": lambda: seconds(
                "-m", "kedro", "run", "--env", env, "--pipelines", "mnist_mlp"
            ),
        }
        turns = options.repeats or (1 if options.quick else 5)
        measured = interleave(sides, turns, warm_up=not options.quick)
    script, kedro = (statistics.median(values) for values in measured.values())
    note = f"difference {kedro - script:+.2f} s (goal at most {GOAL} s)"
    data, baseline = inputs.describe(env, "mnist"), "script without Kedro"
    return [Comparison("Whole run", "s", measured, data, baseline, less_is_better=True, note=note)]


def seconds(*arguments: str) -> float:
    started = time.perf_counter()
    inputs.run_python(*arguments)
    return time.perf_counter() - started
