"""Taking turns, and what is said about the outcome."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from matplotlib.figure import Figure

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """The command line."""

    quick: bool = False
    device: str = "cpu"
    repeats: int | None = None
    goal: float | None = None
    env: str | None = None
    runs: list[str] | None = None
    minutes: float = 10.0
    output: Path = Path("benchmarks/results")

    def turns(self, usual: int) -> int:
        return self.repeats or (2 if self.quick else usual)


class Worker:
    """A process of its own, so that settings for good (threads, malloc) of one side never reach the other.

    `prepare(*arguments)` is called there once and gives the function that measures; calling the worker calls that.
    """

    def __init__(self, prepare: Callable[..., Callable[..., float]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, prepare, arguments))
        self._process.start()
        theirs.close()  # so that the pipe ends when the process does

    def __call__(self, *request: Any) -> float:
        try:
            self._pipe.send(request)
            answer: float = self._pipe.recv()
        except (EOFError, OSError):
            raise SystemExit("a worker stopped; its error is above") from None
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, prepare: Callable[..., Callable[..., float]], arguments: tuple[Any, ...]) -> None:
    multiprocessing.set_start_method(None, force=True)  # of loaders' workers: again the platform's own
    measure = prepare(*arguments)
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        pipe.send(measure(*request))


def interleave(sides: Mapping[str, Callable[[], T]], turns: int, warm_up: bool = True) -> dict[str, list[T]]:
    """A B C A B C …, after one turn each that does not count."""
    if warm_up:
        for measure in sides.values():
            measure()
    values: dict[str, list[T]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, measure in sides.items():
            values[name].append(measure())
    return values


def rate(call: Callable[[], object], samples: int, seconds: float, device: str) -> float:
    """Samples per second of calls that handle `samples` each, one after the other for at least `seconds`."""
    calls, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds or not calls:
        call()
        synchronize(device)
        calls += 1
    return calls * samples / passed


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Comparison:
    """What each side measured in each turn, and the side that the others are held to."""

    title: str
    unit: str
    sides: dict[str, list[float]]
    data: str
    baseline: str | None = None
    required: float | None = None  # ratio of the last side to the baseline
    less_is_better: bool = False
    note: str = ""

    def summary(self, side: str) -> dict[str, float]:
        """`ratio` is how many times better than the baseline the median is."""
        values = np.array(self.sides[side])
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        figures = {"median": median, "low": low, "high": high, "mean": values.mean(), "std": spread, "n": len(values)}
        if self.baseline is not None:
            ratio = median / np.median(self.sides[self.baseline])
            figures["ratio"] = 1 / ratio if self.less_is_better else ratio
        return {name: float(value) for name, value in figures.items()}

    def table(self, judged: bool = True) -> str:
        lines = [f"\n{self.title}, {self.unit} ({self.data})"]
        lines.append(f"{'':36}{'median':>12}{'quartiles':>24}{'mean ± std':>24}{'n':>4}{'ratio':>8}")
        for side in self.sides:
            s = self.summary(side)
            quartiles, mean = f"{s['low']:,.6g} … {s['high']:,.6g}", f"{s['mean']:,.6g} ± {s['std']:.3g}"
            ratio = f"{s['ratio']:8.2f}" if "ratio" in s else ""
            lines.append(f"{side:36}{s['median']:>12,.6g}{quartiles:>24}{mean:>24}{s['n']:>4.0f}{ratio}")
        if judged and self.required is not None:
            met = self.summary(list(self.sides)[-1])["ratio"] >= self.required
            lines.append(f"required ratio {self.required:g}: {'met' if met else 'NOT met'}")
        return "\n".join([*lines, self.note] if self.note else lines)


def report(part: str, comparisons: list[Comparison], options: Options) -> None:
    """Print the tables and write `<part>.json` and `<part>.png`."""
    title = f"{part}, quick: too small to measure anything" if options.quick else part
    tables = [comparison.table(judged=not options.quick) for comparison in comparisons]
    print(f"\n==== {title}", *tables, sep="\n", flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    measured = [
        {**asdict(comparison), "summary": {side: comparison.summary(side) for side in comparison.sides}}
        for comparison in comparisons
    ]
    found = {"part": part, "quick": options.quick, "machine": machine(options.device), "comparisons": measured}
    (options.output / f"{part}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if comparisons:
        plot(comparisons).savefig(options.output / f"{part}.png")


def plot(comparisons: list[Comparison]) -> Figure:
    """A bar for each side's median, with its quartiles."""
    heights = [1 + 0.35 * len(comparison.sides) for comparison in comparisons]
    figure = Figure(figsize=(9, sum(heights)), layout="constrained")
    panels = figure.subplots(len(comparisons), squeeze=False, height_ratios=heights)
    for comparison, axes in zip(comparisons, panels[:, 0], strict=True):
        found = [comparison.summary(side) for side in comparison.sides]
        medians = [s["median"] for s in found]
        spread = [[s["median"] - s["low"] for s in found], [s["high"] - s["median"] for s in found]]
        bars = axes.barh(list(comparison.sides), medians, xerr=spread, capsize=3, color="tab:blue", alpha=0.7)
        axes.bar_label(bars, [f"{s['ratio']:.2f}x" if "ratio" in s else f"{s['median']:.4g}" for s in found], padding=8)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set(title=comparison.title, xlabel=comparison.unit)
    return figure


def machine(device: str) -> dict[str, str]:
    """What the figures depend on."""
    from torchloom.system.devices import has_native_bf16

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")}
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{device}, {platform.machine()}",
        "cores": f"{cores}, PyTorch's threads {torch.get_num_threads()} {threads or ''}".strip(),
        "bfloat16": "native" if has_native_bf16(torch.device(device)) else "not native",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
    }
