"""Other formats than ONNX: the same answers, any batch, any length."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.stages import CLASSIFICATION
from torchloom.config import CompareConfig, DataConfig, ExportConfig
from torchloom.data.targets import Classes
from torchloom.data.text import Tokenizer
from torchloom.datasets.exports import ExportsDataset
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.export import formats
from torchloom.export.onnx import Signature, export_checkpoint, parity, signature
from torchloom.modalities import DocumentInfo, ImageInfo, Info, TextInfo
from torchloom.models import build_model
from torchloom.pipelines.training.nodes import check_parity, export_formats
from torchloom.problems import problem_of
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan, TensorFile

pytestmark = pytest.mark.xdist_group("export")

IMAGES = ImageInfo(target=Classes(classes=["a", "b", "c"]), shape=[3, 16, 16], mean=[0.5] * 3, std=[0.25] * 3)
WORDS = Tokenizer(kind="words", vocabulary=["<pad>", "<unk>", *"abcdefgh"])
LETTERS = Tokenizer(kind="characters", vocabulary=list("abcdefgh"))
DOCUMENTS = DocumentInfo(target=Classes(classes=["a", "b"]), tokenizer=WORDS)
CASES: list[tuple[str, str, dict[str, Any], Any]] = [
    ("classification", "resnet", {"width": 4}, IMAGES),
    ("classification", "row_rnn", {"width": 8}, IMAGES),
    ("reconstruction", "autoencoder", {"hidden": [8]}, IMAGES),
    ("classification", "text_rnn", {"embedding": 4, "width": 4}, DOCUMENTS),
    ("language_model", "language_rnn", {"width": 8}, TextInfo(tokenizer=LETTERS)),
]


def checkpoint_of(problem: str, network: str, arguments: dict[str, Any], info: Info) -> Checkpoint:
    """Untrained."""
    weights = build_model(network, arguments, info, problem_of(problem)).state_dict()
    return Checkpoint(network=network, arguments=arguments, problem=problem, info=info, training={}, weights=weights)


def samples(info: Info) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if isinstance(info, ImageInfo):
        return {"images": torch.randint(256, (7, *info.shape), dtype=torch.uint8, generator=generator)}
    tokens = torch.randint(1, 8, (7, 12), generator=generator)
    return {"tokens": tokens, "lengths": torch.arange(7) + 4} if "lengths" in info.inputs else {"tokens": tokens}


@pytest.mark.parametrize(
    ("name", "problem", "network", "arguments", "info"),
    [("torchscript", *case) for case in CASES]
    + [("torch_export", *case) for case in CASES if isinstance(case[3], ImageInfo)],
)
def test_the_answers_are_the_same_for_any_batch_and_length(
    name: str, problem: str, network: str, arguments: dict[str, Any], info: Any
) -> None:
    checkpoint = checkpoint_of(problem, network, arguments, info)
    model = checkpoint.build()
    form = signature(model, samples(info), checkpoint)
    saved = formats.save(name, model, form)
    program, milliseconds = formats.reopen(name, saved)
    assert milliseconds > 0
    report = parity(model, formats.runner(program), form, [1, 2, 7])
    assert report["greatest_difference"] < 1e-5
    if "tokens" in form.inputs:  # other lengths than that which it was exported with
        shorter = {n: tensor[:, :3] if n == "tokens" else tensor for n, tensor in form.inputs.items()}
        if "lengths" in shorter:
            shorter["lengths"] = shorter["lengths"].clamp(max=3)
        assert parity(model, formats.runner(program), form._replace(inputs=shorter), [7])["greatest_difference"] < 1e-5
    assert all("batch" in form.axes[n].values() for n in form.inputs)


@pytest.mark.long  # a C++ compiler runs
def test_aot_inductor_answers_the_same_for_any_batch() -> None:
    model = build_model("mlp", {"hidden": [8]}, IMAGES, CLASSIFICATION).eval()
    form = Signature(samples(IMAGES), IMAGES.axes, ["logits"])
    program, _ = formats.reopen("aot_inductor", formats.save("aot_inductor", model, form))
    report = parity(model, formats.runner(program), form, [1, 2, 7])
    assert report["greatest_difference"] < 1e-5
    assert report["agreement"] == 1.0


class ByValue(nn.Module):
    """Which way it takes depends on the values that it sees."""

    def forward(self, images: Tensor) -> Tensor:
        rows = images.float().flatten(1)
        return rows[:, :3] if float(rows.sum()) > 5 else rows[:, 3:6]


def test_a_model_that_cannot_be_exported() -> None:
    """Nor can those that read texts of any length, as of torch 2.15."""
    with pytest.raises(
        InputError, match=r"export\.formats torch_export: torch .* cannot export.*Leave torch_export out"
    ):
        formats.save("torch_export", ByValue(), Signature(samples(IMAGES), IMAGES.axes, ["logits"]))


# ---- the stage -----------------------------------------------------------------------------------------------------


@pytest.fixture
def loaders(tmp_path: Path) -> LoaderPlan:
    dataset = TensorsDataset(filepath=str(tmp_path / "test.safetensors"))
    images = samples(IMAGES)["images"].permute(0, 2, 3, 1).numpy()
    dataset.save(Tensors({"images": images, "labels": np.arange(7) % 3}))
    saved = dataset.load()
    assert saved.path is not None
    assert saved.fingerprint is not None
    file = TensorFile(path=saved.path, fingerprint=saved.fingerprint, length=7)
    splits = {"train": [], "validation": [], "test": [file]}
    return LoaderPlan(splits=splits, info=IMAGES, data=DataConfig(), batch_size=4, seed=0)


@pytest.fixture
def trained() -> Checkpoint:
    return checkpoint_of("classification", "mlp", {"hidden": [8]}, IMAGES)


def test_the_report_has_them_side_by_side(loaders: LoaderPlan, trained: Checkpoint) -> None:
    quick = CompareConfig(batch_size=5, turns=1, seconds=1e-3)
    config = ExportConfig(formats=["torch_export", "torchscript"], compare=quick)
    onnx_model = export_checkpoint(trained)
    files, report = export_formats(trained, onnx_model, loaders, config)
    assert files.keys() == {"model.pt2", "model.torchscript.pt"}
    for name in ("pytorch", "onnx", "torch_export", "torchscript"):
        assert report[name]["latency_ms"] > 0
        assert report[name]["samples_per_second"] > 0
    assert report["onnx"]["bytes"] == len(onnx_model)
    assert report["torch_export"]["bytes"] == len(files["model.pt2"])
    assert report["torchscript"]["load_ms"] > 0
    assert report["torch_export"]["greatest_difference"] < 1e-5


@pytest.mark.parametrize("difference", [0.1, float("nan")])
def test_a_difference_beyond_the_tolerance(difference: float) -> None:
    with pytest.raises(InputError, match=r"torchscript differs from PyTorch by .* nothing was written"):
        check_parity("torchscript", {"greatest_difference": difference}, ExportConfig())


def test_none_are_asked_for(loaders: LoaderPlan, trained: Checkpoint) -> None:
    assert export_formats(trained, b"", loaders, ExportConfig()) == ({}, {})


# ---- their files ---------------------------------------------------------------------------------------------------


def test_files_come_and_go(tmp_path: Path) -> None:
    dataset = ExportsDataset(filepath=str(tmp_path / "formats"))
    assert not dataset.exists()
    assert dataset.fingerprint() is None
    dataset.save({"a.pt2": b"one", "b.pt": b"two"})
    assert {name: path.read_bytes() for name, path in dataset.load().items()} == {"a.pt2": b"one", "b.pt": b"two"}
    first = dataset.fingerprint()
    dataset.save({"a.pt2": b"three"})
    assert sorted(path.name for path in (tmp_path / "formats").iterdir()) == ["a.pt2", "files.json"]
    assert dataset.fingerprint() != first
    dataset.save({})
    assert dataset.load() == {}
    assert dataset.exists()


@pytest.mark.parametrize("damage", ["missing", "changed", "index", "elsewhere"])
def test_damaged_files(tmp_path: Path, damage: str) -> None:
    dataset = ExportsDataset(filepath=str(tmp_path))
    dataset.save({"a.pt2": b"one"})
    if damage == "missing":
        (tmp_path / "a.pt2").unlink()
    elif damage == "changed":
        (tmp_path / "a.pt2").write_bytes(b"another")
    else:
        (tmp_path / "files.json").write_text("[" if damage == "index" else '{"../a.pt2": "x"}')
    with pytest.raises(InputError, match="Run the export_formats stage again: kedro run --tags export_formats"):
        dataset.load()
