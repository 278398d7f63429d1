"""Networks that forecast series, and what stands around them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchloom.errors import InputError
from torchloom.models import build_network, network_names
from torchloom.models._windows import Normalization, ReversibleNorm, normalized
from torchloom.problems.forecasting.config import ForecasterConfig
from torchloom.problems.forecasting.scaling import Naive, WithKnown

SIZES = {"window": 40, "channels": 3, "horizon": 7}
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("dlinear", {}),
    ("dlinear", {"kernel": 1, "normalization": "last"}),
    ("patchtst", {}),
    ("patchtst", {"patch": 40, "stride": 3, "layers": 1, "normalization": "none"}),
    ("tcn", {"width": 8}),
    ("tcn", {"width": 4, "kernel": 2, "blocks": 1}),
    ("series_lstm", {"width": 8}),
    ("series_lstm", {"width": 8, "cell": "gru", "layers": 2}),
    ("series_transformer", {"width": 8, "heads": 2}),
    ("series_transformer", {"width": 8, "layers": 1, "stride": 4, "normalization": "none"}),
]


def seeded(name: str, sizes: dict[str, int] = SIZES, **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, sizes, arguments)


def test_all_of_them_are_tested() -> None:
    assert {name for name, _ in NETWORKS} == set(network_names(ForecasterConfig.outputs, ForecasterConfig.inputs))


@pytest.mark.parametrize(("name", "arguments"), NETWORKS)
def test_each_window_has_a_forecast_of_its_own(name: str, arguments: dict[str, Any]) -> None:
    network, windows = seeded(name, **arguments).eval(), torch.randn(4, 40, 3)
    ahead = network(windows)
    assert ahead.shape == (4, 7, 3)
    torch.testing.assert_close(network(windows[1:2]), ahead[1:2], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ahead[0], ahead[1], atol=1e-4)
    gradients = torch.autograd.grad(network.train()(windows).square().sum(), list(network.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", ["dlinear", "patchtst"])
def test_channels_do_not_see_each_other(name: str) -> None:
    network, windows = seeded(name).eval(), torch.randn(4, 40, 3)
    other = windows.clone()
    other[:, :, 0] += torch.randn(4, 40)
    one, two = network(windows), network(other)
    torch.testing.assert_close(one[:, :, 1:], two[:, :, 1:])
    assert (one[:, :, 0] - two[:, :, 0]).abs().max() > 0.01


def test_dlinear_is_two_linear_maps_of_a_mean_and_the_rest() -> None:
    network = seeded("dlinear", kernel=5)
    layers = dict(network.named_children())
    nn.init.normal_(layers["trend"].weight)
    x = torch.randn(1, 40, 3)
    longer = torch.cat([x[:, :1], x[:, :1], x, x[:, -1:], x[:, -1:]], 1)
    trend = torch.stack([longer[:, step : step + 5].mean(1) for step in range(40)], 1)
    expected = layers["trend"](trend.transpose(1, 2)) + layers["rest"]((x - trend).transpose(1, 2))
    torch.testing.assert_close(network(x), expected.transpose(1, 2), rtol=1e-4, atol=1e-5)
    assert sum(parameter.numel() for parameter in network.parameters()) == (41 + 40) * 7


def test_patchtst_takes_the_patches_of_the_paper() -> None:
    """42 of 336 steps, and the parameters that its parts have."""
    network = seeded("patchtst", {"window": 336, "channels": 7, "horizon": 96})
    layer = 16 * 48 + 48 + 16 * 16 + 16 + 16 * 128 + 128 + 128 * 16 + 16 + 2 * 32
    expected = 16 * 16 + 16 + 42 * 16 + 3 * layer + 42 * 16 * 96 + 96 + 2 * 7
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


@pytest.mark.parametrize(("kernel", "window"), [(2, 9), (3, 40), (3, 64), (5, 100)])
def test_a_tcn_sees_the_whole_window_and_nothing_later(kernel: int, window: int) -> None:
    network = seeded("tcn", {**SIZES, "window": window}, kernel=kernel, width=8, normalization="none").eval()
    x = torch.randn(16, window, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x).square().sum(), x)
    assert (gradient.abs().sum((0, 2)) > 0).all()
    blocks: Any = dict(network.named_children())["blocks"]
    x = torch.randn(1, 3, window, requires_grad=True)
    (gradient,) = torch.autograd.grad(blocks(x)[:, :, window // 2].square().sum(), x)
    assert gradient[:, :, window // 2 + 1 :].abs().max() == 0


@pytest.mark.parametrize("name", ["last", "instance"])
def test_level_and_scale_are_taken_out_and_back(name: Normalization) -> None:
    windows, level = torch.randn(4, 40, 3), torch.tensor([5.0, -300.0, 0.1])
    scale = torch.tensor([100.0, 0.5, 3.0]) if name == "instance" else torch.ones(3)
    torch.manual_seed(0)
    network = normalized(nn.Sequential(nn.Flatten(), nn.Linear(120, 21), nn.Unflatten(1, (7, 3))), 3, name)
    torch.testing.assert_close(network(windows * scale + level), network(windows) * scale + level, rtol=1e-3, atol=1e-3)
    assert normalized(network, 3, "none") is network


def test_a_constant_window_has_a_finite_forecast() -> None:
    assert seeded("patchtst").eval()(torch.full((2, 40, 3), 7.0)).isfinite().all()


class Last(nn.Module):
    def forward(self, windows: Tensor) -> Tensor:
        return windows[:, -1:].expand(-1, 7, -1)


def test_the_effect_of_what_is_known_is_taken_off_and_put_back() -> None:
    network = WithKnown(Last(), 2, 3)
    windows, known = torch.randn(4, 40, 3), torch.randn(4, 47, 2)
    effect = network.effect(known)
    torch.testing.assert_close(network(windows, known), windows[:, -1:] - effect[:, 39:40] + effect[:, 40:])


def test_a_convolutional_network_of_series() -> None:
    network, series = (
        seeded("series_cnn", {"channels": 3, "outputs": 4}, widths=[8, 6], kernels=[5, 3]),
        torch.randn(5, 20, 3),
    )
    assert network(series).shape == (5, 4)
    expected = 3 * 8 * 5 + 2 * 8 + 8 * 6 * 3 + 2 * 6 + 6 * 4 + 4
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
    one, two = network.eval()(series), network(series.flip(0))
    torch.testing.assert_close(one, two.flip(0))
    assert not torch.allclose(one[0], one[1], atol=1e-4)


def test_naive_forecasts() -> None:
    windows = torch.arange(10.0).reshape(1, 10, 1)
    assert Naive(1, 3, 1)(windows).flatten().tolist() == [9, 9, 9]
    assert Naive(4, 6, 1)(windows, windows).flatten().tolist() == [6, 7, 8, 9, 6, 7]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("dlinear", {"kernel": 4}, "kernel 4: must be odd"),
        ("patchtst", {"patch": 41}, "patch 41: is longer than the window of 40 steps"),
        ("patchtst", {"heads": 3}, "heads 3: must divide the width 16"),
        ("tcn", {"kernel": 1}, "kernel 1: must be 2 or more steps"),
        (
            "series_cnn",
            {"kernels": [4, 4, 4]},
            r"kernels \[4, 4, 4\]: must be odd numbers, one for each of the 3 widths",
        ),
    ],
)
def test_arguments_that_do_not_fit(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        seeded(name, {**SIZES, "outputs": 2}, **arguments)


# ---- series with a label -------------------------------------------------------------------------------------------

WHOLE = {"window": 40, "channels": 3, "outputs": 5}
OF_LABELS: list[tuple[str, dict[str, Any]]] = [
    ("series_cnn", {"widths": [8], "kernels": [3]}),
    ("series_lstm", {"width": 8}),
    ("series_lstm", {"width": 8, "normalization": "last"}),
    ("series_transformer", {"width": 8}),
    ("series_transformer", {"width": 8, "stride": 7, "normalization": "instance"}),
    ("tcn", {"width": 8}),
    ("tcn", {"width": 8, "normalization": "instance"}),
]


def test_all_networks_of_labels_are_tested() -> None:
    assert {name for name, _ in OF_LABELS} == set(network_names({"outputs"}, {"window", "channels"}))


@pytest.mark.parametrize(("name", "arguments"), OF_LABELS)
def test_each_series_has_answers_of_its_own(name: str, arguments: dict[str, Any]) -> None:
    """Which hang on all of it, and on its level but where that is taken out."""
    network, series = seeded(name, WHOLE, **arguments).eval(), torch.randn(4, 40, 3)
    found = network(series)
    assert found.shape == (4, 5)
    torch.testing.assert_close(network(series[1:2]), found[1:2], rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad(network.train()(series).square().sum(), list(network.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)
    network.eval()
    first = series.clone()
    first[:, 0] += 1
    assert (network(first) - found).abs().max() > 1e-8
    same = (network(series + 3) - found).abs().max() < 1e-4
    assert same == ("normalization" in arguments)


def test_a_transformer_knows_which_of_two_things_came_first() -> None:
    """Also where nothing else tells them apart: both are as far from the ends as from each other."""
    network = seeded("series_transformer", WHOLE, width=8, initialization="default").eval()
    series = torch.zeros(1, 40, 3)
    series[:, 10:13], series[:, 26:29] = 3.0, -3.0
    turned = series.clone()
    turned[:, 10:13], turned[:, 26:29] = -3.0, 3.0
    assert (network(series) - network(turned)).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["tcn", "series_lstm", "series_transformer"])
def test_a_network_of_several_problems_gets_the_sizes_of_one(name: str) -> None:
    assert not isinstance(seeded(name, WHOLE), ReversibleNorm)
    assert isinstance(seeded(name), ReversibleNorm)
    assert name not in network_names({"maps"}) + network_names({"outputs"}, {"shape"})
    with pytest.raises(InputError, match=rf"model\.name {name}: needs data that have .*channels; these have"):
        seeded(name, {"shape": 3, "outputs": 2})
