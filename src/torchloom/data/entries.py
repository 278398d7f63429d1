"""Tables that an entry of the catalog gives, whichever library they are of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torchloom.data.columns import written
from torchloom.data.stored import Block, arrow_block, listed_block
from torchloom.errors import InputError

INDEX = "__index_level_"  # how pandas begins the names of what is no column, but numbers its rows


def as_rows(table: Any) -> list[dict[str, Any]]:
    """The rows of a table, by the names of its columns.

    That is whatever hands itself on as a stream of Arrow (tables of Arrow, pandas, Polars, DuckDB and ibis, which are
    asked for what they stand for), an iterator of such, as of a file that is read in chunks, or a list of rows.
    """
    return [row for part in _parts(table) for row in (part if isinstance(part, list) else part.to_pylist())]


def as_blocks(table: Any, most: int) -> list[Block]:
    """The same rows, so many at once at most, which stay in the table where that is one of Arrow or becomes one."""
    return [
        block
        for part in _parts(table)
        for block in (
            [listed_block(part[start : start + most]) for start in range(0, len(part), most)]
            if isinstance(part, list)
            else map(arrow_block, part.to_batches(max_chunksize=most))
        )
    ]


def keep(table: Any, path: Path) -> Path:
    """The same rows as a file of Arrow; where cells of a column are of several types, they are texts there."""
    import pyarrow

    parts = [_as_table(part) if isinstance(part, list) else part for part in _parts(table)]
    if not sum(map(len, parts)):
        raise InputError("holds no rows")
    try:
        whole = pyarrow.concat_tables(parts, promote_options="permissive")
    except pyarrow.ArrowException:  # of chunks whose types were guessed one by one
        whole = _as_table([row for part in parts for row in part.to_pylist()])
    whole = whole.unify_dictionaries()  # of which a file of Arrow can have only one for each column
    with pyarrow.ipc.new_file(path, whole.schema) as file:
        file.write_table(whole)
    return path


def _as_table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow

    names = dict.fromkeys(name for row in rows for name in row)
    return pyarrow.table({str(name): _as_column([row.get(name) for row in rows]) for name in names})


def _as_column(cells: list[Any]) -> Any:
    import pyarrow

    try:
        return pyarrow.array(cells)
    except (pyarrow.ArrowException, OverflowError, TypeError):
        return pyarrow.array([_as_text(cell) for cell in cells], pyarrow.string())


def _as_text(cell: Any) -> str | None:
    """As `written` does where it can, so that it is the same category; NaN, a gap of pandas, is one here, too."""
    try:
        return None if cell is None or cell != cell else written(cell)
    except ValueError:
        return str(cell)


def _parts(table: Any) -> list[Any]:
    """Tables of Arrow and lists of rows."""
    if isinstance(table, list):
        return [_checked(table)]
    try:
        return list(_computed(table))
    except InputError:
        raise
    except Exception as error:  # of a database, a file, or what else the table stands for
        reason = next(iter(str(error).splitlines()), "")
        raise InputError(f"cannot be read as a table ({type(error).__name__}: {reason})") from error


def _computed(table: Any) -> Iterator[Any]:
    if hasattr(table, "__arrow_c_stream__"):
        yield _of_arrow(table)
    elif isinstance(table, Iterator):
        yield from (part for chunk in table for part in _parts(chunk))
    elif hasattr(table, "collect"):  # a plan of Polars
        yield _of_arrow(table.collect())
    elif hasattr(table, "to_dict"):  # of a pandas before 2.2
        yield table.to_dict("records")
    else:
        raise InputError(
            f"is of the type {type(table).__name__}, and no table of pandas, Polars, Arrow, DuckDB or ibis, nor a list "
            "of rows"
        )


def _checked(rows: list[Any]) -> list[dict[str, Any]]:
    odd = next((place for place, row in enumerate(rows) if not isinstance(row, Mapping)), None)
    if odd is not None:
        raise InputError(f"is a list whose entry {odd} is {rows[odd]!r}, and no row: values by the names of columns")
    return rows


def _of_arrow(table: Any) -> Any:
    import pyarrow

    try:
        found = pyarrow.table(table)
    except pyarrow.ArrowException:
        if not hasattr(table, "to_dict"):
            raise
        return table.to_dict("records")  # of a column of pandas with words and numbers
    twice = [name for name, count in Counter(found.column_names).items() if count > 1]
    if twice:
        raise InputError(f"has more than one column {twice[0]!r}. Rename one of them")
    return found.select([name for name in found.column_names if not name.startswith(INDEX)])
