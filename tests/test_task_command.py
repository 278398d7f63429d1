"""`kedro task new` looks at data and writes a file; `kedro task list` shows what there is."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from conftest import ROOT, kedro, kedro_run
from tests.tables import as_columns, films, hours, people, reviews, steps, waves, write
from torchloom.cli import new_task
from torchloom.config import SeriesPreprocessConfig
from torchloom.config.loader import ConfigLoader, as_yaml, check_name
from torchloom.data.readers import propose, series, texts
from torchloom.data.row_targets import separator_in
from torchloom.data.rows import text_column
from torchloom.errors import InputError
from torchloom.settings import CONFIG_LOADER_ARGS


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = people(300)
    return write(
        tmp_path / "people.csv", [{**row, "rides": "often" if row["bike"] == "yes" else "never"} for row in rows]
    )


def test_a_table_becomes_a_file_that_trains(project: Path, table: Path) -> None:
    made = kedro(project, "task", "new", "bikes", "--data", str(table), "--target", "bike")
    assert made.returncode == 0, made.stderr
    for line in (
        "300 rows, 9 columns",
        "id: only counts the rows, left out",
        "town: category (3)",
        "income: number, 14.3% missing",
        "since: date",
        "note: has 300 different texts in 300 rows, left out",
        "rides: category (2), GIVES THE TARGET AWAY",
        "  kedro run --pipelines bikes",
    ):
        assert line in made.stdout.splitlines()
    assert "bike: one of 2 classes: " in made.stdout
    file = project / "conf/base/parameters/bikes.yml"
    text = file.read_text()
    assert "# town: category (3)" in text
    blocks: dict[str, Any] = yaml.safe_load(text)
    columns = {"id": "out", "age": "number", "town": "category", "income": "number", "since": "date", "note": "out"}
    assert blocks["bikes_data"]["preprocess"]["columns"] == {**columns, "country": "out", "rides": "category"}
    small = {"model": {"hidden": [8]}, "train": {"epochs": 30, "threads": 1}}
    catalog = kedro_run(project, "bikes", env="local", params={"bikes": small})
    assert catalog.load("bikes.metrics")["accuracy"] > 0.9
    again = kedro(project, "task", "new", "bikes", "--data", str(table), "--target", "bike")
    assert (again.returncode, file.read_text()) == (1, text)
    assert "Error: bikes: is there already" in again.stderr
    listed = kedro(project, "task", "list").stdout
    (mine,) = [line.split() for line in listed.splitlines() if line.startswith("bikes ")]
    assert mine[1:4] == ["classification", "bikes_data", "accuracy"]
    assert "not trained here" in listed


def test_a_number_is_told_by_a_regression(table: Path) -> None:
    proposal = propose(table, "income")
    assert proposal.problem == "regression"
    assert proposal.preprocess["columns"]["bike"] == "category"
    assert any(line.startswith("income: a number from ") for line in proposal.seen)


def test_rows_that_are_there_twice_are_counted(tmp_path: Path) -> None:
    rows = [{"a": number % 50, "b": "xy"[number % 2]} for number in range(200)]
    assert "150 rows are there more than once" in propose(write(tmp_path / "rows.csv", rows), "b").seen


def test_folders_of_pictures_are_classes(tmp_path: Path) -> None:
    for name, count in {"cat": 12, "dog": 20}.items():
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"pets/{name}/{number}.png")
    proposal = propose(tmp_path / "pets", None)
    assert proposal.problem == "classification"
    assert proposal.preprocess == {"reader": "folder", "folder": str(tmp_path / "pets"), "size": [64, 64]}
    assert list(proposal.seen[1:]) == ["2 classes:", "  cat: 12", "  dog: 20"]
    with pytest.raises(InputError, match=r"^--target cat: of pictures in folders the classes are the folders"):
        propose(tmp_path / "pets", "cat")


def test_a_table_of_the_catalog_becomes_a_file_that_names_it(project: Path) -> None:
    rows = [{**row, "rides": "often" if row["bike"] == "yes" else "never"} for row in people(300)]
    write(project / "data/01_raw/people.csv", rows)
    entries = {
        "people_table": {"type": "pandas.CSVDataset", "filepath": "data/01_raw/people.csv"},
        "nobody": {"type": "MemoryDataset"},
    }
    (project / "conf/base/catalog_own.yml").write_text(yaml.safe_dump(entries))
    made = kedro(project, "task", "new", "bikes", "--data", "people_table", "--target", "bike")
    assert made.returncode == 0, made.stderr
    assert "town: category (3)" in made.stdout.splitlines()
    blocks: dict[str, Any] = yaml.safe_load((project / "conf/base/parameters/bikes.yml").read_text())
    own = blocks["bikes_data"]["preprocess"]
    assert (own["reader"], own["entry"], own["columns"]["id"]) == ("table", "people_table", "out")
    assert "files" not in own
    small = {"model": {"hidden": [8]}, "train": {"epochs": 30, "threads": 1}}
    catalog = kedro_run(project, "bikes", env="local", params={"bikes": small})
    assert catalog.load("bikes.metrics")["accuracy"] > 0.9
    for entry, target, message in (
        ("people_tables", "bike", "'people_tables' is no path, and no entry of the catalog."),
        ("people_table", "bikes", "Error: people_table: there is no column 'bikes'"),
        ("nobody", "bike", "Error: --data nobody: "),
    ):
        wrong = kedro(project, "task", "new", "others", "--data", entry, "--target", target)
        assert (wrong.returncode > 0, "Traceback" in wrong.stderr) == (True, False), wrong.stderr
        assert message in wrong.stderr
    assert not (project / "conf/base/parameters/others.yml").exists()


def test_rare_classes_and_numbers_that_could_be_classes_are_told(tmp_path: Path) -> None:
    rows = [
        {
            **{"x": number * 0.5, "digit": number % 10},
            **({"rare": "yes", "three": "few"} if number % 40 == 0 else {"rare": "no", "three": "ab"[number % 2]}),
        }
        for number in range(400)
    ]
    path = write(tmp_path / "rows.csv", rows)
    seen = propose(path, "rare").seen
    found = "rare: yes. Where these matter, train.loss.weight: balanced and train.threshold: f1 find more of them"
    assert found in seen
    found = "rare: few. Where these matter, train.loss.weight: balanced finds more of them"
    assert found in propose(path, "three").seen  # a threshold is for two
    assert propose(path, "digit").seen[-1] == (
        "digit: a number from 0 to 9, 4.5 on average. There are only 10 different ones: if these are classes, say "
        "preprocess.target_type: classes"
    )
    assert not [line for line in propose(path, "x").seen if "different ones" in line]


def test_what_cannot_be_is_answered(tmp_path: Path, table: Path) -> None:
    with pytest.raises(InputError, match=r"people\.csv: it must be said which column is to be told\. Say --target"):
        propose(table, None)
    with pytest.raises(
        InputError, match=r"people\.csv: there is no column 'bikes' .did you mean 'bike'..\. Say --target with"
    ):
        propose(table, "bikes")
    (tmp_path / "notes.bin").write_text("hello")
    with pytest.raises(
        InputError,
        match=r"notes\.bin: no reader knows what to make of it.* book, folder, labelled_series, pairs, pictures, "
        r"series, sounds, table, texts$",
    ):
        propose(tmp_path / "notes.bin", None)


def test_texts_are_told_from_tables(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "reviews.csv", [*reviews(60), *reviews(10)])
    with caplog.at_level(logging.INFO):
        proposal = propose(path, "verdict")
    assert caplog.messages == []  # what there is to know is said once
    assert (proposal.problem, proposal.blocks["model"]) == (
        "classification",
        {"name": "text_ngrams", "members": 3},
    )
    assert proposal.preprocess == {"reader": "texts", "files": str(path), "text": "review", "target": "verdict"}
    assert list(proposal.seen)[:3] == [  # and that no font has such letters, where none has
        "70 texts of 11 words on average, at most 11",
        "verdict: one of 2 classes: 好评 65.7%, 差评 34.3%",
        "10 texts are there more than once",
    ]
    assert propose(path, "stars").problem == "regression"
    with monkeypatch.context() as patched:
        patched.setattr(texts, "FEW", 700)  # words, of which there are more: one network learns them
        assert propose(path, "verdict").blocks["model"] == {"name": "text_ngrams"}
    with pytest.raises(InputError, match=r"reviews\.csv: it must be said which column is to be told"):
        propose(path, None)
    for row in reviews(8):
        (tmp_path / "meals" / row["verdict"]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "meals" / row["verdict"] / f"{row['review'][:12].replace(':', '')}.txt").write_text(row["review"])
    proposal = propose(tmp_path / "meals", None)
    assert proposal.preprocess == {"reader": "texts", "files": str(tmp_path / "meals")}
    assert "8 texts of 11 words on average, at most 11" in proposal.seen
    with pytest.raises(InputError, match=r"^--target verdict: of texts in folders the classes are the folders"):
        propose(tmp_path / "meals", "verdict")


def test_a_running_text_becomes_a_language_model(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "novel.txt"
    path.write_text("It was a bright cold day in April. " * 300)
    proposal = propose(path, None)
    assert proposal.preprocess == {"reader": "book", "files": str(path)}
    assert list(proposal.seen) == [
        "10,499 characters, 20 different ones",
        "it begins: 'It was a bright cold day in April. It was a bright cold day '",
    ]
    made = kedro(project, "task", "new", "novel", "--data", str(path))
    assert made.returncode == 0, made.stderr
    small = {"model": {"width": 16}, "train": {"epochs": 2, "batch_size": 8, "threads": 1}}
    catalog = kedro_run(project, "novel", env="local", params={"novel": small})
    assert catalog.load("novel.sample_text").splitlines()[1].startswith("It was a bright cold")
    with pytest.raises(InputError, match=r"^--target x: there is none in a running text"):
        propose(path, "x")
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/1.md").write_text(" ")
    with pytest.raises(InputError, match=r"pages: holds no text$"):
        propose(tmp_path / "pages", None)


def test_what_the_data_hold_stays_a_comment(project: Path, tmp_path: Path) -> None:
    rows = [{"text": row["review"], "label": f"{row['verdict']}\nevil: ["} for row in reviews(40)]
    pandas.DataFrame(rows).to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    made = kedro(project, "task", "new", "odd", "--data", str(tmp_path / "rows.jsonl"), "--target", "label")
    assert made.returncode == 0, made.stderr
    blocks = yaml.safe_load((project / "conf/base/parameters/odd.yml").read_text())
    assert blocks.keys() == {"odd", "odd_data"}


def test_an_empty_folder_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty/in").mkdir(parents=True)
    with pytest.raises(InputError, match=r"empty: no reader knows what to make of it"):
        propose(tmp_path / "empty", "x")


def test_labels_and_several_numbers_are_recognised(tmp_path: Path) -> None:
    path = write(tmp_path / "films.csv", films(400))
    proposal = propose(path, "tags")
    assert proposal.problem == "multilabel"
    assert (proposal.preprocess["target"], proposal.preprocess["separator"]) == ("tags", ";")
    assert any(line.startswith("tags: any of 4 labels, 1.") and "drama 5" in line for line in proposal.seen)
    several = propose(path, "lat,minutes")
    assert (several.problem, several.preprocess["target"]) == ("regression", ["lat", "minutes"])
    seen = [line.partition(" from ")[0] for line in several.seen]
    assert {"lat: a number", "minutes: a number"} < set(seen)
    with pytest.raises(InputError, match=r"there is no column 'lost'\. Say --target with one of"):
        propose(path, "tags,lost")
    odd = write(tmp_path / "odd.csv", [{"a,b": number % 7, "c": number**2, "d": -number} for number in range(60)], ";")
    assert propose(odd, "a,b").preprocess["target"] == "a,b"


@pytest.mark.long
def test_columns_of_yes_and_no_become_a_file_that_trains(project: Path, tmp_path: Path) -> None:
    flags = write(
        tmp_path / "flags.csv",
        [{**row, "tags": number % 9} for number, row in enumerate(as_columns(films(400), ["horror", "drama"]))],
    )
    made = kedro(project, "task", "new", "mood", "--data", str(flags), "--target", "horror", "--target", "drama")
    assert made.returncode == 0, made.stderr
    assert "horror, drama: any of 2 labels, " in made.stdout
    small = {"model": {"hidden": [16]}, "train": {"epochs": 40, "threads": 1}}
    catalog = kedro_run(project, "mood", env="local", params={"mood": small})
    assert catalog.load("mood.metrics")["macro_f1"] > 0.8
    assert catalog.load("mood.export_report")["greatest_difference"] < 1e-3
    page = catalog.load("mood.report")
    assert "Tabular multilabel classification" in page
    assert "Precision over recall" in page
    assert "any number of them or none: horror, drama." in catalog.load("mood.model_card")


@pytest.mark.parametrize(
    ("cells", "mark"),
    [
        (["a;b", "a", "b;a", ""] * 9, ";"),
        (["a|b", "a|c", "b"] * 9, "|"),
        (["soup, rice", "rice", "soup"] * 9, ","),
        ([f"a text, of many words; number {number}" for number in range(60)], None),
        (["1,5", "2,5"] * 9, None),
        (["1;2", "3"] * 9, None),
        (["yes", "no"] * 9, None),
        ([1, 2] * 9, None),
        ([], None),
    ],
)
def test_what_stands_between_labels(cells: list[Any], mark: str | None) -> None:
    assert separator_in(cells) == mark


@pytest.mark.parametrize("folder", ["${age}", "${oc.env:HOME}", "a ${b", r"\${x}"])
def test_what_yaml_has_for_something_else_is_refused(project: Path, tmp_path: Path, folder: str) -> None:
    path = write(tmp_path / folder / "x.csv", people(60))
    with pytest.raises(
        InputError, match=r"(odd\.files: has \$\{…\}, in place of which|would be read as something else)"
    ):
        as_yaml({"odd": {"files": str(path)}})
    made = kedro(project, "task", "new", "odd", "--target", "bike", "--data", str(path)) if folder == "a ${b" else None
    if made:
        assert (made.returncode, made.stdout) == (1, "")
        assert "odd_data.preprocess.files: has ${…}, in place of which a file of parameters gets" in made.stderr
        assert not (project / "conf/base/parameters/odd.yml").exists()


def test_names_are_read_as_they_are_written() -> None:
    """As columns whatever they are, but 1e5 is a number for OmegaConf."""
    blocks = {"a": {"columns": {"${age}": "number", "012": "out", "yes": "out", "???": "out"}, "target": "no"}}
    assert yaml.safe_load(as_yaml(blocks)) == blocks
    for odd in ({"columns": {"1e5": "number"}}, {"target": "1e5"}):
        with pytest.raises(InputError, match=r"^'1e5' would be read as something else from a file of parameters\. Ren"):
            as_yaml({"a": odd})


def test_a_text_that_begins_as_a_script(tmp_path: Path) -> None:
    (tmp_path / "script.txt").write_text("echo ${HOME} " * 100)
    prompt = propose(tmp_path / "script.txt", None).blocks["generate"]["prompt"]
    assert prompt == "echo $"
    (tmp_path / "script.txt").write_text("echo \u2603 " + "once more " * 100)
    assert propose(tmp_path / "script.txt", None).blocks["generate"]["prompt"] == "ec"  # the others are too rare


@pytest.mark.parametrize("name", ["catalogue", "credentials_x"])
def test_a_name_that_kedro_takes_for_another_file_is_refused(name: str) -> None:
    loader = ConfigLoader(str(ROOT / "conf"), env="base", **CONFIG_LOADER_ARGS)
    check_name("my_catalog", loader)
    check_name("parameters_x", loader)
    with pytest.raises(InputError, match=rf"^{name}: Kedro reads files of such names as its c"):
        check_name(name, loader)


# ---- texts or a table ----------------------------------------------------------------------------------------------

LABELS = {"label": ["good", "bad", "fair"]}


def columns(count: int = 300, **cells: list[Any]) -> list[dict[str, Any]]:
    """So many rows; each column goes through its cells again and again."""
    given = {**LABELS, **cells}
    return [{name: each[number % len(each)] for name, each in given.items()} for number in range(count)]


NOT_TEXTS: dict[str, list[Any]] = {
    "date": [f"2024-0{1 + number % 9}-1{number % 10} 18:{10 + number % 50}" for number in range(300)],
    "stamp": [f"Mon Nov {1 + number % 28} 07:38:{number % 60} UTC 2026" for number in range(300)],
    "chinese_date": [
        f"2024年{1 + number % 12}月{1 + number % 28}日 星期{'一二三四五六日'[number % 7]}" for number in range(300)
    ],
    "email": [f"somebody.number.{number}@mail.example.com" for number in range(300)],
    "url": [f"https://www.example.com/a/long/way/to/page-{number}" for number in range(300)],
    "path": [f"/home/somebody/pictures/of/the/year/{number}.png" for number in range(300)],
    "uuid": [f"0b1c6a5e-7f1e-4e0f-9d1b-{number:012d}" for number in range(300)],
    "name": [f"Doe, Mr. John Nr{number}" for number in range(300)],
    "form": [f"Item number {number} of the order {7 * number}" for number in range(300)],
    "grade": ["Some college but no degree at all", "A bachelor of arts or of science", "No formal schooling as of now"],
}


@pytest.mark.parametrize("name", NOT_TEXTS)
def test_what_is_no_text_stays_in_a_table(tmp_path: Path, name: str) -> None:
    rows = columns(**{name: NOT_TEXTS[name], "age": list(range(18, 81))})
    assert propose(write(tmp_path / "rows.csv", rows, mark=";"), "label").preprocess["reader"] == "table"


def texts_of(kind: str) -> list[str]:
    generator = np.random.default_rng(0)
    if kind in {"short", "tiny"}:
        letters = 3 if kind == "tiny" else 7
        return [
            "".join(generator.permutation(list("味道不错很好吃送得快太咸了汤是冷的"))[:letters]) for _ in range(300)
        ]
    said = [row["review"] for row in reviews(300)]
    return said if kind == "long" else [said[number] for number in generator.integers(0, 130, 300)]


@pytest.mark.parametrize("kind", ["short", "long", "repeated"])
@pytest.mark.parametrize("beside", [{}, {"since": NOT_TEXTS["date"], "mail": NOT_TEXTS["email"]}])
def test_what_is_a_text_is_taken_for_one(tmp_path: Path, kind: str, beside: dict[str, Any]) -> None:
    path = write(tmp_path / "rows.csv", columns(said=texts_of(kind), **beside), mark=";")
    proposal = propose(path, "label")
    assert (proposal.preprocess["reader"], proposal.preprocess.get("text")) == ("texts", "said")


def test_short_texts_are_such_where_nothing_else_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", columns(said=texts_of("tiny")))
    assert propose(path, "label").preprocess["reader"] == "texts"
    path = write(tmp_path / "rows.csv", columns(said=texts_of("tiny"), age=list(range(18, 81))))
    assert propose(path, "label").preprocess["reader"] == "table"


def test_the_target_is_no_text_that_something_is_told_from() -> None:
    rows = columns(said=texts_of("long"))
    assert text_column(rows) == text_column(rows, ["label"]) == "said"
    assert text_column(rows, ["said"]) is None


# ---- what a run would refuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [False, True])
def test_what_a_run_would_refuse_is_not_proposed(tmp_path: Path, texts: bool) -> None:
    rows = columns(**({"said": texts_of("long")} if texts else {"age": list(range(18, 81))}))
    same = write(tmp_path / "same.csv", [{**row, "label": "good"} for row in rows])
    with pytest.raises(InputError, match=r"^preprocess\.target 'label': is 'good' in every training row"):
        propose(same, "label")
    empty = write(tmp_path / "empty.csv", [{**row, "label": ""} for row in rows])
    with pytest.raises(InputError, match=r"empty\.csv: there are no rows to train on, none has 'label'"):
        propose(empty, "label")
    write(tmp_path / "only/val.csv", rows)
    with pytest.raises(InputError, match=r"only: there are no rows to train on, only for validation"):
        propose(tmp_path / "only", "label")


def test_a_class_that_may_be_a_gap_is_told(tmp_path: Path) -> None:
    rows = [{**row, "label": "none"} if row["label"] == "fair" else row for row in columns(age=list(range(18, 81)))]
    seen = propose(write(tmp_path / "rows.csv", rows), "label").seen
    assert "label: taken for classes: 'none' (100 rows)" in seen


# ---- files ---------------------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for name in ("one.csv", "many/train.csv"):
        path = write(tmp_path / name, reviews(20))
        path.write_bytes(path.read_bytes().replace(b"rice", "Grün".encode("latin-1")))
        with pytest.raises(InputError, match=rf"{name}: is not a text in UTF-8"):
            propose(tmp_path / name.partition("/")[0], "verdict")
    for number, label in enumerate("aabb"):
        path = tmp_path / f"meals/{label}/{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes("Grün".encode("latin-1"))
    with pytest.raises(InputError, match=r"meals/a/0\.txt: is not a text in UTF-8"):
        propose(tmp_path / "meals", None)


def test_what_lies_beside_tables_and_texts_is_no_matter(tmp_path: Path) -> None:
    write(tmp_path / "rows/PEOPLE.CSV", people(60))
    for name in (".DS_Store", "README.md", "LICENSE", "Thumbs.db", "__MACOSX/._PEOPLE.CSV"):
        (tmp_path / "rows" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "rows" / name).write_text("about the rows")
    assert propose(tmp_path / "rows", "bike").preprocess["reader"] == "table"
    for number, row in enumerate(reviews(20)):
        path = tmp_path / f"meals/{row['verdict']}/{number}.TXT"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(row["review"])
    assert propose(tmp_path / "meals", None).preprocess["reader"] == "texts"


@pytest.mark.long
def test_a_table_by_time_becomes_a_forecast_when_that_is_asked_for(project: Path, tmp_path: Path) -> None:
    rows = hours(500)
    del rows[100:102], rows[300:310]
    path = write(tmp_path / "hours.csv", rows)
    made = kedro(project, "task", "new", "loads", "--data", str(path), "--problem", "forecasting")
    assert made.returncode == 0, made.stderr
    for line in (
        "488 rows by time, 1 hour apart, from 2024-01-01 00:00:00 to 2024-01-21 19:00:00",
        "12 rows missing, 6 values filled with the last before, 2 pieces without a longer gap",
        "not forecast: station",
        "  kedro run --pipelines loads",
    ):
        assert line in made.stdout.splitlines()
    assert "load: from " in made.stdout
    blocks: dict[str, Any] = yaml.safe_load((project / "conf/base/parameters/loads.yml").read_text())
    said = blocks["loads_data"]["preprocess"]
    assert said == {"reader": "series", "files": str(path), "time": "time", "window": 48, "horizon": 24} | {
        "columns": ["load", "heat", "plan"]
    }
    small = {"train": {"epochs": 3, "threads": 1}}
    data = {"preprocess": {"columns": ["load", "heat"], "known": ["plan"], "window": 24, "horizon": 6}}
    catalog = kedro_run(project, "loads", env="local", params={"loads": small, "loads_data": data})
    metrics = catalog.load("loads.metrics")
    assert metrics["mse"] < metrics["last_value_mse"]
    assert proposed_columns(path, "heat") == ["heat"]
    with pytest.raises(
        InputError, match=r"hours\.csv: there is no column 'heats' to forecast \(did you mean 'heat'\?\)\. There"
    ):
        propose(path, "heats", "forecasting")
    with pytest.raises(InputError, match=r"hours\.csv: it must be said which column is to be told"):
        propose(path, None)
    with pytest.raises(InputError, match=r"^--problem regression: .*hours\.csv looks like data for a classification$"):
        propose(path, "plan", "regression")
    with pytest.raises(InputError, match=r"people\.csv: no reader knows what to make of it.* are: series$"):
        propose(write(tmp_path / "people.csv", [{"a": 1, "b": 2}]), None, "forecasting")
    wrong = ["more", "--data", str(path), "--problem", "forcasting"]
    answered = CliRunner().invoke(new_task, wrong, obj=SimpleNamespace(project_path=project)).output
    assert "--problem forcasting: must be a problem or the dotted path of one of yours (did you mean forec" in answered


def stations(many: int = 3, count: int = 90) -> list[list[dict[str, Any]]]:
    """The same hours of several stations."""
    return [[{**row, "station": f"s{seed}"} for row in hours(count, seed)] for seed in range(many)]


@pytest.mark.parametrize("form", ["one table", "a column in files", "a file each", "years in files"])
def test_several_series_become_a_forecast(tmp_path: Path, form: str) -> None:
    parts = stations()
    path = tmp_path / "own"
    expected: dict[str, Any] = {"series": "station"}
    if form == "one table":
        path = write(tmp_path / "own.csv", [row for rows in zip(*parts, strict=True) for row in rows])
    elif form == "years in files":
        expected = {}
        for place in range(3):
            write(path / f"{place}.csv", parts[0][30 * place : 30 * place + 30])
    else:
        expected = expected if "column" in form else {"each_file": True}
        for name, rows in zip(("test", "s1", "s2"), parts, strict=True):
            kept = {"station"} if "column" in form else set[str]()
            named = [{key: cell for key, cell in row.items() if key != "station" or kept} for row in rows]
            write(path / f"{name if form == 'a file each' else rows[0]['station']}.csv", named)
    found = propose(path, "load", "forecasting")
    said = dict(found.preprocess)
    assert {key: said[key] for key in ("series", "each_file") if key in said} == expected
    by = {"series": "station", "each_file": "file"}.get(next(iter(expected), ""))
    assert (f"3 series, by {by}" in found.seen) == bool(by)
    assert said.pop("reader") == "series"
    config = SeriesPreprocessConfig.model_validate(said)
    train, *_, info = series.preprocess(series.find(config), config, tmp_path)
    assert (info["series"], info["channels"]) == (expected.get("series"), ["load"])
    whole = np.array([[row["load"] for row in rows[:65]] for rows in parts[: 3 if by else 1]], np.float32)
    assert info["mean"] == [pytest.approx(whole.mean(), rel=1e-5)]
    assert len(train.arrays["times"]) == len(whole) * (65 - config.window - config.horizon + 1)


def test_several_series_that_nothing_tells_apart_are_answered(tmp_path: Path) -> None:
    rows = [{key: cell for key, cell in row.items() if key != "station"} for part in stations() for row in part]
    with pytest.raises(
        InputError,
        match=r"own\.csv: dates in time are there more than once.* write each series to a file of its own, or",
    ):
        propose(write(tmp_path / "own.csv", rows), None, "forecasting")
    for name in ("a", "b"):
        write(tmp_path / f"own/{name}.csv", rows)
    with pytest.raises(InputError, match=r"own: dates in time are there more than once"):
        propose(tmp_path / "own", "load", "forecasting")
    for name in ("train", "test"):
        write(tmp_path / f"splits/{name}.csv", hours(60)[:30] if name == "train" else hours(60)[30:])
    with pytest.raises(InputError, match=r"splits: has files with the names of splits, but series are split by time"):
        propose(tmp_path / "splits", None, "forecasting")
    short = write(tmp_path / "short.csv", hours(9))
    said = propose(short, "load", "forecasting").preprocess
    assert (said["window"], said["horizon"]) == (1, 1)
    with pytest.raises(InputError, match=r"few\.csv: too short, the \w+ rows have not two steps on end\. Add rows"):
        propose(write(tmp_path / "few.csv", hours(2)), "load", "forecasting")


@pytest.mark.parametrize(("long", "target"), [(False, "kind"), (True, "kind"), (False, "height")])
def test_series_with_a_label_become_a_task(tmp_path: Path, long: bool, target: str) -> None:
    rows = [{name: cell for name, cell in row.items() if name != "height" or target == name} for row in waves(60)]
    path = write(tmp_path / "waves.csv", steps(rows) if long else rows)
    found = propose(path, target)
    form = {"series": "wave", "time": "step", "columns": ["x", "y"]} if long else {"columns": COLUMNS_OF_WAVES}
    assert found.preprocess == {"reader": "labelled_series", "files": str(path), "target": target, **form}
    assert (found.problem, found.blocks["model"]) == (
        "regression" if target == "height" else "classification",
        {"name": "series_cnn"},
    )
    where = "step, by wave and step: x, y" if long else "series: t0 to t19"
    assert found.seen[0] == f"60 series of 15 to 20 steps, a row for each {where}"
    left = {"kind": "left out: name", "height": "left out: name, kind"}[target]
    assert (found.seen[-1] == left) is not long


COLUMNS_OF_WAVES = [f"t{step}" for step in range(20)]


def test_tables_that_are_no_series_stay_tables(tmp_path: Path) -> None:
    """Of columns that count on and have nothing to do with each other, groups without a time, few series."""
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=(200, 20)).tolist()
    apart = [
        {"label": "ab"[place % 2], **dict(zip(COLUMNS_OF_WAVES, row, strict=True))} for place, row in enumerate(numbers)
    ]
    grouped = [
        {"label": "ab"[place // 100 % 2], "number": place, "group": f"g{place // 10}", "x": row[0]}
        for place, row in enumerate(numbers)
    ]
    stepped = [{**row, "step": place % 10} for place, row in enumerate(grouped)]
    mixed = [{**row, "label": "ab"[place % 2]} for place, row in enumerate(stepped)]
    long = [{**row, "group": f"g{place // 50}", "step": place % 50} for place, row in enumerate(grouped)]
    for name, rows in {"apart": apart, "grouped": grouped, "mixed": mixed, "long": long}.items():
        assert propose(write(tmp_path / f"{name}.csv", rows), "label").preprocess["reader"] == "table"
    assert propose(write(tmp_path / "stepped.csv", stepped), "label").preprocess["series"] == "group"


def test_a_table_without_names_of_columns_is_told(tmp_path: Path) -> None:
    path = tmp_path / "waves_TRAIN.tsv"
    path.write_text("1\t0.5\t-0.25\n2\t0.75\t0.25\n")
    with pytest.raises(
        InputError, match=r"waves_TRAIN\.tsv: its first line has numbers alone, and no names of columns"
    ):
        propose(path, "label")


def test_rows_of_a_series_that_are_there_twice_are_counted(tmp_path: Path) -> None:
    rows = hours(400)
    seen = propose(write(tmp_path / "hours.csv", [*rows[:100], *rows[80:200], *rows[202:]]), None, "forecasting").seen
    assert seen[1].startswith("2 rows missing, 6 values filled with the last before")
    assert "20 rows are there more than once, or without a value" in seen


def proposed_columns(path: Path, target: str) -> Any:
    return propose(path, target, "forecasting").preprocess["columns"]
