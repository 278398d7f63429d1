import os
import platform
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from torchloom.errors import InputError
from torchloom.system import devices
from torchloom.system.devices import (
    autocast,
    choose_device,
    choose_precision,
    free_memory,
    has_native_bf16,
    seed_everything,
    tuned_host,
    usable_cores,
    usable_memory,
)

CPU = torch.device("cpu")


def draws() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(())), float(torch.randn(()))]


@pytest.mark.gpu
def test_auto_is_a_device_that_is_there() -> None:
    device = choose_device("auto")
    assert torch.ones(2, device=device).sum().item() == 2
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    assert device.type == (accelerator.type if accelerator else "cpu")


def test_the_cpu_is_always_there() -> None:
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda:99", "meta"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(InputError, match=f"the device '{name}' is not on this machine"):
        choose_device(name)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without an accelerator")
@pytest.mark.parametrize("name", ["cuda", "cuda:9", "mps", "xpu"])
def test_a_cpu_machine_says_that_it_is_one(name: str) -> None:
    with pytest.raises(InputError, match=f"the device '{name}' is not on this machine; there is only cpu"):
        choose_device(name)


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_precision_by_name_is_that_of_matrix_products(name: str, dtype: torch.dtype) -> None:
    assert choose_precision(name, CPU) is dtype
    with autocast(CPU, dtype):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is dtype
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float32


def test_auto_precision_is_bf16_only_where_it_is_native() -> None:
    assert choose_precision("auto", CPU) is (torch.bfloat16 if has_native_bf16(CPU) else torch.float32)
    assert choose_precision("auto", torch.device("mps")) is torch.float32


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="needs Linux")
@pytest.mark.skipif("ONEDNN_MAX_CPU_ISA" in os.environ, reason="needs the processor as it is")
def test_native_bf16_is_what_the_processor_says_of_itself() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert has_native_bf16(CPU) is bool(flags & {"amx_tile", "avx512_bf16"})


@pytest.mark.parametrize("flag", ["_is_amx_tile_supported", "_is_avx512_bf16_supported", None])
@pytest.mark.parametrize(
    ("limit", "taken", "native"),
    [
        (None, True, True),
        ("ALL", True, True),
        ("AVX512_CORE_BF16", True, True),
        ("AVX512_CORE_AMX", True, True),
        ("AVX512_CORE", True, False),
        ("avx512_core", True, False),
        ("AVX512_CORE_VNNI", True, False),
        ("AVX2", False, False),
    ],
)
def test_bf16_is_native_where_a_flag_stands_and_onednn_may_use_it(
    monkeypatch: pytest.MonkeyPatch, flag: str | None, limit: str | None, taken: bool, native: bool
) -> None:
    """On processors that this one may not be: what torch tells of them and of oneDNN."""
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == flag, raising=False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: taken)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if limit:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert has_native_bf16(CPU) is (flag is not None and native)


def test_onednn_itself_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, since oneDNN looks at the limit once."""
    code = "import torch; from torchloom.system.devices import onednn_computes_bf16 as f; print(f())"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert answer == "False\n"


def test_the_memory_of_a_cpu_is_that_of_the_machine_at_most() -> None:
    assert 0 < free_memory(CPU) <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/job/step\n", {"job/step/memory.max": "max", "job/memory.max": "5000\n", "memory.max": "9000"}, 5000),
        ("0::/job\n", {"job/memory.max": "5000", "memory.max": "4000"}, 4000),
        ("0::/of/the/host\n", {"memory.max": "7000"}, 7000),  # in a container, where its own group is the top
        ("5:cpu,memory:/job\n0::/\n", {"memory/job/memory.limit_in_bytes": "3000", "memory.max": "max"}, 3000),
        ("5:cpu:/job\n0::/\n", {"memory/job/memory.limit_in_bytes": "3000"}, None),
        (None, {}, None),
    ],
)
def test_a_control_group_bounds_the_memory(
    tmp_path: Path, groups: str | None, limits: dict[str, str], expected: int | None
) -> None:
    if groups is not None:
        (tmp_path / "cgroup").write_text(groups)
    for name, limit in limits.items():
        (tmp_path / "limits" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "limits" / name).write_text(limit)
    found = usable_memory(tmp_path / "cgroup", tmp_path / "limits")
    assert found == (expected or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


# ---- threads and the allocator -------------------------------------------------------------------------------------


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("max 100000", 3),
        ("100000 100000", 1),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("1 100000", 1),
        ("200000 100000", 2),
        ("250000 100000\n", 3),
        ("1600000 100000", 3),  # never more than PyTorch would take
        ("20000 10000", 2),
        ("", 3),
        ("100000", 3),
        ("100000 100000 100000", 3),
        ("a lot", 3),
        ("\xff\x00", 3),
        (None, 3),
    ],
)
def test_a_containers_limit_bounds_the_threads(tmp_path: Path, limit: str | None, cores: int) -> None:
    file = tmp_path / "cpu.max"
    if limit is not None:
        file.write_bytes(limit.encode("latin1"))
    assert usable_cores(file) == cores


@pytest.mark.usefixtures("three_threads")
def test_a_limit_that_is_no_file_is_none(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 3


@pytest.fixture
def settings_of_malloc(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """What malloc is told, one entry a time; it is not told in fact."""
    told: list[dict[str, int]] = []
    monkeypatch.setattr(devices, "_configure_malloc", lambda **settings: told.append(settings))
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    return told


class StopError(Exception):
    pass


def run_tuned(threads: int | None, keep_memory: bool, device: torch.device = CPU, raises: bool = False) -> int:
    """How many threads there are within."""
    inside = 0
    try:
        with tuned_host(device, threads, keep_memory):
            inside = torch.get_num_threads()
            if raises:
                raise StopError
    except StopError:
        assert raises
    return inside


@pytest.mark.usefixtures("three_threads", "settings_of_malloc")
@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("keep_memory", [False, True])
def test_threads_are_as_asked_and_then_as_before(
    monkeypatch: pytest.MonkeyPatch, keep_memory: bool, raises: bool
) -> None:
    assert run_tuned(2, keep_memory, raises=raises) == 2
    assert torch.get_num_threads() == 3
    monkeypatch.setattr(devices, "usable_cores", lambda: 1)
    assert run_tuned(None, keep_memory, raises=raises) == 1
    assert torch.get_num_threads() == 3
    assert run_tuned(5, keep_memory, raises=raises) == 5  # also more than there are
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("raises", [False, True])
def test_malloc_keeps_memory_and_then_no_longer(settings_of_malloc: list[dict[str, int]], raises: bool) -> None:
    run_tuned(2, True, raises=raises)
    within, afterwards = settings_of_malloc
    assert within.keys() == afterwards.keys() == {"mmap_max", "trim_threshold", "top_pad"}
    assert within["mmap_max"] == 0
    assert within["trim_threshold"] > 2**30
    assert afterwards == {"mmap_max": 65536, "trim_threshold": 131072, "top_pad": 131072}  # man 3 mallopt


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize(
    ("keep_memory", "device", "libc"),
    [
        (False, CPU, ("glibc", "2.36")),
        (True, torch.device("cuda"), ("glibc", "2.36")),
        (True, CPU, ("", "")),  # macOS, Windows and musl
        (True, CPU, ("libc", "")),
    ],
)
def test_malloc_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
    settings_of_malloc: list[dict[str, int]],
    keep_memory: bool,
    device: torch.device,
    libc: tuple[str, str],
) -> None:
    def load(name: str | None) -> None:
        raise AssertionError("the C library is not to be touched")

    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    monkeypatch.setattr(devices.ctypes, "CDLL", load)
    for raises in (False, True):
        assert run_tuned(2, keep_memory, device, raises) == 2
        assert torch.get_num_threads() == 3
    assert settings_of_malloc == []


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_glibc_takes_the_settings() -> None:
    """By the numbers that malloc.h has for them."""
    names = {-1: "M_TRIM_THRESHOLD", -2: "M_TOP_PAD", -4: "M_MMAP_MAX"}
    taken: list[tuple[str, int]] = []

    class Library:
        def __init__(self) -> None:
            self.real = devices.ctypes.CDLL(None)

        def mallopt(self, option: int, value: int) -> None:
            assert self.real.mallopt(option, value) == 1
            taken.append((names[option], value))

        def malloc_trim(self, pad: int) -> None:
            self.real.malloc_trim(pad)

    library = Library()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices.ctypes, "CDLL", lambda name: library)
        with tuned_host(CPU, None, True):
            assert torch.ones(2**20).sum().item() == 2**20
    assert [name for name, _ in taken[:3]] == [name for name, _ in taken[3:]]
    assert dict(taken[:3])["M_MMAP_MAX"] == 0
    assert dict(taken[3:]) == {"M_TRIM_THRESHOLD": 131072, "M_TOP_PAD": 131072, "M_MMAP_MAX": 65536}


# ---- randomness ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
def test_a_seed_repeats_all_draws(seed: int) -> None:
    seed_everything(seed)
    first = draws()
    assert draws() != first
    seed_everything(seed)
    assert draws() == first


def test_each_generator_follows_the_seed() -> None:
    seed_everything(1)
    first = draws()
    seed_everything(2)
    assert all(ours != theirs for ours, theirs in zip(draws(), first, strict=True))


@pytest.mark.parametrize("deterministic", [True, False])
def test_deterministic_algorithms_on_demand(deterministic: bool) -> None:
    seed_everything(0, deterministic)
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic
