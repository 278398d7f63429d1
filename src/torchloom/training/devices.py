"""The machine: which device, which precision, and randomness under control."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager

import numpy as np
import torch

from torchloom.errors import InputError


def choose_device(name: str) -> torch.device:
    """The named device, or for `auto` the first of cuda, mps and xpu that is there, else the CPU.

    Raises InputError when the named one is not there.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return torch.device(accelerator.type) if accelerator else torch.device("cpu")
    device = torch.device(name)
    if device.type != "cpu" and (accelerator is None or accelerator.type != device.type):
        there = f"{accelerator.type} and cpu" if accelerator else "only cpu"
        raise InputError(
            f"the device {name!r} is not on this machine; there is {there} (train.device, evaluate.device)"
        )
    if device.index is not None and device.type != "cpu" and device.index >= torch.accelerator.device_count():
        raise InputError(
            f"the device {name!r} is not on this machine; it has {torch.accelerator.device_count()} of its kind"
        )
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The type of matrix products: `auto` is bfloat16 where the hardware multiplies it natively, else float32."""
    if name == "auto":
        return torch.bfloat16 if has_native_bf16(device) else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def has_native_bf16(device: torch.device) -> bool:
    """Compute capability 8 on CUDA; AMX or AVX512-BF16 on the CPU."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        checks = [getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")]
        return any(check() for check in checks if check is not None)
    return False


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed Python's, numpy's and all of torch's global generators; optionally allow deterministic algorithms only."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic
