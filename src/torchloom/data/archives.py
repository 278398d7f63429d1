"""Packed files and archives as streams: read from front to back, in little memory whatever they hold.

Damage surfaces as almost any exception (those of gzip, bz2, lzma and tarfile, but also ValueError, RecursionError …);
who reads catches them all.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

CHUNK = 1 << 20  # bytes
LARGEST_ARCHIVE = 8 << 30  # bytes; what unpacks to more is taken for a decompression bomb
MOST_MEMBERS = 200_000
LARGEST_HEADER = 1 << 16  # bytes of a long name or of extended attributes
XZ_MEMORY = 128 << 20  # bytes; `xz -9` asks for 65 MiB


def open_packed(path: Path) -> IO[bytes]:
    """What a .gz, .tgz, .bz2 or .xz file holds; any other file as it is."""
    match path.suffix:
        case ".gz" | ".tgz":
            return cast(IO[bytes], gzip.open(path))
        case ".bz2":
            return bz2.open(path)
        case ".xz":
            return io.BufferedReader(_XZ(path))
        case _:
            return path.open("rb")


def walk_tar(stream: IO[bytes], largest: int = LARGEST_ARCHIVE) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """The members of an unpacked tar file, plain files with their content, which is gone when the next is asked for.

    Raises ReadError when the archive is damaged, holds more than `largest` bytes or is made to exhaust its reader.
    """
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive:
        for count, member in enumerate(archive, 1):
            if member.size < 0 or member.offset_data + member.size > largest or count > MOST_MEMBERS:
                raise tarfile.ReadError(f"more than {largest >> 20} MiB or {MOST_MEMBERS} members, or of negative size")
            archive.members, archive.pax_headers = [], {}  # type: ignore[attr-defined]  # else they would grow
            yield member, archive.extractfile(member) if member.isfile() else None


class _Member(tarfile.TarInfo):
    """A member that tarfile can read in little memory: it takes in long names, attributes and sparse maps whole."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: Any, errors: Any) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        plain = member.type in tarfile.REGULAR_TYPES
        if member.type == tarfile.GNUTYPE_SPARSE or member.size < 0 or (not plain and member.size > LARGEST_HEADER):
            raise tarfile.ReadError(f"a header of type {member.type!r} and {member.size} bytes")
        return member

    def _proc_gnusparse_10(self, *_: Any) -> None:
        raise tarfile.ReadError("a sparse file")


class _XZ(io.RawIOBase):
    """What an .xz file of one stream holds; lzma.open itself lets a file ask for any amount of memory."""

    def __init__(self, path: Path) -> None:
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
        self._file = path.open("rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b""
        while not data and not self._decoder.eof:
            packed = self._file.read(CHUNK) if self._decoder.needs_input else b""
            if self._decoder.needs_input and not packed:
                raise EOFError("the file ends too early")
            data = self._decoder.decompress(packed, len(buffer))
        if not data and (self._decoder.unused_data or self._file.read(1)):
            raise lzma.LZMAError("there is more after the end")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
