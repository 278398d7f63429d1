"""The pipeline `predict` on files whose place says what is true of them: folders of classes, and parts of names."""

import logging
import shutil
from pathlib import Path

import pytest

from tests.sounds import save, tone, whistles
from tests.tables import reviews
from tests.test_as_tested import Trained, assert_as_measured, draw
from torchloom.config import (
    FolderPreprocessConfig,
    SoundFilesPreprocessConfig,
    TextFilesPreprocessConfig,
)
from torchloom.data.readers import folder, sounds, texts
from torchloom.data.targets import Classes, Labels, Number

pytestmark = [pytest.mark.xdist_group("export"), pytest.mark.usefixtures("exporter")]


def test_pictures_in_folders_of_classes_are_judged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw(tmp_path / "own/train", "8", 9)
    draw(tmp_path / "own/test", "8", 8)
    config = FolderPreprocessConfig(folder=str(tmp_path / "own"), size=[8, 8])
    prepared = folder.preprocess(folder.find(config), config, tmp_path)
    task = Trained(tmp_path, prepared, {"name": "mlp", "hidden": [8]})
    rows = task.asked(tmp_path / "own/test")
    assert_as_measured(task, 16)
    assert [row["true"] for row in rows] == [Path(row["file"]).parent.name for row in rows]
    # nor does a folder of no class say anything, or none, or the one that is given itself
    shutil.copytree(tmp_path / "own/test/dark", tmp_path / "asked/wrapped/dark/more")
    shutil.copytree(tmp_path / "own/test/light", tmp_path / "asked/grey")
    shutil.copy(next((tmp_path / "asked/grey").iterdir()), tmp_path / "asked/light.png")
    with caplog.at_level(logging.INFO):
        rows = task.asked(tmp_path / "asked")
    assert [row["true"] for row in rows] == ["dark" if "dark" in row["file"] else None for row in rows]
    assert task.scores["samples"] == 8
    assert "beside the target, which 8 samples come with: accuracy " in caplog.text
    assert "true" not in task.asked(tmp_path / "own/test/dark")[0]
    assert task.scores == {}


def test_texts_in_folders_of_classes_are_judged(tmp_path: Path) -> None:
    for split, seed in {"train": 0, "test": 1}.items():
        for number, row in enumerate(reviews(30, seed)):
            place = tmp_path / "own" / split / row["verdict"] / f"{number}.txt"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(row["review"])
    config = TextFilesPreprocessConfig(files=str(tmp_path / "own"))
    prepared = texts.preprocess(texts.find(config), config, tmp_path)
    task = Trained(tmp_path, prepared, {"name": "text_ngrams", "width": 8})
    rows = task.asked(tmp_path / "own/test")
    assert_as_measured(task, 30)
    assert [row["true"] for row in rows] == [Path(row["file"]).parent.name for row in rows]


def test_sounds_are_judged_as_training_was_told(tmp_path: Path) -> None:
    """By a part of the name, which may be a class or a number, or by the folder."""
    rows = whistles(tmp_path / "named", 30)
    for row in rows:
        place = tmp_path / "foldered" / row["height"] / row["sound"]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "named" / row["sound"], place)
    for number, name in enumerate(("low_eve_x.wav", "deep_eve_1.wav", "what.wav")):
        save(tmp_path / "asked" / name, tone(300.0, 0.1, seed=number))
    told = {"files": str(tmp_path / "named"), "names": "{height}_{speaker}_{take}"}
    known = {
        "classes": ({**told, "target": "height"}, "classification", tmp_path / "asked", ["low"]),
        "numbers": ({**told, "target": "take", "target_type": "number"}, "regression", tmp_path / "asked", [1.0]),
        "folders": (
            {"files": str(tmp_path / "foldered")},
            "classification",
            tmp_path / "foldered",
            [row["height"] for row in sorted(rows, key=lambda row: (row["height"], row["sound"]))],
        ),
    }
    for name, (block, problem, files, expected) in known.items():
        config = SoundFilesPreprocessConfig.model_validate(block)
        prepared = sounds.preprocess(sounds.find(config), config, tmp_path)
        task = Trained(tmp_path / name, prepared, {"name": "audio_cnn", "widths": [4]}, problem)
        found = [row["true"] for row in task.asked(files)]
        assert [value for value in found if value is not None] == expected
        assert task.scores["samples"] == len(expected)


def test_what_a_place_says() -> None:
    animals = Classes(classes=["cat", "dög"], name="class", folders=True)
    assert animals.at("test/cat/1.png") == animals.at("cat/dög/cat.png") == {"class": "cat"}
    assert animals.at("do\u0308g/1.png") == {"class": "dög"}  # as some systems write it
    assert animals.at("cat.png") is None
    assert animals.at("Cat/1.png") is None
    assert Classes(classes=["cat"], name="class").at("cat/1.png") is None
    named = Classes(classes=["1", "2"], name="digit", names="{digit}_{speaker}")
    assert named.at("far/away/1_ada.wav") == {"digit": "1", "speaker": "ada"}
    assert [named.at(name) for name in ("3_ada.wav", "1.wav", "1_ada_2.wav", "1/a.wav")] == [None] * 4
    assert Number(name="n", mean=0, std=1, names="{n}-{m}").at("3-4.wav") == {"n": "3", "m": "4"}
    labels = Labels(labels=["a", "b"], column="tags", separator="+", names="{tags}_{take}")
    assert labels.told(labels.at("a+b_1.wav") or {}) == {"a", "b"}
