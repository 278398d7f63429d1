"""Weights in files that others have made: as safetensors, or as torch.save writes them. No code of a file is run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchloom.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
WITHIN = ("state_dict", "model_state_dict", "model")  # where a file has them among other things
WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before each name


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file by name, on the CPU, without what wrappers of a model put before the names.

    Raises InputError, which begins with the path, when there are none, or none that can be had without running code, or
    when one is no dense tensor of numbers.
    """
    try:
        path.open("rb").close()
        held = _safetensors(path) if path.suffix.lower() == ".safetensors" else _torch(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return _unwrapped(_found(path, held))


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: damaged or not a safetensors file ({error})") from error


def _torch(path: Path) -> Any:
    import pickle

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files of old versions of torch
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: holds more than weights, which would have to be run to be read, or is no file of torch.save. "
            "Save model.state_dict() alone, as safetensors at best"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: damaged or not a file of torch.save ({reason})") from error


def _found(path: Path, held: Any) -> dict[str, Tensor]:
    """The weights among all that a file holds."""
    import torch

    for key in WITHIN:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    entries = held if isinstance(held, Mapping) else {}
    weights = {str(name): weight for name, weight in entries.items() if isinstance(weight, torch.Tensor)}
    if not weights:
        named = ", ".join(list(map(str, entries))[:5])
        raise InputError(f"{path}: holds no weights by name{f', only {named}' if named else ''}")
    for name, weight in weights.items():
        _check_numbers(f"{path}: {name}", weight)
    return weights


def _check_numbers(place: str, weight: Tensor) -> None:
    """Raise InputError unless a layer can have these as they are."""
    import torch

    dense = weight.layout is torch.strided and not (weight.is_meta or weight.is_quantized or weight.is_complex())
    if not dense:
        raise InputError(f"{place} is sparse, quantized, complex or without values. Save dense, plain numbers")
    if weight.is_floating_point() and bool(weight.float().isnan().any()):
        raise InputError(f"{place} has values that are no numbers (nan): what left them has failed. Take earlier ones")


def check_types(place: str, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise InputError, which begins with `place`, where whole numbers are given for what a network has as others."""
    for name, weight in given.items():
        if name in wanted and wanted[name].is_floating_point() and not weight.is_floating_point():
            types = " and not ".join(str(each.dtype).removeprefix("torch.") for each in (weight, wanted[name]))
            raise InputError(
                f"{place}: {name} is {types}. Whole numbers are those of a quantized network, whose scales are "
                "elsewhere: take the weights that it had before"
            )


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := next((each for each in WRAPPERS if all(name.startswith(each) for name in weights)), None):
        weights = {name.removeprefix(prefix): weight for name, weight in weights.items()}
    return weights
