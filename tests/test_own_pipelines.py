"""Pipelines of a user's own beside those of the tasks: their names, their nodes and their data are theirs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline
from kedro.runner import SequentialRunner, ThreadRunner

from conftest import TASKS, kedro_run, make_project
from torchloom import pipeline_registry
from torchloom.config.entries import written_out
from torchloom.records.provenance import Records
from torchloom.runner import SkipUnchanged

pytestmark = pytest.mark.filterwarnings("ignore:One or more dataset names contain:UserWarning")  # Kedro's, of a dot
RUNNERS = [SequentialRunner, ThreadRunner, SkipUnchanged]
METRICS = {"type": "torchloom.datasets.reports.JSONDataset", "filepath": "data/{task}/metrics.json", "of": ["{task}"]}
TRAIN = {"type": "torchloom.datasets.tensors.TensorsDataset", "filepath": "data/{data}/train.safetensors"}
seen: dict[str, Any] = {}  # by the last node of the user's pipeline


def _numbers(options: dict[str, Any]) -> tuple[dict[str, list[int]], dict[str, dict[str, int]]]:
    count = options["count"]
    return {"x": [*range(count)]}, {f"part_{number}": {"n": number} for number in range(count)}


def _parts(train: dict[str, list[int]], parts: dict[str, Callable[[], Any]]) -> tuple[list[int], dict[str, int]]:
    return [part["n"] for _, load in sorted(parts.items()) if (part := load())], {"largest": max(train["x"])}


def _summed(validation: list[int], metrics: dict[str, int]) -> tuple[str, list[int]]:
    return f"{sum(validation)} of {metrics['largest']}", validation


def _told(report: str, history: list[int], train: dict[str, list[int]]) -> None:
    seen.update(report=report, history=history, train=train)


def mine() -> Pipeline:
    made = Pipeline(
        [
            Node(_numbers, "params:mine_options", ["X_train", "companies_raw"], name="numbers", tags="train"),
            Node(_parts, ["X_train", "companies_raw"], ["X_val", "mine.metrics"], name="parts"),
        ]
    )
    inner = Pipeline(
        [
            Node(_summed, ["X_val", "metrics"], ["report", "history"], name="summed", tags="preprocess"),
            Node(_told, ["report", "history", "X_train"], None, name="told", tags=["train", "evaluate"]),
        ],
        namespace="mine",
        inputs={"X_val", "X_train"},
    )
    return made + inner


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with entries and parameters of a user's own."""
    folder = make_project(tmp_path_factory.mktemp("mine") / "project")
    parts = {"type": "partitions.PartitionedDataset", "path": "data/mine", "dataset": "json.JSONDataset"}
    entries = {"companies_raw": {**parts, "filename_suffix": ".json"}}
    (folder / "conf/base/catalog_mine.yml").write_text(yaml.safe_dump(entries))
    (folder / "conf/base/parameters/mine.yml").write_text("mine_options: {count: 3}\n")
    return folder


@pytest.fixture
def project(beside: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    registered = pipeline_registry.register_pipelines

    def more() -> dict[str, Pipeline]:
        ours = registered()
        return pipeline_registry.Pipelines({**ours, "mine": mine(), "both": mine() + ours["linear_regression"]})

    monkeypatch.setattr(pipeline_registry, "register_pipelines", more)
    seen.clear()
    return beside


def records(project: Path) -> set[str]:
    return {path.stem for path in project.glob("data/sample/records/*/*") if path.suffix != ".lock"}


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_pipeline_of_ones_own_runs_as_kedro_runs_it(
    project: Path, runner: type[SequentialRunner], caplog: pytest.LogCaptureFixture
) -> None:
    before = records(project)
    with caplog.at_level("INFO"):
        kedro_run(project, "mine", runner=runner())
    assert seen == {"report": "3 of 2", "history": [0, 1, 2], "train": {"x": [0, 1, 2]}}
    assert [record.message for record in caplog.records if record.levelname not in {"INFO", "DEBUG"}] == []
    assert len(list((project / "data/mine").glob("*.json"))) == 3
    assert records(project) == before
    assert not [name for name in before if "mine" in name]


@pytest.mark.parametrize("runner", RUNNERS)
def test_it_runs_together_with_a_task(
    project: Path,
    runner: type[SequentialRunner],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: set[str] = set()  # by us, which may take as long as what the node reads is large
    describe = Records.describe

    def noting(records: Records, node: Node, catalog: DataCatalog) -> dict[str, Any]:
        looked_at.add(node.name)
        return describe(records, node, catalog)

    monkeypatch.setattr(Records, "describe", noting)
    stages = ["diabetes.download", "diabetes.preprocess", "linear_regression.build_dataloaders"]
    with caplog.at_level("INFO"):
        catalog = kedro_run(project, "both", to_nodes=["mine.told", stages[-1]], runner=runner())
    assert seen["report"] == "3 of 2"
    assert [record.message for record in caplog.records if record.levelname not in {"INFO", "DEBUG"}] == []
    assert catalog.load("linear_regression.dataloaders")
    folder = project / "data/sample/records"
    assert {path.stem for path in (folder / "nodes").iterdir()} == set(stages)
    assert looked_at <= set(stages)
    assert {path.stem for path in (folder / "locks").glob("*.lock")} <= {"linear_regression", "diabetes"}


def test_our_entries_are_those_of_our_tasks_and_data_sets(project: Path) -> None:
    """Also for those who look into Kedro's catalog, such as its own commands."""
    bootstrap_project(project)
    with KedroSession.create(project, env="sample") as session:
        catalog: Any = session.load_context().catalog
    described = catalog.describe_datasets()
    assert described.keys() == {*TASKS, "predict", "sweep", "__default__", "mine", "both"}
    theirs = {"X_train", "X_val", "mine.metrics", "mine.report", "mine.history"}
    for name, kinds in described.items():
        found = kinds["defaults"].get("kedro.io.MemoryDataset", [])
        assert set(found) == (theirs if name in {"mine", "both"} else set()), name
    assert catalog.list_patterns() == ["{default}"]
    assert theirs & set(catalog.keys()) == set()
    task = pipelines["mnist_mlp"].datasets()
    assert {name for name in task if not name.startswith("params:")} <= set(catalog.keys())


def test_names_stand_in_place_of_the_words() -> None:
    named = {"{task}": ["one", "two"], "{data}": ["rows"]}
    entries = written_out({"{task}.metrics": METRICS, "{data}_train": TRAIN}, named)
    assert entries == {
        "one.metrics": {**METRICS, "filepath": "data/one/metrics.json", "of": ["one"]},
        "two.metrics": {**METRICS, "filepath": "data/two/metrics.json", "of": ["two"]},
        "rows_train": {**TRAIN, "filepath": "data/rows/train.safetensors"},
    }
    assert METRICS["filepath"] == "data/{task}/metrics.json"


@pytest.mark.parametrize("theirs", ["one.metrics", "one.metric{s}"])
def test_what_a_user_says_of_a_name_goes_before(theirs: str) -> None:
    """An entry, or a pattern that is more special."""
    entries = {"{task}.metrics": METRICS, theirs: {"type": "json.JSONDataset", "filepath": "mine.json"}}
    catalog = DataCatalog.from_config(written_out(entries, {"{task}": ["one", "two"]}))
    assert "kedro_datasets" in str(catalog.get_type("one.metrics"))
    assert "torchloom" in str(catalog.get_type("two.metrics"))


def test_a_pattern_of_a_user_that_is_as_general_is_for_other_names() -> None:
    entries = {"{task}.metrics": METRICS, "{any}": {"type": "json.JSONDataset", "filepath": "mine.json"}}
    catalog = DataCatalog.from_config(written_out(entries, {"{task}": ["one"]}))
    assert "torchloom" in str(catalog.get_type("one.metrics"))
    assert "kedro_datasets" in str(catalog.get_type("mine.metrics"))


@pytest.mark.parametrize("key", ["{name}_train", "{task}.{kind}", "{data}_clean"])
def test_a_users_own_patterns_are_kedros(key: str) -> None:
    kind = TRAIN["type"] if key != "{data}_clean" else "json.JSONDataset"
    entry = {key: {"type": kind, "filepath": "data/file"}}
    assert written_out(entry, {"{task}": ["one"], "{data}": ["rows"]}) == entry
