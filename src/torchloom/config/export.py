"""The block `export` of a task."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from torchloom.config.base import Block, Count, Positive
from torchloom.config.compression import CompareConfig


class ExportConfig(Block):
    """The block `export`."""

    opset: int = Field(20, ge=18, description="version of the ONNX operators")
    tolerance: Positive = Field(
        1e-3,
        description="greatest difference of an output between PyTorch and ONNX Runtime, as a share of the output's "
        "greatest value where that is above 1",
    )
    batch_sizes: list[Count] = Field([1, 3, 64], min_length=1, description="numbers of test samples compared at once")
    formats: list[Literal["torch_export", "aot_inductor", "torchscript"]] = Field(
        [], description="other formats than ONNX to save the model in; see torchloom/export/formats.py"
    )
    compare: CompareConfig = Field(
        default_factory=CompareConfig, description="how the formats are measured side by side"
    )

    @field_validator("opset")
    @classmethod
    def _known(cls, opset: int) -> int:
        import onnx

        if opset > onnx.defs.onnx_opset_version():
            raise ValueError(
                f"must be at most {onnx.defs.onnx_opset_version()}, the newest that the installed onnx has"
            )
        return opset
