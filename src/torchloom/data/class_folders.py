"""Which folders of pictures are the classes, and which are splits around them."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from unicodedata import normalize

from torchloom.config import SplitFolders
from torchloom.datasets.listing import Listing, first_of, is_users
from torchloom.errors import InputError
from torchloom.system.words import listed

FILLER = "(?:seg|set|split|data|dataset|images?|imgs?|pictures|photos)?"
SPLIT = re.compile(  # in lower case, without spaces and marks: Training, seg_test, val-images, hold_out, …
    rf"{FILLER}(?:(?P<train>train(?:ing)?)|(?P<validation>val(?:id(?:ation)?)?|dev(?:el(?:opment)?)?)"
    rf"|(?P<test>test(?:ing)?|eval(?:uation)?|holdout)){FILLER}"
)
OWN = ""  # stands among a folder's subfolders for pictures of its own

Tree = dict[str, set[str]]  # a folder with pictures in or below it, as `train/cats/`, and the names of its subfolders


def split_named(folder: str) -> str | None:
    """The split that folders of such a name usually hold: train, validation or test; None when it is no such name."""
    match = SPLIT.fullmatch(re.sub(r"[\W_]", "", folder.lower()))
    return match.lastgroup if match else None


def split_of(listing: Listing, name: str) -> str:
    """The split that the name of a file, or of a folder that it lies in, says: to train where none does."""
    parts = [] if listing.single else [*Path(name).parts[:-1], Path(name).stem]
    return next((split for part in parts if (split := split_named(part))), "train")


def class_roots(listing: Listing, given: SplitFolders | None = None) -> dict[str, str]:
    """The folders that the class folders lie in, as `train/`, and the split of each; of one folder alone it is train.

    InputError when the names allow two readings, or when there are splits and none to train on.
    """
    tree = _tree(listing.names)
    top = _unwrapped(tree, "", None)
    if given is not None:
        return _given_roots(listing, tree, given) or {top: "train"}
    splits = {name: split for name in sorted(tree[top]) if (split := split_named(name))}
    if _are_splits(tree, top, splits):
        _check_splits(listing.folder, splits)
        return {_unwrapped(tree, f"{top}{name}/", split): split for name, split in splits.items()}
    _check_readings(listing.folder, tree, top)
    return {top: "train"}


def place_pictures(names: list[str], roots: Iterable[str]) -> list[tuple[str, str] | None]:
    """Of each picture the root that it lies in and its class folder there; None when it is in no class folder."""

    def place(name: str) -> tuple[str, str] | None:
        root = next((root for root in roots if name.startswith(root)), None)
        folder, _, rest = name[len(root or "") :].partition("/")
        return (root, folder) if root is not None and rest else None

    return [place(name) for name in names]


def check_none_empty(
    listing: Listing,
    roots: Mapping[str, str],
    placed: Iterable[tuple[str, str] | None],
    given: bool,
    unit: str,
    advice: str = "",
) -> None:
    """InputError unless each folder of a class, or of a split where these are not `given`, holds a file of the listing.

    `placed` is what `place_pictures` says of them, and `advice` what to do with files of other kinds.
    """
    there = _folders(listing.folder, roots) | (set() if given else _splits_beside(listing.folder, roots))
    if empty := sorted(there - {"".join(place) for place in placed if place}):
        named = first_of([f"{folder}{_instead(listing, folder)}" for folder in empty])
        raise InputError(
            f"{listing.folder}: class folders without a {unit}: {named} (links to folders are not followed). Remove "
            f"them, or put {unit}s there{advice}"
        )


def _instead(listing: Listing, folder: str) -> str:
    """What the folder holds of other kinds, in words."""
    files = (path for path in Path(listing.folder, folder).rglob("*") if is_users(path.name) and path.is_file())
    endings = {path.suffix.lower() for path in files} - {"", *listing.suffixes}
    return f", which holds {listed(sorted(endings))}" if endings else ""


def _folders(folder: str, roots: Iterable[str]) -> set[str]:
    """The folders on the disk that lie in one of the `roots`, as paths below `folder`."""
    found = ((root, path) for root in roots for path in Path(folder, root).iterdir())
    return {f"{root}{path.name}" for root, path in found if is_users(path.name) and path.is_dir()}


def _splits_beside(folder: str, roots: Mapping[str, str]) -> set[str]:
    """The folders with the name of a split that hold none of the `roots`; none where the data are not split."""
    around = {root.partition("/")[0] for root in roots}
    return {name for name in _folders(folder, [""]) - around if split_named(name)} if min(roots) else set()


def _tree(names: list[str]) -> Tree:
    tree: Tree = defaultdict(set)
    for folder in {name.rpartition("/")[0] for name in names}:
        place = ""
        for part in folder.split("/") if folder else ():
            tree[place].add(part)
            place += f"{part}/"
        tree[place].add(OWN)
    return tree


def _unwrapped(tree: Tree, place: str, split: str | None) -> str:
    """Down through folders of that split's names that hold one folder of folders and nothing else, as archives do."""
    while len(tree[place]) == 1:
        (name,) = tree[place]
        inner = f"{place}{name}/"
        if name == OWN or split_named(name) != split or tree[inner] == {OWN}:
            break
        place = inner
    return place


def _are_splits(tree: Tree, top: str, splits: dict[str, str]) -> bool:
    """Whether folders with the names of splits are such: there are folders in one, or there are no others beside them.

    A single folder of pictures may be a class: there are pictures of trains.
    """
    deep = any(tree[f"{top}{name}/"] != {OWN} for name in splits)
    return deep or (len(set(splits.values())) > 1 and splits.keys() == tree[top])


def _check_splits(folder: str, splits: dict[str, str]) -> None:
    """InputError unless there is a folder for the training data, and no more than one for each split."""
    for split in splits.values():
        names = [name for name, other in splits.items() if other == split]
        if len(names) > 1:
            raise InputError(
                f"{folder}: {' and '.join(names)} are both names of the {split} split. Say which to use, "
                "preprocess.splits: {train: …, validation: …, test: …}; with {} every folder is a class"
            )
    if "train" not in splits.values():
        raise InputError(
            f"{folder}: {', '.join(splits)}: by their names these are splits, and there is none to train on. Say which "
            "is, preprocess.splits: {train: …, test: …}; with {} every folder is a class"
        )


def _check_readings(folder: str, tree: Tree, top: str) -> None:
    """InputError when all folders hold folders of the same names, so that either of both could be the classes."""
    names = sorted(tree[top] - {OWN})
    inner = [{normalize("NFC", name) for name in tree[f"{top}{name}/"] - {OWN}} for name in names]
    shared = sorted(set.intersection(*inner)) if len(names) > 1 else []
    if len(shared) < 2:
        return
    outer, same = first_of(names), first_of(shared)
    if any(map(split_named, shared)):
        raise InputError(
            f"{folder}: the splits ({same}) lie inside the classes ({outer}). Put the classes into the splits, such as "
            f"{shared[0]}/{names[0]}, or take each class as a whole: preprocess.splits: {{}}"
        )
    raise InputError(
        f"{folder}: its folders {outer} all hold {same}, which can be read in two ways. Either the classes are {same}, "
        f"and {outer} the splits: preprocess.splits: {{train: {top}{names[0]}, test: {top}{names[1]}}}. Or the classes "
        f"are {outer}, with all that is below them: preprocess.splits: {{}}"
    )


def _given_roots(listing: Listing, tree: Tree, splits: SplitFolders) -> dict[str, str]:
    roots: dict[str, str] = {}
    for split, name in splits.model_dump(exclude_none=True).items():
        root = f"{posixpath.normpath(name)}/"
        if not tree.get(root, set()) - {OWN}:
            there = first_of(sorted(place for place in tree if place and tree[place] - {OWN}))
            raise InputError(
                f"preprocess.splits.{split} {name}: is no folder with class folders of pictures in {listing.folder}; "
                f"such are {there or 'not there'}"
            )
        if any(root.startswith(other) or other.startswith(root) for other in roots):
            raise InputError(f"preprocess.splits.{split} {name}: lies in another split's folder, or is the same")
        roots[_unwrapped(tree, root, split)] = split
    return roots
