"""Every registered task through Kedro itself, in small: all stages, what they leave, and each stage alone."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from filelock import FileLock
from kedro.framework.project import pipelines
from kedro.io import DataCatalog
from sklearn.linear_model import Lasso, LinearRegression, Ridge

from conftest import TASKS, TINY, for_all_processes, imported_by, kedro, kedro_run, make_project
from reports import check_card, check_page
from torchloom.datasets.reports import TextDataset
from torchloom.errors import InputError
from torchloom.problems import problem_of
from torchloom.problems.language_model.config import GenerateConfig
from torchloom.problems.language_model.generation import continue_text, onnx_stepper
from torchloom.reporting.page import shown
from torchloom.training.checkpoint import CheckpointDataset


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw files of all data sets, drawn once for all processes of the tests."""
    project = for_all_processes(tmp_path_factory) / "samples"
    with FileLock(project.with_suffix(".lock")):
        if not project.exists():
            kedro_run(make_project(project), "__default__", tags=["download"])
    return project / "data" / "sample" / "01_raw"


@pytest.fixture
def run(project: Path, samples: Path) -> Callable[..., DataCatalog]:
    """`kedro_run` in a project of this test's own, in which the downloads are over."""
    shutil.copytree(samples, project / "data" / "sample" / "01_raw")
    return lambda pipeline, **options: kedro_run(project, pipeline, **options)


REPORTS = ["metrics.json", "export_report.json", "learning_curves.png", "confusion_matrix.png", "predictions.png"]
REPORTS += ["report.html", "calibration.png", "best_and_worst.png"]
# What a task must reach in small: (figure, worst value that passes). Chance is 0.1 of ten classes, 0.5 of two. The bars
# are far below what three seeds of each network reached, as rounding moves these figures as another seed does.
LEARNED: dict[str, tuple[str, float]] = {
    "cifar_vit": ("train_accuracy", 0.3),
    "cifar_densenet": ("train_accuracy", 0.3),  # so small a network needs minutes to learn what shapes are
    "mnist_autoencoder": ("mse", 0.05),  # the pixels' variance is about 0.09
    "linear_regression": ("r2", 0.3),
    "wonderland_lstm": ("bits_per_character", 3.2),  # 5 bits if all characters were alike
    "imdb_lstm": ("accuracy", 0.65),
    "imdb_transformer": ("accuracy", 0.65),
    "cbf_transformer": ("accuracy", 0.7),
    "wonderland_transformer": ("bits_per_character", 3.6),
    "dates_rnn": ("accuracy", 0.6),
    "dates_transformer": ("accuracy", 0.6),  # of characters; the commonest is 0.2 of them
}


QUICK = {"seconds": 0.001, "turns": 1, "batch_size": 16}
TINY_SMALLER: dict[str, dict[str, Any]] = {
    "mnist_lenet_quantized": {},
    "cifar_resnet_quantized": {"quantize": {"samples": 200}},
    "cifar_resnet_pruned": {"train": {"epochs": 1, "prune": {"epochs": 1}}},
    "cifar_cnn_distilled": {
        "data": {"subset": 1200},
        "model": {"form": "lenet"},
        "train": {"epochs": 2, "warmup_epochs": 0.5},
    },
}
APART = {name for name, task in TASKS.items() if task.recipe.apart}
SOURCES = {name: {source for _, source in task.sources} & TASKS.keys() for name, task in TASKS.items()}
SMALLER = [name for name, task in TASKS.items() if SOURCES[name] and task.kind == "method" and name not in APART]
JUDGED = [name for name, task in TASKS.items() if SOURCES[name] and task.kind == "problem"]  # see test_generated_images


# These take long; the stages of cifar_cnn are theirs.
LARGE = [
    "cifar_alexnet",
    "cifar_vgg",
    "cifar_vit",
    "cifar_resnet",
    "cifar_densenet",
    "cifar_speedrun",
    "cifar_speedrun96",
    "dates_rnn",
]


@pytest.mark.gpu
@pytest.mark.parametrize(
    "task",
    [
        pytest.param(task, marks=pytest.mark.long) if task in LARGE else task
        for task in TASKS
        if task not in {*SMALLER, *JUDGED, *APART}
    ],
)
def test_a_task_does_its_whole_job(
    run: Callable[..., DataCatalog], project: Path, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And so do the tasks on top of it, which leave what it made as it is."""
    catalog = run(task, params={task: TINY[task]})
    made = [name for name in pipelines[task].all_outputs() if name.startswith(f"{task}.")]
    assert len(made) >= 9
    assert [name for name in made if not catalog.exists(name)] == []
    assert [path.name for path in (project / "data").iterdir()] == ["sample"]

    history = catalog.load(f"{task}.history")
    epochs = TINY[task]["train"]["epochs"]
    assert [row["epoch"] for row in history] == list(range(1, epochs + 1))
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    metrics = catalog.load(f"{task}.metrics")
    figure, limit = LEARNED.get(task, ("accuracy", 0.3))
    reached = {**history[-1], **metrics}[figure]
    assert reached < limit if figure in {"mse", "bits_per_character"} else reached > limit
    assert 1 <= metrics["epoch"] <= epochs

    plan, checkpoint = (catalog.load(f"{task}.{name}") for name in ("dataloaders", "checkpoint"))
    model = checkpoint.exported()
    named, outputs = problem_of(checkpoint.problem).signature(model, plan.samples("test", 7))
    with torch.no_grad():
        answers = model(*named.values())
    answers = answers if isinstance(answers, tuple) else (answers,)
    session = onnxruntime.InferenceSession(catalog.load(f"{task}.onnx"))
    exported = session.run(outputs, {name: tensor.contiguous().numpy() for name, tensor in named.items()})
    assert len(exported) == len(answers)
    for one, other in zip(exported, answers, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-3)
    assert catalog.load(f"{task}.export_report")["greatest_difference"] < 1e-3

    assert_reported(project, catalog, task)
    if task == "mnist_mlp":
        assert_as_good_in_onnx_runtime(catalog)

    left = {path: path.read_bytes() for path in (project / "data").glob(f"**/{task}/**/*") if path.is_file()}
    for smaller in [smaller for smaller in SMALLER if SOURCES[smaller] == {task}]:
        assert_becomes_smaller(run, task, smaller, caplog)
    assert {path: path.read_bytes() for path in left} == left


def assert_reported(project: Path, catalog: DataCatalog, task: str) -> None:
    """The page and the model card have what the files have, and the card's example runs."""
    page = check_page(catalog.load(f"{task}.report"))
    metrics, history = catalog.load(f"{task}.metrics"), catalog.load(f"{task}.history")
    facts = dict(reversed(page.facts))
    assert {(name.replace("_", " "), shown(value)) for name, value in metrics.items()} <= set(page.facts)
    checkpoint = catalog.load(f"{task}.checkpoint")
    assert facts["parameters"] == f"{sum(weight.numel() for weight in checkpoint.build().parameters()):,}"
    assert facts["epoch that was kept"] == str(metrics["epoch"])
    assert str(len(history)) in page.row(str(len(history)))  # of the last epoch
    reports = project / f"data/sample/08_reporting/{task}"
    assert sorted(page.pictures.values()) == sorted(path.read_bytes() for path in reports.glob("*.png"))
    assert ("drawn by the project itself" in page.text) == (task != "linear_regression")
    printed = check_card(project / f"data/sample/06_models/{task}/README.md", task, metrics)
    if task == "wonderland_lstm":
        assert len(printed) > 100
        assert catalog.load(f"{task}.sample_text").strip() in page.text


def assert_as_good_in_onnx_runtime(catalog: DataCatalog) -> None:
    """What the metrics of mnist_mlp say of the test split is so in ONNX Runtime, sample by sample."""
    metrics, history = catalog.load("mnist_mlp.metrics"), catalog.load("mnist_mlp.history")
    assert metrics["epoch"] == max(history, key=lambda row: row["val_accuracy"])["epoch"]
    images, labels = catalog.load("mnist_mlp.dataloaders").first("test", 1000)
    session = onnxruntime.InferenceSession(catalog.load("mnist_mlp.onnx"))
    logits = session.run(["logits"], {"images": images.contiguous().numpy()})[0]
    right = logits.argmax(1) == labels.numpy()
    assert right.mean() == pytest.approx(metrics["accuracy"])
    assert metrics["test_samples"] == 1000
    assert catalog.load("mnist_mlp.export_report")["agreement"] == 1.0
    mistakes = catalog.load("mnist_mlp.mistakes")
    assert {int(row["test_sample"]) for row in mistakes} <= set(np.flatnonzero(~right))
    assert len(mistakes) == min(100, (~right).sum())


def assert_becomes_smaller(
    run: Callable[..., DataCatalog], base: str, task: str, log: pytest.LogCaptureFixture
) -> None:
    """`task`, which is registered on top of the trained `base`, makes all that it should, and a report that fits."""
    catalog = run(task, params={base: TINY[base], task: {**TINY_SMALLER[task], "compare": QUICK}})
    assert "builds upon files that are not" not in log.text
    made = [name for name in pipelines[task].all_outputs() if name.startswith(f"{task}.")]
    assert [name for name in made if not catalog.exists(name)] == []
    report = catalog.load(f"{task}.comparison")
    before, after = report["before"], report["after"]
    page = check_page(catalog.load(f"{task}.report"))
    assert page.row("bytes") == ["bytes", f"{before['bytes']:,}", f"{after['bytes']:,}"]
    assert ("builds upon", base) in page.facts
    assert f"test accuracy {before['accuracy']:.4f} -> {after['accuracy']:.4f}" in log.text
    assert before["accuracy"] > 0.3
    assert before["bytes"] == len(catalog.load(f"{base}.onnx"))
    assert after["bytes"] == len(catalog.load(f"{task}.onnx"))
    assert after["onnx_runtime"]["samples_per_second"] > 0
    if task.endswith("quantized"):
        assert after["accuracy"] > before["accuracy"] - 0.05
        assert report["change"]["times_smaller"] > 2
    else:
        assert after["accuracy"] == pytest.approx(catalog.load(f"{task}.metrics")["accuracy"], abs=0.005)
    if task.endswith("pruned"):
        assert after["zeros"] == pytest.approx(0.5, abs=1e-3)
        assert after["accuracy"] > before["accuracy"] - 0.1
    if task.endswith("distilled"):
        assert after["multiply_adds"] < before["multiply_adds"]
        assert catalog.load(f"{task}.history")[-1]["train_divergence"] > 0


@pytest.mark.long  # the same, with another form of pruning
def test_channels_are_cut_out_of_a_trained_model(run: Callable[..., DataCatalog]) -> None:
    run("cifar_resnet", params={"cifar_resnet": TINY["cifar_resnet"]})
    task, prune = "cifar_resnet_pruned", {"form": "structured", "epochs": 2, "multiple": 4}
    catalog = run(task, params={task: {"train": {"epochs": 2, "prune": prune}, "compare": QUICK}})
    change = catalog.load(f"{task}.comparison")["change"]
    assert change["times_smaller"] > 1.5
    assert change["times_fewer_multiply_adds"] > 1.5
    assert catalog.load(f"{task}.checkpoint").resized
    assert catalog.load(f"{task}.metrics")["accuracy"] > 0.3


@pytest.mark.parametrize("task", ["cifar_resnet_quantized", "late"])
def test_a_task_on_top_of_one_that_was_not_trained(run: Callable[..., DataCatalog], project: Path, task: str) -> None:
    """It says so before any work."""
    recipe = (project / "conf/base/parameters/cifar_resnet.yml").read_text().replace("cifar_resnet:", "late:")
    recipe = recipe.replace("data: cifar10}", "data: cifar10, start: cifar_resnet}")
    (project / "conf/base/parameters/late.yml").write_text(recipe)
    first = "kedro run --env sample --pipelines cifar_resnet"
    with pytest.raises(InputError, match=rf"^cifar_resnet\.\w+: is not there yet\. Make it first: {first}$"):
        run(task)
    assert not (project / "data/sample/05_model_input").exists()


@pytest.mark.long
def test_training_starts_from_another_tasks_model(run: Callable[..., DataCatalog], project: Path) -> None:
    run("mnist_mlp", params={"mnist_mlp": TINY["mnist_mlp"]})
    recipe = (project / "conf/base/parameters/mnist_mlp.yml").read_text().replace("mnist_mlp:", "mnist_tuned:")
    recipe = recipe.replace("data: mnist}", "data: mnist, start: mnist_mlp}")
    (project / "conf/base/parameters/mnist_tuned.yml").write_text(recipe)
    settings = {**TINY["mnist_mlp"], "train": {**TINY["mnist_mlp"]["train"], "freeze": ["network.1.*"]}}
    catalog = run("mnist_tuned", params={"mnist_mlp": TINY["mnist_mlp"], "mnist_tuned": settings})
    before, after = (catalog.load(f"{task}.checkpoint").weights for task in ("mnist_mlp", "mnist_tuned"))
    same = {name for name in after if torch.equal(before[name], after[name])}
    assert {"network.1.weight", "network.1.bias"} <= same
    assert len(same) < len(after)
    history = catalog.load("mnist_tuned.history")
    assert history[0]["train_loss"] < catalog.load("mnist_mlp.history")[0]["train_loss"]


def test_the_linear_regression_finds_the_closed_form(run: Callable[..., DataCatalog]) -> None:
    catalog = run("linear_regression", to_nodes=["linear_regression.evaluate"])
    metrics = catalog.load("linear_regression.metrics")
    assert metrics["r2"] == pytest.approx(metrics["closed_form_r2"], abs=1e-3)
    features, target = (tensor.numpy() for tensor in catalog.load("linear_regression.dataloaders").first("train", 999))
    reference = LinearRegression().fit(features, target)
    spread = catalog.load("diabetes_info")["target"]["std"]
    for row, weight, std in zip(
        catalog.load("linear_regression.coefficients"),
        reference.coef_,
        catalog.load("diabetes_info")["std"],
        strict=True,
    ):
        assert float(row["closed_form"]) == pytest.approx(weight * std, abs=1e-3)
        assert float(row["network"]) == pytest.approx(weight * std, abs=1e-3 * spread)


def test_the_closed_form_takes_the_rows_that_were_trained_on(
    run: Callable[..., DataCatalog], caplog: pytest.LogCaptureFixture
) -> None:
    params = {"linear_regression": {"data": {"subset": 25}, "train": {"epochs": 1}}}
    catalog = run("linear_regression", params=params, to_nodes=["linear_regression.evaluate"])
    features, target = next(iter(catalog.load("linear_regression.dataloaders").loader("train")))
    reference = LinearRegression().fit(features.numpy(), target.numpy())
    found = [float(row["closed_form"]) for row in catalog.load("linear_regression.coefficients")]
    assert len(target) == 25
    np.testing.assert_allclose(found, reference.coef_ * catalog.load("diabetes_info")["std"], rtol=1e-3)
    assert "train.batch_size 354 is more than the 25 training samples: each epoch is one step" in caplog.text


@pytest.mark.long
@pytest.mark.parametrize(("penalty", "strength"), [("l2", 0.2), ("l1", 0.1)])
def test_ridge_and_lasso_are_those_of_scikit_learn(
    run: Callable[..., DataCatalog], penalty: str, strength: float
) -> None:
    catalog = run("linear_regression", params={"linear_regression": {"train": {penalty: strength}}})
    info = catalog.load("diabetes_info")
    features, target = (tensor.numpy() for tensor in catalog.load("linear_regression.dataloaders").first("train", 999))
    features = (features - np.array(info["mean"])) / np.array(info["std"])
    target = (target - info["target"]["mean"]) / info["target"]["std"]
    # mean squared error + l2 / 2 w^2, and + l1 |w|, in the terms of scikit-learn
    reference = Ridge(len(target) * strength / 2) if penalty == "l2" else Lasso(strength / 2)
    expected = reference.fit(features, target).coef_
    found = [float(row["network"]) / info["target"]["std"] for row in catalog.load("linear_regression.coefficients")]
    np.testing.assert_allclose(found, expected, atol=1e-2 if penalty == "l1" else 1e-3)
    plain = LinearRegression().fit(features, target).coef_
    assert np.abs(found).sum() < 0.8 * np.abs(plain).sum()
    if penalty == "l2":
        closed = [
            float(row["closed_form"]) / info["target"]["std"] for row in catalog.load("linear_regression.coefficients")
        ]
        np.testing.assert_allclose(closed, expected, atol=1e-6)


@pytest.mark.long
def test_the_language_model_writes_the_same_text_in_onnx_runtime(run: Callable[..., DataCatalog]) -> None:
    catalog = run("wonderland_lstm", params={"wonderland_lstm": TINY["wonderland_lstm"]})
    written = catalog.load("wonderland_lstm.sample_text")
    tokenizer = catalog.load("wonderland_lstm.checkpoint").info.tokenizer
    config = GenerateConfig(**TINY["wonderland_lstm"]["generate"], prompt="Alice ")
    session = onnxruntime.InferenceSession(catalog.load("wonderland_lstm.onnx"))
    text = continue_text(onnx_stepper(session), tokenizer, config, seed=0)
    assert f"{text}\n" in written
    assert len(text) == len("Alice ") + config.length


@pytest.mark.long
def test_the_most_wrong_reviews_come_with_their_text(run: Callable[..., DataCatalog]) -> None:
    catalog = run("imdb_lstm", params={"imdb_lstm": TINY["imdb_lstm"]})
    plan, mistakes = catalog.load("imdb_lstm.dataloaders"), catalog.load("imdb_lstm.mistakes")
    assert 0 < len(mistakes) <= 100
    confidences = [float(row["confidence"]) for row in mistakes]
    assert confidences == sorted(confidences, reverse=True)
    tokens, lengths, labels = plan.first("test", plan.length("test"))
    for row in mistakes[:5]:
        number = int(row["test_sample"])
        assert plan.info.target.classes[labels[number]] == row["true"] != row["predicted"]
        encoded = plan.info.tokenizer.encode(row["text"])
        assert tokens[number, : lengths[number]].tolist() == encoded.tolist()[-int(lengths[number]) :]


@pytest.mark.long
@pytest.mark.parametrize(
    "arguments", [{"variational": True, "hidden": [64]}, {"form": "convolutional", "hidden": [8, 16]}]
)
def test_variants_of_the_autoencoder(run: Callable[..., DataCatalog], arguments: dict[str, Any]) -> None:
    train = {"epochs": 4, "loss": {"name": "BCELoss"}, "divergence": 0.1}
    settings = {"model": {**arguments, "latent": 8}, "train": train}
    catalog = run("mnist_autoencoder", params={"mnist_autoencoder": settings})
    metrics = catalog.load("mnist_autoencoder.metrics")
    assert metrics["mse"] < 0.09
    assert (metrics["divergence"] > 0.1) == ("variational" in arguments)
    assert metrics["latent"] == 8


def test_a_task_on_data_of_the_wrong_kind_is_refused_before_it_trains(
    run: Callable[..., DataCatalog], project: Path
) -> None:
    settings = project / "conf/base/parameters/mnist_mlp.yml"
    text = settings.read_text().replace("    augment: {crop_padding: 1}\n", "    subset: 100\n")
    settings.write_text(text.replace("data: mnist}", "data: diabetes}"))
    message = r"^the problem classification needs data with classes \(labels\) to learn, but .* have number \(target\)$"
    with pytest.raises(InputError, match=message):
        run("mnist_mlp", params={"mnist_mlp": TINY["mnist_mlp"]})


@pytest.mark.parametrize(
    ("task", "data", "message"),
    [
        ("mnist_mlp", {"max_tokens": 5}, r"data\.max_tokens: is for documents, but these data are images"),
        ("linear_regression", {"augment": {"flip": True}}, r"data\.augment: is for images, but these data are table"),
        (
            "wonderland_lstm",
            {"window": 100_000},
            r"^wonderland_lstm\.data\.window 100000: a split .* has only [\d,]+ characters",
        ),
    ],
)
def test_settings_for_other_data_are_refused(
    run: Callable[..., DataCatalog], task: str, data: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(task, params={task: {"data": data}}, to_nodes=[f"{task}.build_dataloaders"])


def test_two_tasks_in_one_run_prepare_their_data_once(
    run: Callable[..., DataCatalog], caplog: pytest.LogCaptureFixture
) -> None:
    tasks = ["mnist_mlp", "mnist_lenet", "linear_regression"]
    run("__default__", params=TINY, to_nodes=[f"{task}.build_dataloaders" for task in tasks])
    nodes = [
        record.getMessage() for record in caplog.records if record.getMessage().startswith("Running node: download")
    ]
    assert len(nodes) == len({TASKS[task].data_set for task in tasks}) == 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which mnist_mlp has run."""
    project = make_project(tmp_path_factory.mktemp("finished") / "project")
    kedro_run(project, "mnist_mlp", params={"mnist_mlp": TINY["mnist_mlp"]})
    return project


@pytest.mark.long
@pytest.mark.xdist_group("finished")
@pytest.mark.parametrize(
    ("selection", "rewritten"),
    [
        (["--namespaces", "mnist"], {"files.json", "train.safetensors"}),
        (["--nodes", "mnist_mlp.train"], {"checkpoint.safetensors", "history.json"}),
        (["--nodes", "mnist_mlp.report"], {"report.html", "README.md"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_stage_runs_alone_in_a_new_process(finished: Path, selection: list[str], rewritten: set[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "data").rglob("*.*") if path.is_file()}
    result = kedro(finished, "run", "--env", "sample", "--pipelines", "mnist_mlp", *selection)
    assert result.returncode == 0, result.stderr
    changed = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    kinds = {"checkpoint.safetensors", "model.onnx", "metrics.json", "train.safetensors", "dataloaders.json"}
    assert rewritten <= changed
    assert not (kinds - rewritten) & changed


@pytest.mark.long
@pytest.mark.xdist_group("finished")
def test_the_summary_names_the_figures_and_the_files(finished: Path) -> None:
    checkpoint = finished / "data/sample/06_models/mnist_mlp/checkpoint.safetensors"
    before = checkpoint.stat().st_mtime_ns
    stages = "mnist_mlp.evaluate,mnist_mlp.export_onnx"
    result = kedro(finished, "run", "--env", "sample", "--pipelines", "mnist_mlp", "--from-nodes", stages)
    assert checkpoint.stat().st_mtime_ns == before
    accuracy = json.loads((finished / "data/sample/08_reporting/mnist_mlp/metrics.json").read_text())["accuracy"]
    printed = result.stdout + result.stderr
    assert f"test accuracy {accuracy:.4f}" in printed
    for file in (
        "06_models/mnist_mlp/model.onnx",
        "06_models/mnist_mlp/README.md",
        *(f"08_reporting/mnist_mlp/{name}" for name in REPORTS),
    ):
        assert f" data/sample/{file}" in printed


@pytest.mark.long
@pytest.mark.xdist_group("finished")
def test_the_static_site_of_kedro_viz_in_a_browser(finished: Path) -> None:
    """Groups, layers, code and previews, without an error on the console and without another machine."""
    pytest.importorskip("kedro_viz", reason="the extra 'viz' is not installed")
    pytest.importorskip("playwright", reason="playwright, which drives the browser, is not installed")
    from docs import graph

    chromium = graph.find_chromium()
    if chromium is None:
        pytest.skip("there is no Chromium to open the site with: apt-get install chromium")
    texts = finished / "data/sample/08_reporting/wonderland_lstm"
    TextDataset(filepath=str(texts / "sample_text.txt")).save("Alice <b>was</b>\nbeginning")
    site = graph.build(finished, "sample")
    with graph.opened(site, chromium) as (page, complaints):
        graph.show(page, "__default__")
        groups = page.locator(".pipeline-node--modularPipeline")
        assert set(groups.all_text_contents()) >= {"mnist", *TASKS} - APART
        layers = page.locator(".pipeline-layer-name").all_text_contents()
        assert layers == ["01_raw", "03_primary", "06_models", "08_reporting"]

        graph.show(page, "mnist_mlp")
        train = graph.drawn(page, graph.node_id(site, "mnist_mlp", "mnist_mlp.train"))
        assert train.count() == 0
        graph.drawn(page, "mnist_mlp").click()
        train.wait_for()
        graph.take_picture(page, site, "mnist_mlp", finished / "graph.png")
        assert (finished / "graph.png").stat().st_size > 50_000  # a page with nothing on it has 9 kB
        network = page.locator(".pipeline-text-renderer").inner_text()
        model = CheckpointDataset(
            filepath=str(finished / "data/sample/06_models/mnist_mlp/checkpoint.safetensors")
        ).load()
        sizes = {name: weight.numel() for name, weight in model.build().named_parameters()}
        assert network.startswith(f"mlp, trained: {sum(sizes.values()):,} parameters")
        first = sizes["network.1.weight"] + sizes["network.1.bias"]
        assert re.search(rf"network\.1 +Linear +\d+ +{first:,}\n", network)
        page.get_by_text("Show Code").click()
        assert "def train(" in page.locator(".pipeline-metadata-code--visible").inner_text()
        layers = page.locator(".pipeline-layer-name").all_text_contents()
        assert layers == ["01_raw", "03_primary", "06_models", "07_model_output", "08_reporting"]

        def preview(task: str, name: str) -> Any:
            graph.drawn(page, graph.node_id(site, task, f"{task}.{name}")).dispatch_event("click")
            page.locator(".pipeline-metadata__title").get_by_text(f"{task}.{name}", exact=True).wait_for()
            return page.locator("[class*=pipeline-metadata__p]:is([class*=preview], [class*=plot])").first

        assert "macro_f1" in preview("mnist_mlp", "metrics").inner_text()
        for name in ("learning_curves", "confusion_matrix", "predictions"):
            assert preview("mnist_mlp", name).locator("img").evaluate("image => image.naturalWidth") > 300
        graph.show(page, "wonderland_lstm", expanded=True)  # else in its group, as the report is made of it
        assert preview("wonderland_lstm", "sample_text").inner_text().startswith("Alice <b>was</b>\nbeginning")
        assert complaints == []
        page.evaluate("fetch('https://example.org').catch(console.error)")
        for _ in range(60):
            page.wait_for_timeout(500)
            if len(complaints) >= 2:
                break
        assert len(complaints) >= 2  # the request that failed, and what the page says of it


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--params mnist_mlp.train.epochs=some", "mnist_mlp.train.epochs: given 'some'; must be a valid integer"),
        (
            "--pipelines mnist_mpl",
            "unknown task (did you mean mnist_mlp?); allowed are cbf_transformer, cifar_alexnet, ",
        ),
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


@pytest.mark.long
def test_validation_images_can_be_trained_on(run: Callable[..., DataCatalog]) -> None:
    settings = {**TINY["mnist_mlp"], "data": {"include_validation": True}}
    catalog = run("mnist_mlp", params={"mnist_mlp": settings}, tags=["mnist", "mnist_mlp"])
    plan = catalog.load("mnist_mlp.dataloaders")
    assert (plan.length("train"), plan.length("validation"), plan.length("test")) == (4000, 0, 1000)
    assert catalog.load("mnist_mlp.metrics")["epoch"] == 3
    assert "val_loss" not in catalog.load("mnist_mlp.history")[0]


LOOK = (
    "from torchloom.pipeline_registry import register_pipelines; import torchloom.hooks; found = register_pipelines()"
)


def test_the_names_of_the_tasks_take_no_import_of_their_stages() -> None:
    imported = imported_by(f"{LOOK}; assert 'mnist_mlp' in dict(found)")
    assert "torchloom.hooks" in imported
    assert not {"numpy", "torchloom.pipelines", "torchloom.problems.base"} & imported


def test_looking_at_the_project_imports_neither_torch_nor_matplotlib() -> None:
    imported = imported_by(f"{LOOK}; assert found['mnist_mlp'].nodes and found['__default__'].nodes")
    assert "torchloom.pipelines.training.nodes" in imported
    assert not {"torch", "matplotlib", "pandas", "onnx", "optuna", "plotly"} & imported
