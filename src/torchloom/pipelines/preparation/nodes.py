"""The stage of preparation that data sets share; `preprocess` is the reader's: torchloom/data/readers."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from torchloom.config.preprocess import ReaderConfig
from torchloom.datasets.raw import RawFiles, Source


def download(source: Source) -> RawFiles:
    """Bring the data set's files into data/01_raw, unless they are there and right."""
    from torchloom.data.download import download

    return download(source)


class Bringing:
    """A stage of a reader on files that are elsewhere: they are brought first, and it sees paths on this machine.

    Called with what the reader's function takes, and last the Remote of the data set. To all who look at it, it is that
    function: the code that the records keep is the reader's.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        update_wrapper(self, function)
        self.function = function

    def __call__(self, *given: Any) -> Any:
        *own, remote = given
        return self.function(*(remote.brought(each) if isinstance(each, ReaderConfig) else each for each in own))
