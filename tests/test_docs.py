"""The documentation: it builds, its links lead somewhere, and every command in it runs."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from kedro.framework.cli.cli import KedroCLI
from kedro.framework.cli.utils import _split_params
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from PIL import Image

from conftest import ROOT, TINY, keep_the_exporters_table, keep_what_does_not_change, make_project
from processes import answer, free_port

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
# What is run elsewhere, by how it begins, and where.
ELSEWHERE = {
    "pip install uv && uv run kedro run --env sample --pipelines cifar_resnet": ".ci/run",
    "pip install uv && uv run pytest": ".ci/run",
    "uv run kedro run --env sample": "tests/test_tasks.py::test_a_task_does_its_whole_job",  # all tasks, one by one
    "UV_PROJECT_ENVIRONMENT=.venv-federated *": (
        "tests/test_federated.py::test_a_federation_learns_and_goes_on_after_it_was_killed"
    ),
    "uv run kedro run --env distributed --pipelines cifar_resnet --params distributed.machines=2*": (
        "tests/test_machines.py::test_two_machines_one_model"
    ),
    "uv run python -m benchmarks*": "tests/test_benchmarks.py::test_the_command_reports",
    "uv run kedro run --pipelines mnist_resnet": "tests/test_extending.py::test_add_a_task_and_a_network",
    "uv run kedro task new bikes *": "tests/test_task_command.py::test_a_table_becomes_a_file_that_trains",
    "uv run kedro task new bikes_elsewhere *": "tests/datasets/test_remote.py::test_task_new_looks_at_an_address",
    "uv run kedro run --pipelines predict --params predict.model=bikes,predict.files=s3:*": (
        "tests/datasets/test_remote.py::test_a_task_on_a_table_elsewhere"
    ),
    "uv run kedro run --pipelines predict --params predict.model=bikes,predict.entry=new_people": (
        "tests/test_predicted_entries.py::test_predict_joins_the_graph_of_the_entry"
    ),
    "uv run kedro task new numerals *": "tests/data/test_arrays.py::test_a_file_of_arrays_becomes_a_task",
    "uv run kedro run --pipelines bikes_mlp*": "tests/test_features.py::test_the_guide_has_the_stage_and_its_features",
    "uv run kedro run --pipelines predict --params predict.model=data/06_models/bikes_mlp/features.onnx*": (
        "tests/test_features.py::test_the_guide_has_the_stage_and_its_features"
    ),
    "uv run kedro run --pipelines bikes": "tests/test_extending.py::test_a_table_of_ones_own",
    "uv run kedro run --pipelines predict --params predict.model=bikes,predict.files=rows.csv": (
        "tests/test_extending.py::test_a_table_of_ones_own"
    ),
    'curl -d \'{"rows": [{"age": 30, "town"*': "tests/test_extending.py::test_a_table_of_ones_own",
    "uv run kedro task new verdicts *": "tests/test_task_command.py::test_texts_are_told_from_tables",
    "uv run kedro run --pipelines genres": "tests/test_extending.py::test_labels_of_ones_own",
    "uv run kedro run --pipelines topics": "tests/test_extending.py::test_labels_of_ones_own",
    "uv run kedro run --pipelines verdicts": "tests/test_extending.py::test_texts_of_ones_own",
    "uv run kedro run --pipelines predict --params predict.model=verdicts,predict.files=asked.csv": (
        "tests/test_extending.py::test_texts_of_ones_own"
    ),
    'curl -d \'{"texts": ["cold*': "tests/test_extending.py::test_texts_of_ones_own",
    "uv run kedro task new sentences *": "tests/test_translation.py::test_a_table_of_pairs_becomes_a_task",
    "uv run kedro run --pipelines sentences": "tests/test_extending.py::test_pairs_of_ones_own",
    "uv run kedro run --pipelines predict --params predict.model=sentences,predict.files=asked.csv": (
        "tests/test_extending.py::test_pairs_of_ones_own"
    ),
    'curl -d \'{"texts": ["two black*': "tests/test_extending.py::test_pairs_of_ones_own",
    "uv run kedro run --env sample --pipelines dates_transformer": (
        "tests/test_tasks.py::test_a_task_does_its_whole_job"
    ),
    "uv run kedro run --pipelines riders*": "tests/test_extending.py::test_rare_classes_and_folds",
    "uv run kedro task new digits *": "tests/test_extending.py::test_sounds_of_ones_own",
    "uv run kedro run --pipelines digits": "tests/test_extending.py::test_sounds_of_ones_own",
    "uv run kedro run --pipelines predict --params predict.model=digits,predict.files=asked": (
        "tests/test_extending.py::test_sounds_of_ones_own"
    ),
    "curl --data-binary @asked/7.wav *": "tests/test_extending.py::test_sounds_of_ones_own",
    "uv run kedro run --pipelines blossoms_timm": "tests/test_pretrained.py::test_the_guide",
    "uv run kedro run --pipelines opinions": "tests/test_pretrained.py::test_the_guide",
    "uv run kedro run --pipelines novel": "tests/test_extending.py::test_a_book_of_ones_own",
    "uv run kedro task new loads *": (
        "tests/test_task_command.py::test_a_table_by_time_becomes_a_forecast_when_that_is_asked_for"
    ),
    "uv run kedro task new gestures *": "tests/data/test_labelled_series.py::test_a_file_of_arrays_becomes_a_task",
    "uv run kedro task new waves *": "tests/test_task_command.py::test_series_with_a_label_become_a_task",
    "uv run kedro run --pipelines loads": "tests/test_extending.py::test_a_series_of_ones_own",
    "uv run kedro run --pipelines predict --params predict.model=loads,predict.files=asked.csv": (
        "tests/test_extending.py::test_a_series_of_ones_own"
    ),
    "curl -d @asked.json *": "tests/test_extending.py::test_a_series_of_ones_own",
    "uv run kedro run --pipelines flowers_cnn": "tests/test_extending.py::test_a_folder_of_ones_own",
    "uv run --extra mlflow kedro run *": (
        "tests/test_tracking.py::test_mlflow_has_each_epoch_once_and_all_that_comes_of_a_task"
    ),
    "uv run --extra mlflow kedro mlflow ui": "tests/test_tracking.py::test_mlflow_shows_the_runs",
    "KEDRO_ENV=sample uv run kedro viz *": "tests/test_tasks.py::test_the_static_site_of_kedro_viz_in_a_browser",
    "uv run python -m http.server *": "tests/test_tasks.py::test_the_static_site_of_kedro_viz_in_a_browser",
    "uv run python -m docs.graph *": "tests/test_tasks.py::test_the_static_site_of_kedro_viz_in_a_browser",
    "uv run --extra notebooks kedro jupyter lab *": "tests/test_notebooks.py::test_jupyter_lab_opens",
    "uv run --extra notebooks kedro ipython *": "tests/test_notebooks.py::test_runs_from_a_clean_state",
    "uv run jupyter nbconvert *": "tests/test_notebooks.py::test_the_command_that_strips",
    "uv run kedro serve *": "tests/test_docs.py::test_every_command_runs",
    'curl -d \'{"rows": [{"seed"*': "tests/test_serving.py::test_the_guide_on_generators",
    'curl -d \'{"rows": [{"t0"*': "tests/test_serving.py::test_the_guide_on_labelled_series",
    'curl -d \'{"series": [[{"step"*': "tests/test_serving.py::test_the_guide_on_labelled_series",
    'curl -d \'{"rows": [{"wave"*': "tests/test_serving.py::test_the_guide_on_labelled_series",
    "curl *": "tests/test_docs.py::test_every_command_runs",
    "uv run kedro viz run*": "tests/test_docs.py::test_every_command_runs",
    "uv run kedro package": "tests/test_program.py::test_the_guide",
    "uv run tensorboard *": "tests/test_docs.py::test_every_command_runs",
}


def commands(page: Path) -> list[str]:
    """The command lines of a page, in its blocks and within its sentences, as they are to be typed."""
    text = page.read_text().replace("\\\n", " ")
    start = r"(?:pip install uv && )?(?:[A-Z_]+=\S+ )?"
    lines = re.findall(rf"^ *({start}(?:uv run|kedro|curl|cp|echo) .*)$", text, flags=re.MULTILINE)
    within = re.findall(rf"`({start}(?:uv run )?kedro (?:run|runs|serve|viz|schema)\b[^`…<]*)`", text)
    found = [" ".join(line.partition("  #")[0].split()) for line in [*lines, *within]]
    found = [command for command in found if not re.fullmatch(r"(uv run )?kedro (run|serve|viz)", command)]  # names
    return [re.sub(rf"^({start})kedro", r"\1uv run kedro", command) for command in found]


def all_commands() -> list[str]:
    """Those of all pages but of the one that tests/test_own_data.py follows."""
    return list(dict.fromkeys(command for page in PAGES for command in commands(page) if page.name != "own-data.md"))


def test_links_lead_somewhere() -> None:
    """Sphinx checks those within docs; this one those of the README, and the names of files in all pages."""
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / link).exists(), link
    for page in PAGES:
        for name in re.findall(r"`((?:src|conf|tests|docs|benchmarks|notebooks)/[\w./]+\.\w+)`", page.read_text()):
            assert (ROOT / name).exists() or name in MADE, f"{page.name}: {name}"


# By the project: the tutorial shows it; and nothing was interrupted that could be gone on with.
REFUSED = ("optimizer.name=Addam", "resume=must")
ADDED = {  # tasks, by who follows the page
    *("mnist_resnet", "flowers_cnn", "bikes", "genres", "topics", "verdicts", "digits", "novel", "loads"),
    *("riders", "riders_folds", "blossoms_timm", "opinions", "sentences", "bikes_mlp"),
}
MADE = {  # by who follows the page
    "conf/base/parameters/rides.yml",
    "conf/parameters.schema.json",
    "conf/base/catalog_people.yml",
    "conf/local/credentials.yml",
    "conf/base/parameters/bikes.yml",
    "conf/base/parameters/blossoms.yml",
    "conf/base/parameters/letters_to_the_editor.yml",
    "conf/base/parameters/loads.yml",
    "conf/base/parameters/genres.yml",
    "conf/base/parameters/topics.yml",
    "conf/base/parameters/novel.yml",
    "conf/base/parameters/sentences.yml",
    "conf/base/parameters/riders.yml",
    "conf/base/parameters/verdicts.yml",
    "conf/base/parameters/digits.yml",
    "conf/base/parameters/flowers_cnn.yml",
    "conf/base/parameters/letters.yml",
    "conf/base/parameters/mnist_resnet.yml",
    "src/torchloom/data/readers/letters.py",
    "src/torchloom/models/logistic.py",
}


@pytest.mark.long
def test_the_site_is_built(tmp_path: Path) -> None:
    built = tmp_path / "site"
    options = ["-W", "-q", "-b", "html", "-d", str(tmp_path / "trees")]
    subprocess.run([sys.executable, "-m", "sphinx", *options, "docs", str(built)], cwd=ROOT, check=True, timeout=300)
    reference = (built / "reference" / "parameters.html").read_text()
    assert "epochs of linear rise to the full learning rate" in reference
    assert "a CSV, Parquet, Arrow or JSON lines file" in reference
    assert "initialization" in (built / "reference" / "choices.html").read_text()


# ---- every command -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project in which all environments are small and have drawn data, and the files that the pages speak of."""
    folder = make_project(tmp_path_factory.mktemp("docs") / "project")
    _make_small(folder)
    _draw_files(folder)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


FEW = {"mnist": (400, 100), "cifar10": (400, 100), "imdb": (200, 50), "wonderland": (20_000,)}  # drawn for each


def _make_small(folder: Path) -> None:
    """Few drawn samples, short training and small networks in all environments; processes do with the CPU."""
    sources = yaml.safe_load((folder / "conf/base/catalog_sources.yml").read_text())
    sources |= yaml.safe_load((folder / "conf/sample/catalog_sources.yml").read_text())
    for name, counts in FEW.items():
        drawn = folder / "drawn" / name
        drawn.mkdir(parents=True)
        import_module(f"torchloom.data.readers.{name}").draw_sample(drawn, *counts)
        sources[f"{name}_source"]["places"] = [str(drawn)]
    for environment in ("base", "sample"):
        (folder / "conf" / environment / "catalog_sources.yml").write_text(yaml.safe_dump(sources))
    for path in sorted((folder / "conf").glob("*/parameters/*.yml")):
        parameters = yaml.safe_load(path.read_text())
        sample = folder / "conf/sample/parameters" / path.name
        if path.parts[-3] == "base" and sample.is_file():
            parameters = _merged(parameters, yaml.safe_load(sample.read_text()))
        for task in parameters.keys() & SMALL.keys():
            parameters[task] = _merged(parameters[task], SMALL[task])
        path.write_text(yaml.safe_dump(parameters))


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {key: _merged(below.get(key), above[key]) if key in above else below[key] for key in {**below, **above}}


ONE_EPOCH = {"train": {"epochs": 1, "warmup_epochs": 0.0, "compile": False, "threads": 1}}
QUICK = {"compare": {"seconds": 0.001, "turns": 1, "batch_size": 16}}
SMALL = {task: _merged(settings, ONE_EPOCH) for task, settings in TINY.items()} | {
    "cifar_resnet": _merged({"data": {"subset": 100}, "model": {"width": 2}, "evaluate": {"pictures": 2}}, ONE_EPOCH),
    "cifar_cnn_distilled": _merged(QUICK, ONE_EPOCH),
    "cifar_resnet_pruned": _merged({"train": {"prune": {"epochs": 1}}, **QUICK}, ONE_EPOCH),
    "cifar_resnet_quantized": {"quantize": {"samples": 100}, **QUICK},
    "mnist_lenet_quantized": {"quantize": {"samples": 100}, **QUICK},
    "sweep": {"trials": 3},
}


def _draw_files(folder: Path) -> None:
    (folder / "photos").mkdir()
    generator = np.random.default_rng(0)
    for name in ("photos/a.png", "photos/b.jpg", "photo.png"):
        Image.fromarray(generator.integers(0, 255, (40, 30, 3), dtype=np.uint8)).save(folder / name)
    (folder / "reviews.txt").write_text("a fine film\nawful\n")
    (folder / "prompts.txt").write_text("Alice \nThe Queen\n")
    row = next(line for line in (ROOT / "docs/how-to/serve.md").read_text().splitlines() if "blood sugar" in line)
    features = re.findall(r'"([^"]+)": [\d.]+', row)
    (folder / "table.csv").write_text(",".join(features) + "\n" + ",".join("1" * len(features)) + "\n")


def elsewhere(command: str) -> bool:
    return any(command == start or (start.endswith("*") and command.startswith(start[:-1])) for start in ELSEWHERE)


def test_what_is_run_elsewhere_is_there() -> None:
    for start, place in ELSEWHERE.items():
        path, _, test = place.partition("::")
        assert f"def {test}(" in (ROOT / path).read_text() if test else (ROOT / path).is_file(), place
        assert any(elsewhere(command) and command.startswith(start.rstrip("*")) for command in all_commands()), start


def test_no_option_of_a_run_is_deprecated() -> None:
    """Kedro warns of --pipeline at each run; `kedro runs` has one of its own."""
    files = [*PAGES, *(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "conf").glob("**/*.yml")]
    files += (ROOT / "src").glob("**/*.py")
    assert [path for path in files if re.search(r"kedro run [^`\n]*--pipeline\b", path.read_text())] == []


def test_the_commands_are_valid(project: Path) -> None:
    """What is run elsewhere in another form: pipelines, nodes, environment and parameters."""
    bootstrap_project(project)
    runs = [command.partition("kedro run ")[2] for command in all_commands() if "kedro run " in command]
    runs = [run for run in runs if elsewhere(f"uv run kedro run {run}") or "--extra" in run]
    assert len(runs) > 3
    for run in runs:
        options = shlex.split(run)
        given = dict(zip(options[::2], options[1::2], strict=True))
        names = given.get("--pipelines") or given.get("--pipelines") or "__default__"
        known = [name for name in names.split(",") if name not in ADDED]
        nodes = {node.name for name in known for node in pipelines[name].nodes}
        named = {*given.get("--nodes", "").split(","), *given.get("--from-nodes", "").split(",")} - {""}
        assert named <= nodes, run
        parameters = _split_params(None, None, given.get("--params", ""))  # type: ignore[arg-type]
        with KedroSession.create(project, env=given.get("--env"), runtime_params=parameters) as session:
            session.load_context()  # checks the parameters


@pytest.mark.long
def test_every_command_runs(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as a reader would."""
    keep_the_exporters_table()
    keep_what_does_not_change()
    failed = []
    for command in all_commands():
        if elsewhere(command):
            continue
        if command.startswith(("cp ", "echo ")):
            subprocess.run(["bash", "-c", command], cwd=reader, check=True)
            continue
        variables, arguments = _split(command)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        began = time.perf_counter()
        code = _kedro(reader, arguments)
        print(f"{time.perf_counter() - began:6.1f} s  {code}  {command}")
        if (code != 0) != any(what in command for what in REFUSED):
            failed.append(command)
        for name in variables:
            monkeypatch.delenv(name)
    assert not failed
    for command in all_commands():
        if command.startswith("curl") and not any(part in command for part in ASKED_ELSEWHERE):
            assert_answered(reader, command)
    assert '"name":"mnist_mlp"' in shown(reader, "uv run kedro viz run --env sample", "api/main", "--no-browser")
    tensorboard = "uv run tensorboard --logdir data/tracking/tensorboard"
    assert "loss/train" in shown(reader, tensorboard, "data/plugin/scalars/tags")


def shown(project: Path, command: str, page: str, *more: str) -> str:
    """What a command of the documentation that starts a server for a browser shows there, at a port that is free."""
    assert command in all_commands()
    port = free_port()
    name, *arguments = command.removeprefix("uv run ").split()
    program = str(Path(sys.executable).with_name(name))
    return answer([program, *arguments, "--port", str(port), *more], project, f"http://127.0.0.1:{port}/{page}")


ASKED_ELSEWHERE = ('"town"', '"cold', "@asked", '"seed"', '"t0"', '"step"', '"wave"')
SERVED = {
    "@photo.png": "mnist_mlp",
    '"texts"': "imdb_lstm",
    '"prompts"': "wonderland_lstm",
    '"rows"': "linear_regression",
}


def assert_answered(project: Path, request: str) -> None:
    """The request, sent to a server of such a model; at a port that is free."""
    (model,) = (name for start, name in SERVED.items() if start in request)
    serve = [sys.executable, "-m", "kedro", "serve", model, "--port", "0"]
    with subprocess.Popen(serve, cwd=project, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
            assert address
            asked = shlex.split(request.replace("http://127.0.0.1:8000", address[0]))
            answer = subprocess.run(
                [*asked, "--fail", "--silent", "--max-time", "60"], cwd=project, capture_output=True
            )
            assert answer.returncode == 0, (request, answer)
            assert isinstance(json.loads(answer.stdout), list)
        finally:
            server.kill()


def _split(command: str) -> tuple[dict[str, str], list[str]]:
    """The variables that are set for the command, and what follows `kedro`."""
    words = shlex.split(command.removeprefix("pip install uv && "))
    place = words.index("uv")
    assert words[place : place + 3] == ["uv", "run", "kedro"], command
    return dict(word.split("=", 1) for word in words[:place]), words[place + 3 :]


def _kedro(project: Path, arguments: list[str]) -> int:
    """`kedro …` in this process; its exit status."""
    try:
        KedroCLI(project).main(arguments, prog_name="kedro")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:  # what a command line would end with
        print(f"{type(error).__name__}: {error}")
        return 1
    return 0
