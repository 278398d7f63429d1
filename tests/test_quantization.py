"""Models in int8, by onnxruntime.quantization."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.stages import CLASSIFICATION
from torchloom.compression.quantization import int8_share, quantize_model
from torchloom.config import DataConfig, QuantizeConfig
from torchloom.data.targets import Classes
from torchloom.data.text import Tokenizer
from torchloom.datasets.onnx import SEAL, ONNXDataset
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.export.onnx import export_checkpoint
from torchloom.modalities import AudioInfo, DocumentInfo, ImageInfo, Info
from torchloom.models import build_model
from torchloom.pipelines.quantization.nodes import quantize
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan, TensorFile

pytestmark = pytest.mark.xdist_group("export")

INFO = ImageInfo(target=Classes(classes=["a", "b", "c"]), shape=[3, 16, 16], mean=[0.5] * 3, std=[0.25] * 3)
IMAGES = np.random.default_rng(0).integers(256, size=(300, 3, 16, 16), dtype=np.uint8)


def checkpoint_of(network: str, arguments: dict[str, Any], info: Info, weights: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        network=network, arguments=arguments, problem="classification", info=info, training={}, weights=weights
    )


@pytest.fixture(scope="module")
def exported() -> bytes:
    torch.manual_seed(0)
    arguments = {"width": 16}
    model = build_model("resnet", arguments, INFO, CLASSIFICATION)
    model(torch.from_numpy(IMAGES))  # batch norm has seen data
    return export_checkpoint(checkpoint_of("resnet", arguments, INFO, model.state_dict()))


@pytest.fixture(scope="module")
def quantized(exported: bytes) -> bytes:
    return quantize_model(exported, {"images": IMAGES[:200]}, QuantizeConfig())


def logits(serialised: bytes) -> np.ndarray:
    session = onnxruntime.InferenceSession(serialised, providers=["CPUExecutionProvider"])
    answer: np.ndarray = session.run(["logits"], {"images": IMAGES[200:]})[0]
    return answer


def kernels_of(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Of the convolutions; what scales the images has one row only."""
    return [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4 and tensor.dims[0] > 1]


def test_it_answers_nearly_the_same(exported: bytes, quantized: bytes) -> None:
    plain, coarse = logits(exported), logits(quantized)
    assert not np.array_equal(plain, coarse)
    assert np.abs(plain - coarse).max() < 0.15 * np.ptp(plain)
    assert np.corrcoef(plain.ravel(), coarse.ravel())[0, 1] > 0.98


def test_weights_are_7_bits_of_int8_with_a_scale_for_each_channel(quantized: bytes) -> None:
    model = onnx.load_from_string(quantized)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    kernels = kernels_of(model)
    assert len(kernels) == 20
    for kernel in kernels:
        assert kernel.data_type == onnx.TensorProto.INT8
        assert np.abs(onnx.numpy_helper.to_array(kernel).astype(int)).max() == 64
        scale = stored[kernel.name.replace("_quantized", "_scale")]
        assert list(scale.dims) == [kernel.dims[0]]
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in model.graph.node}


def test_it_is_much_smaller_and_knows_what_the_model_knew(exported: bytes, quantized: bytes, tmp_path: Path) -> None:
    assert len(exported) / len(quantized) > 3.5
    before, after = (
        {entry.key: entry.value for entry in onnx.load_from_string(model).metadata_props}
        for model in (exported, quantized)
    )
    assert after.pop("quantization") == '"int8"'
    assert after.pop(SEAL) != before.pop(SEAL)
    assert after == before
    dataset = ONNXDataset(filepath=str(tmp_path / "model.onnx"))
    dataset.save(quantized)
    assert dataset.load() == quantized


def test_the_same_samples_give_the_same_bytes(exported: bytes, quantized: bytes) -> None:
    assert quantize_model(exported, {"images": IMAGES[:200]}, QuantizeConfig()) == quantized


def test_all_classes_are_calibrated_on_though_the_samples_are_sorted_by_class(exported: bytes, tmp_path: Path) -> None:
    images, labels = IMAGES[:200].transpose(0, 2, 3, 1).copy(), np.arange(200) // 100
    images[:100] //= 16  # the first class is dark
    dataset = TensorsDataset(filepath=str(tmp_path / "train.safetensors"))
    dataset.save(Tensors({"images": images, "labels": labels}))
    saved = dataset.load()
    assert saved.path is not None
    assert saved.fingerprint is not None
    file = TensorFile(path=saved.path, fingerprint=saved.fingerprint, length=200)
    splits = {"train": [file], "validation": [], "test": []}
    plan = LoaderPlan(splits=splits, info=INFO, data=DataConfig(), batch_size=8, seed=0)
    checkpoint = checkpoint_of("resnet", {}, INFO, {})
    small = quantize(checkpoint, exported, plan, QuantizeConfig(samples=100))
    plain, coarse = logits(exported), logits(small)  # of light images
    assert np.corrcoef(plain.ravel(), coarse.ravel())[0, 1] > 0.98
    assert quantize(checkpoint, exported, plan, QuantizeConfig(samples=100)) == small


def test_the_share_of_int8_counts_kernels_and_matrices(exported: bytes) -> None:
    assert int8_share(exported) == 0
    graph = onnx.load_from_string(exported).graph
    kernel = next(tensor for tensor in graph.initializer if list(tensor.dims) == [16, 16, 3, 3])
    first = next(node.name for node in graph.node if kernel.name in node.input)
    excluded = onnx.load_from_string(
        quantize_model(exported, {"images": IMAGES[:100]}, QuantizeConfig(exclude=[first]))
    )
    matrices = [tensor for tensor in excluded.graph.initializer if sum(length > 1 for length in tensor.dims) > 1]
    total = sum(np.prod(tensor.dims) for tensor in matrices)
    assert int8_share(excluded.SerializeToString()) == 1 - 16 * 16 * 9 / total


@pytest.mark.parametrize("calibration", ["entropy", "percentile"])
def test_other_ways_to_take_the_ranges(exported: bytes, quantized: bytes, calibration: str) -> None:
    config = QuantizeConfig.model_validate({"calibration": calibration})
    other = quantize_model(exported, {"images": IMAGES[:100]}, config)
    assert other != quantized
    assert np.corrcoef(logits(exported).ravel(), logits(other).ravel())[0, 1] > 0.95


def test_excluded_nodes_stay_as_they_are(exported: bytes) -> None:
    first = next(node.name for node in onnx.load_from_string(exported).graph.node if node.op_type == "Conv")
    model = onnx.load_from_string(quantize_model(exported, {"images": IMAGES[:100]}, QuantizeConfig(exclude=[first])))
    kinds = [kernel.data_type for kernel in kernels_of(model)]
    assert sorted(kinds) == [onnx.TensorProto.FLOAT, *[onnx.TensorProto.INT8] * 19]


def test_a_node_that_is_not_there(exported: bytes) -> None:
    with pytest.raises(InputError, match=r"quantize\.exclude: the graph has no node nowhere; it has "):
        quantize_model(exported, {"images": IMAGES[:100]}, QuantizeConfig(exclude=["nowhere"]))


# ---- recurrent layers ----------------------------------------------------------------------------------------------

ROWS = ImageInfo(target=Classes(classes=["a", "b"]), shape=[1, 12, 12], mean=[0.5], std=[0.25])
WORDS = DocumentInfo(
    target=Classes(classes=["a", "b"]),
    tokenizer=Tokenizer(kind="words", vocabulary=["<pad>", "<unk>", *map(str, range(498))]),
)
TEXTS = {"embedding": 32, "width": 32, "embedding_dropout": 0.0, "dropout": 0.0}
RECURRENT: Any = [
    ("text_rnn", TEXTS, WORDS),
    pytest.param("row_rnn", {"width": 48, "cell": "gru"}, ROWS, marks=pytest.mark.long),
    pytest.param("row_rnn", {"width": 48, "bidirectional": True}, ROWS, marks=pytest.mark.long),
]


def to_tell_apart(info: Info) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """800 samples, and which half of the vocabulary or of the picture has more of them, words or light."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(800) % 2
    first = torch.rand(800, 12, generator=draw) < torch.where(labels == 0, 0.9, 0.1)[:, None]
    if info is WORDS:
        words = torch.randint(2, 251, (800, 12), generator=draw) + 249 * ~first
        return {"tokens": words, "lengths": torch.randint(8, 13, (800,), generator=draw)}, labels
    light = torch.where(first, 60, 200)[:, None, :, None].expand(-1, 1, -1, 12)
    return {"images": (light + torch.randint(40, light.shape, generator=draw)).to(torch.uint8)}, labels


@pytest.mark.usefixtures("exporter")
@pytest.mark.parametrize(("network", "arguments", "info"), RECURRENT)
def test_a_recurrent_network_is_four_times_smaller_and_as_often_right(
    network: str, arguments: dict[str, Any], info: Info
) -> None:
    model = build_model(network, arguments, info, CLASSIFICATION)
    inputs, labels = to_tell_apart(info)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for start in (*range(0, 600, 50), *range(0, 600, 50)):
        batch = [tensor[start : start + 50] for tensor in inputs.values()]
        torch.nn.functional.cross_entropy(model(*batch), labels[start : start + 50]).backward()
        optimizer.step()
        optimizer.zero_grad()
    checkpoint = checkpoint_of(network, arguments, info, model.state_dict())
    plain = export_checkpoint(checkpoint)
    samples = {name: tensor.numpy() for name, tensor in inputs.items()}
    small = quantize_model(plain, {name: array[:600] for name, array in samples.items()}, QuantizeConfig())
    assert int8_share(plain) == 0
    assert int8_share(small) == 1  # biases, scales and zero points of two directions, which are matrices, too, left out
    kept = sum(weight.numel() for weight in model.parameters())
    assert len(plain) - len(small) > 2.8 * kept
    answers = []
    for serialised in (plain, small):
        session = onnxruntime.InferenceSession(serialised, providers=["CPUExecutionProvider"])
        answers.append(session.run(["logits"], {name: array[600:] for name, array in samples.items()})[0])
    right = [float((logits.argmax(1) == labels[600:].numpy()).mean()) for logits in answers]
    assert right[0] > 0.8
    assert abs(right[1] - right[0]) < 0.03
    assert np.abs(answers[1] - answers[0]).max() < 0.1 * np.ptp(answers[0])


@pytest.mark.usefixtures("exporter")
def test_what_leads_to_a_logarithm_stays_as_it_is() -> None:
    """Tones on which soft ones follow: in 8 bits their power would be nothing."""
    info = AudioInfo(target=Classes(classes=["a", "b"]), rate=1000, mean=[-5.0] * 8, std=[3.0] * 8)
    model = build_model("audio_cnn", {"widths": [8]}, info, CLASSIFICATION)
    plain = export_checkpoint(checkpoint_of("audio_cnn", {"widths": [8]}, info, model.state_dict()))
    draw = np.random.default_rng(0)
    waves = draw.normal(size=(200, 800)) * np.repeat(10 ** draw.uniform(-4, 0, (200, 8)), 100, axis=1)
    samples = {"waveforms": waves.astype(np.float32), "lengths": np.full(200, 800)}
    small = quantize_model(plain, samples, QuantizeConfig())
    kernels = [tensor for tensor in onnx.load_from_string(small).graph.initializer if len(tensor.dims) == 4]
    assert {kernel.data_type for kernel in kernels} == {onnx.TensorProto.INT8}
    before, after = (
        onnxruntime.InferenceSession(serialised, providers=["CPUExecutionProvider"]).run(["logits"], samples)[0]
        for serialised in (plain, small)
    )
    assert np.abs(after - before).max() < 0.1 * np.ptp(before)


def test_what_cannot_be_quantized_is_said_before(exported: bytes) -> None:
    model = onnx.load_from_string(exported)
    every = [node.name for node in model.graph.node]
    with pytest.raises(InputError, match=r"^quantize: nothing of this model can be int8\. Its weights are in .*Conv"):
        quantize_model(exported, {"images": IMAGES[:100]}, QuantizeConfig(exclude=every))
    autoencoder = checkpoint_of("autoencoder", {}, INFO, {}).model_copy(update={"problem": "reconstruction"})
    with pytest.raises(InputError, match=r"starts from a classifier, but .* the network autoencoder, which tells no"):
        quantize(autoencoder, exported, None, QuantizeConfig())  # type: ignore[arg-type]
