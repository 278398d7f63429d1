"""The stage of preparation that data sets share; `preprocess` is the reader's: torchloom/data/readers."""

from torchloom.datasets.raw import RawFiles, Source


def download(source: Source) -> RawFiles:
    """Bring the data set's files into data/01_raw, unless they are there and right."""
    from torchloom.data.download import download

    return download(source)
