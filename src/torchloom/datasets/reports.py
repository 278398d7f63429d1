"""Reports: kedro-datasets' JSON and figures, previewed by kedro-viz as those, but never seen half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kedro_datasets.json
import kedro_datasets.matplotlib

from torchloom.errors import InputError
from torchloom.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class JSONDataset(kedro_datasets.json.JSONDataset):  # type: ignore[misc]
    """A report as JSON. NaN and infinities, which are no JSON, are refused."""

    def save(self, data: Any) -> None:
        path = Path(self._get_save_path())
        try:
            text = json.dumps(data, indent=2, allow_nan=False)
        except ValueError as error:
            raise InputError(f"{path}: holds a figure that is not a finite number; nothing was written") from error
        with atomic_write(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


class FigureDataset(kedro_datasets.matplotlib.MatplotlibDataset):  # type: ignore[misc]
    """A matplotlib figure as a PNG file."""

    def save(self, data: Figure) -> None:
        with atomic_write(Path(self._get_save_path())) as temporary:
            data.savefig(temporary, format="png")
