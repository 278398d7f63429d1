import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kedro.io import DatasetError
from safetensors.torch import save_file
from torch import Tensor

from tests.stages import CLASSIFICATION
from torchloom.data.targets import Classes
from torchloom.errors import InputError
from torchloom.modalities import ImageInfo
from torchloom.modalities.modules import NormalizedImages
from torchloom.models import build_model
from torchloom.training.checkpoint import Checkpoint, CheckpointDataset

INFO = ImageInfo(target=Classes(classes=["a", "b", "ü"]), shape=[2, 4, 4], mean=[0.2, 0.6], std=[0.1, 0.3])
ARGUMENTS = {"hidden": [8], "norm": "batch"}
IMAGES = torch.randint(256, (5, 2, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def trained_model(seed: int = 0) -> NormalizedImages:
    """A model whose batch norm has seen data."""
    torch.manual_seed(seed)
    model = build_model("mlp", ARGUMENTS, INFO, CLASSIFICATION)
    model(IMAGES)
    return model.eval()


def checkpoint(model: NormalizedImages, **changes: Any) -> Checkpoint:
    return Checkpoint(
        **{
            "network": "mlp",
            "arguments": ARGUMENTS,
            "problem": "classification",
            "info": INFO,
            "training": {"epoch": 3, "val_loss": 0.25},
            "weights": model.state_dict(),
            **changes,
        }
    )


def truncate(size: int) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[:size]) and None


def foreign(metadata: dict[str, str] | None) -> Callable[[Path], None]:
    return lambda path: save_file({"weight": torch.zeros(2)}, path, metadata=metadata)


@pytest.fixture
def dataset(tmp_path: Path) -> CheckpointDataset:
    """A dataset with a checkpoint in it."""
    dataset = CheckpointDataset(filepath=str(tmp_path / "models" / "checkpoint.safetensors"))
    dataset.save(checkpoint(trained_model()))
    return dataset


def test_a_round_trip_keeps_everything(dataset: CheckpointDataset) -> None:
    model = trained_model()
    loaded = dataset.load()
    assert loaded.model_dump() == checkpoint(model).model_dump()
    assert loaded.weights.keys() == model.state_dict().keys()
    rebuilt = loaded.build()
    assert not rebuilt.training
    with torch.no_grad():
        assert torch.equal(rebuilt(IMAGES), model(IMAGES))
        assert not torch.equal(rebuilt(IMAGES), trained_model(seed=1)(IMAGES))


def test_channels_last_weights_are_kept(dataset: CheckpointDataset) -> None:
    weights = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    dataset.save(checkpoint(trained_model(), weights={"kernel": weights}))
    assert torch.equal(dataset.load().weights["kernel"], weights)


def test_loaded_weights_survive_a_new_file(dataset: CheckpointDataset) -> None:
    loaded = dataset.load()
    dataset._filepath.write_bytes(bytes(dataset._filepath.stat().st_size))
    expected: dict[str, Tensor] = trained_model().state_dict()
    assert all(torch.equal(loaded.weights[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    "damage",
    [
        truncate(0),
        truncate(5),
        truncate(100),
        truncate(-1),
        lambda path: path.write_text("not a checkpoint, however long"),
        foreign(None),
        foreign({"format": "pt"}),
        foreign({"torchloom": "{"}),
        foreign({"torchloom": "[]"}),
        foreign({"torchloom": json.dumps({"network": 5})}),
    ],
    ids=["empty", "5 bytes", "100 bytes", "last byte", "text", "plain", "pt", "no JSON", "list", "incomplete"],
)
def test_a_file_that_is_no_checkpoint_is_named(dataset: CheckpointDataset, damage: Callable[[Path], None]) -> None:
    damage(dataset._filepath)
    with pytest.raises(InputError) as caught:
        dataset.load()
    assert caught.value.message.startswith(f"{dataset._filepath}: ")
    assert caught.value.message.endswith("Run the train stage again, or put a good checkpoint there.")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    dataset = CheckpointDataset(filepath=str(path))
    assert not dataset.exists()
    with pytest.raises(InputError) as caught:
        dataset.load()
    assert caught.value.message.startswith(f"{path}: missing. ")


@pytest.mark.parametrize(
    "wrong", [{"training": {"epoch": object()}}, {"weights": {"a": torch.zeros(2, device="meta")}}]
)
def test_a_failing_save_leaves_the_old_file(dataset: CheckpointDataset, wrong: dict[str, Any]) -> None:
    before = dataset._filepath.read_bytes()
    with pytest.raises(DatasetError):
        dataset.save(checkpoint(trained_model(), **wrong))
    assert dataset._filepath.read_bytes() == before
    assert list(dataset._filepath.parent.iterdir()) == [dataset._filepath]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"arguments": {"hidden": [9], "norm": "batch"}}, "do not fit the network mlp: .*size mismatch"),
        ({"arguments": {"hidden": [8]}}, "do not fit the network mlp: .*Unexpected key"),
        ({"weights": {}}, "do not fit the network mlp: .*Missing key"),
        ({"arguments": {"colour": "red"}}, "do not fit the network mlp: .*colour"),
        ({"network": "gone"}, "do not fit the network gone: No module named"),
    ],
)
def test_weights_that_do_not_fit(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"(?s){message}.*Run the train stage again"):
        checkpoint(trained_model(), **wrong).build()
