import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from torchloom.config import AugmentConfig, ExportConfig
from torchloom.data.loaders import ImageInfo, LoaderPlan, TensorFile
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.export import compare, to_onnx
from torchloom.models import ImageClassifier, build_network
from torchloom.pipelines.classification.nodes import export_onnx
from torchloom.training.checkpoint import Checkpoint

INFO = ImageInfo(classes=["a", "b", "c", "ü"], shape=[3, 8, 8], mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])
IMAGES = torch.randint(256, (20, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [16], "batch_norm": True, "dropout": 0.3, "activation": "GELU"},
    "resnet": {"depth": 18, "width": 4},
}


class Brightness(nn.Module):
    """Logits that are NaN for images darker than 100."""

    def forward(self, images: Tensor) -> Tensor:
        brightness = images.float().mean(dim=(2, 3))
        return torch.sqrt(brightness - 100)


def checkpoint(network: str) -> Checkpoint:
    """A network whose batch norm has seen data."""
    torch.manual_seed(0)
    arguments = NETWORKS[network]
    model = ImageClassifier(build_network(network, INFO.shape, 4, arguments), INFO.mean, INFO.std)
    model(IMAGES)
    return Checkpoint(network=network, arguments=arguments, info=INFO, training={}, weights=model.state_dict())


def plan(folder: Path, images: Tensor) -> LoaderPlan:
    """Loaders whose test split holds these images (N, C, H, W)."""
    dataset = TensorsDataset(filepath=str(folder / "test.safetensors"))
    arrays = {"images": images.permute(0, 2, 3, 1).numpy(), "labels": np.zeros(len(images), dtype=np.int64)}
    dataset.save(Tensors(arrays))
    saved = dataset.load()
    assert saved.path is not None
    assert saved.fingerprint is not None
    file = TensorFile(path=saved.path, fingerprint=saved.fingerprint, length=len(images))
    return LoaderPlan(
        splits={"train": [], "validation": [], "test": [file]},
        info=INFO,
        batch_size=4,
        evaluate_batch_size=16,
        augment=AugmentConfig(),
        seed=0,
    )


@pytest.fixture(scope="module", params=list(NETWORKS))
def exported(request: pytest.FixtureRequest) -> tuple[Checkpoint, bytes]:
    trained = checkpoint(request.param)
    return trained, to_onnx(trained.build(), trained, opset=20)


def test_the_graph_says_what_it_takes_and_gives(exported: tuple[Checkpoint, bytes]) -> None:
    session = onnxruntime.InferenceSession(exported[1], providers=["CPUExecutionProvider"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", [3, 8, 8])
    assert (logits.name, logits.type, logits.shape[1:]) == ("logits", "tensor(float)", [4])
    assert isinstance(images.shape[0], str)  # a name stands for any number
    assert images.shape[0] == logits.shape[0]
    proto = onnx.load_from_string(exported[1])
    assert [opset.version for opset in proto.opset_import if opset.domain == ""] == [20]


def test_the_graph_carries_what_its_user_must_know(exported: tuple[Checkpoint, bytes]) -> None:
    trained, serialised = exported
    metadata = {entry.key: entry.value for entry in onnx.load_from_string(serialised).metadata_props}
    assert json.loads(metadata["classes"]) == INFO.classes
    assert json.loads(metadata["network"]) == {"name": trained.network, **trained.arguments}
    preprocessing = json.loads(metadata["preprocessing"])
    assert (preprocessing["mean"], preprocessing["std"]) == (INFO.mean, INFO.std)
    assert metadata["producer"].startswith("torchloom ")


@pytest.mark.parametrize("size", [1, 2, 5])
def test_any_batch_gives_the_models_logits(exported: tuple[Checkpoint, bytes], size: int) -> None:
    trained, serialised = exported
    session = onnxruntime.InferenceSession(serialised, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": IMAGES[:size].numpy()})
    with torch.no_grad():
        expected = trained.build()(IMAGES[:size])
    assert logits.shape == (size, 4)
    assert np.abs(logits - expected.numpy()).max() < 1e-4
    assert expected.std() > 0.05


def test_comparing_says_how_far_both_agree(exported: tuple[Checkpoint, bytes]) -> None:
    trained, serialised = exported
    report = compare(trained.build(), serialised, IMAGES, [50, 1, 3])
    assert 0 <= report["greatest_difference"] < 1e-4
    assert report["agreement"] == 1.0
    assert report["images"] == 20  # there are no more
    assert report["batch_sizes"] == [1, 3, 20]


def test_an_opset_that_torch_does_not_give_is_an_error() -> None:
    with pytest.raises(InputError, match=r"export\.opset 99: torch .* can export this model only in opset \d+"):
        to_onnx(checkpoint("mlp").build(), checkpoint("mlp"), opset=99)


def test_a_graph_that_onnx_runtime_refuses_is_an_error() -> None:
    with pytest.raises(InputError, match=r"cannot load the exported graph; try a lower export\.opset"):
        compare(checkpoint("mlp").build(), b"not a graph", IMAGES, [1])


def test_comparing_finds_a_changed_graph(exported: tuple[Checkpoint, bytes]) -> None:
    trained, serialised = exported
    proto = onnx.load_from_string(serialised)
    last = proto.graph.node[-1].input[1]
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == last)
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), last))
    report = compare(trained.build(), proto.SerializeToString(), IMAGES, [1, 20])
    assert report["greatest_difference"] > 0.1
    assert report["agreement"] < 0.5


def test_comparing_finds_a_changed_model(exported: tuple[Checkpoint, bytes]) -> None:
    trained, serialised = exported
    model = trained.build()
    model.std *= 2  # type: ignore[operator]
    assert compare(model, serialised, IMAGES, [20])["greatest_difference"] > 0.01


def test_a_difference_that_is_no_number_is_not_lost() -> None:
    images = torch.full((2, 3, 8, 8), 200, dtype=torch.uint8)
    images[1] = 0  # dark, and only in the batch of two
    model = Brightness().eval()
    serialised = to_onnx(model, checkpoint("mlp"), opset=20)
    assert compare(model, serialised, images, [1])["greatest_difference"] < 1e-4
    assert np.isnan(compare(model, serialised, images, [1, 2])["greatest_difference"])


def test_the_node_exports_only_what_agrees(tmp_path: Path) -> None:
    loaders = plan(tmp_path, IMAGES)
    trained = checkpoint("resnet")
    serialised, report = export_onnx(trained, loaders, ExportConfig())
    assert report["greatest_difference"] <= report["tolerance"] == 1e-3
    assert report["images"] == len(IMAGES) > loaders.evaluate_batch_size
    assert report["opset"] == onnx.load_from_string(serialised).opset_import[0].version == 20
    assert report["bytes"] == len(serialised)
    assert json.dumps(report)
    assert report["greatest_difference"] > 0
    with pytest.raises(InputError, match=r"differs from PyTorch by .* more than export\.tolerance 1e-30"):
        export_onnx(trained, loaders, ExportConfig(tolerance=1e-30))
