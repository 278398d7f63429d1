"""The networks of torchvision for pictures, `model: {name: torchvision/resnet18}`, with its weights or none.

TorchVision maintainers, "TorchVision: PyTorch's computer vision library", 2016.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from torch import Tensor, nn

from torchloom.modalities.base import Origin
from torchloom.models._libraries import Coloured, Shape, Source, as_build, check_size, fitting, made

SIDES = ("image_size", "input_size")  # what classes call the side of the images where it must be known
SIDE = 224  # as their builders have it
OLD = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")  # as the files of its densenets call layers
HEADS = {"googlenet", "inception_v3"}  # which have three while they learn


def names() -> list[str]:
    """Those for classes, with one head."""
    import torchvision

    return [name for name in torchvision.models.list_models(torchvision.models) if name not in HEADS]


def plain(member: str) -> str:
    return member


@cache
def builder(member: str) -> Callable[..., nn.Module]:
    """The `build` of the network `member`; grey images are repeated in three channels."""
    import torchvision

    make = partial(torchvision.models.get_model, member, weights=None)
    kind = type(made(make))

    def build(shape: Shape, outputs: int, arguments: Mapping[str, Any]) -> nn.Module:
        if sides := [side for side in SIDES if side in _keys(kind)]:
            check_size(shape, arguments.get(sides[0], SIDE), sides[0])
        network = make(num_classes=outputs, **arguments)
        return Coloured(network) if shape[0] == 1 else network

    return as_build(member, build, kind, given={"num_classes"})


def _keys(kind: type[nn.Module]) -> set[str]:
    return {name for each in kind.__mro__ for name in getattr(each.__init__, "__annotations__", {})}  # type: ignore[misc]


def origin(source: Source) -> Origin:
    """As the transforms of the newest weights have it."""
    import torchvision

    made_by = torchvision.models.get_model_weights(source.member).DEFAULT.transforms()
    return Origin(made_by.mean, made_by.std, (made_by.crop_size[0],) * 2)


def described(source: Source) -> dict[str, Any]:  # noqa: ARG001  (its files say nothing)
    return {}


def started(
    source: Source,
    network: nn.Module,
    read: Callable[[], dict[str, Tensor]] | None,
    sizes: Mapping[str, Any],  # noqa: ARG001  (the network says it)
    arguments: Mapping[str, Any],  # noqa: ARG001
) -> dict[str, Tensor]:
    """The weights for `network` of a file, or the library's own, which it downloads."""
    import torchvision

    newest = torchvision.models.get_model_weights(source.member).DEFAULT
    state = read() if read else newest.get_state_dict(progress=False, check_hash=True)
    inner = network.network if isinstance(network, Coloured) else network
    state = {OLD.sub(r"\1\2.", name): each for name, each in state.items()}
    prefix = "network." if inner is not network else ""
    return {prefix + name: weight for name, weight in fitting(inner, state).items()}
