"""Files made to do harm: none runs anything, writes outside its folder, takes memory or time without bound, or steers
the terminal."""

import bz2
import codecs
import copyreg
import gzip
import hashlib
import io
import json
import lzma
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from conftest import kedro_run
from torchloom.data import archives, download
from torchloom.data.readers import cifar10, imdb
from torchloom.data.readers.cifar10 import read_batch, read_class_names, read_pickle
from torchloom.datasets.onnx import ONNXDataset
from torchloom.datasets.raw import Source
from torchloom.errors import InputError, printable

ESCAPE = "\x1b[2J\x1b]0;title\x07\u202e\x9b31m\r"  # clears a terminal, names it, turns the text around


def refusal(read: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(*arguments)
    return caught.value.message


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# ---- pickles that call ---------------------------------------------------------------------------------------------

GENUINE = pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [3], "label_names": ["cat"]}, 2)
EXTENSION = 242


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("NEWOBJ", b"\x80\x02cos\nsystem\n(X\x05\x00\x00\x00touch\x85\x81."),
        ("NEWOBJ_EX", b"\x80\x04cos\nsystem\n)}\x92."),
        ("INST", b"(S'touch {}'\nios\nsystem\n."),
        ("OBJ", b"(cos\nsystem\nS'touch {}'\no."),
        ("EXT1", bytes([0x80, 2, 0x82, EXTENSION]) + b"(S'touch {}'\ntR."),
        ("EXT2", bytes([0x80, 2, 0x83, EXTENSION, 0]) + b"(S'touch {}'\ntR."),
        ("EXT4", bytes([0x80, 2, 0x84, EXTENSION, 0, 0, 0]) + b"(S'touch {}'\ntR."),
        ("PERSID", b"Pname\n."),
        ("BINPERSID", b"K\x01Q."),
        ("NEXT_BUFFER", b"\x80\x05\x97."),
        ("BYTEARRAY8", b"\x80\x05\x96" + struct.pack("<Q", 2) + b"ab."),
        ("DUP", b"}2s."),
        ("FROZENSET", b"\x80\x04(K\x01\x91."),
    ],
)
def test_instructions_that_no_genuine_file_has_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    marker = tmp_path / "marker"
    path = written(tmp_path / "batch", content.replace(b"{}", bytes(marker)))
    copyreg.add_extension("os", "system", EXTENSION)
    copyreg._extension_cache[EXTENSION] = os.system  # type: ignore[attr-defined]  # as if another pickle had used it
    try:
        assert f"asks for the instruction {name}, which no genuine" in refusal(read_pickle, path)
    finally:
        copyreg.remove_extension("os", "system", EXTENSION)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["cnumpy.core.multiarray\n_reconstruct\n", "cnumpy\ndtype\n", "c_codecs\nencode\n"])
@pytest.mark.parametrize(
    "state", [b"}(X\x05\x00\x00\x00statecnumpy\ndtype\nu", b"(N}(X\x09\x00\x00\x00argumentsK\x01ut"]
)
def test_a_pickle_leaves_nothing_behind_for_the_next(tmp_path: Path, name: str, state: bytes) -> None:
    before = [dict(vars(standin)) for standin in set(cifar10._STANDINS.values())]
    path = written(tmp_path / "batch", b"\x80\x02" + name.encode() + state + b"b.")
    refusal(read_pickle, path)
    assert [dict(vars(standin)) for standin in set(cifar10._STANDINS.values())] == before
    assert read_batch(written(path, GENUINE)).labels.tolist() == [3]


def test_bytes_are_encoded_as_latin1_alone(tmp_path: Path) -> None:
    genuine = pickle.dumps({"data": np.full((1, 3072), 200, np.uint8), "labels": [0]}, 2)
    assert read_batch(written(tmp_path / "a", genuine)).images.max() == 200
    other = genuine.replace(b"latin1", b"utf-16")
    assert "not plain uint8 values" in refusal(read_batch, written(tmp_path / "b", other))
    assert codecs.lookup("utf-16")  # which would have been a way


# ---- what grows ----------------------------------------------------------------------------------------------------


def xz_with_dictionary(content: bytes) -> bytes:
    """An .xz file that asks for a dictionary of 4 GiB."""
    packed = bytearray(lzma.compress(content))
    size = (packed[12] + 1) * 4  # of the block's header, in which byte 4 is the dictionary
    assert packed[14] == 0x21  # LZMA2
    packed[16] = 40
    packed[12 + size - 4 : 12 + size] = struct.pack("<I", zlib.crc32(packed[12 : 12 + size - 4]))
    return bytes(packed)


def header(kind: bytes, size: int, name: str = "aclImdb/test/neg/0_1.txt") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def zeros(mebibytes: int, pack: Callable[[bytes], bytes] = gzip.compress) -> bytes:
    """So many MiB, packed: gzip, bz2 and xz files may be strung together."""
    return pack(bytes(1 << 20)) * mebibytes


def pax(**keywords: str) -> bytes:
    member = tarfile.TarInfo("data")
    member.pax_headers = keywords
    return member.tobuf(tarfile.PAX_FORMAT)


def nested_key(levels: int, nest: bytes) -> bytes:
    return b"}" + b")" + nest * levels + b"K\x01s."


def sparse_of_old() -> bytes:
    """A header that says a list of holes follows, which goes on without end."""
    block = bytearray(header(tarfile.GNUTYPE_SPARSE, 512))
    block[482] = 1
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


GIANT, FAR = struct.pack("<Q", 1 << 36), struct.pack("<I", 1 << 29)
MANY = 300  # MiB
HOLES = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
SHAPE = (b"\x8b" + struct.pack("<i", 1 << 22) + b"\x7f" * (1 << 22)) * 2 + b"\x86"
BOMBS: dict[str, dict[str, Callable[[], bytes]]] = {
    "imdb.read_archive": {
        "a long name": lambda: gzip.compress(header(tarfile.GNUTYPE_LONGNAME, MANY << 20)) + zeros(MANY),
        "a long link": lambda: gzip.compress(header(tarfile.GNUTYPE_LONGLINK, MANY << 20)) + zeros(MANY),
        "attributes": lambda: gzip.compress(header(tarfile.XHDTYPE, MANY << 20)) + zeros(MANY),
        "global attributes": lambda: gzip.compress(header(tarfile.XGLTYPE, MANY << 20)) + zeros(MANY),
        "attributes of Solaris": lambda: gzip.compress(header(tarfile.SOLARIS_XHDTYPE, MANY << 20)) + zeros(MANY),
        "everything as a name": lambda: gzip.compress(header(tarfile.GNUTYPE_LONGNAME, -512)) + zeros(MANY),
        "a list of holes": lambda: (
            gzip.compress(pax(**HOLES) + b"900000000\n" + b"1\n" * 251) + gzip.compress(b"1\n" * (1 << 19)) * MANY
        ),
        "a list of holes of old": lambda: gzip.compress(sparse_of_old()) + gzip.compress(b"1" * (1 << 20)) * MANY,
        "a size beyond all": lambda: gzip.compress(header(tarfile.REGTYPE, 1 << 70, "other")),
        "a size below nothing": lambda: gzip.compress(pax(size="-2048") + bytes(4096)),
        "long names in each other": lambda: gzip.compress((header(tarfile.GNUTYPE_LONGNAME, 512) + bytes(512)) * 5_000),
    },
    "imdb.read_tables": {
        "a dictionary of 4 GiB": lambda: xz_with_dictionary(b'0\t1\t5\t"text"\n'),
        "one line": lambda: lzma.compress(b'0\t1\t5\t"') + lzma.compress(b"x" * (1 << 20)) * MANY + lzma.compress(b'"'),
    },
    "cifar10.read_batch": {
        "a far place in the memo": lambda: b"}r" + FAR + b".",
        "a far place in decimal": lambda: b"}p%d\n." % (1 << 29),
        "bytes of 64 GiB": lambda: b"\x80\x04\x8e" + GIANT + b"ab.",
        "a text of 64 GiB": lambda: b"\x80\x04\x8d" + GIANT + b"ab.",
        "a frame of 64 GiB": lambda: b"\x80\x04\x95" + GIANT + b"}.",
        "a number of 2 GiB": lambda: b"\x80\x02\x8b\xff\xff\xff\x7fab.",
        "a key that doubles": lambda: nested_key(60, b"q\x00h\x00\x86"),
        "a key that is deep": lambda: nested_key(3_000_000, b"\x85"),
        "lists by the million": lambda: b"}(" + b"]" * 30_000_000 + b"u.",
        "a shape of giant numbers": lambda: GENUINE.replace(b"K\x01M\x00\x0c\x86", SHAPE),
        "too large a file": lambda: bytes(cifar10.LARGEST_BATCH + 1),
    },
    "mnist.read_idx": {
        "sizes beyond all": lambda: b"\0\0\x08\x03" + b"\xff" * 12,
        "sizes of 256 TiB": lambda: b"\0\0\x08\x03" + b"\0\0\xff\xff" * 3,
    },
}
READER = """
import resource, sys, time
from pathlib import Path
from torchloom.data.readers import cifar10, imdb, mnist
from torchloom.data.download import RawFiles
from torchloom.errors import InputError

readers = {
    "imdb.read_archive": imdb.read_archive,
    "imdb.read_tables": lambda path: list(imdb._read_table(path)),
    "cifar10.read_batch": cifar10.read_batch,
    "mnist.read_idx": lambda path: mnist.read_idx(path, 3),
}
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
for line in sys.stdin:
    name, path = line.rstrip("\\n").split("\\t")
    Path("/proc/self/clear_refs").write_text("5")  # start the peak anew
    before, started = peak(), time.process_time()
    try:
        readers[name](Path(path))
        said = "read"
    except InputError as error:
        said = "InputError " + error.message.replace("\\n", " ")
    except BaseException as error:
        said = repr(error)[:200]
    print((peak() - before) >> 10, time.process_time() - started, said, sep="\\t", flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[int, float, str]]:
    """What became of each bomb, read one after the other in one process: MiB taken, seconds, and what was said."""
    folder = tmp_path_factory.mktemp("bombs")
    ends = {"imdb.read_archive": "tar.gz", "imdb.read_tables": "tsv.xz"}
    found = {}
    with subprocess.Popen(
        [sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        for name, bombs in BOMBS.items():
            for title, make in bombs.items():
                path = written(folder / f"bomb.{ends.get(name, 'bin')}", make())
                reader.stdin.write(f"{name}\t{path}\n")
                memory, seconds, said = (reader.stdout.readline().rstrip("\n") or "0\t0\tcrashed").split("\t", 2)
                found[name, title] = int(memory), float(seconds), said
        reader.stdin.close()
    return found


@pytest.mark.xdist_group("bombs")
@pytest.mark.parametrize(("name", "title"), [(name, title) for name, bombs in BOMBS.items() for title in bombs])
def test_bombs_are_defused(outcomes: dict[tuple[str, str], tuple[int, float, str]], name: str, title: str) -> None:
    memory, seconds, said = outcomes[name, title]
    assert said.startswith("InputError ")
    assert "MemoryError" not in said
    assert memory < 250, f"took {memory} MiB: {said}"
    assert seconds < 5, said


def test_zeros_after_the_last_review_come_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imdb, "LARGEST", 8 << 20)
    assert "damaged (it never ends)" in refusal(imdb.read_archive, written(tmp_path / imdb.ARCHIVE, zeros(50)))


@pytest.mark.parametrize("limit", ["LARGEST", "MOST_REVIEWS"])
def test_a_table_of_more_reviews_than_there_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    line = b'0\t1\t5\t"text"\n'
    monkeypatch.setattr(imdb, limit, {"LARGEST": 10 * len(line), "MOST_REVIEWS": 10}[limit])
    table = written(tmp_path / "train.tsv.xz", lzma.compress(line * 11))
    assert refusal(lambda: list(imdb._read_table(table))).startswith(f"{table}: has more than ")
    assert len(list(imdb._read_table(written(table, lzma.compress(line * 10))))) == 10


# ---- archives that are unpacked ------------------------------------------------------------------------------------

DATA = b"what is wanted" * 100
DIGEST = "md5:" + hashlib.md5(DATA).hexdigest()


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(download.MIRROR_VARIABLE, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def archive(*others: tarfile.TarInfo) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as content:
        for other in others:
            content.addfile(other, io.BytesIO(bytes(other.size)))
        member = tarfile.TarInfo("data")
        member.size = len(DATA)
        content.addfile(member, io.BytesIO(DATA))
    return packed.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def unpack(folder: Path, packed: bytes, name: str = "all.tar.gz", digest: str | None = DIGEST) -> Path:
    written(folder / "place" / name, packed)
    source = Source("numbers", folder / "target", {"data": digest}, name, [str(folder / "place")])
    return download.download(source).path("data")


PACK = {"all.tar": bytes, "all.tar.gz": gzip.compress, "all.tar.bz2": bz2.compress, "all.tar.xz": lzma.compress}


@pytest.mark.parametrize("name", PACK)
@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"?"])
def test_only_what_is_wanted_is_made(tmp_path: Path, name: str, kind: bytes) -> None:
    assert unpack(tmp_path, PACK[name](archive(member("other", kind), member("data", kind))), name).read_bytes() == DATA
    assert [path.name for path in (tmp_path / "target").rglob("*")] == ["data"]


@pytest.mark.parametrize("name", PACK)
@pytest.mark.parametrize(
    "evil",
    [member("../evil"), member("/tmp/../evil"), member("x", tarfile.SYMTYPE, "/"), member("x", tarfile.LNKTYPE, "..")],
)
def test_an_archive_that_reaches_out_is_refused_however_packed(
    tmp_path: Path, name: str, evil: tarfile.TarInfo
) -> None:
    assert "refused as a whole" in refusal(unpack, tmp_path, PACK[name](archive(evil)), name)
    assert not list((tmp_path / "target").rglob("*"))


def test_an_archive_of_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = gzip.compress(archive(*(member(f"{number}") for number in range(100))))
    assert unpack(tmp_path, many).read_bytes() == DATA
    monkeypatch.setattr(archives, "MOST_MEMBERS", 100)
    (tmp_path / "target" / "data").unlink()
    assert "or 100 members" in refusal(unpack, tmp_path, many)


def test_members_do_not_pile_up(tmp_path: Path) -> None:
    many = io.BytesIO(archive(*(member(f"{number}") for number in range(3_000))))
    tracemalloc.start()
    try:
        assert sum(1 for _ in archives.walk_tar(many)) == 3_001
        assert tracemalloc.get_traced_memory()[1] < 500_000  # bytes; 2,000,000 if all were kept
    finally:
        tracemalloc.stop()


def test_of_two_files_of_one_name_the_last_counts(tmp_path: Path) -> None:
    assert unpack(tmp_path, gzip.compress(archive(member("data", size=10)))).read_bytes() == DATA


# ---- hosts ---------------------------------------------------------------------------------------------------------


def serve(respond: Callable[[BaseHTTPRequestHandler], None], fetch: Callable[[str], Any]) -> Any:
    """What `fetch` makes of a host that answers in this way."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            respond(self)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            return fetch(f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()


def said_of(folder: Path, respond: Callable[[BaseHTTPRequestHandler], None]) -> str:
    def fetch(url: str) -> str:
        return refusal(download.download, Source("numbers", folder, {"data": DIGEST}, "{name}", [url]))

    message: str = serve(respond, fetch)
    return message


def test_a_host_that_never_ends_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(bytes(1 << 20))
        except OSError:  # at last
            pass

    monkeypatch.setattr(download, "LARGEST_FILE", 20 << 20)
    assert "data has more than 0 GiB; refused" in said_of(tmp_path / "target", respond)
    assert not list((tmp_path / "target").rglob("data"))


@pytest.mark.parametrize("length", ["many", "-5", "9" * 5000, "\xb2"])
def test_a_length_that_is_none(tmp_path: Path, length: str) -> None:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", length)
        handler.end_headers()
        handler.wfile.write(b"other")

    assert said_of(tmp_path / "target", respond).startswith("numbers: data could not be had. Tried:\n  - http://")


def test_a_host_cannot_steer_the_terminal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    message = said_of(tmp_path / "target", lambda handler: handler.send_error(404, "\x1b[2J\x1b]0;title\x07"))
    assert r"HTTP Error 404: \x1b[2J\x1b]0;title\x07" in message
    assert "\x1b" not in message + caplog.text


@pytest.mark.parametrize("version", ["v\n1", "\u20ac", "[" * 100_000])
def test_a_damaged_note_on_what_to_resume(tmp_path: Path, version: str) -> None:
    target = tmp_path / "target"
    written(target / ".partial" / "data", DATA[:100])

    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        handler.wfile.write(DATA)

    def fetch(url: str) -> Any:
        note = version if version[0] == "[" else json.dumps({"url": f"{url}/data", "version": version})
        written(target / ".partial" / "data.json", note.encode())
        return download.download(Source("numbers", target, {"data": DIGEST}, "{name}", [url])).path("data").read_bytes()

    assert serve(respond, fetch) == DATA


@pytest.mark.parametrize(
    "place", ["https://[bad/", "https://a..b/", "http://" + "a" * 300, "https://host:port/", "http://\n"]
)
def test_a_place_that_is_no_url(tmp_path: Path, place: str) -> None:
    assert "data could not be had" in refusal(
        download.download, Source("numbers", tmp_path, {"data": DIGEST}, "{name}", [place])
    )


# ---- names that steer a terminal -----------------------------------------------------------------------------------


def test_an_error_prints_no_control_characters() -> None:
    message = InputError(f"one: {ESCAPE}\ntwo\t\ud800 映画 é").message
    assert message == "one: \\x1b[2J\\x1b]0;title\\x07\\u202e\\x9b31m\\r\ntwo\\t\\ud800 映画 é"
    assert str(InputError(message).message) == message  # once is enough
    message.encode()


def test_an_overlong_line_keeps_its_beginning_and_its_end() -> None:
    message = InputError("file: holds " + "x" * 10_000_000 + ". Run: again\nsecond line").message
    assert len(message) < 2_100
    assert message.startswith("file: holds xxx")
    assert message.endswith("x. Run: again\nsecond line")


@pytest.mark.parametrize(
    "name", [f"../{ESCAPE}", f"aclImdb/test/neg/{ESCAPE[:-1]}.txt", "aclImdb/test/neg/5_1.txt\nall is well"]
)
def test_names_in_archives_are_printable(tmp_path: Path, name: str) -> None:
    packed = gzip.compress(archive(member(name, size=1)))
    path = written(tmp_path / imdb.ARCHIVE, packed)
    said = [refusal(unpack, tmp_path, packed)] if name.startswith("..") else []
    said += [refusal(imdb.read_archive, path)] if "neg/\x1b" in name else []
    for message in said:
        assert all(map(str.isprintable, message.split("\n")))
        assert "\\x1b[2J" in message
    if not said:
        assert imdb.read_archive(path) == {"train": [], "test": []}  # no name of a review


@pytest.mark.parametrize("names", [["cat", ESCAPE], ["cat", ""], ["cat", " "], ["cat", "dog", "cat"], ["a\nb"]])
def test_class_names_are_printable_and_different(tmp_path: Path, names: list[str]) -> None:
    message = refusal(read_class_names, written(tmp_path / "batches.meta", pickle.dumps({"label_names": names}, 2)))
    assert message.isprintable()
    assert "in 'label_names' is empty, not printable or there twice" in message


def test_names_in_pickles_are_printable(tmp_path: Path) -> None:
    name = f"os\n{ESCAPE}".encode()
    content = b"\x80\x04\x8c" + bytes([len(name)]) + name + b"\x8c\x01x\x93."
    message = refusal(read_pickle, written(tmp_path / "batch", content))
    assert message.isprintable()
    assert "asks for 'os" in message


def test_names_among_checksums_lead_nowhere(tmp_path: Path) -> None:
    sums = f"{'0' * 64}  ../evil\n{'0' * 64}  {ESCAPE}\n{'x' * 64}  data\n"
    written(tmp_path / "place" / download.SUMS, sums.encode())
    message = refusal(unpack, tmp_path, DATA, "data", None)
    assert all(map(str.isprintable, message.split("\n")))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["SHA256SUMS", "SHA256SUMS", "data", "place", "target"]
    assert printable(message) == message


# ---- models that look elsewhere ------------------------------------------------------------------------------------


def tensor(name: str = "w", location: str | None = "/etc/passwd") -> onnx.TensorProto:
    made = onnx.numpy_helper.from_array(np.ones(2, np.float32), name)
    if location is not None:
        made.ClearField("raw_data")
        made.data_location = onnx.TensorProto.EXTERNAL
        made.external_data.add(key="location", value=location)
    return made


def model(initializer: Any = (), nodes: Any = (), sparse: Any = (), functions: Any = ()) -> bytes:
    add = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy")
    graph = onnx.helper.make_graph([add, *nodes], "g", [x], [y], list(initializer), sparse_initializer=list(sparse))
    made: bytes = onnx.helper.make_model(graph, functions=list(functions)).SerializeToString()
    return made


def inner_graph() -> onnx.GraphProto:
    return onnx.helper.make_graph([], "inner", [], [], [tensor()])


def untyped(node: onnx.NodeProto) -> onnx.NodeProto:
    node.attribute[0].ClearField("type")
    return node


CONSTANT = onnx.helper.make_node("Constant", [], ["c"], value=tensor())
MODELS: dict[str, bytes] = {
    "absolute": model([tensor()]),
    "climbing": model([tensor(location="../../secret")]),
    "beside it": model([tensor(location="weights.bin")]),
    "in a node": model(nodes=[CONSTANT]),
    "in a branch": model(nodes=[onnx.helper.make_node("If", ["c"], ["d"], then_branch=inner_graph())]),
    "in an untyped branch": model(
        nodes=[untyped(onnx.helper.make_node("If", ["c"], ["d"], then_branch=inner_graph()))]
    ),
    "in a function": model(
        functions=[onnx.helper.make_function("own", "F", [], ["c"], [CONSTANT], [onnx.helper.make_opsetid("", 20)])]
    ),
    "sparse": model(sparse=[onnx.SparseTensorProto(values=tensor(), indices=tensor("i", None), dims=[2])]),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_with_weights_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    dataset = ONNXDataset(filepath=str(tmp_path / "model.onnx"))
    dataset.save(model([tensor(location=None)]))
    assert dataset.load() == model([tensor(location=None)])
    dataset.save(MODELS[name])
    assert "its tensor 'w' lies in another file, which could be any; not loaded" in refusal(dataset.load)


# ---- configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:os.system"]
)
def test_yaml_calls_nothing(project: Path, tag: str) -> None:
    marker = project / "marker"
    (project / "conf" / "local" / "parameters.yml").write_text(f'mnist_mlp:\n  train: {tag} ["touch {marker}"]\n')
    with pytest.raises(InputError, match="could not determine a constructor for the tag"):
        kedro_run(project, "mnist_mlp", env="local")
    assert not marker.exists()


def test_yaml_aliases_do_not_multiply(project: Path) -> None:
    """Nine aliases of nine aliases of … would be a few billion values."""
    levels = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 11))]
    path = project / "conf" / "local" / "parameters.yml"
    path.write_text("\n".join(levels))
    with pytest.raises(InputError, match=rf"{path.name}: has 90 aliases \(\*name\), more than 20\."):
        kedro_run(project, "mnist_mlp", env="local")
