from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchloom.models import lenet

# Table I of the paper as printed: a row for each map of S2, a column for each map of C3.
TABLE = [
    "X...XXX..XXXX.XX",
    "XX...XXX..XXXX.X",
    "XXX...XXX..X.XXX",
    ".XXX..XXXX..X.XX",
    "..XXX..XXXX.XX.X",
    "...XXX..XXXX.XXX",
]
CONNECTED = torch.tensor([[TABLE[row][column] == "X" for row in range(6)] for column in range(16)])  # (16, 6)


def build(shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return lenet.build(shape, classes, **arguments)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def squash(x: Tensor) -> Tensor:
    return 1.7159 * torch.tanh(2 / 3 * x)


def test_the_classic_form_has_the_papers_parameters() -> None:
    layers = [count(layer) for layer in build(form="classic") if count(layer)]
    assert layers == [156, 12, 1_516, 32, 48_120, 10_164, 850]  # C1, S2, C3, S4, C5, F6, output
    assert sum(layers[:-1]) == 60_000
    colour = build((3, 32, 32), form="classic")
    assert sum(map(count, colour)) == 60_850 + 2 * 6 * 25


def test_c3_sees_what_table_1_says() -> None:
    torch.manual_seed(0)
    c3 = lenet.SparseConvolution()
    maps = torch.randn(1, 6, 5, 5)
    with torch.no_grad():
        before = c3(maps).flatten()
        for row in range(6):
            changed = maps.clone()
            changed[:, row] += 1
            assert (c3(changed).flatten() != before).tolist() == CONNECTED[:, row].tolist()
    assert len(before) == 16


def test_subsampling_starts_as_the_mean_and_learns_a_scale_and_a_shift_per_map() -> None:
    layer = lenet.Subsampling(2)
    maps = torch.randn(3, 2, 4, 6)
    means = maps.reshape(3, 2, 2, 2, 3, 2).mean(dim=(3, 5))
    torch.testing.assert_close(layer(maps), means)
    with torch.no_grad():
        layer.coefficient.copy_(torch.tensor([1.0, 0.0]))
        layer.bias.copy_(torch.tensor([0.5, 2.0]))
    torch.testing.assert_close(layer(maps)[:, 0], 4 * means[:, 0] + 0.5)
    torch.testing.assert_close(layer(maps)[:, 1], torch.full((3, 2, 3), 2.0))


def test_the_classic_form_computes_what_the_paper_says() -> None:
    """Against its formulae in another shape: all kernels dense with zeros where there is no connection, C5 5x5."""
    network = build(form="classic", initialization="xavier_normal")
    c1, s2, c3, s4, c5, f6, output = [layer for layer in network if count(layer)]
    with torch.no_grad():
        for layer in (s2, s4):  # other than they start
            layer.coefficient.uniform_(-1, 1)
            layer.bias.uniform_(-1, 1)
        for layer in (c1, c5, f6, output, *c3.groups):
            layer.bias.uniform_(-1, 1)
        kernels = iter(kernel for group in c3.groups for kernel in group.weight)
        dense = torch.zeros(16, 6, 5, 5)
        for number in range(16):
            dense[number, CONNECTED[number]] = next(kernels)
        images = torch.randn(4, 1, 28, 28)
        x = images[:, :, [0, 0, *range(28), 27, 27]][..., [0, 0, *range(28), 27, 27]]
        x = squash(F.conv2d(x, c1.weight, c1.bias))  # (4, 6, 28, 28)
        x = squash(x.unfold(2, 2, 2).unfold(3, 2, 2).sum((4, 5)) * s2.coefficient.view(6, 1, 1) + s2.bias.view(6, 1, 1))
        x = squash(F.conv2d(x, dense, torch.cat([group.bias for group in c3.groups])))  # (4, 16, 10, 10)
        x = x.unfold(2, 2, 2).unfold(3, 2, 2).sum((4, 5)) * s4.coefficient.view(16, 1, 1) + s4.bias.view(16, 1, 1)
        x = squash(F.conv2d(squash(x), c5.weight.view(120, 16, 5, 5), c5.bias))[..., 0, 0]  # (4, 120)
        expected = F.linear(squash(F.linear(x, f6.weight, f6.bias)), output.weight, output.bias)
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1


def test_the_squashing_function_keeps_one_and_minus_one() -> None:
    torch.testing.assert_close(
        lenet.ScaledTanh()(torch.tensor([1.0, -1.0])), torch.tensor([1.0, -1.0]), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({}, 61_706),
        ({"dropout": 0.5, "activation": "Tanh"}, 61_706),
        ({"norm": "batch"}, 61_706 + 6 + 16 + 120 + 84),  # a scale for each; the shifts are the biases
        ({"width": 2}, 12 * 26 + 32 * (12 * 25 + 1) + 240 * (32 * 25 + 1) + 168 * 241 + 10 * 169),
    ],
)
def test_parameters_of_the_modern_form(arguments: dict[str, Any], parameters: int) -> None:
    assert count(build(**arguments)) == parameters


def test_layers_of_the_modern_form_in_order() -> None:
    network = build(norm="batch", dropout=0.3, activation="GELU")
    kinds = [type(layer).__name__ for layer in network]
    convolution = ["Conv2d", "MaxPool2d", "BatchNorm2d", "GELU"]
    dense = ["Linear", "BatchNorm1d", "GELU", "Dropout"]
    assert kinds == ["Frame", *convolution, *convolution, "Flatten", *dense, *dense, "Linear"]
    assert [layer.p for layer in network if isinstance(layer, nn.Dropout)] == [0.3, 0.3]
    plain = [type(layer).__name__ for layer in build()]
    assert plain == [kind.replace("GELU", "ReLU") for kind in kinds if kind[:5] not in ("Batch", "Dropo")]


@pytest.mark.parametrize(("shape", "sides"), [((1, 28, 28), (32, 32)), ((1, 32, 40), (32, 40)), ((1, 31, 9), (32, 32))])
def test_small_images_are_framed_by_their_own_border(shape: tuple[int, int, int], sides: tuple[int, int]) -> None:
    images = torch.randn(2, *shape)
    framed = lenet.Frame()(images)
    assert framed.shape[2:] == sides
    top, left = (sides[0] - shape[1]) // 2, (sides[1] - shape[2]) // 2
    assert torch.equal(framed[:, :, top : top + shape[1], left : left + shape[2]], images)
    assert torch.equal(framed[:, :, 0, 0], images[:, :, 0, 0])
    assert torch.equal(framed[:, :, -1, -1], images[:, :, -1, -1])


@pytest.mark.parametrize("form", ["classic", "modern"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 5, 50), (2, 45, 33)])
def test_images_of_any_size(form: str, shape: tuple[int, int, int]) -> None:
    network = build(shape, 4, form=form)
    images = torch.randn(3, *shape, requires_grad=True)
    logits = network(images)
    assert logits.shape == (3, 4)
    logits.sum().backward()
    assert images.grad.abs().sum(dim=(0, 1)).count_nonzero() > 0.9 * shape[1] * shape[2]  # the whole image has a say


@pytest.mark.parametrize(
    ("name", "value"),
    [("width", 2), ("activation", "GELU"), ("norm", "batch"), ("pooling", "average"), ("dropout", 0.1)],
)
def test_the_classic_form_is_fixed(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name} {value!r}: form classic is fixed in this; leave {name} out"):
        build(form="classic", **{name: value})
    build(form="modern", **{name: value})
