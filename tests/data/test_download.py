import base64
import errno
import gzip
import hashlib
import io
import json
import re
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from torchloom.data import download
from torchloom.data import web as web_module
from torchloom.data.download import SUMS, write_sums
from torchloom.data.readers import cifar10, imdb, mnist, wonderland
from torchloom.datasets.raw import MIRROR_VARIABLE, Form, RawFiles, RawFilesDataset, Source, SourceDataset
from torchloom.errors import InputError

IMAGES = np.random.default_rng(0).bytes(30_000)  # does not compress, so that a part of it is a part of its gz
LABELS = np.random.default_rng(1).bytes(2_000)
FILES = {"images": IMAGES, "batch/labels": LABELS}
MD5 = "md5:" + hashlib.md5(IMAGES).hexdigest()
PUBLISHED: dict[str, str | None] = {"images": MD5, "batch/labels": "sha256:" + hashlib.sha256(LABELS).hexdigest()}
FETCH = {"plain": "{name}", "gz": "{name}.gz", "tar": "data.tar.gz"}
KINDS = list(FETCH)


def tar(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    """A .tar.gz of files (name, contents) and of members without contents."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return packed.getvalue()


def offer(kind: str, files: dict[str, bytes] = FILES) -> dict[str, bytes]:
    """What a place holds that offers `files` plain, each as a .gz or together in an archive."""
    if kind == "tar":
        return {"data.tar.gz": tar(*files.items())}
    if kind == "gz":
        return {f"{name}.gz": gzip.compress(data) for name, data in files.items()}
    return dict(files)


def lay(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def held(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`; an empty folder counts as a file too, so that nothing is overlooked."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {
        name: b"" if path.is_dir() else path.read_bytes()
        for name, path in found.items()
        if path.is_file() or not any(path.iterdir())
    }


class Request(NamedTuple):
    path: str
    range: str | None
    condition: str | None  # If-Range
    status: int
    sent: int  # bytes


@dataclass
class Web:
    """A server of `files`, and what it was asked."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    version: tuple[str, str] = ("ETag", '"v1"')
    ranges: bool = True
    cut: int | None = None  # the connection ends after that many bytes of an answer
    busy: list[tuple[int, str | None]] = field(default_factory=list)  # what is answered first, and Retry-After
    cuts: list[int] = field(default_factory=list)  # likewise, after how many bytes the connection ends
    requests: list[Request] = field(default_factory=list)
    logins: list[str | None] = field(default_factory=list)

    def answer(self, path: str, headers: Any) -> tuple[int, dict[str, str], bytes]:
        self.logins.append(headers["Authorization"])
        if self.busy:
            status, later = self.busy.pop(0)
            return status, {"Content-Length": "0"} | ({"Retry-After": later} if later else {}), b""
        body = self.files.get(path)
        if body is None:
            return 404, {"Content-Length": "0"}, b""
        start, status = 0, 200
        fields = dict([self.version])
        if headers["Range"] and self.ranges and headers["If-Range"] in {None, self.version[1]}:
            start = int(headers["Range"].removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(body) else 416
            last = len(body) - 1
            fields["Content-Range"] = f"bytes {start}-{last}/{last + 1}" if status == 206 else f"bytes */{last + 1}"
        fields["Content-Length"] = str(len(body[start:]))
        return status, fields, body[start:][: self.cuts.pop(0) if self.cuts else self.cut]


@pytest.fixture
def web() -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path[1:]
            status, fields, body = site.answer(path, self.headers)
            site.requests.append(Request(path, self.headers["Range"], self.headers["If-Range"], status, len(body)))
            self.send_response(status)
            for name, value in fields.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site = Web(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "01_raw" / "numbers"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(web_module, "TRIES", 1)


def source(target: Path, *places: Path | str, kind: str = "plain", **changes: Any) -> Source:
    options: dict[str, Any] = {"files": PUBLISHED, "fetch": FETCH[kind], "mirror": "numbers"} | changes
    return Source(target.name, target, places=[str(place) for place in places], **options)


def fetch(*arguments: Any, **options: Any) -> RawFiles:
    return download.download(source(*arguments, **options))


def refusal(*arguments: Any, **options: Any) -> str:
    """The message of the InputError that the download ends with."""
    with pytest.raises(InputError) as caught:
        fetch(*arguments, **options)
    return caught.value.message


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


# ---- where files come from -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["folder", "file", "http"])
def test_files_arrive_and_nothing_else(tmp_path: Path, target: Path, web: Web, place: str, kind: str) -> None:
    folder = lay(tmp_path / "with space", offer(kind))
    web.files = {f"data/{name}": data for name, data in offer(kind).items()}
    url = {"folder": str(folder), "file": folder.as_uri(), "http": web.url + "/data/"}[place]
    raw = fetch(target, url, kind=kind)
    assert raw == RawFiles(target, PUBLISHED)
    assert held(target) == FILES
    assert raw.path("batch/labels") == target / "batch/labels"


def test_only_what_was_asked_for_is_unpacked(tmp_path: Path, target: Path) -> None:
    packed = tar(("./images", IMAGES), ("readme", b"more"), ("batch/labels", LABELS))
    fetch(target, lay(tmp_path / "place", {"data.tar.gz": packed}), kind="tar")
    assert held(target) == FILES


def test_falls_through_to_the_place_that_has_the_files(
    tmp_path: Path, target: Path, web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = lay(tmp_path / "damaged", offer("gz", dict.fromkeys(FILES, b"other")))
    web.files = {"images.gz": offer("gz")["images.gz"]}  # and no labels
    good = lay(tmp_path / "good", {"batch/labels": LABELS})
    fetch(target, tmp_path / "nowhere", damaged, closed_port(), web.url, good, kind="gz")
    assert [(request.path, request.status) for request in web.requests] == [
        ("images.gz", 200),
        ("batch/labels.gz", 404),
    ]
    assert held(target) == FILES
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 5
    assert warnings[0] == f"{tmp_path / 'nowhere'}: no such folder"
    assert warnings[1].startswith(f"{damaged}: images has the checksum md5:")
    assert warnings[4] == f"{web.url}: HTTP Error 404: Not Found"


def test_mirror_is_tried_first(tmp_path: Path, target: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.files = offer("plain")
    lay(tmp_path / "mirror" / "numbers", {"images": IMAGES})
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path / "mirror"))
    assert fetch(target, web.url).checksums == PUBLISHED
    assert [request.path for request in web.requests] == ["batch/labels"]  # which the mirror lacks
    assert held(target) == FILES


def test_a_source_without_a_place_in_the_mirror_leaves_it_out(
    tmp_path: Path, target: Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MIRROR_VARIABLE, str(lay(tmp_path / "mirror", FILES)))
    assert source(target, web.url, mirror=None).all_places() == [web.url]


def test_a_silent_host_counts_as_unreachable(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_module, "TIMEOUT", 0.1)
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        fetch(target, f"http://127.0.0.1:{silent.getsockname()[1]}", lay(tmp_path / "good", FILES))
    assert held(target) == FILES
    assert time.monotonic() - started < 5


# ---- resuming ------------------------------------------------------------------------------------------------------


# ---- what the web is like ------------------------------------------------------------------------------------------


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Four tries of each file, and for how long was waited between them, which takes no time here."""
    slept: list[float] = []
    monkeypatch.setattr(web_module, "TRIES", 4)
    monkeypatch.setattr(web_module.time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize(("status", "later", "waited"), [(429, "7", 7), (503, None, 1), (502, "100000", 60)])
def test_a_busy_server_is_asked_again(
    target: Path, web: Web, naps: list[float], status: int, later: str | None, waited: float
) -> None:
    web.files, web.busy = offer("plain"), [(status, later)]
    fetch(target, web.url)
    assert held(target) == FILES
    assert naps == [waited]


def test_each_time_later_and_not_for_ever(target: Path, web: Web, naps: list[float]) -> None:
    web.files, web.busy = offer("gz"), [(500, None)] * 8
    lay(target, {"batch/labels": LABELS})
    assert "HTTP Error 500" in refusal(target, web.url, kind="gz")
    assert naps == [1, 2, 4]


def test_what_is_not_there_is_not_asked_for_again(target: Path, web: Web, naps: list[float]) -> None:
    assert "HTTP Error 404" in refusal(target, web.url)
    assert naps == []


def test_a_connection_that_is_cut_goes_on_in_the_same_run(target: Path, web: Web, naps: list[float]) -> None:
    web.files, web.cuts = offer("plain"), [10_000, 5_000]
    fetch(target, web.url)
    assert held(target) == FILES
    assert [request.range for request in web.requests] == [None, "bytes=10000-", "bytes=15000-", None]
    assert naps == [1, 2]


def test_a_server_that_creeps_is_given_up(target: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_module, "PATIENCE", -1.0)
    monkeypatch.setattr(web_module, "SLOWEST", -(10**9))
    web.files = offer("plain")
    assert "slower than" in refusal(target, web.url)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("my data.csv", "my%20data.csv"),
        ("daten_ü.csv", "daten_%C3%BC.csv"),
        ("100%.csv", "100%25.csv"),
        ("a%20b", "a%20b"),
    ],
)
def test_names_that_are_no_ascii_are_asked_for(target: Path, web: Web, name: str, asked: str) -> None:
    web.files = {asked: IMAGES}
    fetch(target, web.url, files={name: MD5})
    assert held(target) == {name: IMAGES}


def test_a_page_in_place_of_the_file_is_told(target: Path, web: Web) -> None:
    web.files = {"images.gz": b"\n <!DOCTYPE html><title>Sign in</title>", "batch/labels.gz": b"<html>"}
    said = refusal(target, web.url, kind="gz")
    assert f"{web.url}: images.gz is a web page there, such as one to log in on, and not the file" in said
    assert "batch/labels.gz is a web page" in said
    assert not [path for path in target.rglob("*") if path.suffix == ".gz"]


def test_a_password_is_sent_and_not_shown(
    target: Path, web: Web, caplog: pytest.LogCaptureFixture, naps: list[float]
) -> None:
    web.files, web.busy = {"images": IMAGES}, [(503, None)]
    said = refusal(target, web.url.replace("//", "//me:s%40cret@"))
    login = "Basic " + base64.b64encode(b"me:s@cret").decode()
    assert set(web.logins) == {login}
    assert naps == [1]
    assert (target / "images").read_bytes() == IMAGES
    assert "cret" not in said + caplog.text
    assert not any("cret" in path.read_text(errors="replace") for path in target.rglob("*.json"))


@pytest.mark.parametrize("place", ["s3://bucket/x", "gs://bucket", "sftp://host/x"])
def test_other_addresses_are_told(target: Path, place: str) -> None:
    said = refusal(target, place)
    assert f"{place}: {place.partition(':')[0]}:// is no place that downloads come from" in said


def test_what_is_packed_counts_where_the_file_beside_it_is_damaged(tmp_path: Path, target: Path) -> None:
    place = lay(tmp_path / "place", {**offer("gz"), "images": IMAGES[:100]})
    fetch(target, place, kind="gz")
    assert held(target) == FILES


def test_checksums_in_capitals(tmp_path: Path, target: Path) -> None:
    files = {name: digest and digest.upper().replace("MD5", "md5") for name, digest in PUBLISHED.items()}
    files["batch/labels"] = (files["batch/labels"] or "").replace("SHA256", "sha256")
    place = lay(tmp_path / "place", FILES)
    download.download(SourceDataset(filepath=str(target), places=[str(place)], files=files).load())
    assert held(target) == FILES


# ---- going on ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cut(target: Path, web: Web) -> int:
    """A download of `images.gz` whose connection ended after that many bytes; the rest of the data are there."""
    web.files, web.cut = offer("gz"), 10_000
    lay(target, {"batch/labels": LABELS})
    message = refusal(target, web.url, kind="gz")
    whole = len(web.files["images.gz"])
    assert f"{web.url}: the connection ended after 10000 of {whole} bytes; the next run resumes there" in message
    assert (target / ".partial" / "images.gz").read_bytes() == web.files["images.gz"][:10_000]
    assert not (target / "images").exists()
    web.cut = None
    web.requests.clear()
    return 10_000


def test_resumes_where_the_connection_ended(target: Path, web: Web, cut: int) -> None:
    fetch(target, web.url, kind="gz")
    rest = len(web.files["images.gz"]) - cut
    assert web.requests == [Request("images.gz", f"bytes={cut}-", '"v1"', 206, rest)]
    assert held(target) == FILES


def test_resumes_again_and_again(target: Path, web: Web, cut: int) -> None:
    web.cut = 7_000
    for _ in range(2):
        refusal(target, web.url, kind="gz")
    web.cut = None
    fetch(target, web.url, kind="gz")
    assert [request.range for request in web.requests] == ["bytes=10000-", "bytes=17000-", "bytes=24000-"]
    assert held(target) == FILES


def test_a_whole_partial_is_used_as_it_is(target: Path, web: Web, cut: int) -> None:
    (target / ".partial" / "images.gz").write_bytes(web.files["images.gz"])
    fetch(target, web.url, kind="gz")
    assert [(request.status, request.sent) for request in web.requests] == [(416, 0)]
    assert held(target) == FILES


def test_a_changed_file_starts_anew(target: Path, web: Web, cut: int) -> None:
    web.version = ("ETag", '"v2"')
    (target / ".partial" / "images.gz").write_bytes(b"v1" * 5_000)
    fetch(target, web.url, kind="gz")
    assert web.requests == [Request("images.gz", "bytes=10000-", '"v1"', 200, len(web.files["images.gz"]))]
    assert held(target) == FILES


def test_a_server_without_ranges_starts_anew(target: Path, web: Web, cut: int) -> None:
    web.ranges = False
    fetch(target, web.url, kind="gz")
    assert web.requests == [Request("images.gz", "bytes=10000-", '"v1"', 200, len(web.files["images.gz"]))]
    assert held(target) == FILES


@pytest.mark.parametrize(
    ("version", "range_", "condition"),
    [
        (("Last-Modified", "Sun, 01 Mar 2026 08:00:00 GMT"), "bytes=10000-", "Sun, 01 Mar 2026 08:00:00 GMT"),
        (("Server", "tells no version"), None, None),
    ],
)
def test_resumes_only_what_the_server_can_tell_apart(
    target: Path, web: Web, version: tuple[str, str], range_: str | None, condition: str | None
) -> None:
    web.files, web.cut, web.version = offer("plain"), 10_000, version
    refusal(target, web.url)
    web.cut = None
    fetch(target, web.url)
    assert [request[:3] for request in web.requests[:2]] == [("images", None, None), ("images", range_, condition)]
    assert held(target) == FILES


@pytest.mark.parametrize("origin", [None, "", "[]", '{"url": "other", "version": "v1"}', '{"version": null}'])
def test_a_partial_of_unknown_origin_is_not_resumed(target: Path, web: Web, cut: int, origin: str | None) -> None:
    beside = target / ".partial" / "images.gz.json"
    assert json.loads(beside.read_text()) == {"url": f"{web.url}/images.gz", "version": '"v1"'}
    beside.unlink() if origin is None else beside.write_text(origin)
    fetch(target, web.url, kind="gz")
    assert [(request.range, request.status) for request in web.requests] == [(None, 200)]
    assert held(target) == FILES


def test_another_place_does_not_resume_what_the_first_one_sent(
    tmp_path: Path, target: Path, web: Web, cut: int
) -> None:
    web.files = {f"second/{name}": data for name, data in web.files.items()}
    fetch(target, web.url + "/second", kind="gz")
    assert [(request.range, request.status) for request in web.requests] == [(None, 200)]
    assert held(target) == FILES


def test_partials_go_when_the_files_come_from_elsewhere(tmp_path: Path, target: Path, cut: int) -> None:
    fetch(target, lay(tmp_path / "place", FILES), kind="gz")
    assert held(target) == FILES


@pytest.mark.parametrize("kind", KINDS)
def test_a_partial_that_makes_garbage_is_fetched_anew(target: Path, web: Web, kind: str) -> None:
    web.files, web.cut = offer(kind), 10_000
    refusal(target, web.url, kind=kind)
    remote = FETCH[kind].format(name="images")
    (target / ".partial" / remote).write_bytes(b"\x1f\x8b" + bytes(9_998))
    web.cut = None
    web.requests.clear()
    fetch(target, web.url, kind=kind)
    whole = len(web.files[remote])
    assert web.requests[:2] == [
        Request(remote, "bytes=10000-", '"v1"', 206, whole - 10_000),
        Request(remote, None, None, 200, whole),
    ]
    assert held(target) == FILES


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"not a gz", "Not a gzipped file (b'no')"),
        (gzip.compress(b"")[:10] + b"\xff" * 50, "Error -3 while decompressing data: invalid block type"),
    ],
    ids=["no gzip", "gzip's header only"],  # the header holds the time
)
def test_garbage_from_the_server_is_not_kept_for_resuming(target: Path, web: Web, garbage: bytes, reason: str) -> None:
    web.files = offer("gz") | {"images.gz": garbage}
    for _ in range(2):
        message = refusal(target, web.url, kind="gz")
        assert f"{web.url}: images.gz is damaged ({reason})" in message
    assert [request.range for request in web.requests if request.path == "images.gz"] == [None, None]
    assert not (target / ".partial" / "images.gz").exists()


# ---- what is there already -----------------------------------------------------------------------------------------


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {name: ((folder / name).stat().st_mtime_ns, (folder / name).stat().st_ino) for name in held(folder)}


def test_right_files_are_left_alone(target: Path, web: Web) -> None:
    before = stamps(lay(target, FILES))
    assert fetch(target, web.url) == RawFiles(target, PUBLISHED)
    assert stamps(target) == before
    assert web.requests == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harm", [None, b"", IMAGES[:-1], b"?" + IMAGES[1:]])
def test_exactly_the_wrong_file_is_replaced(target: Path, web: Web, kind: str, harm: bytes | None) -> None:
    web.files = offer(kind)
    lay(target, {"batch/labels": LABELS} if harm is None else FILES | {"images": harm})
    before = stamps(target)["batch/labels"]
    fetch(target, web.url, kind=kind)
    assert [request.path for request in web.requests] == [FETCH[kind].format(name="images")]
    assert stamps(target)["batch/labels"] == before
    assert held(target) == FILES


def test_a_file_that_went_after_the_download_is_named(target: Path) -> None:
    raw = RawFiles(target, {"images": MD5})
    missing = r"numbers/{}: missing\. Run the download stage again: kedro run --tags download"
    with pytest.raises(InputError, match=missing.format("images")):
        raw.path("images")
    lay(target, FILES)
    assert raw.path("images") == target / "images"
    with pytest.raises(InputError, match=missing.format("batch/labels")):  # there, but never verified
        raw.path("batch/labels")


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["folder", "http"])
def test_a_wrong_checksum_never_gets_the_final_name(
    tmp_path: Path, target: Path, web: Web, place: str, kind: str
) -> None:
    web.files = offer(kind, {"batch/labels": LABELS, "images": b"?" + IMAGES[1:]})
    folder = lay(tmp_path / "place", web.files)
    message = refusal(target, folder if place == "folder" else web.url, kind=kind)
    found = hashlib.md5(b"?" + IMAGES[1:]).hexdigest()
    assert f"images has the checksum md5:{found}, but should have {MD5}" in message
    assert not (target / "images").exists()
    assert not list(target.rglob("*.tmp"))


def test_a_damaged_file_does_not_hold_back_the_others_of_its_place(tmp_path: Path, target: Path) -> None:
    message = refusal(target, lay(tmp_path / "place", FILES | {"images": b"damaged"}), kind="tar")
    assert message.startswith("numbers: images could not be had.")
    assert held(target) == {"batch/labels": LABELS}


def test_a_wrong_file_stays_until_the_right_one_is_there(tmp_path: Path, target: Path) -> None:
    lay(target, {"images": b"damaged"})
    refusal(target, lay(tmp_path / "place", {"images": b"also damaged"}))
    assert held(target) == {"images": b"damaged"}


@pytest.mark.parametrize("place", ["folder", "http"])
@pytest.mark.parametrize(("kind", "kept"), [("tar", 0.5), ("gz", 0.5), ("tar", 0), ("gz", 0.9999)])
def test_a_truncated_download_is_refused(
    tmp_path: Path, target: Path, web: Web, place: str, kind: str, kept: float
) -> None:
    web.files = {name: data[: int(kept * len(data))] for name, data in offer(kind).items()}
    folder = lay(tmp_path / "place", web.files)
    message = refusal(target, folder if place == "folder" else web.url, kind=kind)
    assert f"{FETCH[kind].format(name='images')} is damaged (" in message
    assert not set(held(target)) & set(FILES)


def link(kind: bytes, name: str, to: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member


@pytest.mark.parametrize("place", ["folder", "http"])
@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (("../evil", b"x"), "'../evil', which would be written outside its folder"),
        (("batch/../../evil", b"x"), "'batch/../../evil', which would be written outside its folder"),
        (("{outside}/evil", b"x"), "'{outside}/evil', which would be written outside its folder"),
        (("..\\evil", b"x"), r"'..\\evil', which would be written outside its folder"),
        (("C:\\evil", b"x"), r"'C:\\evil', which would be written outside its folder"),
        (link(tarfile.DIRTYPE, "../evil", ""), "'../evil', which would be written outside its folder"),
        (link(tarfile.SYMTYPE, "batch", "{outside}"), "the link 'batch' -> '{outside}'"),
        (link(tarfile.SYMTYPE, "images", "../evil"), "the link 'images' -> '../evil'"),
        (link(tarfile.LNKTYPE, "images", "{outside}/evil"), "the link 'images' -> '{outside}/evil'"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_archive_that_reaches_outside_is_refused_as_a_whole(
    tmp_path: Path, target: Path, web: Web, place: str, member: Any, reason: str
) -> None:
    outside = str(tmp_path / "outside")
    lay(tmp_path / "outside", {"evil": b"untouched"})
    if isinstance(member, tuple):
        member = (member[0].format(outside=outside), member[1])
    else:
        member = link(member.type, member.name, member.linkname.format(outside=outside))
    web.files = {"data.tar.gz": tar(*FILES.items(), member)}
    folder = lay(tmp_path / "place", web.files)
    before = held(tmp_path)
    message = refusal(target, folder if place == "folder" else web.url, kind="tar")
    assert f"the archive holds {reason.format(outside=outside)}" in message
    assert "; refused" in message
    left = {name: data for name, data in held(tmp_path).items() if ".partial" not in name}
    left.pop("01_raw/numbers", None)
    assert left == before


def test_an_archive_without_the_file_is_refused(tmp_path: Path, target: Path) -> None:
    folder = lay(
        tmp_path / "place", {"data.tar.gz": tar(("batch/labels", LABELS), link(tarfile.DIRTYPE, "images", ""))}
    )
    assert "data.tar.gz does not hold images" in refusal(target, folder, kind="tar")


@pytest.mark.parametrize("kind", KINDS)
def test_a_decompression_bomb_is_stopped(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(download, "CHUNK", 4_096)
    monkeypatch.setattr(download, "LARGEST_FILE", 50_000)
    bomb = bytes(1_000_000)  # under its own right checksum, so that nothing but its size speaks against it
    files: dict[str, str | None] = {"images": "sha256:" + hashlib.sha256(bomb).hexdigest()}
    folder = lay(tmp_path / "place", offer(kind, {"images": bomb}))
    assert "images unpacks to more than 0 GiB; refused" in refusal(target, folder, kind=kind, files=files)
    assert held(target) == {}
    monkeypatch.setattr(download, "LARGEST_FILE", len(bomb))
    fetch(target, folder, kind=kind, files=files)
    assert held(target) == {"images": bomb}


# ---- data published in several forms -------------------------------------------------------------------------------

PACKED = tar(*FILES.items())
WHOLE: dict[str, str | None] = {"data.tar.gz": "sha256:" + hashlib.sha256(PACKED).hexdigest()}


def two_forms(target: Path, *places: Path | str, **changes: Any) -> RawFiles:
    """Download either the archive, which is kept packed, or the two files."""
    return fetch(target, *places, files=WHOLE, alternatives=(Form(PUBLISHED, "{name}.gz"),), **changes)


@pytest.mark.parametrize("fetched", ["{name}", "data.tar.gz"])
@pytest.mark.parametrize("place", ["folder", "http"])
def test_an_archive_that_is_itself_wanted_stays_packed(
    tmp_path: Path, target: Path, web: Web, place: str, fetched: str
) -> None:
    web.files = {"data.tar.gz": PACKED}
    folder = lay(tmp_path / "place", web.files)
    raw = fetch(target, folder if place == "folder" else web.url, files=WHOLE, fetch=fetched)
    assert raw == RawFiles(target, WHOLE)
    assert held(target) == {"data.tar.gz": PACKED}


@pytest.mark.parametrize("place", ["folder", "http"])
def test_the_form_that_a_place_has_is_taken(
    tmp_path: Path, target: Path, web: Web, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    for kind, checksums, files in (("tar", WHOLE, {"data.tar.gz": PACKED}), ("gz", PUBLISHED, FILES)):
        web.files = offer(kind) | {"data.tar.gz": PACKED} if kind == "tar" else offer(kind)
        folder = lay(tmp_path / kind, web.files)
        raw = two_forms(target / kind, folder if place == "folder" else web.url)
        assert raw == RawFiles(target / kind, checksums)
        assert held(target / kind) == files
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_the_first_form_is_preferred(tmp_path: Path, target: Path) -> None:
    both = lay(tmp_path / "both", offer("gz") | {"data.tar.gz": PACKED})
    assert two_forms(target, both).checksums == WHOLE


def test_each_place_is_asked_for_all_forms(
    tmp_path: Path, target: Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files = {"data.tar.gz": PACKED}
    lay(tmp_path / "mirror" / "numbers", offer("gz"))
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path / "mirror"))
    assert two_forms(target, web.url).checksums == PUBLISHED
    assert web.requests == []


def test_any_form_that_is_there_is_left_alone(target: Path, web: Web) -> None:
    for folder, files, checksums in ((target / "a", FILES, PUBLISHED), (target / "b", {"data.tar.gz": PACKED}, WHOLE)):
        before = stamps(lay(folder, files))
        assert two_forms(folder, web.url) == RawFiles(folder, checksums)
        assert stamps(folder) == before
    assert two_forms(lay(target / "a", {"data.tar.gz": b"damaged"}), web.url).checksums == PUBLISHED
    assert web.requests == []


def test_a_form_may_come_from_several_places(tmp_path: Path, target: Path) -> None:
    one = lay(tmp_path / "one", {"images.gz": gzip.compress(IMAGES), "data.tar.gz": b"damaged"})
    raw = two_forms(target, one, lay(tmp_path / "two", {"batch/labels": LABELS}))
    assert raw.checksums == PUBLISHED
    assert held(target) == FILES


def test_one_error_lists_what_is_missing_of_each_form(tmp_path: Path, target: Path, web: Web) -> None:
    web.files = {"images.gz": gzip.compress(IMAGES)}
    with pytest.raises(InputError) as caught:
        two_forms(target, tmp_path / "none", lay(tmp_path / "empty", {"other": b""}), web.url, mirror=None)
    assert caught.value.message.splitlines() == [
        "numbers: data.tar.gz; or instead batch/labels could not be had. Tried:",
        f"  - {tmp_path / 'none'}: no such folder",
        f"  - {tmp_path / 'empty'}: has no data.tar.gz",
        f"  - {tmp_path / 'empty'}: has neither images nor images.gz",
        f"  - {tmp_path / 'empty'}: has neither batch/labels nor batch/labels.gz",
        f"  - {web.url}: HTTP Error 404: Not Found",
    ]


def test_two_editions_of_one_file(tmp_path: Path, target: Path, web: Web, caplog: pytest.LogCaptureFixture) -> None:
    editions = [b"first edition", b"second edition"]
    one, two = ({"book": "md5:" + hashlib.md5(data).hexdigest()} for data in editions)
    options = {"files": one, "alternatives": (Form(two),)}
    for data, checksums in zip(editions, (one, two), strict=True):
        web.files = {"book": data}
        folder = target / str(checksums["book"][4:8])
        assert fetch(folder, web.url, **options) == RawFiles(folder, checksums)
        assert fetch(folder, **options) == RawFiles(folder, checksums)
        assert held(folder) == {"book": data}
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    with_notes = {**two, "notes": PUBLISHED["images"]}
    refusal(folder, files=one, alternatives=(Form(with_notes),))  # the book is right for one that lacks the notes
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    (folder / "book").write_bytes(b"damaged")
    assert fetch(folder, web.url, **options).checksums == two
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    expected = f"damaged, its checksum is not {one['book']} or {two['book']}; fetching it again"
    assert warning == f"{folder / 'book'}: {expected}"
    web.files = {"book": b"pirated"}
    message = refusal(target / "new", web.url, **options)
    assert message.startswith("new: book could not be had.")
    assert all(f"but should have {edition['book']}" in message for edition in (one, two))


# ---- data that come with a package ---------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an installed package that must not be imported and holds the files in the folder `sets/data`."""
    name = "package_with_numbers"
    lay(tmp_path / "site" / name, {"__init__.py": b"raise ImportError", "sets/__init__.py": b"raise ImportError"})
    lay(tmp_path / "site" / name / "sets" / "data", offer("gz"))
    lay(tmp_path / "site", {"module_with_numbers.py": b"raise ImportError"})
    monkeypatch.syspath_prepend(tmp_path / "site")
    return name


@pytest.mark.parametrize("end", ["", "/"])
def test_files_come_from_a_package_that_is_not_imported(target: Path, package: str, end: str) -> None:
    assert fetch(target, f"package://{package}/sets/data{end}", kind="gz") == RawFiles(target, PUBLISHED)
    assert held(target) == FILES


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("package_of_nobody/data", "not installed; run: pip install package_of_nobody"),
        ("no.package/data", "not installed; run: pip install no.package"),
        ("package_with_numbers/sets/other", "the installed package_with_numbers has no such folder"),
        ("package_with_numbers/__init__.py", "the installed package_with_numbers has no such folder"),
        ("module_with_numbers/data", "the installed module_with_numbers has no such folder"),
        ("package_with_numbers/sets", "has neither images nor images.gz"),
    ],
)
def test_a_package_without_the_files_is_named(target: Path, package: str, place: str, reason: str) -> None:
    assert f"  - package://{place}: {reason}\n" in refusal(target, f"package://{place}", kind="gz")


def test_scikit_learn_is_installed_under_another_name(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "find_spec", lambda name: None)
    message = refusal(target, "package://sklearn/datasets/data", mirror=None)
    assert message.endswith("  - package://sklearn/datasets/data: not installed; run: pip install scikit-learn")


# ---- when there is no way ------------------------------------------------------------------------------------------


def test_one_error_lists_all_that_was_tried(tmp_path: Path, target: Path, web: Web) -> None:
    empty, dead = lay(tmp_path / "empty", {"other": b""}), closed_port()
    message = refusal(target, tmp_path / "none", empty, dead, web.url, kind="tar")
    assert message.splitlines() == [
        "numbers: images, batch/labels could not be had. Tried:",
        f"  - {tmp_path / 'none'}: no such folder",
        f"  - {empty}: has neither images, batch/labels nor data.tar.gz",
        f"  - {dead}: [Errno {errno.ECONNREFUSED}] Connection refused",
        f"  - {web.url}: HTTP Error 404: Not Found",
        "  - no mirror folder: the environment variable TORCHLOOM_MIRROR is not set",
        "Without the network, set TORCHLOOM_MIRROR to a folder that holds numbers/, or run on drawn data with "
        "--env sample.",
    ]


def test_the_error_lists_the_mirror_too(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path))
    lines = refusal(lay(target, {"batch/labels": LABELS}), tmp_path / "none").splitlines()
    assert lines[:3] == [
        "numbers: images could not be had. Tried:",
        f"  - {tmp_path / 'numbers'}: no such folder",
        f"  - {tmp_path / 'none'}: no such folder",
    ]
    assert len(lines) == 4


@pytest.mark.parametrize(("obstacle", "reason"), [("numbers", "File exists"), ("", "Not a directory")])
def test_a_target_that_cannot_be_written_to(target: Path, web: Web, obstacle: str, reason: str) -> None:
    web.files = offer("plain")
    lay(target.parents[1], {str(Path("01_raw") / obstacle): b"a file in the way"})
    message = refusal(target, web.url)
    assert message == f"{target}: cannot be written to ({reason}). Make room or change its rights."
    assert web.requests == []


# ---- checksums that lie with the data ------------------------------------------------------------------------------

UNPUBLISHED = dict.fromkeys(FILES)


def test_unpublished_checksums_come_with_the_data(tmp_path: Path, target: Path) -> None:
    write_sums(lay(tmp_path / "place", FILES))
    raw = fetch(target, tmp_path / "place", files=UNPUBLISHED)
    sums = {name: "sha256:" + hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    assert raw == RawFiles(target, sums)
    assert held(target) == held(tmp_path / "place")
    before = stamps(target)
    assert fetch(target, tmp_path / "gone", files=UNPUBLISHED) == raw
    assert stamps(target) == before


def test_checksums_may_be_those_of_binary_mode(tmp_path: Path, target: Path) -> None:
    write_sums(lay(tmp_path / "place", FILES))
    sums = tmp_path / "place" / SUMS
    sums.write_text(sums.read_text().replace("  ", " *"))
    fetch(target, tmp_path / "place", files=UNPUBLISHED)
    assert held(target) == held(tmp_path / "place")


@pytest.mark.parametrize("labels", [PUBLISHED["batch/labels"], None])
def test_a_mirrors_own_checksums_never_replace_published_ones(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, labels: str | None
) -> None:
    files = {"batch/labels": labels, "images": MD5}
    forged = lay(tmp_path / "mirror" / "numbers", {"images": b"forged", "batch/labels": LABELS})
    write_sums(forged)
    lay(target, {SUMS: (forged / SUMS).read_bytes()})
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path / "mirror"))
    message = refusal(target, files=files)
    assert f"images has the checksum md5:{hashlib.md5(b'forged').hexdigest()}, but should have {MD5}" in message
    assert not (target / "images").exists()
    lay(target, {"images": b"forged"})
    refusal(target, files=files)  # what lies there already is held to the published one too


@pytest.mark.parametrize("place", ["folder", "http"])
def test_without_any_checksum_nothing_is_taken(tmp_path: Path, target: Path, web: Web, place: str) -> None:
    web.files = offer("plain")
    folder = lay(tmp_path / "place", FILES)
    message = refusal(target, folder if place == "folder" else web.url, files=UNPUBLISHED)
    assert re.search(r": no published checksum.* for images", message)
    assert held(target) == {}


@pytest.mark.parametrize("rubbish", [b"", b"rubbish\n", b"\xff\xfe\n", b"00  images\n"])
def test_damaged_checksums_are_fetched_again(
    tmp_path: Path, target: Path, rubbish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    write_sums(lay(tmp_path / "place", FILES))
    fetch(target, tmp_path / "place", files=UNPUBLISHED)
    (target / SUMS).write_bytes(rubbish)
    fetch(target, tmp_path / "place", files=UNPUBLISHED)
    assert ("damaged, its" in caplog.text) == rubbish.startswith(b"00")  # else nobody can tell
    assert "None" not in caplog.text
    assert held(target) == held(tmp_path / "place")


# ---- drawn data ----------------------------------------------------------------------------------------------------

DRAWN = {
    "mnist": [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")],
    "cifar10": [*cifar10.TRAIN_BATCHES, "cifar-10-batches-py/test_batch", "cifar-10-batches-py/batches.meta"],
    "wonderland": [wonderland.FILE],
    "imdb": [imdb.ARCHIVE],
}


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_data_arrive_stay_and_are_repaired(target: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in (mnist, cifar10, imdb):
        monkeypatch.setattr(module.draw_sample, "__defaults__", (50, 20, 0))  # few, for speed
    files = dict.fromkeys(DRAWN[name])
    raw = fetch(target, f"sample://{name}", files=files)
    assert sorted(held(target)) == sorted([*DRAWN[name], SUMS])
    for line in (target / SUMS).read_text().splitlines():
        digest, _, file = line.partition("  ")
        assert hashlib.sha256((target / file).read_bytes()).hexdigest() == digest
        assert raw.checksums[file] == f"sha256:{digest}"
    assert sorted(raw.checksums) == sorted(DRAWN[name])

    before = stamps(target)
    assert fetch(target, f"sample://{name}", files=files) == raw
    assert stamps(target) == before

    whole = held(target)
    (target / DRAWN[name][-1]).write_bytes(b"damaged")
    assert fetch(target, f"sample://{name}", files=files) == raw
    assert held(target) == whole
    others = set(DRAWN[name]) - {DRAWN[name][-1]}
    assert {file: stamps(target)[file] for file in others} == {file: before[file] for file in others}


# ---- in the catalog ------------------------------------------------------------------------------------------------


def test_source_dataset_names_the_source_after_its_folder(target: Path) -> None:
    dataset = SourceDataset(filepath=str(target), places=["https://example.org"], files=PUBLISHED)
    assert dataset.load() == Source("numbers", target, PUBLISHED, "{name}", ["https://example.org"], None)


def test_source_dataset_knows_other_forms(target: Path) -> None:
    forms = [{"files": WHOLE}, {"files": PUBLISHED, "fetch": "{name}.gz"}]
    dataset = SourceDataset(filepath=str(target), places=[], files=PUBLISHED, alternatives=forms)
    assert dataset.load().alternatives == (Form(WHOLE, "{name}"), Form(PUBLISHED, "{name}.gz"))


def test_raw_files_survive_their_list(target: Path) -> None:
    dataset = RawFilesDataset(filepath=str(target / "files.json"))
    dataset.save(RawFiles(target, {"images": MD5}))
    assert dataset.load() == RawFiles(target, {"images": MD5})
    assert sorted(held(target)) == ["files.json"]


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff"])
def test_a_damaged_list_of_raw_files_is_an_input_error(target: Path, content: bytes | None) -> None:
    if content is not None:
        lay(target, {"files.json": content})
    with pytest.raises(InputError, match=r"files\.json: not .*Run the download stage again: "):
        RawFilesDataset(filepath=str(target / "files.json")).load()


@pytest.mark.parametrize("name", ["nothing", "images"])  # no such module; a module that draws nothing
def test_a_place_that_cannot_draw_is_named(target: Path, name: str) -> None:
    message = refusal(target, f"sample://{name}")
    assert f"- sample://{name}: the reader {name} has no draw_sample" in message


@pytest.mark.parametrize("digest", ["sha1:" + "0" * 40, "md5:" + "0" * 31, "0" * 64, "sha256:xyz"])
def test_source_dataset_refuses_what_is_no_checksum(target: Path, digest: str) -> None:
    with pytest.raises(InputError, match=rf"numbers_source: one: '{digest}' is no md5:"):
        SourceDataset(filepath=str(target), places=[], files={"one": digest})
