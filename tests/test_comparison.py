"""Models side by side: what is counted and what is measured."""

import math
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from tests.exported import SERIES
from tests.stages import CLASSIFICATION
from torchloom.compression import comparison
from torchloom.compression.comparison import compare_models, multiply_adds, onnx_accuracy, time_side_by_side, zero_share
from torchloom.config import CompareConfig, DataConfig
from torchloom.data.moments import Clock
from torchloom.data.targets import Classes, Horizon, Number, Texts
from torchloom.data.text import Tokenizer
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.export.onnx import export_checkpoint
from torchloom.inference.model import Model
from torchloom.modalities import (
    AudioInfo,
    DocumentInfo,
    ImageInfo,
    Info,
    LabelledSeriesInfo,
    SeriesInfo,
    TableInfo,
    TextInfo,
)
from torchloom.modalities.modules import LogMel
from torchloom.models import build_model, network_names
from torchloom.models.ft_transformer import ColumnTokens
from torchloom.models.summary import TIME, layers
from torchloom.models.tabm import Shared, TabM
from torchloom.problems import problem_of
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan, TensorFile

pytestmark = pytest.mark.xdist_group("export")

INFO = ImageInfo(target=Classes(classes=["dark", "light"]), shape=[1, 4, 4], mean=[0.5], std=[0.25])
QUICK = CompareConfig(batch_size=8, turns=2, seconds=0.001)


def checkpoint(hidden: list[int]) -> Checkpoint:
    model = build_model("mlp", {"hidden": hidden}, INFO, CLASSIFICATION)
    weights, arguments = model.state_dict(), {"hidden": hidden}
    return Checkpoint(
        network="mlp", arguments=arguments, problem="classification", info=INFO, training={}, weights=weights
    )


@pytest.fixture
def loaders(tmp_path: Path) -> LoaderPlan:
    """Whose 20 test images are dark and light in turn."""
    images = np.full((20, 4, 4, 1), 30, dtype=np.uint8)
    images[1::2] = 220
    return to_test(tmp_path, images)


def to_test(folder: Path, images: np.ndarray) -> LoaderPlan:
    """20 images (20, 4, 4, 1) of two classes in turn."""
    dataset = TensorsDataset(filepath=str(folder / "test.safetensors"))
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


# ---- multiply-adds -------------------------------------------------------------------------------------------------

IMAGES = ImageInfo(target=Classes(classes=list("abcde")), shape=[1, 28, 28], mean=[0.5], std=[0.25])
COLOURS = ImageInfo(target=Classes(classes=list("abcde")), shape=[3, 32, 32], mean=[0.5] * 3, std=[0.25] * 3)
TEXT = TextInfo(tokenizer=Tokenizer(kind="characters", vocabulary=list("abcdefgh")))
WORDS = DocumentInfo(
    target=Classes(classes=["bad", "good"]), tokenizer=Tokenizer(kind="words", vocabulary=["<pad>", "<unk>", *"ab"])
)
ROWS = TableInfo(features=["a", "b", "c"], mean=[0.0] * 3, std=[1.0] * 3, target=Number(name="d", mean=0.0, std=1.0))
SOUNDS = AudioInfo(target=Classes(classes=["bad", "good"]), rate=1000, mean=[0.0] * 8, std=[1.0] * 8)
HOURS = SeriesInfo(
    **{"time": "day", "clock": Clock(microseconds=86_400_000_000), "channels": ["load"], "window": 10},
    **{"longest_gap": 1, "mean": [50.0], "std": [10.0], "target": Horizon(steps=3)},
)
WAVES = LabelledSeriesInfo(
    channels=["a", "b"], series="c", length=12, mean=[0.0] * 2, std=[1.0] * 2, target=Classes(classes=["d", "e"])
)
PAIRS = DocumentInfo(tokenizer=WORDS.tokenizer, target=Texts(name="a", tokenizer=WORDS.tokenizer, longest=4))
NETWORKS: list[tuple[str, Info, dict[str, Any]]] = [
    ("mlp", IMAGES, {"hidden": [20, 10]}),
    ("lenet", IMAGES, {"form": "classic"}),
    ("lenet", IMAGES, {}),
    ("cnn", COLOURS, {"width": 4, "hidden": 8}),
    ("alexnet", COLOURS, {"width": 2}),
    ("airbench", COLOURS, {"widths": [4, 8, 8], "depth": 3}),
    ("vgg", COLOURS, {"depth": 11, "width": 4}),
    ("resnet", COLOURS, {"depth": 18, "width": 4}),
    ("densenet", COLOURS, {"depth": 10, "growth": 4}),
    ("row_rnn", IMAGES, {"width": 64}),
    ("row_rnn", COLOURS, {"cell": "gru", "width": 8, "layers": 2, "bidirectional": True}),
    ("autoencoder", IMAGES, {"hidden": [20, 10], "latent": 4}),
    ("autoencoder", IMAGES, {"form": "convolutional", "hidden": [4, 8], "latent": 4, "variational": True}),
    ("vit", COLOURS, {"patch": 8, "width": 8, "layers": 2, "heads": 2}),
    ("language_rnn", TEXT, {"width": 8, "layers": 2}),
    ("language_transformer", TEXT, {"width": 8, "layers": 2, "heads": 2}),
    ("text_rnn", WORDS, {"embedding": 6, "width": 8}),
    ("text_rnn", WORDS, {"cell": "gru", "embedding": 6, "width": 8, "layers": 2, "bidirectional": True}),
    ("text_cnn", WORDS, {"embedding": 6, "width": 8}),
    ("text_transformer", WORDS, {"width": 8, "layers": 2, "heads": 2}),
    ("text_ngrams", WORDS, {"rows": 50, "embedding": 6, "width": 8}),
    ("audio_cnn", SOUNDS, {"widths": [4, 8]}),
    ("dlinear", HOURS, {"kernel": 3}),
    ("patchtst", HOURS, {"patch": 4, "stride": 2, "width": 8, "heads": 2, "layers": 2, "feedforward": 6}),
    ("series_lstm", HOURS, {"width": 8, "layers": 2}),
    ("series_transformer", HOURS, {"width": 8, "layers": 2, "heads": 2}),
    ("tcn", HOURS, {"width": 4, "blocks": 2}),
    ("linear", ROWS, {}),
    ("tabular_mlp", ROWS, {"hidden": [8, 4]}),
    ("tabm", ROWS, {"members": 3, "hidden": [8, 4]}),
    ("ft_transformer", ROWS, {"width": 8, "heads": 2, "layers": 2, "feedforward": 6}),
    ("unet", COLOURS, {"width": 4, "depth": 2}),
    ("series_cnn", WAVES, {"widths": [4, 4], "kernels": [5, 3]}),
    ("translation_transformer", PAIRS, {"width": 8, "heads": 2, "layers": 1}),
    ("translation_rnn", PAIRS, {"embedding": 6, "width": 8}),
]
PROBLEMS = {
    "autoencoder": "reconstruction",
    **dict.fromkeys(("language_rnn", "language_transformer"), "language_model"),
    **dict.fromkeys(("linear", "tabular_mlp", "tabm", "ft_transformer"), "regression"),
    **dict.fromkeys(("dlinear", "patchtst", "series_lstm", "series_transformer", "tcn"), "forecasting"),
    "unet": "segmentation",
    **dict.fromkeys(("translation_transformer", "translation_rnn"), "translation"),
}
TIME_STEPS = 7
# At how many places two layers of attention look, at each of them, with 8 entries: the scores, and what they weigh.
LOOKED_AT = {"vit": 4 * 4, "series_transformer": 10}
LOOKED_AT |= dict.fromkeys(("text_transformer", "language_transformer"), TIME_STEPS)


def recurrent(layer: nn.RNNBase, steps: int) -> int:
    """At each step the weights of all gates, layers and directions, and of projections, take one multiply-add each."""
    return steps * sum(weight.numel() for name, weight in layer.named_parameters() if name.startswith("weight"))


def closed_form(layer: nn.Module, output: list[Any]) -> int:
    """Of a layer with an output of this shape, without the batch."""
    shape = [TIME_STEPS if size == TIME else size for size in output]
    if isinstance(layer, nn.RNNBase):
        return recurrent(layer, shape[0])
    if isinstance(layer, nn.Linear):
        return math.prod(shape) * layer.in_features
    if isinstance(layer, Shared):
        return math.prod(shape) * layer.weight.shape[1]  # of each member; scales are taken element by element
    if isinstance(layer, TabM):
        return layer.weight.numel()  # from the last hidden layer to the outputs
    if isinstance(layer, ColumnTokens):
        return layer.weight.numel()
    if isinstance(layer, nn.ConvTranspose2d):  # whose kernels meet without a gap or an overlap
        return math.prod(shape) * layer.in_channels
    return math.prod(shape) * layer.weight[0].numel() if isinstance(layer, nn.Conv1d | nn.Conv2d) else 0


def test_the_multiply_adds_of_every_network_are_counted() -> None:
    """But of a contest, in which one part of the network runs several times."""
    assert {name for name, _, _ in NETWORKS} | {"patchtst", "dcgan", "huggingface"} == set(network_names())


@pytest.mark.parametrize(("name", "info", "arguments"), NETWORKS)
def test_the_multiply_adds_of_a_network(name: str, info: Info, arguments: dict[str, Any]) -> None:
    model = build_model(name, arguments, info, problem_of(PROBLEMS.get(name, "classification"))).eval()
    rows = layers(model, info)
    expected = sum(closed_form(model.get_submodule(row["name"]), row["output_shape"]) for row in rows)
    if name == "patchtst":  # 5 patches of 8 entries, and two layers: the scores, and what they weigh
        expected += 2 * 2 * 5 * 5 * 8
    if name == "ft_transformer":  # 4 tokens of 8 entries, and in the last layer the answers of the first one alone
        expected += 2 * (4 + 1) * 4 * 8
    if name in LOOKED_AT:
        expected += 2 * 2 * LOOKED_AT[name] ** 2 * 8
    if name == "translation_transformer":  # the scores, and what they weigh: in the source, in what is written, of both
        expected += 2 * (TIME_STEPS * TIME_STEPS + 1 + TIME_STEPS) * 8
    if name == "translation_rnn":  # what the scores weigh, from both directions
        expected += TIME_STEPS * 2 * 8
    if isinstance(model, LogMel):  # one second, each frame of which is a product with all kernels and then filters
        frames = 1000 // model.hop + 1
        expected += frames * (model.kernels.numel() + model.filters.numel())
    assert multiply_adds(model, info.example(1, TIME_STEPS)) == expected > 0


def test_the_multiply_adds_that_papers_tell() -> None:
    ten = {"target": Classes(classes=list("0123456789"))}
    with torch.device("meta"):
        resnet = build_model("resnet", {"depth": 18}, COLOURS.model_copy(update=ten), CLASSIFICATION)
        assert multiply_adds(resnet.eval(), COLOURS.example(1, 1)) == 555_422_720
    lstm = build_model("row_rnn", {"width": 64}, IMAGES.model_copy(update=ten), CLASSIFICATION)
    assert multiply_adds(lstm.eval(), IMAGES.example(1, 1)) == 28 * 4 * 64 * (28 + 64) + 64 * 10 == 660_096


def test_the_multiply_adds_of_a_transformer_over_patches() -> None:
    """Of each channel: its 2 patches of 2 steps, a layer of attention and two dense ones, and the head."""
    arguments = {"patch": 2, "stride": 2, "width": 8, "heads": 2, "layers": 1, "feedforward": 16}
    model = build_model("patchtst", arguments, SERIES, problem_of("forecasting")).eval()
    patches = (4 + 2 - 2) // 2 + 1
    layer = attention(patches, patches, 8) + 2 * patches * 8 * 16
    assert multiply_adds(model, SERIES.example(1, 1)) == 2 * (patches * 2 * 8 + layer + patches * 8 * 2)


class Called(nn.Module):
    """What it is made of, called with what is fixed."""

    def __init__(self, function: Callable[..., Any], *given: Any, **more: Any) -> None:
        super().__init__()
        self.called = partial(function, *given, **more)

    def forward(self) -> Any:
        return self.called()


def attention(queries: int, keys: int, width: int) -> int:
    """Four projections, the scores and what they weigh."""
    return width * width * (2 * queries + 2 * keys) + 2 * queries * keys * width


SEQUENCE, KEYS = torch.randn(1, 5, 8), torch.randn(1, 9, 8)
PACKED = pack_padded_sequence(torch.randn(2, 5, 8), torch.tensor([5, 3]), batch_first=True)
RECURRENT = [
    nn.LSTM(8, 7, batch_first=True),
    nn.LSTM(8, 7, 2, bidirectional=True, batch_first=True),
    nn.LSTM(8, 7, 2, proj_size=3, bias=False, batch_first=True),
    nn.GRU(8, 7, 2, bidirectional=True, batch_first=True),
    nn.RNN(8, 7, batch_first=True),
]
TRANSFORMER = {"d_model": 8, "nhead": 2, "dim_feedforward": 16, "batch_first": True}
ENCODER = nn.TransformerEncoder(nn.TransformerEncoderLayer(**TRANSFORMER), 2).eval()
PADDED = torch.arange(5) >= torch.tensor([[5], [3]])
BAGS = torch.tensor([[1, 2, 3, 4, 5], [1, 1, 2, 2, 3]])
LAYERS: dict[str, tuple[nn.Module, int]] = {
    **{f"{layer}": (Called(layer, SEQUENCE), recurrent(layer, 5)) for layer in RECURRENT},
    **{f"{layer}, packed": (Called(layer, PACKED), recurrent(layer, 8)) for layer in RECURRENT},
    "lstm cell": (Called(nn.LSTMCell(8, 7), torch.randn(2, 8)), 2 * 4 * 7 * 15),
    "gru cell": (Called(nn.GRUCell(8, 7), torch.randn(8)), 3 * 7 * 15),
    "attention": (Called(nn.MultiheadAttention(8, 2, batch_first=True).eval(), *3 * [SEQUENCE]), attention(5, 5, 8)),
    "attention to others": (
        Called(nn.MultiheadAttention(8, 2, batch_first=True), SEQUENCE, KEYS, KEYS, need_weights=False),
        attention(5, 9, 8),
    ),
    "products of attention": (
        Called(F.scaled_dot_product_attention, *3 * [torch.randn(1, 2, 5, 4)], is_causal=True),
        2 * 2 * 5 * 5 * 4,
    ),
    "encoder": (
        Called(ENCODER, SEQUENCE.expand(2, -1, -1), src_key_padding_mask=PADDED),
        2 * 2 * (attention(5, 5, 8) + 2 * 5 * 8 * 16),
    ),
    "decoder": (
        Called(nn.TransformerDecoderLayer(**TRANSFORMER).eval(), SEQUENCE, KEYS),
        attention(5, 5, 8) + attention(5, 9, 8) + 2 * 5 * 8 * 16,
    ),
    "embedding": (Called(nn.Embedding(9, 6), BAGS), 0),
    "bag, mean": (Called(nn.EmbeddingBag(9, 6), BAGS), 10 * 6),
    "bag, weighted": (Called(nn.EmbeddingBag(9, 6, mode="sum"), BAGS, per_sample_weights=torch.rand(2, 5)), 10 * 6),
    "bag, greatest": (Called(nn.EmbeddingBag(9, 6, mode="max"), BAGS), 0),
    "bilinear": (Called(nn.Bilinear(5, 6, 7), torch.randn(2, 5), torch.randn(2, 6)), 2 * 5 * 6 * 7),
    "einsum": (Called(torch.einsum, "bij,bjk->bik", torch.randn(2, 3, 4), torch.randn(2, 4, 5)), 2 * 3 * 4 * 5),
    "matmul": (Called(torch.matmul, torch.randn(2, 3, 4), torch.randn(4, 5)), 2 * 3 * 4 * 5),
    "matrix by vector": (Called(torch.matmul, torch.randn(2, 3, 4), torch.randn(4)), 2 * 3 * 4),
    "vectors": (Called(torch.dot, torch.randn(4), torch.randn(4)), 4),
    "addmv": (Called(torch.addmv, torch.randn(3), torch.randn(3, 4), torch.randn(4)), 3 * 4),
    "addbmm": (Called(torch.addbmm, torch.randn(3, 5), torch.randn(2, 3, 4), torch.randn(2, 4, 5)), 2 * 3 * 4 * 5),
    "baddbmm": (Called(torch.baddbmm, torch.zeros(5), torch.randn(2, 3, 4), torch.randn(2, 4, 5)), 2 * 3 * 4 * 5),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_multiply_adds_of_a_layer(name: str) -> None:
    layer, expected = LAYERS[name]
    assert multiply_adds(layer, {}) == expected


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_the_multiply_adds_of_convolutions(dimensions: int, dilation: int, groups: int) -> None:
    """A kernel's worth for each number that comes out; of a transposed one, for each that goes in."""
    image = torch.randn(1, 4, *dimensions * [9])
    kinds = getattr(nn, f"Conv{dimensions}d"), getattr(nn, f"ConvTranspose{dimensions}d")
    plain, transposed = (kind(4, 6, 3, stride=2, padding=1, dilation=dilation, groups=groups) for kind in kinds)
    weights = 4 * 6 // groups * 3**dimensions
    assert multiply_adds(plain, {"x": image}) == weights * plain(image)[0, 0].numel()
    assert multiply_adds(transposed, {"x": image}) == weights * 9**dimensions


def test_counting_leaves_pytorch_as_it_was() -> None:
    multiply_adds(nn.Linear(4, 3), {"x": torch.zeros(1, 4)})
    with pytest.raises(TypeError):
        multiply_adds(nn.Linear(4, 3), {})
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mkldnn.enabled


# ---- comparisons ---------------------------------------------------------------------------------------------------


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
    assert onnx_accuracy(Model(export_checkpoint(good)), loaders) == 1.0
    (name,) = [name for name, tensor in good.weights.items() if tensor.ndim == 2]
    good.weights[name] *= -1
    assert onnx_accuracy(Model(export_checkpoint(good)), loaders) == 0.0


def test_the_accuracy_is_that_of_the_views_that_the_model_is_evaluated_with(tmp_path: Path) -> None:
    """A network that looks at the left edge alone, of images whose right edge tells them apart."""
    images = np.full((20, 4, 4, 1), 100, dtype=np.uint8)
    images[1::2, :, 0], images[1::2, :, 3] = 90, 200
    plan, sided = to_test(tmp_path, images), checkpoint([])
    weight = torch.zeros(2, 4, 4)
    weight[1, :, 0], weight[0, :, 0] = 1, -1
    (name,) = [name for name, tensor in sided.weights.items() if tensor.ndim == 2]
    sided.weights[name] = weight.flatten(1)
    sided.weights[name.replace("weight", "bias")] = torch.tensor([0.0, 8 * (127.5 - 105) / 63.75])
    for views, accuracy in [("one", 0.5), ("mirror", 1.0)]:  # pixels of 90 and 100 are dark, their mean with 200 light
        asked = sided.model_copy(update={"info": INFO.model_copy(update={"views": views})})
        assert onnx_accuracy(Model(export_checkpoint(asked)), plan) == accuracy


def test_the_report(loaders: LoaderPlan) -> None:
    before, after = checkpoint([64]), by_brightness()
    files = [export_checkpoint(made) for made in (before, after)]
    report = compare_models((before, files[0]), (after, files[1]), loaders, QUICK)
    assert [report[name]["bytes"] for name in ("before", "after")] == [len(file) for file in files]
    assert [report[name]["multiply_adds"] for name in ("before", "after")] == [16 * 64 + 64 * 2, 16 * 2]
    assert [report[name]["channels"] for name in ("before", "after")] == [64 + 2, 2]
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
