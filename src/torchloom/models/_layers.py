"""Initial weights and activations by name."""

from typing import Annotated, Literal

from pydantic import AfterValidator
from torch import nn

Initialization = Literal["default", "he", "xavier", "normal"]


def initialize(network: nn.Module, name: Initialization) -> nn.Module:
    """Draw the weights of all linear and convolutional layers anew, in place; biases become zero.

    - default: leave what the layers drew for themselves
    - he: normal with variance 2 / fan-out (He et al., "Delving deep into rectifiers", ICCV 2015)
    - xavier: uniform with variance 2 / (fan-in + fan-out) (Glorot & Bengio, AISTATS 2010)
    - normal: normal with standard deviation 0.01 (Krizhevsky et al., NIPS 2012)
    """
    if name == "default":
        return network
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            if name == "he":
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            elif name == "xavier":
                nn.init.xavier_uniform_(layer.weight)
            else:
                nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


def _is_activation(name: str) -> str:
    allowed = [n for n in nn.modules.activation.__all__ if n not in _NOT_ELEMENTWISE]
    if name not in allowed:
        raise ValueError(f"must be an activation of torch.nn; there are {', '.join(allowed)}")
    return name


_NOT_ELEMENTWISE = {"MultiheadAttention", "GLU", "Softmax", "Softmax2d", "Softmin", "LogSoftmax", "Threshold"}

Activation = Annotated[str, AfterValidator(_is_activation)]


def make_activation(name: Activation) -> nn.Module:
    """The layer `torch.nn.<name>`, with its default arguments."""
    layer: nn.Module = getattr(nn, name)()
    return layer
