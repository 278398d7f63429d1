"""Every kind of file that is read, and every kind of damage: one InputError that says what to do, nothing changed."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch

from torchloom.config import DataConfig, DocumentPreprocessConfig, TablePreprocessConfig, TextPreprocessConfig
from torchloom.data import download
from torchloom.data.readers import cifar10, diabetes, imdb, mnist, wonderland
from torchloom.data.targets import Classes
from torchloom.datasets.onnx import ONNXDataset
from torchloom.datasets.raw import AGAIN, RawFiles, RawFilesDataset, Source
from torchloom.datasets.reports import CSVDataset, JSONDataset, TextDataset
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.modalities import ImageInfo
from torchloom.training.checkpoint import RETRAIN, Checkpoint, CheckpointDataset
from torchloom.training.loaders import REBUILD, LoaderPlan, LoaderPlanDataset

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)) * 4
HTML = b"<!doctype html>\n<html><head><title>404 Not Found</title></head></html>\n"
NOBODY = 65534  # the user id


# ---- the kinds of file ---------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """`write` puts a good file, or several, into a folder; `read` reads the one called `name` from there."""

    name: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    again: str = AGAIN  # what the message ends with


def raw(read: Callable[[Path], Any], name: str) -> Callable[[Path], Any]:
    """A reader of a verified raw file."""
    return lambda folder: read(RawFiles(folder, {name: ""}).path(name))


def draw(module: Any, *counts: int) -> Callable[[Path], None]:
    return lambda folder: module.draw_sample(folder, *counts)


def write_tables(folder: Path) -> None:
    for name in imdb.TABLES.values():
        lines = (
            f'{label}\t{9 * label + 1}\t{number}\t"{"a good film " * 50}"\n' for number in (0, 1) for label in (0, 1)
        )
        (folder / name).write_bytes(lzma.compress("".join(lines).encode()))


def write_diabetes(folder: Path) -> None:
    values = np.random.default_rng(0).normal(size=(20, 10))
    np.savetxt(folder / "diabetes_data_raw.csv", values)
    np.savetxt(folder / "diabetes_target.csv", values[:, 0])


def read_all_of(module: Any, config: Any, *names: str) -> Callable[[Path], Any]:
    return lambda folder: module.preprocess(RawFiles(folder, dict.fromkeys(names, "")), config)


def report(kind: Any, name: str, content: Any, again: str) -> Kind:
    def dataset(folder: Path) -> Any:
        return kind(filepath=str(folder / name))

    return Kind(name, lambda folder: dataset(folder).save(content), lambda folder: dataset(folder).load(), again)


def small_model() -> bytes:
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [100]) for name in "xy")
    w = onnx.numpy_helper.from_array(np.ones(100, np.float32), "w")
    graph = onnx.helper.make_graph([node], "g", [x], [y], [w])
    serialised: bytes = onnx.helper.make_model(graph).SerializeToString()
    return serialised


TRAIN = "Run the stage that writes it again: kedro run --tags train"
PREPROCESS = "Run the stage that writes it again: kedro run --tags preprocess"
STAGE = "Run the stage that writes it again"
EXPORT = "Run the export stage again: kedro run --tags export_onnx"
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
BATCH, META = f"{cifar10.FOLDER}/test_batch", f"{cifar10.FOLDER}/batches.meta"
DIABETES = ("diabetes_data_raw.csv", "diabetes_target.csv")
HISTORY = "07_model_output/task/history.json"
INFO = "03_primary/data/info.json"
BOOK = wonderland.FILE
METRICS, TABLE, TEXT = (f"08_reporting/task/{name}" for name in ("metrics.json", "mistakes.csv", "sample_text.txt"))
REPREPARE = "Run the preprocess stage again: kedro run --tags preprocess"
SPLIT = Tensors({"images": np.zeros((3, 2, 2, 1), np.uint8), "labels": np.arange(3)})
SHAPE = ImageInfo(target=Classes(classes=["a", "b"]), shape=[1, 2, 2], mean=[0.5], std=[0.5])
CHECKPOINT = Checkpoint(
    network="mlp",
    arguments={},
    problem="classification",
    info=SHAPE,
    training={},
    weights={"weight": torch.ones(100)},
)
PLAN = LoaderPlan(
    splits={"train": [], "validation": [], "test": []}, info=SHAPE, data=DataConfig(), batch_size=10, seed=0
)

KINDS = {
    "images": Kind(IMAGES, draw(mnist, 20, 20), raw(lambda path: mnist.read_idx(path, 3), IMAGES)),
    "labels": Kind(LABELS, draw(mnist, 20, 20), raw(lambda path: mnist.read_idx(path, 1), LABELS)),
    "batch": Kind(BATCH, draw(cifar10, 10, 10), raw(cifar10.read_batch, BATCH)),
    "names": Kind(META, draw(cifar10, 10, 10), raw(cifar10.read_class_names, META)),
    "archive": Kind(imdb.ARCHIVE, draw(imdb, 20, 20), raw(imdb.read_archive, imdb.ARCHIVE)),
    "reviews": Kind("test.tsv.xz", write_tables, read_all_of(imdb, DocumentPreprocessConfig(), *imdb.TABLES.values())),
    "book": Kind(BOOK, draw(wonderland, 900), read_all_of(wonderland, TextPreprocessConfig(), BOOK)),
    "table": Kind(DIABETES[0], write_diabetes, read_all_of(diabetes, TablePreprocessConfig(), *DIABETES)),
    "target": Kind(DIABETES[1], write_diabetes, read_all_of(diabetes, TablePreprocessConfig(), *DIABETES)),
    "files": report(RawFilesDataset, "01_raw/mnist/files.json", RawFiles(Path(), {IMAGES: "md5:0"}), AGAIN),
    "history": report(JSONDataset, HISTORY, [{"epoch": 1, "loss": 0.5}], TRAIN),
    "info": report(JSONDataset, INFO, {"kind": "images", "target": {"classes": ["a", "b"]}}, PREPROCESS),
    "metrics": report(JSONDataset, METRICS, {"accuracy": 0.5}, STAGE),
    "csv": report(CSVDataset, TABLE, [{"true": "a, b", "predicted": "c"}] * 3, STAGE),
    "text": report(TextDataset, TEXT, "Alice é", STAGE),
    "onnx": report(ONNXDataset, "06_models/task/model.onnx", small_model(), EXPORT),
    "tensors": report(TensorsDataset, "03_primary/data/test.safetensors", SPLIT, REPREPARE),
    "checkpoint": report(CheckpointDataset, "06_models/task/checkpoint.safetensors", CHECKPOINT, f"{RETRAIN}."),
    "plan": report(LoaderPlanDataset, "05_model_input/task/dataloaders.json", PLAN, REBUILD),
}  # fmt: skip
RAW = "images labels batch names archive reviews book table target"


# ---- the kinds of damage -------------------------------------------------------------------------------------------


def rewrite(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x5A]) + data[middle + 1 :]


def begin(word: str) -> Callable[[Path], None]:
    """Put `word` in the place of a table's first number."""
    return rewrite(lambda data: word.encode() + data[re.search(rb"[ \n]", data).start() :])  # type: ignore[union-attr]


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    "empty": rewrite(lambda data: b""),
    "10 bytes": rewrite(lambda data: data[:10]),
    "half": rewrite(lambda data: data[: len(data) // 2]),
    "1 byte short": rewrite(lambda data: data[:-1]),
    "3 bytes short": rewrite(lambda data: data[:-3]),
    "1 byte long": rewrite(lambda data: data + b"?"),
    "a wrong byte": rewrite(flip),
    "PNG": rewrite(lambda data: PNG),
    "HTML": rewrite(lambda data: HTML),
    "pickle": rewrite(lambda data: b"\x80\x02]q\x00."),
    "zeros": rewrite(lambda data: bytes(len(data))),
    "directory": make_directory,
    "no rights": lambda path: path.chmod(0),
    "deep": rewrite(lambda data: b"[" * 100_000),
    "giant number": rewrite(lambda data: b'{"epoch": ' + b"9" * 10_000 + b"}"),
    "list": rewrite(lambda data: b"[1]"),
    "number": rewrite(lambda data: b'{"a": 1}'),
    "line twice": rewrite(lambda data: data + data[: data.index(b"\n") + 1]),
    "empty line": rewrite(lambda data: data + b"\n"),
    "empty field": rewrite(lambda data: data[data.index(b" ") :]),
    "comma": rewrite(lambda data: data.replace(b".", b",", 1)),
    **{word: begin(word) for word in ("nan", "-inf", "1e39")},
    "a quote open": rewrite(lambda data: data + b'"d'),
    "a column too many": rewrite(lambda data: data + b"1,2,3\r\n"),
    "bytes of latin1": rewrite(lambda data: "é".encode("latin1")),
}  # fmt: skip

SIZE = r"has \d+ bytes, but its header \([\d, ]+\) asks for \d+"
PICKLE = r"not a readable CIFAR-10 pickle \(.+\)"
MISSING = r"missing or damaged \(.+\)"
DAMAGED = r"damaged \(.+\)"

# what of it, how it is damaged, and what the message says between the file's name and what to do
CASES = [
    (RAW, "missing", "missing"),
    (RAW, "directory", r"cannot be read \(Is a directory\). Mend or remove it"),
    (RAW, "no rights", r"cannot be read \(Permission denied\). Mend or remove it"),
    ("images labels", "empty, PNG, HTML, zeros", r"not an IDX file of uint8 values in \d dimensions"),
    ("images labels", "half, 1 byte short, 1 byte long", SIZE),
    ("batch names", "empty, 10 bytes, half, 1 byte short, HTML, zeros", PICKLE),
    ("batch names", "PNG", "asks for the instruction PERSID, which no genuine CIFAR-10 file does; it was not loaded"),
    ("batch names", "pickle", "holds a list, not a dictionary"),
    ("archive reviews", "empty, 10 bytes, half, 1 byte short, 3 bytes short, a wrong byte, PNG, HTML, zeros", DAMAGED),
    ("reviews", "1 byte long", DAMAGED),
    ("book", "empty", "holds no text"),
    ("book", "PNG", r"not text in UTF-8 \(byte 0: invalid start byte\)"),
    ("table target", "empty", "holds no rows"),
    ("table target", "PNG, HTML", r"line 1: holds something else than numbers \(.+\)"),
    ("table target", "comma", r"line 1: holds something else than numbers \(.+\)"),
    ("table target", "nan, -inf, 1e39", "line 1: holds a number that is not finite in 32 bits"),
    ("table", "10 bytes", "line 1: has 1 columns, but should have 10"),
    ("table", "line twice", "has 21 rows, but diabetes_target.csv has 20"),
    ("table", "empty field", "line 1: has 9 columns, but should have 10"),
    ("table", "empty line", "line 21: has 0 columns, but should have 10"),
    ("target", "empty line", "line 21: has 0 columns, but should have 1"),
    ("files", "missing, empty, 10 bytes, half, 3 bytes short, PNG, HTML, directory, no rights, deep, giant number",
     r"not readable \(.+\)"),
    ("files", "list, number", "not a list of checksums"),
    ("history info metrics", "missing, empty, 10 bytes, half, 3 bytes short, PNG, HTML, zeros, directory, no rights",
     MISSING),
    ("history info metrics", "deep, giant number", MISSING),
    ("csv", "missing, empty, directory, no rights, PNG, a quote open, a column too many", MISSING),
    ("text", "missing, directory, no rights, PNG, bytes of latin1", MISSING),
    ("onnx", "missing, directory, no rights", r"\[Errno \d+\] .+"),
    ("onnx", "10 bytes, half, 1 byte short, 1 byte long, PNG, HTML, zeros, pickle", "damaged or not an ONNX model"),
    ("onnx", "empty", "not an ONNX model"),
    ("tensors checkpoint", "missing", "missing"),
    ("tensors checkpoint",
     "empty, 10 bytes, half, 1 byte short, 1 byte long, a wrong byte, PNG, HTML, zeros, pickle",
     r"damaged or not a file of ours \(.+\)"),
    ("plan", "missing", r"cannot be read \(No such file or directory\)"),
    ("tensors checkpoint plan", "directory", r"cannot be read \(Is a directory\)"),
    ("tensors checkpoint plan", "no rights", r"cannot be read \(Permission denied\)"),
    ("plan", "empty, 10 bytes, half, 3 bytes short, a wrong byte, PNG, HTML, zeros, deep, giant number, list, number",
     "is damaged or from another version"),
]  # fmt: skip
EACH = [
    pytest.param(kind, damage, message, id=f"{kind}: {damage}")
    for kinds, damages, message in CASES
    for kind in kinds.split()
    for damage in damages.split(", ")
]


@pytest.fixture
def open_path() -> Iterator[Path]:
    """As tmp_path, but any user may go there."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read everything; as nobody it may not."""
    root = os.geteuid() == 0
    os.seteuid(NOBODY) if root else None
    try:
        yield
    finally:
        os.seteuid(0) if root else None


def state(folder: Path) -> dict[str, Any]:
    """All that lies in a folder: its files' contents, and when and where they were written."""
    return {
        str(path): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) if path.is_file() else None
        for path in folder.rglob("*")
    }


def refusal(read: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as caught:
        read()
    return caught.value.message


@pytest.mark.parametrize(("kind", "damage", "message"), EACH)
def test_damage_is_named(open_path: Path, kind: str, damage: str, message: str) -> None:
    name, write, read, again = KINDS[kind]
    folder = open_path / "data"
    folder.mkdir()
    write(folder)
    assert read(folder) is not None  # whole
    path = folder / name
    DAMAGES[damage](path)
    before = state(folder)
    if damage == "no rights":
        with without_privileges():
            said = refusal(lambda: read(folder))
    else:
        said = refusal(lambda: read(folder))
    assert re.fullmatch(rf"{re.escape(str(path))}(: |, ){message}\. {re.escape(again)}", said), said
    assert state(folder) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_may_not_be_entered_is_named(open_path: Path, kind: str) -> None:
    _, write, read, again = KINDS[kind]
    folder = open_path / "data"
    folder.mkdir()
    write(folder)
    folder.chmod(0)
    with without_privileges():
        said = refusal(lambda: read(folder))
    assert re.fullmatch(rf"{re.escape(str(folder))}/.+Permission denied.+\. {re.escape(again)}", said), said


# ---- downloads -----------------------------------------------------------------------------------------------------

CONTENT = np.random.default_rng(0).bytes(5_000)


def tar_of(content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("data")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


PACK: dict[str, Callable[[bytes], bytes]] = {
    "data": lambda content: content,
    "data.gz": gzip.compress,
    "data.bz2": bz2.compress,
    "data.xz": lzma.compress,
    "data.tar": tar_of,
    "data.tar.gz": lambda content: gzip.compress(tar_of(content)),
    "data.tgz": lambda content: gzip.compress(tar_of(content)),
    "data.tar.bz2": lambda content: bz2.compress(tar_of(content)),
    "data.tar.xz": lambda content: lzma.compress(tar_of(content)),
}


def fetch(place: Path, target: Path, packed: str) -> RawFiles:
    digest = "md5:" + hashlib.md5(CONTENT).hexdigest()
    return download.download(Source("numbers", target, {"data": digest}, packed, [str(place)]))


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(download.MIRROR_VARIABLE, raising=False)


@pytest.mark.parametrize("damage", ["empty", "10 bytes", "half", "a wrong byte", "PNG", "HTML", "zeros", "directory"])
@pytest.mark.parametrize("packed", PACK)
def test_a_damaged_download_leaves_what_was_there(tmp_path: Path, packed: str, damage: str) -> None:
    place, target = tmp_path / "place", tmp_path / "target"
    place.mkdir()
    (place / packed).write_bytes(PACK[packed](CONTENT))
    assert fetch(place, tmp_path / "good", packed).path("data").read_bytes() == CONTENT
    DAMAGES[damage](place / packed)
    target.mkdir()
    (target / "data").write_bytes(b"of an earlier edition")
    before = state(tmp_path)
    lines = refusal(lambda: fetch(place, target, packed)).splitlines()
    assert lines[0] == "numbers: data could not be had. Tried:"
    reason = r"has neither data nor .+|has no data" if damage == "directory" else (
        rf"{re.escape(packed)} is damaged \(.+\)|data has the checksum md5:\w+, but should have md5:\w+"
        + (r"|data\.tar does not hold data" if packed == "data.tar" else "")  # nothing in it guards its bytes
    )  # fmt: skip
    assert re.fullmatch(rf"  - {re.escape(str(place))}: ({reason})", lines[1]), lines[1]
    assert state(tmp_path) == before


def test_a_directory_where_a_file_should_arrive(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "data").write_bytes(CONTENT)
    (tmp_path / "target" / "data" / "mine").mkdir(parents=True)
    assert "Is a directory" in refusal(lambda: fetch(tmp_path / "place", tmp_path / "target", "data"))
    assert [path.name for path in (tmp_path / "target").rglob("*")] == ["data", "mine"]


@pytest.mark.parametrize("damage", ["missing", "empty", "PNG", "HTML", "directory", "zeros", "no rights"])
def test_damaged_checksums_are_as_good_as_none(open_path: Path, damage: str) -> None:
    place, target = open_path / "place", open_path / "target"
    for folder in (place, target):
        folder.mkdir()
        (folder / "data").write_bytes(CONTENT)
        download.write_sums(folder)
        DAMAGES[damage](folder / download.SUMS)
        folder.chmod(0o777)
    before = state(open_path)
    with without_privileges():
        said = refusal(lambda: download.download(Source("numbers", target, {"data": None}, "{name}", [str(place)])))
    assert f"{place}: no published checksum, and no SHA256SUMS, for data" in said
    assert state(open_path) == before


def test_a_file_that_may_not_be_read_is_fetched_again(open_path: Path) -> None:
    place, target = open_path / "place", open_path / "target"
    for folder in (place, target):
        folder.mkdir()
        (folder / "data").write_bytes(CONTENT)
        folder.chmod(0o777)
    (target / "data").chmod(0)
    with without_privileges():
        assert fetch(place, target, "data").path("data").read_bytes() == CONTENT


def test_a_folder_that_may_not_be_entered_is_not_downloaded_to(open_path: Path) -> None:
    place, target = open_path / "place", open_path / "target"
    for folder in (place, target):
        folder.mkdir()
        (folder / "data").write_bytes(CONTENT)
    target.chmod(0)
    with without_privileges():
        assert f"{target}: cannot be written to (Permission denied)" in refusal(lambda: fetch(place, target, "data"))


def test_json_that_is_whole_but_another_list(tmp_path: Path) -> None:
    (tmp_path / "files.json").write_text(json.dumps({IMAGES: None}))
    assert "not a list of checksums" in refusal(RawFilesDataset(filepath=str(tmp_path / "files.json")).load)
