"""Folders of files that are written together."""

import base64
from pathlib import Path

import pyarrow
import pytest

from torchloom.datasets.folders import CONTENT, NAME, FolderDataset
from torchloom.errors import InputError
from torchloom.pipelines.prediction.nodes import file_names

STRINGS = pyarrow.schema([(NAME, pyarrow.string()), (CONTENT, pyarrow.string())])


def files(**contents: bytes) -> pyarrow.Table:
    columns = {NAME: list(contents), CONTENT: [base64.b64encode(each).decode() for each in contents.values()]}
    return pyarrow.table(columns, STRINGS)


def test_a_folder_has_the_files_of_the_last_time_alone(tmp_path: Path) -> None:
    folder = FolderDataset(filepath=str(tmp_path / "pictures"))
    assert (folder.exists(), folder.fingerprint()) == (False, None)
    folder.save(files(**{"a.png": b"1", "below/b.png": b"2"}))
    assert (tmp_path / "pictures/below/b.png").read_bytes() == b"2"
    assert folder.load() == files(**{"a.png": b"1", "below/b.png": b"2"})
    before = folder.fingerprint()
    folder.save(files(**{"a.png": b"1"}))
    assert folder.load() == files(**{"a.png": b"1"})
    assert folder.fingerprint() not in {None, before}
    folder.save(files())
    assert [*tmp_path.iterdir()] == []


def test_what_cannot_be_written_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    folder = FolderDataset(filepath=str(tmp_path / "pictures"))
    folder.save(files(**{"a.png": b"1"}))
    with pytest.raises(InputError, match=r"pictures: cannot be written \(.*\)\. Make room"):
        folder.save(files(**{"b.png": b"1", "b.png/c.png": b"2"}))
    assert folder.load() == files(**{"a.png": b"1"})
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_each_sample_has_a_file_of_its_own() -> None:
    samples = ["a.jpg", "below/a.jpg", "a.png", "a.JPG", "rows.csv:3", "/etc/../b.tif", "c", "c"]
    samples += ["d.jpg", "d.png/e.jpg"]
    names = ["a", "below/a", "a.png", "a.JPG", "rows.csv_3", "etc/b", "c", "c-2", "d.jpg", "d.png/e"]
    assert file_names(samples) == [f"{name}.png" for name in names]
