"""The recipes of conf/gpu as they stand there, compiled, in small on drawn data."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from conftest import ROOT, TINY, kedro_run, make_project
from torchloom.models import resnet, vgg
from torchloom.system.devices import choose_device, has_native_bf16

RECIPES = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "conf/gpu/parameters").glob("*.yml")}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the images that all of them learn from."""
    project = make_project(tmp_path_factory.mktemp("gpu") / "project")
    kedro_run(project, "cifar_cnn", node_names=["cifar10.download", "cifar10.preprocess"])
    return project


def history(project: Path, task: str, **changes: Any) -> list[dict[str, float]]:
    """What `kedro run --env gpu` trains with, but for a small network and few images."""
    train = {"epochs": 2, **RECIPES[task][task]["train"], **changes}
    if task.startswith("cifar_speedrun"):  # whose steps are the same for batches of any size
        train |= {"epochs": 2, "batch_size": 50}
    if "optimizer" in train:  # large steps for large batches; few images make few of them, and small batches more
        train["batch_size"] //= 16
        train["optimizer"] = {"lr": train["optimizer"]["lr"] / 16}
    model = {**TINY[task]["model"], **RECIPES[task][task].get("model", {})}
    settings = {"data": {"subset": 300 if task.startswith("cifar_speedrun") else 320}, "model": model, "train": train}
    nodes = [f"{task}.build_dataloaders", f"{task}.train"]
    catalog = kedro_run(project, task, params={task: settings}, node_names=nodes)
    rows: list[dict[str, float]] = catalog.load(f"{task}.history")
    return rows


@pytest.mark.gpu
@pytest.mark.long  # a C++ compiler runs
@pytest.mark.usefixtures("precompiled")
@pytest.mark.parametrize("task", RECIPES)
def test_a_recipe_for_gpus(project: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It learns, and its first epoch is that of a network which is not compiled."""
    monkeypatch.setitem(resnet.BLOCKS, 18, (1, 1))  # of what is there again and again, one
    monkeypatch.setitem(vgg.CONVOLUTIONS, 11, (1, 1, 1, 1, 1))
    assert RECIPES[task][task]["train"]["compile"] is True
    precision = {} if has_native_bf16(choose_device("auto")) else {"precision": "fp32"}
    compiled = history(project, task, **precision)
    torch.compiler.reset()
    eager = history(project, task, compile=False, **precision)
    assert compiled[-1]["train_loss"] < compiled[0]["train_loss"]
    assert compiled[0]["train_loss"] == pytest.approx(eager[0]["train_loss"], rel=0.03)
