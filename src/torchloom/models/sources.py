"""Weights that others have trained, and what is known of them: asked of the module that a network is of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from torchloom.modalities.base import Origin
from torchloom.models import family, of_torchvision
from torchloom.models._libraries import Source, fitting

IMAGENET = Origin((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (224, 224))  # as all of torchvision's have it
Read = Callable[[], dict[str, Tensor]]


def described(name: str, source: Source) -> dict[str, Any]:
    """The arguments of the network that a folder of weights has for it."""
    return {} if of_torchvision(name) else family(name).described(source)


def origin(name: str, source: Source) -> Origin:
    """What they were trained on."""
    return IMAGENET if of_torchvision(name) else family(name).origin(source)


def started(
    name: str,
    source: Source,
    network: nn.Module,
    read: Read | None,
    sizes: Mapping[str, Any],
    arguments: Mapping[str, Any],
) -> dict[str, Tensor]:
    """What a network made of `sizes` and `arguments` takes over of the weights that `read` gives, or without it of the
    library's own. ValueError where they do not fit."""
    mapped = of_torchvision(name)
    if mapped:
        assert read is not None  # config.ModelConfig has seen to it
        return fitting(network, mapped(read()))
    return family(name).started(source, network, read, sizes, arguments)  # type: ignore[no-any-return]
