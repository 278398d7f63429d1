"""The record of each run, a small JSON file in records/runs beside its results, and the table that compares them."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from torchloom.system.files import atomic_write
from torchloom.system.locks import command

FIGURES = (
    "bits_per_character",
    "perplexity",
    "exact_match",
    "bleu",
    "mean_iou",
    "accuracy",
    "macro_f1",
    "micro_f1",
    "mean_average_precision",
    "mse",
    "r2",
    "rmse",
    "frechet",
    "loss",
)  # of any problem of ours


OUT_OF_FOLD = "out_of_fold_"  # the names of means over folds begin with it
RATES = {"samples_per_second"}  # which stand beside them in a record


def main_figures(metrics: Mapping[str, Any], most: int = len(FIGURES)) -> dict[str, float]:
    """The figures that say how good a model is, at most so many; of a user's own problem the first of its metrics."""
    measured = [name for name, value in metrics.items() if isinstance(value, float) and name not in RATES]
    known = [name for figure in FIGURES for name in (figure, OUT_OF_FOLD + figure) if name in metrics]
    return {name: metrics[name] for name in (known or measured)[:most]}


def shown_figures(metrics: Mapping[str, Any], most: int = len(FIGURES)) -> dict[str, str]:
    """The main figures as people read them: of folds the mean ± the standard deviation."""
    deviations = {name: metrics.get(f"{name}_deviation") for name in metrics}
    return {
        name: f"{value:.4f}" + ("" if deviations[name] is None else f" ± {deviations[name]:.4f}")
        for name, value in main_figures(metrics, most).items()
    }


def in_words(metrics: Mapping[str, Any]) -> Iterator[str]:
    """The main figures, as `test accuracy 0.9000`; of folds as `out-of-fold accuracy 0.9000 ± 0.0100`."""
    for name, value in shown_figures(metrics).items():
        short = name.removeprefix(OUT_OF_FOLD)
        yield f"{'test' if short == name else 'out-of-fold'} {short} {value}"


class RunRecord:
    """What a run was asked to do, on what, and how it ended; written when it begins and again when it is over."""

    def __init__(self, folder: Path, run: str, asked: Mapping[str, Any]) -> None:
        self.path = _path(folder, run)
        self.began = datetime.now().astimezone()
        self.values: dict[str, Any] = {
            "run": run,
            "command": command(),
            **asked,
            "git": git_state(),
            "packages": versions(),
            "machine": {
                "host": socket.gethostname(),
                "system": platform.platform(),
                "processor": _processor(),
                "cores": os.cpu_count(),
            },
            "process": os.getpid(),
            "start": self.began.isoformat(timespec="seconds"),
            "ended": "running",
            "nodes": {},  # seconds
        }
        self.write()

    def write(self) -> None:
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(self.values, indent=1, default=str) + "\n", encoding="utf-8")

    def finish(self, ended: str, **more: Any) -> None:
        """`ended` is finished, failed or interrupted."""
        now = datetime.now().astimezone()
        self.values |= {
            "ended": ended,
            "end": now.isoformat(timespec="seconds"),
            "seconds": round((now - self.began).total_seconds(), 3),
            "device": device(),
            "peak_memory": peak_memory(),
            **more,
        }
        self.write()


def _path(folder: Path, run: str) -> Path:
    return folder / f"{run.replace(':', '.')}.json"


def versions() -> dict[str, str]:
    """The installed versions of all that the project depends on, and Python's."""
    found = {"python": platform.python_version()}
    for requirement in importlib.metadata.requires("torchloom") or []:
        name = re.split(r"[^A-Za-z0-9_.-]", requirement)[0]
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def git_state() -> dict[str, Any] | None:
    """The commit that is checked out and whether files differ from it; None outside a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    answers = []
    for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"]):
        try:
            done = subprocess.run([git, *arguments], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
        except (OSError, subprocess.SubprocessError):
            return None
        answers.append(done.stdout.strip())
    return {"commit": answers[0], "changed": bool(answers[1])}


def device() -> str:
    """The accelerator that PyTorch sees, or cpu; not asked when nothing has imported PyTorch."""
    torch = sys.modules.get("torch")
    if torch is None:
        return "cpu"
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return "cpu"
    return str(torch.cuda.get_device_name()) if accelerator.type == "cuda" else str(accelerator.type)


def peak_memory() -> dict[str, int]:
    """The most bytes that this process has held so far, in memory and on a CUDA device."""
    peaks = {}
    with suppress(ImportError):  # Windows has no such module
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peaks["memory"] = peak if sys.platform == "darwin" else peak * 1024
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        peaks["device"] = torch.cuda.max_memory_allocated()
    return peaks


def seeds(parameters: Mapping[str, Any], key: str = "") -> Iterator[tuple[str, Any]]:
    """Every parameter whose name is `seed`, by its full key."""
    for name, value in parameters.items():
        full = f"{key}.{name}" if key else name
        if isinstance(value, Mapping):
            yield from seeds(value, full)
        elif name == "seed":
            yield full, value


# ---- comparing -----------------------------------------------------------------------------------------------------


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """The records of all runs, the oldest first; a file that is not one is left out."""
    runs = (_read(path) for path in sorted(folder.glob("*.json")))
    return [run for run in runs if run]


def read_run(folder: Path, run: str) -> dict[str, Any] | None:
    """The record of a run; None when there is none that can be read."""
    return _read(_path(folder, run))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        ended = _ended(values)
        return {**values, "ended": ended} if values.keys() >= {"run", "tasks", "parameters"} else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _ended(values: Mapping[str, Any]) -> str:
    """How the run ended; one that was killed could not say so itself."""
    if values["ended"] != "running" or values["machine"]["host"] != socket.gethostname():
        return str(values["ended"])
    try:
        os.kill(int(values["process"]), 0)
    except ProcessLookupError:
        return "killed"
    except OSError:
        pass
    return "running"


def chosen(
    runs: Iterable[Mapping[str, Any]], task: str | None = None, last: int | None = None
) -> list[tuple[Mapping[str, Any], str]]:
    """Each task of each run; only `task`, and so many of the newest, where these are given."""
    pairs = [(run, name) for run in runs for name in run["tasks"] if task in {None, name}]
    return pairs[-last:] if last else pairs


def comparison(
    runs: Iterable[Mapping[str, Any]], task: str | None = None, last: int | None = None
) -> list[dict[str, str]]:
    """A row for each task of each run, with what the run is, what came of it, and the parameters that are not alike.

    Only those of `task`, and so many of the newest, where these are given.
    """
    pairs = chosen(runs, task, last)
    settings = [dict(flat(run["parameters"].get(name, {}))) for run, name in pairs]
    rows = []
    for (run, name), parameters in zip(pairs, settings, strict=True):
        others = [other for (_, other_name), other in zip(pairs, settings, strict=True) if other_name == name]
        result = run.get("results", {}).get(name, {})
        git = run.get("git") or {}
        rows.append(
            {
                "run": str(run["run"]),
                "task": name,
                "env": str(run.get("environment") or ""),
                "commit": str(git.get("commit", ""))[:9] + ("+" if git.get("changed") else ""),
                "device": str(run.get("device", "")),
                "ended": str(run["ended"]),
                "seconds": f"{run['seconds']:.0f}" if "seconds" in run else "",
                **shown_figures(result),
                **({"samples/s": f"{result['samples_per_second']:,.0f}"} if "samples_per_second" in result else {}),
                **({"peak MB": f"{run['peak_memory']['memory'] / 1e6:.0f}"} if run.get("peak_memory") else {}),
                **{key: json.dumps(parameters.get(key)) for key in _differing(others) if _used(parameters, key)},
            }
        )
    columns = sorted(dict.fromkeys(column for row in rows for column in row), key=lambda column: "." in column)
    return [{column: row.get(column, "") for column in columns} for row in rows]


def _differing(settings: list[dict[str, Any]]) -> list[str]:
    """The keys in which runs differ, as far as these have used the block that the key is in."""
    keys = sorted({key for parameters in settings for key in parameters})
    values = {key: [parameters.get(key) for parameters in settings if _used(parameters, key)] for key in keys}
    return [key for key in keys if any(value != values[key][0] for value in values[key])]


def _used(parameters: Mapping[str, Any], key: str) -> bool:
    """Whether there is anything of the key's block among the parameters of a run, which may be one of a few stages."""
    return any(name.partition(".")[0] == key.partition(".")[0] for name in parameters)


def flat(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, values


def training_rate(history: list[dict[str, float]]) -> float:
    """Samples per second of a whole training: all samples by all seconds, of which slow epochs take the most.

    Each epoch has as many samples, and its `seconds` are those of validation, too; rounds with `clients` have their own
    numbers of samples, which are taken by all of the round's `seconds`.
    """
    seconds = [row["seconds"] if "clients" in row else 1 / row["samples_per_second"] for row in history]
    samples = sum(row["samples_per_second"] * passed for row, passed in zip(history, seconds, strict=True))
    return samples / sum(seconds)


def as_text(rows: list[dict[str, str]]) -> str:
    """The table with its columns one below the other."""
    if not rows:
        return ""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
