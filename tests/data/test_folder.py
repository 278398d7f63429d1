import os
import resource
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import kedro_run
from torchloom.config import AugmentConfig, DataConfig, FolderPreprocessConfig, SplitFolders
from torchloom.config.checks import check_parameters
from torchloom.data.batches import StreamedBatches, continue_epoch, drawn, start_epoch
from torchloom.data.class_folders import class_roots, split_named
from torchloom.data.picture_formats import ENDINGS as ENDINGS_OF_FORMATS
from torchloom.data.pictures import decode_image
from torchloom.data.readers import folder as reader
from torchloom.data.readers.folder import split_pictures
from torchloom.datasets.listing import Listing, ListingDataset, scan
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.modalities import read_info
from torchloom.pipelines import preparation, training
from torchloom.records.running import _readers
from torchloom.runner import SkipUnchanged
from torchloom.training.loaders import LoaderPlan, TensorFile

COLOURS = {"blue": (40, 60, 200), "green": (30, 180, 60), "red": (210, 50, 40)}
ENDINGS = ["png", "jpg", "webp", "JPEG", "bmp", "gif"]
SPLITS = ("train", "validation", "test")


def draw(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    """A noisy picture of some size, every fourth one grey or transparent where the format can."""
    generator = np.random.default_rng(seed)
    height, width = generator.integers(9, 40, 2)
    pixels = generator.normal(colour, 30, (height, width, 3)).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    if seed % 4 == 3:
        picture = picture.convert("RGBA" if path.suffix in {".png", ".webp"} else "L")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def draw_class_folders(folder: Path, count: int, seed: int = 0) -> Path:
    """`count` pictures for each colour, in class folders."""
    for number, (name, colour) in enumerate(COLOURS.items()):
        for index in range(count):
            place = seed + 1000 * number + index
            draw(folder / name / f"{index:02d}.{ENDINGS[place % len(ENDINGS)]}", colour, place)
    return folder


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    folder = draw_class_folders(tmp_path / "colours", 20)
    (folder / "red" / "more").mkdir()
    draw(folder / "red" / "more" / "deep.png", COLOURS["red"], 5)
    (folder / "LICENSE.txt").write_text("free")
    (folder / "red" / ".hidden.png").write_bytes(b"")
    return folder


def prepared(folder: Path, target: Path, **settings: Any) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """The splits as the catalog would load them, and the info."""
    config = FolderPreprocessConfig(folder=str(folder), **{"size": [16, 12], **settings})
    target.mkdir(exist_ok=True)
    *tensors, info = reader.preprocess(reader.find(config), config, target)
    splits = {}
    for name, part in zip(SPLITS, tensors, strict=True):
        dataset = TensorsDataset(filepath=str(target / f"{name}.safetensors"))
        dataset.save(part)
        splits[name] = dataset.load()
    return splits, info


def planned(splits: dict[str, Tensors], info: dict[str, Any], data: DataConfig, together: bool = False) -> LoaderPlan:
    files = {
        name: [TensorFile(path=part.path, fingerprint=part.fingerprint, length=len(part.arrays["labels"]))]
        for name, part in splits.items()
    }
    if together:
        files |= {"train": [*files["train"], *files["validation"]], "validation": []}
    return LoaderPlan(splits=files, info=read_info(info), data=data, batch_size=8, evaluate_batch_size=5, seed=3)


# ---- which pictures there are --------------------------------------------------------------------------------------


def listing(*names: str) -> Listing:
    return Listing(folder="/pictures", names=sorted(names), stamps=[(1, 1)] * len(names))


def test_what_has_no_folder_is_cut_from_each_class(flat: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = FolderPreprocessConfig(folder=str(flat), test_fraction=0.2, validation_fraction=0.25)
    found = reader.find(config)
    assert len(found.names) == 61
    assert "61 pictures; 1 other file ignored: 1 .txt" in caplog.text
    classes, parts = split_pictures(found, config)
    assert classes == ["blue", "green", "red"]
    assert {name: np.bincount(part.arrays["labels"]).tolist() for name, part in parts.items()} == {
        "train": [12, 12, 13],
        "validation": [4, 4, 4],
        "test": [4, 4, 4],
    }
    places = np.concatenate([part.places for part in parts.values()])
    assert sorted(places) == list(range(61))
    for part in parts.values():
        assert [found.names[place].split("/")[0] for place in part.places] == [
            classes[n] for n in part.arrays["labels"]
        ]
    other = split_pictures(found, config.model_copy(update={"seed": 1}))[1]
    assert set(other["test"].places) != set(parts["test"].places)


FOLDERS_OF_SPLITS = [
    ("train", "val", "test"),
    ("Training", "Validation", "Testing"),
    ("TRAIN", "VALID", "TEST"),
    ("seg_train", "seg_dev", "seg_test"),
    ("train_set", "dev set", "hold-out"),
    ("Train Images", "val_data", "evaluation"),
    ("seg_train/seg_train", "validation/valid", "test_set/test_set"),
    ("wrapper/data/train", "wrapper/data/val", "wrapper/data/eval"),
]


@pytest.mark.parametrize("folders", FOLDERS_OF_SPLITS)
def test_folders_of_the_splits_are_known_by_their_usual_names(folders: tuple[str, str, str], tmp_path: Path) -> None:
    for split, count in zip(folders, (5, 4, 3), strict=True):
        draw_class_folders(tmp_path / split, count)
    config = FolderPreprocessConfig(folder=str(tmp_path))
    classes, parts = split_pictures(reader.find(config), config)
    assert classes == sorted(COLOURS)
    assert {name: np.bincount(part.arrays["labels"]).tolist() for name, part in parts.items()} == {
        "train": [5, 5, 5],
        "validation": [4, 4, 4],
        "test": [3, 3, 3],
    }


@pytest.mark.parametrize(
    "name", ["trainer", "bullet_train", "contest", "validity", "developer", "set", "data", "images"]
)
def test_other_names_are_none_of_splits(name: str) -> None:
    assert split_named(name) is None


def pictures(*folders: str, count: int = 9) -> list[str]:
    return [f"{folder}/{number}.png" for folder in folders for number in range(count)]


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (pictures("plane", "train"), ["plane", "train"]),  # a folder of pictures may be a class
        (pictures("plane", "test", "train"), ["plane", "test", "train"]),
        (pictures("archive/plane", "archive/ship"), ["plane", "ship"]),  # as in archives
        (pictures("a/b/plane", "a/b/ship/big", "a/b/ship/small"), ["plane", "ship"]),
        (pictures("cat/images", "dog/images"), ["cat", "dog"]),  # read the other way it is one class
        (pictures("cat/in", "cat/out", "dog/in", "dog/far"), ["cat", "dog"]),
    ],
)
def test_what_the_classes_are_without_splits(names: list[str], classes: list[str]) -> None:
    found, parts = split_pictures(listing(*names), FolderPreprocessConfig(folder="pictures"))
    assert found == classes
    assert all(
        (np.bincount(parts[name].arrays["labels"], minlength=len(classes)) > 0).all() for name in ("train", "test")
    )
    assert sum(len(part.places) for part in parts.values()) == len(names)


TWO_READINGS = pictures("first/cat", "first/dog", "second/cat", "second/dog", "second/extra")


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({}, {"first": 18, "second": 27}),
        ({"train": "second", "validation": "./first"}, {"cat": 18, "dog": 18, "extra": 9}),
    ],
)
def test_two_readings_are_told_apart_by_saying_which_is_meant(splits: Any, expected: Any) -> None:
    found = listing(*TWO_READINGS)
    with pytest.raises(InputError) as caught:
        class_roots(found)
    assert caught.value.message == (
        "/pictures: its folders first, second all hold cat, dog, which can be read in two ways. Either the classes are "
        "cat, dog, and first, second the splits: preprocess.splits: {train: first, test: second}. Or the classes are "
        "first, second, with all that is below them: preprocess.splits: {}"
    )
    config = FolderPreprocessConfig.model_validate({"folder": "pictures", "splits": splits})
    classes, parts = split_pictures(found, config)
    labels = np.concatenate([part.arrays["labels"] for part in parts.values()])
    assert dict(zip(classes, np.bincount(labels), strict=True)) == expected
    if splits:
        assert {found.names[place][:6] for place in parts["validation"].places} == {"first/"}
        assert len(parts["validation"].places) == 18


@pytest.mark.parametrize(
    ("names", "splits", "message"),
    [
        (
            pictures("test/x", "test/y", "val/x"),
            None,
            "test, val: by their names these are splits, and there is none",
        ),
        (pictures("x", "y", "test/x", "test/y"), None, "test: by their names these are splits, and there is none to"),
        (pictures("train/x", "train/y", "Training/x"), None, "Training and train are both names of the train split"),
        (pictures("train/x", "test/x", "eval/x"), None, "eval and test are both names of the test split"),
        (
            pictures("x/train", "x/test", "y/train", "y/test"),
            None,
            "(test, train) lie inside the classes (x, y). Put",
        ),
        (
            pictures("x", "y"),
            {"train": "z"},
            "preprocess.splits.train z: is no folder with class folders of pictures in",
        ),
        (pictures("a/x", "a/y", "b"), {"train": "b"}, "in /pictures; such are a/"),
        (
            pictures("a/x", "a/y"),
            {"train": "a", "test": "a"},
            "splits.test a: lies in another split's folder, or is the",
        ),
    ],
)
def test_folders_that_can_be_no_splits_are_refused(names: list[str], splits: Any, message: str) -> None:
    config = FolderPreprocessConfig.model_validate({"folder": "pictures", "splits": splits})
    with pytest.raises(InputError) as caught:
        class_roots(listing(*names), config.splits)
    assert message in caught.value.message
    assert splits is not None or "preprocess.splits" in caught.value.message


def test_pictures_outside_of_the_splits_that_are_given_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As where Kaggle has pictures without classes, in a folder that cannot be changed."""
    for split in ("seg_train/seg_train", "seg_test/seg_test"):
        draw_class_folders(tmp_path / split, 4)
    draw(tmp_path / "seg_pred" / "seg_pred" / "1.png", COLOURS["red"], 1)
    with pytest.raises(
        InputError, match=r"in no class folder inside seg_test/seg_test/ or .*: seg_pred/.*splits: {train"
    ):
        reader.find(FolderPreprocessConfig(folder=str(tmp_path)))
    config = FolderPreprocessConfig.model_validate(
        {"folder": str(tmp_path), "splits": {"train": "seg_train", "test": "seg_test"}}
    )
    classes, parts = split_pictures(reader.find(config), config)
    assert "1 pictures outside of preprocess.splits are left out" in caplog.text
    assert classes == sorted(COLOURS)
    assert len(parts["test"].arrays["labels"]) == 12
    only = config.model_copy(update={"splits": SplitFolders(train="seg_train")})
    assert sum(len(part.arrays["labels"]) for part in split_pictures(reader.find(only), only)[1].values()) == 12


def test_a_name_is_one_class_whichever_way_its_accents_are_written() -> None:
    one, other = (normalize(form, "café") for form in ("NFC", "NFD"))
    names = [*pictures(f"train/{one}", "train/bar"), *pictures(f"test/{other}", "test/bar")]
    classes, parts = split_pictures(listing(*names), FolderPreprocessConfig(folder="pictures"))
    assert classes == ["bar", one]
    assert np.bincount(parts["test"].arrays["labels"]).tolist() == [9, 9]
    classes, _ = split_pictures(listing(*pictures(one, other, "bar")), FolderPreprocessConfig(folder="pictures"))
    assert classes == ["bar", one]


def test_names_that_differ_in_case_are_two_classes() -> None:
    names = pictures("train/Cat", "train/dog", "train/E", "train/e", "test/cat", "test/dog", "test/E", "test/e")
    with pytest.raises(
        InputError, match=r"train data hold no picture of 'cat' \('Cat' and 'cat' are two classes\); ever"
    ):
        split_pictures(listing(*names), FolderPreprocessConfig(folder="pictures"))


def test_a_class_of_three_pictures_takes_no_other_fractions() -> None:
    names = [*pictures("many", count=100), *pictures("few", count=3), *pictures("two", count=2)]
    classes, parts = split_pictures(listing(*names), FolderPreprocessConfig(folder="pictures"))
    assert classes == ["few", "many", "two"]
    assert {name: np.bincount(part.arrays["labels"], minlength=3).tolist() for name, part in parts.items()} == {
        "train": [2, 81, 1],
        "validation": [0, 9, 0],
        "test": [1, 10, 1],
    }


LEFT_BY_SYSTEMS = [
    "__MACOSX/colours/red/._00.png", "__MACOSX/red/00.png", ".DS_Store", "red/.DS_Store", "red/._00.png", "Thumbs.db",
    "red/THUMBS.DB", "desktop.ini", "red/.ipynb_checkpoints/00-checkpoint.png", ".ipynb_checkpoints/00.png",
    "red/@eaDir/00.png/SYNOPHOTO_THUMB_M.jpg", "@eaDir/thumb.jpg", "$RECYCLE.BIN/S-1/00.png", "lost+found/00.png",
    "System Volume Information/IndexerVolumeGuid", ".Trash-1000/files/00.png", "green/Icon\r",
]  # fmt: skip


def test_what_systems_leave_in_folders_is_not_the_users(flat: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = FolderPreprocessConfig(folder=str(flat))
    before = reader.find(config)
    for name in LEFT_BY_SYSTEMS:
        (flat / name).parent.mkdir(parents=True, exist_ok=True)
        (flat / name).write_bytes(b"\0\x05\x16\x07")
    (flat / "__MACOSX" / "empty").mkdir()
    caplog.clear()
    assert reader.find(config) == before
    assert scan(flat, "predict.files").names == sorted([*before.names, "LICENSE.txt"])
    assert "61 pictures; 1 other file ignored: 1 .txt" in caplog.text


def test_links_to_folders_are_said_to_be_skipped(flat: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw(tmp_path / "elsewhere" / "0.png", COLOURS["red"], 0)
    (flat / "red" / "linked").symlink_to(tmp_path / "elsewhere")
    (flat / "red" / "lost.png").symlink_to(tmp_path / "nothing.png")
    (flat / "red" / "one.png").symlink_to(tmp_path / "elsewhere" / "0.png")
    config = FolderPreprocessConfig(folder=str(flat))
    found = reader.find(config)
    said = f"{flat}: links to folders, and to nothing, are skipped: red/linked, red/lost.png"
    assert said in caplog.messages
    assert len(found.names) == 62
    (flat / "blau").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        InputError, match=r"class folders without a picture: blau \(links to folders are not followed\)"
    ):
        reader.find(config)


@pytest.mark.parametrize("kind", ENDINGS_OF_FORMATS)
def test_every_ending_of_a_format_is_trained_on_as_it_is_predicted(kind: str, tmp_path: Path) -> None:
    Image.init()
    known = {ending for ending, name in Image.registered_extensions().items() if name == kind}
    assert known <= set(ENDINGS_OF_FORMATS[kind])
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8))
    for ending in [*ENDINGS_OF_FORMATS[kind], ENDINGS_OF_FORMATS[kind][0].upper()]:
        (tmp_path / "a").mkdir(exist_ok=True)
        saved = picture.convert("F") if ending == ".pfm" else picture
        saved.save(tmp_path / "a" / f"{ending[1:]}{ending}", kind)
    draw(tmp_path / "b" / "0.png", COLOURS["red"], 0)
    found = reader.find(FolderPreprocessConfig(folder=str(tmp_path)))
    assert len(found.names) == len(ENDINGS_OF_FORMATS[kind]) + 2
    for path in found.paths:
        if path.suffix != ".pfm":  # of 32 bits
            with path.open("rb") as file:
                decode_image(file, (3, 9, 9))


def test_the_log_names_the_classes_and_their_counts(
    flat: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepared(flat, tmp_path / "cache", size=[2, 2])
    for said in ("train: 49 in 3 classes: blue 16, green 16, red 17", "test: 6 in 3 classes: blue 2, green 2, red 2"):
        assert said in caplog.messages


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.png", "b.txt"], "has no subfolders with pictures. Make one for each class, by its name"),
        (["x/a.png", "y/b.png", "c.png"], "in no class folder: c.png. Move them there, or out of this folder"),
        (["train/x/a.png", "train/y/a.png", "test/1.png", "test/2.png"], "train/: test/1.png, test/2.png. Move"),
        (["train/x/a.png", "train/y/a.png", "more/x/a.png"], "in no class folder inside train/: more/x/a.png. Move"),
        (["train/a.png", "test/b.png"], "in no class folder inside test/ or train/: test/b.png, train/a.png. Move"),
        (["train/x/a.png", "train/y/a.png", "test/x/a.txt"], "without a picture: test, which holds .txt (links"),
        (["x/a.png", "y/b.txt"], "without a picture: y, which holds .txt (links"),
        (["train/x/a.png", "test/x/a.png", "test/y/a.txt"], "without a picture: test/y, which holds .txt (links"),
        (["b.txt"], "the folder holds no files of the kinds .apng, .bmp, .gif, "),
        ([], "the folder holds no files of the kinds .apng, .bmp, .gif, "),
    ],
)
def test_a_folder_that_is_not_in_order_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError) as caught:
        reader.find(FolderPreprocessConfig(folder=str(tmp_path)))
    assert str(tmp_path) in caught.value.message
    assert message in caught.value.message


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_what_is_no_folder_is_refused(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "pictures.png"
    if kind == "file":
        place.write_bytes(b"")
    message = "there is no such file or folder" if kind == "missing" else "is a file, not a folder"
    with pytest.raises(InputError, match=message):
        reader.find(FolderPreprocessConfig(folder=str(place)))


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (["x/a.png", "x/b.png"], {}, "has one class only, 'x'; to classify takes two folders or more"),
        (["train/x/a.png", "train/y/a.png", "test/z/a.png"], {}, "the train data hold no picture of 'z'; every class"),
        (["train/x/a.png", "train/y/a.png", "test/x/a.png"], {}, "the test data hold no picture of 'y'"),
        (
            ["x/1.png", "y/1.png"],
            {},
            "the test data hold no picture of 'x', 'y'; .* takes two pictures, and preprocess.t",
        ),
        (
            ["x/1.png", "x/2.png", "y/1.png", "y/2.png"],
            {"test_fraction": 0.0},
            "the test data hold no picture of 'x', 'y'",
        ),
    ],
)
def test_a_class_that_cannot_be_learnt_or_judged_is_refused(
    names: list[str], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        split_pictures(listing(*names), FolderPreprocessConfig(folder="pictures", **settings))


def test_the_listing_knows_when_a_picture_changes(flat: Path, tmp_path: Path) -> None:
    dataset = ListingDataset(filepath=str(tmp_path / "listing.json"))
    dataset.save(reader.find(FolderPreprocessConfig(folder=str(flat))))
    first = dataset.fingerprint()
    (flat / "LICENSE.txt").write_text("not free")
    assert dataset.fingerprint() == first
    os.utime(next(flat.glob("red/00.*")), (1, 1))
    assert dataset.fingerprint() != first


# ---- decoding ------------------------------------------------------------------------------------------------------


def test_pixels_are_those_that_predict_sees(flat: Path, tmp_path: Path) -> None:
    splits, info = prepared(flat, tmp_path / "cache", fit="pad")
    found = reader.find(FolderPreprocessConfig(folder=str(flat)))
    _, parts = split_pictures(found, FolderPreprocessConfig(folder=str(flat)))
    assert info["shape"] == [3, 16, 12]
    for name, part in parts.items():
        images = splits[name].arrays["images"]
        assert images.shape == (len(part.places), 16, 12, 3)
        for pixels, place in zip(images, part.places, strict=True):
            with (flat / found.names[place]).open("rb") as file:
                np.testing.assert_array_equal(pixels.numpy().transpose(2, 0, 1), decode_image(file, (3, 16, 12), "pad"))
    scaled = splits["train"].arrays["images"].numpy() / 255
    np.testing.assert_allclose(info["mean"], scaled.mean((0, 1, 2)), atol=1e-9)
    np.testing.assert_allclose(info["std"], scaled.std((0, 1, 2)), atol=1e-9)
    assert sum(info["images"]["validation"].values()) == len(splits["validation"].arrays["labels"])


DEEP = [  # values of the training pictures, the range that follows
    (np.array([1090, 1240], np.uint16), [0, 4095]),
    (np.array([0, 255], np.uint16), [0, 255]),
    (np.array([3, 65_535], np.uint16), [0, 65_535]),
    (np.array([0.25, 0.75], np.float32), [0, 1]),
    (np.array([7, 900], np.float32), [0, 1023]),
    (np.array([-0.5, 2.5], np.float32), [-0.5, 2.5]),
    (np.array([-1000, 2000], np.int32), [-1000, 2000]),
    (np.array([5.5, 5.5], np.float32), [5.5, 6.5]),
]


@pytest.mark.parametrize(("values", "expected"), DEEP)
@pytest.mark.parametrize("cache", ["always", "never"])
def test_what_is_black_and_white_is_measured_on_the_training_pictures(
    tmp_path: Path, values: np.ndarray, expected: list[float], cache: str
) -> None:
    for split, name, number in product(("train", "test"), ("a", "b"), range(4)):
        place = tmp_path / "own" / split / name / f"{number}.tif"
        place.parent.mkdir(parents=True, exist_ok=True)
        beyond = 2 if split == "test" else 1  # which does not count
        Image.fromarray(np.repeat(values, 96).reshape(16, 12) * values.dtype.type(beyond)).save(place)
    splits, info = prepared(tmp_path / "own", tmp_path / "cache", cache=cache, channels=1, validation_fraction=0.25)
    assert info["value_range"] == expected
    assert (info["fit"], read_info(info).value_range) == ("crop", expected)  # type: ignore[union-attr]
    black, white = expected
    pixels = planned(splits, info, DataConfig()).first("train", 1)[0][0, 0]
    found = sorted(set(pixels.flatten().tolist()))
    assert found == sorted({min(255, int(256 * (value - black) / (white - black))) for value in values.tolist()})


def test_what_is_black_and_white_may_be_given(tmp_path: Path) -> None:
    for name, number in product(("a", "b"), range(4)):
        (tmp_path / "own" / name).mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(1000, 1200, (16, 12), dtype=np.uint16)
        Image.fromarray(values).save(tmp_path / "own" / name / f"{number}.png")
    settings: dict[str, Any] = {"channels": 1, "test_fraction": 0.25, "validation_fraction": 0.0}
    _, info = prepared(tmp_path / "own", tmp_path / "cache", value_range=[1000, 1200], **settings)
    assert info["value_range"] == [1000, 1200]
    assert info["std"][0] == pytest.approx(1 / np.sqrt(12), rel=0.1)  # from black to white, all alike


def test_pictures_of_eight_bits_have_no_range(flat: Path, tmp_path: Path) -> None:
    assert prepared(flat, tmp_path / "cache")[1]["value_range"] is None


DATA = [
    DataConfig(augment=AugmentConfig(crop_padding=2, flip="alternating"), subset=30),
    DataConfig(),
]


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_streamed_pictures_are_those_of_the_cache(
    flat: Path, tmp_path: Path, data: DataConfig, together: bool, channels: int
) -> None:
    made = [prepared(flat, tmp_path / cache, cache=cache, channels=channels) for cache in ("always", "never")]
    assert made[0][1] == made[1][1]
    assert "images" not in made[1][0]["train"].arrays
    plans = [planned(splits, info, data, together) for splits, info in made]
    for split in SPLITS[: 1 if together else 3]:
        cached, streamed = (plan.loader(split) for plan in plans)
        assert isinstance(streamed, StreamedBatches)
        assert len(cached) == len(streamed) > 0
        for epoch in (0, 1):
            start_epoch(cached, epoch)
            start_epoch(streamed, epoch)
            for batch, other in zip(cached, streamed, strict=True):
                assert torch.equal(batch[0], other[0])
                assert torch.equal(batch[1], other[1])
    for one, other in zip(*(plan.first("test", 4) for plan in plans), strict=True):
        assert torch.equal(one, other)


def test_a_stream_goes_on_in_the_middle_of_an_epoch(flat: Path, tmp_path: Path) -> None:
    plan = planned(*prepared(flat, tmp_path / "cache", cache="never"), DATA[0])
    loader = plan.loader("train")
    start_epoch(loader, 1)
    batches, states = [], []
    for batch in loader:
        batches.append(batch)
        states.append(drawn(loader))
    again = plan.loader("train")
    start_epoch(again, 1)
    continue_epoch(again, 2, states[1])
    for batch, other in zip(batches[2:], again, strict=True):
        assert torch.equal(batch[0], other[0])
        assert torch.equal(batch[1], other[1])


@pytest.mark.parametrize("change", ["touched", "gone"])
def test_a_picture_that_is_not_as_it_was_ends_the_stream(flat: Path, tmp_path: Path, change: str) -> None:
    plan = planned(*prepared(flat, tmp_path / "cache", cache="never"), DataConfig())
    for path in flat.glob("green/*"):
        if change == "gone":
            path.unlink()
        else:
            os.utime(path, (1, 1))
    message = "has changed since it was listed" if change == "touched" else r"cannot be read \(No such file"
    with pytest.raises(InputError, match=rf"green/\d\d\..*: {message}.*from find_files on"):
        list(plan.loader("train"))


def test_pixels_that_are_not_kept_cannot_lie_on_the_device(flat: Path, tmp_path: Path) -> None:
    plan = planned(*prepared(flat, tmp_path / "cache", cache="never"), DataConfig(on_device=True))
    with pytest.raises(InputError, match=r"data\.on_device: .* set preprocess\.cache: always"):
        plan.loader("train")


@pytest.mark.parametrize("cache", ["always", "never"])
def test_unreadable_pictures_are_named_or_left_out(
    flat: Path, tmp_path: Path, cache: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken = sorted(flat.glob("*/*1.*"))
    for path in broken:
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError) as caught:
        prepared(flat, tmp_path / "cache", cache=cache)
    first, *lines, last = caught.value.message.splitlines()
    assert first == f"{len(broken)} of 61 pictures cannot be read:"
    assert lines[-1] == f"  and {len(broken) - 5} more"
    assert all(line.startswith(f"  {path}: is ") for path, line in zip(broken[:5], lines, strict=False))
    assert last == "Remove or mend them, or set preprocess.skip_unreadable: true to leave them out"

    splits, info = prepared(flat, tmp_path / "cache", cache=cache, skip_unreadable=True)
    assert "They are left out" in caplog.text
    assert sum(len(part.arrays["labels"]) for part in splits.values()) == 61 - len(broken)
    assert sum(len(batch[1]) for batch in planned(splits, info, DataConfig()).loader("test")) == sum(
        info["images"]["test"].values()
    )


def test_an_empty_file_is_said_to_be_empty(flat: Path, tmp_path: Path) -> None:
    (flat / "red" / "nothing.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 of 62 pictures cannot be read:\n.*red/nothing\.png: is empty\n"):
        prepared(flat, tmp_path / "cache")


def test_what_counts_is_what_a_file_holds_and_not_its_ending(flat: Path, tmp_path: Path) -> None:
    draw(tmp_path / "0.png", COLOURS["red"], 0)
    (tmp_path / "0.png").rename(flat / "red" / "png.jfif")
    splits, _ = prepared(flat, tmp_path / "cache")
    assert sum(len(part.arrays["labels"]) for part in splits.values()) == 62


def test_a_class_of_unreadable_pictures_is_refused(flat: Path, tmp_path: Path) -> None:
    for path in flat.glob("blue/*"):
        path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="the train data hold no picture of 'blue'"):
        prepared(flat, tmp_path / "cache", skip_unreadable=True)


def test_pixels_are_kept_when_they_fit_on_the_disk(flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 61 * 16 * 12 * 3
    for free, kept in ((int(2 * needed / 0.8) + 2, True), (2 * needed, False)):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        splits, _ = prepared(flat, tmp_path / "cache")
        assert ("images" in splits["train"].arrays) == kept


@pytest.mark.parametrize("cache", ["always", "never"])
def test_a_split_may_be_empty(flat: Path, tmp_path: Path, cache: str) -> None:
    splits, info = prepared(flat, tmp_path / "cache", cache=cache, validation_fraction=0.0)
    assert set(info["images"]["validation"].values()) == {0}
    plan = planned(splits, info, DataConfig())
    assert len(list(plan.loader("validation"))) == 0
    assert len(list(plan.loader("test"))) > 0


def test_names_that_are_no_text_are_refused(flat: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(flat) + b"/red/\xff.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    with pytest.raises(InputError, match=r"names that are not in UTF-8: red/\\udcff\.png"):
        reader.find(FolderPreprocessConfig(folder=str(flat)))


def test_a_full_disk_leaves_nothing_behind(flat: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # bytes
    try:
        with pytest.raises(InputError, match=r"cannot be written \(File too large\).*preprocess\.cache: never"):
            prepared(flat, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "cache").iterdir()) == []


# ---- as a task -----------------------------------------------------------------------------------------------------

TASK = """
colours:
  preprocess: {folder: FOLDER, size: [16, 16], test_fraction: 0.3}
colours_mlp:
  task: {problem: classification, data: colours}
  data: {augment: {flip: true}}
  model: {name: mlp, hidden: [32]}
  train: {epochs: 3, batch_size: 8, optimizer: {name: Adam, lr: 0.01}, threads: 1}
  evaluate: {}
  export: {batch_sizes: [1, 3]}
"""


@pytest.fixture
def task(project: Path, flat: Path) -> Callable[..., Any]:
    """Runs the task `colours_mlp` on the drawn folder."""
    (project / "conf/base/parameters/colours_mlp.yml").write_text(TASK.replace("FOLDER", str(flat)))
    return lambda **options: kedro_run(project, "colours_mlp", **options)


@pytest.mark.long
def test_a_task_on_a_folder_is_made_anew_when_a_picture_changes(
    task: Callable[..., Any], project: Path, flat: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def ran(cache: str, **options: Any) -> set[str]:
        caplog.clear()
        options = {"to_nodes": ["colours_mlp.train"], **options}
        catalogs.append(task(runner=SkipUnchanged(), params={"colours": {"preprocess": {"cache": cache}}}, **options))
        starts = (record.getMessage().split(":") for record in caplog.records)
        return {parts[1].strip() for parts in starts if parts[0] == "Running node"}

    catalogs: list[Any] = []
    everything = {"find_files", "preprocess", "build_dataloaders", "train"}
    assert ran("always") == everything
    weights = catalogs[0].load("colours_mlp.checkpoint").weights
    assert ran("always") == set()
    assert ran("never") == everything
    again = catalogs[0].load("colours_mlp.checkpoint").weights
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    draw(flat / "green" / "new.png", COLOURS["green"], 1)
    assert ran("never", to_nodes=["colours.preprocess"]) == {"find_files", "preprocess"}
    assert {path.name for path in (project / "data/sample/03_primary/colours").iterdir()} == {
        *(f"{split}.safetensors" for split in SPLITS),
        "info.json",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folder": None}, "folder: not given; must be a valid string"),
        ({"size": 64}, "size: given 64; must be a valid list"),
        ({"size": [64]}, "size: given [64]; List should have at least 2 items"),
        ({"channels": 2}, "channels: given 2; must be 1 or 3"),
        (
            {"value_range": [4095, 0]},
            "value_range: given [4095, 0]; must be two numbers, [black, white]",
        ),
        ({"value_range": 12}, "value_range: given 12; must be a valid list"),
        ({"cache": "maybe"}, "cache: given 'maybe'; must be 'auto', 'always' or 'never'"),
        (
            {"sizes": [64, 64]},
            "sizes: unknown key (did you mean size?); allowed are cache, channels, credentials, fit, folder",
        ),
        ({"splits": {"test": "b"}}, "splits: given {'test': 'b'}; must say which folder is train, too"),
        ({"splits": {"train": "a", "tset": "b"}}, "splits.tset: unknown key (did you mean test?)"),
    ],
)
def test_a_wrong_parameter_is_named(change: dict[str, Any], message: str) -> None:
    given = {"colours": {"preprocess": {"folder": "colours", **change}}}
    with pytest.raises(InputError) as caught:
        check_parameters(given, {"colours.preprocess": FolderPreprocessConfig}, set())
    assert f"colours.preprocess.{message}" in caught.value.message


def test_a_folder_is_locked_while_tasks_read_it() -> None:
    learning = training.create_pipeline("colours_mlp", problem="classification", data="colours")
    whole = preparation.create_pipeline("colours", "folder") + learning
    assert _readers(whole) == {"colours": ["colours_mlp"]}


def test_a_data_set_may_have_the_name_of_one_of_our_modules() -> None:
    names = [node.name for node in preparation.create_pipeline("images", "folder").nodes]
    assert names == ["images.find_files", "images.preprocess"]
