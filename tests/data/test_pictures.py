"""Pictures that a table names, and pictures with masks: which there are, and what is to be told of them."""

import subprocess
import sys
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image

from tests.tables import Row, write
from torchloom.config import FolderPreprocessConfig, PicturesPreprocessConfig
from torchloom.data.masks import UNKNOWN, fitted, learn_coding, read_mask
from torchloom.data.readers import propose as proposed
from torchloom.data.readers.folder import find as find_classes
from torchloom.data.readers.folder import takes as takes_classes
from torchloom.data.readers.pictures import find, preprocess, preprocess_entry, propose, takes
from torchloom.data.targets import IGNORED, Classes, MaskCoding, Number
from torchloom.datasets.listing import ListingDataset
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.modalities import ImageInfo, read_info

RED, BLACK = (1 << 24) + 0xFF0000, 1 << 24
Prepared = tuple[Tensors, Tensors, Tensors, dict[str, Any]]


def draw(path: Path, grey: int, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey, grey, grey)).save(path)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Thirty pictures, each of the grey that its row says, beside other columns."""
    rows: list[Row] = []
    for number in range(30):
        draw(tmp_path / f"own/shots/{number}.png", 8 * number)
        kind = ["dark", "light"][number > 14]
        rows.append({"id": number, "kind": kind, "shot": f"shots/{number}.png", "grey": 8 * number, "who": number % 5})
    return write(tmp_path / "own/shots.csv", rows)


def configured(path: Path, **settings: Any) -> PicturesPreprocessConfig:
    return PicturesPreprocessConfig.model_validate({"files": str(path), "size": [8, 8], **settings})


def prepared(path: Path, scratch: Path, **settings: Any) -> Prepared:
    config = configured(path, **settings)
    return preprocess(find(config), config, scratch)


def greys(part: Tensors) -> list[int]:
    return [int(image[4, 4, 0]) for image in np.asarray(part.arrays["images"])]


# ---- what a table names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["always", "never"])
def test_a_class_for_each(table: Path, tmp_path: Path, cache: str) -> None:
    train, validation, test, known = prepared(table, tmp_path, target="kind", cache=cache)
    info = read_info(known)
    assert isinstance(info, ImageInfo)
    assert info.target == Classes(classes=["dark", "light"], name="kind")
    assert info.column == "shot"
    assert known["images"] == {
        "train": {"dark": 11, "light": 11},
        "validation": {"dark": 1, "light": 1},
        "test": {"dark": 3, "light": 3},
    }
    if cache == "always":
        parts = (train, validation, test)
        found = sorted(grey for part in parts for grey in greys(part))
        assert found == [8 * number for number in range(30)]
        for part in parts:
            assert [grey >= 8 * 15 for grey in greys(part)] == [bool(label) for label in part.arrays["labels"]]


def test_a_number_for_each(table: Path, tmp_path: Path) -> None:
    train, _, test, known = prepared(table, tmp_path, target="grey")
    assert isinstance(read_info(known).target, Number)
    assert known["images"] == {"train": 22, "validation": 2, "test": 6}
    for part in (train, test):
        assert part.arrays["target"].dtype == np.float32
        assert greys(part) == part.arrays["target"].tolist()


def test_somebody_is_held_out(table: Path, tmp_path: Path) -> None:
    *_, test, _ = prepared(table, tmp_path, target="kind", split_by={"column": "who", "test": [3]})
    assert sorted(greys(test)) == [8 * number for number in range(3, 30, 5)]


@pytest.mark.parametrize("form", ["without the ending", "windows", "absolute", "address", "another folder", "an entry"])
def test_paths_as_people_write_them(table: Path, tmp_path: Path, form: str) -> None:
    expected = prepared(table, tmp_path, target="grey")[0]
    frame = pandas.read_csv(table)
    settings: dict[str, Any] = {"target": "grey"}
    if form == "without the ending":
        frame["shot"] = frame["shot"].str.removesuffix(".png")
    elif form == "windows":
        frame["shot"] = ".\\" + frame["shot"].str.replace("/", "\\")
    elif form == "absolute":
        frame["shot"] = str(table.parent) + "/" + frame["shot"]
    elif form == "address":
        frame["shot"] = "s3://bucket/own/" + frame["shot"]
    else:
        frame["shot"] = frame["shot"].str.removeprefix("shots/")
        settings["folder"] = str(table.parent / "shots")
    if form == "an entry":
        config = PicturesPreprocessConfig.model_validate({"entry": "shots", "size": [8, 8], **settings})
        found = preprocess_entry(frame, config, tmp_path)[0]
    else:
        frame.to_csv(table, index=False)
        found = prepared(table, tmp_path, **settings)[0]
    assert greys(found) == greys(expected)


def test_the_listing_knows_when_the_table_or_a_picture_changes(table: Path, tmp_path: Path) -> None:
    dataset = ListingDataset(filepath=str(tmp_path / "listing.json"))
    dataset.save(find(configured(table, target="kind")))
    first = dataset.fingerprint()
    assert dataset.fingerprint() == first
    table.write_text(table.read_text().replace("dark", "dim", 1))
    second = dataset.fingerprint()
    draw(table.parent / "shots/0.png", 255, (20, 20))
    assert len({first, second, dataset.fingerprint()}) == 3


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({}, {}, "say which column is to be told .* 'id', 'kind', 'shot'|say which column is to be told"),
        ({}, {"target": "colour"}, "no such column in the train rows"),
        ({}, {"target": "kind", "picture": "path"}, r"preprocess\.picture path: there is no such column"),
        ({}, {"target": "kind", "picture": "shot", "mask": "shot"}, "a mask is learnt alone"),
        ({"shots/7.png": "shots/77.png"}, {"target": "kind"}, r"1 of the train rows .* not in .*own: shots/77\.png"),
        ({"shots/": "pictures/"}, {"target": "kind"}, "no column names pictures that are there"),
        ({"dark": "light"}, {"target": "kind"}, "is 'light' in every training row"),
    ],
)
def test_what_is_wrong_with_the_table(
    table: Path, tmp_path: Path, change: dict[str, str], settings: dict[str, Any], message: str
) -> None:
    text = table.read_text()
    for old, new in change.items():
        text = text.replace(old, new)
    table.write_text(text)
    with pytest.raises(InputError, match=message):
        prepared(table, tmp_path, **settings)


def test_what_is_not_there_may_be_left_out(table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (table.parent / "shots/0.png").unlink()
    (table.parent / "shots/1.png").write_bytes(b"no picture")
    parts = prepared(table, tmp_path, target="kind", skip_unreadable=True)[:3]
    assert sorted(grey for part in parts for grey in greys(part)) == [8 * number for number in range(2, 30)]
    assert "name pictures that are not in" in caplog.text
    assert "shots/0.png" in caplog.text


def test_a_picture_in_two_splits_is_told(table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table.write_text(table.read_text() + "".join(f"9{n},dark,shots/{n}.png,0,1\n" for n in range(5)))
    prepared(table, tmp_path, target="kind")
    assert "5 pictures in more than one row, 2 of them in more than one split: " in caplog.text


# ---- masks ---------------------------------------------------------------------------------------------------------


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> BytesIO:
    file = BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


NUMBERS = np.array([[0, 0, 1, 2], [0, 1, 1, 2]], dtype=np.uint8)
PALETTE = [10, 10, 10, 200, 0, 0, 0, 0, 255]
COLOURS = np.array([[10, 10, 10], [200, 0, 0], [0, 0, 255]], dtype=np.uint8)


def with_palette() -> Image.Image:
    image = Image.fromarray(NUMBERS, "P")
    image.putpalette(PALETTE)
    return image


@pytest.mark.parametrize(
    ("image", "values"),
    [
        (Image.fromarray(NUMBERS), NUMBERS),
        (with_palette(), NUMBERS),
        (Image.fromarray(np.stack([NUMBERS, np.full_like(NUMBERS, 255)], 2), "LA"), NUMBERS),
        (Image.fromarray(np.stack([NUMBERS] * 3, 2)), NUMBERS),
        (Image.fromarray(NUMBERS.astype(np.uint16) * 300), NUMBERS.astype(int) * 300),
        (Image.fromarray(NUMBERS > 0), (NUMBERS > 0) * 255),
        (Image.fromarray(COLOURS[NUMBERS]), np.array([0x0A0A0A, 0xC80000, 0x0000FF])[NUMBERS] + (1 << 24)),
    ],
    ids=["grey", "palette", "grey with alpha", "grey as colour", "16 bits", "1 bit", "colours"],
)
def test_what_a_mask_holds(image: Image.Image, values: np.ndarray) -> None:
    found = read_mask(encoded(image))
    assert found.values.tolist() == values.tolist()
    assert not found.lossy


def test_what_is_transparent_in_places_is_refused() -> None:
    alpha = np.full_like(NUMBERS, 255)
    alpha[0, 0] = 0
    with pytest.raises(InputError, match="is transparent in places"):
        read_mask(encoded(Image.fromarray(np.stack([NUMBERS, alpha], 2), "LA")))


@pytest.mark.parametrize(
    ("counts", "settings", "classes", "numbers"),
    [
        ({0: 90, 255: 10}, {}, ["0", "255"], {0: 0, 255: 1}),
        ({0: 90, 1: 10}, {}, ["0", "1"], {0: 0, 1: 1}),
        ({0: 50, 2: 20, 7: 30, 255: 5}, {}, ["0", "2", "7"], {0: 0, 2: 1, 7: 2, 255: IGNORED}),
        (
            {0: 5, 1: 3, 255: 2},
            {"classes": {"sky": 255, "rest": 0, "tree": 1}},
            ["sky", "rest", "tree"],
            {255: 0, 1: 2},
        ),
        ({0: 5, 1: 3, 9: 2}, {"ignore": [9]}, ["0", "1"], {0: 0, 1: 1, 9: IGNORED}),
        ({(1 << 24) + 0xFF0000: 5, (1 << 24): 3}, {}, ["#000000", "#ff0000"], {(1 << 24) + 0xFF0000: 1}),
        (
            {(1 << 24) + 0xFF0000: 5, (1 << 24): 3},
            {"classes": {"a": "#FF0000", "b": "#000000"}},
            ["a", "b"],
            {1 << 24: 1},
        ),
    ],
)
def test_which_classes_there_are(
    counts: dict[int, int], settings: dict[str, Any], classes: list[str], numbers: dict[int, int]
) -> None:
    coding = learn_coding(Counter(counts), False, settings.get("classes", {}), settings.get("ignore", []))
    assert coding.classes == classes
    for value, number in numbers.items():
        assert coding(np.array([value])).tolist() == [number]
    assert coding(np.array([77])).tolist() == [UNKNOWN]


@pytest.mark.parametrize(
    ("counts", "lossy", "settings", "message"),
    [
        ({0: 9}, False, {}, r"hold 0 \(100.00%\) alone"),
        (dict.fromkeys(range(0, 255, 3), 1), False, {}, "85 different values"),
        ({0: 40, 127: 30, 255: 30}, True, {}, "3 different values, which cannot all be classes"),
        ({0: 9, 3: 1}, False, {"classes": {"a": 0, "b": 4}}, r"no training mask has 4; they have 0 \(90.00%\)"),
        ({0: 9, 3: 1, 4: 1}, False, {"classes": {"a": 0, "b": 4}}, "also hold 3, of which nothing says"),
        ({0: 9, 3: 1}, False, {"classes": {"a": 0, "b": 3, "c": 3}}, "3 stands for two things"),
        ({0: 9, 3: 1}, False, {"classes": {"a": 0, "b": 3}, "ignore": [0]}, "0 stands for two things|#000000 stands"),
        ({0: 9, RED: 1}, True, {}, "the masks hold colours, and are JPEG or WebP"),
        (dict.fromkeys(range(300), 1), False, {"classes": {f"c{n}": n for n in range(300)}}, "may be 254 at most"),
    ],
)
def test_what_cannot_be_classes(counts: dict[int, int], lossy: bool, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        learn_coding(Counter(counts), lossy, settings.get("classes", {}), settings.get("ignore", ()))


def test_a_jpeg_of_black_and_white_is_taken_for_it(caplog: pytest.LogCaptureFixture) -> None:
    truth = np.zeros((64, 64), dtype=np.uint8)
    truth[np.hypot(*np.mgrid[-32:32, -30:34]) < 20] = 255
    mask = read_mask(encoded(Image.fromarray(truth), "JPEG", quality=90))
    values, lossy = mask.values, mask.lossy
    assert lossy
    assert len(np.unique(values)) > 10
    coding = learn_coding(Counter(values.flatten().tolist()), lossy, {}, ())
    assert coding.classes == ["0", "255"]
    assert (coding(values) == truth // 255).all()
    assert "each is taken for the nearer one" in caplog.text
    given = learn_coding(Counter(values.flatten().tolist()), lossy, {"cell": 255, "rest": 0}, ())
    assert (given(values) == (truth == 0)).all()


def test_a_mask_takes_the_nearest_pixel_and_nothing_between() -> None:
    numbers = np.zeros((40, 60), dtype=np.uint8)
    numbers[:, 30:] = 3
    for fit in ("crop", "squash"):
        found = fitted(numbers, (60, 40), (20, 20), fit)  # type: ignore[arg-type]
        assert found.shape == (20, 20)
        assert (found[:, :10] == 0).all()
        assert (found[:, 10:] == 3).all()
    padded = fitted(numbers, (60, 40), (30, 30), "pad")
    assert (padded[:5] == IGNORED).all()
    assert (padded[5:25] == np.repeat([0, 3], 15)).all()
    smaller = fitted(numbers[::2, ::2], (60, 40), (20, 30), "squash")
    assert (smaller == np.repeat([0, 3], 15)).all()
    with pytest.raises(InputError, match="a mask of 60 x 40 pixels for a picture of 40 x 60"):
        fitted(numbers, (40, 60), (20, 20), "squash")


def scene(number: int) -> tuple[Image.Image, np.ndarray]:
    """A bright square before a dark wall, and its mask of 0 and 255."""
    generator = np.random.default_rng(number)
    pixels, mask = np.full((32, 48), 60, dtype=np.uint8), np.zeros((32, 48), dtype=np.uint8)
    top, left = generator.integers(2, 14), generator.integers(2, 30)
    pixels[top : top + 14, left : left + 14], mask[top : top + 14, left : left + 14] = 200, 255
    return Image.fromarray(pixels), mask


def scenes(folder: Path, count: int = 12, ending: str = "", places: tuple[str, str] = ("images", "masks")) -> Path:
    for number in range(count):
        picture, mask = scene(number)
        for place, image, name in zip(places, (picture, Image.fromarray(mask)), ("", ending), strict=True):
            (folder / place).mkdir(parents=True, exist_ok=True)
            image.save(folder / place / f"{number}{name}.png")
    return folder


@pytest.mark.parametrize(
    ("ending", "places"),
    [("", ("images", "masks")), ("_mask", ("img", "Label")), ("", ("x/raw", "x/SegmentationClass"))],
)
def test_a_folder_of_pictures_and_one_of_masks(tmp_path: Path, ending: str, places: tuple[str, str]) -> None:
    given = {"picture": "raw", "mask": "SegmentationClass"} if "x/raw" in places else {}
    folder = scenes(tmp_path / "own", 12, ending, places)
    train, validation, test, known = prepared(folder, tmp_path, size=[32, 48], channels=1, fit="squash", **given)
    coding = MaskCoding(numbers={0: 0, 255: 1}, nearest=False, palette={})
    target = Classes(array="masks", classes=["0", "255"], values=[0, 255], name="mask", coding=coding)
    assert read_info(known).target == target
    assert known["beside"] == tuple(place.split("/")[-1] for place in places)
    assert known["images"] == {"train": 9, "validation": 1, "test": 2}
    assert known["column"] is None
    for part in (train, validation, test):
        masks, images = np.asarray(part.arrays["masks"]), np.asarray(part.arrays["images"])
        assert masks.dtype == np.uint8
        assert (masks == (images[..., 0] > 128)).all()


def test_masks_in_folders_of_splits(tmp_path: Path) -> None:
    for split, count in {"train": 6, "val": 2, "test": 3}.items():
        scenes(tmp_path / "own" / split, count)
    known = prepared(tmp_path / "own", tmp_path)[3]
    assert known["images"] == {"train": 6, "validation": 2, "test": 3}


def test_masks_that_a_table_names(tmp_path: Path) -> None:
    folder = scenes(tmp_path / "own")
    rows = [{"scan": f"images/{number}.png", "truth": f"masks/{number}.png"} for number in range(12)]
    train, *_, known = prepared(write(folder / "all.csv", rows), tmp_path, size=[32, 48], fit="squash")
    assert (np.asarray(train.arrays["masks"]) == (np.asarray(train.arrays["images"])[..., 0] > 128)).all()
    assert known["column"] == "scan"
    assert not takes_classes(folder, None)
    assert takes(folder / "all.csv", None)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize(
    ("picture", "mask"),
    [
        ((6, False), (1, True)),
        ((6, False), (1, False)),
        ((8, False), (8, False)),
        ((1, True), (8, False)),
        ((1, True), (6, True)),
    ],
    ids=["as the picture is seen", "as it is stored", "both turned", "the mask turned", "the mask turned wrongly"],
)
def test_a_mask_lies_as_its_picture_does(
    tmp_path: Path, kind: str, picture: tuple[int, bool], mask: tuple[int, bool]
) -> None:
    """However a camera was held: of each the turn that its file says, and whether its pixels are upright already."""
    folder = tmp_path / "own"
    for number in range(8):
        image, values = scene(number)
        for place, each, (turn, upright), form in (
            ("images", image, picture, kind),
            ("masks", Image.fromarray(values), mask, "PNG"),
        ):
            exif = Image.Exif()
            exif[0x0112] = turn
            back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[max(picture[0], mask[0])]
            (folder / place).mkdir(parents=True, exist_ok=True)
            stored = each if upright else each.transpose(back)
            stored.save(folder / place / f"{number}.{form.lower()}", form, exif=exif)
    train, *_ = prepared(folder, tmp_path, size=[32, 48], channels=1, fit="squash", classes={"wall": 0, "square": 255})
    expected = np.asarray(train.arrays["images"])[..., 0] > 128
    assert expected.any()
    assert (np.asarray(train.arrays["masks"]) == expected).all()


def turned(folder: Path) -> None:
    """So that the sizes do not tell how the mask lies on it."""
    exif = Image.Exif()
    exif[0x0112] = 3
    scene(0)[0].save(folder / "images/0.png", exif=exif)


PEAK = """
import io, resource, sys
from torchloom.data.masks import learn_coding, read_mask
from torchloom.data.pictures import decode_image

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

files = [io.BytesIO(open(path, "rb").read()) for path in sys.argv[1:]]
before = peak()
decode_image(files[0], (3, 64, 64))
mask = read_mask(files[1])
learn_coding(mask.counts, False, {}, [])(mask.values)
print(peak() - before)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="there is no module resource")
def test_large_pictures_and_masks_take_little_memory(tmp_path: Path) -> None:
    """A byte or two beyond the four that a pixel in colour takes once it is decoded."""
    side = 4100
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    pixels[:, 2000:] = 255
    paths = [tmp_path / "picture.png", tmp_path / "mask.png"]
    for path in paths:
        Image.fromarray(pixels).save(path, compress_level=1)
    done = subprocess.run([sys.executable, "-c", PEAK, *map(str, paths)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 7.5 * side**2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "masks/3.png").unlink(), r"no mask of the same name in masks for images/3\.png"),
        (lambda folder: (folder / "masks/3.png").write_bytes(b"GIF8"), r"masks/3\.png: is not a picture"),
        (lambda folder: Image.fromarray(np.zeros((32, 32), np.uint8)).save(folder / "masks/3.png"), "32 x 32 pixels"),
        (turned, r"masks/0\.png: has the EXIF orientation 1, and its picture 3: it is unclear"),
        (lambda folder: (folder / "masks").rename(folder / "others"), r"preprocess\.picture and preprocess\.mask"),
    ],
)
def test_what_is_wrong_with_masks(tmp_path: Path, change: Any, message: str) -> None:
    folder = scenes(tmp_path / "own")
    change(folder)
    with pytest.raises(InputError, match=message):
        prepared(folder, tmp_path, seed=1)


def test_values_that_only_test_masks_have_are_told(tmp_path: Path) -> None:
    scenes(tmp_path / "own/train", 6)
    scenes(tmp_path / "own/test", 2)
    Image.fromarray(scene(0)[1] // 2).save(tmp_path / "own/test/masks/0.png")
    with pytest.raises(InputError, match=r"test/masks/0\.png: holds 127, of which nothing says what class it is"):
        prepared(tmp_path / "own", tmp_path)


def test_a_coloured_mask_that_shows_nothing_is_no_class_of_its_own(tmp_path: Path) -> None:
    folder = scenes(tmp_path / "own")
    for number in range(12):
        mask = scene(number)[1] * (number % 3 > 0)
        colours = np.stack([mask, 0 * mask, 0 * mask], 2)
        Image.fromarray(colours).save(folder / f"masks/{number}.png")
    known = prepared(folder, tmp_path)[3]
    assert known["target"]["classes"] == ["#000000", "#ff0000"]
    named = prepared(folder, tmp_path, classes={"cell": "#ff0000", "rest": 0})[3]
    assert named["target"]["classes"] == ["cell", "rest"]


def test_palettes_that_differ_are_refused(tmp_path: Path) -> None:
    folder = scenes(tmp_path / "own")
    for number in range(12):
        image = Image.fromarray((scene(number)[1] // 255).astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 255, 255, 255])
        image.save(folder / f"masks/{number}.png")
    assert prepared(folder, tmp_path)[3]["target"]["classes"] == ["0", "1"]
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(folder / "masks/4.png")
    with pytest.raises(InputError, match=r"place 1 is #ff.* in one and #ff.* in another"):
        prepared(folder, tmp_path)
    Image.fromarray(scene(4)[1]).save(folder / "masks/4.png")
    with pytest.raises(InputError, match=r"some masks have a palette, and others none|holds 255, of which nothing"):
        prepared(folder, tmp_path)


def test_a_class_without_a_pixel_is_refused(tmp_path: Path) -> None:
    folder = scenes(tmp_path / "own")
    for number in range(12):
        (folder / f"masks/{number}.png").unlink()
        Image.fromarray((scene(number)[1] // 255).astype(np.uint8)).save(folder / f"masks/{number}.jpg")
    with pytest.raises(InputError, match="no pixel of the training masks is of the class 255"):
        prepared(folder, tmp_path)


def test_names_that_two_files_have_are_refused(tmp_path: Path, table: Path) -> None:
    folder = scenes(tmp_path / "own2")
    scene(0)[0].save(folder / "images/3.jpg")
    with pytest.raises(InputError, match=r"images/3\.jpg and images/3\.png have one name in common"):
        prepared(folder, tmp_path)
    draw(table.parent / "shots/3.jpg", 9)
    table.write_text(table.read_text().replace(".png", ""))
    with pytest.raises(InputError, match="1 of the train rows name pictures that are not in"):
        prepared(table, tmp_path, target="kind")


def test_what_a_table_beside_masks_says_is_no_matter(tmp_path: Path) -> None:
    folder = scenes(tmp_path / "own")
    write(folder / "class_dict.csv", [{"name": "cell", "r": 255, "g": 255, "b": 255}])
    assert prepared(folder, tmp_path)[3]["target"]["classes"] == ["0", "255"]


def test_groups_stay_together_and_are_known_to_folds(tmp_path: Path, table: Path) -> None:
    for cache in ("always", "never"):
        *parts, known = prepared(table, tmp_path, target="kind", split_by={"group": "who"}, cache=cache)
        groups = [set(np.asarray(part.arrays["groups"]).tolist()) for part in parts]
        assert sum(map(len, groups)) == len(set().union(*groups)) == 5
        opened = read_info(known).opened(parts[0].arrays, parts[0].description or {})
        assert "groups" in opened


def test_a_class_that_cannot_be_read_is_refused(tmp_path: Path, table: Path) -> None:
    for number in range(15, 30):
        (table.parent / f"shots/{number}.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="no training picture of 'light' can be read"):
        prepared(table, tmp_path, target="kind", skip_unreadable=True)


def test_rows_without_a_path_are_told(tmp_path: Path, table: Path) -> None:
    table.write_text(table.read_text().replace("shots/7.png", ""))
    with pytest.raises(InputError, match="train rows without a path in shot: the numbers 8"):
        prepared(table, tmp_path, target="kind")


BOX, COCO, VOC = "0 0.5 0.5 0.1 0.1\n1 .2 .3 .1 .1", '{"images": [], "annotations": []}', "<annotation><object/>"


@pytest.mark.parametrize(
    ("pictures", "file", "text", "name"),
    [
        ("images/train", "labels/0.txt", BOX, "YOLO"),
        ("images/train", "labels/train/0.txt", BOX, "YOLO"),
        ("train/images", "train/labels/0.txt", BOX, "YOLO"),
        ("train", "train/0.txt", BOX, "YOLO"),
        ("", "0.txt", BOX, "YOLO"),
        ("train", "train/_annotations.coco.json", COCO, "COCO"),
        ("train2017", "annotations/instances_train2017.json", COCO, "COCO"),
        ("train/images", "train/annotations.json", COCO, "COCO"),
        ("data", "labels.json", COCO, "COCO"),
        ("JPEGImages", "Annotations/0.xml", VOC, "Pascal VOC"),
        ("VOCdevkit/VOC2012/JPEGImages", "VOCdevkit/VOC2012/Annotations/0.xml", VOC, "Pascal VOC"),
        ("train", "train/0.xml", VOC, "Pascal VOC"),
        ("", "0.json", '{"version": "5.0", "shapes": [{}]}', "labelme"),
    ],
)
def test_boxes_are_refused_by_their_name(tmp_path: Path, pictures: str, file: str, text: str, name: str) -> None:
    own = tmp_path / "own"
    for number in range(3):
        draw(own / pictures / f"{number}.png", 9)
    (own / file).parent.mkdir(parents=True, exist_ok=True)
    (own / file).write_text(text)
    with pytest.raises(InputError, match=f"as {name} has it"):
        find_classes(FolderPreprocessConfig(folder=str(own)))
    with pytest.raises(InputError, match=f"as {name} has it"):
        prepared(own, tmp_path)
    with pytest.raises(InputError, match=f"as {name} has it"):
        proposed(own, None)


def test_boxes_of_what_looks_like_classes(tmp_path: Path) -> None:
    for name in ("coco/train2017/0.png", "coco/val2017/0.png"):
        draw(tmp_path / name, 9)
    (tmp_path / "coco/annotations").mkdir()
    (tmp_path / "coco/annotations/instances_val2017.json").write_text(COCO)
    with pytest.raises(InputError, match="as COCO has it"):
        find_classes(FolderPreprocessConfig(folder=str(tmp_path)))


def test_texts_on_pictures_are_no_book(tmp_path: Path) -> None:
    for number in range(3):
        draw(tmp_path / f"{number}.png", 9)
        (tmp_path / f"{number}.txt").write_text(BOX)
    (tmp_path / "classes.txt").write_text("cat")
    with pytest.raises(InputError, match="as YOLO has it"):
        proposed(tmp_path, None)


def test_texts_beside_pictures_are_no_boxes(tmp_path: Path) -> None:
    """Nor does it matter what lies beside those of several classes."""
    for number in range(8):
        draw(tmp_path / f"own/{number % 2}/{number}.png", 9)
        (tmp_path / f"own/{number % 2}/{number}.txt").write_text(BOX)
    assert len(find_classes(FolderPreprocessConfig(folder=str(tmp_path / "own"))).names) == 8
    draw(tmp_path / "flat/0.png", 9)
    (tmp_path / "flat/0.txt").write_text("a red house")
    (tmp_path / "flat/sizes.txt").write_text(BOX)
    with pytest.raises(InputError, match="has no subfolders with pictures"):
        find_classes(FolderPreprocessConfig(folder=str(tmp_path / "flat")))


def test_a_class_may_be_called_mask(tmp_path: Path) -> None:
    for number, kind in enumerate(["mask", "no_mask"] * 4):
        draw(tmp_path / f"own/{kind}/{number}.png", 9)
    assert takes_classes(tmp_path / "own", None)
    assert not takes(tmp_path / "own", None)


# ---- what is proposed ----------------------------------------------------------------------------------------------


def test_tasks_that_are_proposed(table: Path, tmp_path: Path) -> None:
    folder = scenes(tmp_path / "scenes")
    assert [takes(place, None) for place in (table, table.parent, folder, table.parent / "shots")] == [
        True,
        True,
        True,
        False,
    ]
    assert not takes_classes(folder, None)
    kind, grey, masks = propose(table, "kind"), propose(table, "grey"), propose(folder, None)
    assert [each.problem for each in (kind, grey, masks)] == ["classification", "regression", "segmentation"]
    assert kind.seen == ["30 pictures", "kind: one of 2 classes: dark 50.0%, light 50.0%"]
    assert kind.preprocess["picture"] == "shot"
    assert masks.preprocess["size"] == [32, 48]
    assert (masks.preprocess["picture"], masks.preprocess["mask"]) == ("images", "masks")
    with pytest.raises(InputError, match="it must be said which column is to be told"):
        propose(table, None)
