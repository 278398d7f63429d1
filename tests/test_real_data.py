"""The real data sets, from the folder that TORCHLOOM_MIRROR names, at the quality that the README states."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from kedro.io import DataCatalog

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.xdist_group("real_data"),  # one after the other: both want all cores
    pytest.mark.skipif(
        "TORCHLOOM_MIRROR" not in os.environ, reason="TORCHLOOM_MIRROR names no folder with the real data"
    ),
]


def test_mnist_mlp_reaches_98_3_percent(run: Callable[..., DataCatalog]) -> None:
    catalog = run("mnist_mlp", env="local")
    assert catalog.load("mnist_mlp.metrics")["accuracy"] >= 0.983
    assert sum(catalog.load("mnist_info")["images"]["test"].values()) == 10_000


def test_cifar_resnet_passes_70_percent_on_a_cpu(run: Callable[..., DataCatalog], project: Path) -> None:
    catalog = run("cifar_resnet", env="cpu")
    assert catalog.load("cifar_resnet.metrics")["accuracy"] > 0.7
    info = catalog.load("cifar10_info")
    assert info["classes"][:3] == ["airplane", "automobile", "bird"]
    assert info["mean"] == pytest.approx([0.4914, 0.4822, 0.4465], abs=2e-3)
    assert info["std"] == pytest.approx([0.2470, 0.2435, 0.2616], abs=2e-3)
    assert set(info["images"]["train"].values()) == {4500}


def test_the_archive_alone_is_enough(
    run: Callable[..., DataCatalog], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Path(os.environ["TORCHLOOM_MIRROR"]) / "cifar10" / "cifar-10-python.tar.gz"
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / archive.name).symlink_to(archive)
    monkeypatch.setenv("TORCHLOOM_MIRROR", str(tmp_path))
    run("cifar_resnet", env="local", node_names=["cifar10.download"])
    assert len(list((project / "data/01_raw/cifar10/cifar-10-batches-py").iterdir())) == 7
