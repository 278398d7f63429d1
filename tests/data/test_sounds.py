"""A user's own sounds: where they are, how they are read, and what becomes of them."""

import io
import logging
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import soundfile

from tests.sounds import HEIGHTS, save, tone, whistles
from tests.tables import write
from torchloom.config import SoundFilesPreprocessConfig
from torchloom.data import sound_files, sounds
from torchloom.data.readers import propose
from torchloom.data.readers.sounds import find, preprocess, preprocess_entry
from torchloom.data.sound_files import read_sound
from torchloom.data.spectrograms import log_mel
from torchloom.data.targets import Classes, Number
from torchloom.datasets.tensors import Tensors
from torchloom.errors import InputError
from torchloom.modalities import AudioInfo, read_info

NAMES = {"names": "{height}_{speaker}_{take}", "target": "height"}
Prepared = tuple[Tensors, Tensors, Tensors, dict[str, Any]]


def prepared(place: Path, **settings: Any) -> Prepared:
    config = SoundFilesPreprocessConfig.model_validate({"files": str(place), **settings})
    return preprocess(find(config), config, place if place.is_dir() else place.parent)


def split(part: Tensors, array: str, starts: str) -> list[np.ndarray]:
    values, places = np.asarray(part.arrays[array]), np.asarray(part.arrays[starts]).tolist()
    return [values[start:end] for start, end in pairwise(places)]


def files_in(part: Tensors) -> list[str]:
    return [text.tobytes().decode() for text in split(part, "text", "text_starts")]


def read(path: Path, rate: int = 8000) -> np.ndarray:
    with path.open("rb") as file:
        return read_sound(file, rate)


# ---- where they are ------------------------------------------------------------------------------------------------


def check(found: Prepared, folder: Path, rows: list[dict[str, Any]]) -> None:
    """Each sound is once in one split, as it is in its file, with its own class."""
    *parts, known = found
    info = read_info(known)
    assert isinstance(info, AudioInfo)
    assert isinstance(info.target, Classes)
    assert sorted(info.target.classes) == sorted(HEIGHTS)
    heights = {row["sound"]: row["height"] for row in rows}
    names = [files_in(part) for part in parts]
    assert sorted(Path(name).name for part in names for name in part) == sorted(heights)
    for part, files in zip(parts, names, strict=True):
        for file, wave, label in zip(files, split(part, "waveforms", "starts"), part.arrays["labels"], strict=True):
            assert wave.dtype == np.float32
            np.testing.assert_array_equal(wave, read(folder / file, info.rate))
            assert info.target.classes[label] == heights[Path(file).name]


def test_names_that_say_what_they_are(tmp_path: Path) -> None:
    rows = whistles(tmp_path / "all")
    found = prepared(tmp_path / "all", **NAMES)
    check(found, tmp_path / "all", rows)
    assert found[3]["sounds"] == {"train": 21, "validation": 3, "test": 6}
    assert found[3]["rate"] == 8000
    assert found[3]["column"] is None
    assert found[3]["training_seconds"]["longest"] == pytest.approx(0.3, abs=0.02)


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    rows = whistles(tmp_path / "flat")
    for number, row in enumerate(rows):
        place = tmp_path / "all" / ("test" if number < 6 else "train") / row["height"] / row["sound"]
        place.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "flat" / row["sound"]).rename(place)
    found = prepared(tmp_path / "all")
    check(found, tmp_path / "all", rows)
    assert sorted(files_in(found[2])) == sorted(f"test/{row['height']}/{row['sound']}" for row in rows[:6])
    by = {"split_by": {"group": "speaker"}, "test_fraction": 0.4, "validation_fraction": 0.5}
    spoken = prepared(tmp_path / "all/train", names="{height}_{speaker}_{take}", **by)
    speakers = [{name.split("_")[1] for name in files_in(part)} for part in spoken[:3]]
    assert [len(part) for part in speakers] == [1, 1, 1]
    assert len(set.union(*speakers)) == 3


@pytest.mark.parametrize("form", ["beside", "folder", "endings", "entry", "splits"])
def test_a_table_with_their_paths(tmp_path: Path, form: str) -> None:
    folder = tmp_path / ("all" if form != "folder" else "elsewhere/all")
    rows = whistles(folder)
    own: dict[str, Any] = {"target": "height"}
    if form == "endings":
        rows = [{**row, "sound": row["sound"].removesuffix(".wav")} for row in rows]
    if form == "folder":
        write(tmp_path / "tables/sounds.csv", rows)
        found = prepared(tmp_path / "tables/sounds.csv", folder=str(folder), **own)
    elif form == "entry":
        config = SoundFilesPreprocessConfig(entry="whistles", folder=str(folder), **own)
        found = preprocess_entry(pandas.DataFrame(rows), config, tmp_path)
    elif form == "splits":
        write(folder / "train.csv", rows[6:])
        write(folder / "test.csv", rows[:6])
        found = prepared(folder, **own)
        assert sorted(files_in(found[2])) == sorted(row["sound"] for row in rows[:6])
    else:
        found = prepared(write(folder / "sounds.csv", rows), **own)
    check(found, folder, [{**row, "sound": f"{row['sound'].removesuffix('.wav')}.wav"} for row in rows])
    assert found[3]["column"] == "sound"


def test_a_speaker_is_held_out(tmp_path: Path) -> None:
    whistles(tmp_path / "all")
    by = {"column": "speaker", "test": ["eve"]}
    train, validation, test, _ = prepared(tmp_path / "all", split_by=by, **NAMES)
    assert {name.split("_")[1] for name in files_in(test)} == {"eve"}
    assert {name.split("_")[1] for part in (train, validation) for name in files_in(part)} == {"ada", "bob"}


def test_a_number_that_is_told_from_a_sound(tmp_path: Path) -> None:
    rows = whistles(tmp_path / "all")
    train, _, _, known = prepared(write(tmp_path / "all/sounds.csv", rows), target="hertz", target_type="number")
    target = read_info(known).target
    assert isinstance(target, Number)
    hertz = {row["sound"]: row["hertz"] for row in rows}
    assert train.arrays["target"].tolist() == [hertz[name] for name in files_in(train)]
    named = prepared(tmp_path / "all", names="{height}_{speaker}_{take}", target="take", target_type="number")
    assert read_info(named[3]).target == Number(**named[3]["target"])
    takes = prepared(tmp_path / "all", names="{height}_{speaker}_{take}", target="speaker")
    assert takes[3]["target"]["classes"] == ["ada", "bob", "eve"]


# ---- how they are read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "written", "tolerance"),
    [
        ("a.wav", {"subtype": "PCM_U8"}, 0.01),
        ("a.wav", {"subtype": "PCM_16"}, 1e-4),
        ("a.wav", {"subtype": "PCM_24"}, 1e-6),
        ("a.wav", {"subtype": "PCM_32"}, 1e-6),
        ("a.wav", {"subtype": "FLOAT"}, 0),
        ("a.wav", {"subtype": "DOUBLE"}, 0),
        ("a.wav", {"subtype": "ULAW"}, 0.02),
        ("a.flac", {}, 1e-4),
        ("a.aiff", {}, 1e-4),
        ("a.ogg", {}, None),
        ("a.mp3", {}, None),
    ],
)
def test_any_format_and_depth(tmp_path: Path, name: str, written: dict[str, Any], tolerance: float | None) -> None:
    wave = tone(440, 0.5)
    found = read(save(tmp_path / name, wave, **written))
    assert found.dtype == np.float32
    if tolerance is None:  # what is packed with a loss sounds alike
        loudest = [np.abs(np.fft.rfft(each, 8000)).argmax() for each in (wave, found)]
        assert abs(loudest[0] - loudest[1]) < 5
        assert found.std() == pytest.approx(wave.std(), rel=0.1)
    else:
        np.testing.assert_allclose(found, wave, atol=tolerance)


def test_channels_are_mixed_and_then_resampled(tmp_path: Path) -> None:
    """What is in one channel alone is half as loud; and a tone that both have against each other is gone."""
    wave = tone(440, 0.5, 22_050)
    stereo = np.stack([wave, -wave + tone(440, 0.5, 22_050, 1)], 1)
    found = read(save(tmp_path / "two.wav", stereo, 22_050, subtype="FLOAT"))
    alone = read(save(tmp_path / "one.wav", tone(440, 0.5, 22_050, 1) / 2, 22_050, subtype="FLOAT"))
    np.testing.assert_allclose(found, alone, atol=1e-6)
    assert len(found) == 4000


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus", "a.mp3", "a.aiff", "a.au", "a.caf", "a.w64"])
def test_what_ends_too_early_is_told(name: str) -> None:
    """And not read as a shorter sound; a tail that is none of it is no matter."""
    written = {"format": "OGG", "subtype": "OPUS"} if name == "a.opus" else {"format": name[2:].upper()}
    file = io.BytesIO()
    soundfile.write(file, tone(440, 4.0, 16_000), 16_000, **written)
    whole = file.getvalue()
    assert len(read_sound(io.BytesIO(whole + bytes(100)), 16_000)) == pytest.approx(64_000, abs=50)
    for share in (0.9, 0.1):
        with pytest.raises(InputError, match=r"is cut short: it |cannot be read as sound|holds no sound"):
            read_sound(io.BytesIO(whole[: int(share * len(whole))]), 16_000)


@pytest.mark.parametrize("announced", [0x7FFF_F000, 0xFFFF_FFFF])
def test_a_stream_does_not_say_how_long_it_is(announced: int) -> None:
    file = io.BytesIO()
    soundfile.write(file, tone(440, 0.5), 8000, format="WAV")
    length = announced.to_bytes(4, "little")
    streamed = bytearray(file.getvalue())
    streamed[4:8], streamed[40:44] = length, length
    assert len(read_sound(io.BytesIO(streamed), 8000)) == 4000


def test_channels_that_cancel_out_are_told(tmp_path: Path) -> None:
    """Which is another thing than silence, and is so too where noise is left over."""
    wave = tone(440, 0.5)
    for name, noise in (("exact", 0.0), ("noisy", 1e-4)):
        other = -wave + noise * tone(900, 0.5, seed=1)
        path = save(tmp_path / f"{name}.wav", np.stack([wave, other], 1), subtype="FLOAT")
        with pytest.raises(InputError, match=r"has channels that cancel each other out when they are mixed to one"):
            read(path)
    with pytest.raises(InputError, match=r"is silent"):
        read(save(tmp_path / "silent.wav", np.zeros((800, 2), np.float32)))
    assert read(save(tmp_path / "one.wav", np.stack([wave, 0 * wave], 1))).std() > 0.05


def test_resampling_leaves_what_can_be_left(tmp_path: Path) -> None:
    """Tones below half of the new rate stay as they are, in phase too; those above are gone, not folded back."""
    time = np.arange(44_100) / 44_100
    low, high = np.sin(2 * np.pi * 1000 * time), np.sin(2 * np.pi * 7000 * time)
    found = read(save(tmp_path / "a.wav", 0.4 * low + 0.4 * high, 44_100, subtype="FLOAT"))
    expected = 0.4 * np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
    assert len(found) == 8000
    np.testing.assert_allclose(found[200:-200], expected[200:-200], atol=2e-3)


def test_long_sounds_are_read_in_blocks_as_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.wav", tone(440, 3, 11_025), 11_025)
    whole = read(path)
    monkeypatch.setattr(sound_files, "BLOCK", 1000)
    np.testing.assert_allclose(read(path), whole, atol=1e-6)


def test_the_commonest_rate_is_taken_but_none_too_high(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whistles(tmp_path / "all", 27, 11_025)
    for number, rate in enumerate((8000, 44_100, 8000)):
        save(tmp_path / f"all/low_ada_{100 + number}.wav", tone(300, 0.2, rate), rate)
    with caplog.at_level(logging.INFO):
        known = prepared(tmp_path / "all", **NAMES)[3]
    assert known["rate"] == 11_025
    assert any("of 11,025" in line and "all become 11,025" in line for line in caplog.messages)
    whistles(tmp_path / "fine", 30, 48_000)
    assert prepared(tmp_path / "fine", **NAMES)[3]["rate"] == 16_000
    assert prepared(tmp_path / "fine", rate=48_000, **NAMES)[3]["rate"] == 48_000


# ---- what is measured ----------------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_training_sounds(tmp_path: Path) -> None:
    whistles(tmp_path / "one")
    whistles(tmp_path / "other")
    one = prepared(tmp_path / "one", split_by={"column": "speaker", "test": ["eve"]}, **NAMES)
    for path in (tmp_path / "other").glob("*_eve_*.wav"):
        save(path, 0.9 * tone(3000, 0.2, 8000, 5))
    other = prepared(tmp_path / "other", split_by={"column": "speaker", "test": ["eve"]}, **NAMES)
    assert one[3]["mean"] == other[3]["mean"]
    assert one[3]["std"] == other[3]["std"]
    frames = np.concatenate([log_mel(wave, 8000, 40) for wave in split(one[0], "waveforms", "starts")])
    np.testing.assert_allclose(one[3]["mean"], frames.mean(0), rtol=1e-5)
    np.testing.assert_allclose(one[3]["std"], frames.std(0), rtol=1e-4)
    assert len(one[3]["mean"]) == 40
    assert len(prepared(tmp_path / "one", mels=24, **NAMES)[3]["mean"]) == 24


# ---- what is refused -----------------------------------------------------------------------------------------------


def damage(folder: Path) -> dict[str, str]:
    """Files that are no sounds, and what is said of them."""
    nothing = np.empty(0, np.float32)
    with_nan = tone(440, 0.1)
    with_nan[99] = np.nan
    (folder / "low_ada_text.wav").write_text("no sound at all")
    (folder / "low_ada_empty.wav").write_bytes(b"")
    (folder / "low_ada_head.flac").write_bytes(b"fLaC" + bytes(20))
    save(folder / "low_ada_none.wav", nothing)
    save(folder / "low_ada_nan.wav", with_nan, subtype="FLOAT")
    save(folder / "low_ada_silent.wav", np.zeros(800, np.float32))
    save(folder / "low_ada_loud.wav", 1e9 * tone(440, 0.1), subtype="FLOAT")
    save(folder / "low_ada_long.wav", np.zeros(4000 * 8), 8, subtype="PCM_U8")
    return {
        "text": "cannot be read as sound",
        "empty": "cannot be read as sound",
        "head": "cannot be read as sound",
        "none": "holds no sound: it has 0 samples",
        "nan": r"has samples that are no numbers \(NaN or infinite\)",
        "silent": "is silent: all of its samples are alike",
        "loud": r"has samples up to 3\.\d*e\+08",
        "long": r"is longer than 3,600 seconds\. Cut it up",
    }


def test_what_cannot_be_read_is_named_or_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = whistles(tmp_path / "all")
    reasons = damage(tmp_path / "all")
    monkeypatch.setattr(sounds, "NAMED", len(reasons))
    with pytest.raises(InputError, match=r"^8 of 38 sounds cannot be read:\n") as caught:
        prepared(tmp_path / "all", **NAMES)
    for name, reason in reasons.items():
        assert re.search(rf"low_ada_{name}\.\w+: {reason}", caught.value.message), name
    assert caught.value.message.endswith("set preprocess.skip_unreadable: true to leave them out")
    with caplog.at_level(logging.WARNING):
        found = prepared(tmp_path / "all", skip_unreadable=True, **NAMES)
    check(found, tmp_path / "all", rows)
    assert "8 of 38 sounds cannot be read" in caplog.text


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whistles(tmp_path / "all", 3)
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(
        InputError,
        match=r"sounds need the packages soundfile and soxr.*uv sync --extra sound, .*pip install 'torchloom\[sound\]'",
    ):
        prepared(tmp_path / "all", **NAMES)


def test_sounds_of_other_kinds_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A class of nothing else would be lost."""
    for number in range(12):
        save(tmp_path / f"all/{('one', 'two')[number % 2]}/{number}.wav", tone(300 + 400 * (number % 2), 0.1))
    (tmp_path / "all/one/more.m4a").write_bytes(b"any")
    assert prepared(tmp_path / "all")[3]["target"]["classes"] == ["one", "two"]
    assert any("left out, as they cannot be read here: 1 .m4a. ffmpeg makes WAV" in line for line in caplog.messages)
    (tmp_path / "all/three").mkdir()
    (tmp_path / "all/three/a.WMA").write_bytes(b"any")
    with pytest.raises(
        InputError, match=r"class folders without a sound: three, which holds \.wma .* ffmpeg makes WAV"
    ):
        prepared(tmp_path / "all")
    with pytest.raises(InputError, match=r"holds no files of the kinds .*; those there are \.wma$"):
        prepared(tmp_path / "all/three")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "height"}, r"leave target out; or say what the names of the files mean, as preprocess\.names"),
        (
            {},
            r"all: in no folder of a class: high_ada_2\.wav, .* and 4 more\..* or say what the names of the files mean",
        ),
        (
            {**NAMES, "target": "word"},
            r"preprocess\.target 'word': is no part of preprocess\.names, which has height, ",
        ),
        ({**NAMES, "names": "{height}-{take}", "target": "take"}, r"preprocess\.names '{height}-{take}': does not fit"),
        ({**NAMES, "names": "{height}_{take}"}, r"preprocess\.names '{height}_{take}': does not fit, or in two ways"),
        ({**NAMES, "path": "file"}, r"there is no table whose paths these are; leave preprocess\.path and folder out"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    whistles(tmp_path / "all", 9)
    with pytest.raises(InputError, match=message):
        prepared(tmp_path / "all", **settings)


@pytest.mark.parametrize("names", ["take", "{a}{b}", "{a}_{a}", "{}_{b}", "{class}_{b}"])
def test_names_without_parts_are_refused(names: str) -> None:
    with pytest.raises(ValueError, match="names"):
        SoundFilesPreprocessConfig(files="x", names=names)


def test_tables_that_are_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = whistles(tmp_path / "all", 18)
    rows.append({"sound": "gone.wav", "height": "low", "speaker": "ada", "hertz": 1})
    path = write(tmp_path / "all/sounds.csv", rows)
    with pytest.raises(InputError, match=r"1 sound not in .*all: gone\.wav\. Say where the paths begin"):
        prepared(path, target="height")
    with caplog.at_level(logging.WARNING):
        assert sum(prepared(path, target="height", skip_unreadable=True)[3]["sounds"].values()) == 18
    assert "gone.wav. They are left out" in caplog.text
    with pytest.raises(InputError, match=r"preprocess\.path 'path': not all rows have it\. Name the one that does"):
        prepared(path, target="height", path="path")
    with pytest.raises(InputError, match=r"no column names sounds that are there.* There are 'speaker', 'hertz'"):
        prepared(write(tmp_path / "all/none.csv", [{"speaker": "ada", "hertz": 1}] * 9), target="hertz")
    with pytest.raises(InputError, match=r"preprocess\.target must name the column"):
        prepared(path, skip_unreadable=True)
    with pytest.raises(InputError, match=r"say where its paths begin, preprocess\.folder"):
        preprocess_entry(rows, SoundFilesPreprocessConfig(entry="rows", target="height"), tmp_path)
    with pytest.raises(InputError, match=r"is one sound, not a folder of them"):
        prepared(tmp_path / "all" / rows[0]["sound"])


# ---- what is proposed ----------------------------------------------------------------------------------------------


def test_sounds_are_looked_at(tmp_path: Path) -> None:
    rows = whistles(tmp_path / "all")
    (tmp_path / "all/readme.txt").write_text("whistles")
    with pytest.raises(
        InputError, match=r"which part of the names is to be told\. Say --target with one of part1 \(3 "
    ):
        propose(tmp_path / "all", None)
    proposal = propose(tmp_path / "all", "part1")
    assert proposal.preprocess == {
        "reader": "sounds",
        "files": str(tmp_path / "all"),
        "names": "{part1}_{part2}_{part3}",
        "target": "part1",
    }
    assert (proposal.problem, proposal.blocks["model"]) == ("classification", {"name": "audio_cnn"})
    *seen, parts = proposal.seen
    assert parts.startswith("parts of the names: part1 (3 different: high, low, middle); part2 (")
    assert seen == [
        "30 sounds of 0.10 to 0.29 seconds, 0.20 in the middle, 0.1 minutes in all",
        "by samples a second: 30 of 8,000",
        "part1: one of 3 classes: high 33.3%, low 33.3%, middle 33.3%",
    ]
    table = propose(write(tmp_path / "all/sounds.csv", rows), "height")
    assert table.preprocess == {"reader": "sounds", "files": str(tmp_path / "all/sounds.csv"), "target": "height"}
    with pytest.raises(InputError, match=r"sounds\.csv: it must be said which column is to be told"):
        propose(tmp_path / "all/sounds.csv", None)
    for row in rows:
        save(tmp_path / "classes" / row["height"] / row["sound"], tone(300, 0.1))
    assert propose(tmp_path / "classes", None).preprocess == {"reader": "sounds", "files": str(tmp_path / "classes")}
    with pytest.raises(InputError, match=r"^--target height: of sounds in folders the classes are the folders"):
        propose(tmp_path / "classes", "height")
    save(tmp_path / "odd/a.wav", tone(300, 0.1))
    save(tmp_path / "odd/b_1.wav", tone(300, 0.1))
    with pytest.raises(InputError, match=r"odd: neither folders of classes nor names of equally many parts"):
        propose(tmp_path / "odd", None)


def test_a_file_in_memory_is_read_as_one_on_the_disk(tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3"):
        path = save(tmp_path / name, tone(440, 0.5, 22_050), 22_050)
        np.testing.assert_array_equal(read_sound(io.BytesIO(path.read_bytes()), 8000), read(path))
        assert soundfile.info(str(path)).frames >= 11_025


def test_a_sound_in_two_splits_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = whistles(tmp_path / "all")
    again = [{**row, "sound": f"./{row['sound']}"} for row in rows]
    prepared(write(tmp_path / "all/list.csv", [*rows, *again]), target="height")
    assert re.search(rf"{len(rows)} sounds in more than one row, [1-9]\d* of them in more than one split", caplog.text)


def test_groups_of_sounds_are_known_to_folds(tmp_path: Path) -> None:
    whistles(tmp_path / "flat")
    *parts, _ = prepared(tmp_path / "flat", **NAMES, split_by={"group": "speaker"})
    groups = [set(np.asarray(part.arrays["groups"]).tolist()) for part in parts]
    assert sum(map(len, groups)) == len(set().union(*groups)) > 1
