"""Weights and channels that are cut out of a network, and what is left of it."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.stages import CLASSIFICATION
from torchloom.compression.pruning import Pruner, cut_weights, remove_channels, without_masks
from torchloom.config import DataConfig, DebuggingConfig, DistributedConfig, PruneConfig
from torchloom.data.batches import Batches, ImageBatches
from torchloom.data.targets import Classes
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.modalities import ImageInfo
from torchloom.modalities.modules import NormalizedImages
from torchloom.models import build_model
from torchloom.pipelines.pruning.nodes import train
from torchloom.problems.base import Problem
from torchloom.problems.classification import Classification, classification_objective
from torchloom.problems.classification.config import ClassificationTrainConfig, PrunedTrainConfig
from torchloom.training.checkpoint import Checkpoint, CheckpointDataset
from torchloom.training.loaders import LoaderPlan, TensorFile
from torchloom.training.loop import TIMES, Outcome, fit
from torchloom.training.state import TrainingStates

INFO = ImageInfo(target=Classes(classes=["a", "b", "c"]), shape=[3, 32, 32], mean=[0.5] * 3, std=[0.25] * 3)
IMAGES = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
NETWORKS: list[tuple[str, dict[str, Any], str]] = [
    ("resnet", {"width": 4}, "network.head.weight"),
    ("resnet", {"width": 2, "depth": 50}, "network.head.weight"),
    ("densenet", {"growth": 4, "depth": 10}, "network.10.weight"),
    ("cnn", {"form": "two_conv"}, "network.9.weight"),
    ("cnn", {"form": "two_conv", "activation": "PReLU"}, "network.9.weight"),
    ("vgg", {"width": 4}, "network.46.weight"),
]


def trained(network: str, arguments: dict[str, Any]) -> nn.Module:
    """Whose batch norm has seen data."""
    model = build_model(network, arguments, INFO, CLASSIFICATION)
    model(IMAGES)
    return model.eval()


def dense(*sizes: int) -> nn.Module:
    layers = [nn.Linear(some, others) for some, others in pairwise(sizes)]
    return nn.Sequential(*layers)


def plain(model: nn.Module) -> dict[str, Tensor]:
    return without_masks(model.state_dict())


def test_the_share_grows_with_the_cube_of_the_time_that_is_left() -> None:
    model = dense(100, 50, 20)
    pruner = Pruner(model, PruneConfig(amount=0.8, epochs=4), [], IMAGES)
    shares = []
    for epoch in range(1, 7):
        pruner(model, epoch)
        weights = [model.get_submodule(name).weight for name in ("0", "1")]
        shares.append(sum(int((weight == 0).sum()) for weight in weights) / 6000)
    assert shares == pytest.approx([0.8 * (1 - (1 - part) ** 3) for part in (0.25, 0.5, 0.75, 1, 1, 1)], abs=1e-3)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_smallest_weights_go(scope: str) -> None:
    model = dense(30, 20, 10)
    with torch.no_grad():
        model.get_submodule("1").weight.add_(1)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    Pruner(model, PruneConfig(amount=0.5, epochs=1, scope=scope), [], IMAGES)(model, 1)
    after = plain(model)
    assert after.keys() == before.keys()
    zeros = [int((after[f"{layer}.weight"] == 0).sum()) for layer in (0, 1)]
    assert zeros == ([400, 0] if scope == "global" else [300, 100])
    for name in before:
        kept = after[name] != 0
        assert torch.equal(after[name][kept], before[name][kept])
        if name.endswith("weight") and not kept.all():
            assert before[name][~kept].abs().max() <= before[name][kept].abs().min()


def test_what_is_cut_stays_cut_even_when_it_was_not_the_smallest_any_more() -> None:
    layer = dense(10, 10).get_submodule("0")
    pruner = Pruner(nn.Sequential(layer), PruneConfig(amount=0.4, epochs=1), [], IMAGES)
    pruner(layer, 1)
    gone = layer.weight_mask == 0
    layer.weight_orig.data[gone] = 100.0
    cut_weights(pruner.weights, 0.6, "global")
    assert (layer.weight_mask[gone] == 0).all()
    assert int((layer.weight_mask == 0).sum()) == 60


def test_excluded_weights_stay() -> None:
    model = dense(30, 20, 10)
    Pruner(model, PruneConfig(amount=0.9, epochs=1, exclude=["1.*"]), [], IMAGES)(model, 1)
    after = plain(model)
    assert int((after["0.weight"] == 0).sum()) == 540
    assert (after["1.weight"] != 0).all()


@pytest.mark.parametrize(
    ("exclude", "message"),
    [(["2.weight"], "2.weight fits none that is left of 0.weight, 1.weight"), (["*"], "no conv")],
)
def test_nothing_fits(exclude: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pruner(dense(3, 3, 3), PruneConfig(exclude=exclude), [], IMAGES)


# ---- channels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "arguments", "head"), NETWORKS)
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_network_without_its_channels_answers_the_same(
    tmp_path: Path, network: str, arguments: dict[str, Any], head: str, scope: str
) -> None:
    model = trained(network, arguments)
    assert head in model.state_dict()
    before = {name: weight.shape for name, weight in model.state_dict().items()}
    config = PruneConfig(amount=0.5, form="structured", scope=scope, multiple=1, epochs=1)
    pruner = Pruner(model, config, [head], IMAGES[:2])
    total = sum(group.size for group in pruner.groups)
    pruner(model, 1)
    answers = model(IMAGES)
    cut = Checkpoint(
        network=network, arguments=arguments, problem="classification", info=INFO, training={}, weights=plain(model)
    )
    narrow = cut.build()
    torch.testing.assert_close(narrow(IMAGES), answers)
    remove_channels(narrow, IMAGES[:2])
    torch.testing.assert_close(narrow(IMAGES), answers, atol=1e-4, rtol=1e-4)

    weights = {name: weight.contiguous() for name, weight in narrow.state_dict().items()}
    left = sum(len(group.mask().nonzero()) for group in pruner.groups)
    assert left <= total / 2 + len(pruner.groups)
    assert weights[head].shape[0] == 3
    assert sum(w.numel() for w in weights.values()) < 0.6 * sum(shape.numel() for shape in before.values())

    dataset = CheckpointDataset(filepath=str(tmp_path / "checkpoint.safetensors"))
    dataset.save(cut.model_copy(update={"weights": weights, "resized": True}))
    torch.testing.assert_close(dataset.load().build()(IMAGES), answers, atol=1e-4, rtol=1e-4)


def test_every_group_keeps_a_channel() -> None:
    model = trained("resnet", {"width": 4})
    config = PruneConfig(amount=0.99, form="structured", multiple=1, epochs=1)
    pruner = Pruner(model, config, ["network.head.weight"], IMAGES[:2])
    pruner(model, 1)
    assert all(int(group.mask().sum()) >= 1 for group in pruner.groups)
    assert model(IMAGES).isfinite().all()


@pytest.mark.parametrize(("amount", "left"), [(0.2, {4, 8, 12, 16, 20, 24, 28, 32}), (0.9, {4})])
def test_channels_are_left_in_multiples(amount: float, left: set[int]) -> None:
    """And what is cut stays cut while more is."""
    model = trained("resnet", {"width": 4})
    config = PruneConfig(amount=amount, form="structured", scope="layer", multiple=4, epochs=2)
    pruner = Pruner(model, config, ["network.head.weight"], IMAGES[:2])
    pruner(model, 1)
    before = [group.mask() for group in pruner.groups]
    pruner(model, 2)
    after = [group.mask() for group in pruner.groups]
    assert {int(mask.sum()) for mask in after} <= left
    assert all(not bool((now & ~then).any()) for now, then in zip(after, before, strict=True))
    assert sum(int(mask.sum()) for mask in after) < sum(group.size for group in pruner.groups)


def test_the_log_says_what_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    """And once which layers have too few channels to lose any."""
    caplog.set_level("INFO", logger="torchloom")
    model = dense(30, 20, 10)
    Pruner(model, PruneConfig(amount=0.5, epochs=1), [], IMAGES)(model, 1)
    assert caplog.messages == ["epoch 1: 400 of 800 weights are cut, 50.0 %"]
    caplog.clear()
    model = NormalizedImages(
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 40, 3), nn.ReLU(), nn.Flatten(), nn.Linear(31360, 3)),
        INFO.mean,
        INFO.std,
    )
    config = PruneConfig(amount=0.5, form="structured", scope="layer", multiple=16, epochs=2)
    pruner = Pruner(model, config, ["network.5.weight"], IMAGES[:2])
    for epoch in (1, 2, 3):
        pruner(model, epoch)
    assert {len(group.mask()) - int(group.mask().sum()) for group in pruner.groups} == {0, 24}
    assert caplog.messages == [
        "epoch 1: 24 of 46 channels are cut, 52.2 %",
        "train.prune.multiple 16 leaves these layers (with so many channels) whole: network.0 (6)",
        "epoch 2: 24 of 46 channels are cut, 52.2 %",
        "epoch 3: 24 of 46 channels are cut, 52.2 %",
    ]


def test_an_activation_that_makes_something_of_nothing() -> None:
    layers = [nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(8 * 900, 3)]
    model = NormalizedImages(nn.Sequential(*layers), INFO.mean, INFO.std)
    with torch.no_grad():
        layers[0].weight[0] = layers[0].bias[0] = 0
    with pytest.raises(InputError, match="answers otherwise without the channels"):
        remove_channels(model, IMAGES[:2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"form": "classic"},
            r"^train\.prune\.form structured: the channels of lenet cannot be taken out \(.*unstructured$",
        ),
        ({"activation": "Sigmoid"}, "answers otherwise without the channels"),
    ],
)
def test_what_cannot_be_cut_is_refused_before_the_training(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    states = TrainingStates(tmp_path / "states")
    with pytest.raises(InputError, match=message):
        prune_lenet(tmp_path, states, arguments)
    assert not states.newest()


def test_what_was_learnt_is_kept_when_nothing_can_be_taken_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("torchloom.compression.pruning.check_channels", lambda *_: None)
    pruned = prune_lenet(tmp_path, TrainingStates(tmp_path / "states"), {"activation": "Sigmoid"})
    assert "answers otherwise without the channels" in caplog.text
    assert not pruned.resized
    kernels = pruned.weights["network.1.weight"]
    assert (kernels == 0).flatten(1).all(1).sum() > 0
    assert pruned.build()(IMAGES).isfinite().all()


def test_it_goes_on_learning_what_the_problem_says(tmp_path: Path) -> None:
    class Doubled(Classification):
        def objective(self, config: Any, info: Any) -> Any:
            plain = super().objective(config, info)

            def objective(model: Any, batch: Any) -> Any:
                mean, figures = plain(model, batch)
                return 2 * mean, figures

            return objective

    losses = []
    for number, problem in enumerate((CLASSIFICATION, Doubled("classification"))):
        folder = tmp_path / str(number)
        pruned = prune_lenet(folder, TrainingStates(folder / "states"), {"activation": "ReLU"}, problem)
        losses.append(pruned.training["train_loss"])
    assert losses[1] == pytest.approx(2 * losses[0], rel=0.1)  # the second of its two steps begins elsewhere


def prune_lenet(
    folder: Path, states: TrainingStates, arguments: dict[str, Any], problem: Problem = CLASSIFICATION
) -> Checkpoint:
    """The stage `train` of a pruning, of one epoch, on the few images."""
    dataset = TensorsDataset(filepath=str(folder / "train.safetensors"))
    dataset.save(Tensors({"images": IMAGES.permute(0, 2, 3, 1).contiguous().numpy(), "labels": np.arange(6) % 3}))
    saved = dataset.load()
    file = TensorFile(path=saved.path, fingerprint=saved.fingerprint, length=6)  # type: ignore[arg-type]
    splits = {"train": [file], "validation": [], "test": []}
    loaders = LoaderPlan(splits=splits, info=INFO, data=DataConfig(), batch_size=3, evaluate_batch_size=6, seed=0)
    weights = trained("lenet", arguments).state_dict()
    start = Checkpoint(
        network="lenet", arguments=arguments, problem="classification", info=INFO, training={}, weights=weights
    )
    config = PrunedTrainConfig.model_validate(
        {
            **{"epochs": 1, "batch_size": 3, "device": "cpu", "optimizer": {"name": "SGD", "lr": 0.01}},
            "prune": {"form": "structured", "epochs": 1, "multiple": 1},
        }
    )
    return train(start, loaders, config, DistributedConfig(), DebuggingConfig(), states, problem=problem)[0]


def test_a_network_without_channels() -> None:
    model = build_model("row_rnn", {"width": 4}, INFO, CLASSIFICATION)
    with pytest.raises(InputError, match="no channels that can be cut"):
        Pruner(model, PruneConfig(form="structured"), ["network.head.weight"], IMAGES[:2])


# ---- while it learns -----------------------------------------------------------------------------------------------


class PowerCut(Exception):  # noqa: N818
    pass


def fine_tune(states: TrainingStates | None, form: str, stop: int | None = None, epochs: int = 3) -> Outcome:
    """Epochs of two steps, in the first two of which a small network loses half of its weights or channels."""
    torch.manual_seed(0)
    model = trained("resnet", {"width": 4})
    optimizer = {"name": "SGD", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}
    config = ClassificationTrainConfig.model_validate(
        {"epochs": epochs, "batch_size": 3, "optimizer": optimizer, "device": "cpu", "save_minutes": 1e-6}
    )
    entropy = classification_objective("CrossEntropyLoss", {})
    taken = 0

    def objective(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal taken
        taken += 1
        if taken == stop:
            raise PowerCut
        return entropy(model, batch)

    def open_loader(split: str, device: torch.device) -> DataLoader[Any]:
        if split == "validation":
            return DataLoader([], sampler=Batches(0, 1), batch_size=None)
        data = ImageBatches(IMAGES.permute(0, 2, 3, 1).contiguous(), torch.arange(6) % 3)
        return DataLoader(data, sampler=Batches(6, 3, 0), batch_size=None, generator=torch.Generator())

    prune = PruneConfig(amount=0.5, epochs=2, form=form, multiple=1)  # type: ignore[arg-type]
    pruner = Pruner(model, prune, ["network.head.weight"], IMAGES[:2])
    return fit(model, open_loader, config, objective, states, {}, pruner)


@pytest.mark.parametrize("form", ["unstructured", "structured"])
def test_it_learns_on_and_what_is_cut_stays_zero(form: str) -> None:
    result = fine_tune(None, form, epochs=10)
    weights = without_masks(result.last)
    assert weights.keys() == build_model("resnet", {"width": 4}, INFO, CLASSIFICATION).state_dict().keys()
    kernels = [weight for weight in weights.values() if weight.ndim > 1]
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels) / sum(kernel.numel() for kernel in kernels)
    assert zeros == pytest.approx(0.5, abs=1e-3) if form == "unstructured" else zeros > 0.3
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]


@pytest.mark.parametrize("form", ["unstructured", "structured"])
@pytest.mark.parametrize("stop", [2, 3, 4, 6])
def test_interrupted_it_ends_with_the_same_bits(tmp_path: Path, form: str, stop: int) -> None:
    whole = fine_tune(None, form)
    states = TrainingStates(tmp_path / "states")
    with pytest.raises(PowerCut):
        fine_tune(states, form, stop)
    again = fine_tune(states, form)
    assert all(torch.equal(again.last[name], weight) for name, weight in whole.last.items())
    timeless = [[{k: v for k, v in row.items() if k not in TIMES} for row in fit.history] for fit in (whole, again)]
    assert timeless[0] == timeless[1]
