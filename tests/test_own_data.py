"""The page that leads from files of one's own to answers: each of its lines, as it stands, on files that are drawn."""

import csv
import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from conftest import ROOT, kedro, make_project
from processes import KedroProcess, free_port
from tests.sounds import HEIGHTS, save, tone
from tests.tables import films, hours, people, reviews, write

PAGE = (ROOT / "docs/how-to/own-data.md").read_text()
SECTIONS = {section.splitlines()[0]: section for section in PAGE.split("\n## ")[1:]}


def lines(section: str) -> list[str]:
    return [line.strip() for line in re.findall(r"^    ((?:uv run kedro|curl) .*)$", section, flags=re.MULTILINE)]


def test_every_line_is_run() -> None:
    assert {name for name in SECTIONS if lines(SECTIONS[name])} == FILES.keys()


# ---- the files that the page speaks of -------------------------------------------------------------------------------


def table(folder: Path) -> None:
    write(folder / "people.csv", people(800))
    write(folder / "more_people.csv", people(60, seed=1))


def labels(folder: Path) -> None:
    write(folder / "films.csv", films(600))
    write(folder / "more_films.csv", films(60, seed=1))


def texts(folder: Path) -> None:
    write(folder / "reviews.csv", reviews(600))
    write(folder / "more_reviews.csv", reviews(60, seed=1))


def series(folder: Path) -> None:
    rows = [{name: row[name] for name in ("time", "load", "heat")} for row in hours(2000)]
    write(folder / "loads.csv", rows[:1800])
    write(folder / "last_weeks.csv", rows[1400:1800])
    (folder / "last_weeks.json").write_text(json.dumps({"series": [rows[1400:1800]]}))


def sounds(folder: Path) -> None:
    for number in range(90):
        name, height = list(HEIGHTS.items())[number % 3]
        save(folder / f"recordings/{name}/{number}.wav", tone(height, 0.2, seed=number))
    for number, height in enumerate(HEIGHTS.values()):
        save(folder / f"more_recordings/{number}.wav", tone(height, 0.3, 22_050, seed=100 + number), 22_050)


def pictures(folder: Path) -> None:
    """Flowers of three colours; and bright squares on dark ground, with their masks."""
    generator = np.random.default_rng(0)
    for number in range(90):
        pixels = generator.integers(0, 100, (*generator.integers(30, 50, 2), 3), dtype=np.uint8)
        pixels[..., number % 3] += 100
        name = ("daisy", "rose", "tulip")[number % 3]
        for place in (f"flowers/{name}/{number}.png", *([f"more_flowers/{number}.png"] if number < 3 else [])):
            save_picture(folder / place, pixels)
    for number in range(40):
        pixels, mask = generator.integers(0, 60, (64, 64), dtype=np.uint8), np.zeros((64, 64), dtype=np.uint8)
        top, left = generator.integers(0, 40, 2)
        pixels[top : top + 24, left : left + 24] += 120
        mask[top : top + 24, left : left + 24] = 255
        if number < 36:
            save_picture(folder / f"cells/image/{number}.png", pixels)
            save_picture(folder / f"cells/label/{number}.png", mask)
        else:
            save_picture(folder / f"more_cells/{number - 36}.png", pixels)
            save_picture(folder / f"truth/{number - 36}.png", mask)


def save_picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def catalog(folder: Path) -> None:
    """A table in the catalog, as Kedro's own projects have it."""
    rows = [{"km": row["deaths"] * 3, "night": row["laughs"] > 4, "fare": row["minutes"]} for row in films(400)]
    write(folder / "data/01_raw/fares.csv", rows)
    entry = {"fares_table": {"type": "pandas.CSVDataset", "filepath": "data/01_raw/fares.csv"}}
    (folder / "conf/base/catalog_own.yml").write_text(yaml.safe_dump(entry))


# ---- what has to come of them ----------------------------------------------------------------------------------------


def answers(folder: Path) -> list[dict[str, str]]:
    with (folder / "data/07_model_output/predict/predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def metrics(folder: Path, task: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"data/08_reporting/{task}/metrics.json").read_text())
    return found


def share_of_right(folder: Path, truth: list[str]) -> float:
    found = [row["class_1"] for row in answers(folder)]
    return float(np.mean([answer == right for answer, right in zip(found, truth, strict=True)]))


def table_learnt(folder: Path, asked: list[Any]) -> None:
    assert metrics(folder, "rides")["accuracy"] > 0.9
    truth = [row["bike"] for row in people(60, seed=1)]
    held = json.loads((folder / "data/07_model_output/predict/metrics.json").read_text())
    assert held["accuracy"] == pytest.approx(share_of_right(folder, truth))
    assert held["accuracy"] > 0.85
    assert [answer["class_1"] for answer in asked[0]] == ["no"]  # she is young, and from Ulm


def labels_learnt(folder: Path, asked: list[Any]) -> None:
    assert metrics(folder, "lengths")["r2"] > 0.95
    assert metrics(folder, "lengths")["rmse"] < 8  # minutes, of 60 to 150
    kept = {path.name for path in (folder / "data/08_reporting/lengths").iterdir()}
    assert {"report.html", "residuals.png"} <= kept
    assert not {"coefficients.csv", "coefficient_plot.png", "formats_report.json"} & kept  # which would say nothing
    assert metrics(folder, "tags")["macro_f1"] > 0.8
    held = json.loads((folder / "data/07_model_output/predict/metrics.json").read_text())
    assert held["macro_f1"] > 0.7


def texts_learnt(folder: Path, asked: list[Any]) -> None:
    assert metrics(folder, "verdicts")["accuracy"] > 0.9
    assert share_of_right(folder, [row["verdict"] for row in reviews(60, seed=1)]) > 0.85
    assert asked[0][0]["class_1"] == "差评"


def series_learnt(folder: Path, asked: list[Any]) -> None:
    found, true = answers(folder), hours(2000)[1800:]
    assert [row["time"] for row in found] == [row["time"] for row in true[: len(found)]]
    off = [abs(float(answer["heat"]) - row["heat"]) for answer, row in zip(found, true, strict=False)]
    assert np.mean(off) < 0.01  # of 0.15 to 0.25
    assert asked[0][0]["heat"] == pytest.approx([float(row["heat"]) for row in found], rel=1e-4)


def sounds_learnt(folder: Path, asked: list[Any]) -> None:
    assert metrics(folder, "calls")["accuracy"] > 0.9
    assert [row["class_1"] for row in answers(folder)] == list(HEIGHTS)
    assert asked[0][0]["class_1"] == list(HEIGHTS)[1]


def pictures_learnt(folder: Path, asked: list[Any]) -> None:
    assert metrics(folder, "flowers")["accuracy"] > 0.9
    assert asked[0][0]["class_1"] == "rose"
    assert metrics(folder, "cells")["mean_iou"] > 0.9
    for number in range(4):
        mask = np.asarray(Image.open(folder / f"data/07_model_output/predict/pictures/{number}.png"))
        assert np.mean(mask == np.asarray(Image.open(folder / f"truth/{number}.png"))) > 0.95


def catalog_learnt(folder: Path, asked: list[Any]) -> None:
    assert metrics(folder, "fares")["r2"] > 0.3


FILES: dict[str, tuple[Callable[[Path], None], Callable[[Path, list[Any]], None]]] = {
    "A table": (table, table_learnt),
    "A number, several numbers, several labels": (labels, labels_learnt),
    "Texts": (texts, texts_learnt),
    "Series": (series, series_learnt),
    "Sounds": (sounds, sounds_learnt),
    "Pictures": (pictures, pictures_learnt),
    "What a catalog has": (catalog, catalog_learnt),
}


@pytest.mark.long
@pytest.mark.parametrize("section", FILES)
def test_from_files_to_answers(section: str, tmp_path: Path) -> None:
    draw, check = FILES[section]
    folder = make_project(tmp_path / "project")
    draw(folder)
    asked: list[Any] = []
    server: Server | None = None
    for line in lines(SECTIONS[section]):
        began = time.perf_counter()
        if line.startswith("curl"):
            assert server is not None
            asked.append(server.asked(line))
        elif " serve " in line:
            server = server.ended() if server else None
            server = Server(folder, line)
        else:
            result = kedro(folder, *shlex.split(line.removeprefix("uv run kedro ")))
            assert result.returncode == 0, (line, result.stdout, result.stderr)
        print(f"{time.perf_counter() - began:6.1f} s  {line}")
    if server:
        server.ended()
    check(folder, asked)


class Server:
    """A command `uv run kedro serve …` of the page, at a port that is free."""

    def __init__(self, folder: Path, line: str) -> None:
        self.folder, self.port, self.said = folder, free_port(), folder / "said.txt"
        command = [*shlex.split(line.removeprefix("uv run kedro ")), "--port", str(self.port)]
        self.said.unlink(missing_ok=True)
        self.process = KedroProcess(folder, *command, output=self.said, errors=self.said)
        end = time.monotonic() + 120
        while "answers at" not in self.said.read_text():
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < end, self.said.read_text()
            time.sleep(0.1)

    def asked(self, line: str) -> Any:
        command = shlex.split(line.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}"))
        options = ("--fail-with-body", "--silent", "--max-time", "60")
        answer = subprocess.run([*command, *options], cwd=self.folder, capture_output=True, text=True)
        assert answer.returncode == 0, (line, answer.stdout, self.said.read_text())
        return json.loads(answer.stdout)

    def ended(self) -> None:
        self.process.kill()
        self.process.wait(30)
