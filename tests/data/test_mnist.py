import struct
from pathlib import Path

import numpy as np
import pytest

from torchloom.config import PreprocessConfig
from torchloom.data.download import SUMS
from torchloom.data.readers.mnist import draw_sample, preprocess, read_idx, write_idx
from torchloom.datasets.raw import AGAIN, RawFiles
from torchloom.errors import InputError

FILES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
VALUES = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)


def idx(*sizes: int, magic: bytes = b"\0\0\x08\x03", values: bytes = VALUES.tobytes()) -> bytes:
    return magic + struct.pack(f">{len(sizes)}I", *sizes) + values


def drawn(folder: Path, seed: int = 0) -> Path:
    folder.mkdir()
    draw_sample(folder, train=50, test=20, seed=seed)
    return folder


def verified(folder: Path) -> RawFiles:
    return RawFiles(folder, dict.fromkeys(FILES, ""))


def test_idx_is_read_as_specified(tmp_path: Path) -> None:
    (tmp_path / "idx").write_bytes(idx(3, 4, 5))
    values = read_idx(tmp_path / "idx", dimensions=3)
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values, VALUES)


@pytest.mark.parametrize("values", [VALUES, VALUES[:, 0, 0], VALUES.T, VALUES[:, :0]])
def test_idx_round_trip(tmp_path: Path, values: np.ndarray) -> None:
    write_idx(tmp_path / "idx", values)
    np.testing.assert_array_equal(read_idx(tmp_path / "idx", values.ndim), values)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08\x03",
        idx(3, 4, 5)[:15],
        idx(3, 4, 5, magic=b"\0\0\x08\x01"),  # labels where images should be
        idx(3, 4, 5, magic=b"\0\0\x09\x03"),  # signed bytes
        idx(3, 4, 5, magic=b"\1\0\x08\x03"),
        b"\x1f\x8b\x08\x08" + bytes(100),  # still packed
        b"<!doctype html>" + bytes(100),
    ],
)
def test_another_format_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "idx").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_idx(tmp_path / "idx", dimensions=3)
    assert caught.value.message == f"{tmp_path / 'idx'}: not an IDX file of uint8 values in 3 dimensions. {AGAIN}"


@pytest.mark.parametrize(
    ("content", "header", "asked"),
    [
        (idx(3, 4, 5)[:-1], "(3, 4, 5)", 76),
        (idx(3, 4, 5) + b"?", "(3, 4, 5)", 76),
        (idx(2, 4, 5), "(2, 4, 5)", 56),
        (idx(2**32 - 1, 2**32 - 1, 1), "(4294967295, 4294967295, 1)", 18446744065119617041),  # 1 in 64 bits
        (idx(0, 28, 28), "(0, 28, 28)", 16),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, content: bytes, header: str, asked: int) -> None:
    (tmp_path / "idx").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_idx(tmp_path / "idx", dimensions=3)
    expected = f"{tmp_path / 'idx'}: has {len(content)} bytes, but its header {header} asks for {asked}. {AGAIN}"
    assert caught.value.message == expected


def test_sizes_that_no_array_can_have_are_refused(tmp_path: Path) -> None:
    (tmp_path / "idx").write_bytes(idx(2**32 - 1, 0, 2**32 - 1, values=b""))
    with pytest.raises(
        InputError, match=r"its header \(4294967295, 0, 4294967295\) describes no array\. Run the download"
    ):
        read_idx(tmp_path / "idx", dimensions=3)


def test_drawn_data_depend_on_the_seed_alone(tmp_path: Path) -> None:
    one, same, other = drawn(tmp_path / "a"), drawn(tmp_path / "b"), drawn(tmp_path / "c", seed=1)
    for name in [*FILES, SUMS]:
        assert (one / name).read_bytes() == (same / name).read_bytes()
        assert (one / name).read_bytes() != (other / name).read_bytes()


def test_drawn_data_are_all_different_and_of_every_class(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "raw")
    train, test = (read_idx(folder / f"{part}-images-idx3-ubyte", 3) for part in ("train", "t10k"))
    assert train.shape == (50, 28, 28)
    assert test.shape == (20, 28, 28)
    assert len({image.tobytes() for image in [*train, *test]}) == 70
    for part, count in (("train", 5), ("t10k", 2)):
        labels = read_idx(folder / f"{part}-labels-idx1-ubyte", 1)
        assert np.bincount(labels).tolist() == [count] * 10
    assert train.mean() < 60  # dark ground
    assert (train.max(axis=(1, 2)) > 150).all()  # bright strokes


def test_files_become_splits(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "raw")
    config = PreprocessConfig(validation_fraction=0.2, seed=3)
    train, validation, test, info = preprocess(verified(folder), config)
    assert [part.arrays["images"].shape for part in (train, validation, test)] == [
        (40, 28, 28, 1),
        (10, 28, 28, 1),
        (20, 28, 28, 1),
    ]
    assert info["target"]["classes"] == list("0123456789")
    assert info["shape"] == [1, 28, 28]
    assert test.arrays["labels"].dtype == np.int64
    np.testing.assert_array_equal(test.arrays["images"][..., 0], read_idx(folder / "t10k-images-idx3-ubyte", 3))
    np.testing.assert_array_equal(test.arrays["labels"], read_idx(folder / "t10k-labels-idx1-ubyte", 1))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([10] + [0] * 19, r"the test data hold the label 10, but there are only 10 classes \(0 to 9\)"),
        ([0] * 19, "the test data hold 20 images but 19 labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: list[int], message: str) -> None:
    folder = drawn(tmp_path / "raw")
    write_idx(folder / "t10k-labels-idx1-ubyte", np.array(labels))
    with pytest.raises(InputError, match=f"^{message}$"):
        preprocess(verified(folder), PreprocessConfig())
