"""What several networks are built of: initial weights and activations by name, and the usual groups of layers."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, WithJsonSchema
from torch import Tensor, nn

from torchloom.config import Fraction

Initialization = Literal[
    "default",
    "he",
    "he_uniform",
    "xavier",
    "xavier_normal",
    "normal",
    "truncated_normal",
    "uniform",
    "orthogonal",
]


@torch.no_grad()
def initialize(network: nn.Module, name: Initialization) -> nn.Module:
    """Draw the weights of all linear, convolutional and recurrent layers anew, in place; biases become zero.

    - default: leave what the layers drew for themselves
    - he: normal with variance 2 / fan-out of kernels and 2 / fan-in of matrices, since a classifier's few outputs would
      start huge by their fan-out (He et al., "Delving deep into rectifiers", ICCV 2015)
    - he_uniform: uniform with the same variance
    - xavier: uniform with variance 2 / (fan-in + fan-out) (Glorot & Bengio, AISTATS 2010)
    - xavier_normal: normal with the same variance
    - normal: normal with standard deviation 0.01 (Krizhevsky et al., NIPS 2012)
    - truncated_normal: normal with standard deviation 0.02, cut off at twice that (Devlin et al., "BERT", NAACL 2019)
    - uniform: uniform between -1 and 1 over the square root of fan-in (what Glorot & Bengio call the usual heuristic)
    - orthogonal: orthonormal rows or columns, whichever are fewer (Saxe et al., ICLR 2014)
    """
    if name != "default":
        for layer in network.modules():
            for weight in _weights(layer):
                _DRAW[name](weight)
            if isinstance(layer, _LAYERS):
                for parameter_name, parameter in layer.named_parameters(recurse=False):
                    if parameter_name.startswith("bias"):
                        nn.init.zeros_(parameter)
    return network


def _weights(layer: nn.Module) -> Iterator[Tensor]:
    """The matrices or kernels of one layer: of a recurrent one, for each gate its own."""
    if isinstance(layer, nn.Linear | nn.Conv2d):
        yield layer.weight
    elif isinstance(layer, nn.RNNBase):
        for name, stacked in layer.named_parameters():
            if name.startswith("weight"):  # rows of all gates above each other, as PyTorch keeps them
                yield from stacked.view(-1, layer.hidden_size, stacked.shape[1])


def _kaiming(draw: Callable[..., Tensor], weight: Tensor) -> Tensor:
    return draw(weight, mode="fan_out" if weight.ndim > 2 else "fan_in", nonlinearity="relu")


def _uniform(weight: Tensor) -> Tensor:
    bound = weight[0].numel() ** -0.5
    return nn.init.uniform_(weight, -bound, bound)


_LAYERS = (nn.Linear, nn.Conv2d, nn.RNNBase)
_DRAW: dict[str, Callable[[Tensor], Any]] = {
    "he": partial(_kaiming, nn.init.kaiming_normal_),
    "he_uniform": partial(_kaiming, nn.init.kaiming_uniform_),
    "xavier": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "normal": partial(nn.init.normal_, std=0.01),
    "truncated_normal": partial(nn.init.trunc_normal_, std=0.02, a=-0.04, b=0.04),
    "uniform": _uniform,
    "orthogonal": nn.init.orthogonal_,
}


_NOT_ELEMENTWISE = {"MultiheadAttention", "GLU", "Softmax", "Softmax2d", "Softmin", "LogSoftmax", "Threshold"}
ACTIVATIONS = [name for name in nn.modules.activation.__all__ if name not in _NOT_ELEMENTWISE]


def _is_activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise ValueError(f"must be an activation of torch.nn; there are {', '.join(ACTIVATIONS)}")
    return name


Activation = Annotated[
    str, AfterValidator(_is_activation), WithJsonSchema({"type": "string", "enum": sorted(ACTIVATIONS)})
]


def make_activation(name: Activation) -> nn.Module:
    """The layer `torch.nn.<name>`, with its default arguments."""
    layer: nn.Module = getattr(nn, name)()
    return layer


def convolution(
    inputs: int, outputs: int, kernel: int, padding: int, *, activation: Activation, batch_norm: bool
) -> list[nn.Module]:
    """Convolution of stride 1, [batch norm], activation. Batch norm shifts by itself: no bias before it."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=not batch_norm)]
    if batch_norm:
        layers.append(nn.BatchNorm2d(outputs))
    return [*layers, make_activation(activation)]


def dense(
    inputs: int, outputs: int, *, activation: Activation, batch_norm: bool = False, dropout: Fraction = 0.0
) -> list[nn.Module]:
    """Linear layer, [batch norm], activation, [dropout]."""
    layers: list[nn.Module] = [nn.Linear(inputs, outputs, bias=not batch_norm)]
    if batch_norm:
        layers.append(nn.BatchNorm1d(outputs))
    layers.append(make_activation(activation))
    if dropout:
        layers.append(nn.Dropout(dropout))
    return layers


class Attention(nn.Module):
    """Each place of a sequence (N, T, width) -> what it gathers from all of them (N, T, width), in several heads.

    Vaswani et al., "Attention is all you need", NeurIPS 2017 (arXiv:1706.03762).
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.queries_keys_values, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, asking: int | None = None) -> Tensor:
        """With `asking` only of so many first places (N, asking, width)."""
        three = self.queries_keys_values(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = three.unbind()  # each (N, heads, T, width / heads)
        dropout = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(queries[:, :, :asking], keys, values, dropout_p=dropout)
        mixed: Tensor = self.mixed(seen.transpose(1, 2).flatten(2))
        return mixed


def check_side(shape: tuple[int, int, int], smallest: int, network: str) -> None:
    """Raise ValueError when images of `shape` (C, H, W) have a side of less than `smallest` pixels."""
    if min(shape[1:]) < smallest:
        raise ValueError(
            f"shape {shape}: {network} shrinks images so often that they must be {smallest}x{smallest} pixels or more; "
            "take larger images or another network"
        )


def check_unused(form: str, **given_and_default: tuple[object, object]) -> None:
    """Raise ValueError for the first argument that is not at its default, where it has no use in `form`."""
    for name, (given, default) in given_and_default.items():
        if given != default:
            raise ValueError(f"{name} {given!r}: form {form} is fixed in this; leave {name} out or take another form")
