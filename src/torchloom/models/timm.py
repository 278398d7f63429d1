"""The networks of timm for pictures, as `model: {name: timm/resnet50.a1_in1k}`, with weights of the hub or none.

Wightman, "PyTorch image models", 2019, doi:10.5281/zenodo.4414861. What stands behind the point names weights, and says
how pictures are normalised for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from torch import Tensor, nn

from torchloom.errors import InputError
from torchloom.modalities.base import Origin
from torchloom.models._libraries import Shape, Source, as_build, check_size, made
from torchloom.system.words import extra


def _timm() -> Any:
    try:
        import timm
    except ModuleNotFoundError:
        raise InputError(
            f"model.name timm/…: needs the package timm, which is not installed. Install the extra: {extra('timm')}"
        ) from None
    return timm


GIVEN = {"num_classes", "in_chans", "device", "dtype"}  # by us, as the data and the training have it


@cache
def names() -> list[str]:
    return [*_timm().list_models(), *_timm().list_pretrained()]


def plain(member: str) -> str:
    """The name without that of weights, where these are not known, as of a folder."""
    return member if member in names() else member.partition(".")[0]


@cache
def builder(member: str) -> Callable[..., nn.Module]:
    """The `build` of the network `member`; its first layer is made for as many channels as there are."""
    timm = _timm()
    make = partial(timm.create_model, plain(member))
    empty: Any = made(make)
    fixed = empty.pretrained_cfg.get("fixed_input_size")

    def build(shape: Shape, outputs: int, arguments: Mapping[str, Any]) -> nn.Module:
        needed = arguments.get("img_size") or (empty.pretrained_cfg["input_size"][1:] if fixed else None)
        if needed:
            check_size(shape, needed, "img_size")
        network: nn.Module = make(num_classes=outputs, in_chans=shape[0], **arguments)
        return network

    return as_build(member, build, type(empty), given=GIVEN)


def _config(source: Source) -> dict[str, Any]:
    """What timm knows of the weights, and what the config.json of a folder says of its own."""
    known = _timm().get_pretrained_cfg(plain(source.member), allow_unregistered=True)
    return {**known.to_dict(), **_said(source)}


def _said(source: Source) -> dict[str, Any]:
    """As the folder has it, in its older form without a block of its own."""
    keys = _timm().models.PretrainedCfg.__dataclass_fields__
    return {key: value for key, value in source.config.get("pretrained_cfg", source.config).items() if key in keys}


def origin(source: Source) -> Origin:
    known = _config(source)
    height, width = known["input_size"][1:]
    return Origin(known["mean"], known["std"], (height, width))


def described(source: Source) -> dict[str, Any]:
    """The arguments of the network in a folder; ValueError when it is another."""
    there = source.config.get("architecture")
    if there and there != plain(source.member).partition(".")[0]:
        raise ValueError(f"the config.json is of timm/{there}")
    return dict(source.config.get("model_args", {}))


def started(
    source: Source,
    network: nn.Module,  # noqa: ARG001  (timm makes another)
    read: Callable[[], dict[str, Tensor]] | None,
    sizes: Mapping[str, Any],
    arguments: Mapping[str, Any],
) -> dict[str, Tensor]:
    """The weights for such a network of a file, or of the hub, as timm itself makes them fit.

    So older names of weights, other sizes of images and grey pictures are its affair.
    """
    overlay = _overlay(source, read()) if read else {}
    classes = {**_config(source), **overlay}["num_classes"]  # with another number timm lets weights be missing, too
    given = {"num_classes": classes, "in_chans": sizes["shape"][0], **arguments}
    full = _timm().create_model(plain(source.member), pretrained=True, pretrained_cfg_overlay=overlay, **given)
    found: dict[str, Tensor] = full.state_dict()
    return found


def _overlay(source: Source, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What is said of the weights in a file: how many classes and channels they are for is to be seen of them."""
    known, said = _config(source), _said(source)
    heads, firsts = (known.get(key) or () for key in ("classifier", "first_conv"))
    head, first = (each if isinstance(each, str) else next(iter(each), "") for each in (heads, firsts))
    said["num_classes"] = len(state.get(f"{head}.weight", ()))
    if f"{first}.weight" in state:
        said["input_size"] = (state[f"{first}.weight"].shape[1], *known["input_size"][1:])
    nowhere = {"url": None, "file": None, "hf_hub_id": None, "source": None, "custom_load": False}
    return {**said, **nowhere, "state_dict": dict(state)}
