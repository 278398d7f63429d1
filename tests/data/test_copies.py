"""What is in training and is tested on too, under another name: told, whatever the reader."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.sounds import save, tone
from tests.tables import write
from torchloom.config import (
    FolderPreprocessConfig,
    PicturesPreprocessConfig,
    SoundFilesPreprocessConfig,
    TextFilesPreprocessConfig,
)
from torchloom.data.readers import folder, pictures, sounds, texts


def drawn(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8))


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if "are among the training" in line]


@pytest.mark.parametrize("cache", ["always", "never"])
def test_pictures_in_folders_of_the_splits(tmp_path: Path, cache: str, caplog: pytest.LogCaptureFixture) -> None:
    """The same pixels in another format; others of the same name are none."""
    for number in range(12):
        for split, seed in (("train", number), ("test", 100 + number)):
            place = tmp_path / f"own/{split}/{'ab'[number % 2]}"
            place.mkdir(parents=True, exist_ok=True)
            drawn(seed).save(place / f"{number}.png")
    drawn(3).save(tmp_path / "own/test/a/other.bmp")
    config = FolderPreprocessConfig(folder=str(tmp_path / "own"), size=[16, 16], cache=cache, validation_fraction=0)
    folder.preprocess(folder.find(config), config, tmp_path)
    (line,) = told(caplog)
    assert line.startswith("test: 1 of 13 pictures are among the training ones too")
    assert line.endswith("says little: test/a/other.bmp is train/b/3.png")


def test_pictures_that_a_table_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = []
    for number in range(20):
        name = f"{number}.{'tif' if number == 19 else 'png'}"
        drawn(2 if number == 19 else number).save(tmp_path / name)
        rows.append({"shot": name, "kind": "ab"[number % 2], "part": "test" if number > 15 else "train"})
    rows.append({**rows[3], "part": "test"})  # of which something else is told
    (tmp_path / "0.png").write_bytes(b"none")
    path = write(tmp_path / "all.csv", rows)
    told_apart = {"target": "kind", "split_by": {"column": "part"}, "validation_fraction": 0, "skip_unreadable": True}
    config = PicturesPreprocessConfig.model_validate({"files": str(path), "size": [8, 8], **told_apart})
    pictures.preprocess(pictures.find(config), config, tmp_path)
    (line,) = told(caplog)
    assert line.endswith("says little: 19.tif is 2.png")


def test_sounds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(12):
        for split, seed in (("train", number), ("val", 50 + number), ("test", 100 + number)):
            place = tmp_path / f"own/{split}/{'ab'[number % 2]}/{number}.wav"
            save(place, tone(300 + 40 * seed, 0.1, seed=seed))
    wave, rate = soundfile.read(io.BytesIO((tmp_path / "own/train/b/5.wav").read_bytes()), dtype="float32")
    save(tmp_path / "own/val/a/copy.flac", wave, rate)
    config = SoundFilesPreprocessConfig(files=str(tmp_path / "own"))
    sounds.preprocess(sounds.find(config), config, tmp_path)
    (line,) = told(caplog)
    assert line.startswith("validation: 1 of 13 sounds are among the training ones too")
    assert line.endswith("says little: val/a/copy.flac is train/b/5.wav")


@pytest.mark.parametrize("again", ["a  Fine\nfilm number 3", "A FINE film number 3", "\uff41 fine film number 3"])
def test_texts(tmp_path: Path, again: str, caplog: pytest.LogCaptureFixture) -> None:
    """But for spaces, for case, and for the width of letters."""
    for number in range(8):
        for split in ("train", "test"):
            place = tmp_path / f"own/{split}/{'ab'[number % 2]}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.txt").write_text(f"a {'fine' if split == 'train' else 'dull'} film number {number}")
    (tmp_path / "own/test/b/more.txt").write_text(again)
    config = TextFilesPreprocessConfig(files=str(tmp_path / "own"))
    texts.preprocess(texts.find(config), config, tmp_path)
    (line,) = told(caplog)
    assert line.startswith("test: 1 of 9 rows are among the training rows too")
    assert line.endswith("says little: test/b/more.txt")


def test_nothing_is_told_of_what_differs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"text": f"film number {number}", "kind": "ab"[number % 2]} for number in range(30)]
    config = TextFilesPreprocessConfig(files=str(write(tmp_path / "all.csv", rows)), target="kind")
    texts.preprocess(texts.find(config), config, tmp_path)
    assert not told(caplog)
