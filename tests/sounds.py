"""Sounds of a user's own, for tests: tones of several heights, spoken by several whistles."""

from pathlib import Path
from typing import Any

import numpy as np

HEIGHTS = {"low": 300.0, "middle": 800.0, "high": 1900.0}
SPEAKERS = ("ada", "bob", "eve")


def tone(height: float, seconds: float, rate: int = 8000, seed: int = 0) -> np.ndarray:
    """A tone with noise, (T,) float32."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * height * generator.uniform(0.9, 1.1) * time + generator.uniform(0, 6))
    return (wave + generator.normal(0, 0.02, len(time))).astype(np.float32)


def save(path: Path, wave: np.ndarray, rate: int = 8000, **written: Any) -> Path:
    """`written` are arguments of soundfile.write."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        soundfile.write(file, wave, rate, format=path.suffix[1:].upper(), **written)
    return path


def whistles(folder: Path, count: int = 30, rate: int = 8000, seed: int = 0) -> list[dict[str, Any]]:
    """Files `height_speaker_take.wav` of 0.1 to 0.3 seconds, and a row for each."""
    rows = []
    for number in range(count):
        height, speaker = list(HEIGHTS)[number % 3], SPEAKERS[number // 3 % 3]
        seconds = 0.1 + 0.2 * ((number * 7) % count) / count
        name = f"{height}_{speaker}_{number}.wav"
        save(folder / name, tone(HEIGHTS[height], seconds, rate, seed + number), rate)
        rows.append({"sound": name, "height": height, "speaker": speaker, "hertz": HEIGHTS[height]})
    return rows
