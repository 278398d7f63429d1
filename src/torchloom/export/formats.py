"""Other formats than ONNX: what PyTorch itself and programs with its C++ library run, without our code."""

from __future__ import annotations

import io
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchloom.errors import InputError
from torchloom.export.onnx import Signature, as_tuple, at_least_two, takes_any_number

Program = Callable[..., Any]  # takes tensors, gives a tensor or several
FILES = {"torch_export": "model.pt2", "torchscript": "model.torchscript.pt", "aot_inductor": "model.aoti.pt2"}


def save(name: str, model: nn.Module, form: Signature) -> bytes:
    """The model in the format of this name, one of FILES.

    `torch_export` and `aot_inductor` (which is compiled for this machine's processor and takes a C++ compiler) keep the
    axes of the signature open; with networks that read texts of any length PyTorch cannot do that. `torchscript`
    is for programs that cannot load anything newer: PyTorch deprecates it. Raises InputError when PyTorch cannot export
    the model like that.
    """
    torch.compiler.reset()  # what was traced for an earlier export of this process could fix this one's lengths
    try:
        with torch.no_grad(), _quiet():
            if name == "torchscript":
                return _torchscript(model, form.inputs)
            program = _program(model, form)
            return _aot_inductor(program) if name == "aot_inductor" else _pt2(program)
    except Exception as error:  # each stage of it has its own
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"export.formats {name}: torch {torch.__version__} cannot export this model like that "
            f"({type(error).__name__}: {reason}). Leave {name} out"
        ) from error


def load(name: str, path: Path) -> Program:
    """The saved model, ready to be called."""
    with _quiet():
        if name == "torch_export":
            program: Program = torch.export.load(path).module()
        elif name == "torchscript":
            program = torch.jit.load(path)  # type: ignore[no-untyped-call]
        else:
            program = torch._inductor.aoti_load_package(str(path))
    return program


def reopen(name: str, saved: bytes) -> tuple[Program, float]:
    """The model out of a file of its own, and the milliseconds that it takes to load it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILES[name]
        path.write_bytes(saved)
        return timed(lambda: load(name, path))


def runner(program: Program) -> Callable[[dict[str, Tensor]], list[np.ndarray]]:
    """What `export.parity` asks for."""
    return lambda inputs: [tensor.numpy() for tensor in as_tuple(program(*inputs.values()))]


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and the milliseconds that it took."""
    started = time.perf_counter()
    return call(), 1000 * (time.perf_counter() - started)


def _program(model: nn.Module, form: Signature) -> torch.export.ExportedProgram:
    dims = {name: torch.export.Dim(name) for axes in form.axes.values() for name in axes.values()}
    open_axes = tuple({axis: dims[name] for axis, name in form.axes[given].items()} for given in form.inputs)
    samples = tuple(at_least_two(tensor, form.axes[name]) for name, tensor in form.inputs.items())
    shapes = (open_axes,) if takes_any_number(model) else open_axes
    return torch.export.export(model, samples, dynamic_shapes=shapes)


def _pt2(program: torch.export.ExportedProgram) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILES["torch_export"]
        torch.export.save(program, path)
        return path.read_bytes()


def _aot_inductor(program: torch.export.ExportedProgram) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILES["aot_inductor"]
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))
        return path.read_bytes()


def _torchscript(model: nn.Module, inputs: dict[str, Tensor]) -> bytes:
    traced = torch.jit.trace(model, tuple(inputs.values()), check_trace=False)  # type: ignore[no-untyped-call]
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.freeze(traced), buffer)
    return buffer.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PyTorch's warnings about itself; that TorchScript is deprecated is in our README."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
