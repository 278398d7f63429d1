"""The stage that only a quantisation has; torch is imported inside it, as in all stages."""

from __future__ import annotations

import logging

from torchloom.config import QuantizeConfig
from torchloom.problems.classification import check_classifier
from torchloom.training.checkpoint import Checkpoint
from torchloom.training.loaders import LoaderPlan

logger = logging.getLogger(__name__)


def quantize(checkpoint: Checkpoint, onnx_model: bytes, loaders: LoaderPlan, config: QuantizeConfig) -> bytes:
    """The checkpoint's ONNX model in 8 bits, calibrated on training samples drawn at random, not augmented.

    Raises InputError unless it is a classifier.
    """
    from torchloom.compression.quantization import int8_share, quantize_model
    from torchloom.system.progress import working

    check_classifier(checkpoint)
    samples = loaders.samples("train", config.samples, drawn=True)
    with working("calibrating and quantizing"):
        quantized = quantize_model(onnx_model, {name: tensor.numpy() for name, tensor in samples.items()}, config)
    sizes = len(onnx_model) / 1000, len(quantized) / 1000
    logger.info("%.1f kB became %.1f kB, with %.1f %% of the weights in int8", *sizes, 100 * int8_share(quantized))
    return quantized
