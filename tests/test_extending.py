"""What the guides teach about adding things, done as they say."""

import contextlib
import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from conftest import ROOT, kedro, kedro_run
from tests.sounds import HEIGHTS, tone, whistles
from tests.sounds import save as save_sound
from tests.tables import films, hours, people, reviews, steps, waves, write
from torchloom.config import ServeConfig
from torchloom.data.readers.mnist import draw_sample
from torchloom.data.readers.wonderland import FILE as BOOK
from torchloom.data.readers.wonderland import draw_sample as draw_book
from torchloom.inference.model import open_model
from torchloom.inference.serving import answerer

GUIDES = (
    "extend.md",
    "own-images.md",
    "own-tables.md",
    "own-texts.md",
    "translate.md",
    "own-sounds.md",
    "own-series.md",
    "uneven-data.md",
)
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
def test_pictures_that_a_table_names_and_masks(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    generator = np.random.default_rng(0)
    rows = []
    for number in range(60):
        pixels, mask = generator.integers(0, 60, (40, 40, 3), dtype=np.uint8), np.zeros((40, 40), dtype=np.uint8)
        top, left = generator.integers(0, 20, 2)
        pixels[top : top + 20, left : left + 20, number % 2] += 150
        mask[top : top + 20, left : left + 20] = 255
        for place, image in {"shells": pixels, "cells/image": pixels, "cells/label": mask}.items():
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / place / f"{number}.png")
        rows.append({"picture": f"{number}.png", "species": ["cockle", "whelk"][number % 2]})
    write(tmp_path / "shells/all.csv", rows)
    for task in ("shells", "cells"):
        (project / f"conf/base/parameters/{task}.yml").write_text(block(f"{task}:\n"))
    small = {"train": {"epochs": 5, "batch_size": 8, "threads": 1}}
    params = {"shells_cnn": {"model": {"width": 4}, **small}, "cells_unet": {"model": {"width": 4}, **small}}
    kedro_run(project, "shells_cnn", env="local", params=params)
    catalog = kedro_run(project, "cells_unet", env="local", params=params)
    assert catalog.load("shells_cnn.metrics")["accuracy"] > 0.9
    assert catalog.load("cells_unet.metrics")["mean_iou"] > 0.8
    assert catalog.load("cells_unet.per_class").keys() == {"0", "255"}


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
def test_labels_of_ones_own(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tables and of texts; what is asked has the labels as well, and is measured by them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "films.csv", films(600))
    said = [
        {**row, "about": ";".join(word for word in ("soup", "rice") if word in row["review"])} for row in reviews(300)
    ]
    write(tmp_path / "remarks.csv", said)
    for task, start in {"genres": "films:", "topics": "remarks:"}.items():
        (project / f"conf/base/parameters/{task}.yml").write_text(block(start))
        small = {"train": {"batch_size": 32, "threads": 1}}
        small["model"] = {"rows": 1000} if task == "topics" else {"hidden": [32]}
        catalog = kedro_run(project, task, env="local", params={task: small})
        metrics = catalog.load(f"{task}.metrics")
        assert metrics["macro_f1"] > (0.8 if task == "genres" else 0.4), metrics
        assert catalog.load(f"{task}.export_report")["greatest_difference"] < 1e-3
    write(project / "asked.csv", films(60, seed=1))
    result = kedro(project, "run", "--pipelines", "predict", "--params", "predict.model=genres,predict.files=asked.csv")
    assert result.returncode == 0, result.stderr
    found = json.loads((project / "data/07_model_output/predict/metrics.json").read_text())
    assert found["samples"] == 60
    assert found["macro_f1"] > 0.7
    assert "beside the target, which 60 samples come with: subset_accuracy" in result.stderr


@pytest.mark.long
def test_sounds_of_ones_own(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the file of the guide, and by that which the command writes; a whistle that was never heard is held out."""
    monkeypatch.setenv("HOME", str(tmp_path))
    digits = dict(zip(HEIGHTS, "079", strict=True))
    for row in whistles(tmp_path / "recordings", 120):
        place = tmp_path / "recordings" / row["sound"]
        place.rename(place.with_name(place.name.replace(row["height"], digits[row["height"]])))
    (project / "conf/base/parameters/digits.yml").write_text(block("spoken:\n  preprocess: {reader"))
    small = {"train": {"epochs": 10, "batch_size": 8, "threads": 1}, "model": {"widths": [8, 16]}}
    held = yaml.safe_load(block("spoken:\n  preprocess:\n").replace("theo", "eve"))
    catalog = kedro_run(project, "digits", env="local", params={"digits": small, **held})
    assert catalog.load("digits.metrics")["accuracy"] > 0.9
    assert catalog.load("digits.metrics")["test_samples"] == 39
    assert catalog.load("digits.export_report")["greatest_difference"] < 1e-3
    card = (project / "data/06_models/digits/README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", card, re.S)
    with contextlib.chdir(project / "data/06_models/digits"):
        subprocess.run([sys.executable, "-c", example], check=True, capture_output=True)
    for digit, height in zip("079", HEIGHTS.values(), strict=True):
        save_sound(project / f"asked/{digit}.wav", tone(height, 0.3, 22_050, 9), 22_050)
    asked = "predict.model=digits,predict.files=asked"
    result = kedro(project, "run", "--pipelines", "predict", "--params", asked)
    assert result.returncode == 0, result.stderr
    with (project / "data/07_model_output/predict/predictions.csv").open() as file:
        assert [(row["file"], row["class_1"]) for row in csv.DictReader(file)] == [
            ("0.wav", "0"), ("7.wav", "7"), ("9.wav", "9"),
        ]  # fmt: skip
    assert "curl --data-binary @asked/7.wav http" in PAGES
    model = open_model(project / "data/06_models/digits/model.onnx", threads=1)
    (answer,) = answerer(model, ServeConfig(models=""))([(project / "asked/7.wav").read_bytes()])
    assert answer["class_1"] == "7"
    (project / "conf/base/parameters/digits.yml").unlink()
    made = kedro(project, "task", "new", "digits", "--data", str(tmp_path / "recordings"), "--target", "part1")
    assert made.returncode == 0, made.stderr
    catalog = kedro_run(project, "digits", env="local", params={"digits": small})
    assert catalog.load("digits.metrics")["accuracy"] > 0.9


@pytest.mark.long
@pytest.mark.parametrize("tokens", ["characters", "words", "subwords"])
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
    lost = 0.2 if tokens == "words" else 0  # marks, and words that are rare
    assert metrics["test_characters"] == pytest.approx(len(text) / 10, abs=20, rel=lost)
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
def test_pairs_of_ones_own(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    one = {"one": "un", "two": "deux", "three": "trois", "small": "petits", "black": "noirs", "cats": "chats"}
    texts = [[a, b, c] for a in ("one", "two", "three") for b in ("small", "black") for c in ("cats", "dogs", "birds")]
    one |= {"dogs": "chiens", "birds": "oiseaux"}
    pairs = [{"english": " ".join(text), "french": " ".join(one[text[at]] for at in (0, 2, 1))} for text in texts * 20]
    write(tmp_path / "pairs.csv", pairs)
    (project / "conf/base/parameters/sentences.yml").write_text(block("sentence_pairs:"))
    train = {"epochs": 30, "batch_size": 16, "optimizer": {"lr": 0.005}, "threads": 1}
    small = {"train": train, "model": {"width": 32, "embedding_dropout": 0.0, "dropout": 0.0}}
    catalog = kedro_run(project, "sentences", env="local", params={"sentences": small})
    assert catalog.load("sentences.metrics")["exact_match"] > 0.8
    assert catalog.load("sentences.export_report")["greatest_difference"] < 1e-3
    write(project / "asked.csv", [{"more": 1, "english": row["english"]} for row in pairs[:18]])
    asked = "predict.model=sentences,predict.files=asked.csv"
    result = kedro(project, "run", "--pipelines", "predict", "--params", asked)
    assert result.returncode == 0, result.stderr
    with (project / "data/07_model_output/predict/predictions.csv").open() as file:
        answers = [row["answer"] for row in csv.DictReader(file)]
    assert np.mean([answer == row["french"] for answer, row in zip(answers, pairs, strict=False)]) > 0.8
    model = open_model(project / "data/06_models/sentences/model.onnx", threads=1)
    asked_over_http = re.findall(r"curl -d '(.*?two black cats.*?)'", PAGES)[0]
    (answer,) = answerer(model, ServeConfig(models=""))(json.loads(asked_over_http)["texts"])
    assert answer["answer"] == "deux chats noirs"


@pytest.mark.long
def test_rare_classes_and_folds(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    generator = np.random.default_rng(0)
    rows = [
        {"age": int(age), "rider": "yes" if age + generator.normal(0, 6) > 72 else "no"}
        for age in generator.integers(18, 80, 600)
    ]
    write(tmp_path / "riders.csv", rows)
    (project / "conf/base/parameters/riders.yml").write_text(block("people_who_ride:"))
    small = {"train": {"batch_size": 32, "threads": 1}}
    catalog = kedro_run(project, "riders", env="local", params={"riders": small})
    checkpoint, metrics = catalog.load("riders.checkpoint"), catalog.load("riders.metrics")
    common, rare = checkpoint.loss[1]["weight"]
    assert rare > 3 * common
    assert checkpoint.training["threshold"] == {"class": "yes", "probability": metrics["threshold"]}
    assert checkpoint.training["val_macro_f1"] == max(row["val_macro_f1"] for row in catalog.load("riders.history"))
    assert metrics["balanced_accuracy"] > 0.75
    few = {"train": {**small["train"], "epochs": 2}}
    catalog = kedro_run(project, "riders_folds", env="local", params={"riders": few})
    metrics = catalog.load("riders_folds.metrics")
    assert 0 < metrics["out_of_fold_macro_f1_deviation"] < metrics["out_of_fold_macro_f1"] < 1
    assert len(catalog.load("riders_folds.fold_metrics")) == 5


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
