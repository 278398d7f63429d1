"""A user's files at an address, such as s3://bucket/folder/: they are brought to this machine, and kept up to date."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io import AbstractDataset, DatasetError
from pydantic import BaseModel

from torchloom.datasets.listing import is_users
from torchloom.errors import InputError, printable, without_secrets
from torchloom.system.addresses import addresses_in, local_path
from torchloom.system.files import atomic_write
from torchloom.system.progress import download_bar
from torchloom.system.words import counted

logger = logging.getLogger(__name__)

CHUNK = 8 << 20  # bytes that are asked for at once
THREADS = 16  # files at once: each waits for its answer
PAUSE = 5.0  # seconds after which it is written down what has arrived
VERSIONS = (  # of a file, by the names that fsspec's file systems have for it
    *("ETag", "etag", "md5Hash", "content_md5", "checksum", "blob_id", "oid", "CRC", "generation"),
    *("mtime", "LastModified", "last_modified", "Last-Modified", "modified", "updated", "created"),
)
EXTRAS = {"s3fs": "pip install -e '.[s3]'", "aiohttp": "pip install -e '.[s3]', which brings it"}

Stamp = list[Any]  # bytes, or None where that is not known, and what tells one version from another


class UnreachableError(InputError):
    """What is at an address cannot be asked for just now."""


@dataclass(frozen=True)
class Found:
    """What is at an address: of each file its name below it, its path there and its stamp."""

    system: Any  # fsspec's
    paths: dict[str, str]
    stamps: dict[str, Stamp]
    single: bool


class Copy:
    """The files of an address on this machine, and what they were there when they were brought."""

    def __init__(self, folder: Path, address: str) -> None:
        plain = re.sub(r"[^\w.-]", "_", PurePosixPath(address.rstrip("/")).name)[-40:]
        self.folder = folder / f"{plain}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"
        self.record = self.folder.with_name(f"{self.folder.name}.json")
        self.parts = self.folder.with_name(f"{self.folder.name}.partial")
        self.address = address
        self.stamps: dict[str, Stamp] = {}
        self.whole = self.single = False
        try:
            known = json.loads(self.record.read_text(encoding="utf-8"))
            self.stamps, self.whole, self.single = dict(known["files"]), known["whole"], known["single"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass

    @property
    def place(self) -> Path:
        return self.folder / next(iter(self.stamps)) if self.single else self.folder

    def lacks(self, name: str, stamp: Stamp) -> bool:
        size = _size(self.folder / name)
        return self.stamps.get(name) != stamp or size is None or stamp[0] not in {None, size}

    def save(self, whole: bool, single: bool) -> None:
        known = {"address": self.address, "single": single, "whole": whole, "files": dict(self.stamps)}
        with atomic_write(self.record) as temporary:
            temporary.write_text(json.dumps(known, indent=0) + "\n", encoding="utf-8")
        self.whole, self.single = whole, single

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)
        self.stamps.pop(name, None)


class Remote:
    """The addresses of a block of parameters: where in `folder` their files are brought, and by which options of
    fsspec's file system; `key` is the block's, for messages."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.key = folder, "preprocess"
        self.addresses: dict[str, str] = {}
        self.options: Mapping[str, Any] = {}
        self._found: dict[str, Found | InputError] = {}  # asked for once in a run

    def told(self, key: str, addresses: Mapping[str, str], options: Mapping[str, Any]) -> None:
        self.key, self.addresses, self.options = key, dict(addresses), options

    def brought(self, config: Any) -> Any:
        """The block with paths on this machine in place of addresses, once the files are here."""
        return config.model_copy(update=self._paths(config))

    def _paths(self, config: BaseModel) -> dict[str, str]:
        paths = {key: self.bring(address, f"{self.key}.{key}") for key, address in addresses_in(vars(config)).items()}
        if "files" in paths and paths["files"].is_file() and getattr(config, "folder", paths) is None:
            raise InputError(
                f"{self.key}.files {vars(config)['files']}: is one table. Say where the paths in it begin, "
                f"{self.key}.folder, or name the folder that has both"
            )
        return {key: str(path) for key, path in paths.items()}

    def bring(self, address: str, key: str) -> Path:
        """Where the file or folder is on this machine; what is new or has changed at the address is brought first.

        Where the address cannot be reached, what was brought before will do. InputError, which names the `key`, when it
        was not, or when there is no such file or folder.
        """
        if without_secrets(address) != address:
            raise InputError(f"{key} {address}: has a secret in it. Write that into credentials.yml")
        if path := local_path(address):
            return path
        copy = Copy(self.folder, address)
        try:
            found = self.look(address, key)
        except UnreachableError as error:
            if not copy.whole:
                raise
            logger.warning("%s. Going on with what was brought before, in %s", error.message, copy.folder)
            return copy.place
        with _explained(f"{key} {address}"):
            _update(copy, found, f"{key} {address}")
        return copy.place

    def look(self, address: str, key: str) -> Found:
        """What is at the address now."""
        if address not in self._found:
            try:
                with _explained(f"{key} {address}"):
                    self._found[address] = _look(address, self.options, f"{key} {address}")
            except InputError as error:
                self._found[address] = error
        found = self._found[address]
        if isinstance(found, InputError):
            raise found
        return found

    def fingerprint(self) -> str | None:
        """Of what is at the addresses; where they cannot be reached, of what was there when it was brought."""
        places = {key: address for key, address in self.addresses.items() if not local_path(address)}
        known = {address: self._stamps(address, f"{self.key}.{key}") for key, address in places.items()}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest() if known else None

    def _stamps(self, address: str, key: str) -> dict[str, Stamp]:
        try:
            return self.look(address, key).stamps
        except InputError:  # who needs the files will say so
            return Copy(self.folder, address).stamps


# ---- there ---------------------------------------------------------------------------------------------------------


def _look(address: str, options: Mapping[str, Any], place: str) -> Found:
    system, path = _opened(address, options, place)
    system.invalidate_cache()
    info = system.info(path)
    if info["type"] == "file" and not address.endswith("/"):
        name = PurePosixPath(str(path)).name
        return Found(system, {name: path}, {name: _stamp(info)}, True)
    top = str(system._strip_protocol(path)).rstrip("/") + "/"
    below = {str(each).removeprefix(top): (each, info) for each, info in system.find(path, detail=True).items()}
    files = {name: each for name, each in sorted(below.items()) if _is_file(name, each[1])}
    if odd := next((name for name in files if not _is_safe(name)), None):
        raise InputError(f"{place}: holds {odd!r}, which cannot be the name of a file here. Rename it")
    if not files:
        raise InputError(f"{place}: the folder holds no files")
    stamps = {name: _stamp(info) for name, (_, info) in files.items()}
    return Found(system, {name: each for name, (each, _) in files.items()}, stamps, False)


def _opened(address: str, options: Mapping[str, Any], place: str) -> tuple[Any, str]:
    """The file system of the address, and the path there."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address, **options)
    except ImportError as error:
        package = next((name for name in EXTRAS if name in str(error)), None)
        advice = f"needs {package}. Install the extra: {EXTRAS[package]}" if package else str(error).rstrip(".")
        raise InputError(f"{place}: {advice}") from error
    except ValueError as error:
        known = "s3, gs, abfs, https, sftp, hf, file and others"
        raise InputError(f"{place}: is no address that fsspec knows ({error}); there are {known}") from error
    return system, path


def _is_file(name: str, info: Mapping[str, Any]) -> bool:
    """Whether it is a file of the user's; some stores keep an empty object for a folder."""
    return info["type"] == "file" and not name.endswith("/") and all(map(is_users, filter(None, name.split("/"))))


def _is_safe(name: str) -> bool:
    return not {"", ".", ".."} & set(name.split("/")) and "\0" not in name and not PurePosixPath(name).is_absolute()


def _stamp(info: Mapping[str, Any]) -> Stamp:
    return [info.get("size"), " ".join(str(info[name]) for name in VERSIONS if info.get(name) is not None)]


@contextmanager
def _explained(place: str) -> Iterator[None]:
    """Whatever a file system answers, as one message."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            raise _unreachable(place, error.__cause__) from error  # as it is of hosts that do not answer
        raise InputError(f"{place}: there is no such file, folder or bucket") from error
    except TypeError as error:
        raise InputError(f"{place}: the entry of credentials.yml is not for such addresses ({error})") from error
    except PermissionError as error:
        advice = "Name the entry of conf/local/credentials.yml that does: credentials"
        raise InputError(f"{place}: what you have does not let you in ({_reason(error)}). {advice}") from error
    except Exception as error:  # each file system has errors of its own
        if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}:
            raise InputError(f"{place}: writing it here failed ({error}). What has arrived stays") from error
        raise _unreachable(place, error) from error


def _unreachable(place: str, error: Exception) -> UnreachableError:
    advice = "Check the address, the network and the credentials"
    return UnreachableError(f"{place}: cannot be reached ({_reason(error)}). {advice}")


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


# ---- here ----------------------------------------------------------------------------------------------------------


def _update(copy: Copy, found: Found, place: str) -> None:
    """Bring what the copy lacks; what is no longer there goes."""
    gone = copy.stamps.keys() - found.stamps.keys()
    lacking = [name for name, stamp in found.stamps.items() if copy.lacks(name, stamp)]
    if not lacking and not gone and copy.whole:
        logger.info("%s: %s, here and unchanged", printable(place), counted(len(found.stamps), "file"))
        return
    size = sum(found.stamps[name][0] or 0 for name in lacking)
    _make_room(copy, size, place)
    for name in gone:
        copy.remove(name)
    logger.info("%s: bringing %s, %.1f MB, to %s", place, counted(len(lacking), "file"), size / 1e6, copy.folder)
    try:
        _bring(copy, found, lacking, place)
    finally:
        copy.save(False, found.single)
    copy.save(True, found.single)
    shutil.rmtree(copy.parts, ignore_errors=True)


def _make_room(copy: Copy, size: int, place: str) -> None:
    try:
        copy.folder.mkdir(parents=True, exist_ok=True)
        copy.parts.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{copy.folder}: cannot be made ({error.strerror}). Make room or change the rights of the folder above"
        ) from error
    free = shutil.disk_usage(copy.folder).free
    if size > free:
        raise InputError(
            f"{place}: has {size / 1e9:.1f} GB, and {copy.folder} has room for {free / 1e9:.1f}. Make room"
        )


def _bring(copy: Copy, found: Found, names: list[str], place: str) -> None:
    sizes = [found.stamps[name][0] for name in names]
    saved = time.monotonic()
    with download_bar() as bar, ThreadPoolExecutor(THREADS, "bring") as pool:
        task = bar.add_task("bring", total=None if None in sizes else sum(sizes))
        stopped = threading.Event()

        def advance(count: int) -> None:
            bar.advance(task, count)
            if stopped.is_set():  # what has arrived stays
                raise InterruptedError

        try:
            for name in pool.map(lambda name: _bring_one(copy, found, name, advance, place), names):
                copy.stamps[name] = found.stamps[name]
                if time.monotonic() - saved > PAUSE:
                    copy.save(False, found.single)
                    saved = time.monotonic()
        except BaseException:
            stopped.set()
            pool.shutdown(cancel_futures=True)
            raise


def _bring_one(copy: Copy, found: Found, name: str, advance: Callable[[int], None], place: str) -> str:
    """Bring one file; of an earlier try of the same version only what is missing."""
    size, version = found.stamps[name]
    part = copy.parts / hashlib.sha256(json.dumps([name, size, version]).encode()).hexdigest()[:32]
    have = (_size(part) or 0) if version and size is not None else 0
    have = have if size is not None and have <= size else 0
    advance(have)
    with found.system.open(found.paths[name], "rb", block_size=CHUNK, cache_type="none") as file:
        if have:
            file.seek(have)
        with part.open("ab" if have else "wb") as target:
            while chunk := file.read(CHUNK):
                target.write(chunk)
                advance(len(chunk))
            target.flush()
            os.fsync(target.fileno())
    if size is not None and _size(part) != size:
        part.unlink()
        raise InputError(f"{place}: {name} changes while it is read. Run it again when it is whole")
    _put(part, copy.folder / name, place)
    return name


def _put(part: Path, target: Path, place: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(
            f"{place}: {target.name} is both a file and a folder there, which cannot be here. Rename one"
        ) from error


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


class RemoteDataset(AbstractDataset[None, Remote]):
    """Where files of a user's own are, when that is at an address; `filepath` is the folder that they are brought to.

    The hooks say which address that is, and by which credentials.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.remote = Remote(Path(filepath))
        self.metadata = metadata

    def load(self) -> Remote:
        return self.remote

    def save(self, data: None) -> None:  # noqa: ARG002
        raise DatasetError("what is at an address is only read")

    def fingerprint(self) -> str | None:
        return self.remote.fingerprint()

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"folder": str(self.remote.folder), **self.remote.addresses}
