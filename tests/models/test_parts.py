"""What networks are built of by name, and the networks of other papers that are made so."""

from typing import Any

import onnxruntime
import pytest
import torch
import torchvision
from torch import Tensor, nn

from torchloom.models import build_network
from torchloom.models._layers import make_norm, make_pooling
from torchloom.models.alexnet import build as alexnet


def network(name: str, shape: list[int], outputs: int = 10, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return build_network(name, {"shape": shape, "outputs": outputs}, arguments)


# ---- norms ---------------------------------------------------------------------------------------------------------


def standardised(x: Tensor, axes: tuple[int, ...]) -> bool:
    mean, deviation = x.mean(axes), x.std(axes, unbiased=False)
    return bool(mean.abs().max() < 1e-5 and (deviation - 1).abs().max() < 1e-3)


@pytest.mark.parametrize(("axes", "shape"), [(2, (6, 8, 5, 7)), (1, (6, 8, 35)), (0, (60, 8))])
def test_a_norm_is_over_what_it_is_named_after(axes: int, shape: tuple[int, ...]) -> None:
    x = 300 * torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 200
    places = tuple(range(2, 2 + axes))
    assert make_norm("none", 8, axes) == []
    (batch,), (layer,), (group,) = (make_norm(name, 8, axes) for name in ("batch", "layer", "group"))  # type: ignore[arg-type]
    assert standardised(batch(x), (0, *places))
    assert standardised(layer(x), (1, *places))
    assert group.num_groups == (4 if axes else 1)
    each_group = group(x).unflatten(1, (group.num_groups, -1))
    assert standardised(each_group, (2, *(place + 1 for place in places)))
    instance = make_norm("instance", 8, axes)
    assert bool(instance) == bool(axes)
    assert not axes or standardised(instance[0](x), places)
    for each in (batch, layer, group, *instance):
        assert each.weight.shape == each.bias.shape == (8,)


def test_groups_are_32_or_have_two_channels() -> None:
    groups = [make_norm("group", channels)[0].num_groups for channels in (1, 6, 13, 16, 64, 96, 160, 256)]  # type: ignore[union-attr]
    assert groups == [1, 3, 1, 8, 32, 32, 32, 32]
    assert [make_norm("group", channels, 0)[0].num_groups for channels in (8, 84, 512, 4096)] == [1, 4, 32, 32]  # type: ignore[union-attr]


# ---- pooling -------------------------------------------------------------------------------------------------------


def test_poolings_are_pytorchs() -> None:
    x = torch.rand(2, 3, 9, 11) + 0.1
    for name, other in {
        "max": nn.MaxPool2d(3, 2),
        "average": nn.AvgPool2d(3, 2),
        "lp": nn.LPPool2d(2, 3, 2),
    }.items():
        torch.testing.assert_close(make_pooling(name, 3, 2)(x), other(x))  # type: ignore[arg-type]
    assert make_pooling("lp", 2)(torch.tensor([[[[3.0, 0.0], [0.0, 4.0]]]])).item() == pytest.approx(5.0)


def test_the_gradient_of_a_norm_of_nothing_is_nought() -> None:
    x = torch.zeros(1, 1, 2, 4, requires_grad=True)
    make_pooling("lp", 2)(x + torch.tensor([0.0, 0.0, 3.0, 4.0])).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0, 0, 0], torch.tensor([0.0, 0.0, 3.0, 4.0]) / 50**0.5)


# ---- networks of papers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "side", "arguments", "parameters"),
    [
        ("resnet", 32, {"blocks": [3, 3, 3], "width": 16}, 272_474),  # ResNet-20 with projections
        ("resnet", 32, {"blocks": [4, 4, 4], "width": 16, "widen": 10, "preactivation": True}, 36_479_194),  # WRN-28-10
        ("resnet", 32, {"preactivation": True}, 11_171_146 + 2 * 512),  # as often counted, and the last norm
        ("resnet", 224, {"stem": "imagenet", "outputs": 1000}, 11_689_512),  # torchvision's, as those below
        ("resnet", 224, {"depth": 101, "stem": "imagenet", "outputs": 1000}, 44_549_160),
        ("resnet", 224, {"depth": 152, "stem": "imagenet", "outputs": 1000}, 60_192_808),
        ("vgg", 224, {"hidden": [4096, 4096], "norm": "none", "outputs": 1000}, 138_357_544),
        ("vgg", 224, {"depth": 11, "hidden": [4096, 4096], "outputs": 1000}, 132_868_840),
    ],
)
def test_they_have_as_many_parameters(name: str, side: int, arguments: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        made = network(name, [3, side, side], **arguments)
    assert sum(parameter.numel() for parameter in made.parameters()) == parameters


@pytest.mark.parametrize("depth", [18, 50])
def test_with_the_stem_for_imagenet_it_is_torchvisions(depth: int) -> None:
    made = network("resnet", [3, 64, 64], 10, depth=depth, stem="imagenet", initialization="default")
    with torch.device("meta"):
        reference = getattr(torchvision.models, f"resnet{depth}")(num_classes=10)
    weights = zip(reference.state_dict(), made.state_dict().values(), strict=True)
    reference.load_state_dict(dict(weights), assign=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(made.eval()(images), reference.eval()(images), rtol=1e-4, atol=1e-4)


def test_the_dense_layers_of_a_vgg_see_all_pixels_as_torchvisions_do() -> None:
    made = network("vgg", [3, 224, 224], 7, depth=11, width=4, hidden=[16, 8], norm="none", dropout=0.3).eval()
    features = torchvision.models.vgg.make_layers([4, "M", 8, "M", 16, 16, "M", 32, 32, "M", 32, 32, "M"])
    reference = torchvision.models.VGG(features, num_classes=7, init_weights=False, dropout=0.3)
    reference.classifier[0], reference.classifier[3] = nn.Linear(32 * 49, 16), nn.Linear(16, 8)
    reference.classifier[6] = nn.Linear(8, 7)
    weights = zip(reference.state_dict(), made.state_dict().values(), strict=True)
    reference.load_state_dict(dict(weights))
    images = torch.randn(2, 3, 224, 224)
    torch.testing.assert_close(made(images), reference.eval()(images), rtol=1e-4, atol=1e-5)
    assert [layer.p for layer in made if isinstance(layer, nn.Dropout)] == [0.3, 0.3]


def test_vision_transformers_are_torchvisions() -> None:
    sizes = {"patch": 16, "width": 768, "layers": 12, "heads": 12, "stem": "patches", "pooling": "token"}
    with torch.device("meta"):
        made = network("vit", [3, 224, 224], 1000, **sizes)
    assert sum(parameter.numel() for parameter in made.parameters()) == 86_567_656  # ViT-B/16
    sizes |= {"patch": 8, "width": 32, "layers": 2, "heads": 4, "feedforward": 64}
    made = network("vit", [3, 32, 32], 7, **sizes, initialization="default").eval()
    reference = torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=7).eval()
    kept = {"token": "class_token", "places": "encoder.pos_embedding"}
    weights = {kept.get(name, name): weight for name, weight in made.state_dict().items()}
    others = [name for name in reference.state_dict() if name not in kept.values()]
    rest = dict(zip(others, [weights[name] for name in weights if name not in kept.values()], strict=True))
    nn.init.normal_(made.token)
    reference.load_state_dict({**rest, **{name: weights[name] for name in kept.values()}})
    for layer in made.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.eps = 1e-6
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(made(images), reference(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("sides", "count"), [([32, 32], 64), ([33, 30], 72), ([5, 4], 2)])
def test_the_convolutional_stem_sees_all_pixels(sides: list[int], count: int) -> None:
    made = network("vit", [3, *sides], width=8, layers=1, heads=2, initialization="default").eval()
    assert made.places.shape == (1, count, 8)
    assert [layer.out_channels for layer in made.stem if isinstance(layer, nn.Conv2d)] == [8, 8, 8]
    images = torch.randn(16, 3, *sides, requires_grad=True)
    made(images).square().sum().backward()
    assert images.grad is not None
    assert (images.grad.abs().sum((0, 1)) > 0).all()


def test_preactivation_leaves_the_way_along_the_shortcuts_free() -> None:
    """Where all convolutions of the blocks are nought, what comes out is what went in."""
    made = network("resnet", [3, 8, 8], blocks=[2], width=4, preactivation=True)
    for block in made.stages:
        nn.init.zeros_(block.body[-1].weight)
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(made.stages(x), x)
    plain = network("resnet", [3, 8, 8], blocks=[2], width=4)
    for block in plain.stages:
        nn.init.zeros_(block.body[-1].weight)
    torch.testing.assert_close(plain.stages(x), x.relu())


def test_dropout_is_before_the_last_convolution_of_each_block() -> None:
    for form in ({}, {"preactivation": True}, {"bottleneck": True}):
        made = network("resnet", [3, 8, 8], blocks=[1, 1], width=4, dropout=0.4, **form)
        for block in made.stages:
            body = [layer for layer in block.body if isinstance(layer, nn.Dropout | nn.Conv2d)]
            assert [layer.p for layer in body if isinstance(layer, nn.Dropout)] == [0.4]
            assert isinstance(body[-2], nn.Dropout)


def test_blocks_are_in_place_of_a_depth() -> None:
    with pytest.raises(Exception, match=r"depth 50: blocks \[1, 1\] say how many layers there are; leave depth out"):
        network("resnet", [3, 8, 8], blocks=[1, 1], depth=50)


def test_local_response_normalisation_is_that_of_the_paper() -> None:
    layers = list(alexnet((3, 32, 32), 10, width=4, norm="local_response", activation="ReLU", last_activation="Tanh"))  # type: ignore[arg-type]
    kinds = [type(layer).__name__ for layer in layers]
    assert kinds[:8] == [*["Conv2d", "ReLU", "LocalResponseNorm", "MaxPool2d"] * 2]
    assert kinds.count("LocalResponseNorm") == 2
    assert kinds[-3:] == ["Linear", "Tanh", "Linear"]
    x = 30 * torch.rand(1, 9, 1, 1)
    squares = x.flatten().square()
    expected = [
        value / (2 + 1e-4 * squares[max(0, place - 2) : place + 3].sum()) ** 0.75
        for place, value in enumerate(x.flatten())
    ]
    torch.testing.assert_close(layers[2](x).flatten(), torch.stack(expected))


def test_global_pooling_leaves_the_mean_of_each_map() -> None:
    made = network("alexnet", [3, 32, 32], width=2, global_pooling=True)
    first = next(layer for layer in made if isinstance(layer, nn.Linear))
    assert first.in_features == 16


# ---- any part in any network ---------------------------------------------------------------------------------------

PARTS: list[tuple[str, dict[str, Any]]] = [
    *[
        (name, {"norm": norm})
        for name in ("mlp", "lenet", "cnn", "alexnet", "vgg", "resnet", "densenet")
        for norm in ("group", "layer", "instance", "none")
    ],
    *[(name, {"pooling": pooling}) for name in ("lenet", "cnn", "alexnet", "vgg") for pooling in ("average", "lp")],
    *[(name, {"activation": "SiLU"}) for name in ("vgg", "resnet", "densenet")],
    ("alexnet", {"norm": "local_response", "global_pooling": True, "last_activation": "Tanh"}),
    ("vgg", {"hidden": [16, 8], "dropout": 0.0}),
    ("resnet", {"preactivation": True, "bottleneck": True, "widen": 2}),
    ("resnet", {"stem": "imagenet"}),
    ("vit", {"activation": "SiLU"}),
    ("vit", {"stem": "patches", "pooling": "token"}),
]
SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [16]},
    "cnn": {"width": 4, "hidden": 32},
    "alexnet": {"width": 2, "dropout": 0.0},
    "vgg": {"depth": 11, "width": 4, "initialization": "he"},
    "resnet": {"blocks": [1, 1], "width": 4},
    "densenet": {"depth": 10, "growth": 4},
    "vit": {"width": 16, "layers": 1, "heads": 2},
}


@pytest.mark.usefixtures("exporter")
@pytest.mark.parametrize(
    ("name", "arguments"), PARTS, ids=[f"{name} {'-'.join(map(str, given.values()))}" for name, given in PARTS]
)
def test_it_learns_each_image_for_itself_and_is_exported(name: str, arguments: dict[str, Any], tmp_path: Any) -> None:
    made = network(name, [3, 32, 32], 3, **{**SMALL.get(name, {}), **arguments})
    labels = torch.arange(12) % 3
    images = torch.randn(3, 3, 32, 32)[labels] + 0.3 * torch.randn(12, 3, 32, 32)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.003)
    losses = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(made(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < 0.8 * losses[0]
    made.eval()
    with torch.no_grad():
        expected = made(images)
        torch.testing.assert_close(made(images[3:4]), expected[3:4], rtol=1e-4, atol=1e-4)
    path = tmp_path / "network.onnx"
    shapes = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(made, (images,), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: images[:5].numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected[:5], rtol=1e-3, atol=1e-3)


def test_a_transformer_knows_the_order_of_words() -> None:
    torch.manual_seed(0)
    arguments = {"width": 16, "layers": 1, "heads": 2, "initialization": "default"}
    network = build_network("text_transformer", {"tokens": 9, "outputs": 2}, arguments).eval()
    lengths = torch.tensor([4])
    one, other = (network(torch.tensor([tokens]), lengths) for tokens in ([1, 2, 3, 4], [1, 3, 2, 4]))
    assert (one - other).abs().max() > 1e-4
