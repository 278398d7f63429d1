"""The block `distributed`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from torchloom.config.base import Block, Count, Positive


class DistributedConfig(Block):
    """The block `distributed`: the processes that train a network together, for all tasks the same.

    `train.batch_size` is that of all of them together; each works on its part.
    """

    processes: Count | Literal["auto"] = Field(
        1, description="on this machine; auto is one for each GPU, and on a single machine without GPUs two"
    )
    machines: Count = Field(1, description="that take part; the same command is started on each")
    address: str | None = Field(None, description="host:port on one of the machines, where all of them meet")
    sync_batch_norm: bool = Field(
        True, description="whether batch norm looks at the batches of all processes, or each at its own"
    )
    restarts: int = Field(3, ge=0, description="times that all begin again from the last state when one was lost")
    timeout: Positive = Field(600.0, description="seconds to wait for other machines to come, and for an answer")

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, address: str | None) -> str | None:
        host, _, port = (address or "localhost:1").rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError("must be host:port, such as 10.0.0.1:29400")
        return address

    @model_validator(mode="after")
    def _meeting_point(self) -> DistributedConfig:
        if self.machines > 1 and self.address is None:
            raise ValueError(f"address: is missing; {self.machines} machines must know where to meet")
        return self

    @property
    def alone(self) -> bool:
        """Whether the training is one process, this one."""
        return self.processes == 1 and self.machines == 1

    def recipe(self) -> dict[str, Any]:
        """What decides the outcome, as JSON has it."""
        return self.model_dump(mode="json", include={"processes", "machines", "sync_batch_norm"})
