"""One file from an address of http or https: resumed, tried again, and given up where it does not get on."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from torchloom.errors import without_secrets
from torchloom.system.progress import download_bar

logger = logging.getLogger(__name__)

CHUNK = 1 << 20  # bytes
TIMEOUT = 20  # seconds without an answer before a host counts as unreachable
TRIES = 4  # of one file at one place
WAIT = 1.0  # seconds before it is tried again, then twice as long, and so on
LONGEST_WAIT = 60.0  # seconds, whatever Retry-After says
PASSING = {408, 429, 500, 502, 503, 504}  # what a server answers that may have another answer soon
SLOWEST = 1000  # bytes a second
PATIENCE = 60.0  # seconds, over which the speed is measured


class SourceError(Exception):
    """One place could not give one file; the next place is tried."""


class CutError(OSError):
    """A connection that ended, or crept, in the middle of a file."""


def quoted(remote: str) -> str:
    """The path of a file as it is asked for: spaces and letters beyond ASCII as %…, what is such already as it is."""
    return quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", remote), safe="/%:?=&+,;@~()!*'$")


def is_page(path: Path) -> bool:
    """Whether a file is a page of the web, which servers answer with in place of what is not, or not freely, there."""
    with path.open("rb") as file:
        start = file.read(500).lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html"))


def fetch_url(url: str, part: Path, largest: int) -> None:
    """Download `url` to `part`, continuing after the bytes that are there when they came from the same version.

    The server's ETag (or Last-Modified) is kept beside `part` and sent as If-Range, so that a changed file starts
    anew. What a server cannot answer just now, and a connection that was cut, are tried again a few times. Raises
    URLError or OSError; what had arrived by then stays. Raises SourceError at more than `largest` bytes.
    """
    for wait in _waits():
        try:
            _fetch(url, part, largest)
            return
        except (urllib.error.HTTPError, CutError) as error:
            if wait is None or (isinstance(error, urllib.error.HTTPError) and error.code not in PASSING):
                raise
            seconds = _asked_for(error) or wait
            logger.warning("%s: %s; trying again in %.0f s", without_secrets(url), error, seconds)
            time.sleep(seconds)


def _waits() -> Iterator[float | None]:
    """Seconds to wait after each try; None after the last one."""
    yield from (WAIT * 2**number for number in range(TRIES - 1))
    yield None


def _asked_for(error: Exception) -> float:
    """Seconds after which the server says that it will answer; 0 where it does not say so."""
    said = str(getattr(error, "headers", {}).get("Retry-After") or "")
    if said.isdecimal():
        return min(float(said), LONGEST_WAIT)
    try:
        return min(max(parsedate_to_datetime(said).timestamp() - time.time(), 0.0), LONGEST_WAIT)
    except ValueError:
        return 0.0


def _fetch(url: str, part: Path, largest: int) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    origin = _origin_of(part)
    request = _request(url)
    have = part.stat().st_size if part.is_file() else 0
    version = _same_origin(origin, url) if have else None
    if version:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", version)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after what we have: it is whole, and its checksum will tell
            return
        raise
    except ConnectionError as error:
        raise CutError(f"the connection ended without an answer ({error})") from error
    with response:
        continues = response.status == 206
        have = have if continues else 0
        version = response.headers.get("ETag") or response.headers.get("Last-Modified")
        origin.write_text(json.dumps({"url": without_secrets(url), "version": version}))
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        said = "resuming" if continues else "downloading"
        logger.info("%s %s (%s)", said, without_secrets(url), _size(total))
        with part.open("ab" if continues else "wb") as file:
            _copy(response, file, have, total, largest)
            arrived = file.tell()
    if total is not None and arrived != total:
        raise CutError(f"the connection ended after {arrived} of {total} bytes; the next run resumes there")


def _request(url: str) -> urllib.request.Request:
    """With what stands before the @ as name and password, which go to that host alone."""
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    plain = urlunsplit(parts._replace(netloc=host))
    request = urllib.request.Request(plain, headers={"User-Agent": "torchloom", "Accept-Encoding": "identity"})
    if login:
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(unquote(login).encode()).decode())
    return request


def _copy(response: Any, file: BinaryIO, have: int, total: int | None, largest: int) -> None:
    began, before = time.monotonic(), have
    with download_bar() as bar:
        task = bar.add_task(PurePosixPath(file.name).name, total=total, completed=have)
        try:
            while chunk := response.read1(CHUNK):
                file.write(chunk)
                bar.advance(task, len(chunk))
                if file.tell() > largest:
                    Path(file.name).unlink()
                    raise SourceError(f"{Path(file.name).name} has more than {largest >> 30} GiB; refused")
                if time.monotonic() - began > PATIENCE:
                    if file.tell() - before < SLOWEST * PATIENCE:
                        raise CutError(f"slower than {SLOWEST / 1000:g} kB a second; the next run resumes there")
                    began, before = time.monotonic(), file.tell()
        except (ConnectionError, TimeoutError, http.client.IncompleteRead) as error:
            said = str(error) or type(error).__name__
            raise CutError(
                f"the connection ended after {file.tell()} bytes ({said}); the next run resumes there"
            ) from error


def _same_origin(origin: Path, url: str) -> str | None:
    try:
        known = json.loads(origin.read_text())
        version: str = known["version"]
        return version if known["url"] == without_secrets(url) and version.isascii() and version.isprintable() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _size(total: int | None) -> str:
    return "size unknown" if total is None else f"{total / 1e6:.1f} MB"


def _origin_of(part: Path) -> Path:
    return part.with_name(part.name + ".json")
