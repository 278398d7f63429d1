"""What happens around a run: parameters are checked before it and the outcome is summed up after it."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from kedro.config import MissingConfigException
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.validation.type_extractor import TypeExtractor
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from torchloom.errors import InputError
from torchloom.validation import check_parameters

logger = logging.getLogger(__name__)

FIGURES = (
    "accuracy",
    "macro_f1",
    "mse",
    "bits_per_character",
    "perplexity",
    "r2",
    "rmse",
    "loss",
)  # of any kind of task


class ProjectHooks:
    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Check every parameter of every task; Kedro itself ignores unknown tasks and blocks."""
        inputs = {name for pipeline in pipelines.values() for name in pipeline.inputs()}
        read = {name.removeprefix("params:").partition(".")[0] for name in inputs if name.startswith("params:")}
        expected: Any = TypeExtractor(dict(pipelines)).extract_types_from_pipelines()
        try:
            parameters = context.config_loader["parameters"]
        except (MissingConfigException, ValueError, YAMLError, OmegaConfBaseException) as error:
            raise InputError(f"the configuration of the environment {context.env!r} cannot be read: {error}") from error
        check_parameters(parameters, expected, read)

    @hook_impl
    def before_pipeline_run(self) -> None:
        self._started = time.perf_counter()

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Say what the run made and where it lies."""
        seconds = time.perf_counter() - self._started
        lines = [f"finished in {seconds:.0f} s"]
        made = pipeline.all_outputs()
        for task in sorted({name.partition(".")[0] for name in made if "." in name}):
            lines += _summary(task, made, catalog)
        logger.info("\n".join(lines))


def _summary(task: str, made: set[str], catalog: DataCatalog) -> list[str]:
    """The lines about one task: its test figures, then the files by kind."""
    lines = [task]
    if f"{task}.metrics" in made:
        metrics = json.loads(_path(catalog, f"{task}.metrics").read_text())
        lines[0] += "".join(f"  test {name} {metrics[name]:.4f}" for name in FIGURES if name in metrics)
    paths = [_path(catalog, name) for name in sorted(made) if name.startswith(f"{task}.")]
    kinds = {
        "model": [path for path in paths if path.parent.parent.name == "06_models"],
        "reports": [path for path in paths if path.suffix in {".json", ".csv", ".txt"} and _is_report(path)],
        "pictures": [path for path in paths if path.suffix == ".png"],
    }
    for kind, found in kinds.items():
        if found:
            lines.append(f"  {kind + ':':<10}" + "  ".join(_relative(path) for path in found))
    return lines


def _is_report(path: Path) -> bool:
    return path.parent.parent.name == "08_reporting"


def _path(catalog: DataCatalog, name: str) -> Path:
    return Path(str(catalog.get(name)._filepath))  # type: ignore[union-attr]


def _relative(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
