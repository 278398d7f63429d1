"""What comes of a sweep: an environment with the best values, and figures of the study."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna.visualization
import yaml
from kedro.config import OmegaConfigLoader
from optuna.study import Study
from optuna.trial import FrozenTrial
from plotly.graph_objects import Figure

from torchloom.config import SweepConfig
from torchloom.config.layers import completed, layered
from torchloom.config.schema import REFERENCE
from torchloom.datasets.sweeps import MARK
from torchloom.errors import InputError
from torchloom.sweeps.search import as_written, put, values_of
from torchloom.tasks import all_blocks, pipeline_of, read_tasks


def environment_files(
    config: SweepConfig, parameters: Mapping[str, Any], best: FrozenTrial, conf: Path
) -> dict[str, str]:
    """The files of an environment in which the task has the best values, by their names below its folder.

    All else that the task's stages read is as it was in the sweep: the other parameters, and, from the folder of the
    sweep's environment below `conf`, where data lie and come from.
    """
    environment = config.environment or "local"
    written = as_written(parameters)
    head = f"{MARK} of {config.task} in the environment {environment}"
    inputs = pipeline_of(read_tasks(parameters)[config.task]).inputs()
    read = {name.removeprefix("params:").partition(".")[0] for name in inputs if name.startswith("params:")}
    base = OmegaConfigLoader(str(conf), base_env="base", default_run_env="base")["parameters"]
    tuned = {**written, config.task: put(written[config.task], values_of(config, best.params))}
    heads = {config.task: f"{head}, trial {best.number}: {best.value!r}"}
    files = {}
    for name in sorted(read | {config.task}):
        exact = _exact(name, tuned[name], base.get(name, {}))
        files[f"parameters/{name}.yml"] = _as_yaml(heads.get(name, head), name, exact)
    folder = conf / environment
    for path in sorted([*folder.glob("globals.yml"), *folder.glob("catalog*.yml")]):
        text = path.read_text(encoding="utf-8")
        files[path.name] = text if text.startswith(MARK) else f"{head}\n{text}"
    return files


def _exact(name: str, blocks: Any, base: Any) -> Any:
    """The blocks with what keeps those of base from coming back; InputError where the two would make others of them."""
    models = {key.partition(".")[2]: model for key, model in all_blocks().items() if key.partition(".")[0] == name}
    if not models or "" in models:
        return blocks
    checked = {key: model.model_validate(blocks[key]) for key, model in models.items() if key in blocks}
    full = json.loads(json.dumps({key: block.model_dump() for key, block in checked.items()}, default=str))
    exact: dict[str, Any] = completed(blocks, base, full)
    merged = layered(base, exact)
    for key, block in checked.items():
        if models[key].model_validate(merged[key]) != block:
            raise InputError(f"{name}.{key}: no environment above base can say {blocks[key]}. Write it into base")
    return exact


def _as_yaml(head: str, name: str, blocks: Any) -> str:
    return f"{head}\n{REFERENCE}{yaml.safe_dump({name: blocks}, sort_keys=False)}"


def figures(study: Study) -> tuple[Figure, Figure, Figure, Figure]:
    """The history, the importance of each parameter, all parameters side by side, and each alone."""
    plots = optuna.visualization
    return (
        _drawn(plots.plot_optimization_history, study),
        _drawn(plots.plot_param_importances, study),
        _drawn(plots.plot_parallel_coordinate, study),
        _drawn(plots.plot_slice, study),
    )


def _drawn(plot: Callable[[Study], Any], study: Study) -> Figure:
    """The figure; one that says why it is empty where there are too few trials for it."""
    try:
        figure: Figure = plot(study)
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        figure = Figure(layout={"title": f"not yet: {error}"})
    return figure
