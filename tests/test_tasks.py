"""Every registered task through Kedro itself, in small: all stages, what they leave, and each stage alone."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from kedro.io import DataCatalog

from conftest import TINY, kedro, kedro_run, make_project
from torchloom.errors import InputError
from torchloom.pipeline_registry import TASKS

OUTPUTS = [
    *("dataloaders", "checkpoint", "last_checkpoint", "history", "metrics", "per_class", "confusion_matrix"),
    *("learning_curves", "predictions", "onnx", "export_report"),
]
REPORTS = ["metrics.json", "export_report.json", "learning_curves.png", "confusion_matrix.png", "predictions.png"]


@pytest.mark.parametrize("task", TASKS)
def test_a_task_does_its_whole_job(run: Callable[..., DataCatalog], project: Path, task: str) -> None:
    catalog = run(task, params={task: TINY[task]})
    assert [name for name in OUTPUTS if not catalog.exists(f"{task}.{name}")] == []
    assert [path.name for path in (project / "data").iterdir()] == ["sample"]

    metrics = catalog.load(f"{task}.metrics")
    history = catalog.load(f"{task}.history")
    assert metrics["accuracy"] > 0.4  # chance is 0.1
    assert metrics["test_images"] == 1000
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert metrics["epoch"] == max(history, key=lambda row: row["val_accuracy"])["epoch"]

    plan = catalog.load(f"{task}.dataloaders")
    images, labels = next(iter(plan.loader("test")))
    model = catalog.load(f"{task}.checkpoint").build()
    session = onnxruntime.InferenceSession(catalog.load(f"{task}.onnx"))
    logits = session.run(["logits"], {"images": images.contiguous().numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(images).numpy(), atol=1e-3)
    assert (logits.argmax(1) == labels.numpy()).mean() == pytest.approx(metrics["accuracy"])
    assert catalog.load(f"{task}.export_report")["agreement"] == 1.0


def test_two_tasks_in_one_run_prepare_their_data_once(
    run: Callable[..., DataCatalog], caplog: pytest.LogCaptureFixture
) -> None:
    run("__default__", params=TINY, to_nodes=[f"{task}.build_dataloaders" for task in TASKS])
    nodes = [
        record.getMessage() for record in caplog.records if record.getMessage().startswith("Running node: download")
    ]
    assert len(nodes) == len({data for _, data in TASKS.values()})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which mnist_mlp has run."""
    project = make_project(tmp_path_factory.mktemp("finished") / "project")
    kedro_run(project, "mnist_mlp", params={"mnist_mlp": TINY["mnist_mlp"]})
    return project


@pytest.mark.xdist_group("finished")
@pytest.mark.parametrize(
    ("selection", "rewritten"),
    [
        (["--nodes", "mnist_mlp.evaluate"], {"metrics.json", "per_class.json"}),
        (
            ["--from-nodes", "mnist_mlp.evaluate,mnist_mlp.export_onnx"],
            {"metrics.json", "per_class.json", "model.onnx"},
        ),
        (["--tags", "export_onnx"], {"model.onnx", "export_report.json"}),
        (["--namespaces", "mnist"], {"files.json", "train.safetensors"}),
        (["--nodes", "mnist_mlp.train"], {"checkpoint.safetensors", "history.json"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_stage_runs_alone_in_a_new_process(finished: Path, selection: list[str], rewritten: set[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "data").rglob("*.*") if path.is_file()}
    result = kedro(finished, "run", "--env", "sample", "--pipelines", "mnist_mlp", *selection)
    assert result.returncode == 0, result.stderr
    changed = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    others = {
        "checkpoint.safetensors",
        "model.onnx",
        "metrics.json",
        "train.safetensors",
        "dataloaders.json",
    } - rewritten
    assert rewritten <= changed
    assert not others & changed


@pytest.mark.xdist_group("finished")
def test_the_summary_names_the_figures_and_the_files(finished: Path) -> None:
    result = kedro(finished, "run", "--env", "sample", "--pipelines", "mnist_mlp", "--tags", "evaluate,export_onnx")
    accuracy = json.loads((finished / "data/sample/08_reporting/mnist_mlp/metrics.json").read_text())["accuracy"]
    printed = result.stdout + result.stderr
    assert f"test accuracy {accuracy:.4f}" in printed
    for file in ("06_models/mnist_mlp/model.onnx", *(f"08_reporting/mnist_mlp/{name}" for name in REPORTS)):
        assert f" data/sample/{file}" in printed


@pytest.mark.xdist_group("finished")
def test_kedro_viz_shows_each_task_as_a_group_with_layers_and_previews(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kedro_viz", reason="the extra 'viz' is not installed")
    monkeypatch.setenv("KEDRO_ENV", "sample")
    result = kedro(finished, "viz", "build", "--include-previews")
    assert result.returncode == 0, result.stderr
    graph = json.loads((finished / "build/api/main").read_text())
    groups = graph["modular_pipelines"]["__root__"]["children"]
    assert {child["id"] for child in groups if child["type"] == "modularPipeline"} >= {"mnist", *TASKS}
    assert graph["layers"] == ["01_raw", "03_primary", "05_model_input", "06_models", "07_model_output", "08_reporting"]
    without_layer = [node["name"] for node in graph["nodes"] if node["type"] == "data" and not node.get("layer")]
    assert without_layer == []

    def preview(name: str) -> str:
        node = next(node["id"] for node in graph["nodes"] if node["name"] == f"mnist_mlp.{name}")
        return str(json.loads((finished / f"build/api/nodes/{node}").read_text())["preview"])

    assert "macro_f1" in preview("metrics")
    for name in ("predictions", "learning_curves", "confusion_matrix"):
        assert len(preview(name)) > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--params mnist_mlp.train.epochs=some", "mnist_mlp.train.epochs: given 'some'; must be a valid integer"),
        ("--pipelines mnist_mpl", "unknown task (did you mean mnist_mlp?); allowed are cifar_resnet, mnist_mlp"),
        ("--env smaple", "the configuration of the environment 'smaple' cannot be read"),
    ],
)
def test_a_mistake_ends_in_one_message_before_any_node(project: Path, arguments: str, message: str) -> None:
    result = kedro(project, "run", *("--env", "sample", "--pipelines", "mnist_mlp"), *arguments.split())
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert not (project / "data").exists()


def test_a_missing_file_is_named_with_the_stage_that_makes_it(run: Callable[..., DataCatalog], project: Path) -> None:
    params = {"mnist_mlp": TINY["mnist_mlp"]}
    run("mnist_mlp", params=params, to_nodes=["mnist_mlp.build_dataloaders"])
    (project / "data/sample/03_primary/mnist/train.safetensors").unlink()
    with pytest.raises(InputError, match=r"train\.safetensors: missing\. Run the preprocess stage"):
        run("mnist_mlp", params=params, node_names=["mnist_mlp.train"])


def test_validation_images_can_be_trained_on(run: Callable[..., DataCatalog]) -> None:
    settings = {**TINY["mnist_mlp"], "data": {"include_validation": True}}
    catalog = run("mnist_mlp", params={"mnist_mlp": settings}, tags=["mnist", "mnist_mlp"])
    plan = catalog.load("mnist_mlp.dataloaders")
    assert (plan.length("train"), plan.length("validation"), plan.length("test")) == (4000, 0, 1000)
    assert catalog.load("mnist_mlp.metrics")["epoch"] == 3
    assert "val_loss" not in catalog.load("mnist_mlp.history")[0]


def test_looking_at_the_project_imports_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys; from torchloom.pipeline_registry import register_pipelines; import torchloom.hooks;"
        "register_pipelines(); print({'torch', 'matplotlib', 'pandas', 'onnx'} & sys.modules.keys())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"
