"""The runs so far on one page: a table, and plots by task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchloom.records.runs import main_figures
from torchloom.reporting.page import Picture, Section, Table, png, render
from torchloom.system import figures

Pairs = list[tuple[Mapping[str, Any], str]]


def runs_page(pairs: Pairs, rows: list[dict[str, str]]) -> str:
    """The page on each task of each run in `pairs`; `rows` are those of runs.comparison on the same."""
    numbered = [{"number": str(number), **row} for number, row in enumerate(rows, 1)]
    points: dict[str, list[dict[str, Any]]] = {}
    for number, (run, task) in enumerate(pairs, 1):
        if f"{task}.train" in run.get("nodes", {}):
            points.setdefault(task, []).append(_point(number, run, task))
    return render(
        "Runs",
        f"Runs so far: {len({run['run'] for run, _ in pairs})}, the oldest first. Parameters are shown where the "
        "runs of a task differ.",
        {},
        [Section("Table", [Table("", numbered)]), Section("Plots", [_picture(task, points[task]) for task in points])],
    )


def _point(number: int, run: Mapping[str, Any], task: str) -> dict[str, Any]:
    """What figures.runs takes of a run that has trained the task."""
    main = main_figures(run.get("results", {}).get(task, {}), most=1)
    return {
        "number": number,
        "name": next(iter(main), None),
        "value": next(iter(main.values()), None),
        "seconds": run["nodes"][f"{task}.train"],
        "curves": run.get("curves", {}).get(task, {}),
    }


def _picture(task: str, points: list[dict[str, Any]]) -> Picture:
    return Picture(
        f"{task}: test figure and losses of the runs that trained it, by their numbers above", png(figures.runs(points))
    )
