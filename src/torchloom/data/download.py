"""The download stage: from a list of places to verified files in data/01_raw.

Files that are there and right are left alone; what is missing or damaged is fetched from the first place that has
it. Nothing gets its final name before its checksum is right, so a run that is cut off leaves only whole files and
partial downloads to resume.
"""

from __future__ import annotations

import errno
import http.client
import logging
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from torchloom.config.checks import UnknownNameError
from torchloom.data.archives import open_packed, walk_tar
from torchloom.data.readers import reader
from torchloom.data.web import SourceError, fetch_url, is_page, quoted
from torchloom.datasets.raw import MIRROR_VARIABLE, Form, RawFiles, Source
from torchloom.errors import InputError, printable, without_secrets
from torchloom.system.files import atomic_write, checksum
from torchloom.system.words import counted

logger = logging.getLogger(__name__)

CHUNK = 1 << 20  # bytes
LARGEST_FILE = 8 << 30  # bytes; more than this out of one file or host is taken for an attack
SUMS = "SHA256SUMS"
LARGEST_SUMS = 1 << 20  # bytes
PARTIAL = ".partial"  # the folder of downloads to resume
DISTRIBUTIONS = {"sklearn": "scikit-learn"}  # of packages that are installed under another name


class _Pending:
    """A source in one of its forms, the checksums known so far and the files that are still missing."""

    def __init__(self, source: Source, form: Form) -> None:
        self.source = replace(source, files=form.files, fetch=form.fetch, alternatives=())
        drawn = _read_sums(source.folder / SUMS)  # of an earlier run, for files without a published checksum
        self.wanted = {name: published or drawn.get(name) for name, published in form.files.items()}
        self.missing = [name for name, digest in self.wanted.items() if not _intact(source.folder / name, digest)]

    def raw_files(self) -> RawFiles:
        return RawFiles(self.source.folder, {name: str(digest) for name, digest in self.wanted.items()})


def download(source: Source) -> RawFiles:
    """Bring every file of `source` into its folder and return them with their checksums.

    Of several forms the first that is there already is taken; else each place is asked for each of them, until one is
    complete. Raises InputError, with all that was tried, when a file can be had nowhere.
    """
    forms = [_Pending(source, form) for form in (Form(source.files, source.fetch), *source.alternatives)]
    for form in forms:
        if not form.missing:
            logger.info("%s: %s, there and verified", source.name, counted(len(form.wanted), "file"))
            return form.raw_files()
    _check_writable(source.folder)
    _warn_of_damage(source.folder, forms)
    tried: list[str] = []
    for place in source.all_places():
        known = len(tried)
        for form in forms:
            form.missing = _fetch_from(place, form.source, form.wanted, form.missing, tried)
            if not form.missing:
                shutil.rmtree(source.folder / PARTIAL, ignore_errors=True)
                return form.raw_files()
        for reason in dict.fromkeys(tried[known:]):
            logger.warning("%s", printable(reason))
    raise InputError(_nowhere(source, [form.missing for form in forms], tried))


def _warn_of_damage(folder: Path, forms: list[_Pending]) -> None:
    """Say which files are there but wrong, as none of the forms has them."""
    for name in dict.fromkeys(name for form in forms for name in form.missing):
        holders = [form for form in forms if form.wanted.get(name)]
        if holders and (folder / name).exists() and all(name in form.missing for form in holders):
            expected = " or ".join(str(form.wanted[name]) for form in holders)
            logger.warning("%s: damaged, its checksum is not %s; fetching it again", folder / name, expected)


def _intact(path: Path, digest: str | None) -> bool:
    try:
        return digest is not None and path.is_file() and checksum(path, digest.partition(":")[0]) == digest
    except OSError:  # not readable: as good as damaged
        return False


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written to ({error.strerror}). Make room or change its rights."
        ) from error


def _nowhere(source: Source, missing: list[list[str]], tried: list[str]) -> str:
    """The message about what is missing of each form."""
    names = "; or instead ".join(dict.fromkeys(", ".join(form) for form in missing))
    lines = [f"{source.name}: {names} could not be had. Tried:", *(f"  - {line}" for line in dict.fromkeys(tried))]
    if not os.environ.get(MIRROR_VARIABLE) and source.mirror:
        lines.append(f"  - no mirror folder: the environment variable {MIRROR_VARIABLE} is not set")
    if source.mirror:
        lines.append(
            f"Without the network, set {MIRROR_VARIABLE} to a folder that holds {source.mirror}/, "
            "or run on drawn data with --env sample."
        )
    return "\n".join(lines)


def _fetch_from(
    place: str, source: Source, wanted: dict[str, str | None], missing: list[str], tried: list[str]
) -> list[str]:
    """Fetch what `place` has of `missing`; return what is still missing and add the reasons to `tried`."""
    remotes: dict[str, list[str]] = {}
    stored: set[str] = set()  # what was verified on the way
    try:
        with _open_place(place) as folder:
            for name in missing:
                plain = folder is not None and (folder / name).is_file()
                remotes.setdefault(name if plain else source.fetch.format(name=name), []).append(name)
            for remote, names in remotes.items():
                try:
                    if folder is None:
                        _from_web(f"{place.rstrip('/')}/{quoted(remote)}", source.folder, remote, names, wanted)
                    else:
                        _from_folder_or_packed(folder, source, remote, names, wanted)
                    stored.update(names)
                except (SourceError, urllib.error.HTTPError) as error:  # the place's other files may be fine
                    tried.append(f"{place}: {error}")
    except (SourceError, OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no URL, no header
        _raise_if_disk_full(error, source.folder)
        tried.append(f"{place}: {getattr(error, 'reason', error)}")
    left = [name for name in missing if name not in stored and not _intact(source.folder / name, wanted[name])]
    if len(left) < len(missing):
        logger.info(
            "%s: %s from %s, verified", source.name, counted(len(missing) - len(left), "file"), without_secrets(place)
        )
    return left


def _raise_if_disk_full(error: Exception, folder: Path) -> None:
    if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}:
        raise InputError(f"{folder}: writing failed ({error}). No file was left half-written.") from error


@contextmanager
def _open_place(place: str) -> Iterator[Path | None]:
    """Yield the local folder behind `place`, or None where it is on the web."""
    parts = urlsplit(place)
    if parts.scheme in {"http", "https"}:
        yield None
    elif parts.scheme == "sample":
        with tempfile.TemporaryDirectory() as folder:
            logger.info("drawing the sample data of %s", parts.netloc)
            _drawing(parts.netloc)(Path(folder))
            yield Path(folder)
    elif parts.scheme == "package":
        yield _package_folder(parts.netloc, parts.path.strip("/"))
    elif len(parts.scheme) > 1 and parts.scheme != "file":  # one letter is a drive
        raise SourceError(
            f"{parts.scheme}:// is no place that downloads come from. Name an address of http or https, a folder, or "
            "one where it is mounted; what users bring, preprocess.files, may lie at any address"
        )
    else:
        local = Path(urllib.request.url2pathname(parts.path) if parts.scheme == "file" else place).expanduser()
        if not local.is_dir():
            raise SourceError("no such folder")
        yield local


def _package_folder(package: str, folder: str) -> Path:
    """A folder of an installed package, which is found without importing it."""
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None:
        raise SourceError(f"not installed; run: pip install {DISTRIBUTIONS.get(package, package)}")
    for root in spec.submodule_search_locations or []:
        if Path(root, folder).is_dir():
            return Path(root, folder)
    raise SourceError(f"the installed {DISTRIBUTIONS.get(package, package)} has no such folder")


def _drawing(name: str) -> Callable[[Path], None]:
    """The function `draw_sample` of a reader: a module of torchloom.data.readers, or one of the user's own."""
    try:
        draw: Callable[[Path], None] = reader(name).draw_sample
    except (ImportError, AttributeError, UnknownNameError) as error:
        raise SourceError(f"the reader {name} has no draw_sample ({error})") from error
    return draw


def _from_folder_or_packed(
    folder: Path, source: Source, remote: str, names: list[str], wanted: dict[str, str | None]
) -> None:
    """Where the file itself is damaged, as by a program that was cut off while it unpacked it, the packed counts."""
    try:
        _from_folder(folder, source, remote, names, wanted)
    except SourceError:
        packed = source.fetch.format(name=remote)
        if packed == remote or names != [remote] or not (folder / packed).is_file():
            raise
        _from_folder(folder, source, packed, names, wanted)


def _from_folder(folder: Path, source: Source, remote: str, names: list[str], wanted: dict[str, str | None]) -> None:
    """Store `names` from the file `remote` of a local folder, which is the one wanted or has them packed."""
    unpublished = [name for name in names if source.files[name] is None]
    if unpublished:
        sums = _read_sums(folder / SUMS)
        if not sums.keys() >= set(unpublished):
            raise SourceError(f"no published checksum, and no {SUMS}, for {', '.join(unpublished)}")
        wanted.update({name: sums[name] for name in unpublished})
        with (folder / SUMS).open("rb") as file:
            _store(file, source.folder / SUMS, checksum(folder / SUMS))
    if not (folder / remote).is_file():
        alternative = "" if remote in names else f" nor {remote}"
        raise SourceError(f"has {'neither' if alternative else 'no'} {', '.join(names)}{alternative}")
    _unpack(folder / remote, source.folder, remote, names, wanted)


def _read_sums(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_SUMS).decode("utf-8", "replace")
    except OSError:
        return {}
    rows = (line.split(maxsplit=1) for line in text.splitlines())
    return {row[1].lstrip("*"): f"sha256:{row[0].lower()}" for row in rows if len(row) == 2}


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS, as sha256sum prints it, for every file below `folder`."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    rows = [f"{checksum(folder / name).removeprefix('sha256:')}  {name}\n" for name in names]
    (folder / SUMS).write_text("".join(rows))


def _from_web(url: str, target: Path, remote: str, names: list[str], wanted: dict[str, str | None]) -> None:
    """Download `url`, resuming what an earlier try left, and unpack `names` from it."""
    unknown = [name for name in names if wanted[name] is None]
    if unknown:
        raise SourceError(f"no published checksum for {', '.join(unknown)}")
    part = target / PARTIAL / remote
    resumed = part.is_file()
    fetch_url(url, part, LARGEST_FILE)
    try:
        _unpack(part, target, remote, names, wanted)
    except SourceError as error:
        page = is_page(part)
        part.unlink()
        if page:
            raise SourceError(f"{remote} is a web page there, such as one to log in on, and not the file") from error
        if not resumed:
            raise
        reason = printable(str(error))
        logger.warning(
            "%s: what was resumed does not fit together (%s); downloading it anew", without_secrets(url), reason
        )
        _from_web(url, target, remote, names, wanted)
    else:
        part.unlink()


def _unpack(packed: Path, target: Path, remote: str, names: list[str], wanted: dict[str, str | None]) -> None:
    """Store the files `names` out of `packed`, or `packed` itself when its name at the place, `remote`, is wanted.

    Only they are written, each once its checksum is right.
    """
    try:
        if remote in names:
            with packed.open("rb") as file:
                _store(file, target / remote, wanted[remote])
        elif ".tar" in packed.suffixes or packed.suffix == ".tgz":
            _unpack_tar(packed, target, names, wanted)
        else:
            with open_packed(packed) as file:
                _store(file, target / names[0], wanted[names[0]])
    except Exception as error:  # what reads archives answers damage with almost anything
        if isinstance(error, (SourceError, InputError)) or getattr(error, "errno", None):
            raise
        raise SourceError(f"{packed.name} is damaged ({error})") from error


def _unpack_tar(packed: Path, target: Path, names: list[str], wanted: dict[str, str | None]) -> None:
    """Twice through the archive: everything in it must be harmless before anything is stored."""
    with open_packed(packed) as stream:
        members = ((_safe(member.name), member) for member, _ in walk_tar(stream) if _regular(member))
        places = {name: member.offset for name, member in members if name in names}  # of several the last
    with open_packed(packed) as stream:
        for member, file in walk_tar(stream):
            name = _safe(member.name)
            if places.get(name) == member.offset:
                _store(file, target / name, wanted[name])
    missing = [name for name in names if name not in places]
    if missing:
        raise SourceError(f"{packed.name} does not hold {', '.join(missing)}")


def _safe(name: str) -> str:
    """The member's name, when it stays inside the folder that it is unpacked to."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
        raise SourceError(f"the archive holds {name!r}, which would be written outside its folder; refused as a whole")
    return str(path)


def _regular(member: tarfile.TarInfo) -> bool:
    _safe(member.name)
    if member.issym() or member.islnk():
        raise SourceError(f"the archive holds the link {member.name!r} -> {member.linkname!r}; refused as a whole")
    return member.isfile()


def _store(file: Any, target: Path, digest: str | None) -> None:
    """Copy the open binary `file` to `target`, which appears only when the checksum is right."""
    assert digest is not None
    with atomic_write(target) as temporary:
        with temporary.open("wb") as copy:
            while chunk := file.read(CHUNK):
                copy.write(chunk)
                if copy.tell() > LARGEST_FILE:
                    raise SourceError(f"{target.name} unpacks to more than {LARGEST_FILE >> 30} GiB; refused")
        found = checksum(temporary, digest.partition(":")[0])
        if found != digest:
            raise SourceError(f"{target.name} has the checksum {found}, but should have {digest}")
