"""Compiled networks give the outputs and the gradients of eager ones, also where values are tied.

What torch.compile makes of bf16 is as exact as eager, and not the same: it does not round between the operations that
it puts together. Both are therefore held to float32.
"""

from typing import Any

import numpy as np
import pytest
import torch
from test_networks import ACTIVATIONS
from torch import Tensor, nn

from tests.stages import CLASSIFICATION
from torchloom.data.targets import Classes
from torchloom.modalities import AudioInfo, ImageInfo
from torchloom.modalities.modules import NormalizedImages
from torchloom.models import airbench, build_model, build_network, network_names, resnet, vgg
from torchloom.models._layers import make_activation
from torchloom.problems import problem_of
from torchloom.system.devices import autocast, choose_device, compile_network

DEVICE = choose_device("auto")  # the CPU, but with -m gpu
LSTM_IN_BF16 = DEVICE.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()

SHAPES = {"vgg": [3, 32, 32], "airbench": [3, 25, 29], "alexnet": [3, 15, 21], "row_rnn": [3, 3, 6]}
# Each network in each way that has operations of its own; deeper ones and other blocks of the same have none.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp": ("mlp", {"hidden": [64], "norm": "batch"}),
    "lenet classic": ("lenet", {"form": "classic"}),
    "lenet": ("lenet", {"width": 3, "norm": "batch"}),
    "cnn two_conv": ("cnn", {"width": 16, "hidden": 64}),
    "cnn lp": ("cnn", {"width": 16, "hidden": 64, "pooling": "lp", "norm": "layer"}),
    "alexnet": ("alexnet", {"width": 4, "dropout": 0.0}),
    "alexnet of 2012": ("alexnet", {"width": 4, "dropout": 0.0, "norm": "local_response", "last_activation": "Tanh"}),
    "airbench": ("airbench", {"widths": [16, 32, 32], "scale": 1.0}),
    "vgg": ("vgg", {"depth": 11, "width": 16}),
    "resnet": ("resnet", {"depth": 18, "width": 16}),
    "resnet preactivation": (
        "resnet",
        {"blocks": [1, 1], "width": 8, "widen": 2, "preactivation": True, "norm": "group", "activation": "SiLU"},
    ),
    "densenet": ("densenet", {"depth": 10, "growth": 12}),
    "vit": ("vit", {"width": 16, "layers": 1, "heads": 2, "pooling": "token"}),
    "unet": ("unet", {"width": 4, "depth": 1}),
    "row_rnn lstm": ("row_rnn", {"width": 32}),
    "row_rnn gru": ("row_rnn", {"cell": "gru", "width": 32, "bidirectional": True}),
    "text_rnn lstm": (
        "text_rnn",
        {"embedding": 16, "width": 32, "layers": 1, "embedding_dropout": 0.0, "dropout": 0.0},
    ),
    "text_rnn gru": (
        "text_rnn",
        {"cell": "gru", "embedding": 16, "width": 32, "layers": 1, "bidirectional": False, "pooling": "max"}
        | {"embedding_dropout": 0.0, "dropout": 0.0},
    ),
    "text_rnn rnn": (
        "text_rnn",
        {"cell": "rnn", "embedding": 16, "width": 32, "layers": 1, "embedding_dropout": 0.0, "dropout": 0.0},
    ),
    "text_cnn": ("text_cnn", {"embedding": 16, "width": 32, "embedding_dropout": 0.0, "dropout": 0.0}),
    "text_ngrams": (
        "text_ngrams",
        {"rows": 50, "ngram_width": 8, "embedding": 16, "width": 32, "embedding_dropout": 0.0, "dropout": 0.0},
    ),
    "text_ngrams of two": (
        "text_ngrams",
        {"rows": 50, "ngram_width": 8, "beside": "nothing", "dropout": 0.0, "members": 2},
    ),
    "text_transformer": (
        "text_transformer",
        {"width": 16, "layers": 1, "heads": 2, "embedding_dropout": 0.0, "dropout": 0.0},
    ),
    **{
        f"language_transformer {positions}": (
            "language_transformer",
            {"width": 16, "layers": 1, "heads": 2, "context": 2, "positions": positions}
            | {"embedding_dropout": 0.0, "dropout": 0.0},
        )
        for positions in ("rotary", "learned")
    },
    "language_rnn lstm": (
        "language_rnn",
        {"embedding": 16, "width": 32, "layers": 1, "tied": True, "embedding_dropout": 0.0, "dropout": 0.0},
    ),
    "language_rnn gru": (
        "language_rnn",
        {"cell": "gru", "embedding": 16, "width": 32, "layers": 1, "embedding_dropout": 0.0, "dropout": 0.0},
    ),
    "autoencoder": ("autoencoder", {"hidden": [64], "latent": 8, "variational": True}),
    "autoencoder convolutional": (
        "autoencoder",
        {"form": "convolutional", "hidden": [16, 32], "latent": 8, "norm": "batch"},
    ),
    "dcgan": ("dcgan", {"width": 4, "latent": 8}),
    "text to text transformer": (
        "translation_transformer",
        {"width": 16, "layers": 1, "heads": 2, "embedding_dropout": 0.0, "dropout": 0.0},
    ),
    "text to text rnn": (
        "translation_rnn",
        {"embedding": 8, "width": 16, "embedding_dropout": 0.0, "dropout": 0.0},
    ),
    "audio_cnn": ("audio_cnn", {"widths": [8, 16], "dropout": 0.0}),
    "linear": ("linear", {}),
    "tabular_mlp": ("tabular_mlp", {"hidden": [8], "dropout": 0.0}),
    "tabm": ("tabm", {"members": 3, "hidden": [8, 8], "dropout": 0.0}),
    "ft_transformer": (
        "ft_transformer",
        {"width": 8, "heads": 2, "layers": 2, "feedforward": 6, "attention_dropout": 0.0, "dropout": 0.0},
    ),
    "dlinear": ("dlinear", {"kernel": 3}),
    "patchtst": ("patchtst", {"patch": 4, "stride": 2, "layers": 1, "dropout": 0.0}),
    "tcn": ("tcn", {"width": 8, "blocks": 2, "dropout": 0.0, "normalization": "last"}),
    "series_cnn": ("series_cnn", {"widths": [8, 8], "kernels": [5, 3]}),
    "series_transformer": ("series_transformer", {"width": 8, "layers": 1, "stride": 2, "dropout": 0.0}),
    "series_rnn": ("series_lstm", {"width": 16, "dropout": 0.0}),
}
# Further forms of a network are compiled in bf16 only, in which more goes wrong: that takes half of the time.
FORMS = {
    "activations",
    "lenet classic",
    "text_rnn gru",
    "text_rnn rnn",
    "language_rnn gru",
    "cnn lp",
    "autoencoder convolutional",
}
# Recurrent layers split a graph, and each is one for itself; all the others are compiled together.
TOGETHER = ["activations", *(case for case in NETWORKS if "rnn" not in case and "text" not in case)]
GROUPS = {
    "fp32": (torch.float32, [case for case in TOGETHER if case not in FORMS]),
    "bf16": (torch.bfloat16, TOGETHER),
    **{f"{case}-fp32": (torch.float32, [case]) for case in NETWORKS if case not in {*TOGETHER, *FORMS}},
    **{f"{case}-bf16": (torch.bfloat16, [case]) for case in NETWORKS if case not in TOGETHER},
}
# Without the optimisation of C++ code, which the other tests spare themselves, the gradients of these are NaN: what is
# left at the places behind a text's end is not taken out as it is with it.
OPTIMIZED = {"text_cnn", "text_ngrams", "text_rnn rnn"}
# By what share of a gradient compiled and eager may differ, beside four times what eager is off on average in bf16.
# Nearly all of it comes from units that rounding switches on or off: in float32 up to 0.01 of a gradient, in bf16,
# whose roundings are 2^16 times as large, up to 0.4 behind several convolutions. A gradient that is lost differs by 1.
TOLERANCES = {torch.float32: 0.05, torch.bfloat16: 0.1}


@pytest.fixture
def no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which GPUs otherwise take for float32 in convolutions, with 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def pictures(shape: list[int]) -> dict[str, tuple[Tensor, ...]]:
    """(32, C, H, W) uint8: of all levels; a quarter of one level each, a quarter of large squares; all black.

    Ordinary ones among the others keep the variance that batch norm divides by away from zero.
    """
    ordinary = torch.randint(256, (32, *shape), dtype=torch.uint8)
    tied = ordinary.clone()
    tied[:8] = torch.tensor([0, 0, 0, 0, 64, 128, 192, 255], dtype=torch.uint8).reshape(8, 1, 1, 1)
    squares = 255 * torch.randint(2, (8, shape[0], 8, 8), dtype=torch.uint8)
    tied[8:16] = squares.repeat_interleave(5, 2).repeat_interleave(5, 3)[:, :, : shape[1], : shape[2]]
    return {"ordinary": (ordinary,), "tied": (tied,), "black": (torch.zeros_like(ordinary),)}


def texts(*more: Tensor) -> dict[str, tuple[Tensor, ...]]:
    """Tokens (32, 3): any; in a half always the same one; only padding."""
    ordinary = torch.randint(1, 9, (32, 3))
    tied = ordinary.clone()
    tied[:16] = 3
    return {name: (x, *more) for name, x in {"ordinary": ordinary, "tied": tied, "black": 0 * ordinary}.items()}


def sounds() -> dict[str, tuple[Tensor, ...]]:
    """Waveforms (32, 200) of lengths from 50 on: any; a half alike; silence."""
    ordinary = torch.randn(32, 200)
    tied = ordinary.clone()
    tied[:16] = tied[0]
    lengths = 50 + 30 * (torch.arange(32) % 6)
    return {name: (x, lengths) for name, x in {"ordinary": ordinary, "tied": tied, "black": 0 * ordinary}.items()}


def rows() -> dict[str, tuple[Tensor, ...]]:
    """Features (32, 5): any; only -1 and 1; 0."""
    ordinary = torch.randn(32, 5)
    return {"ordinary": (ordinary,), "tied": (ordinary.sign(),), "black": (0 * ordinary,)}


def windows() -> dict[str, tuple[Tensor, ...]]:
    """(32, 12, 3): any; only -1 and 1; 0."""
    ordinary = torch.randn(32, 12, 3)
    return {"ordinary": (ordinary,), "tied": (ordinary.sign(),), "black": (0 * ordinary,)}


def make(case: str) -> tuple[nn.Module, dict[str, tuple[Tensor, ...]]]:
    """The model and its inputs."""
    if case == "activations":
        return NormalizedImages(Activations(), [0.4] * 3, [0.2] * 3), pictures([3, 9, 13])
    name, arguments = NETWORKS[case]
    if name in {"text_rnn", "text_cnn", "text_ngrams", "text_transformer", "language_rnn", "language_transformer"}:
        lengths = () if name.startswith("language") else (1 + torch.arange(32) % 3,)
        return build_network(name, {"tokens": 9, "outputs": 3}, arguments), texts(*lengths)
    if name.startswith("translation"):
        return build_network(name, {"tokens": 9, "written": 4}, arguments), texts(1 + torch.arange(32) % 3)
    if name == "audio_cnn":
        info = AudioInfo(target=Classes(classes=list("abc")), rate=1000, mean=[-5.0] * 8, std=[3.0] * 8)
        return build_model(name, arguments, info, CLASSIFICATION), sounds()
    if name in {"linear", "tabular_mlp", "tabm"}:
        return build_network(name, {"features": 5, "outputs": 1}, arguments), rows()
    if name == "ft_transformer":
        return build_network(name, {"columns": [0, 0, 1, 2, 0], "outputs": 1}, arguments), rows()
    if name == "series_cnn":
        return build_network(name, {"channels": 3, "outputs": 4}, arguments), windows()
    if name in {"dlinear", "patchtst", "tcn", "series_lstm", "series_transformer"}:
        return build_network(name, {"window": 12, "channels": 3, "horizon": 4}, arguments), windows()
    shape = SHAPES.get(name, [3, 9, 13])
    array = "masks" if name == "unet" else "labels"
    problem = problem_of({"unet": "segmentation", "dcgan": "generation"}.get(name, "classification"))
    target = Classes(array=array, classes=list("abc"))
    info = ImageInfo(target=target, shape=shape, mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])
    return build_model(name, arguments, info, problem), pictures(shape)


class Activations(nn.Module):
    """Images -> what each activation makes of the same dense layer (B, 8), with a bias of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(3 * 9 * 13, 8)
        names = [name for name in ACTIVATIONS if name != "RReLU"]  # which draws its slopes in other ways
        self.activations = nn.ModuleDict({name: make_activation(name) for name in names})
        self.biases = nn.ParameterDict({name: torch.randn(8) for name in names})

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.dense(images.flatten(1))
        return tuple(activation(features + self.biases[name]) for name, activation in self.activations.items())


class Together(nn.Module):
    """Networks in one graph, which takes far less to compile than a graph of each."""

    def __init__(self, networks: dict[str, nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)

    def forward(self, inputs: dict[str, tuple[Tensor, ...]]) -> dict[str, Tensor | tuple[Tensor, ...]]:
        return {name: network(*inputs[name]) for name, network in self.networks.items()}


Results = dict[str, dict[str, Tensor]]  # of each network: its outputs and its parameters' gradients


def results(model: Together, called: nn.Module, inputs: dict[str, tuple[Tensor, ...]], dtype: torch.dtype) -> Results:
    """All outputs of `called` in training, and the gradients of a sum of them, each with a weight, in `model`."""
    torch.manual_seed(1)
    model.zero_grad()
    with autocast(DEVICE, dtype):
        answers = called(inputs)
    generator = torch.Generator().manual_seed(2)
    outputs = {name: list(answer) if isinstance(answer, tuple) else [answer] for name, answer in answers.items()}
    everything = [output.float() for of_one in outputs.values() for output in of_one]
    weights = [torch.randn(output.shape, generator=generator).to(DEVICE) for output in everything]
    torch.stack([(output * w).sum() for output, w in zip(everything, weights, strict=True)]).sum().backward()
    return {
        name: {f"output {i}": output.detach().float().clone() for i, output in enumerate(outputs[name])}
        | {key: p.grad.clone() for key, p in network.named_parameters() if p.grad is not None}
        for name, network in model.networks.items()
    }


def off(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """How far each tensor is off, as a share of its norm.

    What is small beside all of them together, such as the gradient of a bias before batch norm, which is 0 but for
    rounding, is held to a hundredth of that.
    """
    assert found.keys() == exact.keys()
    everything = torch.cat([value.flatten() for value in exact.values()]).norm()
    return {
        name: float((found[name] - value).norm() / (value.norm() + everything / 100)) for name, value in exact.items()
    }


def compare(cases: dict[str, tuple[nn.Module, dict[str, tuple[Tensor, ...]]]], dtype: torch.dtype) -> None:
    """Of each case the model and, by kind, its inputs."""
    model = Together({name: network for name, (network, _) in cases.items()})
    model.train().to(device=DEVICE, memory_format=torch.channels_last)  # as training does
    compiled = compile_network(model, DEVICE, one_pass_a_step=True)
    wrong = []
    for kind in ("ordinary", "tied", "black"):
        inputs = {name: tuple(x.to(DEVICE) for x in kinds[kind]) for name, (_, kinds) in cases.items()}
        exact, eager = (results(model, model, inputs, precision) for precision in (torch.float32, dtype))
        found = results(model, compiled, inputs, dtype)
        for name in cases:
            if kind == "black":  # where no pixel varies, batch norm divides by 0
                wrong += [(name, kind)] * (is_finite(eager[name]) and not is_finite(found[name]))
                continue
            allowed = TOLERANCES[dtype] + 4 * np.mean(list(off(eager[name], exact[name]).values()))
            differences = off(found[name], eager[name]).items()
            wrong += [(name, kind, key, share) for key, share in differences if not share < allowed]
    assert not wrong


def is_finite(tensors: dict[str, Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors.values())


def test_every_network_is_compared() -> None:
    for dtype in TOLERANCES:
        cases = {case for precision, names in GROUPS.values() if precision is dtype for case in names} & NETWORKS.keys()
        others = {"huggingface"}  # as whose encoders are, and not ours
        assert {NETWORKS[case][0] for case in cases} == set(network_names()) - others


@pytest.mark.gpu
@pytest.mark.long
@pytest.mark.usefixtures("precompiled", "no_tf32")
@pytest.mark.parametrize(("dtype", "names"), [pytest.param(*group, id=name) for name, group in GROUPS.items()])
def test_compiled_networks_are_the_networks(
    dtype: torch.dtype, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "lstm" in names[0] and dtype is torch.bfloat16 and not LSTM_IN_BF16:
        pytest.skip("no LSTM computes in bf16 on this CPU")
    if OPTIMIZED & set(names):
        monkeypatch.delenv("TORCHINDUCTOR_DEBUG_COMPILE", raising=False)
    monkeypatch.setitem(resnet.BLOCKS, 18, (1, 1))  # all others are alike
    monkeypatch.setitem(vgg.CONVOLUTIONS, 11, (1, 1, 1, 1, 1))
    compare({name: make(name) for name in names}, dtype)


@pytest.mark.long
@pytest.mark.gpu
@pytest.mark.usefixtures("inductor")
def test_airbench_learns_from_ties_when_compiled_in_bf16() -> None:
    """Its end alone, behind the first convolution, which is what takes the greatest of many equal values."""
    network = airbench.build((3, 25, 25), 3, widths=[4, 4, 24], scale=1.0)
    network.groups = nn.Identity()
    model = NormalizedImages(network, [0.4] * 3, [0.2] * 3)
    compare({"airbench": (model, pictures([3, 5, 5]))}, torch.bfloat16)
