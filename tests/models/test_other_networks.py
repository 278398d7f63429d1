"""Autoencoders, language models, text classifiers and linear regression."""

import math
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from torchloom.models import build_network
from torchloom.models._recurrent import Cell, make_rnn, run_padded


def seeded_network(name: str, sizes: dict[str, Any], **arguments: Any) -> Any:
    torch.manual_seed(0)
    return build_network(name, sizes, arguments)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def rnn_parameters(gates: int, inputs: int, width: int) -> int:
    """Of one layer in one direction, as torch.nn.LSTM and GRU document their weights and two biases."""
    return gates * width * (inputs + width + 2)


# ---- parameter counts ----------------------------------------------------------------------------------------------

IMAGE = {"shape": (1, 28, 28)}
TEXT = {"tokens": 65}
DOCUMENTS = {"tokens": 20_000, "outputs": 2}


@pytest.mark.parametrize(
    ("name", "sizes", "arguments", "expected"),
    [
        # 784-400-200-32 and its mirror image, a bias for each unit
        ("autoencoder", IMAGE, {}, 2 * (784 * 400 + 400 * 200 + 200 * 32) + (400 + 200 + 32) + (200 + 400 + 784)),
        (
            "autoencoder",  # twice as many codes: mean and log-variance
            IMAGE,
            {"variational": True},
            2 * (784 * 400 + 400 * 200 + 200 * 32) + 200 * 32 + (400 + 200 + 64) + (200 + 400 + 784),
        ),
        (
            "autoencoder",  # 28 -> 14 -> 7
            IMAGE,
            {"form": "convolutional", "hidden": [16, 32], "latent": 8},
            16 * 10 + 32 * (16 * 9 + 1) + 8 * (32 * 49 + 1) + 32 * 49 * (8 + 1) + 16 * (32 * 9 + 1) + (16 * 9 + 1),
        ),
        (
            "language_rnn",
            TEXT,
            {"embedding": 128, "width": 512},
            65 * 128 + rnn_parameters(4, 128, 512) + rnn_parameters(4, 512, 512) + 513 * 65,
        ),
        (
            "language_rnn",  # the output shares the embedding's matrix, and a projection leads to its width
            TEXT,
            {"embedding": 128, "width": 512, "tied": True},
            65 * 128 + rnn_parameters(4, 128, 512) + rnn_parameters(4, 512, 512) + 513 * 128 + 65,
        ),
        (
            "language_rnn",
            TEXT,
            {"cell": "gru", "embedding": 64, "width": 64, "layers": 1, "tied": True},
            65 * 64 + rnn_parameters(3, 64, 64) + 65,
        ),
        (
            "text_rnn",
            DOCUMENTS,
            {"embedding": 100, "width": 128},
            20_000 * 100 + 2 * rnn_parameters(4, 100, 128) + (2 * 256 + 1) * 2,
        ),
        (
            "text_rnn",
            DOCUMENTS,
            {"cell": "gru", "embedding": 50, "width": 64, "layers": 2, "bidirectional": False, "pooling": "max"},
            20_000 * 50 + rnn_parameters(3, 50, 64) + rnn_parameters(3, 64, 64) + 65 * 2,
        ),
        ("linear", {"features": 10, "outputs": 1}, {}, 11),
        ("linear", {"features": 10, "outputs": 1}, {"bias": False}, 10),
    ],
)
def test_parameter_counts(name: str, sizes: dict[str, Any], arguments: dict[str, Any], expected: int) -> None:
    assert parameters(build_network(name, sizes, arguments)) == expected


# ---- autoencoders --------------------------------------------------------------------------------------------------

AUTOENCODERS: list[dict[str, Any]] = [
    {"hidden": [32, 16], "latent": 8},
    {"form": "convolutional", "hidden": [8, 16], "latent": 8, "norm": "batch"},
    {"form": "dense", "hidden": [32], "latent": 8, "variational": True, "activation": "Tanh"},
]


@pytest.mark.parametrize("arguments", AUTOENCODERS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 13)])
def test_an_autoencoder_mirrors_any_shape(arguments: dict[str, Any], shape: tuple[int, int, int]) -> None:
    network = seeded_network("autoencoder", {"shape": shape}, **arguments).eval()
    images = torch.randn(3, *shape)
    reconstruction, latent, divergence = network(images)
    assert reconstruction.shape == images.shape
    assert latent.shape == (3, 8)
    assert divergence.shape == (3,)
    assert 0 < reconstruction.min() < reconstruction.max() < 1
    assert torch.equal(network.decode(latent), reconstruction)
    assert (divergence > 0).all() == arguments.get("variational", False)


@pytest.mark.parametrize("arguments", AUTOENCODERS[:2])
def test_an_autoencoder_learns_one_batch_by_heart(arguments: dict[str, Any]) -> None:
    network = seeded_network("autoencoder", {"shape": (1, 8, 8)}, **arguments)
    images = 0.1 + 0.8 * torch.rand(8, 1, 8, 8)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(400):
        loss = F.mse_loss(network(images)[0], images)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.001  # their variance is 0.053


def test_a_variational_latent_is_drawn_in_training_only() -> None:
    network = seeded_network("autoencoder", {"shape": (1, 4, 4)}, hidden=[16], latent=5, variational=True)
    image = torch.randn(1, 1, 4, 4).expand(20_000, 1, 4, 4)
    mean, log_variance = network.encoder(image[:1]).detach().chunk(2, dim=1)
    with torch.no_grad():
        _, drawn, divergence = network(image)
        _, still, _ = network.eval()(image[:2])
    torch.testing.assert_close(still, mean.expand(2, 5))
    torch.testing.assert_close(drawn.mean(0), mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.var(0), log_variance[0].exp(), atol=0.05, rtol=0.05)
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    exact = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum()
    torch.testing.assert_close(divergence[0], exact)


# ---- recurrent networks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", get_args(Cell))
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (1, True), (3, True)])
def test_reversed_sequences_give_what_packed_ones_do(cell: Any, layers: int, bidirectional: bool) -> None:
    torch.manual_seed(0)
    rnn = make_rnn(cell, 5, 7, layers, bidirectional, dropout=0.0)
    x, lengths = torch.randn(4, 9, 5), torch.tensor([3, 9, 1, 6])
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=9)
    torch.testing.assert_close(run_padded(rnn, x, lengths), expected, atol=1e-6, rtol=1e-5)
    assert expected[2, 1:].eq(0).all()


def test_dropout_is_between_the_layers_in_training_only() -> None:
    torch.manual_seed(0)
    rnn = make_rnn("lstm", 5, 7, 2, True, dropout=0.5)
    x, lengths = torch.randn(4, 9, 5), torch.tensor([3, 9, 1, 6])
    assert not torch.equal(run_padded(rnn, x, lengths), run_padded(rnn, x, lengths))
    rnn.eval()
    assert torch.equal(run_padded(rnn, x, lengths), run_padded(rnn, x, lengths))


SENTENCES = torch.tensor([[4, 3, 2, 0], [5, 0, 0, 0], [2, 3, 4, 6]])
LENGTHS = torch.tensor([3, 1, 4])
CLASSIFIERS: list[dict[str, Any]] = [
    {"embedding": 8, "width": 8, "embedding_dropout": 0.0, "dropout": 0.0},
    {
        "embedding": 8,
        "width": 8,
        "embedding_dropout": 0.0,
        "dropout": 0.0,
        "cell": "gru",
        "pooling": "mean",
        "layers": 2,
    },
    {"embedding": 8, "width": 8, "embedding_dropout": 0.0, "dropout": 0.0, "bidirectional": False, "pooling": "max"},
    {"name": "text_transformer", "width": 16, "layers": 2, "heads": 2, "embedding_dropout": 0.0, "dropout": 0.0},
    {"name": "text_transformer", "width": 16, "heads": 4, "pooling": "both", "embedding_dropout": 0.0, "dropout": 0.0},
]


@pytest.mark.parametrize("arguments", CLASSIFIERS)
def test_a_document_does_not_see_its_neighbours(arguments: dict[str, Any]) -> None:
    network = seeded_network(**{"name": "text_rnn", "sizes": {"tokens": 7, "outputs": 3}, **arguments}).eval()
    together = network(SENTENCES, LENGTHS)
    for row, length in enumerate(LENGTHS):
        alone = network(SENTENCES[row : row + 1, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-6, rtol=1e-5)
    garbage = torch.where(SENTENCES == 0, 6, SENTENCES)
    torch.testing.assert_close(network(garbage, LENGTHS), together, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("arguments", CLASSIFIERS)
def test_a_text_classifier_learns_one_batch_by_heart(arguments: dict[str, Any]) -> None:
    network = seeded_network(**{"name": "text_rnn", "sizes": {"tokens": 7, "outputs": 3}, **arguments})
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(60):
        loss = F.cross_entropy(network(SENTENCES, LENGTHS), torch.tensor([0, 1, 2]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.01


LANGUAGE_MODELS: list[dict[str, Any]] = [
    {"embedding": 8, "width": 16, "embedding_dropout": 0.0, "dropout": 0.0},
    {"embedding": 8, "width": 16, "embedding_dropout": 0.0, "dropout": 0.0, "cell": "gru", "layers": 1},
    {"embedding": 8, "width": 16, "embedding_dropout": 0.0, "dropout": 0.0, "tied": True},
    {"embedding": 8, "width": 16, "embedding_dropout": 0.0, "dropout": 0.0, "cell": "rnn"},
    *[
        {"name": "language_transformer", "width": 16, "heads": 2, "layers": 2, "context": context}
        | {"positions": positions, "embedding_dropout": 0.0, "dropout": 0.0}
        for context, positions in ((12, "rotary"), (4, "rotary"), (12, "learned"), (4, "learned"), (1, "rotary"))
    ],
]


def a_language_model(**arguments: Any) -> Any:
    """With weights of which none is nought, as some are at first."""
    network = seeded_network(**{"name": "language_rnn", "sizes": {"tokens": 11}, **arguments}).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


@pytest.mark.parametrize("arguments", LANGUAGE_MODELS)
def test_the_state_carries_a_text_over_a_cut(arguments: dict[str, Any]) -> None:
    network = a_language_model(**arguments)
    tokens = torch.randint(11, (2, 12))
    whole, *state = network(tokens)
    first, *between = network(tokens[:, :5])
    second, *after = network(tokens[:, 5:], *between)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    for one, other in zip(after, state, strict=True):
        torch.testing.assert_close(one, other)
    assert len(state) == len(network.state_names)


@pytest.mark.parametrize("arguments", LANGUAGE_MODELS)
def test_a_language_model_sees_only_what_came_before(arguments: dict[str, Any]) -> None:
    network = a_language_model(**arguments)
    tokens = torch.randint(10, (1, 8))
    changed = tokens.clone()
    changed[0, 5] = 10
    before, after = network(tokens)[0], network(changed)[0]
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5], after[:, 5])


@pytest.mark.parametrize("arguments", [each for each in LANGUAGE_MODELS if each.get("context") != 1])
def test_a_language_model_learns_one_batch_by_heart(arguments: dict[str, Any]) -> None:
    network = seeded_network(**{"name": "language_rnn", "sizes": {"tokens": 11}, **arguments})
    text = torch.cat([torch.randperm(11) for _ in range(2)]).expand(2, -1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(120):
        loss = F.cross_entropy(network(text[:, :-1])[0].flatten(0, 1), text[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.02


def test_tied_weights_are_one_matrix_that_starts_small() -> None:
    network = seeded_network("language_rnn", {"tokens": 11}, embedding=64, width=16, tied=True)
    assert network.head.weight is network.embedding.weight
    assert network.embedding.weight.std().item() == pytest.approx(1 / 8, rel=0.1)
    assert network(torch.zeros(1, 1, dtype=torch.int64))[0].shape == (1, 1, 11)


@pytest.mark.parametrize("outputs", [1, 4])
def test_linear_is_the_sum_that_it_says(outputs: int) -> None:
    network = seeded_network("linear", {"features": 3, "outputs": outputs})
    x = torch.randn(5, 3)
    expected = x @ network.layer.weight.T + network.layer.bias
    torch.testing.assert_close(network(x), expected)
    assert expected.shape == (5, outputs)
    assert math.isfinite(expected.sum().item())
