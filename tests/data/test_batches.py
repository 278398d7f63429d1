import pytest
import torch
from torch import Tensor

from torchloom.config import AugmentConfig
from torchloom.data.batches import Batches, ImageBatches, join, seeded
from torchloom.errors import InputError

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


ALL = {
    "crop_padding": 1,
    "affine": {"degrees": 20},
    "flip": True,
    "policy": {"name": "RandAugment"},
    "color": {"brightness": 0.2},
    "cutout": 2,
    "mixup": 0.5,
    "cutmix": 1.0,
}


def test_mixing_gives_float_images_and_shares_of_classes() -> None:
    for settings in ({"mixup": 1.0}, {"cutmix": 1.0}, ALL):
        dataset = ImageBatches(IMAGES, LABELS % 3, AugmentConfig.model_validate(settings), classes=5)
        images, labels = dataset[LABELS]
        assert (images.dtype, labels.dtype) == (torch.float32, torch.float32)
        assert images.shape == (12, 3, 5, 4)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.shape == (12, 5)
        assert torch.allclose(labels.sum(1), torch.ones(12))
        assert (labels[:, 3:] == 0).all()
        assert torch.allclose(labels.sum(0)[:3], torch.full((3,), 4.0))  # as many of each class as before


def test_mixing_needs_classes() -> None:
    with pytest.raises(InputError, match="mixup and cutmix"):
        ImageBatches(IMAGES, LABELS, AugmentConfig(cutmix=1.0))


@pytest.mark.parametrize(("mean", "colour"), [((0.2, 0.5, 1.0), [51, 128, 255]), ((), [0, 0, 0])])
def test_cutouts_have_the_mean_colour(mean: tuple[float, ...], colour: list[int]) -> None:
    images, _ = ImageBatches(IMAGES, LABELS, AugmentConfig(cutout=10), mean=mean)[LABELS]
    assert torch.equal(images.permute(0, 2, 3, 1), torch.tensor(colour, dtype=torch.uint8).expand(12, 5, 4, 3))


def test_all_of_augmentation_follows_seed_and_epoch() -> None:
    def batches(seed: int, number: int) -> tuple[Tensor, Tensor]:
        dataset = ImageBatches(IMAGES, LABELS, AugmentConfig.model_validate(ALL), seed, classes=12)
        dataset.set_epoch(number)
        pairs = [dataset[LABELS] for _ in range(3)]
        return torch.stack([images for images, _ in pairs]), torch.stack([labels for _, labels in pairs])

    images, labels = batches(0, 1)
    torch.rand(5)  # what else draws random numbers does not matter
    assert torch.equal(batches(0, 1)[0], images)
    assert torch.equal(batches(0, 1)[1], labels)
    assert len(images.flatten(1).unique(dim=0)) == 3
    for seed, number in ((1, 1), (0, 2)):
        assert not torch.equal(batches(seed, number)[0], images)
        assert not torch.equal(batches(seed, number)[1], labels)


def test_files_are_strung_together() -> None:
    joined = join([{"images": IMAGES[a:b], "labels": LABELS[a:b]} for a, b in ((0, 5), (5, 5), (5, 12))])
    assert joined.keys() == {"images", "labels"}
    assert torch.equal(joined["images"], IMAGES)
    assert torch.equal(joined["labels"], LABELS)


def test_where_documents_start_goes_on_from_file_to_file() -> None:
    parts = [torch.tensor(starts) for starts in ([0, 3, 4], [0], [0, 2], [0, 0, 5])]
    joined = join([{"starts": part, "text_starts": 10 * part} for part in parts])
    assert joined["starts"].tolist() == [0, 3, 4, 6, 6, 11]
    assert joined["text_starts"].tolist() == [0, 30, 40, 60, 60, 110]


def test_one_file_is_returned_as_it_is() -> None:
    file = {"images": IMAGES, "labels": LABELS}
    assert join([file]) is file
