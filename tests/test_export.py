import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import torchloom
from tests.stages import CLASSIFICATION
from torchloom.config import DataConfig, ExportConfig
from torchloom.data.targets import Classes, Number
from torchloom.data.text import Tokenizer
from torchloom.datasets.onnx import ONNXDataset
from torchloom.datasets.tensors import Tensors, TensorsDataset
from torchloom.errors import InputError
from torchloom.export.onnx import Signature, onnx_parity, parity, to_onnx
from torchloom.modalities import DocumentInfo, ImageInfo, TableInfo, TextInfo
from torchloom.models import build_model
from torchloom.models._operators import with_operators
from torchloom.pipelines.training.nodes import export_onnx
from torchloom.problems import problem_of
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan, TensorFile

pytestmark = [
    pytest.mark.xdist_group("export"),  # in one process, for the sake of what the tests share
    pytest.mark.usefixtures("exporter"),
]

INFO = ImageInfo(
    target=Classes(classes=["a", "b", "c", "ü"]),
    shape=[3, 8, 8],
    mean=[0.4, 0.5, 0.6],
    std=[0.2, 0.25, 0.3],
    fit="squash",
    value_range=[0, 4095],
)
IMAGES = torch.randint(256, (20, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [16], "norm": "batch", "dropout": 0.3, "activation": "GELU"},
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
    model = build_model(network, arguments, INFO, CLASSIFICATION)
    model(IMAGES)
    return Checkpoint(
        network=network,
        arguments=arguments,
        problem="classification",
        info=INFO,
        training={},
        weights=model.state_dict(),
    )


def form(inputs: dict[str, Tensor], outputs: list[str], trained: Checkpoint) -> Signature:
    axes = {**trained.info.axes, **problem_of(trained.problem).state_axes}
    return Signature(inputs, axes, outputs)


def to_graph(model: nn.Module, trained: Checkpoint, opset: int = 20) -> bytes:
    return to_onnx(model, form({"images": IMAGES}, ["logits"], trained), trained, opset)


def compared(model: nn.Module, serialised: bytes, images: Tensor, sizes: list[int]) -> dict[str, Any]:
    return onnx_parity(model, serialised, Signature({"images": images}, INFO.axes, ["logits"]), sizes)


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
        data=DataConfig(),
        seed=0,
    )


@pytest.fixture(scope="module", params=list(NETWORKS))
def exported(request: pytest.FixtureRequest) -> tuple[Checkpoint, bytes]:
    trained = checkpoint(request.param)
    return trained, to_graph(trained.build(), trained)


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
    assert "writing" not in metadata  # which only tables have, and here is the usual one
    known = ImageInfo.model_fields.keys() - {"kind", "writing"}
    assert ImageInfo(**{name: json.loads(metadata[name]) for name in known}) == INFO
    assert json.loads(metadata["target"]) == Classes(classes=["a", "b", "c", "ü"]).model_dump()
    assert json.loads(metadata["problem"]) == "classification"
    assert json.loads(metadata["modality"]) == "images"
    assert json.loads(metadata["network"]) == {"name": trained.network, **trained.arguments}
    assert (json.loads(metadata["mean"]), json.loads(metadata["std"])) == (INFO.mean, INFO.std)
    assert "(x / 255 - mean) / std" in json.loads(metadata["preprocessing"])["inside_the_graph"]
    assert metadata["producer"].startswith("torchloom ")


def test_the_graph_names_no_folder_of_the_machine(exported: tuple[Checkpoint, bytes]) -> None:
    _, serialised = exported
    for module in (torch, torchloom):
        assert str(Path(module.__file__).parents[1]).encode() not in serialised


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


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_flipped_bit_is_found(exported: tuple[Checkpoint, bytes], tmp_path: Path, place: float) -> None:
    """In the weights, which make up most of the file, nothing else would notice."""
    dataset = ONNXDataset(filepath=str(tmp_path / "model.onnx"))
    dataset.save(exported[1])
    assert dataset.load() == exported[1]
    model = onnx.load_from_string(exported[1])
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    data = bytearray(exported[1])
    data[data.index(weight.raw_data) + int(place * len(weight.raw_data))] ^= 1
    dataset.save(bytes(data))
    with pytest.raises(InputError, match="damaged: it does not have the fingerprint that it states"):
        dataset.load()


def test_comparing_says_how_far_both_agree(exported: tuple[Checkpoint, bytes]) -> None:
    trained, serialised = exported
    report = compared(trained.build(), serialised, IMAGES, [50, 1, 3])
    assert 0 <= report["greatest_difference"] < 1e-4
    assert report["agreement"] == 1.0
    assert report["samples"] == 20  # there are no more
    assert report["batch_sizes"] == [1, 3, 20]


def test_an_opset_that_torch_does_not_give_is_an_error() -> None:
    with pytest.raises(InputError, match=r"export\.opset 99: torch .* can export this model only in opset \d+"):
        to_graph(checkpoint("mlp").build(), checkpoint("mlp"), opset=99)


def test_a_graph_that_onnx_runtime_refuses_is_an_error() -> None:
    with pytest.raises(InputError, match=r"cannot load the graph .* try a lower export\.opset"):
        compared(checkpoint("mlp").build(), b"not a graph", IMAGES, [1])


def test_comparing_finds_a_changed_graph(exported: tuple[Checkpoint, bytes]) -> None:
    trained, serialised = exported
    proto = onnx.load_from_string(serialised)
    last = proto.graph.node[-1].input[1]
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == last)
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), last))
    report = compared(trained.build(), proto.SerializeToString(), IMAGES, [1, 20])
    assert report["greatest_difference"] > 0.1
    assert report["agreement"] < 0.5


def test_comparing_finds_a_changed_model(exported: tuple[Checkpoint, bytes]) -> None:
    trained, serialised = exported
    model = trained.build()
    model.std *= 2  # type: ignore[operator]
    assert compared(model, serialised, IMAGES, [20])["greatest_difference"] > 0.01


def test_a_difference_that_is_no_number_is_not_lost() -> None:
    images = torch.full((2, 3, 8, 8), 200, dtype=torch.uint8)
    images[1] = 0  # dark, and only in the batch of two
    model = Brightness().eval()
    serialised = to_graph(model, checkpoint("mlp"))
    assert compared(model, serialised, images, [1])["greatest_difference"] < 1e-4
    assert np.isnan(compared(model, serialised, images, [1, 2])["greatest_difference"])


@pytest.mark.parametrize(("size", "expected"), [(0.5, 1e-3), (1000.0, 1e-6)])
def test_differences_are_shares_of_large_outputs(size: float, expected: float) -> None:
    """A price in dollars is not held to thousandths of one."""
    form = Signature({"x": torch.ones(3, 1)}, {"x": {0: "batch"}}, ["prediction"])
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, size)
    report = parity(model, lambda batch: [np.full((len(batch["x"]), 1), size + 1e-3, np.float32)], form, [2])
    assert report["greatest_difference"] == pytest.approx(expected, rel=0.05)


def test_the_node_exports_only_what_agrees(tmp_path: Path) -> None:
    loaders = plan(tmp_path, IMAGES)
    trained = checkpoint("mlp")
    serialised, report = export_onnx(trained, loaders, ExportConfig())
    assert report["greatest_difference"] <= report["tolerance"] == 1e-3
    assert report["samples"] == len(IMAGES) > loaders.evaluate_batch_size
    assert report["opset"] == onnx.load_from_string(serialised).opset_import[0].version == 20
    assert report["bytes"] == len(serialised)
    assert json.dumps(report)
    assert report["greatest_difference"] > 0
    with pytest.raises(InputError, match=r"differs from PyTorch by .* more than export\.tolerance 1e-30"):
        export_onnx(trained, loaders, ExportConfig(tolerance=1e-30))


# ---- other kinds of task -------------------------------------------------------------------------------------------

WORDS = Tokenizer(kind="words", vocabulary=["<pad>", "<unk>", *"abcdefgh"])
CHARACTERS = Tokenizer.of_characters("abcdefghü\n")
DOCUMENTS = DocumentInfo(target=Classes(classes=["bad", "ü"]), tokenizer=WORDS, max_tokens=7)
TABLE = TableInfo(
    features=["age", "weight"], mean=[40.0, 70.0], std=[10.0, 15.0], target=Number(name="price", mean=150.0, std=77.0)
)


def seeded() -> torch.Generator:
    """Anew for each use, also by what is drawn before any test runs."""
    return torch.Generator().manual_seed(0)


LENGTHS = torch.tensor([5, 2, 7, 1, 3, 6])


def documents(lengths: Tensor) -> dict[str, Tensor]:
    """Documents of these lengths, filled up with zeros."""
    tokens = torch.randint(1, 10, (len(lengths), int(lengths.max())), generator=seeded())
    return {"tokens": tokens.where(torch.arange(tokens.shape[1]) < lengths[:, None], 0), "lengths": lengths}


def windows(count: int, time: int) -> dict[str, Tensor]:
    """Parts of a text and a state before each."""
    hidden, cell = torch.randn(2, 2, count, 5, generator=seeded())
    return {"tokens": torch.randint(10, (count, time), generator=seeded()), "hidden": hidden, "cell": cell}


def rows(count: int) -> dict[str, Tensor]:
    return {"features": torch.randn(count, 2, generator=seeded()) * 15 + 50}


class Case(NamedTuple):
    problem: str
    network: str
    arguments: dict[str, Any]
    info: Any
    inputs: dict[str, Tensor]
    outputs: list[str]

    def checkpoint(self) -> Checkpoint:
        torch.manual_seed(0)
        weights = build_model(self.network, self.arguments, self.info, problem_of(self.problem)).state_dict()
        return Checkpoint(
            network=self.network,
            arguments=self.arguments,
            problem=self.problem,
            info=self.info,
            training={},
            weights=dict(weights),
        )

    def form(self, inputs: dict[str, Tensor]) -> Signature:
        return form(inputs, self.outputs, self.checkpoint())


RNN = {"embedding": 6, "width": 5}
AUTOENCODER = ["reconstruction", "latent", "divergence"]
CASES = {
    "documents, lstm": Case("classification", "text_rnn", RNN, DOCUMENTS, documents(LENGTHS), ["logits"]),
    "documents, gru": Case(
        "classification",
        "text_rnn",
        {**RNN, "cell": "gru", "layers": 2, "bidirectional": False, "pooling": "mean"},
        DOCUMENTS,
        documents(LENGTHS),
        ["logits"],
    ),
    "documents, rnn": Case(
        "classification", "text_rnn", {**RNN, "cell": "rnn", "layers": 2}, DOCUMENTS, documents(LENGTHS), ["logits"]
    ),
    "documents, relu_rnn": Case(
        "classification", "text_rnn", {**RNN, "cell": "relu_rnn"}, DOCUMENTS, documents(LENGTHS), ["logits"]
    ),
    "table": Case("regression", "linear", {}, TABLE, rows(6), ["prediction"]),
    "autoencoder": Case(
        "reconstruction",
        "autoencoder",
        {"hidden": [8], "latent": 3, "variational": True},
        INFO,
        {"images": IMAGES},
        AUTOENCODER,
    ),
    "convolutional autoencoder": Case(
        "reconstruction",
        "autoencoder",
        {"form": "convolutional", "hidden": [4, 6], "latent": 3},
        INFO,
        {"images": IMAGES},
        AUTOENCODER,
    ),
    "text": Case(
        "language_model",
        "language_rnn",
        {**RNN, "layers": 2},
        TextInfo(tokenizer=CHARACTERS),
        windows(6, 9),
        ["logits", "next_hidden", "next_cell"],
    ),
}


class Other(NamedTuple):
    case: Case
    trained: Checkpoint
    serialised: bytes

    def compared(self, inputs: dict[str, Tensor], sizes: list[int]) -> dict[str, Any]:
        return onnx_parity(self.trained.build(), self.serialised, self.case.form(inputs), sizes)


@functools.cache  # each takes seconds
def other(name: str) -> Other:
    case = CASES[name]
    trained = case.checkpoint()
    return Other(case, trained, to_onnx(trained.build(), case.form(case.inputs), trained, opset=20))


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_model_answers_as_in_pytorch(name: str) -> None:
    exported = other(name)
    report = exported.compared(exported.case.inputs, [1, 2, 50])
    assert 0 <= report["greatest_difference"] < 1e-4
    count = 20 if "images" in exported.case.inputs else 6
    assert (report["samples"], report["batch_sizes"]) == (count, [1, 2, count])
    assert report.get("agreement") == (1.0 if exported.case.outputs[0] == "logits" else None)
    session = onnxruntime.InferenceSession(exported.serialised, providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == list(exported.case.inputs)
    assert [entry.name for entry in session.get_outputs()] == exported.case.outputs


@pytest.mark.parametrize("name", ["documents, lstm", "documents, gru"])
@pytest.mark.parametrize("lengths", [[1], [13], [2, 11], [4, 4, 4], [1, 20, 3, 8, 5, 2, 2, 9, 6]])
def test_documents_may_be_of_any_number_and_length(name: str, lengths: list[int]) -> None:
    exported = other(name)
    inputs = documents(torch.tensor(lengths))
    report = exported.compared(inputs, [len(lengths)])
    assert report["greatest_difference"] < 1e-4
    longer = torch.nn.functional.pad(inputs["tokens"], (0, 4), value=7)  # what follows a document's end does not matter
    session = onnxruntime.InferenceSession(exported.serialised, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"tokens": longer.numpy(), "lengths": inputs["lengths"].numpy()})
    with torch.no_grad():
        expected = exported.trained.build()(**inputs).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert logits.shape == (len(lengths), 2)


def test_a_text_may_be_of_any_number_and_length() -> None:
    exported = other("text")
    for count, time in ((1, 1), (3, 30), (8, 2)):
        report = exported.compared(windows(count, time), [1, count])
        assert report["greatest_difference"] < 1e-4
        assert report["agreement"] == 1.0
        assert report["samples"] == count


@pytest.mark.parametrize(
    ("name", "one", "several"),
    [("documents, gru", documents(LENGTHS[3:4]), documents(LENGTHS)), ("text", windows(1, 1), windows(3, 5))],
)
def test_a_single_sample_of_length_one_leaves_the_graph_open(
    name: str, one: dict[str, Tensor], several: dict[str, Tensor]
) -> None:
    case = CASES[name]
    trained = case.checkpoint()
    serialised = to_onnx(trained.build(), case.form(one), trained, opset=20)
    for inputs in (one, several):
        report = onnx_parity(trained.build(), serialised, case.form(inputs), [1, 3])
        assert report["greatest_difference"] < 1e-4


class Own(nn.Module):
    """A user's own network: layers of LSTM without biases, of GRU that go on from a state, and an Elman network."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.lstm = nn.LSTM(6, 5, num_layers=2, bidirectional=True, bias=False)
        self.gru = nn.GRU(10, 4, num_layers=2, batch_first=True, bidirectional=True)
        self.rnn = nn.RNN(8, 5, nonlinearity="relu")
        self.head = nn.Linear(5, 7)

    def forward(self, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        outputs, (ends, _) = self.lstm(self.embedding(tokens).transpose(0, 1))
        outputs, after = self.gru(outputs.transpose(0, 1), hx=hidden)
        outputs, last = self.rnn(outputs.transpose(0, 1))
        return self.head(outputs.transpose(0, 1) + last.transpose(0, 1)) + ends.sum(), after


def test_recurrent_layers_of_any_kind_become_operators_that_leave_batch_and_time_open() -> None:
    torch.manual_seed(0)
    model, text = Own().eval(), CASES["text"].checkpoint()

    def given(count: int, time: int) -> Signature:
        tokens = torch.randint(7, (count, time), generator=seeded())
        inputs = {"tokens": tokens, "hidden": torch.randn(4, count, 4, generator=seeded())}
        return form(inputs, ["logits", "next_hidden"], text)

    serialised = to_onnx(model, given(2, 9), text, opset=20)
    for count, time in ((1, 1), (3, 30), (8, 2)):
        report = onnx_parity(model, serialised, given(count, time), [1, count])
        assert report["greatest_difference"] < 1e-5
    graph = onnx.load_from_string(serialised).graph
    recurrent = [node.op_type for node in graph.node if node.op_type in {"LSTM", "GRU", "RNN", "Loop", "Scan"}]
    assert recurrent == ["LSTM", "LSTM", "GRU", "GRU", "RNN"]
    stored = {tensor.name for tensor in graph.initializer}
    assert all({*node.input[1:3]} <= stored for node in graph.node if node.op_type in recurrent)
    assert type(model.lstm) is nn.LSTM  # the model itself is left as it was


def test_a_recurrent_layer_that_onnx_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match="proj_size"):
        with_operators(nn.Sequential(nn.LSTM(3, 5, proj_size=2)))


class FixedTime(nn.Module):
    """Logits of as many tokens as the example had."""

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.cat([tokens[:, place].float() for place in range(tokens.shape[1])])


def test_a_network_that_fixes_an_axis_is_refused() -> None:
    text = CASES["text"].checkpoint()
    with pytest.raises(InputError, match="only with a fixed time of tokens"):
        to_onnx(FixedTime().eval(), form({"tokens": windows(5, 8)["tokens"]}, ["logits"], text), text, opset=20)


def test_rows_of_a_table_may_be_of_any_number() -> None:
    exported = other("table")
    for count in (1, 2, 100):
        report = exported.compared(rows(count), [count])
        assert report["greatest_difference"] < 1e-3  # of some hundreds
        assert "agreement" not in report


@pytest.mark.parametrize("name", ["autoencoder", "convolutional autoencoder"])
def test_an_exported_autoencoder_gives_its_three_answers(name: str) -> None:
    exported = other(name)
    session = onnxruntime.InferenceSession(exported.serialised, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = exported.trained.build()(IMAGES[:3])
    reconstruction, latent, divergence = session.run(None, {"images": IMAGES[:3].numpy()})
    assert (reconstruction.shape, latent.shape, divergence.shape) == ((3, 3, 8, 8), (3, 3), (3,))
    assert 0 <= reconstruction.min() <= reconstruction.max() <= 1
    assert (divergence > 0).all() if exported.trained.arguments.get("variational") else (divergence == 0).all()
    for answer, tensor in zip((reconstruction, latent, divergence), expected, strict=True):
        np.testing.assert_allclose(answer, tensor.numpy(), atol=1e-4)


def test_comparing_finds_a_difference_in_any_output() -> None:
    exported = other("autoencoder")
    model = exported.trained.build()
    images = exported.case.form({"images": IMAGES})

    def compared() -> float:
        difference: float = onnx_parity(model, exported.serialised, images, [4])["greatest_difference"]
        return difference

    assert compared() < 1e-4
    with torch.no_grad():
        model.network.encoder[-1].bias[3:] += 1.0  # the log-variances, which only the divergence shows
    assert compared() > 0.1


PREPROCESSING = {
    "documents, lstm": "the tokens of a text; of more than max_tokens the last ones",
    "table": "the features in their own units",
    "autoencoder": "uint8, 0 to 255",
}


@pytest.mark.parametrize("name", ["documents, lstm", "text", "table", "autoencoder"])
def test_the_graph_says_what_its_user_must_know_of_each_kind_of_data(name: str) -> None:
    case, _, serialised = other(name)
    metadata = {entry.key: entry.value for entry in onnx.load_from_string(serialised).metadata_props}
    told = {key: json.loads(value) for key, value in metadata.items() if key not in {"producer", "fingerprint"}}
    assert told.pop("network") == {"name": case.network, **case.arguments}
    assert (told.pop("problem"), told.pop("modality")) == (case.problem, case.info.kind)
    if name in PREPROCESSING:
        preprocessing = told.pop("preprocessing")
        assert preprocessing["input"] == PREPROCESSING[name]
        assert ("mean) / std" in preprocessing.get("inside_the_graph", "")) is (name in {"table", "autoencoder"})
    expected = {
        "documents, lstm": {
            **{"target": Classes(classes=["bad", "ü"]).model_dump(), "tokenizer": WORDS.model_dump()},
            **{"max_tokens": 7, "probabilities": "softmax", "loss": {"name": "CrossEntropyLoss"}},
        },
        "text": {"target": None, "tokenizer": CHARACTERS.model_dump()},
        "table": {
            **{"features": ["age", "weight"], "mean": [40.0, 70.0], "std": [10.0, 15.0]},
            "target": Number(name="price", mean=150.0, std=77.0).model_dump(),
        },
        "autoencoder": {
            **{"target": Classes(classes=["a", "b", "c", "ü"]).model_dump(), "column": None, "folder": None},
            **{"shape": [3, 8, 8], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]},
            **{"fit": "squash", "value_range": [0, 4095], "views": "one", "beside": None, "chosen": False},
        },
    }
    assert told == expected[name]


def test_the_tokenizer_in_the_graph_reads_texts_as_ours_does() -> None:
    for name, ours, text in (("documents, lstm", WORDS, "A, b é c"), ("text", CHARACTERS, "hügcab\n")):
        metadata = {entry.key: entry.value for entry in onnx.load_from_string(other(name).serialised).metadata_props}
        theirs = Tokenizer.model_validate_json(metadata["tokenizer"])
        assert theirs.encode(text).tolist() == ours.encode(text).tolist()
