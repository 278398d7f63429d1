import pytest
import torch
from torch import Tensor

from torchloom.config import AugmentConfig
from torchloom.data.batches import Batches, ImageBatches, join, seeded

IMAGES = torch.randint(0, 256, (12, 5, 4, 3), dtype=torch.uint8, generator=seeded(0, 0))
LABELS = torch.arange(12)


def epoch(batches: Batches, number: int = 0) -> list[list[int]]:
    batches.epoch = number
    return [batch.tolist() for batch in batches]


@pytest.mark.parametrize(
    ("length", "size", "expected"),
    [
        (7, 3, [[0, 1, 2], [3, 4, 5], [6]]),
        (6, 3, [[0, 1, 2], [3, 4, 5]]),
        (2, 3, [[0, 1]]),
        (0, 3, []),
    ],
)
def test_batches_in_order_hold_everything(length: int, size: int, expected: list[list[int]]) -> None:
    batches = Batches(length, size)
    assert epoch(batches) == epoch(batches, 1) == expected
    assert len(batches) == len(expected)


@pytest.mark.parametrize(("length", "size", "full"), [(100, 10, 10), (109, 10, 10), (10, 10, 1), (19, 10, 1)])
def test_shuffled_batches_are_full_and_repeat_nothing(length: int, size: int, full: int) -> None:
    batches = Batches(length, size, shuffle_seed=0)
    drawn = epoch(batches)
    assert len(batches) == full
    assert [len(batch) for batch in drawn] == [size] * full
    indices = [index for batch in drawn for index in batch]
    assert len(set(indices)) == full * size
    assert set(indices) <= set(range(length))


def test_data_smaller_than_a_batch_make_one() -> None:
    batches = Batches(7, 10, shuffle_seed=0)
    assert len(batches) == 1
    (batch,) = epoch(batches)
    assert sorted(batch) == list(range(7))
    assert batch != sorted(batch)


def test_no_data_make_no_batch() -> None:
    assert epoch(Batches(0, 10, shuffle_seed=0)) == []


def test_the_order_follows_seed_and_epoch() -> None:
    orders = {(seed, number): epoch(Batches(50, 10, seed), number) for seed in range(3) for number in range(3)}
    assert len({str(order) for order in orders.values()}) == 9
    batches = Batches(50, 10, shuffle_seed=1)
    assert [epoch(batches, number) for number in (2, 0, 1)] == [orders[1, number] for number in (2, 0, 1)]


def test_what_is_left_out_comes_up_in_other_epochs() -> None:
    batches = Batches(19, 10, shuffle_seed=0)
    assert {index for number in range(10) for batch in epoch(batches, number) for index in batch} == set(range(19))


def test_seeds_and_epochs_have_numbers_of_their_own() -> None:
    firsts = {int(torch.randint(2**62, (1,), generator=seeded(seed, n))) for seed in range(20) for n in range(20)}
    assert len(firsts) == 400


def test_a_batch_equals_its_source() -> None:
    chosen = torch.tensor([5, 0, 11, 5])
    images, labels = ImageBatches(IMAGES, LABELS)[chosen]
    assert images.shape == (4, 3, 5, 4)
    assert images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert not images.is_contiguous()
    for row, index in enumerate(chosen):
        assert torch.equal(images[row].permute(1, 2, 0), IMAGES[index])
    assert labels.dtype == torch.int64
    assert labels.tolist() == chosen.tolist()


def test_augmented_batches_are_channels_last_too() -> None:
    dataset = ImageBatches(IMAGES, LABELS, AugmentConfig(crop_padding=1, flip=True))
    images, _ = dataset[LABELS]
    assert images.shape == (12, 3, 5, 4)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_augmentation_follows_seed_and_epoch_and_changes_by_batch() -> None:
    def batch(seed: int, number: int) -> Tensor:
        dataset = ImageBatches(IMAGES, LABELS, AugmentConfig(crop_padding=2, flip=True), seed)
        dataset.set_epoch(number)
        return torch.cat([dataset[LABELS][0], dataset[LABELS][0]])

    first = batch(0, 0)
    assert torch.equal(batch(0, 0), first)
    assert not torch.equal(first[:12], first[12:])
    assert not torch.equal(batch(0, 1), first)
    assert not torch.equal(batch(1, 0), first)


def test_files_are_strung_together() -> None:
    parts = [{"images": IMAGES[:5], "labels": LABELS[:5]}, {"images": IMAGES[5:], "labels": LABELS[5:]}]
    images, labels = join(parts, "cpu")
    assert torch.equal(images, IMAGES)
    assert torch.equal(labels, LABELS)


def test_one_file_is_not_copied() -> None:
    images, labels = join([{"images": IMAGES, "labels": LABELS}], "cpu")
    assert images.data_ptr() == IMAGES.data_ptr()
    assert labels.data_ptr() == LABELS.data_ptr()


def test_no_file_is_an_empty_split() -> None:
    images, labels = join([], "cpu")
    assert (len(images), images.dtype) == (0, torch.uint8)
    assert (len(labels), labels.dtype) == (0, torch.int64)
    assert len(ImageBatches(images, labels)) == 0
