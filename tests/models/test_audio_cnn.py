"""The network over sounds, and the spectrograms that the model makes of them."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.sounds import tone
from torchloom.config import SoundAugmentConfig
from torchloom.data.spectrograms import FLOOR, hop_of, log_mel, mel_filters, window_of
from torchloom.data.targets import Classes
from torchloom.errors import InputError
from torchloom.export.onnx import export_checkpoint
from torchloom.inference.model import Model
from torchloom.modalities import AudioInfo
from torchloom.modalities.modules import LogMel, uncovered
from torchloom.models import build_model, build_network
from torchloom.problems import problem_of
from torchloom.training.checkpoint import Checkpoint

RATE = 8000
INFO = AudioInfo(rate=RATE, mean=[-5.0] * 40, std=[3.0] * 40, target=Classes(classes=["a", "b", "c"]))
SETTINGS = {"widths": [4, 8, 8]}
CLASSIFICATION = problem_of("classification")


class Same(nn.Module):
    def forward(self, spectrograms: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        return spectrograms, frames


def front(change: SoundAugmentConfig | None = None) -> LogMel:
    change = change or SoundAugmentConfig()
    return LogMel(Same(), RATE, [0.0] * 40, [1.0] * 40, change).eval()  # type: ignore[no-any-return]


def model() -> nn.Module:
    """With batch norms that shift what is nothing."""
    torch.manual_seed(0)
    made = build_model("audio_cnn", SETTINGS, INFO, CLASSIFICATION)
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.bias, 0.5, 1)
            nn.init.uniform_(layer.running_mean, -1, 1)  # type: ignore[arg-type]
    return made.eval()


# ---- spectrograms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1000, 8000, 16_000, 22_050, 44_100])
def test_the_spectrum_is_that_of_torch(rate: int) -> None:
    """Window, kernels, hop: torch's own short-time Fourier transform with the same filters, in float64."""
    window, hop = window_of(rate), hop_of(rate)
    assert 0.025 * rate <= window < 0.05 * rate + 1
    wave = torch.from_numpy(tone(0.2 * rate, 0.7, rate, 1)[: window + 13 * hop])
    made = LogMel(Same(), rate, [0.0] * 40, [1.0] * 40, SoundAugmentConfig()).eval()
    found, frames = made(wave[None], torch.tensor([len(wave)]))
    spectrum = torch.stft(
        wave.double(), window, hop, window=torch.hann_window(window).double(), center=False, return_complex=True
    )
    filters = torch.from_numpy(mel_filters(rate, window, 40)).double()
    expected = (filters @ spectrum.abs().square() + FLOOR).log().float()
    assert frames.tolist() == [14] == [expected.shape[1]]
    torch.testing.assert_close(found[0, :, :14], expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("samples", [1, 255, 256, 257, 336, 337, 5000])
def test_the_same_in_numpy(samples: int) -> None:
    wave = tone(900, 1)[:samples]
    found, frames = front()(torch.from_numpy(wave)[None], torch.tensor([samples]))
    expected = log_mel(wave, RATE, 40)
    assert expected.dtype == np.float32
    assert len(expected) == int(frames)
    np.testing.assert_allclose(found[0, :, : int(frames)].T, expected, atol=2e-3)
    assert not found[0, :, int(frames) :].any()


def test_a_tone_is_in_the_band_that_has_its_height() -> None:
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 42) / 2595) - 1)
    for band in (5, 20, 38):
        height = edges[band + 1]
        wave = np.sin(2 * np.pi * height * np.arange(4000) / RATE).astype(np.float32)
        assert set(log_mel(wave, RATE, 40).argmax(1)) == {band}


@pytest.mark.parametrize(("rate", "mels"), [(8000, 40), (8000, 128), (16_000, 64), (1000, 100)])
def test_no_band_is_empty(rate: int, mels: int) -> None:
    filters = mel_filters(rate, window_of(rate), mels)
    assert filters.shape == (mels, window_of(rate) // 2 + 1)
    assert (filters.sum(1) > 0.3).all()
    assert filters.min() == 0
    assert filters.max() <= 1


def test_spectrograms_stay_exact_where_the_network_computes_in_bf16() -> None:
    waves, lengths = torch.from_numpy(tone(900, 0.3))[None], torch.tensor([2400])
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(front()(waves, lengths)[0], front()(waves, lengths)[0], rtol=0, atol=0)
        found, _ = front()(waves, lengths)
    assert torch.equal(found, front()(waves, lengths)[0])


def test_stretches_are_covered_in_training_alone() -> None:
    made = front(SoundAugmentConfig(time_masks=1, time_mask=0.5, frequency_masks=1, frequency_mask=0.5))
    waves = torch.from_numpy(np.stack([tone(900, 0.5, seed=seed) for seed in range(8)]))
    lengths = torch.full((8,), waves.shape[1])
    plain, frames = made(waves, lengths)
    found, _ = made.train()(waves, lengths)
    kept = found != 0
    torch.testing.assert_close(found[kept], plain[kept])
    for sound, count in zip(kept, frames.tolist(), strict=True):
        bands, times = sound[:, :count].any(1), sound[:, :count].any(0)
        assert torch.equal(sound[:, :count], bands[:, None] & times)  # whole rows and columns
        for part, size in ((bands, 40), (times, count)):
            assert (~part).sum() <= size / 2 + 1
            assert (part.int().diff() != 0).sum() <= 2  # one stretch
    assert not kept.all()


def test_what_is_covered_lies_within_each_sound() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([10] * 500 + [100] * 500)
    covered = ~uncovered(lengths, 100, count=1, share=0.4)
    assert not covered[:500, 10:].any()
    widths = covered.sum(1).float()
    assert widths[:500].max() == 4
    assert 38 <= widths[500:].max() <= 40
    assert widths[500:].mean() == pytest.approx(20, abs=2)
    assert covered.any(0).all()
    assert uncovered(lengths, 100, count=0, share=0.4).all()


def test_a_picture_has_time_to_the_right_and_what_is_high_above() -> None:
    rising = np.concatenate([tone(height, 0.25) for height in (300.0, 3000.0)])
    picture = INFO.picture(rising)
    assert (picture.shape, picture.dtype) == ((1, 48, 96), np.uint8)
    rows = picture[0].argmax(0)
    assert rows[:40].min() > 30
    assert rows[56:].max() < 15
    assert INFO.picture(rising[:1]).shape == (1, 48, 96)


# ---- the network ---------------------------------------------------------------------------------------------------

SOUNDS = [tone(500 + 90 * number, 1, seed=number)[:length] for number, length in enumerate([8000, 2, 300, 1234, 4567])]


@torch.no_grad()
def test_what_stands_beside_a_sound_changes_nothing() -> None:
    made = model()
    serialised = export_checkpoint(
        Checkpoint(
            network="audio_cnn",
            arguments=SETTINGS,
            problem="classification",
            info=INFO,
            training={},
            weights=dict(made.state_dict()),
        )
    )
    exported = Model(serialised, threads=1)
    batch = INFO.batch(SOUNDS)
    together = made(*map(torch.from_numpy, batch.values())).numpy()
    np.testing.assert_allclose(exported.run("logits", **batch), together, atol=1e-5)
    for row, length in zip(batch["waveforms"], batch["lengths"], strict=True):
        row[length:] = 7.0  # beyond the ends there may be anything
    np.testing.assert_allclose(made(*map(torch.from_numpy, batch.values())).numpy(), together, atol=1e-5)
    for sound, expected in zip(SOUNDS, together, strict=True):
        alone = INFO.batch([sound])
        np.testing.assert_allclose(made(*map(torch.from_numpy, alone.values()))[0], expected, atol=1e-5)
        np.testing.assert_allclose(exported.run("logits", **alone)[0], expected, atol=1e-5)
    assert np.ptp(together, axis=0).min() > 1e-3


@torch.no_grad()
def test_how_loud_a_sound_is_changes_nothing_unless_it_is_heard() -> None:
    spectrogram, frames = front()(torch.from_numpy(tone(900, 0.5))[None], torch.tensor([4000]))
    inside = (torch.arange(spectrogram.shape[2]) < frames).float()
    for loudness in (False, True):
        torch.manual_seed(0)
        network = build_network("audio_cnn", {"mels": 40, "outputs": 3}, {**SETTINGS, "loudness": loudness}).eval()
        difference = (network(spectrogram, frames) - network(spectrogram + 2 * inside, frames)).abs().max()
        assert (float(difference) > 1e-3) == loudness


def test_the_bands_cannot_be_halved_more_often_than_there_are() -> None:
    with pytest.raises(InputError, match=r"6 widths halve the 40 bands too often; leave some out"):
        build_network("audio_cnn", {"mels": 40, "outputs": 2}, {"widths": [4] * 6})
