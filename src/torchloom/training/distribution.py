"""Several processes, on one machine or on several, that train one network together.

`launch` starts them with torch's own elastic launcher and returns what came of it; `Ranks` is what the training loop
sees of the others. Each process works on its part of every batch, and DistributedDataParallel averages the gradients
(Li et al., "PyTorch distributed: experiences on accelerating data parallel training", VLDB 2020).
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import pickle
import re
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.parallel import DistributedDataParallel

from torchloom.config import DistributedConfig, own
from torchloom.config.checks import differences
from torchloom.errors import InputError
from torchloom.system.devices import choose_device
from torchloom.system.processes import CONTEXT, end_with_parent
from torchloom.system.words import counted
from torchloom.training.callbacks import epoch_callbacks

logger = logging.getLogger(__name__)

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# variables that the launcher gives each process
OF_A_RANK = re.compile(r"(RANK|WORLD_SIZE)$|(LOCAL|GROUP|ROLE|MASTER|TORCHELASTIC)_")
# files by which a launch and its processes talk
STOP, JOB, ROWS, OUTCOME, FAILED, BEGUN = "stop", "job", "rows", "outcome", "failed", "begun"


# ---- what one process sees of the others ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; one that is alone pays nothing for it."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those on this machine
    local_size: int = 1
    sync_batch_norm: bool = True
    again: bool = False  # whether all of them had begun before, and one was lost
    folder: Path | None = None  # where this machine's processes may be told to stop
    control: Any = None  # a group for what is not on the device

    @property
    def share(self) -> tuple[int, int]:
        """Which part of each batch is for this process, of how many."""
        return self.rank, self.size

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def one(self, value: Any, source: int = 0) -> Any:
        """The value that the process `source` has."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, source, group=self.control)
        return values[0]

    def total(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The sums over all processes, in the order of the ranks and therefore with the same bits everywhere."""
        parts = self.gather(dict(figures))
        return {name: sum(part.get(name, 0) for part in parts) for name in dict.fromkeys(n for p in parts for n in p)}

    def prepare(self, model: nn.Module) -> None:
        """Before anything else knows the layers of `model`: let batch norm take its statistics over all processes."""
        if self.size > 1 and self.sync_batch_norm:
            synchronize_batch_norm(model)

    def parallel(self, network: nn.Module) -> nn.Module:
        """`network` such that its gradients become the mean over all processes. Call it anew when others learn.

        Each process gathers statistics of its own, which nobody needs before `share_buffers`.
        """
        if self.size == 1:
            return network
        known = inspect.signature(DistributedDataParallel).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its older name
        options: dict[str, Any] = {buffers: False}
        return DistributedDataParallel(network, **options)

    def exchange(self, network: nn.Module, now: bool) -> AbstractContextManager[None]:
        """Forward and backward pass within; gradients are only summed up here until they are exchanged."""
        held = isinstance(network, DistributedDataParallel) and not now
        return network.no_sync() if held else nullcontext()  # type: ignore[operator]

    def share_buffers(self, model: nn.Module) -> None:
        """Take over the first process's buffers, such as statistics of batch norm, which each has gathered alone."""
        if self.size > 1 and not self.sync_batch_norm:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def told_to_stop(self) -> bool:
        return self.folder is not None and (self.folder / STOP).exists()

    def check_same(self, recipe: Mapping[str, Any]) -> None:
        """InputError when another machine would train otherwise: with other data, parameters or code."""
        for rank, other in enumerate(self.gather(dict(recipe))):
            lines = list(differences(recipe, other))
            versions = [line for line in lines if line.startswith("packages.")]
            for line in versions if self.local_rank == 0 else ():
                logger.warning("process %d has another version: %s there", rank, line)
            if len(lines) > len(versions):
                others = "\n".join(f"  {line} there" for line in lines if line not in versions)
                raise InputError(f"processes {self.rank} and {rank} would not train the same:\n{others}")


ALONE = Ranks()


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the batches (B, C, …) of all processes, on any device; torch's own takes GPUs only."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        pass

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if not self.training:
            mean, variance = self.running_mean, self.running_var
            return nn.functional.batch_norm(input, mean, variance, self.weight, self.bias, eps=self.eps)
        assert self.running_mean is not None
        assert self.running_var is not None
        result: Tensor
        result, mean, variance = _BatchNorm.apply(input, self.weight, self.bias, self.eps)
        with torch.no_grad():
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, share)
            count = input.numel() // input.shape[1] * dist.get_world_size()
            self.running_var.lerp_(variance * count / max(count - 1, 1), share)
        return result


class _BatchNorm(torch.autograd.Function):
    """Batch norm over the equally large batches of all processes, with the kernels that torch has for that of one."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
        ctx.eps = eps
        ctx.count = values.numel() // values.shape[1] * dist.get_world_size()
        start = torch.zeros(2, values.shape[1], device=values.device)  # of float32, so that the outcome is too
        here = torch.stack(torch.batch_norm_update_stats(values, start[0], start[1], 0.0))  # mean, biased variance
        means, variances = _of_all(here).unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        ctx.save_for_backward(values, weight, mean, variance)
        ctx.mark_non_differentiable(mean, variance)
        return torch.native_batch_norm(values, weight, bias, mean, variance, False, 0.0, eps)[0], mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> Any:
        """What it would be if mean and variance were given, less what it owes to their being those of the values."""
        values, weight, mean, variance = ctx.saved_tensors
        given, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, values, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        # the loss of each process depends on what the others gave
        shares = _of_all(torch.stack([of_weight, of_bias])).sum(0) * torch.rsqrt(variance + ctx.eps) / ctx.count
        slope, offset = shares if weight is None else shares * weight
        given -= torch.native_batch_norm(values, slope, offset, mean, variance, False, 0.0, ctx.eps)[0]
        return given, *((None, None) if weight is None else (of_weight, of_bias)), None


def _of_all(values: Tensor) -> Tensor:
    """The tensors of all processes (processes, …), by rank; for little ones quicker than their sum is by gloo."""
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values)
    return torch.stack(parts)


def synchronize_batch_norm(model: nn.Module) -> None:
    """Replace the layers of batch norm in place by ones that look at all processes; parameters and buffers stay."""
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, NORMS) and layer.track_running_stats:
                synchronized = SyncBatchNorm(layer.num_features, layer.eps, layer.momentum, layer.affine)
                synchronized.weight, synchronized.bias = layer.weight, layer.bias
                for buffer, value in layer.named_buffers(recurse=False):
                    setattr(synchronized, buffer, value)
                setattr(parent, name, synchronized)


# ---- starting them -------------------------------------------------------------------------------------------------


def launch(function: Callable[..., Any], job: Any, config: DistributedConfig, device: str) -> Any:
    """Run `function(ranks, job)` in all processes, and return what it returns on this machine's first one.

    All of it must pickle. A process that is lost brings all of them to an end, and they begin again, `config.restarts`
    times. Ctrl-C and SIGTERM ask them to stop, a second one stops them at once. Raises the InputError that one of them
    raised, an InputError when a machine does not come or goes away, and KeyboardInterrupt when they were told to stop.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher.api import elastic_launch

    processes = processes_here(config, device)
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # it would say it all in its own words
    with ExitStack() as stack:
        name = stack.enter_context(TemporaryDirectory(prefix="torchloom-"))
        folder = Path(name)
        stack.enter_context(asking_to_stop(folder / STOP))
        stack.enter_context(showing_rows(folder / ROWS))
        # else the processes of a restart find the addresses of those before them
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        _write(folder / JOB, (function, job, config, device, own.named(), dict(os.environ)))
        where = counted(processes, "process") + (
            f" on each of {config.machines} machines" if config.machines > 1 else ""
        )
        logger.info("training in %s%s", where, f", which meet at {config.address}" if config.address else "")
        try:
            elastic_launch(_settings(config, processes), _run_rank)(name)
        except ChildFailedError as error:
            raise InputError(_failure(folder, config)) from error
        except RendezvousError as error:
            raise InputError(
                f"distributed.address {config.address}: {config.machines} machines did not come together within "
                f"distributed.timeout {config.timeout:g} s, or one of them has gone. Start the same command on each, "
                "and see that the address is that of one of them and that its port can be reached"
            ) from error
        told, outcome = _read(folder / OUTCOME)
    if told == "stopped":
        raise KeyboardInterrupt
    if told == "refused":
        raise InputError(outcome)
    return outcome


def processes_here(config: DistributedConfig, device: str) -> int:
    """How many processes run on this machine. InputError when there are not so many devices."""
    if config.processes == "auto" and config.machines == 1 and choose_device(device).type == "cpu":
        return 2
    place = choose_device(device)
    devices = torch.accelerator.device_count() if place.type != "cpu" else 0
    count = config.processes if config.processes != "auto" else max(devices, 1)
    if place.type == "mps":
        raise InputError("distributed: several processes cannot train on mps; set train.device: cpu")
    if place.index is not None and count > 1:
        raise InputError(f"train.device {device}: {count} processes need a device each; set train.device: {place.type}")
    if devices and count > devices:
        raise InputError(f"distributed.processes {count}: this machine has {devices} devices of the kind {place.type}")
    return count


def _settings(config: DistributedConfig, processes: int) -> Any:
    from torch.distributed.launcher.api import LaunchConfig

    endpoint = config.address or "127.0.0.1:0"
    here = _own_address(endpoint)
    return LaunchConfig(
        min_nodes=config.machines,
        max_nodes=config.machines,
        nproc_per_node=processes,
        run_id="torchloom",
        rdzv_backend="c10d",
        rdzv_endpoint=endpoint,
        rdzv_configs={
            "is_host": here == socket.gethostbyname(endpoint.rpartition(":")[0]),
            "join_timeout": round(config.timeout),
            "timeout": round(config.timeout),
            "read_timeout": round(config.timeout),
        },
        max_restarts=config.restarts,
        start_method=CONTEXT.get_start_method(),
        local_addr=here,
        signals_to_handle="SIGHUP",
    )


def _own_address(endpoint: str) -> str:
    """The address under which this machine is known to the others: that of the way to `endpoint`. Nothing is sent."""
    host, _, port = endpoint.rpartition(":")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, int(port) or 1))
            return str(probe.getsockname()[0])
    except OSError as error:
        raise InputError(f"distributed.address {endpoint}: cannot be reached ({error.strerror or error})") from error


def _interface(address: str) -> str | None:
    """The name of the network interface that has the address, where the system tells it."""
    try:
        import fcntl

        for _, name in socket.if_nameindex():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
                found = fcntl.ioctl(probe.fileno(), 0x8915, name.encode().ljust(40, b"\0"))  # SIOCGIFADDR
                if socket.inet_ntoa(found[20:24]) == address:
                    return name
    except (ImportError, OSError):
        pass
    return None


@contextmanager
def asking_to_stop(file: Path) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM leave `file`, by which the processes are asked to stop; a second one ends them at once."""

    def ask(*_: Any) -> None:
        if file.exists():
            raise KeyboardInterrupt
        file.touch()
        logger.warning("stopping after this step, to save the state; once more to stop at once")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = [number for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None)) if number]
    before = {number: signal.getsignal(number) for number in handled}
    for number in handled[:2]:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def showing_rows(file: Path) -> Iterator[None]:
    """The callbacks here are called with the rows that come into `file`; they cannot end the training."""
    callbacks, ended = epoch_callbacks.get(), threading.Event()
    if not callbacks:
        yield
        return
    file.touch()

    def follow() -> None:
        over, rest = False, ""
        with file.open(encoding="utf-8") as rows:
            while not over:
                over = ended.wait(0.2)
                *lines, rest = (rest + rows.read()).split("\n")
                for line in lines:
                    for callback in callbacks:
                        callback(json.loads(line))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _failure(folder: Path, config: DistributedConfig) -> str:
    """What to say when they failed for the last time."""
    refused = [message for kind, message in _failures(folder) if kind == "refused"]
    if refused:
        return refused[0]
    reasons = "\n".join(dict.fromkeys(message for _, message in _failures(folder)))
    if not reasons and not any(folder.glob(f"{BEGUN}-*")):
        return (
            "the processes of the training ended before they began; what they said stands above. A script that trains "
            'in several must come from a file, and do so below if __name__ == "__main__":'
        )
    return (
        f"the training lost one of its processes {config.restarts + 1} times (distributed.restarts {config.restarts}). "
        f"What they said:\n{reasons or 'nothing: they were killed, perhaps because the memory was not enough'}"
    )


# ---- one of them ---------------------------------------------------------------------------------------------------


def _run_rank(name: str) -> None:
    """What each process runs: the job in the folder `name`. The first on its machine leaves the outcome there."""
    folder = Path(name)
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the launch, which tells all of them to stop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    local_rank = int(os.environ["LOCAL_RANK"])
    if local_rank == 0 and (folder / ROWS).exists():
        epoch_callbacks.set((partial(_leave_row, folder / ROWS),))
    _start_logging(local_rank == 0)
    function, job, config, device, named, environment = _read(folder / JOB)
    os.environ.update({name: value for name, value in environment.items() if not OF_A_RANK.match(name)})
    own.name_also(named)
    try:
        with _joined(folder, config, choose_device(device), local_rank) as ranks:
            outcome = _no_need(ranks) or ("done", function(ranks, job))
    except KeyboardInterrupt:
        outcome = ("stopped", None)
    except Exception as error:
        told = error if isinstance(error, InputError) else own.explained(error, "train")
        kind = "refused" if told else "failed"
        message = told.message if told else traceback.format_exc()
        _write(folder / f"{FAILED}-{os.getpid()}", (kind, message))
        raise
    if local_rank == 0:
        _write(folder / OUTCOME, outcome)


def _leave_row(file: Path, row: Mapping[str, float]) -> None:
    with file.open("a", encoding="utf-8") as rows:
        rows.write(json.dumps(row) + "\n")


def _no_need(ranks: Ranks) -> tuple[str, Any] | None:
    """An outcome when there is no point in beginning, or beginning again: told to stop, or a mistake of the user's."""
    assert ranks.folder is not None
    failures = [failure for machine in ranks.gather(_failures(ranks.folder)) for failure in machine]
    if any(ranks.gather(ranks.told_to_stop())):
        return "stopped", None
    refused = next((failure for failure in failures if failure[0] == "refused"), None)
    if ranks.again and refused is None and ranks.local_rank == 0:
        logger.warning("a process was lost; all begin again from the last saved state")
    return refused


@contextmanager
def _joined(folder: Path, config: DistributedConfig, device: torch.device, local_rank: int) -> Iterator[Ranks]:
    """Meet the others."""
    interface = _interface(_own_address(config.address or "127.0.0.1:0"))
    for library in ("GLOO", "NCCL") if interface else ():
        if config.machines > 1 or library == "GLOO":
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", str(interface))
    if device.type != "cpu":
        torch.accelerator.set_device_index(local_rank)
    backend = dist.get_default_backend_for_device(device.type)
    patience = timedelta(seconds=config.timeout)
    dist.init_process_group(backend, timeout=patience)
    control = dist.new_group(backend="gloo", timeout=patience) if backend != "gloo" else None
    begun = folder / f"{BEGUN}-{local_rank}"
    ranks = Ranks(
        dist.get_rank(),
        dist.get_world_size(),
        local_rank,
        int(os.environ["LOCAL_WORLD_SIZE"]),
        config.sync_batch_norm,
        folder=folder,
        control=control,
    )
    try:
        again = any(ranks.gather(begun.exists()))
        begun.touch()
        yield replace(ranks, again=again)
    finally:
        dist.destroy_process_group()


def _start_logging(shown: bool) -> None:
    """Log as the project does, on each machine from one process only."""
    from kedro.framework.project import LOGGING

    LOGGING.set_project_logging("torchloom")
    logging.getLogger("torchloom").setLevel(logging.INFO if shown else logging.ERROR)


def _failures(folder: Path) -> list[tuple[str, str]]:
    """What this machine's processes said when they failed: `refused` with a message or `failed` with a traceback."""
    return [_read(path) for path in sorted(folder.glob(f"{FAILED}-*"))]


def _write(path: Path, value: Any) -> None:
    """Into a folder that only this run's own processes can write, so that what is read there may be pickles."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(pickle.dumps(value))
    part.replace(path)


def _read(path: Path) -> Any:
    return pickle.loads(path.read_bytes())
