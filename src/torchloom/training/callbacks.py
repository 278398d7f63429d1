"""Callbacks of a training: those that its parameters name, a study that may end it, a tracker, a debugger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from torchloom.config import CallbackConfig, own
from torchloom.config.checks import UnknownNameError, arguments_of, check_call

if TYPE_CHECKING:
    from torch import Tensor, nn


class Callback:
    """One of the user's own, made anew for each training: `train.callbacks: [{name: my_project.callbacks.Norms}]`.

    Of several processes that train together each has one, and sees its own part of the batches. A training that was
    interrupted goes on with a new one.
    """

    def on_step(self, step: int, model: nn.Module, loss: Tensor) -> None:
        """After an optimiser step, counted from 1 over the whole training, while its gradients are still there.

        `loss` () is that of the last batch, on the device: looking at its value waits for the device. In fp16 the
        gradients are scaled.
        """

    def on_epoch(self, row: dict[str, float]) -> bool | None:
        """When an epoch is over: its row of the history. True ends the training."""


def check_callback(name: str, arguments: dict[str, Any]) -> None:
    """Raise UnknownNameError unless `name` leads to a callback, and ArgumentError when it does not take `arguments`."""
    own.chosen(name, (), "a callback by its dotted path,", parent=Callback)
    found: Any = own.find(name)
    if found.on_step is Callback.on_step and found.on_epoch is Callback.on_epoch:
        raise UnknownNameError(name, "has neither on_step nor on_epoch, which are all that is called")
    check_call(arguments_of(found), arguments)


def create_callbacks(configs: Iterable[CallbackConfig]) -> list[Callback]:
    return [own.find(config.name)(**config.arguments) for config in configs]


# Each is called with the history's row of an epoch that is over, and says whether the training is over too; so it is
# when one of them raises something.
EpochCallback = Callable[[dict[str, float]], bool | None]
epoch_callbacks: ContextVar[tuple[EpochCallback, ...]] = ContextVar("epoch_callbacks", default=())


@contextmanager
def calling_back(callback: EpochCallback) -> Iterator[None]:
    """Trainings within call it too."""
    token = epoch_callbacks.set((*epoch_callbacks.get(), callback))
    try:
        yield
    finally:
        epoch_callbacks.reset(token)


def over(row: dict[str, float], callbacks: Iterable[Callback] = ()) -> bool:
    """Call all of them with the row; whether one of them says that the training is over."""
    return True in [call(row) for call in (*epoch_callbacks.get(), *(callback.on_epoch for callback in callbacks))]
