"""What smaller models take: the blocks `quantize` and `compare`, and parts of `train`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from torchloom.config.base import Block, Count, Positive


class PruneConfig(Block):
    """Which weights of convolutions and dense layers are cut out."""

    amount: float = Field(0.5, gt=0, lt=1, description="share of the weights, or of the channels, that is cut")
    form: Literal["unstructured", "structured"] = Field(
        "unstructured",
        description="unstructured: single weights become zero and the model keeps its shape; structured: whole "
        "channels go, and with them size and time",
    )
    scope: Literal["global", "layer"] = Field(
        "global", description="whether the smallest of all, or the same share of each layer"
    )
    multiple: Count = Field(
        16,
        description="of structured pruning: channels are left in multiples of so many, which processors are fast with",
    )
    epochs: Count = Field(3, description="epochs over which the share grows; in those that are left nothing is cut")
    exclude: list[str] = Field(
        [], description="names or patterns (network.stem.*) as in model.named_parameters() of weights that stay"
    )


class DistillConfig(Block):
    """How a student learns from its teacher."""

    temperature: Positive = Field(4.0, description="divides both models' logits before they are compared")
    mix: float = Field(0.9, ge=0, le=1, description="share of the teacher in the loss; the labels have the rest")


class QuantizeConfig(Block):
    """The block `quantize`: weights and activations in 8 bits."""

    samples: Count = Field(
        1000, description="training samples, drawn at random, that the ranges of the activations are taken from"
    )
    calibration: Literal["minmax", "entropy", "percentile"] = Field(
        "minmax", description="how a range follows from the activations that were seen"
    )
    exclude: list[str] = Field([], description="names of nodes of the ONNX graph that stay as they are")


class CompareConfig(Block):
    """The block `compare`: how the model before and the one after are measured."""

    batch_size: Count = Field(128, description="samples at once for the throughput; the latency is that of one")
    turns: Count = Field(5, description="measurements of each, in turns; the medians count")
    seconds: Positive = Field(0.5, description="that each measurement takes at least")
    threads: Count | None = Field(None, description="CPU threads; none leaves it to ONNX Runtime and PyTorch")
