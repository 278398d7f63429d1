"""A user's own files: which there are, and whether they have changed."""

import os
from pathlib import Path

import pytest

from torchloom.datasets.listing import ListingDataset, scan
from torchloom.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files in folders with odd names, and what is no file of the user's."""
    top = tmp_path / "files"
    odd = [b"b.png", b"a.png", 'ü, "x"\n/c.png'.encode(), b"\xff/\xfe.png", b".hidden", b".git/d.png", b"e/e/e.txt"]
    for name in odd:
        path = Path(os.fsdecode(os.path.join(os.fsencode(top), name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name)
    (top / "lost").symlink_to("nowhere")
    (top / "again").symlink_to(top)
    (top / "link.png").symlink_to("a.png")
    (top / "empty").mkdir()
    os.mkfifo(top / "pipe")
    return top


NAMES = ["a.png", "b.png", "link.png", "e/e/e.txt", 'ü, "x"\n/c.png', "\udcff/\udcfe.png"]


def test_all_files_below_a_folder_are_found(folder: Path) -> None:
    listing = scan(folder, "key")
    assert listing.names == NAMES
    assert [path.read_bytes() for path in listing.paths][3:] == [os.fsencode(name) for name in NAMES[3:]]
    assert [size for size, _ in listing.stamps] == [path.stat().st_size for path in listing.paths]
    assert not listing.single


def test_one_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    listing = scan(Path("a.png"), "key")
    assert (listing.single, listing.names, list(listing.paths)) == (True, ["a.png"], [folder / "a.png"])


def test_there_is_nothing(folder: Path) -> None:
    with pytest.raises(InputError, match=r"^the\.key .*nowhere: there is no such file or folder\. Name yours"):
        scan(folder / "nowhere", "the.key")
    with pytest.raises(InputError, match=r"^the\.key .*empty: the folder holds no files$"):
        scan(folder / "empty", "the.key")


def test_a_folder_that_cannot_be_read_stands_for_what_is_in_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: str, whole: object = os.scandir) -> object:
        if str(path).endswith("e/e"):  # who runs the tests may be root, whom no rights keep out
            raise PermissionError(13, "Permission denied", path)
        return whole(path)  # type: ignore[operator]

    monkeypatch.setattr(os, "scandir", scandir)
    assert scan(folder, "key").names == [name for name in NAMES if name != "e/e/e.txt"] + ["e/e"]


def test_a_listing_comes_back_as_it_was(folder: Path, tmp_path: Path) -> None:
    dataset = ListingDataset(filepath=str(tmp_path / "new" / "files.json"))
    assert not dataset.exists()
    assert dataset.fingerprint() is None
    listing = scan(folder, "key")
    dataset.save(listing)
    assert dataset.exists()
    loaded = dataset.load()
    assert (loaded.folder, loaded.names, loaded.single) == (listing.folder, listing.names, listing.single)
    assert list(map(tuple, loaded.stamps)) == listing.stamps


def test_the_fingerprint_is_of_the_files(folder: Path, tmp_path: Path) -> None:
    whole, one = (ListingDataset(filepath=str(tmp_path / f"{name}.json")) for name in ("whole", "one"))
    whole.save(scan(folder, "key"))
    one.save(scan(folder / "b.png", "key"))
    before = whole.fingerprint(), one.fingerprint()
    assert before == (whole.fingerprint(), one.fingerprint())
    (folder / "a.png").write_bytes(b"other and longer")
    assert whole.fingerprint() != before[0]
    assert one.fingerprint() == before[1]
    (folder / "b.png").write_bytes(b"other and longer")
    assert one.fingerprint() != before[1]
    (folder / "b.png").unlink()
    with pytest.raises(InputError, match="there is no such file"):
        one.fingerprint()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"folder": "a", "names": ["b"], "stamps": []}', "[" * 100_000],
    ids=["empty", "list", "no keys", "no stamps", "deep"],
)
def test_a_damaged_listing_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "files.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"files\.json: missing or damaged .*Run the stage that writes it again$"):
        ListingDataset(filepath=str(path)).load()
