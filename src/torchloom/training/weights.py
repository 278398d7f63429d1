"""Weights in a file, whoever has made it: data alone, nothing of it is run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from torchloom.errors import InputError

WRAPPERS = ("state_dict", "model")  # what a file may have its weights below
PREFIXES = ("module.", "_orig_mod.")  # what training on several devices and compiling put before names


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors by name, on the CPU, of a file in safetensors or of torch.save.

    InputError when it cannot be read so, also of what would have to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of weights")
    try:
        found: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: holds no weights that can be read as data alone, as safetensors or as torch.save writes a "
            f"state_dict ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error
    for name in WRAPPERS:
        found = found[name] if isinstance(found, dict) and isinstance(found.get(name), dict) else found
    weights = {_plain(name): each for name, each in dict(found).items() if isinstance(each, Tensor)} if found else {}
    if not weights:
        raise InputError(f"{path}: holds no weights by name, as a state_dict has them")
    return weights


def _plain(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name
