"""Hundreds and thousands of classes: evaluated and reported in little memory, and in a form that one can read."""

import csv
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reports import Page, check_page
from torchloom.config import DataConfig
from torchloom.data.targets import Classes
from torchloom.datasets.reports import CSVDataset, FigureDataset, JSONDataset, shortened
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.modalities import ImageInfo
from torchloom.models import build_model
from torchloom.pipelines.reporting.nodes import report
from torchloom.problems import problem_of
from torchloom.problems.classification import OF_MANY_CLASSES, REPORTS
from torchloom.problems.classification.config import EvaluateClassifierConfig
from torchloom.records.provenance import Lineage
from torchloom.reporting.report import CLASSES
from torchloom.system.figures import MATRIX
from torchloom.system.words import listed
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan, TensorFile

ROOM = 2 << 30  # bytes over what there is when the model is built
SIDE = 8


def names(classes: int) -> list[str]:
    return [f"species {number:05}" for number in range(classes)]


def prepared(folder: Path, classes: int, samples: int) -> tuple[Checkpoint, LoaderPlan]:
    """A network that knows the pattern of each class, and noisy test images of them."""
    generator = np.random.default_rng(0)
    patterns = generator.integers(0, 256, (classes, SIDE, SIDE, 3))
    labels = np.arange(samples) % classes
    images = np.clip(patterns[labels] + generator.normal(0, 60, (samples, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    dataset = TensorsDataset(filepath=str(folder / "species" / "test.safetensors"))
    dataset.save(Tensors({"images": images, "labels": labels}))
    saved = dataset.load()
    assert saved.path is not None
    assert saved.fingerprint is not None
    file = TensorFile(path=saved.path, fingerprint=saved.fingerprint, length=samples)
    info = ImageInfo(target=Classes(classes=names(classes)), shape=[3, SIDE, SIDE], mean=[0.5] * 3, std=[0.3] * 3)
    splits = {"train": [], "validation": [], "test": [file]}
    plan = LoaderPlan(splits=splits, info=info, data=DataConfig(), batch_size=8, evaluate_batch_size=500, seed=0)
    weights = build_model("mlp", {"hidden": []}, info, problem_of("classification")).state_dict()
    (matrix,) = [name for name, tensor in weights.items() if tensor.shape[:1] == (classes,) and tensor.ndim == 2]
    known = torch.tensor(patterns).permute(0, 3, 1, 2).flatten(1).float() / 255 - 0.5
    weights[matrix] = 3 * known / known.norm(dim=1, keepdim=True)
    training = {"epoch": 1, "parameters": {}}
    checkpoint = Checkpoint(
        network="mlp",
        arguments={"hidden": []},
        problem="classification",
        info=info,
        training=training,
        weights=weights,
    )
    return checkpoint, plan


def evaluated_and_reported(folder: Path, checkpoint: Checkpoint, plan: LoaderPlan) -> tuple[dict[str, Any], str, str]:
    """What `evaluate` leaves in files, as `report` loads it, by name; the page and the card."""
    history = [{"epoch": 1, "learning_rate": 0.1, "train_loss": 1.0, "seconds": 1.0, "samples_per_second": 1.0}]
    config = EvaluateClassifierConfig(device="cpu", pictures=9)
    outputs = problem_of(checkpoint.problem).evaluate(checkpoint, plan, history, config)
    assert list(outputs) == list(REPORTS)
    kinds = {"metrics": JSONDataset, "per_class": JSONDataset, "mistakes": CSVDataset}
    made: dict[str, Any] = {"history": history}
    for name, content in outputs.items():
        ending = {"mistakes": "csv", "metrics": "json", "per_class": "json"}.get(name, "png")
        dataset = kinds.get(name, FigureDataset)(filepath=str(folder / f"{name}.{ending}"))
        dataset.save(content)
        made[name] = dataset.load()
    return made, *report(Lineage("species_mlp", [], {}), checkpoint, plan, **made)


def check(made: dict[str, Any], html: str, card: str, classes: int) -> Page:
    """Right figures, and a page and a card that somebody can read."""
    assert made["metrics"]["accuracy"] > 0.9
    assert made["metrics"]["roc_auc"] > 0.99
    assert len(made["per_class"]) == classes
    page = check_page(html)
    assert len(html) < 3_000_000
    assert len(page.rows) < 200
    assert len(card) < 20_000
    assert f"and {classes - 10:,} others" in card
    assert f"and {classes - 10:,} others" in page.text
    for content in page.pictures.values():
        assert max(Image.open(io.BytesIO(content)).size) <= 2000
    worst = min(row["f1"] for row in made["per_class"].values() if row["samples"])
    shown = next(row for row in page.rows if row[0].startswith("species"))
    assert shown[3] == f"{worst:.4f}"
    return page


def test_five_hundred_classes(tmp_path: Path) -> None:
    made, html, card = evaluated_and_reported(tmp_path, *prepared(tmp_path, 500, 1500))
    page = check(made, html, card, 500)
    assert "By class, on the test data: the 20 with the lowest F1 of 500" in page.text
    assert set(OF_MANY_CLASSES.values()) <= page.pictures.keys()
    assert CLASSES == MATRIX
    assert list(csv.DictReader((tmp_path / "mistakes.csv").open())) == made["mistakes"]


def within(folder: Path, classes: int = 10_000, samples: int = 5000) -> None:
    """Of a new process: ROOM bytes of data more than there are when the model is built, and not one besides."""
    import resource

    import matplotlib.figure  # noqa: F401
    import torchmetrics  # noqa: F401

    checkpoint, plan = prepared(folder, classes, samples)
    checkpoint.build()
    lines = Path("/proc/self/status").read_text().splitlines()
    used = next(int(line.split()[1]) for line in lines if line.startswith("VmData:")) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + ROOM, used + ROOM))
    check(*evaluated_and_reported(folder, checkpoint, plan), classes)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux")
def test_ten_thousand_classes_within_two_gigabytes(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from test_many_classes import within; within(Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_names_in_a_row() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(names(11)) == ", ".join(names(11))
    assert listed(names(12)) == ", ".join(names(10)) + " and 2 others"
    assert listed(names(10_000)).endswith(" and 9,990 others")


def test_previews_of_many_names_are_short() -> None:
    preview = shortened(dict.fromkeys(names(500), 1))
    assert len(preview) == 101
    assert preview["…"] == "500 in all"
    assert shortened({"a": 1}) == {"a": 1}
