"""What kedro-viz gets to know of the project; what a browser makes of it is in test_tasks.py."""

import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from conftest import TASKS, make_project
from tests.exported import GREY, checkpoint
from torchloom import pipeline_registry
from torchloom.config.loader import newest_loader, read_parameters
from torchloom.data.readers import texts
from torchloom.datasets.reports import JSONDataset
from torchloom.models.summary import layers
from torchloom.problems import problem_of
from torchloom.records.provenance import code_of
from torchloom.reporting import previews
from torchloom.training.checkpoint import CheckpointDataset

managers = pytest.importorskip("kedro_viz.data_access.managers", reason="the extra 'viz' is not installed")
pytestmark = pytest.mark.xdist_group("previews")  # in one process, for the sake of the catalog
# Tasks that are made of tasks which are made of tasks.
CHAINS: dict[str, Any] = {
    "quantized_pruned": {"method": "quantization", "of": "cifar_resnet_pruned"},
    "pruned_distilled": {"method": "pruning", "of": "cifar_cnn_distilled"},
    "quantized_pruned_distilled": {"method": "quantization", "of": "pruned_distilled"},
    "distilled_pruned": {"method": "distillation", "data": "cifar10", "teacher": "cifar_resnet_pruned"},
    "federated_distilled": {"method": "federation", "of": "cifar_cnn_distilled"},
    "quantized_federated": {"method": "quantization", "of": "mnist_lenet_federated"},
}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> DataCatalog:
    """That of the sample environment, of which nothing has run yet."""
    project = make_project(tmp_path_factory.mktemp("previews") / "project")
    bootstrap_project(project)
    with KedroSession.create(project, env="sample") as session:
        return session.load_context().catalog


def test_kedro_viz_finds_the_layers_of_all_pipelines_in_order(
    catalog: DataCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It drops all layers of a pipeline where they are in a circle, counting whole tasks as one step."""
    chains = {name: {"task": block} for name, block in CHAINS.items()}
    monkeypatch.setitem(newest_loader().data, "parameters", {**read_parameters(newest_loader()), **chains})
    registered = pipeline_registry.register_pipelines()
    assert registered.keys() > CHAINS.keys()
    manager = managers.DataAccessManager()
    with_chains = DataCatalog.from_config(newest_loader()["catalog"])
    for name in set(with_chains.keys()) - set(catalog.keys()):
        catalog[name] = with_chains.get(name)
    manager.add_catalog(catalog, registered)
    manager.add_pipelines(registered)
    for name in registered:
        manager.create_modular_pipelines_tree_for_registered_pipeline(name)
        nodes = manager.get_nodes_for_registered_pipeline(name)
        has = {node.layer for node in nodes if getattr(node, "layer", None)}
        found = manager.get_sorted_layers_for_registered_pipeline(name)
        assert [layer for layer in found if layer in has] == sorted(has), name
        assert "08_reporting" in has or name == "predict"


@pytest.mark.parametrize("made", [{"checkpoint"}, {"info"}, {"checkpoint", "info"}])
def test_the_network_is_the_trained_one_or_else_what_the_parameters_say(tmp_path: Path, made: set[str]) -> None:
    trained = checkpoint("images")  # an mlp with hidden layers of [8]
    catalog = DataCatalog(
        {
            "task.checkpoint": CheckpointDataset(filepath=str(tmp_path / "checkpoint.safetensors")),
            "data_info": JSONDataset(filepath=str(tmp_path / "info.json")),
            "params:task.model": MemoryDataset({"name": "mlp", "hidden": [4], "dropout": None}),
        }
    )
    if "checkpoint" in made:
        catalog.save("task.checkpoint", trained)
    if "info" in made:
        catalog.save("data_info", GREY.model_dump(mode="json"))
    found = previews.find_network(catalog, "task", (problem_of("classification"), "data"))
    assert found is not None
    title, model, info = found
    assert title == ("mlp, trained" if "checkpoint" in made else "mlp, not trained yet")
    width = 8 if "checkpoint" in made else 4
    assert [line.split() for line in previews.as_text(layers(model, info)).splitlines()] == [
        ["layer", "type", "output", "parameters"],
        ["network.0", "Flatten", "48"],
        ["network.1", "Linear", str(width), str(48 * width + width)],
        ["network.2", "ReLU", str(width)],
        ["network.3", "Linear", "3", str(width * 3 + 3)],
    ]


def test_every_stage_that_trains_has_a_preview_before_anything_has_run(
    catalog: DataCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = managers.DataAccessManager()
    manager.add_catalog(catalog, {})
    monkeypatch.setattr("kedro_viz.data_access.data_access_manager", manager)
    trains = [node for pipeline in pipelines.values() for node in pipeline.nodes if node.short_name == "train"]
    assert {node.namespace for node in trains} == {
        name for name, task in TASKS.items() if task.choice != "quantization"
    }
    for node in trains:
        preview = node.preview()
        assert preview is not None
        assert preview.to_dict()["kind"] == "text"
        assert f"kedro run --pipelines {node.namespace}" in preview.content


def test_what_data_are_made_of_is_in_the_graph(catalog: DataCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that a user's own node makes, and files at an address; the code is the reader's all the same."""
    read = {
        "riders": {"reader": "table", "entry": "model_input_table", "target": "bike"},
        "remarks": {"reader": "texts", "files": "s3://bucket/remarks/", "target": "verdict"},
    }
    blocks: dict[str, Any] = {name: {"preprocess": block} for name, block in read.items()}
    blocks["predict"] = {"model": "riders_told", "models": "models", "entry": "model_input_table"}
    blocks |= {f"{name}_told": {"task": {"problem": "classification", "data": name}} for name in read}
    monkeypatch.setitem(newest_loader().data, "parameters", {**read_parameters(newest_loader()), **blocks})
    registered = pipeline_registry.register_pipelines()
    own = Pipeline([Node(sorted, inputs="companies", outputs="model_input_table", name="own")])
    manager = managers.DataAccessManager()
    whole = {name: own + registered[f"{name}_told"] for name in read} | {"predict": own + registered["predict"]}
    manager.add_catalog(catalog, whole)
    manager.add_pipelines(whole)
    edges = {}
    for name in whole:
        names = {node.id: node.name for node in manager.get_nodes_for_registered_pipeline(name)}
        found = manager.get_edges_for_registered_pipeline(name)
        edges[name] = {(names[edge.source], names[edge.target]) for edge in found}
    assert edges["riders"] >= {("own", "model_input_table"), ("model_input_table", "preprocess")}
    assert edges["predict"] >= {("own", "model_input_table"), ("model_input_table", "predict")}
    assert edges["remarks"] >= {("remarks_remote", "find_files"), ("find_files", "remarks_files")}
    (node,) = (node for node in registered["remarks_told"].nodes if node.name == "remarks.find_files")
    assert code_of(node.func)[0] == code_of(texts.find)[0]
    assert inspect.getsource(node.func) == inspect.getsource(texts.find)
    assert pickle.loads(pickle.dumps(node)).func.function is texts.find
