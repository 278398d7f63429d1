"""What samples of each kind of data are called beside their features: by the names that `predict` finds them by."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from tests.sounds import whistles
from tests.tables import Row, people, reviews, steps, waves, write
from torchloom.config import (
    ArraysPreprocessConfig,
    DataConfig,
    FolderPreprocessConfig,
    LabelledSeriesPreprocessConfig,
    PairsPreprocessConfig,
    PicturesPreprocessConfig,
    PredictConfig,
    SoundFilesPreprocessConfig,
    TableFilesPreprocessConfig,
    TextFilesPreprocessConfig,
)
from torchloom.data.readers import arrays, folder, labelled_series, pairs, pictures, sounds, table, texts
from torchloom.datasets.listing import scan
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.modalities import Info, read_info
from torchloom.training.loaders import LoaderPlan, TensorFile

SPLITS = ("train", "validation", "test")
WAVES = [f"t{step}" for step in range(20)]
Prepared = tuple[Tensors, Tensors, Tensors, dict[str, Any]]


def planned(prepared: Prepared, scratch: Path) -> LoaderPlan:
    *parts, known = prepared
    info, files = read_info(known), {}
    for split, tensors in zip(SPLITS, parts, strict=True):
        dataset = TensorsDataset(filepath=str(scratch / f"{split}.safetensors"))
        dataset.save(tensors)
        kept = dataset.load()
        length = len(kept.arrays[info.counted])
        files[split] = [TensorFile(path=kept.path, fingerprint=kept.fingerprint, length=length)]
    return LoaderPlan(splits=files, info=info, data=DataConfig(), batch_size=8, seed=0)


def named(plan: LoaderPlan, split: str) -> list[str]:
    """As the stage `features` names the samples of a split, which takes the place of the test."""
    there = plan.model_copy(update={"splits": {**plan.splits, "test": plan.splits[split]}})
    return plan.info.named(there, range(plan.length(split)))["file"]


def predicted(info: Info, files: Path) -> dict[str, Any]:
    """What `predict` reads of a user's files, by the names of the samples there."""
    read = info.reader(PredictConfig(model="", models=""))
    return {sample.name: sample.read() for sample in info.samples_in(scan(files, "files"), read)}


def check(prepared: Prepared, files: Path, scratch: Path) -> list[str]:
    """Each sample, of all splits, is what `predict` reads by its name; returns the names of those to test."""
    scratch.mkdir()
    plan = planned(prepared, scratch)
    read = predicted(plan.info, files)
    every = [(split, number, name) for split in SPLITS for number, name in enumerate(named(plan, split))]
    assert len({name for *_, name in every}) == len(every) > 10
    for split, number, name in every:
        mine = dict(zip(plan.info.inputs, plan.chosen(split, [number]), strict=False))
        for key, asked in plan.info.batch([read[name]]).items():
            np.testing.assert_allclose(mine[key], asked, atol=1e-4, err_msg=name)
    return named(plan, "test")


def shades(place: Path, count: int = 12) -> list[Row]:
    """Pictures, dark ones and light ones, each of a grey of its own; a row for each."""
    rows: list[Row] = []
    for number in range(count):
        kind = ["dark", "light"][number % 2]
        grey = 100 * (number % 2) + 5 * number
        (place / kind).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(place / kind / f"{number}.png")
        rows.append({"shot": f"{kind}/{number}.png", "kind": kind, "grey": grey})
    return rows


@pytest.mark.parametrize("cache", ["always", "never"])
def test_pictures_in_folders_are_called_as_their_files(tmp_path: Path, cache: Any) -> None:
    shades(tmp_path / "shots")
    config = FolderPreprocessConfig(folder=str(tmp_path / "shots"), size=[8, 8], cache=cache, test_fraction=0.3)
    prepared = folder.preprocess(folder.find(config), config, tmp_path)
    assert sorted(check(prepared, tmp_path / "shots", tmp_path / "kept"))[0].startswith("dark/")


def test_pictures_of_a_table_are_called_as_their_files(tmp_path: Path) -> None:
    path = write(tmp_path / "shots/shots.csv", shades(tmp_path / "shots", 20))
    config = PicturesPreprocessConfig(files=str(path), target="grey", size=[8, 8])
    prepared = pictures.preprocess(pictures.find(config), config, tmp_path)
    check(prepared, path, tmp_path / "kept")


def test_pictures_with_masks_are_called_as_the_pictures(tmp_path: Path) -> None:
    for number in range(12):
        for kind in ("images", "masks"):
            (tmp_path / "cells" / kind).mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((8, 8), np.uint8)
            pixels[:, : number % 6 + 1] = 255 if kind == "masks" else 20 * number
            Image.fromarray(pixels).save(tmp_path / "cells" / kind / f"{number}.png")
    config = PicturesPreprocessConfig(files=str(tmp_path / "cells"), size=[8, 8])
    prepared = pictures.preprocess(pictures.find(config), config, tmp_path)
    assert all(name.startswith("images/") for name in check(prepared, tmp_path / "cells", tmp_path / "kept"))


def test_pictures_in_arrays_are_called_by_file_array_and_place(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    place = tmp_path / "digits"
    place.mkdir()
    x, y = generator.integers(0, 256, (30, 8, 8), dtype=np.uint8), np.arange(30) % 2
    np.savez(place / "digits.npz", x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    config = ArraysPreprocessConfig(files=str(place))
    prepared = arrays.preprocess(arrays.find(config), config, tmp_path)
    assert check(prepared, place, tmp_path / "kept") == [f"digits.npz:x_test:{number}" for number in range(10)]
    apart = {"x_train": x[:20], "y_train": y[:20], "x_test": x[20:], "y_test": y[20:]}
    for name, array in apart.items():
        (tmp_path / "apart").mkdir(exist_ok=True)
        np.save(tmp_path / f"apart/{name}.npy", array)
    config = ArraysPreprocessConfig(files=str(tmp_path / "apart"))
    plan = planned(arrays.preprocess(arrays.find(config), config, tmp_path), tmp_path)
    assert named(plan, "test") == list(predicted(plan.info, tmp_path / "apart/x_test.npy"))


def in_parquet(path: Path, rows: Sequence[Row]) -> Path:
    typed = [{**row, "income": None if row["income"] == "" else row["income"]} for row in rows]
    parquet.write_table(pyarrow.Table.from_pylist(typed), path, row_group_size=7)
    return path


def in_csv(path: Path, rows: Sequence[Row]) -> Path:
    """With lines that are empty, rows that are several, and some without a target."""
    lines = [",".join(map(str, cells)) for cells in (rows[0], *(row.values() for row in rows))]
    lines[5:5] = ["", ""]
    lines[9] = lines[9].replace("note ", '"note\n').replace(",DE", '",DE')
    lines[20] = lines[20].rpartition(",")[0] + ","
    path.write_text("\n".join(lines) + "\n")
    return path


def in_json(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("save", "kind"), [(in_csv, "csv"), (in_parquet, "parquet"), (in_json, "jsonl")])
@pytest.mark.parametrize("settings", [{}, {"decimal": ","}, {"split_by": {"time": "since"}}])
def test_rows_of_tables_are_called_by_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[..., Path], kind: str, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr("torchloom.data.rows.BLOCK", 16)
    (tmp_path / "people").mkdir()
    rows = [{**row, "income": row["income"] or 1} for row in people(80)]
    save(tmp_path / f"people/a.{kind}", rows[:50])
    save(tmp_path / f"people/b.{kind}", rows[50:])
    given = {"files": str(tmp_path / "people"), "target": "bike", "columns": {"id": "number"}, **settings}
    config = TableFilesPreprocessConfig.model_validate(given)
    prepared = table.preprocess(table.find(config), config, tmp_path)
    check(prepared, tmp_path / "people", tmp_path / "kept")


@pytest.mark.parametrize("as_list", [True, False])
def test_rows_of_an_entry_are_called_by_it_and_their_number(tmp_path: Path, as_list: bool) -> None:
    rows = [{**row, "income": row["income"] or 1} for row in people(60)]
    config = TableFilesPreprocessConfig.model_validate(
        {"entry": "bikes", "target": "bike", "columns": {"id": "number"}}
    )
    prepared = table.preprocess_entry(rows if as_list else pyarrow.Table.from_pylist(rows), config)
    plan = planned(prepared, tmp_path)
    ids = plan.chosen("test", range(plan.length("test")))[0][:, plan.info.features.index("id")]  # type: ignore[union-attr]
    assert named(plan, "test") == [f"bikes:{int(number)}" for number in ids.tolist()]


def test_texts_of_a_table_are_called_by_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews.csv", reviews(60))
    config = TextFilesPreprocessConfig(files=str(path), target="verdict")
    check(texts.preprocess(texts.find(config), config, tmp_path), path, tmp_path / "kept")


def test_texts_in_folders_are_called_as_their_files(tmp_path: Path) -> None:
    for number, row in enumerate(reviews(30)):
        place = tmp_path / "reviews" / ("good" if row["stars"] > 2 else "bad") / f"{number}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(row["review"])
    config = TextFilesPreprocessConfig(files=str(tmp_path / "reviews"))
    prepared = texts.preprocess(texts.find(config), config, tmp_path)
    assert check(prepared, tmp_path / "reviews", tmp_path / "kept")[0].startswith(("bad/", "good/"))


def test_pairs_of_texts_are_called_by_file_and_line(tmp_path: Path) -> None:
    rows = [{"text": f"{row['review']} {number}", "short": row["verdict"]} for number, row in enumerate(reviews(40))]
    path = write(tmp_path / "pairs.csv", rows)
    config = PairsPreprocessConfig(files=str(path), target="short", text="text")
    check(pairs.preprocess(pairs.find(config), config, tmp_path), path, tmp_path / "kept")


def test_sounds_are_called_as_their_files(tmp_path: Path) -> None:
    write(tmp_path / "all/all.csv", whistles(tmp_path / "all", 20))
    config = SoundFilesPreprocessConfig(files=str(tmp_path / "all"), target="height")
    check(sounds.preprocess(sounds.find(config), config, tmp_path), tmp_path / "all", tmp_path / "kept")


@pytest.mark.parametrize(
    ("rows", "settings", "first"),
    [
        (waves(40), {"columns": WAVES}, "waves.csv:"),
        (steps(waves(40)), {"series": "wave", "time": "step", "columns": ["x", "y"]}, "waves.csv:wave "),
    ],
)
def test_labelled_series_are_called_by_file_and_line_or_by_their_own_name(
    tmp_path: Path, rows: list[Row], settings: dict[str, Any], first: str
) -> None:
    path = write(tmp_path / "waves.csv", rows)
    given = {"files": str(path), "target": "kind", **settings}
    config = LabelledSeriesPreprocessConfig.model_validate(given)
    prepared = labelled_series.preprocess(labelled_series.find(config), config, tmp_path)
    assert all(name.startswith(first) for name in check(prepared, path, tmp_path / "kept"))


@pytest.mark.parametrize("packed", [True, False])
def test_series_in_arrays_are_called_by_file_and_place(tmp_path: Path, packed: bool) -> None:
    generator, place = np.random.default_rng(0), tmp_path / "waves"
    place.mkdir()
    x, y = generator.normal(size=(40, 15)), np.arange(40) % 2
    if packed:
        place = place / "waves.npz"
        np.savez(place, x=x, y=y)
    else:
        np.save(place / "x.npy", x)
        np.save(place / "y.npy", y)
    given = {"files": str(place), "target": "y", "target_type": "classes", "array": "x"}
    config = LabelledSeriesPreprocessConfig.model_validate(given)
    prepared = labelled_series.preprocess(labelled_series.find(config), config, tmp_path)
    first = "waves.npz:x:" if packed else "x.npy:"
    assert all(name.startswith(first) for name in check(prepared, place, tmp_path / "kept"))
