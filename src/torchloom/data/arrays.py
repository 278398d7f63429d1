"""NumPy's files, .npy with one array and .npz with several: tables, pictures, series. Nothing in them is unpickled."""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from torchloom.data.class_folders import split_named
from torchloom.data.stored import Line
from torchloom.datasets.listing import Listing, is_users, readable
from torchloom.errors import InputError, telling
from torchloom.system.words import listed, meant

PART = re.compile(r"[\W_]+")  # what is between the parts of an array's name
ENDINGS = {".npy", ".npz"}
ALONE = "x"  # what the array of a .npy file is called
MAGIC, PACKED = b"\x93NUMPY", b"PK"  # how the two begin
UNPACKED, TIMES = 50_000_000, 200  # bytes that any .npz may unpack to, and times its size
CHANNELS = (1, 3)  # of a picture: grey, or coloured
LOOKED_AT, SIDE = 1000, 16  # entries of an array; pixels of a picture that could be several series, at least
BESIDE = 100  # columns of an array that says something of each series, at most


def read_arrays(source: Path | IO[bytes]) -> dict[str, np.ndarray]:
    """The arrays of a file by their names; InputError when it is none, is damaged, or holds Python's objects."""
    try:
        if isinstance(source, Path):
            with source.open("rb") as file:
                packed = _check(file)
        else:
            packed = _check(source)
        if not packed:
            return {ALONE: np.load(source, mmap_mode="r" if isinstance(source, Path) else None, allow_pickle=False)}
        with np.load(source, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile answer damage with almost anything
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        if "object" in reason.lower():
            reason = "it holds Python's objects, which are not unpickled here; save numbers or texts"
        raise InputError(f"cannot be read as arrays of NumPy ({reason})") from error


def read_named(path: Path, name: str | None = None) -> dict[str, np.ndarray]:
    """The same of a file with this name in a folder, whose arrays are called after it; `telling` its path."""
    with telling(path):
        arrays = read_arrays(path)
    if name is None:
        return arrays
    place = name.rpartition(".")[0]
    return {place if is_alone(path) else f"{place}/{each}": array for each, array in arrays.items()}


def read_all(listing: Listing) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of all files `by_split`."""
    return by_split(_read_listed(listing)[0])


def read_placed(listing: Listing) -> tuple[dict[str, dict[str, np.ndarray]], dict[int, tuple[str, str]]]:
    """The same, and of each array, by its id, the file, and what it is called in that."""
    found, places = _read_listed(listing)
    return by_split(found), {id(found[name]): place for name, place in places.items()}


def _read_listed(listing: Listing) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, str]]]:
    found: dict[str, np.ndarray] = {}
    places: dict[str, tuple[str, str]] = {}
    for path, name in zip(listing.paths, listing.names, strict=True):
        own = read_named(path, None if listing.single else name)
        called = [ALONE] if is_alone(path) else [each.rpartition("/")[2] for each in own]
        found |= own
        places |= dict(zip(own, ((readable(name), each) for each in called), strict=True))
    return found, places


def is_alone(path: Path) -> bool:
    """Whether a file of NumPy holds one array, without a name."""
    return path.suffix.lower() == ".npy"


def of_numpy(path: Path) -> bool:
    """Whether it is a file of NumPy, or a folder of such files and no others."""
    files = [path] if path.is_file() else [each for each in path.rglob("*.*") if each.is_file() and is_users(each.name)]
    return bool(files) and not {each.suffix.lower() for each in files} - ENDINGS


def shown(arrays: Mapping[str, np.ndarray]) -> str:
    """The names of arrays with their shapes, for messages."""
    return listed([f"{name} ({' x '.join(map(str, array.shape))})" for name, array in arrays.items()])


def _check(file: IO[bytes]) -> bool:
    """Whether it packs several arrays, and no more than is likely; InputError when it is no file of NumPy."""
    start = file.read(len(MAGIC))
    file.seek(0)
    if start == MAGIC:
        return False
    if not start.startswith(PACKED):
        raise InputError("is no file of NumPy: .npy with an array, or .npz with several")
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        if (unpacked := sum(entry.file_size for entry in archive.infolist())) > max(UNPACKED, TIMES * size):
            raise InputError(f"unpacks to {unpacked:,} bytes, far more than it has. If that is right, save it unpacked")
    file.seek(0)
    return True


# ---- tables --------------------------------------------------------------------------------------------------------


def read_table(source: Any) -> Any:
    """A table of Arrow: of an array (N, F) the columns x0, x1, …, or those that it names; of an .npz with arrays of one
    length N each is a column, or (N, F) several, by its name."""
    import pyarrow

    source = source if isinstance(source, Path) else io.BytesIO(source.read())
    columns = [column for name, array in read_arrays(source).items() for column in _columns(name, array)]
    lengths = {name: len(values) for name, values in columns}
    if twice := [name for name, count in Counter(name for name, _ in columns).items() if count > 1]:
        raise InputError(f"has two columns {twice[0]!r}. Rename one of the arrays")
    if len(set(lengths.values())) != 1:
        said = listed([f"{name} {length:,}" for name, length in lengths.items()]) or "nothing"
        raise InputError(f"is no table, whose columns are equally long: {said}. Save one file for each split")
    return pyarrow.table({name: _arrow(name, values) for name, values in columns})


def _columns(name: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Of a single number none: some save what they drew with."""
    if array.dtype.names:
        yield from ((field, array[field]) for field in array.dtype.names)
    elif array.ndim == 1:
        yield name, array
    elif array.ndim == 2:
        numbers = range(array.shape[1])
        yield from ((name if len(numbers) == 1 else f"{name}{number}", array[:, number]) for number in numbers)
    elif array.ndim > 2:
        shape = " x ".join(map(str, array.shape))
        raise InputError(
            f"has {shape} values in {name}, and is no table. Pictures are for the reader arrays, series for "
            f"labelled_series with preprocess.array: {name}"
        )


def _arrow(name: str, values: np.ndarray) -> Any:
    import pyarrow

    values = _texts(values)
    try:
        return pyarrow.array(np.ascontiguousarray(values, values.dtype.newbyteorder("=")))
    except (pyarrow.ArrowException, ValueError) as error:
        raise InputError(f"{name} holds {values.dtype}, of which there is no column") from error


def _texts(values: np.ndarray) -> np.ndarray:
    """Bytes as the texts that they are."""
    return np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values


# ---- pictures ------------------------------------------------------------------------------------------------------


def stacked(name: str, array: np.ndarray) -> np.ndarray:
    """Pictures (N, H, W), (N, H, W, C) or (N, C, H, W) as (N, H, W, C) uint8, C being 1 or 3.

    InputError when they are none.
    """
    if array.ndim == 3:
        array = array[..., None]
    elif array.ndim == 4 and array.shape[-1] not in CHANNELS and array.shape[1] in CHANNELS:
        array = array.transpose(0, 2, 3, 1)
    shape = " x ".join(map(str, array.shape))
    if array.ndim != 4 or array.shape[-1] not in CHANNELS or not array.size:
        raise InputError(f"{name} has {shape} values: pictures are (N, H, W) or (N, H, W, C), with C of 1 or 3")
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    if array.dtype != np.uint8:
        raise InputError(
            f"{name} holds {array.dtype}: pixels are uint8 here, from 0 to 255. Save them so; of shares from 0 to 1 "
            f"that is (255 * {name}).round().astype('uint8')"
        )
    return array


def are_pictures(array: np.ndarray) -> bool:
    """Whether it looks like several: (N, H, W) of other numbers than uint8 may be series as well."""
    if not is_stack(array) or array.ndim == 4 or array.dtype.kind == "b" or array.dtype == np.uint8:
        return is_stack(array)
    some = array[:LOOKED_AT]
    return array.dtype.kind in "iuf" and min(array.shape[1:]) >= SIDE and bool(((some >= 0) & (some <= 255)).all())


def is_stack(array: np.ndarray) -> bool:
    """Whether it is several pictures: one has two dimensions, or three with its channels last."""
    return array.ndim == 4 or (array.ndim == 3 and array.shape[-1] not in CHANNELS)


def decoded(read: Callable[[IO[bytes]], Any], file: IO[bytes]) -> Any:
    """What `read` makes of a file with a picture, which may be an array in a .npy file."""
    start = file.read(len(MAGIC))
    file.seek(0)
    if start != MAGIC:
        return read(file)
    (array,) = read_arrays(file).values()
    if is_stack(array):
        raise InputError("holds several pictures. Send one at a time")
    return of_array(read, stacked("it", array[None])[0])


def of_array(read: Callable[[IO[bytes]], Any], pixels: np.ndarray) -> Any:
    """What `read` makes of a file with such a picture (H, W, C) uint8."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(file, "PNG", compress_level=0)
    file.seek(0)
    return read(file)


def by_split(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Arrays by the split that a part of their name says, and by the rest of it: x_train is x, to train; those of no
    split are to train."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        parts = [part for part in PART.split(name) if part]
        split = next((split for part in parts if (split := split_named(part))), "train")
        rest = "_".join(part for part in parts if not split_named(part))
        if rest in found.setdefault(split, {}):
            raise InputError(f"has two arrays {rest!r} to {split}, one of them {name}. Rename or remove one")
        found[split][rest] = array
    return found


def labels_beside(arrays: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Those of the arrays that have one value, (N,) or (N, 1), for each of so many pictures: as (N,)."""
    shapes = {(count,), (count, 1)}
    return {name: array.reshape(-1) for name, array in arrays.items() if array.shape in shapes and array.size}


def pictures_in(path: Path, read: Callable[[IO[bytes]], Any]) -> Iterator[tuple[str, Callable[[], Any], Any]]:
    """Each picture in a file: what it is called there, how it is read, and what the arrays beside it say of it."""
    found = read_arrays(path)
    names = {id(array): name for name, array in found.items()}
    stacks = [(arrays, array) for arrays in by_split(found).values() for array in arrays.values() if array.ndim > 1]
    stacks = [(arrays, array) for arrays, array in stacks if is_stack(array) or len(found) == 1]
    if not stacks:
        raise InputError("holds no pictures")
    for arrays, array in stacks:
        name = names[id(array)]
        pixels = stacked(name, array if is_stack(array) else array[None])
        labels = labels_beside(arrays, len(pixels))
        for place in range(len(pixels)):
            row = {label: values[place].item() for label, values in labels.items()}
            yield f"{name}:{place}", partial(of_array, read, pixels[place]), row


# ---- series --------------------------------------------------------------------------------------------------------

Row = dict[str, Any]
SERIES = "\0series"  # among arrays, by a name that none has


def rows_with(arrays: Mapping[str, np.ndarray], name: str) -> list[Row]:
    """A row for each entry of the array of that name, (N, …): this, and what arrays (N,) or (N, K) beside it say."""
    cells = arrays[name]
    beside = [(other, array) for other, array in arrays.items() if other != name and _says(array, len(cells))]
    columns = {column: _texts(values).tolist() for other, array in beside for column, values in _columns(other, array)}
    return [
        {name: cell, **{column: values[place] for column, values in columns.items()}}
        for place, cell in enumerate(cells)
    ]


def _says(array: np.ndarray, count: int) -> bool:
    return array.ndim in {1, 2} and len(array) == count and array.size <= BESIDE * count


def rows_by_split(listing: Listing, name: str) -> dict[str, list[Row]]:
    """Those of each split; InputError unless there is such an array."""
    found, places = read_placed(listing)
    if not any(name in part for part in found.values()):
        there = {each: array for part in found.values() for each, array in part.items()}
        raise InputError(
            f"preprocess.array {name!r}: there is no such array{meant(name, there)}; there are {shown(there)}"
        )
    parts = {split: found.get(split, {}) for split in ("train", "validation", "test")}
    return {split: _rows_of(part, name, places) if name in part else [] for split, part in parts.items()}


def _rows_of(part: Mapping[str, np.ndarray], name: str, places: Mapping[int, tuple[str, str]]) -> list[Row]:
    """`rows_with`, which know that they are entries of the array."""
    place = place_of(*places[id(part[name])])
    return [Line(row, place, number) for number, row in enumerate(rows_with(part, name))]


def place_of(file: str, array: str) -> str:
    """How the array of a series is called: that of a .npy file as this is."""
    return file if is_alone(Path(file)) else f"{file}:{array}"


# Of each array with series those of its split, its name there, and what stands before that of all in one place.
Found = list[tuple[dict[str, np.ndarray], str, tuple[str, ...]]]


def series_in(
    arrays: Mapping[str, np.ndarray], name: str, targets: Sequence[str], dimensions: int
) -> Iterator[tuple[str, int | None, Row]]:
    """Each series in arrays that a model is asked about: the name of its array, its number if in one, its row.

    They are in the arrays of that `name`, case aside, whatever their split and the file or folder that they lie in. Or
    else in all, where these can be nothing else: of so many `dimensions`, 2 or 3, or one less, which are a series each.
    In the row are the `targets`, where arrays beside have them. InputError where there are none.
    """
    called = {id(array): each for each, array in arrays.items()}
    parts = list(by_split(arrays).values())
    found = _named(parts, called, name) or _others(parts, called, targets, dimensions)
    if arrays and not found:
        raise InputError(
            f"holds no series, neither in an array {name} nor clearly in another: {shown(arrays)}. Call it {name}"
        )
    alone = Counter((id(part), before) for part, _, before in found)
    for part, each, before in found:
        one = part[each].ndim < dimensions
        around = _around(part, before) if not one or alone[id(part), before] == 1 else {}
        beside = {other: array for other, array in around.items() if array is not part[each]}
        if one:
            beside = {other: array.reshape(1) for other, array in beside.items() if array.size == 1}
        for number, row in enumerate(rows_with({**beside, SERIES: part[each][None] if one else part[each]}, SERIES)):
            told = {_as_told(column, targets): cell for column, cell in row.items() if column != SERIES}
            yield called[id(part[each])], None if one else number, {**told, name: row[SERIES]}


def _named(parts: Sequence[dict[str, np.ndarray]], called: Mapping[int, str], name: str) -> Found:
    """Those of that name; of several in one place, such as x and delta_x, those with the least before it."""
    found = [(part, each, before) for part in parts for each in part if (before := _before(each, name)) is not None]
    least: dict[tuple[int, str], int] = {}
    places = [(id(part), called[id(part[each])].rpartition("/")[0]) for part, each, _ in found]
    for place, (*_, before) in zip(places, found, strict=True):
        least[place] = min(least.get(place, len(before)), len(before))
    return [each for place, each in zip(places, found, strict=True) if len(each[2]) == least[place]]


def _others(
    parts: Sequence[dict[str, np.ndarray]], called: Mapping[int, str], targets: Sequence[str], dimensions: int
) -> Found:
    """All that have several numbers and are no target, if they have as many dimensions as series."""
    wanted = {*targets, *(target.rstrip("0123456789") for target in targets)}
    found = []
    for part in parts:
        for each, array in part.items():
            told = any(_before(each, target) is not None for target in wanted)
            if array.size > 1 and array.dtype.kind in "biuf" and not told:
                inside = len(_words(called[id(array)].rpartition("/")[2]))
                found.append((part, each, _words(each)[:-inside] if inside else _words(each)))
    counts = {part[each].ndim for part, each, _ in found}
    return found if len(counts) == 1 and dimensions - 1 <= min(counts) <= 3 else []


def _words(name: str) -> tuple[str, ...]:
    """The parts of a name but for those that say a split, case aside."""
    return tuple(part.casefold() for part in PART.split(name) if part and not split_named(part))


def _before(each: str, name: str) -> tuple[str, ...] | None:
    """What stands before a name in that of an array, as files and folders do; None where it is another."""
    words, wanted = _words(each), _words(name)
    return words[: -len(wanted)] if wanted and words[-len(wanted) :] == wanted else None


def _around(part: Mapping[str, np.ndarray], before: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays of one place, by the rest of their names."""
    found = {each: each.split("_") for each in part if _words(each)[: len(before)] == before}
    return {"_".join(words[len(before) :]): part[each] for each, words in found.items()}


def _as_told(column: str, targets: Sequence[str]) -> str:
    return next((target for target in targets if _before(column, target) == ()), column)
