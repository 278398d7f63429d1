"""Writing files so that nobody ever sees half of one, and telling whether two are the same."""

import errno
import glob
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from torchloom.errors import InputError

UNWRITABLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
}
NOTHING = "nothing"  # the contents of a file that, having nothing to say, was not written
ABANDONED = 3600  # seconds after which a temporary file is taken for one whose writer was killed

Stamp = tuple[int, int, int]


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success flush it to disk and rename it to `target`.

    When the block raises, the temporary file is removed and whatever stood at `target` stays as it was. InputError when
    the disk is full or the folder not writable.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        temporary.touch()
        mode = temporary.stat().st_mode
        temporary.unlink()
        yield temporary
        temporary.chmod(mode)  # as the user's umask has it, also where a library writes for the owner alone
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise InputError(
            f"{target}: cannot be written ({os.strerror(error.errno)}); what stood there is as it was. Make room, "
            "change the rights of its folder, or move away what is in its place"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _remove_abandoned(target: Path) -> None:
    for left in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED:
                remove(left)


@contextmanager
def temporary_folder(within: Path) -> Iterator[Path]:
    """Yield a folder for temporary files that is gone afterwards, or after a later such call where a process was
    killed."""
    target = within / "rows"
    _remove_abandoned(target)
    folder = target.with_name(f".rows.{secrets.token_hex(4)}.tmp")
    folder.mkdir()
    try:
        yield folder
    finally:
        with suppress(OSError):
            remove(folder)


def put(path: Path, target: Path) -> None:
    """Put a file or a folder in the place of another one, if there is one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove(target)
    path.rename(target)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """The file's digest as `algorithm:hex`, e.g. `md5:c99cafc1…`."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{digest.hexdigest()}"


def stamp(path: Path) -> Stamp:
    """What tells two states of a file apart without reading it: which file, its size and when it was written."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def contents(path: Path) -> str | None:
    """The file's checksum; a file that has not been touched is read once in a process."""
    return _checksum(path, stamp(path)) if path.is_file() else None


def contents_within(path: Path) -> str | None:
    """The same of a file, or of all files that lie in a folder itself."""
    if not path.is_dir():
        return contents(path)
    found = [f"{each.name} {contents(each)}" for each in sorted(path.iterdir()) if each.is_file()]
    return f"sha256:{hashlib.sha256(chr(10).join(found).encode()).hexdigest()}"


@lru_cache(maxsize=10_000)
def _checksum(path: Path, stamp: Stamp) -> str:  # noqa: ARG001
    return checksum(path)
