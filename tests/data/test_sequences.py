"""Batches of rows, documents and windows, and the sampler that puts documents of like length together."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from torchloom.data.batches import Batches, BucketedBatches
from torchloom.data.mapped import join
from torchloom.data.sequences import DocumentBatches, TableBatches, TextWindows
from torchloom.errors import InputError


def documents(lengths: list[int], max_tokens: int | None = None) -> tuple[DocumentBatches, list[list[int]]]:
    """Documents of these lengths whose words are numbered through from 1, and the same as lists."""
    starts = torch.tensor([0, *np.cumsum(lengths)])
    tokens = torch.arange(1, sum(lengths) + 1, dtype=torch.int32)
    lists = [tokens[a:b].tolist() for a, b in itertools.pairwise(starts)]
    return DocumentBatches(tokens, starts, torch.arange(len(lengths)), max_tokens), lists


def test_documents_are_padded_to_the_longest_of_their_batch() -> None:
    dataset, lists = documents([3, 1, 5, 2])
    tokens, lengths, labels = dataset[torch.tensor([1, 3, 0])]
    assert tokens.dtype == lengths.dtype == torch.int64
    assert tokens.tolist() == [lists[1] + [0, 0], lists[3] + [0], lists[0]]
    assert lengths.tolist() == [1, 2, 3]
    assert labels.tolist() == [1, 3, 0]


def test_of_long_documents_the_end_is_kept() -> None:
    dataset, lists = documents([3, 1, 5], max_tokens=2)
    tokens, lengths, _ = dataset[torch.arange(3)]
    assert tokens.tolist() == [lists[0][-2:], lists[1] + [0], lists[2][-2:]]
    assert lengths.tolist() == [2, 1, 2]


def test_documents_of_several_files_follow_each_other() -> None:
    first = {"tokens": torch.arange(4), "starts": torch.tensor([0, 3, 4]), "labels": torch.tensor([0, 1])}
    second = {"tokens": torch.arange(10, 13), "starts": torch.tensor([0, 1, 3]), "labels": torch.tensor([1, 0])}
    joined = join([first, second])
    dataset = DocumentBatches(joined["tokens"], joined["starts"], joined["labels"], None)
    tokens, lengths, labels = dataset[torch.arange(4)]
    assert tokens.tolist() == [[0, 1, 2], [3, 0, 0], [10, 0, 0], [11, 12, 0]]
    assert lengths.tolist() == [3, 1, 1, 2]
    assert labels.tolist() == [0, 1, 1, 0]
    assert join([first]) is first


LENGTHS = torch.randint(1, 400, (2000,), generator=torch.Generator().manual_seed(0))


def waste(batches: Batches) -> float:
    """The share of padding when each batch is as long as its longest document."""
    padded = sum(len(batch) * int(LENGTHS[batch].max()) for batch in batches)
    return 1 - sum(int(LENGTHS[batch].sum()) for batch in batches) / padded


def test_buckets_save_padding_and_lose_no_document() -> None:
    bucketed, plain = BucketedBatches(LENGTHS, 16, 0), Batches(2000, 16, 0)
    assert waste(bucketed) < 0.05 < 0.4 < waste(plain)
    seen = torch.cat(list(bucketed))
    assert len(list(bucketed)) == len(bucketed) == 125
    assert sorted(seen.tolist()) == list(range(2000))
    by_batch = [int(LENGTHS[batch].max()) for batch in bucketed]
    assert by_batch != sorted(by_batch)  # the batches themselves come in any order


def test_buckets_are_drawn_anew_in_each_epoch_and_again_with_the_seed() -> None:
    bucketed = BucketedBatches(LENGTHS, 16, 3)
    first = [batch.tolist() for batch in bucketed]
    assert [batch.tolist() for batch in bucketed] == first
    bucketed.epoch = 1
    second = [batch.tolist() for batch in bucketed]
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}
    assert [batch.tolist() for batch in BucketedBatches(LENGTHS, 16, 3)] == first


def test_data_smaller_than_a_batch_make_one_bucket() -> None:
    (only,) = BucketedBatches(LENGTHS[:5], 16, 0)
    assert sorted(only.tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", [Batches, BucketedBatches])
def test_a_subset_is_the_same_samples_in_every_epoch(kind: type[Batches]) -> None:
    batches = kind(LENGTHS if kind is BucketedBatches else 2000, 10, 0, 100)  # type: ignore[arg-type]
    first = torch.cat(list(batches)).tolist()
    batches.epoch = 1
    second = torch.cat(list(batches)).tolist()
    assert len(batches) == 10
    assert len(set(first)) == 100
    assert sorted(first) == sorted(second)
    assert first != second
    assert max(first) > 1000  # drawn from all, not the first ones
    other = torch.cat(list(kind(LENGTHS if kind is BucketedBatches else 2000, 10, 1, 100)))  # type: ignore[arg-type]
    assert sorted(other.tolist()) != sorted(first)


# ---- windows of a text ---------------------------------------------------------------------------------------------

TEXT = torch.arange(100, dtype=torch.uint8)


def everything(windows: TextWindows) -> tuple[Tensor, Tensor]:
    inputs, targets = windows[torch.arange(len(windows))]
    return inputs, targets


def test_windows_lie_end_to_end_and_foretell_the_next_character() -> None:
    windows = TextWindows(TEXT, 10)
    inputs, targets = everything(windows)
    assert inputs.flatten().tolist() == list(range(90))
    assert targets.flatten().tolist() == list(range(1, 91))
    assert inputs.dtype == targets.dtype == torch.int64
    assert len(TextWindows(TEXT[:91], 10)) == 9
    assert len(TextWindows(TEXT[:90], 10)) == 8


def test_training_windows_shift_from_epoch_to_epoch() -> None:
    windows = TextWindows(TEXT, 10, shift_seed=0)
    starts = set()
    for epoch in range(200):
        windows.set_epoch(epoch)
        inputs, targets = everything(windows)
        assert torch.equal(targets, inputs + 1)
        assert inputs.flatten().tolist() == list(range(int(inputs[0, 0]), int(inputs[0, 0]) + 80))
        starts.add(int(inputs[0, 0]))
    assert starts == set(range(20))  # from the first place to the last that there is room for
    windows.set_epoch(7)
    again = TextWindows(TEXT, 10, shift_seed=0)
    again.set_epoch(7)
    assert torch.equal(everything(windows)[0], everything(again)[0])


def test_a_text_of_one_window_is_one_window() -> None:
    for seed in (None, 0):
        windows = TextWindows(TEXT[:15], 10, seed)
        assert len(windows) == 1
        assert everything(windows)[1].shape == (1, 10)


def test_a_window_longer_than_the_text_is_refused() -> None:
    with pytest.raises(InputError, match=r"data\.window 100: a split of the text has only 100 characters"):
        TextWindows(TEXT, 100)
    assert len(TextWindows(TEXT, 99)) == 1


def test_rows_of_a_table_by_number() -> None:
    features, target = torch.randn(6, 3), torch.randn(6)
    batch = TableBatches(features, target)[torch.tensor([4, 1])]
    assert torch.equal(batch[0], features[[4, 1]])
    assert torch.equal(batch[1], target[[4, 1]])


@pytest.mark.parametrize("place", ["cpu", "meta"])
def test_windows_are_cut_on_the_device_of_the_text_wherever_the_indices_are(place: str) -> None:
    """The device meta stands for one that is not the CPU: mixing both is an error there too."""
    windows = TextWindows(torch.arange(41, dtype=torch.uint8, device="meta"), 4)
    inputs, following = windows[torch.arange(3, device=place)]
    assert (inputs.shape, inputs.device.type) == ((3, 4), "meta")
    assert (following.shape, following.device.type) == ((3, 4), "meta")
