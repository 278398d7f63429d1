"""Reports: JSON, figures, tables and texts, previewed by kedro-viz and never seen half-written.

A preview has only a part of what is long. kedro-viz finds out its kind by the name of its type.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NewType

import kedro_datasets.json
import kedro_datasets.matplotlib
from kedro.io import AbstractDataset
from kedro_datasets._typing import ImagePreview, JSONPreview, TablePreview

from torchloom.errors import InputError
from torchloom.system.files import NOTHING, atomic_write, contents

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pyarrow import Table


TextPreview = NewType("TextPreview", str)

csv.field_size_limit(1 << 24)  # characters; a review has up to a million, Python's own limit is 131,072


def _again(path: Path, error: Exception) -> InputError:
    """What to do about a report that cannot be read: it lies in <layer>/<data set or task>/<file>."""
    stage = {"03_primary": "preprocess", "07_model_output": "train"}.get(path.parent.parent.name)
    command = f" again: kedro run --tags {stage}" if stage else " again"
    return InputError(f"{path}: missing or damaged ({error}). Run the stage that writes it{command}")


def when_there(preview: Callable[..., Any]) -> Callable[..., Any]:
    """A dataset's `preview` that is None while there is no file; kedro-viz would warn of each."""

    @wraps(preview)
    def checked(self: AbstractDataset[Any, Any], *arguments: Any, **options: Any) -> Any:
        written = getattr(self, "is_written", self.exists)
        return preview(self, *arguments, **options) if written() else None

    return checked


class OptionalReport:
    """A report that, where it is `optional`, may have nothing to say: what is empty is not written.

    What stood there before is removed; and where no file is, what is loaded is `empty`.
    """

    optional = False
    _filepath: Any

    def is_written(self) -> bool:
        return Path(str(self._filepath)).is_file()

    def fingerprint(self) -> str | None:
        return contents(Path(str(self._filepath))) or (NOTHING if self.optional else None)

    def _has_none(self) -> bool:
        return self.optional and not self.is_written()

    def _left_out(self, data: Any) -> bool:
        """Whether there is nothing to write, after which nothing is there."""
        if not self.optional or data:
            return False
        Path(str(self._filepath)).unlink(missing_ok=True)
        return True


def shortened(value: Any, items: int = 20, characters: int = 300) -> Any:
    """JSON with only the first `items` of each list, five times as many of each object, and so many characters of each
    text; and how many there are."""
    if isinstance(value, dict):
        kept = dict(list(value.items())[: 5 * items])
        more = {"…": f"{len(value):,} in all"} if len(value) > len(kept) else {}
        return {name: shortened(item, items, characters) for name, item in kept.items()} | more
    if isinstance(value, list):
        rest = [f"… {len(value):,} in all"] if len(value) > items else []
        return [shortened(item, items, characters) for item in value[:items]] + rest
    if isinstance(value, str) and len(value) > characters:
        return f"{value[:characters]} … {len(value):,} characters in all"
    return value


def _table(columns: list[str], rows: Iterable[Iterable[Any]]) -> TablePreview:
    data = [[shortened(cell) for cell in row] for row in rows]
    return TablePreview({"index": list(range(len(data))), "columns": columns, "data": data})


class JSONDataset(OptionalReport, kedro_datasets.json.JSONDataset):  # type: ignore[misc]
    """A report as JSON. NaN and infinities, which are no JSON, are refused."""

    def __init__(self, *, optional: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.optional = optional

    def load(self) -> Any:
        if self._has_none():
            return {}
        path = Path(self._get_load_path())
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise _again(path, error) from error

    def save(self, data: Any) -> None:
        if self._left_out(data):
            return
        path = Path(self._get_save_path())
        try:
            text = json.dumps(data, indent=2, allow_nan=False)
        except ValueError as error:
            raise InputError(f"{path}: holds a figure that is not a finite number; nothing was written") from error
        with atomic_write(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

    def _exists(self) -> bool:
        return self.optional or bool(super()._exists())

    @when_there
    def preview(self) -> JSONPreview:
        """What kedro-viz shows."""
        return JSONPreview(json.dumps(shortened(self.load())))


class FigureDataset(OptionalReport, kedro_datasets.matplotlib.MatplotlibDataset):  # type: ignore[misc]
    """A matplotlib figure as a PNG file; it is loaded as the bytes of that file. An empty one is b""."""

    def __init__(self, *, optional: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.optional = optional

    def load(self) -> bytes:
        if self._has_none():
            return b""
        path = Path(self._get_load_path())
        try:
            return path.read_bytes()
        except OSError as error:
            raise _again(path, error) from error

    def save(self, data: Figure | bytes) -> None:
        if self._left_out(data):
            return
        if isinstance(data, bytes):
            raise InputError(f"{self._filepath}: there is nothing to draw. Say optional: true of it in the catalog")
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # matplotlib takes a second to import

        with atomic_write(Path(self._get_save_path())) as temporary:
            # savefig would lay it out twice
            FigureCanvasAgg(data).print_png(temporary)  # type: ignore[no-untyped-call]

    def _exists(self) -> bool:
        return self.optional or bool(super()._exists())

    @when_there
    def preview(self) -> ImagePreview:
        """What kedro-viz shows."""
        return ImagePreview(super().preview())


class CSVDataset(OptionalReport, AbstractDataset[list[dict[str, Any]], list[dict[str, str]]]):
    """A table as CSV: saved from rows that all have the same columns, loaded as rows of strings."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None, optional: bool = False) -> None:
        self._filepath, self.optional = Path(filepath), optional
        self.metadata = metadata

    def load(self) -> list[dict[str, str]]:
        if self._has_none():
            return []
        try:
            with self._filepath.open(newline="", encoding="utf-8") as file:
                lines = list(csv.reader(file, strict=True))
            if not lines:
                raise ValueError("not even a row of names")
            return [dict(zip(lines[0], row, strict=True)) for row in lines[1:]]
        except (OSError, ValueError, csv.Error) as error:
            raise _again(self._filepath, error) from error

    def save(self, data: list[dict[str, Any]]) -> None:
        if self._left_out(data):
            return
        with atomic_write(self._filepath) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(data[0]) if data else [])
            writer.writeheader()
            writer.writerows(data)

    @when_there
    def preview(self, nrows: int = 20) -> TablePreview:
        """What kedro-viz shows."""
        rows = self.load()[:nrows]
        return _table(list(rows[0]) if rows else [], (row.values() for row in rows))

    def _exists(self) -> bool:
        return self.optional or self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


GROUP = 1 << 26  # bytes of a table in a row group of Parquet, about, which is what writing it takes of the memory


class TableDataset(AbstractDataset["Table", "Table"]):
    """A pyarrow.Table, as Parquet or as CSV by the ending of the file's name; CSV leaves lists of fixed length out."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Table:
        import pyarrow.csv
        import pyarrow.parquet

        try:
            if self._filepath.suffix == ".csv":
                quoted = pyarrow.csv.ParseOptions(newlines_in_values=True)
                return pyarrow.csv.read_csv(self._filepath, parse_options=quoted)
            return pyarrow.parquet.read_table(self._filepath)
        except (OSError, pyarrow.ArrowException) as error:
            raise _again(self._filepath, error) from error

    def save(self, data: Table) -> None:
        import pyarrow.csv
        import pyarrow.parquet

        with atomic_write(self._filepath) as temporary:
            if self._filepath.suffix == ".csv":
                lists = [field.name for field in data.schema if pyarrow.types.is_fixed_size_list(field.type)]
                pyarrow.csv.write_csv(data.drop_columns(lists), temporary)
            else:
                rows = max(1, min(1 << 20, GROUP * len(data) // max(data.nbytes, 1)))
                pyarrow.parquet.write_table(data, temporary, row_group_size=rows)

    @when_there
    def preview(self, nrows: int = 20) -> TablePreview:
        """What kedro-viz shows."""
        table = self.load().slice(0, nrows)
        return _table(table.column_names, (row.values() for row in table.to_pylist()))

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


class TextDataset(AbstractDataset[str, str]):
    """A text as UTF-8."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> str:
        try:
            return self._filepath.read_bytes().decode("utf-8")  # read_text would change \r\n
        except (OSError, ValueError) as error:
            raise _again(self._filepath, error) from error

    def save(self, data: str) -> None:
        with atomic_write(self._filepath) as temporary:
            temporary.write_text(data, encoding="utf-8", newline="")

    @when_there
    def preview(self) -> TextPreview:
        """What kedro-viz shows."""
        return TextPreview(shortened(self.load(), characters=5000))

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
