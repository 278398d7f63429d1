"""The download stage; `preprocess` is each data set's own: see torchloom/data/<data set>.py."""

from torchloom.data.download import RawFiles, Source
from torchloom.data.download import download as fetch_all


def download(source: Source) -> RawFiles:
    """Bring the data set's files into data/01_raw, unless they are there and right."""
    return fetch_all(source)
