"""The pipeline `predict`: models of each kind, and files of a user's own."""

import csv
import logging
import re
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from kedro.framework.project import pipelines
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog
from matplotlib.figure import Figure
from PIL import Image

import exported
from conftest import ROOT
from torchloom.config import ContinueConfig, PredictConfig
from torchloom.data.tables import LARGEST_TEXT
from torchloom.data.targets import Number, Numbers
from torchloom.datasets.reports import FigureDataset
from torchloom.errors import InputError
from torchloom.export.onnx import export_checkpoint
from torchloom.inference import kept
from torchloom.inference.reading import AHEAD, read_ahead
from torchloom.modalities.documents import pad
from torchloom.pipelines.prediction import nodes
from torchloom.pipelines.prediction.nodes import ask, find
from torchloom.problems.language_model.config import GenerateConfig
from torchloom.problems.language_model.generation import continue_text, stepper
from torchloom.records.running import Run

pytestmark = pytest.mark.xdist_group("export")  # in one process, for the sake of what the tests share


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


class Answer:
    """What `predict` returns: rows, reasons by file, the texts on the sheet."""

    def __init__(self, kind: str, files: Path, **settings: Any) -> None:
        model = exported.write(kind, files.parent)
        config = PredictConfig(model=str(model), files=str(files), models="", **settings)
        table, same, self.sheet, unreadable, self.scores, _ = ask(*find(config), config)
        assert table is same
        self.names = table.column_names
        self.rows: list[dict[str, Any]] = table.to_pylist()
        self.unreadable = {row["file"]: row["reason"] for row in unreadable.to_pylist()}
        assert isinstance(self.sheet, Figure)

    @property
    def captions(self) -> list[str]:
        return [text.get_text() for text in self.sheet.axes[0].texts]


def save_pictures(folder: Path, count: int) -> np.ndarray:
    """Pictures 00.png, 01.png, … and what the model makes of them: (count, 1, 6, 8) uint8."""
    images = np.stack([exported.picture(number) for number in range(count)])
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:02}.png")
    return images[:, None]


# ---- each kind of model --------------------------------------------------------------------------------------------


def test_pictures_are_classified(files: Path) -> None:
    images = save_pictures(files, 7)
    answer = Answer("images", files, batch_size=3, top=2, pictures=5)
    expected = exported.probabilities("images", images)
    assert answer.names == ["file", "class_1", "probability_1", "class_2", "probability_2"]
    assert [row["file"] for row in answer.rows] == [f"{number:02}.png" for number in range(7)]
    for row, shares in zip(answer.rows, expected, strict=True):
        order = np.argsort(-shares)
        assert [row["class_1"], row["class_2"]] == [exported.CLASSES[place] for place in order[:2]]
        assert [row["probability_1"], row["probability_2"]] == pytest.approx(shares[order[:2]], abs=1e-5)
    first = answer.rows[0]
    assert len(answer.captions) == 5
    assert answer.captions[0].replace("\\", "") == f"{first['class_1']} {first['probability_1']:.0%}"
    assert answer.unreadable == {}


@pytest.mark.parametrize(("loss", "sure"), [("BCEWithLogitsLoss", True), ("MSELoss", False)])
def test_probabilities_are_those_of_the_loss_that_trained(files: Path, loss: str, sure: bool) -> None:
    trained = exported.checkpoint("images").model_copy(update={"training": {"parameters": {"loss": {"name": loss}}}})
    path = files.parent / "trained.onnx"
    path.write_bytes(export_checkpoint(trained))
    images = save_pictures(files, 2)
    config = PredictConfig(model=str(path), files=str(files), models="", top=2)
    table, _, sheet, *_ = ask(*find(config), config)
    logits = exported.answers("images", images)
    order = np.argsort(-logits, axis=1)
    assert table["class_2"].to_pylist() == [exported.CLASSES[place] for place in order[:, 1]]
    captions = " ".join(text.get_text() for text in sheet.axes[0].texts)
    assert ("%" in captions) is sure
    if sure:
        expected = 1 / (1 + np.exp(-logits.max(1)))
        assert table["probability_1"].to_pylist() == pytest.approx(expected.tolist(), abs=1e-5)
    else:
        assert table.column_names == ["file", "class_1", "class_2"]


def test_more_classes_are_asked_for_than_there_are(files: Path) -> None:
    save_pictures(files, 1)
    answer = Answer("images", files, top=100)
    assert len(answer.names) == 1 + 2 * len(exported.CLASSES)
    shares = [answer.rows[0][f"probability_{place}"] for place in (1, 2, 3)]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_one_picture(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_pictures(files, 2)
    with caplog.at_level(logging.INFO, logger="torchloom"):
        assert [row["file"] for row in Answer("images", files / "01.png").rows] == ["01.png"]
    assert f"{files / '01.png'}: 1 prediction, 0 unreadable" in caplog.messages


def test_pictures_are_reconstructed(files: Path) -> None:
    images = save_pictures(files, 3)
    answer = Answer("reconstruction", files)
    reconstructions, latents, _ = exported.answers("reconstruction", images)
    errors = ((images / 255 - reconstructions) ** 2).mean((1, 2, 3))
    assert answer.names == ["file", "mse", "latent_1", "latent_2", "latent_3"]
    found = np.array([list(row.values())[1:] for row in answer.rows])
    np.testing.assert_allclose(found, np.column_stack([errors, latents]), atol=1e-5)
    assert answer.captions == [f"MSE {error:.4f}" for error in found[:, 0]]


def test_it_is_said_when_pictures_are_not_put_as_in_the_test(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = save_pictures(files, 3)
    with caplog.at_level(logging.INFO, logger="torchloom"):
        asked = Answer("images", files, fit="crop", views="one", top=1)
        assert "pictures are not put to the model" not in caplog.text
        swapped = Answer("images", files, fit="pad", invert=True, value_range=[0, 4095], top=1)
    assert (
        'pictures are not put to the model as those of its test were: fit "pad" instead of "crop", value_range '
        "[0.0, 4095.0] instead of null, invert true instead of false"
    ) in caplog.messages
    for answer, pixels in ((asked, images), (swapped, 255 - images)):
        expected = exported.probabilities("images", pixels).max(1)
        assert [row["probability_1"] for row in answer.rows] == pytest.approx(expected, abs=1e-5)


TEXTS = ["A good film.", "bad", "a film , a BAD film"]


@pytest.mark.parametrize("single", [True, False], ids=["lines", "files"])
def test_documents_are_classified(files: Path, single: bool) -> None:
    if single:
        (files / "texts.txt").write_text("\n\n".join(TEXTS))
    else:
        for number, text in enumerate(TEXTS):
            (files / f"{number}.txt").write_text("\ufeff" * number + text + "\n")
    answer = Answer("documents", files / "texts.txt" if single else files)
    tokens = pad([exported.WORDS.encode(text) for text in TEXTS])
    expected = exported.probabilities("documents", tokens["tokens"], tokens["lengths"])
    names = [f"texts.txt:{line}" for line in (1, 3, 5)] if single else ["0.txt", "1.txt", "2.txt"]
    assert [row["file"] for row in answer.rows] == names
    for row, shares in zip(answer.rows, expected, strict=True):
        assert row["class_1"] == ["bad", "good"][shares.argmax()]
        assert row["probability_1"] == pytest.approx(shares.max(), abs=1e-5)
    assert answer.captions[0].startswith(f"{names[0]}\n")
    assert answer.captions[1] == exported.WORDS.decode(exported.WORDS.encode(TEXTS[0]))  # as the model sees it


def test_prompts_are_continued(files: Path) -> None:
    prompts = ["abc", " a "]
    (files / "prompts.txt").write_text("\n".join([*prompts, "Übung"]))
    settings = ContinueConfig(length=9, temperature=2.0, seed=3)
    answer = Answer("text", files / "prompts.txt", generate=settings)
    step = stepper(exported.checkpoint("text").build())
    for row, prompt in zip(answer.rows, prompts, strict=True):
        config = GenerateConfig(prompt=prompt, **settings.model_dump())
        assert row["prompt"] + row["continuation"] == continue_text(
            step, exported.LETTERS, config, seed=3 + zlib.crc32(prompt.encode())
        )
        assert row["prompt"] == prompt
        assert len(row["continuation"]) == 9
    assert answer.rows[0]["continuation"] != answer.rows[1]["continuation"]
    assert list(answer.unreadable) == ["prompts.txt:3"]
    assert "'Ü'" in answer.unreadable["prompts.txt:3"]


def test_a_prompt_in_a_file_keeps_its_spaces_as_one_in_a_line(files: Path) -> None:
    prompts = [" a ", "abc", "a b\n", "  "]
    for number, prompt in enumerate(prompts):
        (files / f"{number}.txt").write_text(prompt + "\n")
    settings = ContinueConfig(length=5, temperature=2.0)
    found = {row["prompt"]: row["continuation"] for row in Answer("text", files, generate=settings).rows}
    assert list(found) == prompts
    lines = files.parent / "prompts.txt"
    lines.write_text(" a \nabc\n")
    for row in Answer("text", lines, generate=settings).rows:
        assert found[row["prompt"]] == row["continuation"]


def test_rows_of_numbers_are_answered_by_name(files: Path) -> None:
    (files / "a.csv").write_text("bmi,name,age\n20,x,40\n\n30, y,6e1\n")
    (files / "b.csv").write_bytes(b'\xef\xbb\xbf"age", "bmi"\r\n"50","25"\r\nold,25\r\n50\r\n50,inf\r\n')
    answer = Answer("table", files)
    expected = exported.answers("table", np.array([[40, 20], [60, 30], [50, 25]], dtype=np.float32))
    assert [row["file"] for row in answer.rows] == ["a.csv:2", "a.csv:4", "b.csv:2"]
    assert [row["glucose"] for row in answer.rows] == pytest.approx(expected, rel=1e-5)
    assert answer.unreadable == {
        "b.csv:3": "age: 'old' is not a number",
        "b.csv:4": "has 1 cells, but the first line names 2 columns",
        "b.csv:5": "bmi: 'inf' is not a finite number of 32 bits",
    }


@pytest.mark.parametrize("name", ["file", "remarks"])
def test_the_target_may_be_called_as_a_column_of_ours(files: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    info = exported.TABLE.model_copy(update={"target": Number(name=name, mean=100.0, std=20.0)})
    monkeypatch.setitem(exported.KINDS, name, ("regression", "linear", {}, info))
    (files / "a.csv").write_text("bmi,age\n20,40\n")
    answer = Answer(name, files)
    (row,) = answer.rows
    assert row[name] == pytest.approx(exported.answers(name, np.array([[40, 20]], dtype=np.float32))[0], rel=1e-5)
    assert row["source file" if name == "file" else "file"] == "a.csv:2"
    assert answer.sheet.axes[0].get_xlabel() == name  # how the answers are spread


def test_the_truth_has_a_column_that_no_answer_has(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [Number(name=name, mean=0.0, std=1.0) for name in ("a", "true a")]
    one = exported.TABLE.model_copy(update={"target": Number(name="true", mean=100.0, std=20.0)})
    several = exported.TABLE.model_copy(update={"target": Numbers(numbers=numbers)})
    monkeypatch.setitem(exported.KINDS, "one called true", ("regression", "linear", {}, one))
    monkeypatch.setitem(exported.KINDS, "several called true", ("regression", "linear", {}, several))
    (files / "a.csv").write_text("bmi,age,true,a,true a\n20,40,0.1,16777217,7\n20,40,,,\n")
    answer = Answer("one called true", files)
    assert answer.names == ["file", "true true", "true"]
    assert [row["true true"] for row in answer.rows] == [0.1, None]
    answer = Answer("several called true", files)
    assert answer.names == ["file", "true true a", "true true true a", "a", "true a"]
    assert [list(row.values())[1:3] for row in answer.rows] == [[16777217.0, 7.0], [None, None]]


def test_of_tables_a_model_that_learnt_from_text_files_takes_the_column_text(files: Path) -> None:
    """And not their lines."""
    (files / "a.csv").write_text('number,text\n1,"a good film"\n2,bad\n')
    (files / "b.csv").write_text("number,said\n1,good\n")
    answer = Answer("documents", files)
    assert [row["file"] for row in answer.rows] == ["a.csv:2", "a.csv:3"]
    tokens = pad([exported.WORDS.encode("a good film")])
    shares = exported.probabilities("documents", tokens["tokens"], tokens["lengths"])
    assert answer.rows[0]["probability_1"] == pytest.approx(shares.max(), abs=1e-5)
    assert re.search("^lacks 'text'; its first line must name the columns", answer.unreadable["b.csv"])


def test_the_end_of_a_series_is_held_back(files: Path) -> None:
    """Of each file what can be, in the same columns; rows before one that is too short are told."""
    days = [f"2024-01-{day:02},{50 + day},{0.2 + day / 100:.2f}" for day in range(1, 9)]
    (files / "a.csv").write_text("\n".join(["day,load,heat", *days]))
    (files / "b.csv").write_text("\n".join(["day,load,heat", *days[:4], "2024-01-05,,0.5", "2024-01-06,57,"]))
    (files / "short.csv").write_text("\n".join(["day,load,heat", *days[:5]]))
    answer = Answer("series", files, holdout=True)
    assert answer.names == ["file", "true load", "true heat", "day", "load", "heat", "remarks"]
    assert [row["day"] for row in answer.rows] == ["2024-01-07", "2024-01-08", "2024-01-05", "2024-01-06"]
    true = np.array([[row["true load"], row["true heat"]] for row in answer.rows])
    np.testing.assert_allclose(true, [[57, 0.27], [58, 0.28], [np.nan, 0.5], [57, np.nan]], rtol=1e-6)
    assert answer.unreadable == {
        "short.csv": "needs 4 rows, 1 day apart, up to 2024-01-03, and has 3 without a gap of more than 1"
    }
    found = np.array([[row["load"], row["heat"]] for row in answer.rows])
    off = ((found - true) / [10.0, 0.1]).reshape(2, 2, 2)
    assert answer.scores["samples"] == 2
    assert answer.scores["mse"] == pytest.approx(np.nanmean(off**2, axis=0).mean(), rel=1e-4)
    assert answer.scores["mae"] == pytest.approx(np.nanmean(abs(off), axis=0).mean(), rel=1e-4)
    rest = files.parent / "rest.csv"
    rest.write_text("\n".join(["day,load,heat", *days[:6]]))
    plain = Answer("series", rest)
    assert plain.names == ["file", "day", "load", "heat", "remarks"]
    assert [row["load"] for row in plain.rows] == [row["load"] for row in answer.rows[:2]]
    save_pictures(files, 1)
    with pytest.raises(InputError, match=r"^predict\.holdout: is for models that forecast series; leave it out"):
        Answer("images", files, holdout=True)


# ---- what cannot be read -------------------------------------------------------------------------------------------


def test_what_cannot_be_read_does_not_stop_the_rest(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_pictures(files, 2)
    (files / "00.png").rename(files / "odd, name\n.png")
    for name, data in {"a.png": b"", "b.txt": b"hello", "c.png": (files / "01.png").read_bytes()[:60]}.items():
        (files / name).write_bytes(data)
    with caplog.at_level(logging.INFO, logger="torchloom"):
        answer = Answer("images", files, batch_size=1)
    assert [row["file"] for row in answer.rows] == ["01.png", "odd, name\n.png"]
    assert list(answer.unreadable) == ["a.png", "b.txt", "c.png"]
    assert answer.unreadable["a.png"] == "is empty"
    assert answer.unreadable["b.txt"].startswith("is not a picture that can be read here")
    assert answer.unreadable["c.png"].startswith("is a damaged picture (")
    assert f"{files}: 2 predictions, 3 unreadable" in caplog.messages
    assert "a.png: is empty" in caplog.messages


def test_what_systems_leave_in_folders_is_not_looked_at(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_pictures(files, 2)
    for name in ("__MACOSX/._00.png", ".DS_Store", "._00.png", "Thumbs.db", "desktop.ini", "@eaDir/00.png/THUMB.jpg"):
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_bytes(b"\0\x05\x16\x07")
    (files / "linked").symlink_to(files.parent)
    answer = Answer("images", files)
    assert [row["file"] for row in answer.rows] == ["00.png", "01.png"]
    assert answer.unreadable == {}
    assert f"{files}: links to folders, and to nothing, are skipped: linked" in caplog.messages


@pytest.mark.parametrize("kind", list(exported.KINDS))
def test_nothing_can_be_read(kind: str, files: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    for number in range(7):
        (files / f"{number}").write_bytes(b"\xff\xfe\x00")
    answer = Answer(kind, files)
    assert answer.rows == []
    assert answer.names[0] == "file"
    assert len(answer.names) > 1
    assert len(answer.unreadable) == 7
    answer.sheet.savefig(tmp_path / "sheet.png")
    assert "and 2 more, see the table of what is unreadable" in caplog.messages


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("age,weight\n1,2\n3,4\n", "^lacks 'bmi'; its first line must name the columns, and has 'age', 'weight'$"),
        ("1,2\n3,4\n", "^lacks 'age', 'bmi'; its first line must name"),
        ("", "^lacks 'age', 'bmi'; .* has nothing$"),
        ("age,bmi,age\n1,2,3\n", "^its first line names 'age' more than once, and only one can be meant. Rename or r"),
        ("age,bmi, age \n1,2,3\n", "^its first line names 'age' more than once"),
        ('age,bmi\n"' + "1" * (1 << 25), "^line 2 is not CSV"),
    ],
    ids=["another column", "no names", "empty", "a name twice", "and with spaces", "an endless cell"],
)
def test_a_table_is_refused_once_and_not_row_by_row(files: Path, text: str, reason: str) -> None:
    (files / "table.csv").write_text(text)
    answer = Answer("table", files)
    assert answer.rows == []
    assert list(answer.unreadable) == ["table.csv"]
    assert re.search(reason, answer.unreadable["table.csv"])


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_cells_may_be_separated_otherwise(files: Path, mark: str) -> None:
    (files / "table.csv").write_text(f"age{mark} bmi\n40{mark} 20\n")
    expected = exported.answers("table", np.array([[40, 20]], dtype=np.float32))
    assert [row["glucose"] for row in Answer("table", files).rows] == pytest.approx(expected, rel=1e-5)


def test_columns_that_are_left_out_may_have_one_name(files: Path) -> None:
    (files / "table.csv").write_text(" age ,note,bmi,note,,\n40,x,20,y,,\n")
    expected = exported.answers("table", np.array([[40, 20]], dtype=np.float32))
    assert [row["glucose"] for row in Answer("table", files).rows] == pytest.approx(expected, rel=1e-5)


def test_cells_that_are_no_numbers(files: Path) -> None:
    cells = ["1_000", "\uff15", "5,0", "0x10", "", "5\xa0", "1e1"]
    (files / "table.csv").write_text("age,bmi\n" + "".join(f'"{cell}",20\n' for cell in cells))
    answer = Answer("table", files)
    expected = exported.answers("table", np.array([[5, 20], [10, 20]], dtype=np.float32))
    assert [row["glucose"] for row in answer.rows] == pytest.approx(expected, rel=1e-5)
    assert answer.unreadable == {
        "table.csv:2": "age: '1_000' is not a number",
        "table.csv:3": "age: '\uff15' is not a number",
        "table.csv:4": "age: '5,0' is not a number. It takes no comma: decimals follow a point",
        "table.csv:5": "age: '0x10' is not a number",
        "table.csv:6": "age: '' is not a number",
    }


def test_a_file_that_turns_bad_keeps_the_rows_before(files: Path) -> None:
    (files / "table.csv").write_bytes(b"age,bmi\n" + b"50,25\n" * 10_000 + b"\xff,1\n")
    answer = Answer("table", files)
    assert 1 <= len(answer.rows) <= 10_000
    assert answer.unreadable == {"table.csv": "is not a text in UTF-8 (invalid start byte). Save it as such"}


def test_a_text_that_is_far_too_long_is_not_read_to_its_end(files: Path) -> None:
    (files / "a.txt").write_text("film " * (LARGEST_TEXT // 5 + 1))
    assert Answer("documents", files).unreadable == {"a.txt": "holds more than 10,000,000 characters"}


def test_a_file_that_has_gone_since_it_was_found(files: Path) -> None:
    save_pictures(files, 2)
    config = PredictConfig(model=str(exported.write("images", files.parent)), files=str(files), models="")
    found = find(config)
    (files / "00.png").unlink()
    table, _, _, unreadable, *_ = ask(*found, config)
    assert table["file"].to_pylist() == ["01.png"]
    assert unreadable.to_pylist() == [{"file": "00.png", "reason": "cannot be read (No such file or directory)"}]


# ---- reading ahead -------------------------------------------------------------------------------------------------


def test_no_more_is_held_than_what_is_read_ahead() -> None:
    """However many there are to read: what has been handed on is forgotten."""

    class Value:
        pass

    alive: weakref.WeakSet[Value] = weakref.WeakSet()
    asked = []

    def read() -> Value:
        value = Value()
        alive.add(value)
        return value

    def samples() -> Any:
        for number in range(300):
            asked.append(number)
            yield str(number), read

    most = 0
    for number, batch in enumerate(read_ahead(samples(), 10)):
        assert batch.names == [str(10 * number + place) for place in range(10)]
        most = max(most, len(alive))
        assert len(asked) <= 10 * (number + 1 + AHEAD)
    assert number == 29
    assert most <= 10 * (AHEAD + 2)


# ---- through Kedro -------------------------------------------------------------------------------------------------


def test_the_pipeline_leaves_its_tables_and_its_sheet(
    run: Callable[..., DataCatalog], project: Path, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_pictures(files, 3)
    (files / "notes.txt").write_text("hello")
    model = exported.write("images", files.parent)
    with caplog.at_level(logging.INFO, logger="torchloom"):
        catalog = run("predict", params={"predict": {"model": str(model), "files": str(files), "top": 1}})
    folder = project / "data/sample/07_model_output/predict"
    table = catalog.load("predict.predictions_parquet")
    assert table.column_names == ["file", "class_1", "probability_1"]
    with (folder / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == table.column_names
    assert [row[:2] for row in rows[1:]] == [[row["file"], row["class_1"]] for row in table.to_pylist()]
    assert catalog.load("predict.unreadable")["file"].to_pylist() == ["notes.txt"]
    assert (folder / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")
    answers = ["predictions.csv", "predictions.parquet", "unreadable.csv"]
    shown = "  ".join(f"{folder / name}" for name in answers)
    assert f"  answers:  {shown}\n  pictures: {folder / 'contact_sheet.png'}" in caplog.text


def test_the_last_lines_say_how_good_the_answers_are(
    run: Callable[..., DataCatalog], project: Path, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (files / "a.csv").write_text("age,bmi,glucose\n40,20,90\n60,30,120\n")
    asked = {"predict": {"model": str(exported.write("table", files.parent)), "files": str(files)}}
    with caplog.at_level(logging.INFO, logger="torchloom"):
        scores = run("predict", params=asked).load("predict.scores")
        path = project / "data/sample/07_model_output/predict/metrics.json"
        lines = caplog.messages[-1].splitlines()
        assert lines[1] == f"predict  r2 {scores['r2']:.4f}  rmse {scores['rmse']:.4f}"
        assert f"  metrics:  {path}" in lines
        assert "unreadable, see" not in caplog.messages[-1]
        (files / "a.csv").write_text("age,bmi\n40,20\nold,20\n50,fat\n")
        assert run("predict", params=asked).load("predict.scores") == {}
        lines = caplog.messages[-1].splitlines()
        assert lines[1:3] == ["predict", f"  2 unreadable, see {path.with_name('unreadable.csv')}"]
        assert "metrics" not in caplog.messages[-1]


def test_nothing_of_ones_own_is_lost_where_answers_are_written_anew(
    run: Callable[..., DataCatalog], project: Path, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (files / "a.csv").write_text("age,bmi\n40,20\n")
    asked = {"predict": {"model": str(exported.write("table", files.parent)), "files": str(files)}}
    run("predict", params=asked)
    folder = project / "data/sample/07_model_output/predict"
    (folder / "notes.txt").write_text("mine")
    (files / "b.csv").write_text("age,bmi\n60,30\n")  # which is no work on the list of files
    run("predict", params=asked)
    assert not list(folder.glob("*.kept-*"))
    for number in (1, 2):
        (folder / "predictions.csv").write_text(f"worked on {number}")
        run("predict", params=asked)
        assert (folder / f"predictions.kept-{number}.csv").read_text() == f"worked on {number}"
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "predictions.csv").read_text().startswith('"file","glucose"')
    assert "predictions.csv: is not as it was written, and is kept as predictions.kept-2.csv" in caplog.text
    assert len(list(folder.glob("*.kept-*"))) == 2


NOTHING_ANSWERED = r"odd: nothing of it can be answered by .*\.onnx: b\.csv: lacks 'bmi'"


def test_after_a_run_that_failed_no_other_answers_lie_in_their_place(
    run: Callable[..., DataCatalog], project: Path, files: Path
) -> None:
    """Those of the run before are put away, as often as it fails, and go when there are new ones."""
    folder = project / "data/sample/07_model_output/predict"
    answers = {"predictions.csv", "predictions.parquet", "contact_sheet.png", "unreadable.csv"}
    (files / "a.csv").write_text("age,bmi\n40,20\n")
    asked = {"predict": {"model": str(exported.write("table", files.parent)), "files": str(files)}}
    run("predict", params=asked)
    first = (folder / "predictions.csv").read_bytes()
    wrong = {"predict": {**asked["predict"], "model": "mnist_mpl"}}  # the first stage fails
    damaged = {"predict": {**asked["predict"], "model": str(files / "a.onnx")}}  # and here the second
    (files / "a.onnx").write_bytes(b"no model")
    nothing = {"predict": {"model": asked["predict"]["model"], "entry": "nothing"}}  # and here not even the first
    (files.parent / "odd").mkdir()
    (files.parent / "odd/b.csv").write_text("age\n40\n")
    odd = {"predict": {**asked["predict"], "files": str(files.parent / "odd")}}  # of which nothing can be answered
    for params, message in ((nothing, ""), (wrong, ""), (damaged, ""), (odd, NOTHING_ANSWERED), (nothing, "")):
        with pytest.raises(InputError, match=message):
            run("predict", params=params)
        assert {path.name for path in folder.iterdir()} - {"model.json", "files.json"} == {"previous"}
        assert {path.name for path in (folder / "previous").iterdir()} == answers
        assert (folder / "previous/predictions.csv").read_bytes() == first
    (files / "a.onnx").unlink()
    (files / "a.csv").write_text("age,bmi\n60,30\n")
    run("predict", params=asked)
    assert {path.name for path in folder.iterdir()} == {*answers, "model.json", "files.json"}
    assert (folder / "predictions.csv").read_bytes() != first


def test_nothing_of_ones_own_is_lost_where_answers_are_put_away(
    run: Callable[..., DataCatalog], project: Path, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = project / "data/sample/07_model_output/predict"
    previous = folder / "previous"
    (files / "a.csv").write_text("age,bmi\n40,20\n")
    asked = {"predict": {"model": str(exported.write("table", files.parent)), "files": str(files)}}
    wrong = {"predict": {**asked["predict"], "model": "mnist_mpl"}}
    run("predict", params=asked)
    previous.mkdir()
    (previous / "notes.txt").write_text("mine")
    (previous / "contact_sheet.png").write_text("mine, too")
    with pytest.raises(InputError):
        run("predict", params=wrong)
    assert (previous / "contact_sheet.kept-1.png").read_text() == "mine, too"
    (previous / "predictions.csv").write_text("worked on")
    run("predict", params=asked)
    kept = {"notes.txt", "contact_sheet.kept-1.png", "predictions.kept-1.csv"}
    assert {path.name for path in previous.iterdir()} == kept
    assert (previous / "predictions.kept-1.csv").read_text() == "worked on"
    assert "is not as it was put away, and is kept as predictions.kept-1.csv" in caplog.text
    for path in (*previous.iterdir(),):
        path.unlink()
    previous.rmdir()
    previous.write_text("a file")
    with pytest.raises(InputError, match=r"predictions.*: cannot be put away into .*previous \(.*\)\. Rename"):
        run("predict", params=asked)
    assert previous.read_text() == "a file"


@pytest.mark.parametrize("killed", [False, True])
def test_halves_of_a_run_are_nobodys_work(
    run: Callable[..., DataCatalog], project: Path, files: Path, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project / "data/sample/07_model_output/predict"
    (files / "a.csv").write_text("age,bmi\n40,20\n")
    asked = {"predict": {"model": str(exported.write("table", files.parent)), "files": str(files)}}
    run("predict", params=asked)
    first = (folder / "predictions.csv").read_bytes()
    (files / "a.csv").write_text("age,bmi\n60,30\n")
    with monkeypatch.context() as patched:
        full = InputError("contact_sheet.png: cannot be written (No space left on device)")
        patched.setattr(FigureDataset, "save", lambda *_: (_ for _ in ()).throw(full))
        if killed:  # nothing is tidied up
            patched.setattr(Run, "finish", lambda *_, **__: None)
        with pytest.raises(InputError, match="No space left"):
            run("predict", params=asked)
    assert (folder / "predictions.parquet").exists() is killed
    assert (folder / "previous/predictions.csv").read_bytes() == first
    (files / "a.csv").write_text("age,bmi\n50,25\n")
    if killed:  # but of what somebody has made of a half since
        (folder / "predictions.csv").write_text("mine")
    run("predict", params=asked)
    assert [path.read_text() for path in folder.glob("*.kept-*")] == (["mine"] if killed else [])
    assert not (folder / "previous").exists()
    assert len((folder / "predictions.csv").read_text().splitlines()) == 2


def test_a_mistake_in_its_parameters_is_one_message(run: Callable[..., DataCatalog], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the parameters hold 2 mistakes") as caught:
        run("predict", params={"predict": {"fil": "x", "top": 0, "model": "mnist_mlp"}})
    assert "predict.fil: unknown key (did you mean files?)" in caught.value.message
    assert "predict.top: given 0; must be greater than or equal to 1" in caught.value.message
    with pytest.raises(InputError, match=r"^predict\.model mnist_mlp: there is no .*06_models/mnist_mlp/model\.onnx"):
        run("predict", params={"predict": {"files": str(tmp_path)}})


def test_it_runs_only_when_it_is_asked_for() -> None:
    bootstrap_project(ROOT)
    assert [node.name for node in pipelines["predict"].nodes] == ["predict.find", "predict.predict"]
    assert not {node.name for node in pipelines["predict"].nodes} & {
        node.name for node in pipelines["__default__"].nodes
    }


# ---- more answers than memory holds --------------------------------------------------------------------------------


def test_answers_lie_on_the_disk_until_all_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "AT_ONCE", 10)
    schema = pyarrow.schema({"name": pyarrow.string(), "number": pyarrow.float32()})
    with kept.Kept(schema, tmp_path) as answers:
        for start in range(0, 40, 4):
            columns = {"name": [f"row {number}" for number in range(start, start + 4)], "number": [start] * 4}
            answers.add(pyarrow.record_batch(columns, schema=schema))
        table = answers.table()
    assert table["name"].to_pylist() == [f"row {number}" for number in range(40)]
    assert table["number"].to_pylist() == [number // 4 * 4 for number in range(40)]
    assert table["name"].num_chunks == 4
    assert list(tmp_path.iterdir()) == []
    with kept.Kept(schema) as nothing:
        assert len(nothing.table()) == 0


def test_of_many_answers_some_are_judged_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "JUDGED", 10)
    told = nodes.Told()
    for start in range(0, 60, 6):
        told.add([number if number % 3 else None for number in range(start, start + 6)])
    told.add([ValueError("first"), ValueError("second")])
    assert (told.known, told.step, told.odd, str(told.wrong)) == (40, 4, 2, "first")
    assert told.places == told.values == [number for number in range(60) if number % 3][::4]
    few = nodes.Told()
    assert few.add(["a", None, ValueError("odd"), "b"]) == ["a", None, None, "b"]
    assert (few.places, few.values, few.step) == ([0, 3], ["a", "b"], 1)
