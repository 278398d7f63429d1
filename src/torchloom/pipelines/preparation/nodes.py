"""The stages of preparation that data sets share; `preprocess` is each data set's own: torchloom/data/<data set>.py."""

import logging
from pathlib import Path
from typing import Any

from torchloom.config import FolderPreprocessConfig
from torchloom.data.download import RawFiles, Source
from torchloom.data.download import download as fetch_all
from torchloom.data.folder import check_class_folders, prepare_folder
from torchloom.data.pictures import SUFFIXES
from torchloom.datasets.listing import Listing, scan
from torchloom.datasets.tensors import Tensors
from torchloom.errors import printable
from torchloom.words import counted

logger = logging.getLogger(__name__)


def download(source: Source) -> RawFiles:
    """Bring the data set's files into data/01_raw, unless they are there and right."""
    return fetch_all(source)


def find_images(config: FolderPreprocessConfig) -> Listing:
    """List the pictures of a folder that has a subfolder for each class."""
    listing = scan(Path(config.folder), "preprocess.folder", SUFFIXES)
    listing.say_links()
    check_class_folders(listing, config)
    found, others = counted(len(listing.names), "picture"), counted(sum(listing.others.values()), "other file")
    kinds = ", ".join(f"{count} {suffix or 'without an ending'}" for suffix, count in listing.others.items())
    said = f": {printable(kinds)}" if kinds else ""
    logger.info("%s: %s; %s ignored%s", listing.folder, found, others, said)
    return listing


def preprocess_folder(
    listing: Listing, config: FolderPreprocessConfig, scratch: Path
) -> tuple[Tensors, Tensors, Tensors, dict[str, Any]]:
    """Pictures -> training, validation and test tensors, and what is known about them; see torchloom/data/folder.py."""
    return prepare_folder(listing, config, scratch)
