"""The page on a task, the model card, and what they are made of."""

import contextlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from jinja2 import Environment
from PIL import Image

from conftest import kedro_run, make_project
from reports import check_card, check_page
from torchloom.config import DataConfig
from torchloom.data.pictures import decode_image
from torchloom.data.targets import Classes
from torchloom.data.text import Tokenizer
from torchloom.errors import InputError
from torchloom.modalities import DocumentInfo, ImageInfo, TextInfo
from torchloom.problems import problem_of
from torchloom.problems.classification import REPORTS
from torchloom.records.provenance import Lineage
from torchloom.records.recipe import without_folders
from torchloom.reporting.card import made_smaller, plain
from torchloom.reporting.page import Facts, Picture, Section, Table, Text, read_template, render, shown
from torchloom.reporting.report import Subject, results
from torchloom.system.devices import choose_precision
from torchloom.training.checkpoint import Checkpoint, CheckpointDataset
from torchloom.training.loaders import LoaderPlan

NASTY = ["<script>alert(1)", "<img src=x onerror=alert(2)>", 'a|b "*c*" & `d` $e$']
TASK = "signs_mlp"
CIRCUMSTANCES = {"run", "end", "seconds", "device", "peak"}
PARAMETERS = """
signs:
  preprocess: {folder: %s, size: [8, 8], validation_fraction: 0.0}
signs_mlp:
  task: {problem: classification, data: signs}
  data: {}
  model: {name: mlp, hidden: [8]}
  train: {epochs: 3, batch_size: 8, optimizer: {name: Adam, lr: 0.001}, threads: 1}
  evaluate: {}
  export: {}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which a classifier of a folder with nasty names has been trained, without a validation split."""
    folder = tmp_path_factory.mktemp("report")
    generator = np.random.default_rng(0)
    for number, name in enumerate(NASTY):
        (folder / "signs" / name).mkdir(parents=True)
        for place in range(20):
            pixels = generator.integers(0, 160, (9, 9, 3), dtype=np.uint8)
            pixels[..., number] += 95
            Image.fromarray(pixels).save(folder / "signs" / name / f"{place}.png")
    project = make_project(folder / "project")
    (project / f"conf/base/parameters/{TASK}.yml").write_text(PARAMETERS % (folder / "signs"))
    run(project)
    return project


def run(project: Path, **options: Any) -> None:
    kedro_run(project, TASK, **options)


def page_of(project: Path) -> Path:
    return project / f"data/sample/08_reporting/{TASK}/report.html"


@pytest.mark.xdist_group("report")
def test_the_page_shows_what_is_in_the_files(project: Path) -> None:
    page = check_page(page_of(project).read_text())
    reports = page_of(project).parent
    metrics, per_class = (json.loads((reports / f"{name}.json").read_text()) for name in ("metrics", "per_class"))
    facts = dict(reversed(page.facts))  # the first of a name
    assert facts["test accuracy"] == f"{metrics['accuracy']:.4f}"
    assert facts["calibration error"] == f"{metrics['calibration_error']:.4f}"
    assert facts["validation split"] == "none"
    assert facts["train split"] == "54 images"
    assert facts["parameters"] == f"{(8 * 8 * 3 + 1) * 8 + (8 + 1) * 3:,}"
    assert facts["optimizer"] == "Adam, lr 0.001"
    for name in NASTY:
        assert page.row(name)[1:4] == [f"{per_class[name][column]:.4f}" for column in ("precision", "recall", "f1")]
    pictures = {path.name: path.read_bytes() for path in reports.glob("*.png")}
    assert sorted(page.pictures.values()) == sorted(pictures.values())
    assert len(pictures) == 5  # of so few samples none is shown twice
    assert {REPORTS["confusion_matrix"], REPORTS["roc_curves"]} <= page.pictures.keys()
    assert "any classes" not in page.text
    assert page.sections == [
        *("summary", "training", "results", "export", "times", "network", "parameters", "environment")
    ]


@pytest.mark.xdist_group("report")
def test_the_times_are_those_of_the_stages(project: Path) -> None:
    page = check_page(page_of(project).read_text())
    for path in (project / "data/sample/records/nodes").glob("*.json"):
        record = json.loads(path.read_text())
        if not record["node"].endswith(".report"):
            assert page.row(record["node"])[1] == f"{record['seconds']:.2f}"
    (run,) = (json.loads(path.read_text()) for path in (project / "data/sample/records/runs").glob("*.json"))
    assert page.row(run["run"])[1] == "sample"
    facts = dict(page.facts)
    assert facts["torch"] == run["packages"]["torch"]
    history = json.loads((project / f"data/sample/07_model_output/{TASK}/history.json").read_text())
    assert facts["seconds of waiting for data"] == shown(sum(row["seconds_waiting"] for row in history))


@pytest.mark.xdist_group("report")
def test_the_model_card_of_a_folder_of_ones_own(project: Path) -> None:
    metrics = json.loads((page_of(project).parent / "metrics.json").read_text())
    path = project / f"data/sample/06_models/{TASK}/README.md"
    printed = check_card(path, TASK, metrics)
    assert sum(printed.count(repr(name)) for name in NASTY) == 1
    text = path.read_text()
    assert "<script>" not in text
    assert "<img" not in text
    assert "datasets:" not in text
    assert str(project.parent) not in text
    assert "They are the user's own" in text
    settings = dict(re.findall(r"^\| (\S+) \| (.*) \|$", text, re.M))
    given = {
        "signs.preprocess.folder": "…/signs",
        "signs.preprocess.validation\\_fraction": "0",
        "signs.preprocess.seed": "0",
        "signs\\_mlp.model.hidden": "\\[8\\]",
        "signs\\_mlp.train.optimizer.lr": "0.001",
        "signs\\_mlp.train.seed": "0",
        "signs\\_mlp.train.threads": "1",
    }
    assert {name: settings.get(name) for name in given} == given
    assert not {"signs\\_mlp.train.l1", "signs\\_mlp.train.accumulate", "signs\\_mlp.data.subset"} & settings.keys()
    plan = json.loads((project / f"data/sample/05_model_input/{TASK}/dataloaders.json").read_text())
    for split in ("train", "test"):
        assert f"{split} {plan['splits'][split][0]['fingerprint']}" in text
    (run,) = (json.loads(path.read_text()) for path in (project / "data/sample/records/runs").glob("*.json"))
    assert plain(without_folders(run["command"])) == settings["command"]
    assert f"torch {run['packages']['torch']}" in settings["versions"]
    precision = str(choose_precision("auto", torch.device("cpu"))).removeprefix("torch.")
    assert f"| computed by | cpu ({plain(run['machine']['processor'])}) in {precision}, 1 thread |" in text
    assert "with 3 channels is of" in text


@pytest.mark.xdist_group("report")
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_the_example_on_a_card_reads_a_picture_as_predict_does(project: Path, tmp_path: Path, mode: str) -> None:
    """With what is transparent in white."""
    generator = np.random.default_rng(0)
    picture = Image.fromarray(generator.integers(0, 255, (40, 30, 4), dtype=np.uint8)).convert(mode)
    picture.save(tmp_path / "photo.png", **({"transparency": picture.getpixel((0, 0))} if mode == "P" else {}))
    card = project / f"data/sample/06_models/{TASK}/README.md"
    (example,) = re.findall(r"```python\n(.*?)```", card.read_text(), re.S)
    opened = example.replace('Image.new("RGB", (640, 480), "orange")', "Image.open(PHOTO)")
    assert opened != example
    names: dict[str, Any] = {"PHOTO": tmp_path / "photo.png"}
    with contextlib.chdir(card.parent):
        exec(opened, names)
    with (tmp_path / "photo.png").open("rb") as file:
        np.testing.assert_array_equal(names["images"][0], decode_image(file, (3, 8, 8)))


@pytest.mark.long
@pytest.mark.xdist_group("report")
def test_a_browser_sees_what_was_written_and_runs_nothing(project: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page_of(project).as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    there, here = (check_page(html) for html in (dom, page_of(project).read_text()))
    assert there.rows == here.rows
    assert there.facts == here.facts
    assert there.pictures == here.pictures


@pytest.mark.xdist_group("report")
def test_the_report_is_made_again_alone_and_without_records(project: Path) -> None:
    before = check_page(page_of(project).read_text())
    records = project / "data/sample/records"
    shutil.copytree(records, project / "kept")
    try:
        run(project, node_names=[f"{TASK}.report"])
        again = check_page(page_of(project).read_text())
        assert (again.rows, again.facts, again.pictures) == (before.rows, before.facts, before.pictures)
        for path in (records / "nodes").glob("*.json"):  # as they were before they told times
            record = json.loads(path.read_text())
            path.write_text(json.dumps({name: record[name] for name in record if name not in CIRCUMSTANCES}))
        run(project, node_names=[f"{TASK}.report"])
        old = check_page(page_of(project).read_text())
        assert set(before.sections) - set(old.sections) == {"environment"}
        assert (old.pictures, old.text.count("finished")) == (before.pictures, 0)
        shutil.rmtree(records / "nodes")
        run(project, node_names=[f"{TASK}.report"])
        bare = check_page(page_of(project).read_text())
        assert bare.pictures == before.pictures
        assert not {"parameters", "environment"} & set(bare.sections)
    finally:
        shutil.rmtree(records)
        (project / "kept").rename(records)


@pytest.mark.xdist_group("report")
def test_what_was_changed_on_the_way_is_told(project: Path) -> None:
    dataset = CheckpointDataset(filepath=str(project / f"data/sample/06_models/{TASK}/checkpoint.safetensors"))
    checkpoint, change = dataset.load(), "from epoch 2 on, train.l2: 0.0, now 0.5"
    try:
        dataset.save(checkpoint.model_copy(update={"training": {**checkpoint.training, "changes": [change]}}))
        run(project, node_names=[f"{TASK}.report"])
        assert ("gone on with otherwise", change) in check_page(page_of(project).read_text()).facts
        card = (project / f"data/sample/06_models/{TASK}/README.md").read_text()
        assert f"It began with other settings: {change}." in card
    finally:
        dataset.save(checkpoint)
        run(project, node_names=[f"{TASK}.report"])


@pytest.mark.xdist_group("report")
def test_how_it_was_fine_tuned_is_told(project: Path) -> None:
    dataset = CheckpointDataset(filepath=str(project / f"data/sample/06_models/{TASK}/checkpoint.safetensors"))
    checkpoint = dataset.load()
    recipe = {**checkpoint.training["parameters"], "finetune": {"name": "lora", "rank": 4, "layers": []}}
    try:
        dataset.save(checkpoint.model_copy(update={"training": {**checkpoint.training, "parameters": recipe}}))
        run(project, node_names=[f"{TASK}.report"])
        assert ("finetune", "lora, rank 4") in check_page(page_of(project).read_text()).facts
    finally:
        dataset.save(checkpoint)
        run(project, node_names=[f"{TASK}.report"])


@pytest.mark.xdist_group("report")
def test_a_missing_part_is_named(project: Path) -> None:
    path = page_of(project).parent / "export_report.json"
    content = path.read_text()
    path.unlink()
    try:
        with pytest.raises(InputError, match=r"export_report\.json: missing or damaged .* Run the stage"):
            run(project, node_names=[f"{TASK}.report"])
    finally:
        path.write_text(content)


@pytest.mark.long
def test_formats_and_a_smaller_model_are_on_their_pages(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    quick = {"seconds": 0.001, "turns": 1, "batch_size": 4}
    export = {"formats": ["torch_export"], "compare": quick}
    params = {"mnist_lenet": {"train": {"epochs": 2}, "export": export}, "mnist_lenet_quantized": {"compare": quick}}
    kedro_run(project, "mnist_lenet", params=params)
    kedro_run(project, "mnist_lenet_quantized", params=params)
    pages = [
        check_page((project / f"data/sample/08_reporting/{task}/report.html").read_text())
        for task in ("mnist_lenet", "mnist_lenet_quantized")
    ]
    report = json.loads((project / "data/sample/08_reporting/mnist_lenet/formats_report.json").read_text())
    assert f"{report['torch_export']['bytes']:,}" in pages[0].row("torch_export")
    comparison = json.loads((project / "data/sample/08_reporting/mnist_lenet_quantized/comparison.json").read_text())
    figures = [f"{comparison[side]['bytes']:,}" for side in ("before", "after")]
    assert pages[1].row("bytes") == ["bytes", *figures]
    assert ("builds upon", "mnist_lenet") in pages[1].facts
    assert pages[1].row("mnist_lenet.train")[1] == pages[0].row("mnist_lenet.train")[1]
    path = project / "data/sample/06_models/mnist_lenet_quantized/README.md"
    check_card(path, "mnist_lenet_quantized", {"accuracy": comparison["after"]["accuracy"]})
    text = path.read_text()
    assert figures[1] in text
    assert "| mnist\\_lenet\\_quantized.quantize.samples | 1,000 |" in text
    assert f"{100 * comparison['after']['int8_weights']:.1f} % of its weights are int8." in text


COMPARED = {
    "before": {"int8_weights": 0.0, "zeros": 0.0, "channels": 226},
    "after": {"int8_weights": 0.0, "zeros": 0.5, "channels": 226},
    "change": {"times_smaller_compressed": 1.66},
}


@pytest.mark.parametrize(
    ("training", "after", "expected"),
    [
        ({"prune": {}}, {}, "50.0 % of its weights are zero; compressed, its file is 1.66 times smaller."),
        (
            {"prune": {}},
            {"channels": 118, "zeros": 0.0},
            "47.8 % of the channels of its convolutions and dense layers (108 of 226) were cut.",
        ),
        ({}, {"int8_weights": 0.9927}, "99.3 % of its weights are int8."),
        ({"prune": {}}, {"int8_weights": 1.0}, "100.0 % of its weights are int8."),
        ({"distill": {}}, {"channels": 100, "zeros": 0.0}, ""),
    ],
)
def test_a_card_says_how_the_model_was_made_smaller(
    training: dict[str, Any], after: dict[str, Any], expected: str
) -> None:
    info = ImageInfo(target=Classes(classes=["a"]), shape=[1, 1, 1], mean=[0.0], std=[1.0])
    parameters = {"parameters": training}
    checkpoint = Checkpoint(
        network="mlp", arguments={}, problem="classification", info=info, training=parameters, weights={}
    )
    loaders = LoaderPlan(
        splits={"train": [], "validation": [], "test": []},
        info=info,
        data=DataConfig(),
        batch_size=1,
        evaluate_batch_size=1,
        seed=0,
    )
    comparison = {**COMPARED, "after": {**COMPARED["after"], **after}}
    subject = Subject(Lineage("a", [], {}), checkpoint, loaders, None, {"comparison": comparison})
    assert made_smaller(subject) == expected


# ---- pages and cards of anything -----------------------------------------------------------------------------------


def test_all_that_is_shown_is_escaped() -> None:
    for text in NASTY:
        parts = [Table(text, [{text: text}]), Facts(text, {text: text}, folded=True), Text(text, text)]
        page = check_page(render(text, text, {text: text}, [Section("One", parts)]))
        assert page.row(text) == [text.replace("_", " ")]
        assert page.text.count(text) == 13
        assert page.tags.count("img") == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (0.97649, "0.9765"),
        (0.0, "0.0000"),
        (1e-5, "1e-05"),
        (12345.6, "12,346"),
        ([1, "ä"], '[1, "ä"]'),
        ("\n", "'\\n'"),
        ("", ""),
        ("x" * 500, "x" * 400 + " …"),
    ],
)
def test_values_as_people_read_them(value: object, expected: str) -> None:
    assert shown(value) == expected


def test_bars_are_shares_of_the_longest() -> None:
    table = Table("", [{"stage": "a", "seconds": "0.50"}, {"stage": "b", "seconds": "2.00"}], bar="seconds")
    assert [table.share(row) for row in table.rows] == [25, 100]
    assert table.columns == {"stage": False, "seconds": True}
    assert Table("", [{"seconds": 0}], bar="seconds").share({"seconds": 0}) == 0


def test_markdown_shows_what_was_written() -> None:
    assert plain('a|b "*c*" & `d`\n<i>') == 'a\\|b "\\*c\\*" &amp; \\`d\\` &lt;i&gt;'


@pytest.mark.parametrize("tokens", ["words", "characters", "subwords"])
@pytest.mark.parametrize("last", [None, 5])
def test_the_example_on_a_card_cuts_texts_as_the_model_does(tokens: Any, last: int | None) -> None:
    texts = [
        "What a wonderful film! Don\u2019t miss_it, well-made",
        "味道不错\uff0c很快\uff01ABC 1号店\u3002",
        "東京へ行く\u3001ที่นี่ดี?",
        "हिन्दी में cafe\u0301's ১২ 한국어",
    ]
    tokenizer = Tokenizer.learnt(tokens, texts, 400, 1, lower_case=True)
    info = DocumentInfo(target=Classes(classes=["a", "b"]), tokenizer=tokenizer, max_tokens=last)
    template = Environment(trim_blocks=True, lstrip_blocks=True, finalize=plain).from_string(read_template(info.card))
    example = "\n".join(template.render(part=part, info=info) for part in ("imports", "prepare"))
    for text in texts:
        known: dict[str, Any] = {"np": np, "json": json, "metadata": {"tokenizer": tokenizer.model_dump_json()}}
        code = re.sub("what a wonderful film!", text, example, flags=re.IGNORECASE)
        exec(code, known)
        assert known["inputs"]["tokens"].tolist() == [tokenizer.tokens(text, last).tolist()]


@pytest.mark.parametrize("tokens", ["words", "characters", "subwords"])
def test_the_example_on_a_card_puts_a_text_together_as_the_model_does(tokens: Any) -> None:
    text = "the cat sat on the mat . a dog ran"
    tokenizer = Tokenizer.learnt(tokens, [text], 400, 1)
    info = TextInfo(tokenizer=tokenizer)
    template = Environment(trim_blocks=True, lstrip_blocks=True, finalize=plain).from_string(read_template(info.card))
    example = "\n".join(template.render(part=part, info=info) for part in ("imports", "prepare"))
    known: dict[str, Any] = {"np": np, "json": json, "metadata": {"tokenizer": tokenizer.model_dump_json()}}
    exec(example, known)
    assert "".join(known["characters"][token] for token in tokenizer.encode(text)).strip() == text


def test_a_figure_of_nothing_is_left_out() -> None:
    """Such as the coefficients of a table with words in it."""

    def captions(coefficients: list[dict[str, Any]]) -> list[str]:
        plot = b"picture" if coefficients else b""
        made = {"coefficients": coefficients, "residuals": b"picture", "coefficient_plot": plot}
        loaders = SimpleNamespace(info=SimpleNamespace(drawn_names=lambda: []))
        subject: Any = SimpleNamespace(made=made, smaller=False, problem=problem_of("regression"), loaders=loaders)
        return [part.caption for part in results(subject) if isinstance(part, Picture)]

    beside = "The network's coefficients beside those of least squares in closed form."
    assert beside in captions([{"feature": "age", "network": "1.5", "closed_form": "1.25"}])
    assert captions([]) == ["Predictions over true values, and what is left over the predictions."]
