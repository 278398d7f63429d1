"""Recurrent layers by name, and sequences of different lengths."""

from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from torchloom.models._operators import Operator

Cell = Literal["lstm", "gru", "rnn", "relu_rnn"]
CELLS: dict[Cell, Any] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn": nn.RNN,
    "relu_rnn": partial(nn.RNN, nonlinearity="relu"),
}


def make_rnn(cell: Cell, inputs: int, width: int, layers: int, bidirectional: bool, dropout: float) -> nn.RNNBase:
    """Layers of LSTM (Hochreiter & Schmidhuber 1997), GRU (Cho et al. 2014) or plain cells; dropout is between them.

    Plain cells have no gates: the state is a tanh of a sum (rnn: Elman, "Finding structure in time", Cognitive Science
    14, 1990), or its ReLU (relu_rnn: Le, Jaitly, Hinton, arXiv:1504.00941, with `initialization: identity`).
    """
    rnn: nn.RNNBase = CELLS[cell](
        inputs, width, layers, batch_first=True, bidirectional=bidirectional, dropout=dropout if layers > 1 else 0.0
    )
    return rnn


def run_packed(rnn: nn.RNNBase, x: Tensor, lengths: Tensor) -> Tensor:
    """The outputs (B, T, width x directions) of `rnn` over sequences x (B, T, inputs) that end after `lengths` (B,).

    As if each sequence were alone: what follows its end has no influence, and the outputs there are zero.
    """
    if isinstance(rnn, Operator):
        whole: Tensor = rnn(x, lengths=lengths)[0]
        return whole
    if x.device.type == "cpu" or torch.compiler.is_exporting():
        outputs = run_padded(rnn, x, lengths)
        for hook in rnn._forward_hooks.values():  # as if it had been called
            hook(rnn, (x,), outputs)
        return outputs
    packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    outputs, _ = pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=x.shape[1])
    return outputs


def run_padded(rnn: nn.RNNBase, x: Tensor, lengths: Tensor) -> Tensor:
    """`run_packed` without packing: the backward direction reads sequences that are reversed within their lengths.

    Exported graphs cannot hold packed sequences, and on CPUs PyTorch takes them step by step, while this way goes
    through the fused kernel.
    """
    reverse, inside = reversing(x.shape[1], lengths)
    for layer in range(rnn.num_layers):
        if layer:
            x = F.dropout(x, rnn.dropout, rnn.training)
        outputs = _one_direction(rnn, layer, "", x)
        if rnn.bidirectional:
            backward = _one_direction(rnn, layer, "_reverse", _take(x, reverse))
            outputs = torch.cat([outputs, _take(backward, reverse)], dim=2)
        x = outputs
    return x * inside.unsqueeze(2)


def reversing(length: int, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Which place (B, T) each place of a reversed sequence is filled from, and which places lie inside it."""
    place = torch.arange(length, device=lengths.device)
    inside = place < lengths.unsqueeze(1)
    return torch.where(inside, lengths.unsqueeze(1) - 1 - place, place), inside


def _take(x: Tensor, places: Tensor) -> Tensor:
    return x.gather(1, places.unsqueeze(2).expand(-1, -1, x.shape[2]))


def _one_direction(rnn: nn.RNNBase, layer: int, suffix: str, x: Tensor) -> Tensor:
    """One layer in one direction, from a state of zeros, with the weights of `rnn`."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights = [getattr(rnn, f"{name}_l{layer}{suffix}") for name in names]
    state = x.new_zeros(1, x.shape[0], rnn.hidden_size)
    if isinstance(rnn, nn.LSTM):
        return torch.lstm(x, (state, state), weights, True, 1, 0.0, False, False, True)[0]
    run = {"GRU": torch.gru, "RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu}[rnn.mode]
    return run(x, state, weights, True, 1, 0.0, False, False, True)[0]
