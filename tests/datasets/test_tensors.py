import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from kedro.io import DatasetError

from torchloom.datasets.tensors import Tensors, TensorsDataset, _open, _open_large, open_tensors
from torchloom.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 3, 2), dtype=np.uint8)
LABELS = np.arange(6, dtype=np.int64)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "03_primary" / "train.safetensors"


def saved(path: Path, **arrays: np.ndarray) -> Tensors:
    dataset = TensorsDataset(filepath=str(path))
    dataset.save(Tensors(arrays))
    return dataset.load()


def test_round_trip(path: Path) -> None:
    loaded = saved(path, images=IMAGES, labels=LABELS)
    assert loaded.path == path
    assert sorted(loaded.arrays) == ["images", "labels"]
    for name, array in (("images", IMAGES), ("labels", LABELS)):
        assert loaded.arrays[name].dtype == torch.from_numpy(array).dtype
        np.testing.assert_array_equal(loaded.arrays[name], array)
    assert [file.name for file in path.parent.iterdir()] == ["train.safetensors"]


def test_any_memory_layout_is_stored_right(path: Path) -> None:
    mixed = IMAGES.transpose(0, 3, 1, 2)[::-2]
    np.testing.assert_array_equal(saved(path, images=mixed).arrays["images"], mixed)


@pytest.mark.parametrize("shape", [(0,), (0, 32, 32, 3)])
def test_an_empty_array_keeps_its_shape(path: Path, shape: tuple[int, ...]) -> None:
    loaded = saved(path, images=np.empty(shape, np.uint8))
    assert loaded.arrays["images"].shape == shape
    assert loaded.fingerprint


def test_the_fingerprint_tells_contents_apart(path: Path) -> None:
    changed = IMAGES.copy()
    changed[3, 2, 1, 0] ^= 1
    fingerprints = [
        saved(path, images=IMAGES, labels=LABELS).fingerprint,
        saved(path, images=changed, labels=LABELS).fingerprint,
        saved(path, imagez=IMAGES, labels=LABELS).fingerprint,
        saved(path, images=IMAGES.reshape(6, 3, 4, 2), labels=LABELS).fingerprint,
        saved(path, images=IMAGES.view(np.int8), labels=LABELS).fingerprint,
        saved(path, images=IMAGES).fingerprint,
    ]
    assert all(fingerprint and len(fingerprint) == 64 for fingerprint in fingerprints)
    assert len(set(fingerprints)) == len(fingerprints)


def test_the_fingerprint_does_not_depend_on_order_or_layout(path: Path) -> None:
    first = saved(path, images=IMAGES, labels=LABELS).fingerprint
    assert saved(path, labels=LABELS, images=np.asfortranarray(IMAGES)).fingerprint == first


def test_a_loaded_split_can_be_saved_again(path: Path) -> None:
    first = saved(path, images=IMAGES, labels=LABELS)
    dataset = TensorsDataset(filepath=str(path.with_name("copy.safetensors")))
    dataset.save(first)
    assert dataset.load().fingerprint == first.fingerprint


def test_a_loaded_split_outlives_its_replacement(path: Path) -> None:
    loaded = saved(path, images=IMAGES)
    saved(path, images=255 - IMAGES)
    np.testing.assert_array_equal(loaded.arrays["images"], IMAGES)


def test_a_failed_save_leaves_the_old_file(path: Path) -> None:
    saved(path, images=IMAGES)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # bytes
    try:
        with pytest.raises(DatasetError, match="File too large"):
            TensorsDataset(filepath=str(path)).save(Tensors({"images": np.zeros(10_000, np.uint8)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["train.safetensors"]


def test_a_missing_file_names_the_stage_to_run(path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_tensors(path)
    assert caught.value.message == f"{path}: missing. Run the preprocess stage again: kedro run --tags preprocess"


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\xff" * 100, 8, 60, -1])
def test_a_damaged_file_names_the_stage_to_run(path: Path, damage: bytes | int) -> None:
    saved(path, images=IMAGES, labels=LABELS)
    path.write_bytes(path.read_bytes()[:damage] if isinstance(damage, int) else damage)
    with pytest.raises(InputError) as caught:
        open_tensors(path)
    assert caught.value.message.startswith(f"{path}: damaged or not a file of ours (")
    assert caught.value.message.endswith("). Run the preprocess stage again: kedro run --tags preprocess")


def test_a_file_larger_than_the_memory_is_mapped(tmp_path: Path) -> None:
    count = 2 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    header = {
        "__metadata__": {"torchloom": json.dumps({"fingerprint": "of zeros"})},
        "images": {"dtype": "U8", "shape": [count // 64, 8, 8], "data_offsets": [16, 16 + count // 64 * 64]},
        "labels": {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]},
    }
    serialised = json.dumps(header).encode()
    serialised += b" " * (-len(serialised) % 8)
    path = tmp_path / "train.safetensors"
    with path.open("wb") as file:
        file.write(len(serialised).to_bytes(8, "little") + serialised + LABELS[1:3].tobytes())
        try:
            file.truncate(8 + len(serialised) + 16 + count // 64 * 64)
        except OSError:
            pytest.skip("this file system has no files with holes, or none so large")
    tensors, description = _open(path)
    assert description == {"fingerprint": "of zeros"}
    assert tensors["labels"].tolist() == [1, 2]
    assert tensors["images"].shape == (count // 64, 8, 8)
    assert tensors["images"][-1].sum() == 0


def test_large_files_hold_the_same(path: Path) -> None:
    features = np.random.default_rng(0).random((3, 2), dtype=np.float32)
    saved(path, images=IMAGES, labels=LABELS, features=features)
    (tensors, description), (again, described) = _open(path), _open_large(path)
    assert description == described
    assert tensors.keys() == again.keys()
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)
