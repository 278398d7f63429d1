"""What kedro-viz shows of a stage: on the one that trains a network, the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kedro.pipeline.preview_contract import TextPreview

from torchloom.modalities import Info, read_info
from torchloom.problems.base import Problem
from torchloom.system.words import counted

if TYPE_CHECKING:
    from kedro.io import DataCatalog
    from torch import nn


def network(task: str, untrained: tuple[Problem, str] | None = None) -> TextPreview:
    """The layers of the task's network, in the environment that kedro-viz was started with."""
    from kedro_viz.data_access import data_access_manager

    found = find_network(data_access_manager.catalog.get_catalog(), task, untrained)
    if found is None:
        return TextPreview(f"Not trained yet. The layers of the network are here after\n\nkedro run --pipelines {task}")
    from torchloom.models.summary import layers

    title, model, info = found
    rows = layers(model, info)
    total = sum(row["parameters"] for row in rows)
    return TextPreview(f"{title}: {counted(total, 'parameter')}\n\n{as_text(rows)}", meta={"language": "python"})


def find_network(
    catalog: DataCatalog, task: str, untrained: tuple[Problem, str] | None
) -> tuple[str, nn.Module, Info] | None:
    """What to call it, the model and the info of its data: as it was trained, or else as its parameters make it.

    For that its problem and data set are needed. None when the task was not trained and the data were not prepared.
    """
    if catalog.exists(f"{task}.checkpoint"):
        checkpoint = catalog.load(f"{task}.checkpoint")
        return f"{checkpoint.network}, trained", checkpoint.build(), checkpoint.info
    if untrained and catalog.exists(f"{untrained[1]}_info"):
        from torchloom.models import build_model
        from torchloom.training.pretrained import described

        problem, data = untrained
        info = read_info(catalog.load(f"{data}_info"))
        config = described(problem.network.model_validate(catalog.load(f"params:{task}.model")))
        return f"{config.name}, not trained yet", build_model(config.name, config.arguments, info, problem), info
    return None


def as_text(rows: list[dict[str, Any]]) -> str:
    """The rows of `models.summary.layers` as a table."""
    cells = [["layer", "type", "output", "parameters"]]
    for row in rows:
        shape = " × ".join(map(str, row["output_shape"] or ["–"]))  # noqa: RUF001
        cells.append([row["name"], row["type"], shape, f"{row['parameters']:,}" if row["parameters"] else ""])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join([*map(str.ljust, line[:3], widths), line[3].rjust(widths[3])]) for line in cells)
    return "\n".join(lines)
