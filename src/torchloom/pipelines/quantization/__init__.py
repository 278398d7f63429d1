from torchloom.pipelines.quantization.pipeline import create_pipeline
from torchloom.problems.classification import Classification

__all__ = ["PARENT", "TRAINS", "create_pipeline"]

PARENT = Classification  # what the models must be for that it starts from
TRAINS = False  # what it makes is an ONNX file
