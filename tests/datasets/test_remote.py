"""Files at an address: brought to this machine once, and again when they change."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from kedro.framework.project import pipelines
from kedro.framework.startup import bootstrap_project
from moto.server import ThreadedMotoServer
from PIL import Image

from conftest import ROOT, kedro_run
from tests.tables import people, write
from tests.test_docs import commands
from tests.test_extending import block
from torchloom.cli import new_task
from torchloom.config import PicturesPreprocessConfig, PreprocessConfig, TableFilesPreprocessConfig
from torchloom.config.checks import check_block
from torchloom.data.readers import pictures
from torchloom.datasets import remote as module
from torchloom.datasets.remote import Remote
from torchloom.errors import InputError, without_secrets
from torchloom.pipelines.preparation.nodes import Bringing
from torchloom.runner import SkipUnchanged

BUCKET = "bucket"
KEYS = {"key": "me", "secret": "never to be seen"}


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    """What lets in to a server that answers as S3 does."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {**KEYS, "client_kwargs": {"endpoint_url": f"http://{host}:{port}"}}
    fsspec.filesystem("s3", **options).mkdir(BUCKET)
    yield options
    server.stop()


@pytest.fixture
def store(s3: dict[str, Any]) -> Iterator[Any]:
    """An empty bucket."""
    system = fsspec.filesystem("s3", **s3)
    yield system
    system.invalidate_cache()
    if system.exists(f"{BUCKET}/own"):
        system.rm(f"{BUCKET}/own", recursive=True)


FILES = {"a.csv": b"x,y\n1,2\n", "val/b.csv": b"x,y\n3,4\n", "val/empty.csv": b""}
HIDDEN = {".git/config": b"no", "__MACOSX/a.csv": b"no", "folder/": b""}
ADDRESS = f"s3://{BUCKET}/own/"


def lay(system: Any, files: dict[str, bytes], top: str = f"{BUCKET}/own") -> None:
    for name, data in files.items():
        system.pipe_file(f"{top}/{name}", data)


def held(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def remote(folder: Path, options: dict[str, Any], address: str = ADDRESS) -> Remote:
    """As in a new run."""
    found = Remote(folder)
    found.told("preprocess", {"files": address}, options)
    return found


def bring(folder: Path, options: dict[str, Any], address: str = ADDRESS) -> Path:
    return remote(folder, options, address).bring(address, "preprocess.files")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that are read at an address."""
    found: list[str] = []
    whole = module._bring_one
    monkeypatch.setattr(module, "_bring_one", lambda *given: found.append(given[2]) or whole(*given))
    return found


def test_a_folder_is_brought_once(
    tmp_path: Path, store: Any, s3: dict[str, Any], reads: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    lay(store, FILES | HIDDEN)
    with caplog.at_level(logging.INFO):
        folder = bring(tmp_path, s3)
        assert held(folder) == FILES
        assert sorted(reads) == sorted(FILES)
        assert bring(tmp_path, s3) == folder
    assert len(reads) == len(FILES)
    said = [message for message in caplog.messages if message.startswith(f"preprocess.files {ADDRESS}")]
    assert said == [
        f"preprocess.files {ADDRESS}: bringing 3 files, 0.0 MB, to {folder}",
        f"preprocess.files {ADDRESS}: 3 files, here and unchanged",
    ]
    assert not list(tmp_path.glob("*.partial"))


def test_what_changes_there_changes_here(tmp_path: Path, store: Any, s3: dict[str, Any], reads: list[str]) -> None:
    lay(store, FILES)
    folder = bring(tmp_path, s3)
    before = remote(tmp_path, s3).fingerprint()
    assert before == remote(tmp_path, s3).fingerprint()
    reads.clear()
    lay(store, {"a.csv": b"x,y\n9,9\n"})  # of the same size
    store.rm(f"{BUCKET}/own/val/b.csv")
    (folder / "val/empty.csv").write_bytes(b"damaged")
    assert remote(tmp_path, s3).fingerprint() != before
    bring(tmp_path, s3)
    assert held(folder) == {"a.csv": b"x,y\n9,9\n", "val/empty.csv": b""}
    assert sorted(reads) == ["a.csv", "val/empty.csv"]


def test_one_file(tmp_path: Path, store: Any, s3: dict[str, Any]) -> None:
    lay(store, FILES)
    path = bring(tmp_path, s3, f"{ADDRESS}a.csv")
    assert (path.name, path.read_bytes()) == ("a.csv", FILES["a.csv"])
    assert bring(tmp_path, s3, f"{ADDRESS}a.csv") == path


def test_other_protocols(tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    lay(system, FILES, "/rows")
    assert held(bring(tmp_path, {}, "memory://rows")) == FILES
    write(tmp_path / "my rows.csv", people(3))
    assert bring(tmp_path, {}, f"file://{tmp_path}/my%20rows.csv") == tmp_path / "my rows.csv"  # where it is
    assert remote(tmp_path, {}, f"file://{tmp_path}/my%20rows.csv").fingerprint() is None
    system.rm("/rows", recursive=True)


def test_an_interrupted_one_goes_on(
    tmp_path: Path, store: Any, s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    monkeypatch.setattr(module, "THREADS", 1)
    monkeypatch.setattr(module, "CHUNK", 4)
    lay(store, {"a.csv": b"0123456789", "b.csv": b"abcdefghij", "c.csv": b"x"})
    system = type(fsspec.filesystem("s3", **s3))
    opened: list[tuple[str, int]] = []
    whole = system.open

    def open_some(self: Any, path: str, *rest: Any, **more: Any) -> Any:
        file = whole(self, path, *rest, **more)
        read, seek = file.read, file.seek

        def breaks(count: int) -> bytes:
            if path.endswith("b.csv") and file.tell() >= 4 and not opened:
                opened.append(("", 0))
                raise ConnectionError("the network is down")
            return bytes(read(count))

        def seeks(place: int, *how: int) -> int:
            opened.append((path, place))
            return int(seek(place, *how))

        file.read, file.seek = breaks, seeks
        return file

    monkeypatch.setattr(system, "open", open_some)
    with pytest.raises(InputError, match=r"cannot be reached \(the network is down\)\. Check the address, the network"):
        bring(tmp_path, s3)
    reads.clear()
    folder = bring(tmp_path, s3)
    assert held(folder) == {"a.csv": b"0123456789", "b.csv": b"abcdefghij", "c.csv": b"x"}
    assert reads == ["b.csv", "c.csv"]
    assert (f"{BUCKET}/own/b.csv", 4) in opened  # after what had arrived


def test_without_the_network_what_was_brought_will_do(
    tmp_path: Path,
    store: Any,
    s3: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(store), "retries", 1)
    lay(store, FILES)
    folder = bring(tmp_path, s3)
    before = remote(tmp_path, s3).fingerprint()
    away = {**KEYS, "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"}}
    away["config_kwargs"] = {"retries": {"max_attempts": 0}}
    assert bring(tmp_path, away) == folder
    assert "Going on with what was brought before" in caplog.text
    assert remote(tmp_path, away).fingerprint() == before
    with pytest.raises(InputError, match=r"^preprocess\.files s3://bucket/other: cannot be reached \("):
        bring(tmp_path, away, "s3://bucket/other")


NONE: dict[str, Any] = {"skip_instance_cache": True}


@pytest.mark.parametrize(
    ("address", "options", "message"),
    [
        (
            "http://127.0.0.1:9/x.csv",
            NONE,
            r"cannot be reached \(Cannot connect to host.*Check the address, the network",
        ),
        ("s3://nowhere/x", {}, r"there is no such file, folder or bucket$"),
        (f"s3://{BUCKET}/nothing/", {}, r"there is no such file, folder or bucket$"),
        ("s4://bucket/x", {}, r"is no address that fsspec knows \(Protocol not known: s4\); there are s3, gs"),
        ("gs://bucket/x", {}, r": Please install gcsfs to access Google Storage$"),
        (ADDRESS, {"kay": "me"}, r"the entry of credentials\.yml is not for such addresses \(.*kay"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, s3: dict[str, Any], address: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=rf"^preprocess\.files {address}.*{message}"):
        bring(tmp_path, options or s3, address)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def rows() -> Iterator[Any]:
    """fsspec's files in memory, with some rows."""
    system = fsspec.filesystem("memory")
    lay(system, FILES, "/rows")
    yield system
    system.rm("/rows", recursive=True)


def test_what_does_not_let_in(tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: Any, **__: Any) -> None:
        raise PermissionError("Access Denied")

    folder = bring(tmp_path, {}, "memory://rows")
    monkeypatch.setattr(type(rows), "info", closed)
    with pytest.raises(
        InputError,
        match=r"memory://rows: what you have does not let you in \(Access Denied\)\. Name the entry of conf/loc",
    ):
        bring(tmp_path, {}, "memory://rows")  # though it was brought before
    assert held(folder) == FILES


@pytest.mark.parametrize(("address", "package"), [(ADDRESS, "s3fs"), ("https://host/x.csv", "aiohttp")])
def test_a_package_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, package: str
) -> None:
    monkeypatch.delitem(import_module("fsspec.registry")._registry, address.partition(":")[0], raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    with pytest.raises(
        InputError, match=rf"^preprocess\.files {address}: needs {package}\. Install the extra: pip install"
    ):
        bring(tmp_path, {}, address)


def test_a_reader_of_ones_own_gets_paths(tmp_path: Path, rows: Any) -> None:
    class Own(PreprocessConfig):
        files: str

    def find(config: Own) -> str:
        return config.files

    found = Bringing(find)(Own(files="memory://rows"), Remote(tmp_path))
    assert held(Path(found)) == FILES


def test_there_is_no_room(tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=7))
    with pytest.raises(InputError, match=r"memory://rows: has 0\.0 GB, and .* has room for 0\.0\. Make room"):
        bring(tmp_path, {}, "memory://rows")
    assert not list(tmp_path.rglob("*.csv"))
    (tmp_path / "file").write_text("in its place")
    with pytest.raises(InputError, match=r"^.*file/rows-\w+: cannot be made \(Not a directory\)\. Make room or change"):
        bring(tmp_path / "file", {}, "memory://rows")


def test_one_that_fails_stops_the_others(tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows.pipe_file("/rows/z.csv", bytes(1000))
    monkeypatch.setattr(module, "CHUNK", 1)
    whole = type(rows).open

    def opens(self: Any, path: str, *rest: Any, **more: Any) -> Any:
        if path.endswith("a.csv"):
            time.sleep(0.1)
            raise ConnectionError("the network is down")
        file = whole(self, path, *rest, **more)
        read = file.read
        file.read = lambda count: time.sleep(0.01) or read(count)
        return file

    monkeypatch.setattr(type(rows), "open", opens)
    began = time.monotonic()
    with pytest.raises(InputError, match=r"cannot be reached \(the network is down\)"):
        bring(tmp_path, {}, "memory://rows")
    assert time.monotonic() - began < 5  # the other one takes ten seconds
    assert 0 < max(path.stat().st_size for path in tmp_path.glob("*.partial/*")) < 1000


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, rows: Any) -> None:
    found = remote(tmp_path, {}, "memory://rows")
    found.look("memory://rows", "key")
    rows.pipe_file("/rows/a.csv", b"x,y\n1,2\n3,4\n")
    with pytest.raises(InputError, match=r"memory://rows: a\.csv changes while it is read\. Run it again"):
        found.bring("memory://rows", "preprocess.files")
    assert held(bring(tmp_path, {}, "memory://rows"))["a.csv"] == b"x,y\n1,2\n3,4\n"


def test_a_name_that_is_none_here(tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"/rows//a.csv": {"type": "file", "size": 3}}
    monkeypatch.setattr(type(rows), "find", lambda *_, **__: there)
    with pytest.raises(InputError, match=r"memory://rows: holds '/a\.csv', which cannot be the name of a file"):
        bring(tmp_path, {}, "memory://rows")


def test_no_secret_is_shown() -> None:
    for secret in ("ftp://me:pass@host/x.csv", "https://host/x.csv?X-Amz-Signature=pass&more=1"):
        assert "pass" not in InputError(f"{secret}: wrong").message
        with pytest.raises(InputError, match="has a secret in it") as refused:
            Remote(Path("nowhere")).bring(secret, "preprocess.files")
        assert "pass" not in refused.value.message.replace("password", "")
        (line,) = check_block("rows.preprocess", {"files": secret, "target": "x"}, TableFilesPreprocessConfig)
        assert "which records and reports would show" in InputError(line).message
        assert "pass" not in InputError(line).message.replace("password", "")
    for plain in ("s3://bucket/a:b@c.csv", "/home/me:you@there/x.csv", "https://host/x.csv?page=1"):
        assert without_secrets(plain) == plain


# ---- in a project --------------------------------------------------------------------------------------------------

TASK = {
    "task": {"problem": "classification", "data": "riders"},
    "data": {},
    "model": {"name": "linear"},
    "train": {"epochs": 2, "optimizer": {"name": "AdamW", "lr": 0.01}, "threads": 1},
    "evaluate": {},
    "export": {},
}
PREPROCESS = yaml.safe_load(block("people_elsewhere:"))["people_elsewhere"]["preprocess"]  # of the guide


@pytest.fixture
def lent(project: Path, s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with credentials, as the guide has them, and a task on a table that is elsewhere."""
    monkeypatch.setenv("MY_SECRET", s3["secret"])
    guide = block("my_s3:").replace("https://s3.example.org", s3["client_kwargs"]["endpoint_url"])
    (project / "conf/local/credentials.yml").write_text(guide)
    blocks = {"riders": {"preprocess": PREPROCESS}, "rides": TASK}
    (project / "conf/base/parameters/rides.yml").write_text(yaml.safe_dump(blocks))
    return project


def upload(store: Any, path: Path, name: str = "people.csv") -> None:
    lay(store, {name: path.read_bytes()})


@pytest.mark.xdist_group("export")
def test_a_task_on_a_table_elsewhere(lent: Path, tmp_path: Path, store: Any, reads: list[str]) -> None:
    """It is trained and asked; when the table changes there, all that was made of it is made anew."""
    upload(store, write(tmp_path / "people.csv", people(160)))
    catalog = kedro_run(lent, "rides", env="local", to_nodes=["rides.export_onnx"])
    assert catalog.load("riders_info")["rows"]["train"] == 115
    assert pipelines["rides"].inputs() >= {"riders_remote"}
    params = {"predict": {"model": "rides", "files": ADDRESS, "credentials": "my_s3"}}
    answers = kedro_run(lent, "predict", env="local", params=params).load("predict.predictions_parquet")
    assert answers.num_rows == 160
    assert reads == ["people.csv", "people.csv"]  # each has a place of its own
    only = {"to_nodes": ["riders.preprocess"]}
    kedro_run(lent, "rides", env="local", runner=SkipUnchanged(), **only)
    assert len(reads) == 2
    made = lent / "data/03_primary/riders/train.safetensors"
    before = made.stat().st_mtime_ns
    upload(store, write(tmp_path / "people.csv", people(80)))
    catalog = kedro_run(lent, "rides", env="local", runner=SkipUnchanged(), **only)
    assert catalog.load("riders_info")["rows"]["train"] == 58
    assert made.stat().st_mtime_ns > before
    kept = [path for path in lent.rglob("*") if path.is_file() and path.name != "credentials.yml"]
    assert not [path for path in kept if KEYS["secret"].encode() in path.read_bytes()]


def test_credentials_that_are_not_there(lent: Path, store: Any) -> None:
    (lent / "conf/local/credentials.yml").write_text("my_s4: {key: a}\n")
    with pytest.raises(
        InputError,
        match=r"^riders\.preprocess\.credentials: given 'my_s3'; unknown entry of conf/local/credentials\.yml "
        r"\(did you mean my_s4\?\)",
    ):
        kedro_run(lent, "rides", env="local", to_nodes=["riders.find_files"])
    blocks = {"riders": {"preprocess": {**PREPROCESS, "files": "people.csv"}}, "rides": TASK}
    (lent / "conf/base/parameters/rides.yml").write_text(yaml.safe_dump(blocks))
    with pytest.raises(InputError, match=r"must have an address such as s3://bucket/folder/ where there are creden"):
        kedro_run(lent, "rides", env="local", to_nodes=["riders.find_files"])


def test_task_new_looks_at_an_address(
    project: Path, s3: dict[str, Any], store: Any, tmp_path: Path, reads: list[str]
) -> None:
    (project / "conf/local/credentials.yml").write_text(yaml.safe_dump({"my_s3": s3}))
    upload(store, write(tmp_path / "people.csv", people(300)))
    bootstrap_project(project)
    (command,) = (each for each in commands(ROOT / "docs/how-to/own-tables.md") if "new bikes_elsewhere" in each)
    given = command.removeprefix("uv run kedro task new ").split()
    place = SimpleNamespace(project_path=project)
    before = Path.cwd()
    os.chdir(project)
    try:
        made = CliRunner().invoke(new_task, given, obj=place, catch_exceptions=False)
    finally:
        os.chdir(before)
    assert made.exit_code == 0, made.output
    blocks = yaml.safe_load((project / "conf/base/parameters/bikes_elsewhere.yml").read_text())
    preprocess = blocks["bikes_elsewhere_data"]["preprocess"]
    assert (preprocess["files"], preprocess["credentials"]) == (f"{ADDRESS}people.csv", "my_s3")
    kedro_run(project, "bikes_elsewhere", env="local", to_nodes=["bikes_elsewhere_data.preprocess"])
    assert reads == ["people.csv"]  # once for both


def test_pictures_and_the_table_that_names_them(project: Path, store: Any, s3: dict[str, Any], tmp_path: Path) -> None:
    rows = []
    for number in range(30):
        Image.fromarray(np.full((8, 8), 8 * number, np.uint8)).save(tmp_path / f"{number}.png")
        upload(store, tmp_path / f"{number}.png", f"shots/{number}.png")
        rows.append({"shot": f"{number}.png", "kind": "light" if number > 14 else "dark"})
    upload(store, write(tmp_path / "kinds.csv", rows), "kinds.csv")
    config = PicturesPreprocessConfig(files=f"{ADDRESS}kinds.csv", folder=f"{ADDRESS}shots", target="kind", size=[8, 8])
    found = Remote(tmp_path / "brought")
    found.told("preprocess", {}, s3)
    here = found.brought(config)
    *splits, _ = pictures.preprocess(pictures.find(here), here, tmp_path)
    assert [len(part.arrays["labels"]) for part in splits] == [22, 2, 6]
    entry = config.model_copy(update={"files": None, "entry": "kinds"})
    again = Bringing(pictures.preprocess_entry)(rows, entry, tmp_path, found)
    assert [len(part.arrays["labels"]) for part in again[:3]] == [22, 2, 6]
    with pytest.raises(
        InputError, match=r"^preprocess\.files s3://bucket/own/kinds\.csv: is one table\. Say where the paths in it"
    ):
        found.brought(config.model_copy(update={"folder": None}))
