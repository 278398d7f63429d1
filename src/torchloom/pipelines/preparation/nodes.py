"""The stage of preparation that data sets share; `preprocess` is the reader's: torchloom/data/readers."""

from torchloom.data.download import download as fetch_all
from torchloom.datasets.raw import RawFiles, Source


def download(source: Source) -> RawFiles:
    """Bring the data set's files into data/01_raw, unless they are there and right."""
    return fetch_all(source)
