"""Tables that grow row by row and lie on the disk."""

from __future__ import annotations

import mmap
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import TYPE_CHECKING, Self

from torchloom.data.stored import told_of_room

if TYPE_CHECKING:
    import pyarrow

AT_ONCE = 1 << 16  # rows that are kept in memory
BYTES = 1 << 26  # of them, if that is less


class Kept:
    """A table of such columns, in a temporary file in the folder `scratch`; without one in the system's for such."""

    def __init__(self, schema: pyarrow.Schema, scratch: Path | None = None) -> None:
        import pyarrow

        self.schema, self.scratch, self.count = schema, scratch, 0
        self._file = TemporaryFile(dir=scratch)  # noqa: SIM115  (__exit__ closes it)
        self._writer = pyarrow.ipc.new_stream(pyarrow.PythonFile(self._file, "w"), schema)
        self._waiting: list[pyarrow.RecordBatch] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with told_of_room(self.scratch):
            self._file.close()

    def add(self, rows: pyarrow.RecordBatch) -> None:
        self.count += len(rows)
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= AT_ONCE or sum(each.nbytes for each in self._waiting) >= BYTES:
            self._write()

    def _write(self) -> None:
        import pyarrow

        with told_of_room(self.scratch):
            self._writer.write_table(pyarrow.Table.from_batches(self._waiting, self.schema).combine_chunks())
        self._waiting = []

    def table(self) -> pyarrow.Table:
        """All rows, memory-mapped; no more can be added."""
        import pyarrow

        self._write()
        with told_of_room(self.scratch):
            self._writer.close()
            self._file.flush()
        kept = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return pyarrow.ipc.open_stream(pyarrow.py_buffer(kept)).read_all()
