"""The machine: which device, which precision, its threads and memory, and randomness under control."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import numpy as np
import torch

from torchloom.errors import InputError

# What torch says when there is no memory left: on CUDA, XPU and MPS; on CPUs; from the libraries that it calls.
OUT_OF_MEMORY = ("out of memory", "Cannot allocate memory", "not enough memory", "bad_alloc", "ALLOC_FAILED")
EMULATE_BF16 = {"AVX512_CORE", "AVX512_CORE_VNNI"}  # limits under which oneDNN says that it takes bf16
# What it says of layers that it has no kernels for in a type.
NO_KERNEL = ("could not create a primitive", "not implemented for 'Half'", "not implemented for 'BFloat16'")
ONE_VALUE = "more than 1 value per channel"  # what it says of batch norm that is to train on one value


class NoMemoryError(InputError):
    """The device or the host has no memory left."""


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
    """Compute capability 8 on CUDA; AMX or AVX512-BF16 on the CPU, where oneDNN may use them."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        checks = [getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")]
        return any(check() for check in checks if check is not None) and onednn_computes_bf16()
    return False


def onednn_computes_bf16() -> bool:
    """Whether oneDNN, which follows ONEDNN_MAX_CPU_ISA, takes bf16 and does not emulate it."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and limit.upper() not in EMULATE_BF16


def free_memory(device: torch.device) -> float:
    """Bytes of the device's memory that are free, as far as PyTorch can tell; of the CPU's all that one may use."""
    if device.type == "cpu":
        return usable_memory()
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    if device.type == "xpu":
        return float(torch.xpu.mem_get_info(device)[0])
    return math.inf


def used_memory(device: torch.device) -> int:
    """Bytes that this process holds: on CUDA of the device's memory, else of the machine's; 0 where it is not known."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    with suppress(OSError, AttributeError):
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return 0


def room_for_memory(device: torch.device) -> float:
    """Bytes that this process may take yet, where the device is the CPU, but for a tenth of them; else inf.

    On other devices what is too much raises an error, and nobody is killed.
    """
    if device.type != "cpu":
        return math.inf
    room = usable_memory() - used_memory(device)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        room = min(room, next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")))
    return 0.9 * max(room, 0.0)


def usable_memory(groups: Path = Path("/proc/self/cgroup"), limits: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes of memory that the machine has or, if it is less, that a control group (v1 or v2) allows; else inf.

    `groups` names those that the process is in, and `limits` is where they are.
    """
    known = [math.inf]
    with suppress(AttributeError, ValueError, OSError):  # as on Windows
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            top = limits / "memory" if controllers else limits
            group = top / path.lstrip("/")
            for folder in [group, *(parent for parent in group.parents if parent.is_relative_to(top))]:
                with suppress(OSError, ValueError):  # not the group's name in this container; no limit
                    name = "memory.limit_in_bytes" if controllers else "memory.max"
                    known.append(int((folder / name).read_text()))
    return min(known)


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Threads that PyTorch would take, but not more than the cores whose time a container's limit allows."""
    threads = torch.get_num_threads()
    try:
        quota, period = cgroup.read_text().split()
        return max(1, min(threads, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such limit
        return threads


@contextmanager
def tuned_host(device: torch.device, threads: int | None, keep_memory: bool, processes: int = 1) -> Iterator[None]:
    """Run with so many CPU threads and, on CPUs, with an allocator that keeps what is freed; as before afterwards.

    Without a number, `processes` share the cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or max(1, usable_cores() // processes))
    kept = keep_memory and device.type == "cpu" and platform.libc_ver()[0] == "glibc"
    if kept:
        _configure_malloc(mmap_max=0, trim_threshold=2**31 - 1, top_pad=2**28)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if kept:
            _configure_malloc(mmap_max=65536, trim_threshold=2**17, top_pad=2**17)  # as malloc starts
            give_memory_back()


def give_memory_back() -> None:
    """Hand what is freed back to the system, where the allocator can."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _configure_malloc(mmap_max: int, trim_threshold: int, top_pad: int) -> None:
    """glibc gives large blocks back when they are freed and takes new ones, page fault by page fault, in each step."""
    libc = ctypes.CDLL(None)
    for option, value in ((-4, mmap_max), (-1, trim_threshold), (-2, top_pad)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, …
        libc.mallopt(option, value)


def compile_network(network: torch.nn.Module, device: torch.device, one_pass_a_step: bool) -> torch.nn.Module:
    """`network` compiled; on CUDA as CUDA graphs, unless gradients are summed over several passes."""
    graphs = device.type == "cuda" and one_pass_a_step
    compiled: torch.nn.Module = torch.compile(network, mode="reduce-overhead" if graphs else "default")  # type: ignore[assignment]
    return compiled


@contextmanager
def enough_memory(advice: str) -> Iterator[None]:
    """NoMemoryError, which ends with `advice`, when device or host have no memory left for what is done within."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        lines = [line for line in str(error).splitlines() if line] or ["no memory left"]
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in OUT_OF_MEMORY):
            raise
        raise NoMemoryError(f"the memory is not enough ({lines[0]}). {advice}") from error


@contextmanager
def computable(dtype: torch.dtype, block: str) -> Iterator[None]:
    """InputError, which names the key of `block`, when the first batch shows that a network cannot have it so."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if ONE_VALUE in str(error):
            raise InputError(
                f"{block}.batch_size: batch norm cannot train on one sample at a time, as it takes out their mean. "
                "Take 2 samples or more for each process, or a network without batch norm"
            ) from error
        if dtype is torch.float32 or not any(sign in str(error) for sign in NO_KERNEL):
            raise
        raise InputError(
            f"{block}.precision: a layer of the network cannot be computed in {dtype} on this machine "
            f"({str(error).splitlines()[0]}). Take {block}.precision=fp32"
        ) from error


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed Python's, numpy's and all of torch's global generators; optionally allow deterministic algorithms only."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic != torch.are_deterministic_algorithms_enabled():  # it imports torch._inductor: seconds
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic
