"""What goes into an exported model, and what it answers."""

import io
import json
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import exported
from tests.sounds import save, tone
from torchloom.config import AnswerConfig, Fit
from torchloom.data import pictures
from torchloom.data.pictures import decode_image, deep_extremes
from torchloom.data.text import LONGEST_TEXT
from torchloom.datasets.onnx import seal
from torchloom.errors import InputError
from torchloom.inference.model import Model, find_model, open_model
from torchloom.modalities import Reading, documents
from torchloom.modalities.documents import of_few_pairs, pad
from torchloom.modalities.table import numbers
from torchloom.problems.classification import probabilities, top_classes
from torchloom.training.checkpoint import CheckpointDataset

pytestmark = pytest.mark.xdist_group("export")  # in one process, for the sake of what the tests share

GREY = exported.picture()
ASKED = AnswerConfig(models="")
COLOUR = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def saved(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(
    data: bytes,
    shape: tuple[int, int, int] = (1, 6, 8),
    fit: Fit = "crop",
    invert: bool = False,
    value_range: list[float] | None = None,
) -> np.ndarray:
    pixels = decode_image(io.BytesIO(data), shape, fit, invert, value_range)
    assert pixels.dtype == np.uint8
    assert pixels.shape == shape
    return pixels


# ---- pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_a_grey_picture_comes_as_it_is(kind: str) -> None:
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(GREY), kind))[0], GREY)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_a_picture_in_colour_comes_as_it_is(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = decoded(saved(Image.fromarray(COLOUR), kind, **options), (3, 6, 8))
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0), COLOUR)


def test_grey_and_colour_stand_for_each_other() -> None:
    luminance = COLOUR @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(decoded(saved(Image.fromarray(COLOUR)))[0], luminance, atol=1)
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(GREY)), (3, 6, 8)), np.stack([GREY] * 3))


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK"])
def test_pictures_of_other_modes_are_converted(mode: str) -> None:
    other = Image.fromarray(COLOUR).convert("L" if mode == "LA" else "RGB").convert(mode)
    expected = np.asarray(other.convert("RGB").convert("L"))
    np.testing.assert_allclose(decoded(saved(other, "TIFF" if mode == "CMYK" else "PNG"))[0], expected, atol=1)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_of_sixteen_bits_the_higher_eight_of_those_that_are_used_count(bits: int) -> None:
    values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    deep = Image.fromarray(values)
    assert deep.mode.startswith("I;16")
    expected = (values >> (bits - 8)).clip(0, 255)
    for kind in ("PNG", "TIFF"):
        given = [0, 2**bits - 1]
        np.testing.assert_array_equal(decoded(saved(deep, kind), (1, 256, 256), value_range=given)[0], expected)
    if bits == 16:
        np.testing.assert_array_equal(decoded(saved(deep), (1, 256, 256))[0], expected)


@pytest.mark.parametrize(
    ("kind", "low", "high"), [(np.float32, 0.0, 1.0), (np.float32, -1000.0, 3000.0), (np.int32, -1024, 3071)]
)
def test_of_thirty_two_bits_it_is_said_what_is_black_and_white(kind: Any, low: float, high: float) -> None:
    values = (low + (GREY + 0.5) / 256 * (high - low)).astype(kind)
    data = saved(Image.fromarray(values), "TIFF")
    np.testing.assert_array_equal(decoded(data, value_range=[low, high])[0], GREY)
    half = decoded(data, value_range=[low, (low + high) / 2])[0]
    np.testing.assert_allclose(half, (2 * GREY.astype(int)).clip(0, 255), atol=1)
    assert deep_extremes(io.BytesIO(data)) == (values.min(), values.max(), kind is np.int32)


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_of_more_than_eight_bits_zero_is_white_where_a_tiff_says_so(kind: Any) -> None:
    values = Image.fromarray((GREY * 257.0).astype(kind))
    for photometric, expected in [(1, GREY), (0, 255 - GREY)]:
        data = saved(values, "TIFF", tiffinfo={262: photometric})
        np.testing.assert_array_equal(decoded(data, value_range=[0, 65_535])[0], expected)
        np.testing.assert_array_equal(decoded(data, value_range=[0, 65_535], invert=True)[0], 255 - expected)


def sixteen_bit_colour(value: int, transparent: int = 0) -> bytes:
    """A PNG file of 8 x 6 pixels, each with this value in each of its channels; one value is transparent."""
    header = struct.pack(">IIBBBBB", 8, 6, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + struct.pack(">H", value) * 24 for _ in range(6)))
    known = chunk(b"tRNS", struct.pack(">HHH", *[transparent] * 3))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + known + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_colours_of_sixteen_bits_are_read_only_where_their_higher_eight_say_enough() -> None:
    data = sixteen_bit_colour(77 * 256 + 5)
    for given in (None, [0, 65_535]):
        assert (decoded(data, (3, 6, 8), value_range=given) == 77).all()
    assert (decoded(sixteen_bit_colour(77 * 256 + 5, 77 * 256 + 5), (3, 6, 8)) == 255).all()
    assert (decoded(sixteen_bit_colour(77 * 256 + 5, 77), (3, 6, 8)) == 77).all()
    with pytest.raises(InputError, match=r"^has 16 bits a channel in colour, of which only the higher 8 .* up to 4095"):
        decoded(data, (3, 6, 8), value_range=[0, 4095])
    assert deep_extremes(io.BytesIO(sixteen_bit_colour(1100))) == (0, 4 * 256 + 255, True)


def test_a_picture_of_eight_bits_has_no_values_to_measure() -> None:
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(GREY)), value_range=[0, 4095])[0], GREY)
    assert deep_extremes(io.BytesIO(saved(Image.fromarray(COLOUR)))) is None
    values = np.full((6, 8), np.nan, np.float32)
    assert deep_extremes(io.BytesIO(saved(Image.fromarray(values), "TIFF"))) is None
    with pytest.raises(InputError, match=r"^holds values that are not numbers \(NaN\)$"):
        decoded(saved(Image.fromarray(values), "TIFF"), value_range=[0, 1])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    black = Image.new("RGBA", (8, 6), (0, 0, 0, 0))
    black.paste((0, 0, 0, 255), (0, 0, 4, 6))
    pixels = decoded(saved(black.quantize(4) if mode == "P" else black.convert(mode)))
    assert (pixels[0, :, :4] == 0).all()
    assert (pixels[0, :, 4:] == 255).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_grey_that_is_transparent_becomes_white(bits: int) -> None:
    """Of a PNG file with rows of black, of the least grey, which is transparent or not, and of white."""
    greatest = 2**bits - 1
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 3, bits, 0, 0, 0, 0))
    rows = [sum(value << bits * place for place in range(8)).to_bytes(bits, "big") for value in (0, 1, greatest)]
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    least = 255 // greatest
    for transparent, expected in [(None, [0, least, 255]), (1, [0, 255, 255]), (0, [255, least, 255])]:
        known = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent))
        data = b"\x89PNG\r\n\x1a\n" + header + known + pixels + chunk(b"IEND", b"")
        assert decoded(data, (1, 3, 8))[0].tolist() == [[value] * 8 for value in expected]


def test_a_picture_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    data = saved(Image.fromarray(np.rot90(GREY)), exif=exif)
    np.testing.assert_array_equal(decoded(data)[0], GREY)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_picture_counts(kind: str) -> None:
    first, second = Image.new("RGB", (8, 6), "white"), Image.new("RGB", (8, 6), "black")
    assert (decoded(saved(first, kind, save_all=True, append_images=[second], duration=100)) == 255).all()


def test_a_file_of_several_pages_is_refused() -> None:
    """Such as a stack of a microscope, of which the first page alone would be learnt; but not for smaller copies."""
    first, second = Image.new("RGB", (8, 6), "white"), Image.new("RGB", (8, 6), "black")
    with pytest.raises(InputError, match=r"holds 3 pages, of which only the first would count\. Save each in a file"):
        decoded(saved(first, "TIFF", save_all=True, append_images=[second, second]))
    assert (decoded(saved(first, "TIFF", save_all=True, append_images=[second.resize((4, 3))])) == 255).all()


BROAD = np.asarray(Image.fromarray(GREY).resize((333, 251), Image.Resampling.BICUBIC))
LARGE_ONES = {
    "colour": np.stack([BROAD, BROAD[::-1], 255 - BROAD], 2),
    "transparent": np.stack([BROAD, BROAD[::-1]], 2),
    "16 bits": BROAD.astype(np.uint16) * 257,
    "floats": BROAD.astype(np.float32),
}


@pytest.mark.parametrize("kind", LARGE_ONES)
@pytest.mark.parametrize("turn", [1, 6])
def test_a_large_picture_is_much_the_same(kind: str, turn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is worked on in bands, and made smaller before it is resized."""
    exif = Image.Exif()
    exif[0x0112] = turn
    image = Image.fromarray(LARGE_ONES[kind])
    data = saved(image, "TIFF" if kind == "floats" else "PNG", exif=exif)
    asked: dict[str, Any] = {"shape": (3, 12, 16), "value_range": [0, 255] if kind == "floats" else None}
    whole = decoded(data, **asked).astype(int)
    assert whole.std() > 5
    monkeypatch.setattr(pictures, "LARGE", 20_000)
    monkeypatch.setattr(pictures, "BAND", 5_000)
    difference = np.abs(decoded(data, **asked) - whole)
    assert difference.max() > 0
    assert difference.mean() < 2


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def others() -> bool:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(pictures.ONE_AT_A_TIME.acquire, blocking=False).result()

    with pictures.opened_image(io.BytesIO(saved(Image.fromarray(GREY)))):
        assert others()
    monkeypatch.setattr(pictures, "ONE_AT_A_TIME", RLock())
    monkeypatch.setattr(pictures, "LARGE", 10)
    with pictures.opened_image(io.BytesIO(saved(Image.fromarray(GREY)))):
        assert not others()


def test_a_large_jpeg_is_much_the_same() -> None:
    """It is decoded smaller, by Pillow's `draft`."""
    large = Image.fromarray(GREY).resize((1600, 1200), Image.Resampling.BICUBIC)
    whole = decoded(saved(large)).astype(float)
    np.testing.assert_allclose(decoded(saved(large, "JPEG", quality=95)), whole, atol=3)


def test_how_pictures_of_other_proportions_fit() -> None:
    wide = np.repeat(np.array([0, 100, 200, 100, 0], np.uint8), [8, 4, 8, 4, 8])[None].repeat(12, axis=0)  # 12 x 32
    data = saved(Image.fromarray(wide))
    cropped, padded, squashed = (decoded(data, fit=fit)[0] for fit in ("crop", "pad", "squash"))
    assert (cropped[:, 2:6] >= 180).all()  # the middle 16 columns, halved
    assert (cropped[:, [0, 7]] < 150).all()
    assert (padded[0] == 0).all()  # 3 rows of the 6 are the picture
    assert (padded[3, 3:5] >= 150).all()
    assert (squashed[:, 0] < 20).all()
    assert (squashed[:, 3:5] >= 150).all()


def test_dark_and_light_are_swapped() -> None:
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(GREY)), invert=True)[0], 255 - GREY)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def huge(side: int) -> bytes:
    """How a PNG file of so many pixels squared begins."""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)) + chunk(b"IDAT", b"")
    )


BROKEN = {
    "text": (b"hello", r"^is not a picture that can be read here: PNG, JPEG, .*PPM$"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n", r"^is not a picture that can be read here"),
    "begun": (saved(Image.fromarray(COLOUR))[:60], r"^is a damaged picture \(.*truncated"),
    "begun JPEG": (saved(Image.fromarray(COLOUR).resize((80, 60)), "JPEG")[:900], r"^is a damaged picture \("),
    "32 bits": (saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"), r"^has 32 bits a channel.* Save it with 8"),
    "large": (huge(11_000), r"^has too many pixels: 11000 x 11000, above 100,000,000$"),
    "huge": (huge(60_000), r"^has too many pixels$"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # the project's own filter does in a run
@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_a_picture(name: str) -> None:
    data, message = BROKEN[name]
    with pytest.raises(InputError, match=message) as caught:
        decoded(data)
    assert "BytesIO" not in str(caught.value)


# ---- rows and texts ------------------------------------------------------------------------------------------------


def test_the_numbers_of_a_row_stand_in_the_order_of_the_features() -> None:
    row = {"bmi": " 2.5e1", "name": "Alice", "age": 59}
    found = numbers(row, ["age", "bmi"])
    assert found.dtype == np.float32
    assert found.tolist() == [59, 25]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"age": 1}, "^lacks 'bmi'$"),
        ({}, "^lacks 'age', 'bmi'$"),
        ({"age": 1, "bmi": None}, "^lacks 'bmi'$"),
        ({"age": "old", "bmi": 1}, "^age: 'old' is not a number$"),
        ({"age": True, "bmi": 1}, "^age: True is not a number$"),
        ({"age": [1], "bmi": 1}, r"^age: \[1\] is not a number$"),
        ({"age": 1, "bmi": float("nan")}, "^bmi: nan is not a finite number"),
        ({"age": 1, "bmi": "-inf"}, "^bmi: '-inf' is not a finite number"),
        ({"age": 1, "bmi": 1e39}, "^bmi: 1e.39 is not a finite number of 32 bits$"),
        ({"age": 10**400, "bmi": 1}, "^age: 10+ is not a number$"),
    ],
)
def test_what_is_wrong_with_a_row(row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        numbers(row, ["age", "bmi"])


def test_texts_are_filled_up_to_the_longest() -> None:
    batch = pad([np.array([5, 6, 7]), np.array([8])])
    assert batch["tokens"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["lengths"].tolist() == [3, 1]
    assert batch["tokens"].dtype == batch["lengths"].dtype == np.int64


def test_few_long_texts_are_asked_about_at_once() -> None:
    """Of many of 10,000 words attention would take all the memory there is."""
    texts = [np.full(length, 2) for length in (3, 5, 9, 2, 2, 2, 40, 1)]
    parts = list(of_few_pairs(texts, 100))
    assert [list(map(len, part)) for part in parts] == [[3, 5], [9], [2, 2, 2], [40], [1]]
    long = [np.full(LONGEST_TEXT, 2)] * 3
    assert [len(part) for part in exported.REVIEWS.parts(long)] == [1, 1, 1]
    assert [len(part) for part in exported.REVIEWS.parts(texts)] == [8]


def test_texts_in_parts_are_answered_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = exported.model("documents"), [np.arange(2, 2 + length) for length in (1, 4, 2, 3)]
    together = probabilities(model, samples)
    monkeypatch.setattr(documents.DocumentInfo, "parts", lambda _, samples: of_few_pairs(samples, 10))
    np.testing.assert_allclose(probabilities(model, samples), together, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("documents", " -- ", "^holds no words$"),
        ("documents", "film " * (LONGEST_TEXT + 1), "^holds 10,001 words, more than 10,000$"),
        ("text", "", "^holds no characters$"),
        ("text", "a" * (LONGEST_TEXT + 1), "^holds 10,001 characters, more than 10,000$"),
        ("text", "abcX", "^the vocabulary lacks 'X'"),
    ],
)
def test_what_is_wrong_with_a_text(kind: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        exported.model(kind).info.reader(ASKED)(text)


@pytest.mark.parametrize(("count", "places"), [(1, [[2], [0]]), (2, [[2, 1], [0, 1]]), (9, [[2, 1, 0], [0, 1, 2]])])
def test_the_likeliest_classes(count: int, places: list[list[int]]) -> None:
    shares = np.array([[0.1, 0.3, 0.6], [0.4, 0.3, 0.3]], dtype=np.float32)
    found, likely = top_classes(shares, count)
    assert found.tolist() == places
    np.testing.assert_array_equal(likely, [row[place] for row, place in zip(shares, places, strict=True)])


# ---- models --------------------------------------------------------------------------------------------------------


def test_of_long_texts_the_last_words_count() -> None:
    read = Model(renamed({"max_tokens": 2}, "documents")).info.reader(ASKED)
    assert read("a good bad film").tolist() == exported.WORDS.encode("bad film").tolist()
    assert len(read("film " * (LONGEST_TEXT + 1))) == 2
    with pytest.raises(InputError, match=r"^holds no words$"):
        read("--")


def test_the_line_ends_of_a_prompt_are_those_of_the_training() -> None:
    assert exported.model("text").info.reader(ASKED)("a\r\nb\rc\n") == "a\nb\nc\n"


def test_the_probabilities_are_those_of_the_network() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 6, 8), dtype=np.uint8)
    found = probabilities(exported.model("images"), list(images))
    np.testing.assert_allclose(found, exported.probabilities("images", images), atol=1e-5)
    model = exported.model("documents")
    samples = [model.info.reader(ASKED)(text) for text in ("A good, good film!", "bad")]
    batch = pad(samples)
    expected = exported.probabilities("documents", batch["tokens"], batch["lengths"])
    np.testing.assert_allclose(probabilities(model, samples), expected, atol=1e-5)


def test_a_model_knows_what_it_needs() -> None:
    images, documents, table = (exported.model(kind) for kind in ("images", "documents", "table"))
    assert (images.problem.name, images.info) == ("classification", exported.GREY)
    assert (documents.problem.name, documents.info) == ("classification", exported.REVIEWS)
    assert (table.problem.name, table.info) == ("regression", exported.TABLE)
    assert (table.problem.said(table), table.info.said()) == ({"target": "glucose"}, {"features": ["age", "bmi"]})


def renamed(change: dict[str, Any], kind: str = "images") -> bytes:
    """A model with other metadata; None takes an entry away."""
    proto = onnx.load_from_string(exported.exported(kind))
    metadata = {entry.key: entry.value for entry in proto.metadata_props if entry.key != "fingerprint"}
    metadata |= {key: json.dumps(value) for key, value in change.items()}
    onnx.helper.set_model_props(proto, {key: value for key, value in metadata.items() if value != "null"})
    return seal(proto)


def reading(model: Model) -> Reading:
    return Reading(**model.info.model_dump())


def test_a_model_of_before_is_asked_as_it_was_then() -> None:
    before = Model(renamed({"fit": None, "views": None}))
    assert reading(before) == Reading(fit="crop", value_range=None, views="one")
    now = Model(renamed({"fit": "pad", "value_range": [0, 4095], "views": "mirror"}))
    assert reading(now) == Reading(fit="pad", value_range=[0, 4095], views="mirror")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"fit": "letterbox"}, "by another version .*'crop', 'pad' or 'squash'"),
        (("documents", {"max_tokens": 0}), "by another version .*greater than or equal to 1"),
        ({"value_range": [7, 7]}, "by another version .*the first less than the second"),
        (b"nonsense", "cannot load the graph"),
        (None, r"not exported by torchloom, or by another version \(KeyError\('modality'\)\)$"),
        ({"problem": None}, r"not exported by torchloom, or by another version \(KeyError\('problem'\)\)$"),
        ({"target": None}, r"not exported by torchloom, or by another version \(.*classes"),
        ({"target": {"classes": ["a", "b"]}}, r"by another version \(ValueError\('2 classes, 3 logits'\)\)$"),
        ({"target": {"classes": 7}}, "by another version .*target.*valid list"),
        ({"target": 7}, "by another version .*target"),
    ],
)
def test_what_is_no_model_of_ours(data: Any, message: str) -> None:
    if data is None:
        x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
        graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["x"], ["y"])], "g", [x], [y])
        opset = [onnx.helper.make_opsetid("", 20)]
        data = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    elif not isinstance(data, bytes):
        kind, change = ("images", data) if isinstance(data, dict) else data
        data = renamed(change, kind)
    with pytest.raises(InputError, match=message):
        Model(data)


def test_a_checkpoint_answers_as_its_onnx_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    CheckpointDataset(filepath=str(path)).save(exported.checkpoint("table"))
    features = np.array([[40, 20], [60, 30]], dtype=np.float32)
    found = [
        open_model(each).run("prediction", features=features) for each in (path, exported.write("table", tmp_path))
    ]
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], exported.answers("table", features), rtol=1e-5)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "some_task").mkdir()
    exported.write("table", tmp_path / "some_task").rename(tmp_path / "some_task/model.onnx")
    assert find_model("some_task", tmp_path, "key") == tmp_path / "some_task/model.onnx"
    with pytest.raises(
        InputError, match=r"^key other: there is no .*other/model\.onnx\..* exported there: some_task\."
    ):
        find_model("other", tmp_path, "key")
    with pytest.raises(InputError, match=r"exported there: none\. Run"):
        find_model("other", tmp_path / "nowhere", "key")
    with pytest.raises(InputError, match=r"^key other\.onnx: there is no such file$"):
        find_model("other.onnx", tmp_path, "key")


def test_a_message_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(renamed({"target": {"classes": 7}}))
    with pytest.raises(InputError, match=r"^.*model\.onnx: the model was not exported by torchloom"):
        open_model(path)


ALONE = """
import sys
for name in ("torch", "torchvision", "torchloom.training", "torchloom.models"):
    sys.modules[name] = None  # whoever imports it fails
from torchloom.config import PredictConfig
from torchloom.pipelines.prediction.nodes import find, predict
config = PredictConfig(model=sys.argv[1], files=sys.argv[2], models="")
table, _, sheet, unreadable, *_ = predict(*find(config), config)
sheet.savefig(sys.argv[3])
print(table.num_rows, unreadable.num_rows)
"""


@pytest.mark.long
@pytest.mark.parametrize("kind", list(exported.KINDS))
def test_an_onnx_file_is_enough_without_pytorch(kind: str, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    if kind in {"images", "reconstruction"}:
        data = tmp_path / "data.png"
        Image.fromarray(GREY).save(data)
    elif kind == "audio":
        save(tmp_path / "data.wav", tone(440, 0.5, 1000), 1000).rename(data)
    else:
        days = "".join(f"2024-01-0{day},{day},1\n" for day in range(1, 7))
        tables = {"table": "age,bmi\n50,20\n", "series": f"day,load,heat\n{days}", "documents": "text\na\nbad\n"}
        tables |= {"draws": "seed\n1\n2\n", "in a row": "t0,t1,t2,t3\n1,2,3,4\n", "in a cell": '{"wave": [1, 2]}\n'}
        tables["in rows"] = "name,step,x,y\na,0,1,2\na,1,2,3\n"
        data = data.with_suffix(".jsonl") if kind == "in a cell" else data
        data.write_text(tables.get(kind, "a\nbad\n"))
    command = [sys.executable, "-c", ALONE, exported.write(kind, tmp_path), data, tmp_path / "sheet.png"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout in {"1 0\n", "2 0\n"}, result.stderr
