"""The sounds of a user's files, read into one memory-mapped file for each split, and what is measured on them."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import numpy as np

from torchloom.data.copies import Seen, digest_of
from torchloom.data.documents import packed_texts
from torchloom.data.rows import Row
from torchloom.data.sound_files import head_of, read_sound
from torchloom.data.spectrograms import log_mel_blocks
from torchloom.datasets.listing import NAMED
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.system.progress import step_bar
from torchloom.system.words import counted

logger = logging.getLogger(__name__)

LEAST_STD = 0.1  # of a band in which nothing happens


class Place(NamedTuple):
    """Where the sounds of rows are: the column with their paths, and the folder that these are seen from."""

    folder: str
    column: str

    def path(self, row: Row) -> str:
        return os.path.join(self.folder, str(row[self.column]))

    def heads(self, rows: Sequence[Row]) -> list[tuple[float, int]]:
        """Seconds, and samples in one, of each sound that can be opened; who reads the others will say why not."""
        return list(filter(None, map(self._head, rows)))

    def _head(self, row: Row) -> tuple[float, int] | None:
        try:
            with open(self.path(row), "rb") as file:
                return head_of(file)
        except (OSError, InputError):
            return None


class Stored(NamedTuple):
    """The sounds of a split that could be read: their rows, waveforms (all,) float32, and samples of each."""

    rows: list[Row]
    waveforms: np.ndarray
    lengths: list[int]

    @property
    def starts(self) -> np.ndarray:
        return np.cumsum([0, *self.lengths], dtype=np.int64)

    def sounds(self) -> Iterator[np.ndarray]:
        """Each waveform (T,)."""
        return (self.waveforms[start:end] for start, end in pairwise(self.starts.tolist()))

    def seen(self, column: str) -> list[Seen]:
        return [Seen(str(row[column]), digest_of(sound)) for row, sound in zip(self.rows, self.sounds(), strict=True)]

    def tensors(self, target: dict[str, np.ndarray], column: str) -> Tensors:
        names = [str(row[column]).encode(errors="backslashreplace").decode() for row in self.rows]
        return Tensors({"waveforms": self.waveforms, "starts": self.starts, **target, **packed_texts(names)})


class Reading:
    """Reads the sounds of rows, several at once, and takes note of those that it cannot read."""

    def __init__(self, place: Place, rate: int, scratch: Path) -> None:
        """What it has read lies in a temporary file in the folder `scratch`."""
        self.place, self.rate, self.scratch = place, rate, scratch
        self.failures: list[str] = []

    def splits(self, parts: Mapping[str, list[Row]]) -> dict[str, Stored]:
        """The sounds of each split, as far as they can be read."""
        from torchloom.system.devices import usable_cores

        cores = usable_cores()
        with ThreadPoolExecutor(cores, "sounds") as pool, step_bar() as bar:
            return {split: self._split(split, part, pool, cores, bar) for split, part in parts.items()}

    def _split(self, split: str, rows: list[Row], pool: ThreadPoolExecutor, at_once: int, bar: Any) -> Stored:
        task = bar.add_task(f"{split} sounds", total=len(rows), status="")
        kept: list[Row] = []
        lengths: list[int] = []
        try:
            with TemporaryFile(dir=self.scratch) as file:
                for start in range(0, len(rows), at_once):  # no more are held in memory
                    some = rows[start : start + at_once]
                    for row, waveform in zip(some, pool.map(self._try, some), strict=True):
                        if waveform is not None:
                            file.write(waveform.data)
                            kept.append(row)
                            lengths.append(len(waveform))
                    bar.update(task, advance=len(some), status=f"{len(self.failures)} unreadable")
                file.flush()
                stored = np.memmap(file, np.float32, "r") if lengths else np.empty(0, np.float32)
        except OSError as error:
            raise InputError(
                f"{self.scratch}: the sounds cannot be written ({error.strerror}). Make room there"
            ) from error
        return Stored(kept, stored, lengths)

    def _try(self, row: Row) -> np.ndarray | None:
        """The waveform of a row; None when it cannot be read, which is noted."""
        path = self.place.path(row)
        try:
            with open(path, "rb") as file:
                return read_sound(file, self.rate)
        except OSError as error:
            self.failures.append(f"{path}: cannot be read ({error.strerror})")
        except InputError as error:
            self.failures.append(f"{path}: {error.message}")
        return None

    def report(self, count: int, skip: bool) -> None:
        """Say what could not be read; InputError unless that is to be left out."""
        if not self.failures:
            return
        named = "\n".join(f"  {line}" for line in sorted(self.failures)[:NAMED])
        more = f"\n  and {len(self.failures) - NAMED} more" if len(self.failures) > NAMED else ""
        said = f"{len(self.failures)} of {counted(count, 'sound')} cannot be read:\n{named}{more}\n"
        if not skip:
            raise InputError(f"{said}Remove or mend them, or set preprocess.skip_unreadable: true to leave them out")
        logger.warning("%sThey are left out", said)


def measured(sounds: Iterable[np.ndarray], rate: int, mels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each band of the log-mel spectrograms, over all frames of the sounds (T,)."""
    sums, count = np.zeros((2, mels)), 0
    for sound in sounds:
        for block in log_mel_blocks(sound, rate, mels):
            sums += [block.sum(0, dtype=np.float64), np.square(block, dtype=np.float64).sum(0)]
            count += len(block)
    mean, square = sums / count
    std = np.sqrt(np.maximum(square - mean**2, LEAST_STD**2))
    return mean.tolist(), std.tolist()


def rates_in_words(heads: Sequence[tuple[float, int]]) -> str:
    return ", ".join(f"{count:,} of {rate:,}" for rate, count in Counter(rate for _, rate in heads).most_common(5))
