"""Where the samples are in a user's files: one in each, in the lines of a text, or in the rows of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from torchloom.data import arrays
from torchloom.data.class_folders import split_of
from torchloom.data.columns import written
from torchloom.data.mask_folders import beside
from torchloom.data.paths import Finder
from torchloom.data.rows import read_rows
from torchloom.data.tables import SUFFIXES, MissingColumnError, check_columns, opened_table, opened_text, read_text
from torchloom.data.targets import AnyTarget, Target
from torchloom.data.writing import USUAL, Writing
from torchloom.datasets.listing import Listing, readable
from torchloom.errors import InputError

ROWS = "\0rows"  # of a sample that has several, by a name that no column has


class Sample(NamedTuple):
    """What it is called in the tables, how it is read, and the row of a user's table that it stands in, or what its
    place says as a row would, if anything does."""

    name: str
    read: Callable[[], Any]
    row: Mapping[str, Any] | None = None


# The number of a line or a row, or the name of what it is; how it is read; the row.
Part = tuple[int | str, Callable[[], Any], Mapping[str, Any] | None]


def _named(files: Listing) -> Iterator[tuple[Path, str]]:
    """The files, and what they are called; of each nothing is held when it has been handed on."""
    return zip(files.paths, (readable(files.entry or name) for name in files.names), strict=True)


class InFiles(BaseModel):
    """How a user's samples lie in files that are a sample each, and that tables may name.

    The paths stand in the `column`; `folder` is where they began in training, if not in the folder of the table.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    column: str | None = None
    folder: str | None = None
    target: AnyTarget | None = None
    writing: Writing = Field(USUAL)
    _asked: str | None = PrivateAttr(None)

    suffixes: ClassVar[Collection[str]]

    def named_from(self, folder: str | None) -> Self:
        """The same where paths are said to begin in that folder now."""
        copy = self.model_copy()
        copy._asked = folder
        return copy

    def check_rows(self) -> None:
        if not self.column:
            raise InputError(
                "this model has learnt from no table with paths, and answers none: leave predict.entry out"
            )
        if not (self._asked or self.folder):
            raise InputError(f"say where the paths in {self.column!r} begin, predict.folder")

    def samples_in(self, files: Listing, read: Callable[[Any], Any]) -> Iterator[Sample]:
        """Each file, opened in binary; or those that tables name, where the folder has such."""
        tables = [(path, name) for path, name in _named(files) if self.column and path.suffix.lower() in SUFFIXES]
        if not tables:
            yield from (_placed(name, partial(_binary, path, read), self.target) for path, name in _named(files))
        for path, name in tables:
            beside = [] if files.entry else [str(path.parent), files.folder]
            folders = [self._asked] if self._asked else [*beside, self.folder]
            find = Finder(filter(None, folders), self.suffixes)
            yield from self._named_in(path, name, find, read)

    def _named_in(self, table: Path, name: str, find: Finder, read: Callable[[Any], Any]) -> Iterator[Sample]:
        """The files that a table names."""
        for called, path, row in _each(name, _rows(table, self._path_in)):
            try:
                found = path()
            except InputError as error:
                yield Sample(called, partial(_fail, error))
            else:
                yield Sample(found or called, partial(_found, find, found, read), row and self.completed(find, row))

    def _path_in(self, row: Mapping[str, Any]) -> str:
        check_columns([str(self.column)], row)
        return self._path(row[str(self.column)])

    def _path(self, cell: Any) -> str:
        """A cell as training has read it."""
        return "" if cell is None else str(self.writing.plain(cell)).replace("\\", "/")

    def completed(self, find: Finder, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row of a table that names a file, with what else `find` finds."""
        return row


class PicturesInFiles(InFiles):
    """The same of pictures, of which a file of NumPy may have many, with their labels.

    In training the masks may have lain `beside` them: of pictures and masks the names of the folders.
    """

    beside: tuple[str, str] | None = None

    def completed(self, find: Finder, row: Mapping[str, Any]) -> Mapping[str, Any]:
        name = self.target.masks_in if self.target else None
        if name is None or not row.get(name):
            return row
        return {**row, name: lambda: (find(self._path_in(row)), find(self._path(row[name])))}

    def _with_masks(self, files: Listing, read: Callable[[Any], Any], pair: tuple[str, str]) -> Iterator[Sample]:
        for name, mask in beside(files, *pair).items():
            paths = Path(files.folder, name), Path(files.folder, mask or "")
            row = {str(self.target and self.target.masks_in): partial(tuple, paths)} if mask else None
            yield Sample(readable(name), partial(_binary, paths[0], read), row)

    def samples_in(self, files: Listing, read: Callable[[Any], Any]) -> Iterator[Sample]:
        if self.beside and len(beside(files, *self.beside)) < len(files.names):
            yield from self._with_masks(files, read, self.beside)
            return
        of_numpy, others = _apart(files)
        yield from super().samples_in(others, read)
        for path, name in _named(of_numpy):
            yield from _each(name, arrays.pictures_in(path, read))


def _apart(files: Listing) -> tuple[Listing, Listing]:
    """Those of NumPy, and the others."""
    parts: dict[bool, list[int]] = {True: [], False: []}
    for place, name in enumerate(files.names):
        parts[Path(name).suffix.lower() in arrays.ENDINGS].append(place)
    of_numpy, others = (
        replace(files, names=[files.names[place] for place in part], stamps=[files.stamps[place] for place in part])
        for part in parts.values()
    )
    return of_numpy, others


def _found(find: Finder, path: str, read: Callable[[Any], Any]) -> Any:
    return _binary(find(path), read)


def _placed(name: str, read: Callable[[], Any], target: Target | None) -> Sample:
    """A sample that is a file, with what its place says of the target."""
    return Sample(name, read, target.at(name) if target else None)


def texts_of(
    files: Listing, read: Callable[[Any], Any], column: str | None = None, target: Target | None = None
) -> Iterator[Sample]:
    """The text in each file of a folder, or in each line of one file, or in each row of tables, in that column."""
    for path, name in _named(files):
        if column is not None and path.suffix.lower() in SUFFIXES:
            yield from _each(name, _rows(path, partial(_cell, column, read)))
        elif files.single:
            yield from _each(name, _lines(path, read))
        else:
            yield _placed(name, partial(_text, path, read), target)


def _cell(column: str, read: Callable[[Any], Any], row: dict[str, Any]) -> Any:
    check_columns([column], row)
    if not isinstance(row[column], str):
        raise InputError(f"{column}: holds {row[column]!r}, and no text")
    return read(row[column])


def rows_of(files: Listing, read: Callable[[Any], Any]) -> Iterator[Sample]:
    """Each row of tables, by the names of their columns, which are at the top of a CSV file."""
    for path, name in _named(files):
        yield from _each(name, _rows(path, read))


def cells_of(
    files: Listing, read: Callable[[Any], Any], column: str, dimensions: int, target: AnyTarget | None
) -> Iterator[Sample]:
    """The rows of tables, and those of NumPy's arrays, which have `dimensions`: `column` holds what is read."""
    of_numpy, others = _apart(files)
    yield from rows_of(others, read)
    found: dict[str, Any] = {}
    places: dict[str, str] = {}  # the files of the arrays, and what these are called there
    for path, name in _named(of_numpy):
        try:
            own = arrays.read_named(path, None if files.single else name)
        except InputError as error:
            yield Sample(name, partial(_fail, error))
            continue
        found |= own
        places |= {each: arrays.place_of(name, each.rpartition("/")[2]) for each in own}
    try:
        for each, number, row in arrays.series_in(found, column, target.columns if target else (), dimensions):
            place = places[each] if number is None else f"{places[each]}:{number}"
            yield Sample(place, partial(read, row), row)
    except InputError as error:
        yield Sample(files.folder, partial(_fail, error))


def _read_tables(files: Listing) -> Iterator[tuple[str, list[dict[str, Any]], list[Sample]]]:
    """Each table's name and rows; of one that cannot be read, in place of rows, the sample that says so."""
    for path, name in _named(files):
        try:
            rows, failed = read_rows(path), []
        except InputError as error:
            rows, failed = [], [Sample(name, partial(_fail, error))]
        yield name, rows, failed


def tables_of(files: Listing, read: Callable[[Any], Any], column: str | None = None) -> Iterator[Sample]:
    """Each table with all its rows; where it has that column, the rows for each of its values."""
    for name, rows, failed in _read_tables(files):
        yield from failed
        parts: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            parts.setdefault("" if column is None else written(row.get(column, "")), []).append(row)
        for part, its_rows in parts.items():
            yield Sample(f"{name}:{part}" if part else name, partial(read, its_rows), its_rows[0])


def series_of(files: Listing, read: Callable[[Any], Any], column: str) -> Iterator[Sample]:
    """The rows for each value of that column, of all tables of a split together, as training has them.

    It is called as in the first of its files; all its rows are beside it, as ROWS.
    """
    parts: dict[tuple[str, str], tuple[str, list[dict[str, Any]]]] = {}
    for name, rows, failed in _read_tables(files):
        yield from failed
        split = split_of(files, name)
        for row in rows:
            parts.setdefault((split, written(row.get(column, ""))), (name, []))[1].append(row)
    for (_, part), (name, rows) in parts.items():
        yield Sample(f"{name}:{part}" if part else name, partial(read, rows), {ROWS: rows})


def _each(name: str, parts: Iterator[Part]) -> Iterator[Sample]:
    """A sample for each line of the file `name`, and one that fails when the file cannot be read to its end."""
    try:
        for line, read, row in parts:
            yield Sample(f"{name}:{line}", read, row)
    except InputError as error:
        yield Sample(name, partial(_fail, error))


def _fail(error: InputError) -> None:
    raise error


def _binary(path: Path, read: Callable[[Any], Any]) -> Any:
    try:
        if path.exists() and not path.is_file():
            raise InputError("is no file")
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError("is empty")
            file.seek(0)
            return read(file)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error


def _text(path: Path, read: Callable[[Any], Any]) -> Any:
    return read(read_text(path).removesuffix("\n"))  # all else may belong to a prompt


def _lines(path: Path, read: Callable[[Any], Any]) -> Iterator[Part]:
    with opened_text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, partial(read, line.rstrip("\n")), None


def _rows(path: Path, read: Callable[[Any], Any]) -> Iterator[Part]:
    with opened_table(path) as (names, rows):
        _check_names(names, read)
        for line, cells in rows:
            yield line, partial(_row, names, cells, read), dict(zip(names, cells, strict=False))


def _check_names(names: list[str], read: Callable[[Any], Any]) -> None:
    """InputError when no row below such a line of names can be read, or when it is unclear which of its cells are."""
    if lacking := _lacking(names, read):
        given = ", ".join(map(repr, names)) or "nothing"
        raise InputError(f"{lacking.message}; its first line must name the columns, and has {given}") from lacking
    counts = Counter(names)
    if lacking := _lacking([name for name, count in counts.items() if count == 1], read):
        twice = ", ".join(repr(name) for name, count in counts.items() if count > 1)
        raise InputError(
            f"its first line names {twice} more than once, and only one can be meant. Rename or remove the others"
        ) from lacking


def _lacking(names: list[str], read: Callable[[Any], Any]) -> MissingColumnError | None:
    try:
        read(dict.fromkeys(names, "0"))
    except MissingColumnError as error:
        return error
    except InputError:  # one of these cells: others will say so
        pass
    return None


def _row(names: list[str], row: list[str], read: Callable[[Any], Any]) -> Any:
    if len(row) != len(names):
        raise InputError(f"has {len(row)} cells, but the first line names {len(names)} columns")
    return read(dict(zip(names, row, strict=True)))
