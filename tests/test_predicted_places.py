"""The pipeline `predict` on files whose place says what is true of them: folders of classes, and parts of names."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from tests.sounds import save, tone, whistles
from tests.tables import reviews, write
from tests.test_as_tested import Trained, assert_as_measured, draw
from torchloom.config import (
    FolderPreprocessConfig,
    PicturesPreprocessConfig,
    SoundFilesPreprocessConfig,
    TextFilesPreprocessConfig,
)
from torchloom.data.mask_folders import beside
from torchloom.data.readers import folder, pictures, sounds, texts
from torchloom.data.targets import Classes, Labels, Number
from torchloom.datasets.listing import Listing
from torchloom.errors import InputError
from torchloom.modalities import ImageInfo
from torchloom.problems import problem_of
from torchloom.system.figures import RIGHT, WRONG

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


def said_on(sheet: Figure) -> list[tuple[str, str]]:
    """What a contact sheet says of each sample, and in which colour."""
    return [(text.get_text(), to_hex(text.get_color())) for text in sheet.axes[0].texts]


def test_a_contact_sheet_marks_what_is_wrong_where_the_truth_is_known(tmp_path: Path) -> None:
    draw(tmp_path / "own/train", "8", 9)
    config = FolderPreprocessConfig(folder=str(tmp_path / "own/train"), size=[8, 8])
    prepared = folder.preprocess(folder.find(config), config, tmp_path)
    task = Trained(tmp_path, prepared, {"name": "mlp", "hidden": [8]}, settings={"epochs": 20})
    draw(tmp_path / "asked", "8", 4)
    (tmp_path / "asked/dark").rename(tmp_path / "asked/of no class")
    shutil.copytree(tmp_path / "asked/light", tmp_path / "asked/dark")
    rows = task.asked(tmp_path / "asked")
    assert {row["true"]: row["class_1"] for row in rows} == {"dark": "light", "light": "light", None: "dark"}
    expected = []
    for row in rows:
        said = f"{row['class_1']} {row['probability_1']:.0%}"
        wrong = row["true"] not in {row["class_1"], None}
        colour = "#000000" if row["true"] is None else WRONG if wrong else RIGHT
        expected.append((f"✗ {said}\nis dark" if wrong else said, colour))
    assert said_on(task.sheet) == expected
    task.asked(tmp_path / "asked/of no class")
    assert {colour for _, colour in said_on(task.sheet)} == {"#000000"}


@pytest.mark.parametrize(
    ("problem", "target", "row", "told", "verdict"),
    [
        ("classification", Classes(classes=["a", "b"]), {"class_1": "a"}, "a", (True, "a")),
        ("classification", Classes(classes=["a", "b"]), {"class_1": "a"}, "new", (False, "new")),
        ("multilabel", Labels(labels=["b", "a"], separator="|"), {"labels": "b|a"}, {"a", "b", "new"}, (True, "b, a")),
        ("multilabel", Labels(labels=["b", "a"]), {"labels": ""}, ["a"], (False, "a")),
        ("multilabel", Labels(labels=["b", "a"]), {"labels": "b"}, [], (False, "none")),
        ("regression", Number(mean=0.0, std=1.0, name="n"), {"n": 1.0}, 1.0, None),
    ],
)
def test_what_is_right(problem: str, target: Any, row: dict[str, Any], told: Any, verdict: Any) -> None:
    info = ImageInfo(shape=[1, 8, 8], mean=[0.5], std=[0.5], target=target)
    assert problem_of(problem).verdict(row, told, info) == verdict


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
    colours = [colour for _, colour in said_on(task.sheet)][::2]
    assert colours == [RIGHT if row["class_1"] == row["true"] else WRONG for row in rows][: len(colours)]


def of_names(folder: Path, **told: Any) -> tuple[dict[str, Any], Path]:
    whistles(folder / "named", 30)
    for number, name in enumerate(("low_eve_x.wav", "deep_eve_1.wav", "what.wav")):
        save(folder / "asked" / name, tone(300.0, 0.1, seed=number))
    return {"files": str(folder / "named"), "names": "{height}_{speaker}_{take}", **told}, folder / "asked"


def of_folders(folder: Path) -> tuple[dict[str, Any], Path]:
    for row in whistles(folder / "all", 30):
        (folder / "own" / row["height"]).mkdir(parents=True, exist_ok=True)
        (folder / "all" / row["sound"]).rename(folder / "own" / row["height"] / row["sound"])
    return {"files": str(folder / "own")}, folder / "own"


@pytest.mark.parametrize(
    "told",
    [
        "class",
        pytest.param("number", marks=pytest.mark.long),
        pytest.param("folder", marks=pytest.mark.long),
    ],
)
def test_sounds_are_judged_as_training_was_told(tmp_path: Path, told: str) -> None:
    """By a part of the name, which may be a class or a number, or by the folder."""
    block, files = {
        "class": lambda: of_names(tmp_path, target="height"),
        "number": lambda: of_names(tmp_path, target="take", target_type="number"),
        "folder": lambda: of_folders(tmp_path),
    }[told]()
    config = SoundFilesPreprocessConfig.model_validate(block)
    prepared = sounds.preprocess(sounds.find(config), config, tmp_path)
    problem = "regression" if told == "number" else "classification"
    task = Trained(tmp_path, prepared, {"name": "audio_cnn", "widths": [4]}, problem)
    rows = task.asked(files)
    truth = {"class": {"low_eve_x.wav": "low"}, "number": {"deep_eve_1.wav": 1.0}}.get(
        told, {row["file"]: Path(row["file"]).parent.name for row in rows}
    )
    assert {row["file"]: row["true"] for row in rows if row["true"] is not None} == truth
    assert task.scores["samples"] == len(truth)


def draw_pairs(folder: Path, count: int, suffix: str = "") -> list[dict[str, str]]:
    """Pictures in image/ and their masks in label/, and a row for each; some masks are twice as large."""
    generator, rows = np.random.default_rng(count), []
    for number in range(count):
        mask = np.zeros((16, 24), dtype=np.uint8)
        mask[2 + number % 4 : 12, 2 + number % 6 : 14] = 255
        mask[14:, :3] = 100  # ignored
        pixels = {"image": 60 + mask // 2 + generator.integers(0, 40, mask.shape, dtype=np.uint8), "label": mask}
        rows.append({place: f"{place}/{number:02}{suffix if place == 'label' else ''}.png" for place in pixels})
        for place, values in pixels.items():
            (folder / place).mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(values)
            double = place == "label" and number % 2
            (picture.resize((48, 32), Image.Resampling.NEAREST) if double else picture).save(folder / rows[-1][place])
    return rows


@pytest.mark.parametrize("form", ["folders", "table"])
def test_pictures_with_masks_are_judged(tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    rows = {
        split: draw_pairs(tmp_path / "own" / split, count, "_mask") for split, count in {"train": 9, "test": 6}.items()
    }
    files = {split: str(tmp_path / "own" / split / "pairs.csv") for split in rows}
    block: dict[str, Any] = {"files": str(tmp_path / "own"), "ignore": [100], "size": [16, 16], "fit": "pad"}
    if form == "table":
        given = [
            {**{name: f"{split}/{path}" for name, path in row.items()}, "set": split}
            for split, part in rows.items()
            for row in part
        ]
        block |= {"files": str(write(tmp_path / "own/all.csv", given)), "mask": "label"}
        block |= {"split_by": {"column": "set"}}
        for split, part in rows.items():
            write(Path(files[split]), part)
    else:
        files = {split: str(tmp_path / "own" / split) for split in rows}
    config = PicturesPreprocessConfig.model_validate(block)
    prepared = pictures.preprocess(pictures.find(config), config, tmp_path)
    task = Trained(tmp_path, prepared, {"name": "unet", "width": 2, "depth": 1}, "segmentation")
    answers = task.asked(Path(files["test"]))
    assert [row["file"] for row in answers] == [f"image/{number:02}.png" for number in range(6)]
    assert task.scores.keys() == {"accuracy", "mean_iou", "mean_dice", "samples"}
    assert_as_measured(task, 6)
    assert 0.1 < task.scores["accuracy"] < 1
    if form == "folders":
        below_a_folder_of_that_name(task, tmp_path / "own/test", tmp_path / "below")
    # pictures alone are answered as before, a mask that cannot be read is told, and one that is missing is none
    task.asked(tmp_path / "own/test/image")
    assert task.scores == {}
    (tmp_path / "own/test/label/00_mask.png").write_bytes(b"no picture")
    (tmp_path / "own/test/label/01_mask.png").unlink()
    assert len(task.asked(Path(files["test"]))) == 6
    wrong = "1 picture" if form == "folders" else "2 pictures"
    assert f"the masks of {wrong} cannot be judged: " in caplog.text
    assert 0 < task.scores["accuracy"] < 1


def below_a_folder_of_that_name(task: Trained, source: Path, below: Path) -> None:
    """They are found there, too; and of two masks of one name neither is taken for the one."""
    shutil.copytree(source, below / "label")
    answers = task.asked(below)
    assert [row["file"] for row in answers] == [f"label/image/{number:02}.png" for number in range(6)]
    assert_as_measured(task, 6)
    (below / "label/label/00.png").write_bytes((below / "label/label/01_mask.png").read_bytes())
    with pytest.raises(
        InputError, match=r"label/00\.png and label/label/00_mask\.png have one name in common\. Rename"
    ):
        task.asked(below)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["image/1.png", "label/1_mask.png", "label/2.png"], {"image/1.png": "label/1_mask.png"}),
        (["1.png", "label/1.png"], {"1.png": "label/1.png"}),
        (["label/image/1.png", "label/label/1.png"], {"label/image/1.png": "label/label/1.png"}),
        (["image/a/image/1.png", "label/a/label/1.png"], {"image/a/image/1.png": "label/a/label/1.png"}),
        (
            ["label/image/1.png", "image/1.png", "label/1.png"],
            {"label/image/1.png": None, "image/1.png": "label/1.png"},
        ),
        (["label/a/1.png", "label/a/2.png"], {"label/a/1.png": None, "label/a/2.png": None}),
    ],
)
def test_masks_lie_in_the_innermost_folder_of_their_name(names: list[str], found: dict[str, str | None]) -> None:
    assert beside(Listing(folder="own", names=names, stamps=[]), "image", "label") == found


def test_what_a_place_says() -> None:
    animals = Classes(classes=["cat", "dög"], name="class", folders=True)
    assert animals.at("test/cat/1.png") == animals.at("cat/cat/dog/dög.png") == {"class": "cat"}
    assert animals.at("cat/dög/cat.png") is None  # one in the other
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
