"""Models side by side: what is counted and what is measured."""

import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from torchloom import comparison
from torchloom.comparison import compare_models, multiply_adds, onnx_accuracy, time_side_by_side, zero_share
from torchloom.config import CompareConfig, DataConfig
from torchloom.data.info import ImageInfo
from torchloom.data.loaders import LoaderPlan, TensorFile
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.export import export_checkpoint, open_session
from torchloom.models import build_model
from torchloom.training.checkpoint import Checkpoint

pytestmark = pytest.mark.xdist_group("export")

INFO = ImageInfo(classes=["dark", "light"], shape=[1, 4, 4], mean=[0.5], std=[0.25])
QUICK = CompareConfig(batch_size=8, turns=2, seconds=0.001)


def checkpoint(hidden: list[int]) -> Checkpoint:
    model = build_model("mlp", {"hidden": hidden}, INFO)
    weights, arguments = model.state_dict(), {"hidden": hidden}
    return Checkpoint(network="mlp", arguments=arguments, info=INFO, training={}, weights=weights)


@pytest.fixture
def loaders(tmp_path: Path) -> LoaderPlan:
    """Whose 20 test images are dark and light in turn."""
    images = np.full((20, 4, 4, 1), 30, dtype=np.uint8)
    images[1::2] = 220
    dataset = TensorsDataset(filepath=str(tmp_path / "test.safetensors"))
    dataset.save(Tensors({"images": images, "labels": np.arange(20) % 2}))
    saved = dataset.load()
    assert saved.path is not None
    assert saved.fingerprint is not None
    file = TensorFile(path=saved.path, fingerprint=saved.fingerprint, length=20)
    splits = {"train": [], "validation": [], "test": [file]}
    return LoaderPlan(splits=splits, info=INFO, data=DataConfig(), batch_size=4, evaluate_batch_size=6, seed=0)


def by_brightness() -> Checkpoint:
    """Which tells dark from light."""
    made = checkpoint([])
    weight = torch.stack([-torch.ones(16), torch.ones(16)])
    (name,) = [name for name, tensor in made.weights.items() if tensor.ndim == 2]
    made.weights[name] = weight
    return made


def test_multiply_adds_are_those_of_the_layers() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 100, 7))
    assert multiply_adds(network, {"images": torch.zeros(1, 3, 10, 10)}) == 100 * 9 * 3 * 8 + 800 * 7


def test_zeros_are_counted_in_matrices_only() -> None:
    made = checkpoint([10])
    matrices = [tensor for tensor in made.weights.values() if tensor.ndim == 2]
    matrices[0][:, :8] = 0
    for tensor in made.weights.values():
        if tensor.ndim == 1:
            tensor.zero_()
    assert zero_share(made) == pytest.approx(80 / (160 + 20))


def test_the_accuracy_is_that_of_the_whole_split(loaders: LoaderPlan) -> None:
    good = by_brightness()
    assert onnx_accuracy(open_session(export_checkpoint(good)), loaders) == 1.0
    (name,) = [name for name, tensor in good.weights.items() if tensor.ndim == 2]
    good.weights[name] *= -1
    assert onnx_accuracy(open_session(export_checkpoint(good)), loaders) == 0.0


def test_the_report(loaders: LoaderPlan) -> None:
    before, after = checkpoint([64]), by_brightness()
    files = [export_checkpoint(made) for made in (before, after)]
    report = compare_models((before, files[0]), (after, files[1]), loaders, QUICK)
    assert [report[name]["bytes"] for name in ("before", "after")] == [len(file) for file in files]
    assert [report[name]["multiply_adds"] for name in ("before", "after")] == [16 * 64 + 64 * 2, 16 * 2]
    assert report["after"]["accuracy"] == 1.0
    change = report["change"]
    assert change["accuracy_points"] == pytest.approx(100 * (1 - report["before"]["accuracy"]))
    assert change["times_smaller"] == len(files[0]) / len(files[1])
    assert change["times_fewer_multiply_adds"] == 36
    times = [report[name]["onnx_runtime"]["latency_ms"] for name in ("before", "after")]
    assert change["times_lower_latency"] == times[0] / times[1]
    assert report["after"]["pytorch"]["samples_per_second"] > 0


def test_a_model_that_is_there_in_onnx_only(loaders: LoaderPlan) -> None:
    before = checkpoint([64])
    file = export_checkpoint(before)
    report = compare_models((before, file), (None, file), loaders, QUICK)
    assert report["after"]["multiply_adds"] == report["before"]["multiply_adds"]
    assert "pytorch" not in report["after"]
    assert report["change"]["accuracy_points"] == 0


def test_the_files_are_measured_compressed_too(loaders: LoaderPlan) -> None:
    before, after = checkpoint([64]), checkpoint([64])
    for weight in after.weights.values():
        weight.zero_()
    files = [export_checkpoint(made) for made in (before, after)]
    report = compare_models((before, files[0]), (after, files[1]), loaders, QUICK)
    sizes = [report[name]["compressed_bytes"] for name in ("before", "after")]
    assert sizes == [len(zlib.compress(file, 6)) for file in files]
    assert sizes[1] < sizes[0]
    assert report["change"]["times_smaller_compressed"] == sizes[0] / sizes[1]


def test_times_have_their_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Milliseconds for one sample, samples for each second."""
    now = 0.0
    monkeypatch.setattr(comparison, "time", SimpleNamespace(perf_counter=lambda: now))

    def side(inputs: dict[str, torch.Tensor]) -> Callable[[], None]:
        def call() -> None:
            nonlocal now
            now += 0.004 if len(inputs["x"]) == 1 else 0.05

        return call

    config = CompareConfig(batch_size=3, turns=3, seconds=0.2)
    times = time_side_by_side({"a": side}, {"x": torch.zeros(1)}, {"x": torch.zeros(3)}, config)
    assert times["a"] == pytest.approx({"latency_ms": 4.0, "samples_per_second": 60.0})


def test_sides_take_turns() -> None:
    calls: list[str] = []
    sides = {name: lambda inputs, name=name: lambda: calls.append(name + str(len(inputs["x"]))) for name in "ab"}
    config = CompareConfig(batch_size=3, turns=2, seconds=1e-9)
    times = time_side_by_side(sides, {"x": torch.zeros(1)}, {"x": torch.zeros(3)}, config)
    assert calls == ["a1", "a3", "b1", "b3"] * 3
    assert times.keys() == {"a", "b"}
