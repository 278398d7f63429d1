"""Which folder holds pictures and which one their masks, by the same names."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from torchloom.config import PicturesPreprocessConfig
from torchloom.data.boxes import check_no_boxes
from torchloom.data.class_folders import split_of
from torchloom.data.picture_formats import SUFFIXES
from torchloom.datasets.listing import Listing, first_of, scan
from torchloom.errors import InputError
from torchloom.system.words import counted, listed

logger = logging.getLogger(__name__)

WORDS = ("mask", "label", "annotation", "segmentation", "groundtruth", "gt", "target", "trimap", "annot", "seg")


PICTURE, MASK = "picture", "mask"  # the columns of what lies in two folders


def is_mask_folder(name: str) -> bool:
    """Whether folders of such a name usually hold masks."""
    plain = "".join(character for character in name.lower() if character.isalpha())
    return any(plain in {word, f"{word}s"} for word in WORDS)


def has_pairs(path: Path) -> bool:
    """Whether the folder clearly holds a folder of pictures and one of masks, by the same names more often than not."""
    try:
        listing = scan(path, "--data", SUFFIXES)
        pair = two_folders(listing, PicturesPreprocessConfig(files=str(path)))
    except InputError:
        return False
    both = [{_common(name, pair) for name in listing.names if _folder_of(name, pair) == folder} for folder in pair]
    return 2 * len(both[0] & both[1]) > len(both[0])


def two_folders(listing: Listing, config: PicturesPreprocessConfig) -> tuple[str, str]:
    """The names of the folders of pictures and of masks, given or by their usual names.

    InputError when it is unclear which they are.
    """
    there = {name: set(PurePosixPath(name).parts[:-1]) for name in listing.names}
    names = sorted(set().union(*there.values()))
    masks = [config.mask] if config.mask else [name for name in names if is_mask_folder(name)]
    with_masks = set().union(*(folders for folders in there.values() if folders & set(masks)))
    pictures = [config.picture] if config.picture else [name for name in names if name not in with_masks]
    if len(masks) != 1 or len(pictures) != 1:
        check_no_boxes(listing, by_content=True)
        raise InputError(
            f"{listing.folder}: holds neither a table with the paths of its pictures, nor clearly a folder of pictures "
            f"and one of their masks; there are {listed(names) or 'no folders'}. Say which they are, "
            "preprocess.picture and preprocess.mask. Folders of pictures that are classes are for the reader folder"
        )
    for key, name in {"picture": pictures[0], "mask": masks[0]}.items():
        if name not in names:
            raise InputError(f"preprocess.{key} {name}: is no folder in {listing.folder}; there are {listed(names)}")
    return pictures[0], masks[0]


def pairs(listing: Listing, pictures: str, masks: str) -> dict[str, list[dict[str, str]]]:
    """By splits a row for each picture in a folder of that name, with the mask of its name in the other folder.

    InputError when a picture has none; masks without a picture are left out.
    """
    found: dict[str, list[dict[str, str]]] = {"train": [], "validation": [], "test": []}
    pair = pictures, masks
    by_name, mine = (
        _by_common(listing, [name for name in listing.names if _folder_of(name, pair) == folder], pair)
        for folder in (masks, pictures)
    )
    lacking = [name for common, name in mine.items() if common not in by_name]
    if lacking:
        raise InputError(f"{listing.folder}: no mask of the same name in {masks} for {first_of(lacking)}")
    for common, name in mine.items():
        found[split_of(listing, name)].append({PICTURE: name, MASK: by_name.pop(common)})
    if by_name:
        logger.warning("%s: %s without a picture are left out", listing.folder, counted(len(by_name), "mask"))
    return found


def beside(listing: Listing, pictures: str, masks: str) -> dict[str, str | None]:
    """Of each file that lies in no folder of masks the mask of its name, if there is one.

    InputError when there are two, or when two files have the same. Where all lie in a folder of that name it is none.
    """
    pair = pictures, masks
    mine = [name for name in listing.names if _folder_of(name, pair) != masks]
    if not mine:
        return dict.fromkeys(listing.names)
    by_name = _by_common(listing, [name for name in listing.names if _folder_of(name, pair) == masks], pair)
    _by_common(listing, [name for name in mine if _common(name, pair) in by_name], pair)
    return {name: by_name.get(_common(name, pair)) for name in mine}


def _by_common(listing: Listing, names: Iterable[str], pair: tuple[str, str]) -> dict[str, str]:
    """The names by what they have in common; InputError when two would go together with one in the other folder."""
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(_common(name, pair), name)
        if other != name:
            raise InputError(f"{listing.folder}: {other} and {name} have one name in common. Rename or move one")
    return found


def _folder_of(name: str, pair: tuple[str, str]) -> str | None:
    """In which of both folders a file lies: the innermost, as what is around them may be called like one."""
    return next((part for part in reversed(PurePosixPath(name).parts[:-1]) if part in pair), None)


def _common(name: str, pair: tuple[str, str]) -> str:
    """What a picture and its mask have in common of their paths: some masks add what they are, as in cat_mask.png."""
    path = PurePosixPath(name)
    folders = path.parts[:-1]
    own = max((place for place, part in enumerate(folders) if part in pair), default=None)
    around = ["" if part in pair else part for place, part in enumerate(folders) if place != own]
    ending = next((f"{mark}{word}" for word in WORDS for mark in "_-" if path.stem.endswith(f"{mark}{word}")), "")
    return normalize("NFC", "/".join([*around, path.stem.removesuffix(ending)]))
