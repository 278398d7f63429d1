import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from torchloom.errors import InputError
from torchloom.training.devices import autocast, choose_device, choose_precision, has_native_bf16, seed_everything

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _seeded_as_usual() -> Iterator[None]:
    yield
    seed_everything(0)


def draws() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(())), float(torch.randn(()))]


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
def test_a_cpu_without_the_instructions_has_no_native_bf16() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert has_native_bf16(CPU) <= bool(flags & {"amx_tile", "avx512_bf16"})


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
