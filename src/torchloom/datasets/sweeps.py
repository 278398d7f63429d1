"""What a sweep keeps: where its studies lie, the environment that it writes, and its figures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import PlotlyPreview

from torchloom.datasets.reports import when_there
from torchloom.errors import InputError
from torchloom.system.files import atomic_write

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MARK = "# Written by a sweep"  # what the files of an environment begin with that a sweep has written
AGAIN = "Run the sweep again, which goes on where it was: kedro run --pipelines sweep"


class StudyDataset(AbstractDataset[None, Path]):
    """The folder where the studies of sweeps lie, for the catalog: the sweeps themselves write there."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.folder = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        return self.folder

    def save(self, data: None) -> None:  # noqa: ARG002
        raise DatasetError("studies are written by the sweeps themselves")

    def fingerprint(self) -> str:
        return "no matter"  # what a study holds comes of the parameters

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"folder": str(self.folder)}


class EnvironmentDataset(AbstractDataset[dict[str, str], dict[str, str]]):
    """The files of a configuration environment that sweeps write, by their names below its folder.

    What earlier sweeps have written stays, unless it was for other data: other globals or another catalog. What others
    have written, and does not begin with MARK, is left alone: InputError where that is in the way.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> dict[str, str]:
        paths = {path.relative_to(self._filepath).as_posix(): path for path in sorted(self._filepath.rglob("*.yml"))}
        texts = {name: path.read_text(encoding="utf-8", errors="replace") for name, path in paths.items()}
        return {name: text for name, text in texts.items() if text.startswith(MARK)}

    def save(self, data: dict[str, str]) -> None:
        before = self.load()
        for name in data:
            if name not in before and (path := self._filepath / name).exists():
                raise InputError(
                    f"{path}: is not of a sweep, which writes the best values there. Move it to an environment of your "
                    "own, and run the sweep again, which then has nothing left to try"
                )
        if _shared(before) != _shared(data):
            for name in before.keys() - data.keys():
                (self._filepath / name).unlink()
        for name, text in data.items():
            with atomic_write(self._filepath / name) as temporary:
                temporary.write_text(text, encoding="utf-8")

    def fingerprint(self) -> str | None:
        files = self.load()
        return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest() if files else None

    def _exists(self) -> bool:
        return bool(self.load())

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


def _shared(files: dict[str, str]) -> dict[str, str]:
    """What holds for all tasks of the environment."""
    return {name: text.partition("\n")[2] for name, text in files.items() if "/" not in name}


class PlotlyDataset(AbstractDataset["Figure", "Figure"]):
    """A plotly figure as JSON, which kedro-viz shows."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Figure:
        from plotly.io import from_json

        return from_json(json.dumps(self._read()))

    def save(self, data: Figure) -> None:
        with atomic_write(self._filepath) as temporary:
            temporary.write_text(data.to_json() + "\n", encoding="utf-8")

    @when_there
    def preview(self) -> PlotlyPreview:
        """What kedro-viz shows."""
        return PlotlyPreview(self._read())

    def _read(self) -> dict[str, Any]:
        try:
            figure: dict[str, Any] = json.loads(self._filepath.read_text(encoding="utf-8"))
            return figure
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{self._filepath}: missing or damaged ({error}). {AGAIN}") from error

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
