"""How the pixels of images are scaled: measured, as of ImageNet, or as the user says; and that the model carries it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.tables import write
from tests.test_as_tested import Trained
from torchloom.config import (
    ArraysPreprocessConfig,
    FolderPreprocessConfig,
    FoldsConfig,
    ImagesPreprocessConfig,
    PicturesPreprocessConfig,
    PreprocessConfig,
)
from torchloom.config.checks import check_block
from torchloom.data.images import LabelledImages, prepare
from torchloom.data.readers import cifar10, mnist, pictures
from torchloom.errors import InputError
from torchloom.modalities import ImageInfo, read_info
from torchloom.pipelines.folds.nodes import fold_of

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
OWN = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 1.0]}
SCALES: dict[str, tuple[Any, tuple[list[float], list[float]]]] = {
    "imagenet": ("imagenet", IMAGENET),
    "half": ("half", ([0.5] * 3, [0.5] * 3)),
    "own": (OWN, (OWN["mean"], OWN["std"])),
}


def prepared(normalize: Any, channels: int = 3, kind: type[PreprocessConfig] = ImagesPreprocessConfig) -> Any:
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 4, channels), dtype=np.uint8)
    parts = (LabelledImages(images[:30], np.arange(30) % 2), LabelledImages(images[30:], np.arange(10) % 2))
    config = kind.model_validate({"normalize": normalize} if normalize else {})
    return prepare(*parts, ["a", "b"], config)


@pytest.mark.parametrize("name", SCALES)
def test_the_model_scales_as_it_says(name: str) -> None:
    given, (mean, std) = SCALES[name]
    *_, known = prepared(given)
    info = read_info(known)
    assert isinstance(info, ImageInfo)
    assert (info.mean, info.std, info.chosen) == (mean, std, True)
    images = torch.randint(0, 256, (2, 3, 6, 4), dtype=torch.uint8)
    expected = (images / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(info.scaled(nn.Identity())(images), expected, rtol=1e-5, atol=1e-5)
    assert dict(info.facts())["mean and deviation of the channels, as chosen"].startswith(f"{mean[0]:g} ")


def test_left_out_it_is_measured_as_ever() -> None:
    *_, known = prepared("measured")
    assert known == prepared(None)[3] == prepared(None, kind=PreprocessConfig)[3]
    assert "chosen" not in known
    assert known["mean"] == pytest.approx([0.5] * 3, abs=0.02)


def test_what_does_not_suit_the_images_is_refused() -> None:
    assert prepared("half", channels=1)[3]["mean"] == [0.5]
    with pytest.raises(
        InputError, match=r"^preprocess\.normalize: must be for the 1 of the images, and imagenet has 3"
    ):
        prepared("imagenet", channels=1)
    with pytest.raises(
        InputError, match=r"^preprocess\.normalize: must be for the 1 of the images, and mean and std ha"
    ):
        prepared(OWN, channels=1)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("imagnet", "given 'imagnet'; must be 'measured', 'imagenet' or 'half'"),
        ({"mean": [0.5], "std": [0.0]}, ".std.0: given 0.0; must be greater than 0"),
        ({"mean": [0.5], "std": [58.4]}, ".std.0: given 58.4; must be less than or equal to 1"),
        ({"mean": [123.7], "std": [0.5]}, ".mean.0: given 123.7; must be less than or equal to 1"),
        ({"mean": [0.5, 0.5, 0.5], "std": [0.5]}, "must have as many in std (1) as in mean (3)"),
        ({"mean": [0.5]}, ".std: is missing and has no default"),
        ({"mean": [0.5], "std": [0.5], "max": 1}, ".max: unknown key; allowed are mean, std"),
        (0.5, "given 0.5; must be a block such as"),
        ("imagenet", "given 'imagenet'; must be for the 1 of the images, and imagenet has 3 channels"),
    ],
)
def test_what_is_no_scale_is_one_message(given: Any, line: str) -> None:
    block = {"folder": "photos", "channels": 1, "normalize": given}
    lines = check_block("flowers.preprocess", block, FolderPreprocessConfig)
    assert len(lines) == 1
    assert lines[0].startswith("flowers.preprocess.normalize")
    assert line in lines[0]


def test_every_reader_of_images_knows_it() -> None:
    for preprocess in (mnist.preprocess, cifar10.preprocess):
        assert preprocess.__annotations__["config"] == "ImagesPreprocessConfig"
    assert ArraysPreprocessConfig(files="x.npz", normalize="half").channel_scale(2)
    assert PicturesPreprocessConfig(files="x.csv", target="y", normalize="imagenet").normalize == "imagenet"


@pytest.mark.parametrize("given", [None, "half"])
def test_folds_measure_anew_only_what_is_measured(tmp_path: Path, given: Any) -> None:
    loaders = Trained(tmp_path, prepared(given), {"name": "mlp", "hidden": [4]}).plan
    known: Any = loaders.info
    fold: Any = fold_of(loaders, FoldsConfig(count=3), 1).info
    assert (fold.mean == known.mean) is bool(given)
    assert fold.chosen is bool(given)


@pytest.mark.usefixtures("exporter")
@pytest.mark.parametrize(
    "name", ["own", *(pytest.param(name, marks=pytest.mark.long) for name in ("imagenet", "half"))]
)
def test_a_number_is_told_from_pictures_as_it_was_tested(tmp_path: Path, name: str) -> None:
    """A convolutional network of pictures that a table names, and its answers by predict and by serve."""
    given, (mean, std) = SCALES[name]
    folder = tmp_path / "own"
    folder.mkdir()
    rows: list[dict[str, Any]] = []
    generator = np.random.default_rng(0)
    for number in range(48):
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8) // (1 + number % 4)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append({"file": f"{number}.png", "light": float(pixels.mean()), "set": ["train", "test"][number % 3 == 0]})
    block = {"files": str(write(folder / "all.csv", rows)), "target": "light", "size": [8, 8], "normalize": given}
    config = PicturesPreprocessConfig.model_validate({**block, "split_by": {"column": "set"}})
    task = Trained(
        tmp_path,
        pictures.preprocess(pictures.find(config), config, tmp_path),
        {"name": "cnn", "form": "lenet"},
        "regression",
        settings={"epochs": 3},
    )
    buffers = task.checkpoint.weights
    assert [round(value / 255, 4) for value in buffers["mean"].flatten().tolist()] == mean
    assert [round(value / 255, 4) for value in buffers["std"].flatten().tolist()] == std
    (expected,) = task.tested()
    asked = [row for row in rows if row["set"] == "test"]
    answers = task.asked(write(folder / "test.csv", asked))
    served = task.served([(folder / row["file"]).read_bytes() for row in asked])
    for found in (answers, served):
        np.testing.assert_allclose([row["light"] for row in found], expected, rtol=1e-4)
    assert expected.std() > 0
