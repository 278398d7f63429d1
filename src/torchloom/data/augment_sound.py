"""Random changes to whole batches of sounds on their device, each sound with random numbers of its own."""

import torch
from torch import Generator, Tensor

from torchloom.config import SoundAugmentConfig

LOUDER = 30.0  # decibels by which the softest noise is softer than the loudest


def change_sounds(
    waveforms: Tensor, lengths: Tensor, change: SoundAugmentConfig, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Waveforms (B, T) float32, 0 from their lengths (B,) on, played faster or slower, with noise, louder or softer."""

    def drawn() -> Tensor:
        return torch.rand(len(waveforms), 1, generator=generator, device=waveforms.device)

    if change.speed:
        waveforms, lengths = at_speed(waveforms, lengths, 1 + change.speed * (2 * drawn() - 1))
    if change.noise is not None:
        inside = torch.arange(waveforms.shape[1], device=lengths.device) < lengths.unsqueeze(1)
        power = waveforms.square().sum(1, keepdim=True) / lengths.unsqueeze(1)
        level = (power * 10 ** (-(change.noise + LOUDER * drawn()) / 10)).sqrt()
        noise = torch.randn(waveforms.shape, generator=generator, device=waveforms.device)
        waveforms = waveforms + level * noise * inside
    if change.gain:
        waveforms = waveforms * 10 ** (change.gain * (2 * drawn() - 1) / 20)
    return waveforms, lengths


def at_speed(waveforms: Tensor, lengths: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Each sound so many times as fast, `factors` (B, 1): by linear interpolation (Ko et al., Interspeech 2015)."""
    lengths = (lengths / factors.squeeze(1)).long().clamp(min=1)
    place = torch.arange(int(lengths.max()), device=waveforms.device) * factors  # (B, T) in samples of before
    before = place.long().clamp(max=waveforms.shape[1] - 1)
    after = (before + 1).clamp(max=waveforms.shape[1] - 1)
    mixed = torch.lerp(waveforms.gather(1, before), waveforms.gather(1, after), place - before)
    return mixed * (torch.arange(mixed.shape[1], device=lengths.device) < lengths.unsqueeze(1)), lengths
