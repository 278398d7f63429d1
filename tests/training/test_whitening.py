from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.stages import CLASSIFICATION
from torchloom.config import DataConfig, DebuggingConfig, DistributedConfig, WhiteningConfig
from torchloom.data.targets import Classes
from torchloom.data.text import Tokenizer
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.modalities import DocumentInfo, ImageInfo
from torchloom.modalities.modules import NormalizedImages
from torchloom.models import build_network
from torchloom.pipelines.training.nodes import train_network
from torchloom.problems.classification import classification_objective
from torchloom.problems.classification.config import ClassificationTrainConfig, ClassifierConfig
from torchloom.training.loaders import LoaderPlan, TensorFile
from torchloom.training.whitening import whiten

FINE = WhiteningConfig(epsilon=1e-9)
# A network, its shape, how many patches' dimensions its first convolution has, and how many outputs.
NETWORKS: list[tuple[str, dict[str, Any], tuple[int, int, int], int, int]] = [
    ("airbench", {"widths": [4, 4, 4]}, (3, 26, 26), 12, 24),
    ("airbench", {"widths": [4, 4, 4]}, (1, 28, 28), 4, 8),
    ("lenet", {}, (1, 12, 12), 25, 6),  # outputs for a few eigenvectors
    ("lenet", {"form": "classic"}, (3, 12, 12), 75, 6),
    ("cnn", {"width": 8, "hidden": 4}, (3, 12, 12), 27, 8),
    ("cnn", {"width": 32, "hidden": 4}, (3, 12, 12), 27, 32),  # outputs for all, and for some of them turned
    ("resnet", {"depth": 18, "width": 60}, (3, 12, 12), 27, 60),  # more outputs than eigenvectors, turned ones too
]


def smooth(count: int, shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Images (N, C, H, W) uint8 whose neighbours are alike, in space and colour."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((count, *shape), generator=generator)
    noise = noise + 2 * noise.mean(1, keepdim=True) + 4 * F.avg_pool2d(noise, 3, 1, 1)
    return (110 + 25 * noise).clamp(0, 255).to(torch.uint8)


def model_of(name: str, arguments: dict[str, Any], shape: tuple[int, int, int]) -> NormalizedImages:
    torch.manual_seed(0)
    network = build_network(name, {"shape": shape, "outputs": 3}, arguments)
    return NormalizedImages(network, [0.45] * shape[0], [0.2] * shape[0])


def first_convolution(model: nn.Module) -> nn.Conv2d:
    return next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))


def responses(model: Any, images: Tensor) -> Tensor:
    """What the kernels make of all patches of the standardised images: (patches, outputs)."""
    kernels = first_convolution(model).weight.detach()
    patches = F.unfold((images.double() - model.mean) / model.std, kernels.shape[2:])
    return patches.transpose(1, 2).flatten(0, 1) @ kernels.flatten(1).T.double()


@pytest.mark.parametrize(("name", "arguments", "shape", "dimensions", "outputs"), NETWORKS)
def test_the_first_convolution_whitens(
    name: str, arguments: dict[str, Any], shape: tuple[int, int, int], dimensions: int, outputs: int
) -> None:
    model, images = model_of(name, arguments, shape), smooth(60, shape)
    drawn = first_convolution(model).weight.detach().clone()
    assert drawn[0].numel() == dimensions
    assert len(drawn) == outputs
    whiten(model, images, FINE)
    kernels = first_convolution(model).weight.detach()
    white = min(dimensions, outputs)
    found = responses(model, images)
    covariance = found.T @ found / len(found)
    torch.testing.assert_close(covariance[:white, :white], torch.eye(white).double(), atol=0.01, rtol=0)
    turned = min(dimensions, outputs - white)
    assert torch.equal(kernels[white : white + turned], -kernels[:turned])
    assert torch.equal(kernels[white + turned :], drawn[white + turned :])


def test_the_greatest_variances_come_first() -> None:
    model, images = model_of("resnet", {"width": 60}, (3, 12, 12)), smooth(60, (3, 12, 12))
    patches = F.unfold((images.double() - model.mean) / model.std, 3).transpose(1, 2).flatten(0, 1)
    whiten(model, images, FINE)
    norms = first_convolution(model).weight.detach()[:27].flatten(1).norm(dim=1).double()
    variances = torch.linalg.eigvalsh(patches.T @ patches / len(patches)).flip(0)
    torch.testing.assert_close(norms, variances.rsqrt(), rtol=1e-3, atol=0)
    assert norms[0] < 0.3 * norms[-1]


def test_epsilon_bounds_what_small_variances_are_blown_up_to() -> None:
    model = model_of("airbench", {"widths": [4, 4, 4]}, (3, 26, 26))
    grey = smooth(60, (1, 26, 26)).expand(-1, 3, -1, -1)  # 8 of 12 directions have no variance at all
    whiten(model, grey, WhiteningConfig(epsilon=0.01))
    found = responses(model, grey)[:, :12]
    variances = found.square().mean(0)
    assert variances[:4].min() > 0.8
    assert variances[4:].max() < 1e-3
    norms = first_convolution(model).weight.detach()[4:12].flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.full((8,), 10.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("count", [1, 249, 250, 501])
def test_every_image_counts_once(count: int) -> None:
    model, images = model_of("airbench", {"widths": [4, 4, 4]}, (3, 26, 26)), smooth(count, (3, 26, 26))
    whiten(model, images, FINE)
    found = responses(model, images)[:, :12]
    torch.testing.assert_close(found.T @ found / len(found), torch.eye(12).double(), atol=0.01, rtol=0)


@pytest.mark.parametrize("freeze", [True, False])
def test_kernels_are_frozen_and_biases_learn(freeze: bool) -> None:
    model = model_of("airbench", {"widths": [4, 4, 4]}, (3, 26, 26))
    bias = first_convolution(model).bias
    whiten(model, smooth(20, (3, 26, 26)), WhiteningConfig(freeze=freeze))
    layer = first_convolution(model)
    assert layer.weight.requires_grad is not freeze
    assert layer.weight.is_leaf
    assert layer.bias is bias
    assert bias is not None
    assert bias.requires_grad


@pytest.mark.parametrize("name", ["mlp", "row_rnn"])
def test_a_network_without_convolutions_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"^train\.whitening: the network does not begin with a convolution"):
        whiten(model_of(name, {}, (1, 9, 9)), smooth(5, (1, 9, 9)), FINE)


# ---- in a run ------------------------------------------------------------------------------------------------------


def images_plan(folder: Path) -> LoaderPlan:
    """Images that are bright or dark, in each split the same."""
    images = smooth(24, (3, 26, 26)).permute(0, 2, 3, 1).numpy() // 2
    labels = np.arange(24) % 2
    images[labels == 1] += 100
    dataset = TensorsDataset(filepath=str(folder / "images.safetensors"))
    dataset.save(Tensors({"images": images, "labels": labels}))
    saved = dataset.load()
    assert saved.path is not None
    assert saved.fingerprint is not None
    file = TensorFile(path=saved.path, fingerprint=saved.fingerprint, length=24)
    info = ImageInfo(target=Classes(classes=["dark", "bright"]), shape=[3, 26, 26], mean=[0.4] * 3, std=[0.2] * 3)
    splits = {split: [file] for split in ("train", "validation", "test")}
    return LoaderPlan(splits=splits, info=info, data=DataConfig(), batch_size=8, seed=0)


def settings(**changes: Any) -> ClassificationTrainConfig:
    defaults = {"epochs": 3, "batch_size": 8, "device": "cpu", "precision": "fp32", "whitening": {"images": 10}}
    optimizer = {"name": "SGD", "lr": 0.1, "momentum": 0.9}
    return ClassificationTrainConfig.model_validate({**defaults, "optimizer": optimizer, **changes})


OBJECTIVE = partial(classification_objective, "CrossEntropyLoss", {})
SMALL = ClassifierConfig.model_validate({"name": "airbench", "widths": [4, 4, 4]})


@pytest.mark.parametrize(("freeze", "decay"), [(True, 0.0), (True, 0.1), (False, 0.0)])
def test_a_run_begins_with_white_outputs_and_keeps_the_frozen_kernels(
    tmp_path: Path, freeze: bool, decay: float
) -> None:
    plan = images_plan(tmp_path)
    expected = model_of("airbench", SMALL.arguments, (3, 26, 26))
    expected.mean, expected.std = torch.full_like(expected.mean, 0.4 * 255), torch.full_like(expected.std, 0.2 * 255)
    whiten(expected, plan.drawn("train", 10)[0], WhiteningConfig())
    optimizer = {"name": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": decay}
    config = settings(whitening={"images": 10, "freeze": freeze}, optimizer=optimizer)
    best, last, history, _ = train_network(
        CLASSIFICATION, plan, SMALL, config, DistributedConfig(), DebuggingConfig(), OBJECTIVE
    )
    kernels = first_convolution(expected).weight.detach()
    for checkpoint in (best, last):
        assert torch.allclose(checkpoint.weights["network.whiten.weight"], kernels, atol=1e-6) is freeze
        assert checkpoint.build()(plan.first("test", 5)[0]).shape == (5, 2)
    start = model_of("airbench", SMALL.arguments, (3, 26, 26)).state_dict()["network.whiten.bias"]
    assert not torch.equal(last.weights["network.whiten.bias"], start)
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_documents_cannot_be_whitened() -> None:
    info = DocumentInfo(
        target=Classes(classes=["a", "b"]), tokenizer=Tokenizer(kind="words", vocabulary=["<pad>", "<unk>", "x"])
    )
    empty: dict[str, list[TensorFile]] = {"train": [], "validation": [], "test": []}
    plan = LoaderPlan(splits=empty, info=info, data=DataConfig(), batch_size=8, seed=0)
    with pytest.raises(InputError) as caught:
        train_network(
            CLASSIFICATION,
            plan,
            ClassifierConfig(name="text_rnn"),
            settings(),
            DistributedConfig(),
            DebuggingConfig(),
            OBJECTIVE,
        )
    assert caught.value.message == "train.whitening: is for images, but these data are documents; leave it out"
