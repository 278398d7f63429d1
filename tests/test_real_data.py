"""The real data sets, from the folder that TORCHLOOM_MIRROR names: whole recipes, or as much as minutes allow."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from kedro.io import DataCatalog

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        "TORCHLOOM_MIRROR" not in os.environ, reason="TORCHLOOM_MIRROR names no folder with the real data"
    ),
]


def test_mnist_mlp_reaches_98_3_percent(run: Callable[..., DataCatalog]) -> None:
    catalog = run("mnist_mlp", env="local")
    assert catalog.load("mnist_mlp.metrics")["accuracy"] >= 0.983
    assert sum(catalog.load("mnist_info")["images"]["test"].values()) == 10_000


def test_the_reviews_are_told_apart(run: Callable[..., DataCatalog]) -> None:
    catalog = run("imdb_lstm", env="local", params={"imdb_lstm": {"data": {"subset": 12_000}, "train": {"epochs": 1}}})
    assert catalog.load("imdb_lstm.metrics")["accuracy"] >= 0.72
    assert catalog.load("imdb_info")["documents"]["test"] == {"negative": 12_500, "positive": 12_500}
    assert len(catalog.load("imdb_lstm.mistakes")) == 100


def test_the_language_model_foretells_the_end_of_the_book(run: Callable[..., DataCatalog]) -> None:
    parameters = {"wonderland_lstm": {"train": {"epochs": 5, "warmup_epochs": 1.0}}}
    catalog = run("wonderland_lstm", env="local", params=parameters)
    assert catalog.load("wonderland_lstm.metrics")["bits_per_character"] <= 2.35
    words = re.findall("[a-z]+", catalog.load("wonderland_lstm.sample_text").lower())
    book = (Path(os.environ["TORCHLOOM_MIRROR"]) / "wonderland" / "wonderland.txt").read_text().lower()
    known = set(re.findall("[a-z]+", book))
    assert sum(word in known for word in words) / len(words) > 0.85  # it writes words, not letters


def test_lenet_learns_quickly_and_is_as_good_in_int8(run: Callable[..., DataCatalog]) -> None:
    parameters = {"mnist_lenet": {"train": {"epochs": 3, "ema": None, "warmup_epochs": 0.5}}}
    catalog = run("mnist_lenet", env="local", params=parameters)
    assert catalog.load("mnist_lenet.metrics")["accuracy"] > 0.98
    assert_hardly_worse_in_int8(run, "mnist_lenet_quantized", env="local")


QUICK = {"seconds": 0.05}  # what is timed here is for nobody


def assert_hardly_worse_in_int8(run: Callable[..., DataCatalog], task: str, env: str) -> None:
    change = run(task, env=env, params={task: {"compare": QUICK}}).load(f"{task}.comparison")["change"]
    assert change["accuracy_points"] > -0.5
    assert change["times_smaller"] >= 3.5


def test_cifar_resnet_passes_42_percent_in_half_an_epoch_on_a_cpu_and_is_as_good_in_int8(
    run: Callable[..., DataCatalog],
) -> None:
    parameters = {"cifar_resnet": {"data": {"subset": 20_000}, "train": {"epochs": 1, "warmup_epochs": 0.2}}}
    catalog = run("cifar_resnet", env="cpu", params=parameters)
    assert catalog.load("cifar_resnet.metrics")["accuracy"] > 0.42
    info = catalog.load("cifar10_info")
    assert info["target"]["classes"][:3] == ["airplane", "automobile", "bird"]
    assert info["mean"] == pytest.approx([0.4914, 0.4822, 0.4465], abs=2e-3)
    assert info["std"] == pytest.approx([0.2470, 0.2435, 0.2616], abs=2e-3)
    assert set(info["images"]["train"].values()) == {4500}
    assert_hardly_worse_in_int8(run, "cifar_resnet_quantized", env="cpu")


def test_the_speedrun_passes_45_percent_in_a_third_of_an_epoch(run: Callable[..., DataCatalog]) -> None:
    parameters = {
        "data": {"subset": 15_000},
        "model": {"widths": [32, 128, 128]},
        "train": {"epochs": 1},
        "evaluate": {"views": "mirror"},
    }
    catalog = run("cifar_speedrun", env="local", params={"cifar_speedrun": parameters})
    assert catalog.load("cifar_speedrun.metrics")["accuracy"] > 0.45
