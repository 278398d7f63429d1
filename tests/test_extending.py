"""What the guides teach about adding things, done as they say."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT, kedro, kedro_run
from tests.tables import hours, people, reviews, steps, waves, write
from torchloom.config import ServeConfig
from torchloom.data.readers.mnist import draw_sample
from torchloom.data.readers.wonderland import FILE as BOOK
from torchloom.data.readers.wonderland import draw_sample as draw_book
from torchloom.inference.model import open_model
from torchloom.inference.serving import answerer

GUIDES = ("extend.md", "own-images.md", "own-data.md", "own-texts.md", "own-series.md")
PAGES = "".join((ROOT / "docs/how-to" / name).read_text() for name in GUIDES)
BLOCKS = re.findall(r"```(?:python|yaml)\n(.*?)```", PAGES, flags=re.DOTALL)


def block(start: str) -> str:
    """The code block of the guides that begins like this."""
    (found,) = [text for text in BLOCKS if text.lstrip().startswith(start)]
    return found


def accuracy(project: Path, folder: str, task: str) -> float:
    return float(json.loads((project / folder / "08_reporting" / task / "metrics.json").read_text())["accuracy"])


@pytest.mark.long
def test_add_a_task_and_a_network(project: Path) -> None:
    (project / "conf/base/parameters/mnist_resnet.yml").write_text(block("mnist_resnet:"))
    (project / "src/torchloom/models/logistic.py").write_text(block('"""Multinomial'))
    small = "mnist_resnet.model.width=4,mnist_resnet.train.epochs=2"
    result = kedro(project, "run", "--env", "sample", "--pipelines", "mnist_resnet", "--params", small)
    assert result.returncode == 0, result.stderr
    assert accuracy(project, "data/sample", "mnist_resnet") > 0.3
    other = "mnist_resnet.model.name=logistic,mnist_resnet.model.width=null,mnist_resnet.model.bias=false"
    train = ("--params", f"{other},mnist_resnet.train.epochs=1", "--tags", "train")
    result = kedro(project, "run", "--env", "sample", "--pipelines", "mnist_resnet", *train)
    assert result.returncode == 0, result.stderr
    assert "logistic with 7,840 parameters" in result.stderr


@pytest.mark.long
def test_add_a_data_set(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "letters").mkdir()
    draw_sample(tmp_path / "letters", train=1000, test=200)
    (project / "src/torchloom/data/readers/letters.py").write_text(block('"""Letters'))
    with (project / "conf/base/catalog_sources.yml").open("a") as file:
        file.write("\n" + block("letters_source:"))
    (project / "conf/base/parameters/letters.yml").write_text(block("letters:"))
    settings = (project / "conf/base/parameters/mnist_mlp.yml").read_text().replace("mnist_mlp:", "letters_mlp:")
    settings = settings.replace("data: mnist}", "data: letters}")
    (project / "conf/base/parameters/letters_mlp.yml").write_text(settings)
    result = kedro(project, "run", "--pipelines", "letters_mlp")
    assert result.returncode == 0, result.stderr
    assert accuracy(project, "data", "letters_mlp") > 0.5
    assert json.loads((project / "data/03_primary/letters/info.json").read_text())["target"]["classes"] == list(
        "ABCDEFGHIJ"
    )


@pytest.mark.long
def test_a_folder_of_ones_own(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    generator = np.random.default_rng(0)
    for number, name in enumerate(("daisy", "rose", "tulip")):
        (tmp_path / "flowers" / name).mkdir(parents=True)
        for place in range(30):
            height, width = generator.integers(20, 50, 2)
            pixels = generator.integers(0, 100, (height, width, 3), dtype=np.uint8)
            pixels[..., number] += 100
            Image.fromarray(pixels).save(tmp_path / "flowers" / name / f"{place}.jpg")
    (project / "conf/base/parameters/flowers_cnn.yml").write_text(
        block("flowers:\n  preprocess: {folder: ~/flowers, size")
    )
    small = {"model": {"width": 4}, "train": {"epochs": 4, "batch_size": 8, "threads": 1}}
    catalog = kedro_run(project, "flowers_cnn", env="local", params={"flowers_cnn": small})
    assert catalog.load("flowers_cnn.metrics")["accuracy"] > 0.4
    assert catalog.load("flowers_cnn.export_report")["greatest_difference"] < 1e-3
    assert catalog.load("flowers_info")["target"]["classes"] == ["daisy", "rose", "tulip"]
    assert catalog.load("flowers_info")["shape"] == [3, 64, 64]


@pytest.mark.long
def test_a_table_of_ones_own(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its classes depend on two columns together; what is asked has gaps, a new word, and columns in another order."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "people.csv", people(800))
    (project / "conf/base/parameters/bikes.yml").write_text(block("people:\n  preprocess: {reader: table, files"))
    catalog = kedro_run(project, "bikes", env="local", params={"bikes": {"train": {"batch_size": 32, "threads": 1}}})
    assert catalog.load("bikes.metrics")["accuracy"] > 0.9
    assert catalog.load("bikes.export_report")["greatest_difference"] < 1e-3
    rows = [{"bike": "", "more": 1, **dict(reversed(row.items()))} for row in people(40, seed=1)]
    truth = [row.pop("bike") for row in people(40, seed=1)]
    rows[3] |= {"town": "Rom", "income": "", "since": "NA"}
    write(project / "rows.csv", rows, ";")
    result = kedro(project, "run", "--pipelines", "predict", "--params", "predict.model=bikes,predict.files=rows.csv")
    assert result.returncode == 0, result.stderr
    with (project / "data/07_model_output/predict/predictions.csv").open() as file:
        answers = [row["class_1"] for row in csv.DictReader(file)]
    assert np.mean([answer == right for answer, right in zip(answers, truth, strict=True)]) > 0.85
    request = re.findall(r"curl -d '(.*?)'", PAGES)[0]
    model = open_model(project / "data/06_models/bikes/model.onnx", threads=1)
    (answer,) = answerer(model, ServeConfig(models=""))(json.loads(request)["rows"])
    assert answer["class_1"] == "no"  # she is young, and from Ulm


@pytest.mark.long
@pytest.mark.parametrize("tokens", ["characters", "subwords"])
def test_a_book_of_ones_own(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    draw_book(tmp_path, characters=30_000)
    (tmp_path / BOOK).rename(tmp_path / "novel.txt")
    (project / "conf/base/parameters/novel.yml").write_text(block("my_novel:"))
    small = {"model": {"width": 32}, "train": {"epochs": 3, "batch_size": 8, "threads": 1}}
    data = {"preprocess": {"tokens": tokens, "vocabulary_size": 500}}
    catalog = kedro_run(project, "novel", env="local", params={"novel": small, "my_novel": data})
    metrics = catalog.load("novel.metrics")
    assert 1 < metrics["bits_per_character"] < 4.2
    text = (tmp_path / "novel.txt").read_text()
    assert metrics["test_characters"] == pytest.approx(len(text) / 10, abs=20)
    assert catalog.load("novel.sample_text").splitlines()[1].startswith("It was ")
    assert catalog.load("novel.export_report")["greatest_difference"] < 1e-3
    (project / "beginnings.txt").write_text("The old\n")
    asked = "predict.model=novel,predict.files=beginnings.txt,predict.generate.length=20"
    result = kedro(project, "run", "--pipelines", "predict", "--params", asked)
    assert result.returncode == 0, result.stderr
    with (project / "data/07_model_output/predict/predictions.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["prompt"] == "The old"
    assert len(row["continuation"]) == 20 if tokens == "characters" else len(row["continuation"]) > 20


@pytest.mark.long
def test_texts_of_ones_own(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "reviews.csv", reviews(600))
    (project / "conf/base/parameters/verdicts.yml").write_text(block("reviews:"))
    train = {"epochs": 4, "batch_size": 32, "threads": 1}
    catalog = kedro_run(
        project, "verdicts", env="local", params={"verdicts": {"train": train, "model": {"rows": 1000}}}
    )
    assert catalog.load("verdicts.metrics")["accuracy"] > 0.9
    assert catalog.load("verdicts.export_report")["greatest_difference"] < 1e-3
    write(project / "asked.csv", [{"more": 1, "review": row["review"]} for row in reviews(40, seed=1)])
    asked = "predict.model=verdicts,predict.files=asked.csv"
    result = kedro(project, "run", "--pipelines", "predict", "--params", asked)
    assert result.returncode == 0, result.stderr
    with (project / "data/07_model_output/predict/predictions.csv").open() as file:
        answers = [row["class_1"] for row in csv.DictReader(file)]
    truth = [row["verdict"] for row in reviews(40, seed=1)]
    assert np.mean([answer == right for answer, right in zip(answers, truth, strict=True)]) > 0.85
    model = open_model(project / "data/06_models/verdicts/model.onnx", threads=1)
    (answer,) = answerer(model, ServeConfig(models=""))(json.loads(re.findall(r"curl -d '(.*?)'", PAGES)[1])["texts"])
    assert answer["class_1"] == "差评"


@pytest.mark.long
def test_a_series_of_ones_own(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes again each day, and follows a plan that is known ahead: both must be learnt to be this good."""
    monkeypatch.setenv("HOME", str(tmp_path))
    rows = hours(2000)
    write(tmp_path / "loads.csv", rows)
    (project / "conf/base/parameters/loads.yml").write_text(block("my_loads:"))
    catalog = kedro_run(project, "loads", env="local", params={"loads": {"train": {"threads": 1}}})
    metrics = catalog.load("loads.metrics")
    assert metrics["mse"] < 0.05 < metrics["seasonal_mse"] < metrics["last_value_mse"]
    assert catalog.load("loads.export_report")["greatest_difference"] < 1e-3
    assert [row["column"] for row in catalog.load("loads.by_column")] == ["load", "heat"]
    page = (project / "data/08_reporting/loads/report.html").read_text()
    assert "By how far ahead" in page or "by how far ahead" in page
    ahead = [{**row, "load": "", "heat": ""} for row in rows[1000:1024]]
    write(project / "asked.csv", [dict(reversed(row.items())) for row in [*rows[800:1000], *ahead]], ";")
    result = kedro(project, "run", "--pipelines", "predict", "--params", "predict.model=loads,predict.files=asked.csv")
    assert result.returncode == 0, result.stderr
    with (project / "data/07_model_output/predict/predictions.csv").open() as file:
        answers = list(csv.DictReader(file))
    assert [row["time"] for row in answers] == [row["time"] for row in ahead]
    off = [float(answer["load"]) - row["load"] for answer, row in zip(answers, rows[1000:1024], strict=True)]
    assert np.abs(off).mean() < 1.5
    asked = {
        "series": [
            [{**row, "load": row["load"] or None, "heat": row["heat"] or None} for row in [*rows[800:1000], *ahead]]
        ]
    }
    model = open_model(project / "data/06_models/loads/model.onnx", threads=1)
    (answer,) = answerer(model, ServeConfig(models=""))(json.loads(json.dumps(asked))["series"])
    np.testing.assert_allclose(answer["load"], [float(row["load"]) for row in answers], rtol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("long", [False, True])
def test_labelled_series_of_ones_own(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    rows = [{name: cell for name, cell in row.items() if name != "height"} for row in waves(300)]
    write(tmp_path / "waves.csv", steps(rows) if long else rows)
    (project / "conf/base/parameters/waves.yml").write_text(block("my_waves:"))
    data = {"preprocess": {"series": "wave", "time": "step"} if long else {}}
    small = {"model": {"widths": [8, 8], "kernels": [5, 3]}, "train": {"epochs": 12, "threads": 1}}
    catalog = kedro_run(project, "waves", env="local", params={"waves": small, "my_waves": data})
    assert catalog.load("waves.metrics")["accuracy"] > 0.95
    assert catalog.load("waves.export_report")["greatest_difference"] < 1e-3
