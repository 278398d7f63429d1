import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from torchloom.system.files import atomic_write, checksum, temporary_folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "file.txt"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_whole_and_alone(target: Path) -> None:
    with atomic_write(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert names(target.parent) == ["file.txt"]


def test_the_old_file_is_replaced_in_one_step(target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_text("old")
    with target.open() as reader:
        with atomic_write(target) as temporary:
            temporary.write_text("new")
            assert target.read_text() == "old"
            assert temporary.parent == target.parent  # else the rename could not be atomic
        assert reader.read() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", ["old", None])
def test_an_error_leaves_everything_as_it_was(target: Path, error: type[BaseException], old: str | None) -> None:
    target.parent.mkdir(parents=True)
    if old:
        target.write_text(old)
    with pytest.raises(error), atomic_write(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert names(target.parent) == (["file.txt"] if old else [])
    assert not old or target.read_text() == old


def test_files_have_the_rights_that_the_user_gives_to_new_ones(target: Path) -> None:
    plain = target.parents[2] / "plain"
    plain.touch()
    with atomic_write(target) as temporary:
        temporary.touch(0o600)
    assert target.stat().st_mode == plain.stat().st_mode


def test_a_block_that_writes_nothing_fails(target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_write(target):
        pass
    assert target.read_text() == "old"


def test_two_writers_do_not_meet(target: Path) -> None:
    with atomic_write(target) as one, atomic_write(target) as other:
        one.write_text("one")
        other.write_text("other")
    assert target.read_text() == "one"  # which ends last
    assert names(target.parent) == ["file.txt"]


def test_what_killed_processes_left_of_folders_is_removed_after_an_hour(tmp_path: Path) -> None:
    for name, age in (("old", 4000), ("new", 60)):
        folder = tmp_path / f".rows.{name}.tmp"
        folder.mkdir()
        (folder / "rows.arrow").write_text("many")
        os.utime(folder, (time.time() - age,) * 2)
    with temporary_folder(tmp_path) as mine:
        (mine / "rows.arrow").write_text("more")
        assert {path.name for path in tmp_path.iterdir()} == {".rows.new.tmp", mine.name}
    assert [path.name for path in tmp_path.iterdir()] == [".rows.new.tmp"]


def test_what_killed_writers_left_of_this_file_is_removed_after_an_hour(target: Path) -> None:
    target.parent.mkdir(parents=True)
    ages = {".file.txt.0123abcd.tmp": 3700, ".file.txt.89abcdef.tmp": 3500, ".other.txt.0123abcd.tmp": 10**6}
    for name, age in ages.items():
        (target.parent / name).touch()
        os.utime(target.parent / name, (time.time() - age,) * 2)
    with atomic_write(target) as temporary:
        temporary.write_text("new")
    assert names(target.parent) == [".file.txt.89abcdef.tmp", ".other.txt.0123abcd.tmp", "file.txt"]


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002], indirect=True, ids=oct)
def test_rights_follow_the_umask(target: Path, umask: int) -> None:
    with atomic_write(target) as temporary:
        temporary.write_text("new")
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("sha256", "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("md5", "md5:900150983cd24fb0d6963f7d28e17f72"),
    ],
)
def test_checksums_are_the_standard_ones(tmp_path: Path, algorithm: str, expected: str) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert checksum(tmp_path / "file", algorithm) == expected
