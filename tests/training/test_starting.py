"""Trainings that start from a file: a checkpoint of another project, or weights that somebody has saved."""

import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from kedro.io import DataCatalog
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.stages import CLASSIFICATION
from tests.tables import people, write
from torchloom.data.targets import Classes
from torchloom.errors import InputError
from torchloom.modalities import ImageInfo
from torchloom.models import build_model
from torchloom.problems.classification.config import ClassifierConfig
from torchloom.training.checkpoint import CheckpointDataset
from torchloom.training.starting import StartDataset, Weights
from torchloom.training.transfer import take_over
from torchloom.training.weights import read_weights

INFO = ImageInfo(target=Classes(classes=["a", "b"]), shape=[3, 8, 8], mean=[0.5] * 3, std=[0.25] * 3)
RESNET = ClassifierConfig.model_validate({"name": "resnet", "width": 4, "blocks": [1, 1]})


def built(info: ImageInfo = INFO) -> nn.Module:
    return build_model(RESNET.name, RESNET.arguments, info, CLASSIFICATION)


def plain(classes: int = 2) -> dict[str, Tensor]:
    """The weights of the network alone, each value drawn."""
    model = built(INFO.model_copy(update={"target": Classes(classes=list(map(str, range(classes))))}))
    weights = {name.removeprefix("network."): weight for name, weight in model.state_dict().items()}
    return {name: torch.rand(weight.shape) if weight.ndim else weight for name, weight in weights.items()}


def network(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight for name, weight in weights.items() if name not in {"mean", "std"}}


def taken(weights: dict[str, Tensor], model: nn.Module | None = None) -> dict[str, Tensor]:
    model = model or built()
    take_over(model, RESNET, INFO, CLASSIFICATION, Weights("task.start x.pth", weights))
    return model.state_dict()


# ---- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.PT"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_weights_come_from_either_kind_of_file(tmp_path: Path, name: str, prefix: str) -> None:
    weights = {f"{prefix}layer.weight": torch.rand(2, 2), f"{prefix}layer.bias": torch.rand(2)}
    save_file(weights, tmp_path / name) if "safe" in name else torch.save(weights, tmp_path / name)
    found = read_weights(tmp_path / name)
    assert found.keys() == {"layer.weight", "layer.bias"}
    assert torch.equal(found["layer.bias"], weights[f"{prefix}layer.bias"])


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_weights_are_found_among_other_things(tmp_path: Path, key: str) -> None:
    torch.save({"epoch": 3, "optimizer": {"state": {}}, key: {"w": torch.ones(1)}}, tmp_path / "a.ckpt")
    assert read_weights(tmp_path / "a.ckpt").keys() == {"w"}


class Malicious:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("harmed"),))


def test_no_code_of_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Malicious()))
    torch.save({"w": torch.ones(1), "more": Malicious()}, tmp_path / "new.pth")
    for name in ("old.pth", "new.pth"):
        with pytest.raises(InputError, match=rf"{name}: holds more than weights.*Save model\.state_dict\(\) alone"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "harmed").exists()


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    torch.save({"epoch": 1}, tmp_path / "a.pth")
    torch.save(torch.ones(2), tmp_path / "b.pth")
    (tmp_path / "c.pth").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "d.safetensors").write_bytes(b"nothing")
    (tmp_path / "e.pth").write_bytes(b"")
    (tmp_path / "f.pth").mkdir()
    messages = {"a.pth": "holds no weights by name, only epoch", "b.pth": "holds no weights by name$"}
    messages |= {"c.pth": "damaged or ", "d.safetensors": "damaged or not a safetensors", "e.pth": "damaged or not a f"}
    for name, message in {**messages, "f.pth": "cannot be read", "g.pth": "there is no such file"}.items():
        with pytest.raises(InputError, match=f"^{tmp_path / name}: {message}"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.eye(2).to_sparse(), "is sparse, quantized, complex or without values"),
        (torch.ones(2, dtype=torch.complex64), "is sparse, quantized, complex or without values"),
        (torch.ones(2, device="meta"), "is sparse, quantized, complex or without values"),
        (torch.tensor([1.0, math.nan]), "has values that are no numbers"),
    ],
    ids=["sparse", "complex", "meta", "nan"],
)
def test_weights_that_no_layer_can_have_are_told(tmp_path: Path, weight: Tensor, message: str) -> None:
    torch.save({"w": torch.ones(1), "odd": weight}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=f"^{tmp_path / 'a.pth'}: odd {message}"):
        read_weights(tmp_path / "a.pth")


# ---- weights alone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beginning", ["", "network.", "backbone.net."])
def test_weights_of_the_same_network_come_along(beginning: str) -> None:
    weights = {f"{beginning}{name}": weight for name, weight in network(plain()).items()}
    after = taken(weights)
    for name, weight in weights.items():
        assert torch.equal(after[f"network.{name.removeprefix(beginning)}"], weight)
    assert after["mean"].flatten().tolist() == [127.5] * 3  # the data's own


def test_the_weights_of_a_whole_model_of_ours_do_too() -> None:
    weights = {name if name in {"mean", "std"} else f"network.{name}": weight for name, weight in plain().items()}
    after = taken(weights)
    assert torch.equal(after["network.head.weight"], weights["network.head.weight"])
    assert after["mean"].flatten().tolist() == [127.5] * 3


def test_the_head_of_other_classes_stays_as_it_was_drawn(caplog: pytest.LogCaptureFixture) -> None:
    model = built()
    drawn = model.state_dict()["network.head.weight"].clone()
    with caplog.at_level("INFO"):
        after = taken(network(plain(classes=5)), model)
    assert torch.equal(after["network.head.weight"], drawn)
    assert "new ones: 2" in caplog.text
    headless = {name: weight for name, weight in network(plain()).items() if not name.startswith("head")}
    assert torch.equal(taken(headless)["network.stem.0.weight"], headless["stem.0.weight"])


def test_files_without_counts_of_batches_do() -> None:
    weights = {name: weight for name, weight in network(plain()).items() if "num_batches" not in name}
    assert torch.equal(taken(weights)["network.stem.1.running_var"], weights["stem.1.running_var"])


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: {**weights, "extra.weight": torch.ones(1)},
        lambda weights: {name: weight for name, weight in weights.items() if name != "stem.0.weight"},
        lambda weights: {**weights, "stem.0.weight": torch.ones(8, 3, 3, 3)},
        lambda weights: {"encoder.0": torch.ones(2), "decoder.0": torch.ones(2)},
    ],
    ids=["one too many", "one missing", "another shape", "another network"],
)
def test_weights_of_another_network_are_told(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    with pytest.raises(InputError, match=r"^task\.start x\.pth: these are no weights of {'name': 'resnet', .*: of "):
        taken(change(network(plain())))


def test_types_of_other_precision_do_but_whole_numbers_do_not() -> None:
    given = network(plain())
    for kind in (torch.float64, torch.bfloat16):
        after = taken({name: weight.to(kind) if weight.ndim else weight for name, weight in given.items()})
        assert torch.equal(after["network.stem.0.weight"], given["stem.0.weight"].to(kind).float())
    quantized = {**given, "stem.0.weight": (given["stem.0.weight"] * 100).to(torch.int8)}
    with pytest.raises(InputError, match=r"^task\.start x\.pth: network\.stem\.0\.weight has whole numbers .*int8"):
        taken(quantized)


# ---- as a task has it ----------------------------------------------------------------------------------------------


def test_a_file_at_an_address_is_brought(tmp_path: Path) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "a.safetensors")
    MemoryFileSystem().pipe("/start/a.safetensors", (tmp_path / "a.safetensors").read_bytes())
    dataset = StartDataset(filepath=str(tmp_path / "brought"), task="mine")
    dataset.told("memory://start/a.safetensors", tmp_path)
    loaded = dataset.load()
    assert isinstance(loaded, Weights)
    assert loaded.weights.keys() == {"w"}
    before = dataset.fingerprint()
    MemoryFileSystem().pipe("/start/a.safetensors", b"more than it was before, and something else")
    again = StartDataset(filepath=str(tmp_path / "brought"), task="mine")
    again.told("memory://start/a.safetensors", tmp_path)
    assert again.fingerprint() != before
    with pytest.raises(InputError, match=r"^mine\.task\.start: .*damaged"):
        again.load()


TASKS = """
bikes:
  preprocess: {reader: table, files: people, target: bike}
bikes_mlp: &task
  task: {problem: classification, data: bikes}
  data: {}
  model: {name: tabular_mlp, hidden: [8]}
  train: {epochs: 1, batch_size: 32, optimizer: {name: Adam, lr: 0.01}}
  evaluate: {}
  export: {}
again:
  <<: *task
  task: {problem: classification, data: bikes, start: FILE}
  train: {epochs: 1, batch_size: 32, optimizer: {name: SGD, lr: 1.0e-12}, finetune: linear_probe}
"""


def tasks(project: Path, start: str = "models/first.safetensors") -> str:
    return TASKS.replace("files: people", f"files: {project / 'people'}").replace("FILE", start)


@pytest.fixture
def bikes(project: Path) -> Path:
    write(project / "people/people.csv", people(120))
    (project / "conf/base/parameters/bikes.yml").write_text(tasks(project))
    return project


def test_a_task_starts_from_the_file_of_another_project(
    bikes: Path, run: Callable[..., DataCatalog], caplog: pytest.LogCaptureFixture
) -> None:
    run("bikes_mlp", to_nodes=["bikes_mlp.train"])
    file = bikes / "models/first.safetensors"
    file.parent.mkdir()
    shutil.move(bikes / "data/sample/06_models/bikes_mlp/checkpoint.safetensors", file)
    catalog = run("again", to_nodes=["again.train"])
    first, after = CheckpointDataset(filepath=str(file)).load(), catalog.load("again.checkpoint")
    assert all(torch.allclose(weight, first.weights[name], atol=1e-6) for name, weight in after.weights.items())
    other = {name: weight + 1 for name, weight in first.weights.items() if name != "mean"}
    CheckpointDataset(filepath=str(file)).save(first.model_copy(update={"weights": {**first.weights, **other}}))
    run("again", from_nodes=["again.evaluate"], to_nodes=["again.evaluate"])
    assert "again.train: again.start_checkpoint: has changed since" in caplog.text


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("models/gone.safetensors", r"^again\.task\.start: .*models/gone\.safetensors: there is no such file"),
        ("models", "start: given 'models'; unknown task"),
        (
            "people/people.csv",
            r"^again\.task\.start: .*people\.csv: must be a task or a file that ends ",
        ),
        ("../odd.safetensors", r"^again\.task\.start: .*odd\.safetensors: damaged or not a safetensors file"),
    ],
)
def test_a_file_that_will_not_do_is_told_before_any_work(
    bikes: Path, run: Callable[..., DataCatalog], start: str, message: str
) -> None:
    (bikes / "../odd.safetensors").write_bytes(b"odd")
    (bikes / "conf/base/parameters/bikes.yml").write_text(tasks(bikes, start))
    with pytest.raises(InputError, match=message):
        run("again")
    assert not (bikes / "data/sample/03_primary/bikes").exists()
