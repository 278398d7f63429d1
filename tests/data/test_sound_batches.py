"""Batches of sounds: which part of a sound is in one, and how it is changed in training."""

import numpy as np
import pytest
import torch
from torch import Tensor

from torchloom.config import SoundAugmentConfig
from torchloom.data.augment_sound import at_speed, change_sounds
from torchloom.data.sequences import SoundBatches

LENGTHS = [3, 8, 1, 5]
WAVES = torch.arange(1, 18, dtype=torch.float32)  # of which each sound is a stretch
STARTS = torch.tensor(np.cumsum([0, *LENGTHS]))
LABELS = torch.tensor([0, 1, 1, 0])
PLAIN = SoundAugmentConfig()


def batches(longest: int, change: SoundAugmentConfig | None = None, seed: int = 0) -> SoundBatches:
    return SoundBatches(WAVES, STARTS, LABELS, longest, change, seed)


def test_sounds_are_filled_up_with_zeros() -> None:
    waveforms, lengths, labels = batches(100)[torch.tensor([2, 0])]
    assert waveforms.tolist() == [[12, 0, 0], [1, 2, 3]]
    assert (lengths.tolist(), labels.tolist()) == ([1, 3], [1, 0])
    assert (waveforms.dtype, lengths.dtype, labels.dtype) == (torch.float32, torch.int64, torch.int64)


def test_the_middle_of_what_is_too_long() -> None:
    waveforms, lengths, _ = batches(4)[torch.tensor([1, 3, 0])]
    assert waveforms.tolist() == [[6, 7, 8, 9], [13, 14, 15, 16], [1, 2, 3, 0]]
    assert lengths.tolist() == [4, 4, 3]


def test_in_training_a_part_drawn_for_each_epoch() -> None:
    drawn = []
    for epoch in range(60):
        training = batches(4, PLAIN)
        training.set_epoch(epoch)
        waveforms, _, _ = training[torch.tensor([1])]
        again = batches(4, PLAIN)
        again.set_epoch(epoch)
        assert torch.equal(again[torch.tensor([1])][0], waveforms)
        first = int(waveforms[0, 0])
        assert waveforms[0].tolist() == [first, first + 1, first + 2, first + 3]
        drawn.append(first)
    assert set(drawn) == {4, 5, 6, 7, 8}  # from the first to the last that there is room for


def test_a_batch_that_is_not_trained_on_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SoundBatches, "WHOLE", 20)
    assert (batches(100).most, batches(4).most) == (2, 5)
    monkeypatch.setattr(SoundBatches, "WHOLE", 1)
    assert batches(100).most == 1


# ---- changes -------------------------------------------------------------------------------------------------------


def noise(count: int = 64, samples: int = 400) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(100, samples, (count,), generator=generator)
    waveforms = torch.randn(count, samples, generator=generator)
    return waveforms * (torch.arange(samples) < lengths.unsqueeze(1)), lengths


def changed(**settings: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    waveforms, lengths = noise()
    generator = torch.Generator().manual_seed(1)
    return (
        waveforms,
        lengths,
        *change_sounds(waveforms, lengths, SoundAugmentConfig.model_validate(settings), generator),
    )


def test_without_settings_nothing_changes() -> None:
    waveforms, lengths, found, after = changed()
    assert torch.equal(waveforms, found)
    assert torch.equal(lengths, after)


def test_gain_is_drawn_for_each_sound() -> None:
    waveforms, _, found, _ = changed(gain=6.0)
    factors = found.norm(dim=1) / waveforms.norm(dim=1)
    torch.testing.assert_close(found, waveforms * factors.unsqueeze(1))
    decibels = 20 * factors.log10()
    assert -6 < decibels.min() < -5
    assert 5 < decibels.max() < 6


def test_noise_is_softer_than_the_sound_and_ends_with_it() -> None:
    waveforms, lengths, found, _ = changed(noise=10.0)
    added = found - waveforms
    decibels = 20 * (waveforms.norm(dim=1) / added.norm(dim=1)).log10()
    assert 9 < decibels.min() < 13
    assert 35 < decibels.max() < 41
    assert not added[torch.arange(400) >= lengths.unsqueeze(1)].any()


def test_a_sound_that_is_played_faster_is_higher_and_shorter() -> None:
    time = torch.arange(8000) / 8000
    waveforms = torch.sin(2 * torch.pi * 200 * time).repeat(3, 1)
    found, lengths = at_speed(waveforms, torch.tensor([8000, 8000, 4000]), torch.tensor([[0.8], [1.25], [1.0]]))
    assert lengths.tolist() == [10_000, 6400, 4000]
    assert found.shape == (3, 10_000)
    for row, length, height in zip(found, lengths.tolist(), (160, 250, 200), strict=True):
        expected = torch.sin(2 * torch.pi * height * torch.arange(length) / 8000)
        torch.testing.assert_close(row[: length - 2], expected[: length - 2], atol=0.01, rtol=0)
        assert not row[length:].any()
    _, before, _, after = changed(speed=0.1)
    ratios = before / after
    assert 0.89 < ratios.min() < 0.92
    assert 1.08 < ratios.max() < 1.12
