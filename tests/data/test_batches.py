import threading
import time
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from torchloom.config import AugmentConfig
from torchloom.data.batches import Batches, ImageBatches, StreamedBatches, seeded, start_epoch
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


# ---- alternating flips ---------------------------------------------------------------------------------------------

ALTERNATING = AugmentConfig(flip="alternating")
MANY = torch.randint(0, 256, (400, 2, 3, 1), dtype=torch.uint8, generator=seeded(1, 0))
MANY[:, 0, 0], MANY[:, 0, 2] = 0, 255  # so that it can be told which ones are mirrored
NUMBERS = torch.arange(400)


def mirrored(seed: int, number: int, batch_size: int, shuffle_seed: int | None = 0) -> Tensor:
    """For each of the images of MANY whether it comes mirrored in this epoch."""
    dataset = ImageBatches(MANY, NUMBERS, ALTERNATING, seed)
    batches = Batches(400, batch_size, shuffle_seed)
    dataset.set_epoch(number)
    batches.epoch = number
    found = torch.zeros(400, dtype=torch.bool)
    for chosen in batches:
        images, labels = dataset[chosen]
        images = images.permute(0, 2, 3, 1)
        found[labels] = images[:, 0, 0, 0] == 255
        expected = torch.where(found[labels][:, None, None, None], MANY[labels].flip(2), MANY[labels])
        assert torch.equal(images, expected)
    return found


def test_alternating_flips_show_each_image_both_ways_in_two_epochs() -> None:
    first, second, third = (mirrored(0, number, 100) for number in range(3))
    assert torch.equal(second, ~first)
    assert torch.equal(third, first)
    assert 0.4 < first.float().mean() < 0.6  # 4 standard deviations
    changes = (first[1:] != first[:-1]).float().mean()
    assert 0.4 < changes < 0.6  # neighbours are independent


def test_alternating_flips_depend_on_the_seed_alone() -> None:
    first = mirrored(0, 0, 100)
    for batch_size, shuffle_seed in ((100, 1), (1, 0), (400, None), (80, None)):
        assert torch.equal(mirrored(0, 0, batch_size, shuffle_seed), first)
    other = mirrored(1, 0, 100)
    assert 0.4 < (other != first).float().mean() < 0.6


def test_what_comes_after_alternating_flips_still_happens() -> None:
    settings = {**ALL, "flip": "alternating"}
    plain = ImageBatches(IMAGES, LABELS, AugmentConfig(flip="alternating"))
    dataset = ImageBatches(IMAGES, LABELS, AugmentConfig.model_validate(settings), classes=12)
    images, labels = dataset[LABELS]
    assert labels.shape == (12, 12)
    assert images.dtype == torch.float32
    again = ImageBatches(IMAGES, LABELS, AugmentConfig.model_validate(settings), classes=12)
    assert torch.equal(again[LABELS][0], images)
    black = ImageBatches(IMAGES, LABELS, AugmentConfig(flip="alternating", cutout=3))[LABELS][0]
    turned = plain[LABELS][0]
    assert ((black == turned) | (black == 0)).all()
    assert (black != turned).any((1, 2, 3)).all()


# ---- streaming -----------------------------------------------------------------------------------------------------

STREAMS: list[dict[str, Any]] = [
    {},
    {"crop_padding": 1, "flip": True, "cutout": 2},
    {"crop_padding": 2, "crop_border": "reflect", "flip": "alternating", "cutmix": 1.0},
    {**ALL, "flip": "alternating"},
]


def loader_of(
    kind: type[Any], change: dict[str, Any] | None, batch_size: int = 5, shuffle_seed: int | None = 0
) -> DataLoader[Any]:
    config = None if change is None else AugmentConfig.model_validate(change)
    dataset = ImageBatches(IMAGES, LABELS, config, seed=3, classes=12, mean=[0.1, 0.2, 0.3])
    loader: DataLoader[Any] = kind(dataset, sampler=Batches(12, batch_size, shuffle_seed), batch_size=None)
    return loader


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("change", [None, *STREAMS])
@pytest.mark.parametrize(("batch_size", "shuffle_seed"), [(5, 0), (5, None), (12, 0), (20, None)])
def test_streamed_batches_are_those_of_the_plain_loader(
    change: dict[str, Any] | None, batch_size: int, shuffle_seed: int | None
) -> None:
    plain = loader_of(DataLoader, change, batch_size, shuffle_seed)
    streamed = loader_of(StreamedBatches, change, batch_size, shuffle_seed)
    assert len(plain) == len(streamed)
    for number in (0, 1, 0):
        for loader in (plain, streamed):
            start_epoch(loader, number)
        pairs = list(zip(plain, streamed, strict=True))
        assert len(pairs) == len(plain)
        for (images, labels), (other_images, other_labels) in pairs:
            assert torch.equal(images, other_images)
            assert torch.equal(labels, other_labels)
            assert other_images.is_contiguous(memory_format=torch.channels_last)
        assert readers() == []


def test_a_stream_of_nothing_ends() -> None:
    dataset = ImageBatches(IMAGES[:0], LABELS[:0])
    assert list(StreamedBatches(dataset, sampler=Batches(0, 5), batch_size=None)) == []


def reading_loader(fails_at: int | None = None) -> tuple[Any, list[str]]:
    """Batches of one image, and the threads that have read one so far; reading fails at one of them."""
    loader: Any = loader_of(StreamedBatches, None, batch_size=1)
    gather, reads = loader.dataset.gather, []

    def read(indices: Tensor) -> tuple[Tensor, ...]:
        reads.append(threading.current_thread().name)
        if len(reads) == fails_at:
            raise OSError("the disk is gone")
        parts: tuple[Tensor, ...] = gather(indices)
        return parts

    loader.dataset.gather = read
    return loader, reads


def test_the_next_two_batches_are_read_while_one_is_used() -> None:
    loader, reads = reading_loader()
    batches = iter(loader)
    for taken in (1, 2):
        next(batches)
        deadline = time.monotonic() + 20
        while len(reads) < taken + 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(reads) == taken + 2
    batches.close()


def test_another_thread_reads_not_too_far_ahead() -> None:
    loader, reads = reading_loader()
    for taken, _ in enumerate(loader, 1):
        assert len(reads) <= taken + StreamedBatches.ahead
    assert len(reads) == 12
    assert {name.partition("_")[0] for name in reads} == {"batches"}
    assert len(set(reads)) == 1


@pytest.mark.parametrize("fails_at", [1, 3, 12])
def test_what_the_reader_raises_reaches_the_caller(fails_at: int) -> None:
    batches = iter(reading_loader(fails_at)[0])
    for _ in range(fails_at - 1):
        next(batches)
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert readers() == []


@pytest.mark.parametrize("stop_after", [1, 2, 11])
def test_who_stops_in_the_middle_leaves_no_thread(stop_after: int) -> None:
    batches = iter(reading_loader()[0])
    for _ in range(stop_after):
        next(batches)
    assert len(readers()) == 1
    batches.close()
    assert readers() == []


def test_leaving_a_loop_leaves_no_thread() -> None:
    loader, reads = reading_loader()
    for number, _ in enumerate(loader):
        if number == 2:
            break
    assert readers() == []
    assert len(reads) < 12


def test_an_unused_stream_reads_nothing() -> None:
    loader, reads = reading_loader()
    batches = iter(loader)
    assert reads == []
    assert readers() == []
    del batches


def test_what_is_in_flight_survives_until_it_is_used() -> None:
    """A batch may be kept while the next ones are gathered."""
    expected = list(loader_of(DataLoader, {"flip": True}, batch_size=2))
    kept = list(loader_of(StreamedBatches, {"flip": True}, batch_size=2))
    for (images, _), (others, _) in zip(expected, kept, strict=True):
        assert torch.equal(images, others)


# ---- several files -------------------------------------------------------------------------------------------------
