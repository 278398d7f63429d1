"""What a federation takes: the block `partition`, and a part of `train`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from torchloom.config.base import Block, Count, Seed


class StrategyConfig(Block):
    """How the server joins what the clients have learnt; a strategy of flwr.serverapp.strategy by its class name."""

    name: Literal["FedAvg", "FedProx"] = Field(
        "FedAvg", description="both average the weights; with FedProx clients are held near the weights they got"
    )
    proximal_mu: float | None = Field(
        None, gt=0, allow_inf_nan=False, validate_default=True, description="FedProx adds mu / 2 * ||w - w_global||²"
    )

    @field_validator("proximal_mu")
    @classmethod
    def _of_fedprox(cls, mu: float | None, info: ValidationInfo) -> float | None:
        if info.data.get("name") == "FedProx" and mu is None:
            raise ValueError("FedProx needs it, a number greater than 0")
        if info.data.get("name") == "FedAvg" and mu is not None:
            raise ValueError("is for FedProx only; leave it out, or give it as null")
        return mu


class FederatedConfig(Block):
    """How a federation trains, round by round."""

    rounds: Count = Field(20, description="how often the clients' weights are averaged")
    fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the clients that train in a round, drawn anew; their number is rounded down",
    )
    strategy: StrategyConfig = Field(
        default_factory=StrategyConfig, description="how the server joins the clients' weights"
    )
    processes: Count | None = Field(
        None, description="clients that train at the same time; none: one for each core, or a single one on a GPU"
    )


class PartitionConfig(Block):
    """The block `partition` of a federated task: which client has which of the training samples."""

    clients: Count = Field(10, description="that the training samples are dealt out to, in equal numbers")
    name: Literal["iid", "dirichlet"] = Field(
        "iid", description="iid: by chance; dirichlet: each client with classes in proportions of its own"
    )
    alpha: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        validate_default=True,
        description="of dirichlet, Dir(alpha * p): the smaller, the more the clients' classes differ; 0.1 leaves most "
        "with one or two",
    )
    seed: Seed = Field(0, description="draws them")

    @field_validator("alpha")
    @classmethod
    def _of_dirichlet(cls, alpha: float | None, info: ValidationInfo) -> float | None:
        if info.data.get("name") == "dirichlet" and alpha is None:
            raise ValueError("dirichlet needs it, a number greater than 0")
        if info.data.get("name") == "iid" and alpha is not None:
            raise ValueError("is for dirichlet only; leave it out, or give it as null")
        return alpha
