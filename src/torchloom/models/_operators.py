"""Recurrent layers as ONNX's own operators.

torch.export takes such layers apart, and whether batch and time may then still be of any length depends on PyTorch's
version. The operators take any number of sequences of any length with each version.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchloom.errors import InputError


def with_operators(model: nn.Module) -> nn.Module:
    """A copy of `model` for torch.onnx.export, in which recurrent layers, also a user's own, are ONNX's operators.

    Raises InputError for an LSTM with projections, which ONNX does not have.
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        operator = OPERATORS.get(type(module))
        if operator:
            if module.proj_size:
                raise InputError("ONNX has no LSTM with projections: leave proj_size out of the network's nn.LSTM")
            module.__class__ = operator  # as PyTorch's lazy layers become what they are
            operator.set_up(module)
    return model


class Operator(nn.RNNBase):
    """What recurrent layers have in common."""

    name: ClassVar[str]  # in ONNX
    order: ClassVar[list[int]]  # of the gates in ONNX, each by its place in PyTorch
    states: ClassVar[int]  # an LSTM has hidden and cell

    def set_up(self) -> None:
        """Keep each layer's weights as the operator takes them: `directions` first, then the gates in ONNX's order."""
        for layer in range(self.num_layers):
            self.register_buffer(f"weight_ih_{layer}", self.ordered("weight_ih", layer))
            self.register_buffer(f"weight_hh_{layer}", self.ordered("weight_hh", layer))
            if self.bias:
                biases = [self.ordered(name, layer) for name in ("bias_ih", "bias_hh")]
                self.register_buffer(f"bias_{layer}", torch.cat(biases, dim=1))

    def ordered(self, name: str, layer: int) -> Tensor:
        """The weights of this name, (directions, gates x width, …)."""
        weights = [getattr(self, f"{name}_l{layer}{suffix}").detach() for suffix in ("", "_reverse")[: self.directions]]
        gates = [tensor.chunk(len(self.order)) for tensor in weights]
        return torch.stack([torch.cat([chunks[gate] for gate in self.order]) for chunks in gates])

    @property
    def directions(self) -> int:
        return 1 + self.bidirectional

    def forward(self, input: Tensor, hx: Any = None, lengths: Tensor | None = None) -> Any:  # noqa: A002  # as PyTorch's
        """What PyTorch's layers return; with `lengths` (B,) outputs after the end of a sequence are zero."""
        x = input.transpose(0, 1) if self.batch_first else input
        before = hx if isinstance(hx, tuple) else (hx,) * (hx is not None)  # each (layers x directions, B, width)
        after = []
        for layer in range(self.num_layers):
            mine = slice(layer * self.directions, (layer + 1) * self.directions)
            x, *states = self.run(layer, x, lengths, [state[mine] for state in before])
            after.append(states)
        ends = tuple(torch.cat(states) for states in zip(*after, strict=True))
        return x.transpose(0, 1) if self.batch_first else x, ends if self.states > 1 else ends[0]

    def attributes(self) -> dict[str, Any]:
        return {}

    def run(self, layer: int, x: Tensor, lengths: Tensor | None, before: list[Tensor]) -> list[Tensor]:
        """One layer over x (T, B, inputs): its outputs (T, B, directions x width) and the states after them."""
        names = ("weight_ih", "weight_hh", "bias")
        weights = [getattr(self, f"{name}_{layer}", None) for name in names]
        state = (self.directions, x.shape[1], self.hidden_size)
        outputs, *after = torch.onnx.ops.symbolic_multi_out(
            self.name,
            (x, *weights, None if lengths is None else lengths.int(), *before),
            {
                "hidden_size": self.hidden_size,
                "direction": "bidirectional" if self.bidirectional else "forward",
                **self.attributes(),
            },
            dtypes=(x.dtype,) * (1 + self.states),
            shapes=((x.shape[0], *state), *(state,) * self.states),
        )
        return [outputs.transpose(1, 2).flatten(2), *after]  # from (T, directions, B, width)


class LSTMOperator(Operator, nn.LSTM):  # type: ignore[misc]  # one more argument of forward
    name = "LSTM"
    order: ClassVar = [0, 3, 1, 2]  # input, output, forget, cell
    states = 2


class GRUOperator(Operator, nn.GRU):  # type: ignore[misc]
    name = "GRU"
    order: ClassVar = [1, 0, 2]  # update, reset, new
    states = 1

    def attributes(self) -> dict[str, Any]:
        return {"linear_before_reset": 1}


class RNNOperator(Operator, nn.RNN):  # type: ignore[misc]
    name = "RNN"
    order: ClassVar = [0]
    states = 1

    def attributes(self) -> dict[str, Any]:
        return {"activations": [self.nonlinearity.capitalize()] * self.directions}


OPERATORS: dict[type, Any] = {nn.LSTM: LSTMOperator, nn.GRU: GRUOperator, nn.RNN: RNNOperator}
