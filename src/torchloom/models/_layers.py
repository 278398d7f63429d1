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
    if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
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


_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.RNNBase)
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


Norm = Literal["none", "batch", "group", "layer", "instance"]
GROUPS = 32  # of channels, at most


def make_norm(name: Norm, channels: int, axes: int = 2) -> list[nn.Module]:
    """What brings (B, channels, …) with so many `axes` behind the channels to mean 0 and deviation 1, with a scale and
    a shift for each channel that are learnt; nothing for none.

    - batch: over the batch and all places (Ioffe & Szegedy, ICML 2015, arXiv:1502.03167)
    - group: of each sample, over all places of up to 32 groups of two channels or more, of dense layers of 16 or more
      (Wu & He, ECCV 2018, arXiv:1803.08494)
    - layer: of each sample, over all channels and places (Ba, Kiros, Hinton, arXiv:1607.06450)
    - instance: of each sample and channel, over all places (Ulyanov et al., arXiv:1607.08022); of dense layers, which
      have one place, nothing
    """
    if name == "none" or (name == "instance" and not axes):
        return []
    if name == "batch":
        return [(nn.BatchNorm2d if axes == 2 else nn.BatchNorm1d)(channels)]
    groups = {"group": _groups(channels, 2 if axes else 16), "layer": 1, "instance": channels}[name]
    return [nn.GroupNorm(groups, channels)]


def _groups(channels: int, least: int) -> int:
    """As many as there can be, up to GROUPS, of equally many channels, `least` or more."""
    return max(
        count
        for count in range(1, GROUPS + 1)
        if channels % count == 0 and channels >= count * (least if count > 1 else 1)
    )


Pooling = Literal["max", "average", "lp"]


def make_pooling(name: Pooling, kernel: int, stride: int | None = None) -> nn.Module:
    """What makes one value of each `kernel` x `kernel` values of (B, C, H, W): the greatest, the mean or their L2 norm
    (Gulcehre et al., "Learned-norm pooling", arXiv:1311.1780, with p = 2)."""
    kinds = {"max": nn.MaxPool2d, "average": nn.AvgPool2d, "lp": L2Pool2d}
    pooling: nn.Module = kinds[name](kernel, stride)
    return pooling


class L2Pool2d(nn.AvgPool2d):
    """nn.LPPool2d of p = 2, whose gradient is NaN where all values are 0, as behind a ReLU; here it is 0."""

    def __init__(self, kernel: int, stride: int | None = None) -> None:
        super().__init__(kernel, stride)
        self.area = kernel * kernel

    def forward(self, x: Tensor) -> Tensor:
        squares: Tensor = super().forward(x.float().square()) * self.area
        return squares.clamp(min=1e-20).sqrt().to(x.dtype)


def convolution(
    inputs: int, outputs: int, kernel: int, padding: int, *, activation: Activation, norm: Norm
) -> list[nn.Module]:
    """Convolution of stride 1, [norm], activation. A norm shifts by itself: no bias before it."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=norm == "none")]
    return [*layers, *make_norm(norm, outputs), make_activation(activation)]


def dense(
    inputs: int, outputs: int, *, activation: Activation, norm: Norm = "none", dropout: Fraction = 0.0
) -> list[nn.Module]:
    """Linear layer, [norm], activation, [dropout]."""
    normed = make_norm(norm, outputs, axes=0)
    layers: list[nn.Module] = [nn.Linear(inputs, outputs, bias=not normed), *normed, make_activation(activation)]
    if dropout:
        layers.append(nn.Dropout(dropout))
    return layers


class Attention(nn.Module):
    """Each place of a sequence (N, T, width) -> what it gathers from all of them (N, T, width), in several heads.

    Vaswani et al., "Attention is all you need", NeurIPS 2017 (arXiv:1706.03762). With `rotary` positions a place knows
    how far away others are (Su et al., arXiv:2104.09864).
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, *, rotary: bool = False) -> None:
        super().__init__()
        self.heads, self.dropout, self.rotary = heads, dropout, rotary
        self.queries_keys_values, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, asking: int | None = None, there: Tensor | None = None) -> Tensor:
        """With `asking` only of so many first places (N, asking, width); gathered from those that are `there`, (N, T)
        bool."""
        three = self.queries_keys_values(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = three.unbind()  # each (N, heads, T, width / heads)
        if self.rotary:
            places = torch.arange(x.shape[1], device=x.device)
            queries, keys = rotated(queries, places), rotated(keys, places)
        dropout = self.dropout if self.training else 0.0
        mask = None if there is None else there[:, None, None]
        seen = F.scaled_dot_product_attention(queries[:, :, :asking], keys, values, mask, dropout_p=dropout)
        # a copy, as torch.export takes how this lies in memory from one kernel of attention, and runs another
        seen = seen.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        mixed: Tensor = self.mixed(seen.flatten(2))
        return mixed


def rotated(x: Tensor, places: Tensor) -> Tensor:
    """(B, heads, T, D), each pair of numbers turned by an angle that grows with its place (T,): Su et al., 3.2."""
    half = x.shape[3] // 2
    slowness = 10_000 ** (torch.arange(half, device=x.device) / half)
    angles = places[:, None] / slowness  # (T, D / 2)
    cosines, sines = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, 3)
    return torch.cat([first * cosines - second * sines, first * sines + second * cosines], 3)


class Encoder(nn.Module):
    """Blocks of attention and two dense layers over (N, T, width), with a norm before each and one at the end."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        feedforward: int | None,
        activation: Activation,
        dropout: float,
        *,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            EncoderBlock(width, heads, feedforward or 4 * width, activation, dropout, rotary) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, there: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, there)
        normed: Tensor = self.norm(x)
        return normed


class EncoderBlock(nn.Module):
    def __init__(
        self, width: int, heads: int, feedforward: int, activation: Activation, dropout: float, rotary: bool
    ) -> None:
        super().__init__()
        self.before_attention, self.attention = nn.LayerNorm(width), Attention(width, heads, dropout, rotary=rotary)
        self.before_layers = nn.LayerNorm(width)
        layers = nn.Linear(width, feedforward), make_activation(activation), nn.Linear(feedforward, width)
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, there: Tensor | None) -> Tensor:
        x = x + self.dropout(self.attention(self.before_attention(x), there=there))
        whole: Tensor = x + self.dropout(self.layers(self.before_layers(x)))
        return whole


def check_heads(width: int, heads: int, *, rotary: bool) -> None:
    """ValueError unless each head has equally many of the `width` numbers, for rotary positions an even number."""
    if width % (heads * (1 + rotary)):
        raise ValueError(f"width {width}: must be a multiple of {'twice ' if rotary else ''}the {heads} heads")


DocumentPooling = Literal["mean", "max", "both"]


def pooled(x: Tensor, lengths: Tensor, pooling: DocumentPooling) -> Tensor:
    """What is at the places of documents that end after `lengths` (B,), (B, T, features), together: (B, features), or
    twice as many for both."""
    lengths = lengths.to(x.device)
    inside = (torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)).unsqueeze(2)
    mean = (x * inside).sum(1) / lengths.unsqueeze(1)
    # not amax, which does not know its place any more when it comes to gradients (see airbench)
    greatest = x.masked_fill(~inside, -torch.inf).max(1).values
    return {"mean": mean, "max": greatest, "both": torch.cat([mean, greatest], dim=1)}[pooling]


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


class Grow(nn.Module):
    """Enlarge images to `size` by repeating pixels; with a convolution after it, free of a transposed one's pattern
    (Odena, Dumoulin, Olah, "Deconvolution and checkerboard artifacts", Distill 2016)."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, self.size, mode="nearest")


def one_hot(labels: Tensor | None, classes: int, like: Tensor) -> Tensor:
    """Classes (B,) int64 -> (B, classes) of the type of `like`, whose B it is; of none all are the first.

    Shares of classes (B, classes), as mixed pictures have, are what they are.
    """
    if labels is None:
        labels = torch.zeros(like.shape[0], dtype=torch.int64, device=like.device)
    if labels.ndim > 1:
        return labels.to(like.dtype)
    return (labels.unsqueeze(1) == torch.arange(classes, device=like.device)).to(like.dtype)
