"""The stages of a sweep: try values out, and say which are the best.

Optuna and torch are imported inside the functions, so that commands which only look at the project stay quick, and so
that all else works without the extra `sweep`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torchloom.config import SweepConfig
from torchloom.errors import InputError
from torchloom.system.words import extra

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
else:
    Figure = Any  # Kedro resolves the annotations of the stages; plotly comes with the extra

logger = logging.getLogger(__name__)


def search(parameters: dict[str, Any], config: SweepConfig, study: Path) -> list[dict[str, Any]]:
    """Train with other values again and again; `study` is the folder that keeps what comes of it.

    Returns the trials of all runs so far, a row each. Raises InputError when the block is not right, and when no trial
    has come to an end.
    """
    return _module().search(config, parameters, study)  # type: ignore[no-any-return]


def report(
    trials: list[dict[str, str]], parameters: dict[str, Any], config: SweepConfig, study: Path
) -> tuple[dict[str, str], Figure, Figure, Figure, Figure]:
    """The files of an environment with the best values, by their names below its folder; and the figures.

    These are: the values in the order of the trials, how much each parameter matters, the trials as lines across all
    parameters, and each parameter alone.
    """
    sweep = _module()
    from torchloom.sweeps.outcome import environment_files, figures

    found = sweep.open_study(study, trials[0]["study"])
    best = found.best_trial
    logger.info(
        "the best is trial %d: %.4f. To train with it: kedro run --env tuned --pipelines %s",
        *(best.number, best.value, config.task),
    )
    return environment_files(config, parameters, best, sweep.project_folder() / "conf"), *figures(found)


def _module() -> ModuleType:
    try:
        import plotly  # noqa: F401

        from torchloom.sweeps import search as sweep
    except ModuleNotFoundError as error:
        raise InputError(
            f"a sweep needs {error.name}, which is not installed. Install the extra: {extra('sweep')}"
        ) from error
    return sweep
