import ctypes
import mmap
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from torchloom.config import DataConfig
from torchloom.data.mapped import Shards, join, read_ahead, read_at_random, whole
from torchloom.data.moments import Clock
from torchloom.data.targets import Classes, Horizon, Number
from torchloom.data.text import Tokenizer
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.modalities import AudioInfo, DocumentInfo, SeriesInfo, TableInfo, TextInfo
from torchloom.training.loaders import LoaderPlan, TensorFile

ROWS = torch.arange(12 * 6, dtype=torch.uint8).reshape(12, 2, 3)
CUTS = ((0, 5), (5, 5), (5, 12))


def shards(rows: Tensor = ROWS) -> Shards:
    return Shards([rows[start:end] for start, end in CUTS])


# ---- several files as one ------------------------------------------------------------------------------------------


def test_files_are_strung_together() -> None:
    joined = join([{"images": ROWS[a:b], "labels": torch.arange(a, b)} for a, b in CUTS])
    assert joined.keys() == {"images", "labels"}
    assert isinstance(joined["images"], Shards)
    assert torch.equal(whole(joined["images"], "cpu"), ROWS)
    assert torch.equal(joined["labels"], torch.arange(12))


def test_where_documents_start_goes_on_from_file_to_file() -> None:
    parts = [torch.tensor(starts) for starts in ([0, 3, 4], [0], [0, 2], [0, 0, 5])]
    joined = join([{"starts": part, "text_starts": 10 * part} for part in parts])
    assert joined["starts"].tolist() == [0, 3, 4, 6, 6, 11]
    assert joined["text_starts"].tolist() == [0, 30, 40, 60, 60, 110]


def test_one_file_is_returned_as_it_is() -> None:
    file = {"images": ROWS}
    assert join([file]) is file
    assert whole(ROWS, "cpu") is ROWS


@pytest.mark.parametrize("chosen", [[], [11, 0, 4, 5, 5, 10], list(range(12))])
def test_rows_of_shards_are_those_of_one_tensor(chosen: list[int]) -> None:
    indices = torch.tensor(chosen, dtype=torch.int64)
    assert torch.equal(shards().index_select(0, indices), ROWS[indices])
    assert (len(shards()), shards().shape, shards().nbytes, shards().device) == (12, ROWS.shape, 72, ROWS.device)


def test_shards_take_indices_of_any_shape() -> None:
    indices = torch.tensor([[11, 0, 4], [5, 6, 4]])
    assert torch.equal(shards()[indices], ROWS[indices])
    flat = torch.arange(12)
    assert torch.equal(shards(flat)[indices], indices)


def test_each_process_takes_its_part_of_a_batch_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    indices = torch.arange(12)[1::2]
    torch.set_warn_always(True)
    try:
        assert torch.equal(shards()[indices], ROWS[1::2])
    finally:
        torch.set_warn_always(False)
    assert [str(warning.message) for warning in recwarn] == []


# ---- other data than images, streamed ------------------------------------------------------------------------------

TEXT = TextInfo(tokenizer=Tokenizer.of_characters("abcdefgh"))
DOCUMENTS = DocumentInfo(
    target=Classes(classes=["a", "b"]), tokenizer=Tokenizer(kind="words", vocabulary=["<pad>", "<unk>", "a"])
)
TABLE = TableInfo(features=["x", "y"], mean=[0.0] * 2, std=[1.0] * 2, target=Number(name="z", mean=0.0, std=1.0))
SERIES = SeriesInfo(
    time="day",
    clock=Clock(microseconds=86_400_000_000),
    channels=["x", "y"],
    calendar=["week"],
    window=4,
    longest_gap=1,
    mean=[0.0] * 2,
    std=[1.0] * 2,
    target=Horizon(steps=2),
)
RNG = np.random.default_rng(0)
LENGTHS = np.array([3, 1, 7, 4, 2, 6, 5])
KINDS: dict[str, tuple[Any, dict[str, Any], dict[str, np.ndarray]]] = {
    "text": (TEXT, {"window": 6}, {"tokens": RNG.integers(8, size=101, dtype=np.uint8)}),
    "documents": (
        DOCUMENTS,
        {"max_tokens": 5},
        {
            "tokens": RNG.integers(1, 3, size=28, dtype=np.int32),
            "starts": np.cumsum([0, *LENGTHS]),
            "labels": np.arange(7) % 2,
        },
    ),
    "audio": (
        AudioInfo(target=Classes(classes=["a", "b"]), rate=1, mean=[0.0], std=[1.0]),
        {"seconds": 5.0, "augment_sound": {"gain": 6.0}},
        {
            "waveforms": RNG.normal(size=28).astype(np.float32),
            "starts": np.cumsum([0, *LENGTHS]),
            "labels": np.arange(7) % 2,
        },
    ),
    "series": (
        SERIES,
        {},
        {
            "series": RNG.random((30, 2), np.float32),
            "starts": np.array([0, 1, 2, 3, 4, 12, 13, 14, 24, 30]),
            "times": np.arange(9),
            "known": RNG.random((30, 2), np.float32),
        },
    ),
    "table": (TABLE, {}, {"features": RNG.random((9, 2), np.float32), "target": RNG.random(9, np.float32)}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("files", [1, 2])
def test_all_kinds_of_data_are_streamed_to_the_bit(tmp_path: Path, kind: str, files: int) -> None:
    info, data, arrays = KINDS[kind]
    dataset = TensorsDataset(filepath=str(tmp_path / "data.safetensors"))
    dataset.save(Tensors(arrays))
    tensors = dataset.load()
    assert tensors.path is not None
    assert tensors.fingerprint is not None
    file = TensorFile(path=tensors.path, fingerprint=tensors.fingerprint, length=1)
    plain, streamed = (
        LoaderPlan.model_validate(
            {
                "splits": {"train": [file] * files, "validation": [], "test": [file]},
                "info": info,
                "data": DataConfig(on_device=on_device, **data),
                "batch_size": 3,
                "seed": 0,
            }
        )
        for on_device in (None, False)
    )
    for split in ("train", "test"):
        loaders = plain.loader(split), streamed.loader(split)
        assert [type(loader).__name__ for loader in loaders] == ["DataLoader", "StreamedBatches"]
        pairs = list(zip(*loaders, strict=True))
        assert pairs
        for batch, other in pairs:
            assert all(
                torch.equal(part, its) and part.dtype == its.dtype for part, its in zip(batch, other, strict=True)
            )


# ---- reading ahead -------------------------------------------------------------------------------------------------


ROW = 16384  # bytes


@pytest.fixture
def cold(tmp_path: Path) -> tuple[Tensor, Callable[[int], bool]]:
    """A mapped tensor (1024, ROW) that is not in memory, and whether a row of it is there."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs Linux")
    path = tmp_path / "rows"
    with path.open("wb") as file:
        file.write(bytes(1024 * ROW))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    mapped = torch.from_numpy(np.memmap(path, np.uint8, "c", shape=(1024, ROW)))

    def there(row: int) -> bool:
        pages = (ctypes.c_ubyte * (ROW // mmap.PAGESIZE))()
        address = ctypes.c_void_p(mapped[row].data_ptr())
        assert ctypes.CDLL(None).mincore(address, ctypes.c_size_t(ROW), pages) == 0
        return all(page & 1 for page in pages)

    if there(500):
        pytest.skip("this file system keeps its files in memory")
    return mapped, there


@pytest.mark.parametrize("divided", [False, True])
def test_rows_are_read_ahead(cold: tuple[Tensor, Callable[[int], bool]], divided: bool) -> None:
    mapped, there = cold
    read_ahead(Shards([mapped[:300], mapped[300:]]) if divided else mapped, torch.tensor([900, 100, 296]), 4)
    deadline = time.monotonic() + 20
    wanted = [*range(900, 904), *range(100, 104), *range(296, 300)]
    while not all(there(row) for row in wanted) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [row for row in wanted if not there(row)] == []
    assert not there(500)


def test_each_row_has_a_length_of_its_own(cold: tuple[Tensor, Callable[[int], bool]]) -> None:
    mapped, there = cold
    read_ahead(mapped, torch.tensor([700, 20]), torch.tensor([2, 1]))
    deadline = time.monotonic() + 20
    while not (there(700) and there(701) and there(20)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [there(row) for row in (700, 701, 20)] == [True] * 3
    assert not there(500)


def advised(path: Path) -> set[bool]:
    """Whether the mappings of a file are to be read in no order, as Linux says it in /proc/self/smaps."""
    mappings = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    ours = [mapping for mapping in mappings if mapping.partition("\n")[0].endswith(str(path))]
    return {" rr" in re.findall("^VmFlags:(.*)$", mapping, flags=re.MULTILINE)[0] for mapping in ours}


def in_smaps(folder: Path) -> bool:
    """Whether advice can be read there, which not every system shows."""
    (folder / "probe").write_bytes(bytes(mmap.PAGESIZE))
    with (folder / "probe").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as probe:
        probe.madvise(mmap.MADV_RANDOM)
        return Path("/proc/self/smaps").is_file() and advised(folder / "probe") == {True}


@pytest.mark.parametrize("divided", [False, True])
def test_rows_that_come_in_no_order_are_announced(tmp_path: Path, divided: bool) -> None:
    if not in_smaps(tmp_path):
        pytest.skip("this system does not tell what it was advised")
    path = tmp_path / "rows"
    path.write_bytes(bytes(64 * ROW))
    mapped = torch.from_numpy(np.memmap(path, np.uint8, "c", shape=(64, ROW)))
    assert advised(path) == {False}
    read_at_random(Shards([mapped[:16], mapped[:0], mapped[16:]]) if divided else mapped)
    assert advised(path) == {True}


@pytest.mark.parametrize("on_device", [None, False])
def test_only_what_is_streamed_is_announced(tmp_path: Path, on_device: bool | None) -> None:
    if not in_smaps(tmp_path):
        pytest.skip("this system does not tell what it was advised")
    path = tmp_path / "data.safetensors"
    dataset = TensorsDataset(filepath=str(path))
    dataset.save(Tensors({"features": np.zeros((4096, 2), np.float32), "target": np.zeros(4096, np.float32)}))
    tensors = dataset.load()
    splits = {"train": [TensorFile(path=path, fingerprint=tensors.fingerprint or "", length=4096)]}
    data = DataConfig(on_device=on_device)
    plan = LoaderPlan.model_validate(
        {"splits": {**splits, "validation": [], "test": []}, "info": TABLE, "data": data, "batch_size": 8, "seed": 0}
    )
    del tensors
    loader = plan.loader("train")
    assert (True in advised(path)) is (on_device is False)
    del loader


def test_what_is_not_mapped_is_left_alone() -> None:
    rows = ROWS.clone()
    read_at_random(rows)
    read_at_random(object())
    read_ahead(rows, torch.tensor([3, 11]))
    read_ahead(shards(), torch.tensor([11]), 5)
    read_ahead(rows, torch.tensor([], dtype=torch.int64))
    read_ahead(object(), torch.tensor([3]))
    assert torch.equal(rows, ROWS)
