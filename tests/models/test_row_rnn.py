from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchloom.models import row_rnn


def build(shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return row_rnn.build(shape, classes, **arguments)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3)])
@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (2, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 20)])
def test_parameters_follow_pytorchs_documented_formula(
    cell: str, gates: int, layers: int, directions: int, shape: tuple[int, int, int]
) -> None:
    inputs, width = shape[0] * shape[2], 7
    expected = 0
    for _ in range(layers):
        expected += directions * gates * width * (inputs + width + 2)  # weight_ih, weight_hh, bias_ih, bias_hh
        inputs = directions * width
    network = build(shape, cell=cell, layers=layers, bidirectional=directions == 2, width=width)
    assert count(network) == expected + (inputs + 1) * 10
    assert count(build()) == 4 * 128 * (28 + 128 + 2) + 1290


def lstm_by_hand(rnn: nn.LSTM, suffix: str, rows: Tensor) -> Tensor:
    """The last output (B, width) of one direction of the first layer, by the formulae of Gers et al."""
    w, u, b, c = [getattr(rnn, f"{name}_l0{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    output = cell = torch.zeros(len(rows), rnn.hidden_size)
    for row in rows.unbind(1):
        i, f, g, o = (row @ w.T + output @ u.T + b + c).chunk(4, dim=1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        output = o.sigmoid() * cell.tanh()
    return output


@pytest.mark.parametrize("bidirectional", [False, True])
def test_logits_come_from_where_each_direction_ends(bidirectional: bool) -> None:
    network = build((2, 5, 3), 4, width=6, bidirectional=bidirectional).eval()
    images = torch.randn(3, 2, 5, 3)
    rows = torch.cat([images[:, 0], images[:, 1]], dim=2)  # (3, 5, 6): a row of both channels at a time
    ends = [lstm_by_hand(network.rnn, "", rows)]
    if bidirectional:
        ends.append(lstm_by_hand(network.rnn, "_reverse", rows.flip(1)))
    torch.testing.assert_close(network(images), network.head(torch.cat(ends, dim=1)), rtol=1e-5, atol=1e-6)


def test_the_last_layer_gives_the_logits() -> None:
    network = build((1, 4, 3), 5, cell="gru", layers=3, width=6, bidirectional=True).eval()
    images = torch.randn(2, 1, 4, 3)
    outputs, _ = network.rnn(images[:, 0])
    ends = torch.cat([outputs[:, -1, :6], outputs[:, 0, 6:]], dim=1)
    torch.testing.assert_close(network(images), network.head(ends), rtol=1e-5, atol=1e-6)
    assert isinstance(network.rnn, nn.GRU)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("layers", "between"), [(1, 0.0), (2, 0.4)])
def test_dropout_between_layers_and_before_the_head(layers: int, between: float) -> None:
    network = build(layers=layers, dropout=0.4, width=4)
    assert network.rnn.dropout == between
    seen: list[Tensor] = []
    network.head.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    network(torch.randn(500, 1, 28, 28))
    assert (seen[0] == 0).float().mean().item() == pytest.approx(0.4, abs=0.05)
