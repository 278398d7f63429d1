import codecs
import copyreg
import hashlib
import os
import pickle
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from torchloom.config import PreprocessConfig
from torchloom.data.download import SUMS
from torchloom.data.readers.cifar10 import (
    FOLDER,
    SHAPES,
    TRAIN_BATCHES,
    draw_sample,
    preprocess,
    read_batch,
    read_class_names,
    read_pickle,
)
from torchloom.datasets.raw import AGAIN, RawFiles
from torchloom.errors import InputError

TEST_BATCH = f"{FOLDER}/test_batch"
META = f"{FOLDER}/batches.meta"
ALL = [*TRAIN_BATCHES, TEST_BATCH, META]


def written(path: Path, content: Any, protocol: int = 2) -> Path:
    """`path` holding `content`: bytes as they are, anything else pickled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


def drawn(folder: Path, **options: int) -> Path:
    folder.mkdir()
    draw_sample(folder, **({"train": 100, "test": 20} | options))
    return folder


def refusal(path: Path, read: Callable[[Path], Any] = read_pickle) -> str:
    """What the InputError says between the file's name and what to do."""
    with pytest.raises(InputError) as caught:
        read(path)
    assert caught.value.message.startswith(f"{path}: ")
    return caught.value.message.removeprefix(f"{path}: ").removesuffix(f". {AGAIN}")


# ---- hostile files -------------------------------------------------------------------------------------------------


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class Grenade:
    """Touches the file that its pickled state names."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __setstate__(self, state: dict[str, str]) -> None:
        Path(state["marker"]).touch()


def touch(marker: Path) -> Call:
    return Call(os.system, f"touch {marker}")


EXTENSION = 241
HOSTILE: dict[str, Callable[[Path], bytes]] = {
    **{f"os.system, protocol {n}": lambda marker, n=n: pickle.dumps(touch(marker), n) for n in range(6)},
    "as a value": lambda marker: pickle.dumps({"data": [touch(marker)], "labels": []}, 2),
    "as a key": lambda marker: pickle.dumps({touch(marker): 0}, 2),
    "builtins.eval": lambda marker: pickle.dumps(Call(eval, f"open({str(marker)!r}, 'w').close()"), 2),
    "in an array of objects": lambda marker: pickle.dumps({"data": np.array([touch(marker)])}, 2),
    "as an array's shape": lambda marker: pickle.dumps(
        {"data": Call(np.ndarray(0).__reduce__()[0], np.ndarray, touch(marker), b"b")}, 2
    ),
    "state of another class": lambda marker: pickle.dumps({"data": Grenade(str(marker))}, 2),
    "instance opcode": lambda marker: f"(S'touch {marker}'\nios\nsystem\n.".encode(),
    "object opcode": lambda marker: f"(cos\nsystem\nS'touch {marker}'\no.".encode(),
    "dotted name": lambda marker: b"\x80\x04\x8c\x06shutil\x8c\x09os.system\x93" + f"(S'touch {marker}'\ntR.".encode(),
    "Python 2 name": lambda marker: f'c__builtin__\neval\n(S\'open("{marker}", "w").close()\'\ntR.'.encode(),
    "extension code": lambda marker: bytes([0x80, 2, 0x82, EXTENSION]) + f"(S'touch {marker}'\ntR.".encode(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_in_a_hostile_pickle_runs(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    path = written(tmp_path / "data_batch_1", HOSTILE[name](marker))
    copyreg.add_extension("os", "system", EXTENSION)
    try:
        message = refusal(path)
        assert not marker.exists()
        with suppress(Exception):
            pickle.loads(path.read_bytes(), encoding="latin1")
        assert marker.exists(), "this pickle would do nothing anyway"
    finally:
        copyreg.remove_extension("os", "system", EXTENSION)
    assert message.startswith("asks for ")
    assert message.endswith(", which no genuine CIFAR-10 file does; it was not loaded")


def test_the_refused_name_is_named(tmp_path: Path) -> None:
    assert "asks for 'posix.system', which " in refusal(written(tmp_path / "batch", touch(tmp_path / "marker")))


@pytest.mark.parametrize("content", [b"Pid\n.", b"K\x01Q."])
def test_persistent_ids_are_refused(tmp_path: Path, content: bytes) -> None:
    assert re.match(r"asks for the instruction (BIN)?PERSID, which ", refusal(written(tmp_path / "batch", content)))


# ---- damaged files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 1, 10, 200, 20_000, -1])
def test_a_truncated_batch_is_refused(tmp_path: Path, kept: int) -> None:
    path = drawn(tmp_path / "raw") / TEST_BATCH
    path.write_bytes(path.read_bytes()[:kept])
    assert refusal(path, read_batch).startswith("not a readable CIFAR-10 pickle (")


def array_state(shape: Any = (1, 4), name: str = "u1", fortran: Any = False, data: Any = b"abcd") -> bytes:
    """A pickle of {"data": a numpy array}, whatever its state."""

    class Standin:
        def __reduce__(self) -> tuple[Any, ...]:
            function, arguments, _ = np.zeros(0, np.uint8).__reduce__()
            return function, arguments, (1, shape, np.dtype(name), fortran, data)

    return pickle.dumps({"data": Standin()}, 2)


def test_an_array_state_is_read(tmp_path: Path) -> None:
    array = read_pickle(written(tmp_path / "batch", array_state()))["data"]
    np.testing.assert_array_equal(array, np.frombuffer(b"abcd", np.uint8).reshape(1, 4))


@pytest.mark.parametrize(
    "content",
    [
        array_state(name="f4", shape=(1,)),
        array_state(name="i1"),
        array_state(name="O", data=[1, 2, 3, 4]),
        array_state(fortran=True),
        array_state(data=None),
        array_state(data=[97, 98]),
        array_state(shape=(5,)),
        array_state(shape=(-1, 4)),
        array_state(shape=(-2, -2)),
        array_state(shape=(2.0, 2)),
        array_state(shape=4),
        b"}(X\x04\x00\x00\x00datacnumpy.core.multiarray\n_reconstruct\n(tRu.",  # an array without any state
        array_state(shape=(1,) * 99 + (4,)),  # more dimensions than numpy has
        array_state(shape=(0, 2**70), data=""),
        array_state(data=Call(codecs.encode, "abcd", "utf_7")),
    ],
)
def test_an_array_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    expected = "holds an array that is not plain uint8 values of the shape it states"
    assert refusal(written(tmp_path / "batch", content)) == expected


@pytest.mark.parametrize(
    "content",
    [
        b"garbage, not a pickle",
        b"\x1f\x8b\x08\x00 a gz",
        b"<!doctype html><title>404</title>",
        bytes(10_000),
        array_state(data="abc\u20ac"),  # not bytes that latin1 could have been
    ],
)
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    assert refusal(written(tmp_path / "batch", content)).startswith("not a readable CIFAR-10 pickle (")


@pytest.mark.parametrize("value", [[1, 2], "text", None, 3])
def test_anything_but_a_dictionary_is_refused(tmp_path: Path, value: Any) -> None:
    assert refusal(written(tmp_path / "batch", value)) == f"holds a {type(value).__name__}, not a dictionary"


ROWS = np.zeros((2, 3072), np.uint8)
WRONG_DATA = "'data' is not an array of 3,072 bytes a row"
WRONG_LABELS = "'labels' is not a list of 2 whole numbers"


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"labels": [0, 1]}, WRONG_DATA),
        ({"data": ROWS[:, 1:], "labels": [0, 1]}, WRONG_DATA),
        ({"data": ROWS.reshape(2, 3, 32, 32), "labels": [0, 1]}, WRONG_DATA),
        ({"data": ROWS[0], "labels": [0, 1]}, WRONG_DATA),
        ({"data": [0] * 3072, "labels": [0]}, WRONG_DATA),
        ({"data": ROWS}, WRONG_LABELS),
        ({"data": ROWS, "labels": [0]}, WRONG_LABELS),
        ({"data": ROWS, "labels": [0, 1, 2]}, WRONG_LABELS),
        ({"data": ROWS, "labels": (0, 1)}, WRONG_LABELS),
        ({"data": ROWS, "labels": [0, 1.0]}, WRONG_LABELS),
        ({"data": ROWS, "labels": [0, True]}, WRONG_LABELS),
        ({"data": ROWS, "labels": [0, "1"]}, WRONG_LABELS),
        ({"data": ROWS, "labels": [0, 2**63]}, "'labels' holds a number beyond 64 bits"),
    ],
)
def test_a_batch_of_the_wrong_shape_is_refused(tmp_path: Path, batch: dict[str, Any], message: str) -> None:
    assert refusal(written(tmp_path / "batch", batch), read_batch) == message


@pytest.mark.parametrize("meta", [{}, {"label_names": []}, {"label_names": "cat"}, {"label_names": ["cat", 1]}])
def test_class_names_must_be_names(tmp_path: Path, meta: dict[str, Any]) -> None:
    message = refusal(written(tmp_path / "batches.meta", meta), read_class_names)
    assert message == "'label_names' is not a list of names"


@pytest.mark.parametrize("name", ["cat", " ", "a\nb"])
def test_class_names_can_be_shown_and_told_apart(tmp_path: Path, name: str) -> None:
    message = refusal(written(tmp_path / "batches.meta", {"label_names": ["cat", "dog", name]}), read_class_names)
    assert message == f"the name {name!r} in 'label_names' is empty, not printable or there twice"


# ---- the format ----------------------------------------------------------------------------------------------------


def python2_pickle(data: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2's cPickle wrote it: protocol 2, every text and the array's bytes as a Python 2 str."""

    def text(value: str | bytes) -> bytes:
        value = value.encode() if isinstance(value, str) else value
        return (b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value))) + value

    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85" + text("b") + b"\x87R"
    dtype = b"cnumpy\ndtype\nq\x03" + text("u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"".join(b"M" + struct.pack("<H", size) for size in data.shape) + b"\x86"
    array += b"(K\x01" + shape + dtype + b"\x89" + text(data.tobytes()) + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text("data") + array + text("labels") + numbers + text("batch_label") + text("\xe9") + b"u."


def python3_pickle(data: np.ndarray, labels: list[int]) -> bytes:
    return pickle.dumps({"data": data, "labels": labels}, 2)


@pytest.mark.parametrize("pickled", [python2_pickle, python3_pickle])
def test_channels_rows_and_columns_come_where_they_belong(
    tmp_path: Path, pickled: Callable[[np.ndarray, list[int]], bytes]
) -> None:
    data = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
    batch = read_batch(written(tmp_path / "batch", pickled(data, [3, 0, 9])))
    assert batch.images.shape == (3, 32, 32, 3)
    assert batch.images.dtype == np.uint8
    assert batch.images.flags.c_contiguous
    for image, y, x, channel in np.ndindex(batch.images.shape):
        assert batch.images[image, y, x, channel] == data[image, channel * 1024 + y * 32 + x]
    assert batch.labels.dtype == np.int64
    assert batch.labels.tolist() == [3, 0, 9]


@pytest.mark.parametrize("protocol", range(5))
def test_every_protocol_is_read(tmp_path: Path, protocol: int) -> None:
    data = np.arange(6144).astype(np.uint8).reshape(2, 3072)
    content = read_pickle(written(tmp_path / "batch", {"data": data, "labels": [1, 2], "of": b"bytes"}, protocol))
    np.testing.assert_array_equal(content["data"], data)
    assert content["labels"] == [1, 2]


def test_torchvision_reads_drawn_files_alike(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "raw")

    def md5(name: str) -> tuple[str, str]:
        return Path(name).name, hashlib.md5((folder / name).read_bytes()).hexdigest()

    class Drawn(CIFAR10):
        train_list = [md5(name) for name in TRAIN_BATCHES]  # noqa: RUF012
        test_list = [md5(TEST_BATCH)]  # noqa: RUF012
        meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(META)[1]}  # noqa: RUF012

    for train, names in ((True, TRAIN_BATCHES), (False, [TEST_BATCH])):
        theirs = Drawn(folder, train=train)
        ours = [read_batch(folder / name) for name in names]
        np.testing.assert_array_equal(np.concatenate([batch.images for batch in ours]), theirs.data)
        assert np.concatenate([batch.labels for batch in ours]).tolist() == theirs.targets
        assert theirs.classes == read_class_names(folder / META)


# ---- drawn data ----------------------------------------------------------------------------------------------------


def test_drawn_data_depend_on_the_seed_alone(tmp_path: Path) -> None:
    one, same, other = (drawn(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    for name in [*ALL, SUMS]:
        assert (one / name).read_bytes() == (same / name).read_bytes()
    for name in [*TRAIN_BATCHES, TEST_BATCH]:
        assert (one / name).read_bytes() != (other / name).read_bytes()


def test_drawn_data_are_all_different_and_of_every_class(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "raw")
    batches = [read_batch(folder / name) for name in [*TRAIN_BATCHES, TEST_BATCH]]
    assert [np.bincount(batch.labels).tolist() for batch in batches] == [[2] * 10] * 6
    assert len({image.tobytes() for batch in batches for image in batch.images}) == 120
    assert len({tuple(batch.labels) for batch in batches}) == 6
    assert read_class_names(folder / META) == list(SHAPES)
    assert len(set(SHAPES)) == 10


# ---- preprocessing -------------------------------------------------------------------------------------------------


def test_batches_become_splits(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "raw")
    raw = RawFiles(folder, dict.fromkeys(ALL, ""))
    train, validation, test, info = preprocess(raw, PreprocessConfig(validation_fraction=0.2, seed=3))
    assert [len(part.arrays["labels"]) for part in (train, validation, test)] == [80, 20, 20]
    assert info["target"]["classes"] == list(SHAPES)
    assert info["shape"] == [3, 32, 32]
    np.testing.assert_array_equal(test.arrays["images"], read_batch(folder / TEST_BATCH).images)
    everything = [image.tobytes() for part in (train, validation) for image in part.arrays["images"]]
    source = [image.tobytes() for name in TRAIN_BATCHES for image in read_batch(folder / name).images]
    assert sorted(everything) == sorted(source)


@pytest.mark.parametrize(("name", "part"), [(TRAIN_BATCHES[4], "training"), (TEST_BATCH, "test")])
@pytest.mark.parametrize("label", [10, -1, 255])
def test_a_label_without_a_class_is_refused(tmp_path: Path, name: str, part: str, label: int) -> None:
    folder = drawn(tmp_path / "raw")
    written(folder / name, {"data": ROWS, "labels": [0, label]})
    message = rf"^the {part} data hold the label {label}, but there are only 10 classes \(0 to 9\)$"
    with pytest.raises(InputError, match=message):
        preprocess(RawFiles(folder, dict.fromkeys(ALL, "")), PreprocessConfig())
