"""Parsers on damaged and on made-up input: each answers with a value or with its documented error, and soon.

TORCHLOOM_FUZZ sets how many inputs there are in all; the inputs are the same each time.
"""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import pickle
import struct
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from torchloom.config import TablePreprocessConfig, TextPreprocessConfig
from torchloom.data import arrays, download
from torchloom.data.download import SourceError
from torchloom.data.readers import cifar10, diabetes, imdb, mnist, wonderland
from torchloom.data.text import split_words
from torchloom.datasets.onnx import ONNXDataset
from torchloom.datasets.raw import RawFiles, RawFilesDataset
from torchloom.datasets.reports import CSVDataset, JSONDataset, TextDataset
from torchloom.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")  # in damaged pickles

COUNT = int(os.environ.get("TORCHLOOM_FUZZ", "4000"))  # inputs in all
LONGEST = timedelta(seconds=10)  # for one input, on a machine with other work; most take less than a millisecond


# ---- what is parsed ------------------------------------------------------------------------------------------------


class Parser(NamedTuple):
    """`parse` takes a file of that name; `good` are contents that it reads, `others` more of its format."""

    name: str
    parse: Callable[[Path], Any]
    good: list[bytes]
    pack: Callable[[bytes], bytes] = bytes  # done to the contents after they were damaged
    others: tuple[bytes, ...] = ()


def tar(*files: tuple[str, bytes], kind: int = tarfile.GNU_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=kind) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()[:10_240]


def sealed(archive: bytes) -> bytes:
    """The archive with right checksums in whatever looks like a header, so that damaged ones are read too."""
    blocks = bytearray(archive)
    for start in range(0, len(blocks) - 511, 512):
        if blocks[start + 257 : start + 262] == b"ustar":
            blocks[start + 148 : start + 156] = b" " * 8
            blocks[start + 148 : start + 156] = b"%06o\0 " % sum(blocks[start : start + 512])
    return bytes(blocks)


def fast_xz(content: bytes) -> bytes:
    return lzma.compress(content, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 4096}])


def sparse(name: str) -> bytes:
    """An archive whose member says, in its attributes, that it has holes."""
    member = tarfile.TarInfo(name)
    member.size, member.pax_headers = 512, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "mtime": "1.5"}
    return member.tobuf(tarfile.PAX_FORMAT) + b"1\n0\n12\n".ljust(512, b"\0") + bytes(1024)


WANTED = b"what is wanted" * 20
DIGEST = "md5:" + hashlib.md5(WANTED).hexdigest()
LONG = "n" * 120
REVIEWS = [
    (f"aclImdb/{split}/{label}/7_9.txt", b"A good film.") for split in ("train", "test") for label in ("neg", "pos")
]
ARCHIVES = [
    tar(("data", WANTED), ("other", b"")),
    tar((LONG, b"x"), ("data", WANTED)),
    tar((LONG + "é", b"x"), ("./data", WANTED), kind=tarfile.PAX_FORMAT),
]
LINE = b'1\t9\t12\t"It\\u2019s a \\"good\\" film.<br />caf\xc3\xa9"'
TABLE = b"".join(b" ".join(b"%.4f" % (row * column) for column in range(1, 11)) + b"\n" for row in range(6))


RECORDS = np.array([(1, "a", 2.5, "2024-01-31")], [("n", ">i4"), ("word", "U3"), ("value", "f4"), ("day", "M8[D]")])


def numpy_file(*array: np.ndarray, **arrays: np.ndarray) -> bytes:
    saved = io.BytesIO()
    np.savez_compressed(saved, **arrays) if arrays else np.save(saved, *array)
    return saved.getvalue()


def unpack(path: Path) -> None:
    """Unpack what is wanted; nothing else may appear, in the folder or beside it."""
    target = path.parent / "target"
    before = sorted(path.parent.rglob("*"))
    try:
        download._unpack(path, target, path.name, ["data"], {"data": DIGEST})
        assert (target / "data").read_bytes() == WANTED
        (target / "data").unlink()
    finally:
        assert sorted(path.parent.rglob("*")) == [
            *before,
            *([target] if target.exists() and target not in before else []),
        ]


def read_sums(path: Path) -> None:
    sums = download._read_sums(path)
    assert all(isinstance(name, str) and digest.startswith("sha256:") for name, digest in sums.items())


def read_raw(module: Any, config: Any, other: tuple[str, bytes] | None = None) -> Callable[[Path], Any]:
    """A reader by the whole stage `preprocess`, with `other` lying beside the file."""

    def parse(path: Path) -> Any:
        if other:
            (path.parent / other[0]).write_bytes(other[1])
        names = [path.name, other[0]] if other else [path.name]
        *splits, info = module.preprocess(RawFiles(path.parent, dict.fromkeys(names, "")), config)
        json.dumps(info, allow_nan=False)
        assert all(np.isfinite(array).all() for split in splits for array in split.arrays.values())

    return parse


def read_archive(path: Path) -> None:
    for reviews in imdb.read_archive(path).values():
        assert all(review.label in (0, 1) and split_words(review.text) is not None for review in reviews)


def read_reviews(path: Path) -> None:
    assert all(review.text.isprintable() is not None for review in imdb._read_table(path))


def read_line(path: Path) -> None:
    review = imdb._from_line(path.read_bytes(), "line 1")
    assert review.text.encode().decode() == review.text
    assert 0 <= review.number < 10**9


def read_images(path: Path) -> None:
    images = mnist.read_idx(path, 3)
    assert images.ndim == 3
    assert images.dtype == np.uint8


def read_batch(path: Path) -> None:
    batch = cifar10.read_batch(path)
    assert batch.images.shape == (len(batch.labels), 32, 32, 3)
    assert batch.images.dtype == np.uint8


def read_names(path: Path) -> None:
    assert all(name.isprintable() for name in cifar10.read_class_names(path))


def read_table(path: Path) -> None:
    rows = CSVDataset(filepath=str(path)).load()
    assert all(isinstance(value, str) for row in rows for pair in row.items() for value in pair)


def small_model() -> bytes:
    w = onnx.numpy_helper.from_array(np.ones(3, np.float32), "w")
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3]) for name in "xy")
    branch = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["c"], value=w)], "inner", [], [y])
    nodes = [
        onnx.helper.make_node("Add", ["x", "w"], ["y"]),
        onnx.helper.make_node("If", ["x"], ["z"], then_branch=branch),
    ]
    made: bytes = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [x], [y], [w])).SerializeToString()
    return made


BATCHES = [
    pickle.dumps({"data": np.arange(3072, dtype=np.uint8).reshape(1, -1), "labels": [3], "of": b"\xe9"}, protocol)
    for protocol in range(5)
]
NAMES = [pickle.dumps({"label_names": ["cat", "dog"], "num_vis": 3072}, protocol) for protocol in range(6)]
REPORT = json.dumps([{"epoch": 1, "loss": 0.5, "names": ["é", "\n"], "none": None}]).encode()
ONE_LINE = b'"a, b",c\r\n'

PARSERS = {
    "images": Parser("idx", read_images, [struct.pack(">4B3I", 0, 0, 8, 3, 2, 3, 4) + bytes(24)]),
    "batch": Parser("batch", read_batch, BATCHES),
    "names": Parser("meta", read_names, NAMES),
    "reviews, packed": Parser(imdb.ARCHIVE, read_archive, [gzip.compress(tar(*REVIEWS), 1)]),
    "reviews": Parser(
        imdb.ARCHIVE, read_archive, [tar(*REVIEWS)], lambda content: gzip.compress(sealed(content), 0),
        (sparse(REVIEWS[0][0]),),
    ),
    "table of reviews, packed": Parser("train.tsv.xz", read_reviews, [fast_xz(LINE + b"\n")]),
    "table of reviews": Parser("train.tsv.xz", read_reviews, [(LINE + b"\n") * 2], fast_xz),
    "review": Parser("line", read_line, [LINE]),
    "book": Parser(wonderland.FILE, read_raw(wonderland, TextPreprocessConfig()), ["Alice é\r\n北京\n".encode() * 3]),
    "numbers": Parser(
        "diabetes_data_raw.csv",
        read_raw(diabetes, TablePreprocessConfig(), ("diabetes_target.csv", b"1\n2\n3\n4\n5\n6\n")),
        [TABLE],
    ),
    "files.json": Parser("files.json", lambda path: RawFilesDataset(filepath=str(path)).load(), [b'{"a/b": "md5:00"}']),
    "SHA256SUMS": Parser("SHA256SUMS", read_sums, [b"0" * 64 + b"  data\n" + b"1" * 64 + b" *more data\n"]),
    "file.gz": Parser("data.gz", unpack, [gzip.compress(WANTED)]),
    "file.bz2": Parser("data.bz2", unpack, [bz2.compress(WANTED)]),
    "file.xz": Parser("data.xz", unpack, [fast_xz(WANTED)]),
    "archive.tar": Parser("all.tar", unpack, ARCHIVES, sealed, (sparse("data"),)),
    "archive.tar, unsealed": Parser("all.tar", unpack, ARCHIVES),
    "archive.tar.gz": Parser("all.tar.gz", unpack, [gzip.compress(archive, 1) for archive in ARCHIVES]),
    "model.onnx": Parser("model.onnx", lambda path: ONNXDataset(filepath=str(path)).load(), [small_model()]),
    "report.json": Parser("report.json", lambda path: JSONDataset(filepath=str(path)).load(), [REPORT]),
    "report.csv": Parser("report.csv", read_table, [b"true,predicted\r\n" + ONE_LINE * 2]),
    "rows.npy": Parser("rows.npy", arrays.read_table, [numpy_file(np.arange(6.0).reshape(3, 2)), numpy_file(RECORDS)]),
    "rows.npz": Parser("rows.npz", arrays.read_table, [numpy_file(x=np.ones((2, 2)), y=np.array(["a", "ü"]))]),
    "report.txt": Parser("report.txt", lambda path: TextDataset(filepath=str(path)).load(), ["Alice é".encode()]),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory where there is such a place: a hundred thousand files are written."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        yield Path(name)


def check(folder: Path, parser: Parser, content: bytes) -> bool:
    """Parse it, and tell whether it was accepted; anything but a value or a documented error is raised."""
    home = folder / parser.name
    home.mkdir(exist_ok=True)
    path = home / parser.name
    path.write_bytes(parser.pack(content))
    try:
        parser.parse(path)
    except (InputError, SourceError):
        return False
    return True


def fuzz(share: float) -> Callable[[Any], Any]:
    return settings(
        max_examples=max(1, round(COUNT * share)),
        derandomize=True,
        database=None,
        deadline=LONGEST,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


# ---- damaged files -------------------------------------------------------------------------------------------------

KINDS = ["flip", "set", "cut", "insert", "remove", "repeat", "splice"]
PIECES = [b"\0", b"\xff", b"-1", b"9" * 20, b"\n", b"\x7f\xff\xff\xff", b"\x1b[31m", b"../", b"nan", b'"', b"["]


def damage(content: bytes, chance: Random) -> bytes:
    """`content` changed in one place."""
    place, other = (chance.randrange(len(content) + 1) for _ in range(2))
    end = place + chance.randrange(64)
    piece, kind = chance.choice(PIECES), chance.choice(KINDS)
    match kind:
        case "flip":
            flipped = bytes(byte ^ (1 << other % 8) for byte in content[place : place + 1])
            return content[:place] + flipped + content[place + 1 :]
        case "set":
            return content[:place] + piece + content[place + len(piece) :]
        case "cut":
            return content[:place]
        case "insert":
            return content[:place] + piece + content[place:]
        case "remove":
            return content[:place] + content[end:]
        case "repeat":
            return content[:place] + content[place:end] * 8 + content[end:]
        case _:
            return content[:place] + content[other : other + 64] + content[place:]


@pytest.mark.parametrize("name", PARSERS)
def test_good_files_are_read(folder: Path, name: str) -> None:
    parser = PARSERS[name]
    assert all(check(folder, parser, content) for content in parser.good)


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_files_do_no_harm(folder: Path, name: str) -> None:
    parser = PARSERS[name]
    accepted = []

    @fuzz(0.8 / len(PARSERS))
    @given(st.randoms(use_true_random=True))  # drawing every edit by itself would take most of the time
    def run(chance: Random) -> None:
        content = chance.choice([*parser.good, *parser.others])
        for _ in range(chance.randint(1, 3)):
            content = damage(content, chance)
        accepted.append(check(folder, parser, content))

    run()
    assert not all(accepted) or name == "SHA256SUMS"  # where what is no line is left out


# ---- made-up files -------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
SIZES = st.sampled_from([0, 1, 2, 3, 3072, 2**16, 2**31, 2**32 - 1])


@st.composite
def batches(draw: st.DrawFn) -> bytes:
    """Pickles of a batch's shape with anything in it."""
    kind = draw(st.sampled_from(["u1", "i1", "f4", "O", "U2", "b1"]))
    shape = draw(st.sampled_from([(1, 3072), (3072,), (0, 3072), (2, 3, 512), (), (1, 1, 3072)]))
    data = draw(st.just(np.zeros(shape, kind)) | VALUES)
    labels = draw(st.lists(st.integers(), max_size=2) | st.just([0]) | VALUES)
    batch = {"data": data, "labels": labels, draw(st.sampled_from(["label_names", ""])): draw(VALUES)}
    return pickle.dumps(draw(st.just(batch) | VALUES), draw(st.integers(0, 5)))


OPCODES = st.binary(min_size=1, max_size=1) | st.sampled_from(
    [
        b"}", b"]", b")", b"(", b"t", b"\x85", b"\x86", b"q\x00", b"h\x00", b"r\xff\xff\xff\x7f", b"\x94", b"s", b"u",
        b"e", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"c_codecs\nencode\n", b"R", b"b", b"\x81",
        b"K\x01", b"X\x04\0\0\0data", b"X\x06\0\0\0labels", b"\x8b\x02\0\0\0\xff\xff", b"I7\n", b"S'a'\n", b"0", b"2",
        b"N", b"\x93",
    ]
)  # fmt: skip

MADE_UP: dict[str, tuple[str, st.SearchStrategy[bytes]]] = {
    "batches": ("batch", batches()),
    "instructions": ("batch", st.lists(OPCODES, max_size=12).map(lambda parts: b"\x80\x02}" + b"".join(parts) + b".")),
    "sizes": (
        "images",
        st.tuples(SIZES, SIZES, SIZES, st.binary(max_size=12)).map(
            lambda parts: struct.pack(">4B3I", 0, 0, 8, 3, *parts[:3]) + parts[3]
        ),
    ),
    "values": ("report.json", VALUES.map(lambda value: json.dumps(value).encode())),
    "lists": ("files.json", VALUES.map(lambda value: json.dumps({"a": value}).encode())),
    "numbers": (
        "numbers",
        st.lists(st.lists(st.floats() | st.integers(), min_size=9, max_size=11), max_size=7).map(
            lambda rows: "\n".join(" ".join(map(str, row)) for row in rows).encode()
        ),
    ),
    "texts": ("book", st.text().map(lambda text: text.encode())),
    "rows": ("report.csv", st.text("ab,\"'\r\n\0é", max_size=40).map(str.encode)),
    "lines": (
        "review",
        st.tuples(st.sampled_from(["0", "1", "2", ""]), st.integers(-1, 11), st.integers(), VALUES).map(
            lambda parts: "\t".join([parts[0], str(parts[1]), str(parts[2]), json.dumps(parts[3])]).encode()
        ),
    ),
}


@pytest.mark.parametrize("name", MADE_UP)
def test_made_up_files_do_no_harm(folder: Path, name: str) -> None:
    parser, contents = MADE_UP[name]

    @fuzz(0.2 / len(MADE_UP))
    @given(contents)
    def run(content: bytes) -> None:
        check(folder, PARSERS[parser], content)

    run()
