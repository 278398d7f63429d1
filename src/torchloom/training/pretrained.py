"""Weights that others have trained, `model.weights` and `model.pretrained`: what they ask of data, and their place."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from torchloom.config import ModelConfig
from torchloom.errors import InputError
from torchloom.modalities import Info
from torchloom.modalities.modules import Scaling
from torchloom.models import sources
from torchloom.models._libraries import Source
from torchloom.problems.base import Problem
from torchloom.system.files import contents_within
from torchloom.system.words import counted
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan
from torchloom.training.weights import check_types, read_weights

logger = logging.getLogger(__name__)

NAMES = ("model.safetensors", "pytorch_model.bin")  # of the weights in a folder of the Hugging Face hub
CONFIG = "config.json"


def settled(
    network: ModelConfig | None, loaders: LoaderPlan, start: Checkpoint | None = None
) -> tuple[Any, LoaderPlan]:
    """The network with the arguments that a folder of weights has for it, and loaders of inputs made as for them.

    So a checkpoint has all that it takes to make the network without that folder. Where there is no `network`, as that
    of `start` goes on, inputs are made as for that one.
    """
    if network is None:
        origin = start.info.origin() if start else None
    elif follows(network):
        network = described(network)
        with _told(network):
            origin = sources.origin(network.name, _source(network))
    else:
        origin = None
    return network, loaders.model_copy(update={"info": loaders.info.after(origin)}) if origin else loaders


def described(network: ModelConfig) -> ModelConfig:
    """With the arguments that stand in the folder of its weights, if it has such."""
    if not follows(network):
        return network
    with _told(network):
        arguments = {**sources.described(network.name, _source(network)), **network.arguments}
    kind: Any = type(network)  # already checked
    made: ModelConfig = kind.model_construct(
        name=network.name, weights=network.weights, pretrained=network.pretrained, **arguments
    )
    return made


def follows(network: ModelConfig) -> bool:
    """Whether it starts from what others have trained."""
    return bool(network.weights or network.pretrained)


def fingerprint(network: ModelConfig | None) -> dict[str, Any]:
    """What the recipe of a training has of the file: its contents."""
    return {"weights": contents_within(_place(network.weights))} if network and network.weights else {}


def start(model: nn.Module, network: ModelConfig, info: Info, problem: Problem) -> None:
    """Give `model`, made of `network`, the weights of others that it is to start from, if it is to, but for the head
    where it has other outputs.

    InputError when they cannot be had, or are of another network.
    """
    if not follows(network):
        return
    inner = model
    while isinstance(inner, Scaling):
        inner = inner.network
    given: dict[str, Tensor] = {}  # as they are in the file

    def read() -> dict[str, Tensor]:
        given.update(_read(network))
        return given

    sizes = {**info.sizes(), **problem.sizes(info)}
    with _told(network):
        weights = sources.started(
            network.name, _source(network), inner, read if network.weights else None, sizes, network.arguments
        )
    new = inner.state_dict()
    taken = {name: weight for name, weight in weights.items() if name in new and new[name].shape == weight.shape}
    for some, others in ((given, weights), (taken, new)):  # a library may have made others of the first
        check_types(f"model.weights {network.weights}", some, others)
    inner.load_state_dict(taken, strict=False)
    drawn = sorted(new.keys() - taken.keys())
    rest = f"; drawn anew: {', '.join(drawn)}" if drawn else ""
    logger.info("%s of %s%s", counted(len(taken), "weight"), network.weights or f"{network.name} itself", rest)


@contextmanager
def _told(network: ModelConfig) -> Iterator[None]:
    """What a library says of weights, as one InputError."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except (ValueError, RuntimeError, KeyError) as error:
        if network.weights:
            raise InputError(f"model.weights {network.weights}: do not fit {network.name}: {error}") from error
        raise _not_there(network, error) from error
    except Exception as error:  # whatever a library's download raises
        if network.weights:
            raise
        raise _not_there(network, error) from error


def _not_there(network: ModelConfig, error: Exception) -> InputError:
    return InputError(
        f"model.pretrained: the weights of {network.name} cannot be had: {type(error).__name__}: {error}. Where there "
        "is no network, bring a file from elsewhere, and name it: model.weights"
    )


def _source(network: ModelConfig) -> Source:
    return Source(network.name.partition("/")[2], _folder(network), read_config(network))


def _place(weights: str | None) -> Path:
    return Path(weights or "").expanduser()


def _folder(network: ModelConfig) -> Path | None:
    """The folder of weights; None where they are a file, or the library's own."""
    return _place(network.weights) if network.weights and _place(network.weights).is_dir() else None


def _read(network: ModelConfig) -> dict[str, Tensor]:
    folder = _folder(network)
    if folder is None:
        return read_weights(_place(network.weights))
    files = [folder / name for name in NAMES if (folder / name).is_file()]
    if not files:
        raise InputError(f"model.weights {folder}: holds neither {' nor '.join(NAMES)}, in one piece each")
    return read_weights(files[0])


def read_config(network: ModelConfig) -> dict[str, Any]:
    """What the config.json beside the weights says; nothing where there is none."""
    folder = _folder(network)
    if folder is None or not (folder / CONFIG).is_file():
        return {}
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / CONFIG}: is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{folder / CONFIG}: must be an object")
    return found
